//! Every operation in random geometry against the oracle.

use nomaly_kernels::isa::Isa;
use nomaly_kernels::network::*;
use proptest::prelude::*;

use crate::oracle::{ACTIVATIONS, Tensor, activate, assert_close, tolerance, values};

/// A small shape, window and epilogue.
#[derive(Clone, Debug)]
struct Case {
    channels: usize,
    out: usize,
    size: [usize; 2],
    window: Pool2d,
    activation: Activation,
    bias: bool,
    residual: bool,
    /// Inserts an affine map before the operation, so that it does not read the input directly.
    behind: bool,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let axis = || {
        (1usize..6, 1usize..24)
            .prop_flat_map(|(kernel, size)| (Just(kernel), Just(size), 0..kernel, 0..kernel, 1usize..5))
            .prop_filter("the kernel must fit", |(kernel, size, before, after, _)| size + before + after >= *kernel)
    };
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (axis(), axis(), 1usize..70, 1usize..80, 0..ACTIVATIONS.len(), flags, any::<u64>()).prop_map(
        |(rows, columns, channels, out, activation, (bias, residual, behind), seed)| Case {
            channels: if seed % 4 == 0 { 1 + channels % 5 } else { channels },
            out,
            size: [rows.1, columns.1],
            window: Pool2d {
                kernel: [rows.0, columns.0],
                stride: [rows.4, columns.4],
                padding: Padding { top: rows.2, bottom: rows.3, left: columns.2, right: columns.3 },
            },
            activation: ACTIVATIONS[activation],
            bias,
            residual,
            behind,
            seed,
        },
    )
}

/// Builds with `build` on every instruction set, runs for one image and compares.
fn check(
    case: &Case,
    build: impl Fn(&mut NetworkBuilder, NodeId) -> NodeId,
    expect: impl Fn(&Tensor) -> Tensor,
    tolerance: f64,
) {
    check_with(Algorithm::Auto, case, build, expect, tolerance);
}

/// [`check`] with a forced algorithm.
fn check_with(
    algorithm: Algorithm,
    case: &Case,
    build: impl Fn(&mut NetworkBuilder, NodeId) -> NodeId,
    expect: impl Fn(&Tensor) -> Tensor,
    tolerance: f64,
) {
    let shape = [case.channels, case.size[0], case.size[1]];
    let input = values(shape.iter().product(), case.seed);
    let (scale, shift) = (values(case.channels, case.seed ^ 1), values(case.channels, case.seed ^ 2));
    let image = Tensor::new(shape, &input);
    let want = expect(&if case.behind { image.affine(&scale, &shift) } else { image });
    for isa in Isa::available() {
        let mut net = NetworkBuilder::new(isa);
        net.set_algorithm(algorithm);
        let mut x = net.input(shape[0], shape[1], shape[2]);
        if case.behind {
            x = net.affine(x, &scale, &shift, Activation::Identity).unwrap();
        }
        let y = build(&mut net, x);
        assert_eq!(net.shape(y), want.shape);
        let net = net.finish(&[(y, OutputLayout::Nchw), (y, OutputLayout::Rows), (y, OutputLayout::Mean)]).unwrap();
        let mut outputs = vec![Vec::new(); 3];
        net.run(&input, 1, &mut net.workspace(1), &mut outputs).unwrap();
        assert_close(&outputs[0], &want.data, tolerance, &(isa, "Nchw", case));
        assert_close(&outputs[1], &want.rows(), tolerance, &(isa, "Rows", case));
        assert_close(&outputs[2], &want.mean().data, tolerance * 2.0, &(isa, "Mean", case));
    }
}

fn check_conv(case: &Case, depthwise: bool) {
    check_conv_with(Algorithm::Direct, case, depthwise);
}

fn check_conv_with(algorithm: Algorithm, case: &Case, depthwise: bool) {
    let (groups, out) = if depthwise { (case.channels, case.channels) } else { (1, case.out) };
    let Pool2d { kernel, stride, padding } = case.window;
    let taps = case.channels / groups * kernel[0] * kernel[1];
    let (first, second) = (values(out * taps, case.seed ^ 3), values(out * taps, case.seed ^ 4));
    let bias = values(out, case.seed ^ 5);
    let bias = case.bias.then_some(&bias[..]);
    let conv = |weight, activation, residual| ConvLayer {
        out_channels: out,
        kernel,
        stride,
        padding,
        groups,
        weight,
        bias,
        activation,
        residual,
    };
    // The transforms multiply the rounding error of a sum by their factors, squared for two dimensions.
    let amplification = match algorithm {
        Algorithm::Winograd2 => 4.0,
        Algorithm::Winograd4 => 16.0,
        _ => 1.0,
    };
    check_with(
        algorithm,
        case,
        |net, x| {
            let residual = case.residual.then(|| net.conv2d(x, conv(&first, Activation::Identity, None)).unwrap());
            net.conv2d(x, conv(&second, case.activation, residual)).unwrap()
        },
        |x| {
            let mut y = x.conv(out, kernel, stride, padding, groups, &second, bias);
            if case.residual {
                y = y.add(&x.conv(out, kernel, stride, padding, groups, &first, bias));
            }
            y.map(|v| activate(case.activation, v))
        },
        // After the affine map, values lie in [-2, 2].
        tolerance(2 * taps) * 2.0 * amplification,
    );
}

fn bias_of(count: usize) -> Vec<f32> {
    values(count, 99)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn dense_convolution(case in cases()) {
        check_conv(&case, false);
    }

    #[test]
    fn pointwise_convolution(mut case in cases()) {
        case.window = Pool2d { kernel: [1, 1], stride: [1, 1], padding: Padding::default() };
        check_conv(&case, false);
    }

    #[test]
    fn winograd_convolution(mut case in cases()) {
        // Random sizes, padding and channels, including those for which the direct kernel would be chosen.
        case.window.kernel = [3, 3];
        case.window.stride = [1, 1];
        let p = case.window.padding;
        let (tall, wide) = (3usize.saturating_sub(case.size[0]), 3usize.saturating_sub(case.size[1]));
        case.window.padding =
            Padding { top: p.top.min(2), bottom: p.bottom.min(2), left: p.left.min(2), right: p.right.min(2) };
        case.size = [case.size[0] + tall, case.size[1] + wide];
        check_conv_with(Algorithm::Winograd2, &case, false);
        check_conv_with(Algorithm::Winograd4, &case, false);
    }

    #[test]
    fn depthwise_convolution(case in cases()) {
        check_conv(&case, true);
    }

    #[test]
    fn pooling(case in cases()) {
        let window = case.window;
        let area = window.kernel[0] * window.kernel[1];
        let largest = |v: &[f64]| v.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        check(&case, |net, x| net.max_pool(x, window).unwrap(), |x| x.pool(&window, largest), tolerance(1));
        for whole in [false, true] {
            let mean = |v: &[f64]| v.iter().sum::<f64>() / if whole { area } else { v.len() } as f64;
            check(&case, |net, x| net.avg_pool(x, window, whole).unwrap(), |x| x.pool(&window, mean), tolerance(8));
        }
    }

    #[test]
    fn sums_maps_and_attention(case in cases()) {
        let c = case.channels;
        let (scale, shift) = (values(c, 7), values(c, 8));
        check(
            &case,
            |net, x| {
                let y = net.affine(x, &scale, &shift, case.activation).unwrap();
                net.add(x, y, case.activation).unwrap()
            },
            |x| {
                let y = x.affine(&scale, &shift).map(|v| activate(case.activation, v));
                x.add(&y).map(|v| activate(case.activation, v))
            },
            tolerance(4),
        );
        let reduced = 1 + case.out % 9;
        let (w1, b1, w2, b2) = (values(reduced * c, 9), values(reduced, 10), values(c * reduced, 11), values(c, 12));
        let se = SqueezeExcite {
            reduced,
            reduce_weight: &w1,
            reduce_bias: &b1,
            activation: case.activation,
            expand_weight: &w2,
            expand_bias: &b2,
        };
        check(
            &case,
            |net, x| net.squeeze_excite(x, se).unwrap(),
            |x| {
                let one = [1, 1];
                let squeezed = x.mean().conv(reduced, one, one, Padding::default(), 1, &w1, Some(&b1));
                let squeezed = squeezed.map(|v| activate(case.activation, v));
                let gate = squeezed.conv(c, one, one, Padding::default(), 1, &w2, Some(&b2));
                let gate: Vec<f32> = gate.data.iter().map(|v| activate(Activation::Sigmoid, *v) as f32).collect();
                x.affine(&gate, &vec![0.0; c])
            },
            tolerance(4 * c),
        );
    }

    #[test]
    fn inverted_bottleneck(case in cases()) {
        let (channels, wide, out) = (case.channels.min(40), case.out, 1 + case.channels / 2);
        let Pool2d { kernel, stride, padding } = case.window;
        let expand = values(wide * channels, case.seed ^ 11);
        let depthwise = values(wide * kernel[0] * kernel[1], case.seed ^ 12);
        let project = values(out * wide, case.seed ^ 13);
        let bias = values(wide.max(out), case.seed ^ 14);
        let (reduce, gate) = (values(3 * wide, case.seed ^ 15), values(wide * 3, case.seed ^ 16));
        let conv = |weight, out_channels, kernel, stride, padding, groups, activation| ConvLayer {
            out_channels,
            kernel,
            stride,
            padding,
            groups,
            weight,
            bias: Some(&bias[..out_channels]),
            activation,
            residual: None,
        };
        let none = Padding::default();
        let case = Case { channels, ..case.clone() };
        let taps = kernel[0] * kernel[1];
        check(
            &case,
            |net, x| {
                let y = net.conv2d(x, conv(&expand, wide, [1, 1], [1, 1], none, 1, case.activation)).unwrap();
                let groups = wide.max(2);
                let y = if wide == 1 { y } else {
                    net.conv2d(y, conv(&depthwise, wide, kernel, stride, padding, groups, case.activation)).unwrap()
                };
                let attention = SqueezeExcite {
                    reduced: 3,
                    reduce_weight: &reduce,
                    reduce_bias: &bias_of(3),
                    activation: Activation::Relu6,
                    expand_weight: &gate,
                    expand_bias: &bias[..wide],
                };
                let y = net.squeeze_excite(y, attention).unwrap();
                net.conv2d(y, conv(&project, out, [1, 1], [1, 1], none, 1, Activation::Identity)).unwrap()
            },
            |x| {
                let act = |v| activate(case.activation, v);
                let y = x.conv(wide, [1, 1], [1, 1], none, 1, &expand, Some(&bias[..wide])).map(act);
                let y = if wide == 1 { y } else {
                    y.conv(wide, kernel, stride, padding, wide, &depthwise, Some(&bias[..wide])).map(act)
                };
                let reduced = y.mean().conv(3, [1, 1], [1, 1], none, 1, &reduce, Some(&bias_of(3)));
                let reduced = reduced.map(|v| activate(Activation::Relu6, v));
                let gate = reduced.conv(wide, [1, 1], [1, 1], none, 1, &gate, Some(&bias[..wide]));
                let gate = gate.map(|v| activate(Activation::Sigmoid, v));
                let mut scaled = y;
                let plane = scaled.shape[1] * scaled.shape[2];
                for (index, value) in scaled.data.iter_mut().enumerate() {
                    *value *= gate.data[index / plane];
                }
                scaled.conv(out, [1, 1], [1, 1], none, 1, &project, Some(&bias[..out]))
            },
            // Values after the depthwise convolution are sums of sums, and the errors scale with them.
            tolerance(2 * wide * (taps + 1) * (channels + 2)),
        );
    }

    #[test]
    fn classifier_head(case in cases()) {
        let (weight, bias) = (values(case.out * case.channels, 13), values(case.out, 14));
        check(
            &case,
            |net, x| {
                let mean = net.global_avg_pool(x).unwrap();
                net.linear(mean, case.out, &weight, Some(&bias)).unwrap()
            },
            |x| x.mean().conv(case.out, [1, 1], [1, 1], Padding::default(), 1, &weight, Some(&bias)),
            tolerance(4 * case.channels),
        );
    }
}

/// Layers in which Winograd's algorithm is used, with weights that fit into the cache and weights that do not: the
/// error against f64 relative to the size of the features.
#[test]
fn winograd_keeps_the_features() {
    for (channels, size, algorithm, bound) in [
        (64, [56, 56], Algorithm::Winograd4, 2e-6),
        (160, [13, 30], Algorithm::Winograd4, 2e-6),
        (160, [14, 14], Algorithm::Winograd2, 1e-6),
        (64, [28, 28], Algorithm::Direct, 1e-6),
    ] {
        let shape = [channels, size[0], size[1]];
        // After a ReLU features are positive, and the weights of a trained layer nearly cancel.
        let input: Vec<f32> = values(shape.iter().product(), 7).iter().map(|v| v.max(0.0)).collect();
        let scale = (2.0 / (9.0 * channels as f32)).sqrt();
        let weight: Vec<f32> = values(channels * channels * 9, 8).iter().map(|w| w * scale).collect();
        let padding = Padding::symmetric(1);
        let want = Tensor::new(shape, &input).conv(channels, [3, 3], [1, 1], padding, 1, &weight, None);
        let norm = (want.data.iter().map(|v| v * v).sum::<f64>() / want.data.len() as f64).sqrt();
        for isa in Isa::available() {
            let mut net = NetworkBuilder::new(isa);
            net.set_algorithm(algorithm);
            let x = net.input(shape[0], shape[1], shape[2]);
            let conv = ConvLayer {
                out_channels: channels,
                kernel: [3, 3],
                stride: [1, 1],
                padding,
                groups: 1,
                weight: &weight,
                bias: None,
                activation: Activation::Identity,
                residual: None,
            };
            let y = net.conv2d(x, conv).unwrap();
            let net = net.finish(&[(y, OutputLayout::Nchw)]).unwrap();
            let mut outputs = vec![Vec::new()];
            net.run(&input, 1, &mut net.workspace(1), &mut outputs).unwrap();
            let squares = outputs[0].iter().zip(&want.data).map(|(got, want)| (f64::from(*got) - want).powi(2));
            let error = (squares.sum::<f64>() / want.data.len() as f64).sqrt() / norm;
            println!("{isa} {algorithm:?} {shape:?}: relative error {error:.1e}");
            assert!(error < bound, "{isa} {algorithm:?} {shape:?}: relative error {error:e}");
        }
    }
}

/// Layers of real networks that random geometry seldom reaches: several chunks of the reduction, many output blocks,
/// wide rows, odd channel counts.
#[test]
fn layers_of_real_networks() {
    for (channels, out, kernel, stride, size) in [
        (600, 40, 3, 1, [7, 7]),
        (3, 64, 7, 2, [33, 47]),
        (3, 16, 3, 1, [32, 32]),
        (1, 24, 5, 2, [40, 29]),
        (40, 240, 1, 1, [28, 28]),
        (1152, 320, 1, 1, [7, 7]),
        (64, 128, 1, 2, [28, 28]),
        (24, 24, 4, 4, [64, 33]),
    ] {
        let case = Case {
            channels,
            out,
            size,
            window: Pool2d {
                kernel: [kernel, kernel],
                stride: [stride, stride],
                padding: Padding::symmetric((kernel - 1) / 2),
            },
            activation: Activation::Relu,
            bias: true,
            residual: true,
            behind: false,
            seed: 5,
        };
        check_conv(&case, false);
    }
}
