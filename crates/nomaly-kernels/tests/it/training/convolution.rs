//! Convolutions and their gradients.

use nomaly_kernels::WindowError;
use nomaly_kernels::geometry::Padding;
use nomaly_kernels::training::{Conv2d, ConvShape, ConvTranspose2d, ConvTransposeShape, TrainingError, linear};
use proptest::prelude::*;

use super::{dot, numeric_gradient, on_every_isa, wide};
use crate::oracle::{assert_close, tolerance, values};

/// All results of one geometry: output, and the gradients of input, weight and bias for a given gradient of the output.
#[derive(Clone, Debug, Default, PartialEq)]
struct Results<T> {
    output: Vec<T>,
    input: Vec<T>,
    weight: Vec<T>,
    bias: Vec<T>,
}

/// Each product of the definition, one by one.
fn naive(shape: &ConvShape, images: usize, x: &[f64], w: &[f64], bias: &[f64], g: &[f64]) -> Results<f64> {
    let ConvShape { in_channels, out_channels, input: [height, width], kernel, stride, padding, groups } = *shape;
    let [inputs, outputs] = [in_channels / groups, out_channels / groups];
    let rows = (height + padding.top + padding.bottom - kernel[0]) / stride[0] + 1;
    let columns = (width + padding.left + padding.right - kernel[1]) / stride[1] + 1;
    let mut results = Results {
        output: vec![0.0; images * out_channels * rows * columns],
        input: vec![0.0; x.len()],
        weight: vec![0.0; w.len()],
        bias: vec![0.0; out_channels],
    };
    for place in 0..results.output.len() {
        let (oy, ox) = (place / columns % rows, place % columns);
        let (o, n) = (place / (rows * columns) % out_channels, place / (rows * columns * out_channels));
        results.output[place] = bias[o];
        let g = g.get(place).copied().unwrap_or(0.0);
        results.bias[o] += g;
        for i in 0..inputs {
            for ky in 0..kernel[0] {
                for kx in 0..kernel[1] {
                    let (y, x_) = (oy * stride[0] + ky, ox * stride[1] + kx);
                    if y < padding.top || x_ < padding.left || y - padding.top >= height || x_ - padding.left >= width {
                        continue;
                    }
                    let channel = o / outputs * inputs + i;
                    let from = ((n * in_channels + channel) * height + y - padding.top) * width + x_ - padding.left;
                    let weight = ((o * inputs + i) * kernel[0] + ky) * kernel[1] + kx;
                    results.output[place] += x[from] * w[weight];
                    results.input[from] += g * w[weight];
                    results.weight[weight] += g * x[from];
                }
            }
        }
    }
    results
}

fn square(channels: [usize; 2], input: [usize; 2], kernel: usize, stride: usize, padding: usize) -> ConvShape {
    ConvShape {
        in_channels: channels[0],
        out_channels: channels[1],
        input,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: Padding::symmetric(padding),
        groups: 1,
    }
}

/// Input, weight, bias and gradient of the output.
fn tensors(conv: &Conv2d, images: usize) -> [Vec<f32>; 4] {
    [
        values(images * conv.input_len(), 1),
        values(conv.weight_len(), 2),
        values(conv.shape().out_channels, 3),
        values(images * conv.output_len(), 4),
    ]
}

fn check(shape: ConvShape, images: usize) {
    let plan = Conv2d::new(nomaly_kernels::Isa::Portable, shape).expect("a valid shape");
    let [x, w, b, g] = tensors(&plan, images);
    let want = naive(&shape, images, &wide(&x), &wide(&w), &wide(&b), &wide(&g));
    let compute = |isa| {
        let conv = Conv2d::new(isa, shape).expect("a valid shape");
        // Previous contents must not show.
        let mut results = Results {
            output: vec![f32::NAN; g.len()],
            input: vec![f32::NAN; x.len()],
            weight: vec![f32::NAN; w.len()],
            bias: vec![f32::NAN; b.len()],
        };
        conv.forward(&x, &w, Some(&b), &mut results.output).unwrap();
        conv.input_gradient(&g, &w, &mut results.input).unwrap();
        conv.weight_gradient(&x, &g, &mut results.weight).unwrap();
        conv.bias_gradient(&g, &mut results.bias).unwrap();
        results
    };
    on_every_isa(compute, |isa, got| {
        let window = shape.kernel[0] * shape.kernel[1];
        let positions = images * plan.output()[0] * plan.output()[1];
        assert_close(
            &got.output,
            &want.output,
            tolerance(shape.in_channels / shape.groups * window),
            &("output", isa, shape),
        );
        assert_close(
            &got.input,
            &want.input,
            tolerance(shape.out_channels / shape.groups * window),
            &("input", isa, shape),
        );
        assert_close(&got.weight, &want.weight, tolerance(positions), &("weight", isa, shape));
        assert_close(&got.bias, &want.bias, tolerance(positions), &("bias", isa, shape));
    });
}

#[test]
fn layers_that_are_shared_and_cut() {
    // Several output pairs with a block left over, rows that are no multiple of a tile.
    check(square([40, 36], [20, 17], 3, 1, 1), 3);
    // Few input channels.
    check(square([3, 16], [16, 16], 3, 1, 1), 5);
    // The input's gradient has four phases, of different sizes.
    check(square([64, 70], [9, 10], 3, 2, 1), 2);
    // A reduction in chunks, in both directions.
    check(square([300, 310], [4, 4], 3, 1, 1), 3);
    // Bands of rows.
    check(square([16, 8], [100, 80], 3, 1, 1), 1);
    check(square([48, 40], [60, 64], 3, 2, 1), 1);
    // Flat positions across images, and a stride that skips inputs.
    check(square([40, 20], [5, 5], 1, 1, 0), 30);
    check(square([48, 32], [8, 9], 1, 2, 0), 6);
    // A stride without a specialised tile.
    check(square([9, 7], [16, 14], 5, 3, 2), 3);
    // Two rows share a tile.
    check(square([32, 64], [4, 4], 3, 1, 1), 7);
}

#[test]
fn groups_of_many_channels() {
    // Dense kernels side by side: two output pairs a group, and groups that end within a block.
    check(ConvShape { groups: 2, ..square([40, 72], [9, 8], 3, 1, 1) }, 3);
    check(ConvShape { groups: 3, ..square([60, 51], [8, 9], 3, 2, 1) }, 2);
    check(ConvShape { groups: 4, ..square([64, 80], [5, 5], 1, 1, 0) }, 9);
}

#[test]
fn groups_of_few_channels() {
    // As in ResNeXt, and more outputs than inputs.
    check(ConvShape { groups: 8, ..square([32, 32], [14, 14], 3, 1, 1) }, 2);
    check(ConvShape { groups: 5, ..square([15, 40], [9, 17], 3, 2, 1) }, 3);
    check(ConvShape { groups: 6, ..square([6, 12], [33, 18], 5, 1, 2) }, 2);
}

#[test]
fn depthwise_layers() {
    let depthwise = |channels, input, kernel, stride, padding| ConvShape {
        groups: channels,
        ..square([channels, channels], input, kernel, stride, padding)
    };
    // The widths of EfficientNet: rows shorter than a vector, of whole vectors, and with a rest.
    for (width, kernel, stride) in [
        (7, 3, 1),
        (7, 5, 1),
        (7, 5, 2),
        (14, 3, 1),
        (14, 5, 1),
        (14, 5, 2),
        (28, 3, 2),
        (29, 5, 2),
        (32, 3, 1),
        (56, 5, 2),
        (41, 7, 1),
        (40, 7, 2),
        // No instantiation of their own.
        (17, 4, 1),
        (19, 3, 3),
        (20, 2, 2),
        (6, 1, 1),
        (9, 1, 2),
    ] {
        check(depthwise(5, [width, width], kernel, stride, kernel / 2), 3);
        let shape = depthwise(3, [width + 1, width], kernel, stride, 0);
        let same = Padding::same(shape.input, shape.kernel, shape.stride);
        check(ConvShape { padding: same, ..shape }, 2);
    }
    // Bands of rows.
    check(depthwise(2, [150, 112], 3, 1, 1), 2);
    check(depthwise(2, [150, 113], 5, 2, 2), 1);
    // Fewer rows than a tile, and a window as large as the image.
    check(depthwise(4, [2, 30], 3, 1, 1), 2);
    check(depthwise(4, [3, 3], 3, 1, 0), 3);
    // Enough for several units of work and chunks of images.
    check(depthwise(50, [28, 28], 3, 1, 1), 2);
}

#[test]
fn a_window_as_large_as_the_image_is_a_linear_layer() {
    check(square([20, 36], [4, 4], 4, 1, 0), 5);
    check(ConvShape { kernel: [3, 2], ..square([3, 2], [3, 2], 1, 2, 0) }, 4);
}

#[test]
fn a_linear_layer_is_a_matrix_product() {
    let shape = *linear(nomaly_kernels::Isa::Portable, 70, 33).unwrap().shape();
    check(shape, 200);
    check(shape, 1);
}

#[test]
fn no_images_give_no_gradient() {
    let conv = Conv2d::new(nomaly_kernels::Isa::best().unwrap(), square([2, 3], [4, 4], 3, 1, 1)).unwrap();
    let mut weight = vec![1.0; conv.weight_len()];
    conv.weight_gradient(&[], &[], &mut weight).unwrap();
    assert!(weight.iter().all(|value| *value == 0.0));
    conv.forward(&[], &vec![0.0; conv.weight_len()], None, &mut []).unwrap();
}

prop_compose! {
    fn shapes()(
        in_channels in 1usize..20,
        out_channels in 1usize..36,
        kernel in [1usize..5, 1usize..5],
        stride in [1usize..4, 1usize..4],
        groups in prop_oneof![Just(1), 2usize..5],
    )(
        top in 0..kernel[0],
        bottom in 0..kernel[0],
        left in 0..kernel[1],
        right in 0..kernel[1],
        height in kernel[0]..kernel[0] + 9,
        width in kernel[1]..kernel[1] + 9,
        in_channels in Just(in_channels.next_multiple_of(groups)),
        out_channels in Just(out_channels.next_multiple_of(groups)),
        groups in Just(groups),
        kernel in Just(kernel),
        stride in Just(stride),
    ) -> ConvShape {
        let padding = Padding { top, bottom, left, right };
        ConvShape { in_channels, out_channels, input: [height, width], kernel, stride, padding, groups }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn any_geometry(shape in shapes(), images in 1usize..4) {
        check(shape, images);
    }

    /// The gradients of the reference loops agree with finite differences of their own outputs.
    #[test]
    fn the_reference_has_the_gradient_of_finite_differences(
        mut shape in shapes(),
        channels in [1usize..3, 1usize..3],
    ) {
        [shape.in_channels, shape.out_channels] = channels.map(|channels| channels.next_multiple_of(shape.groups));
        let conv = Conv2d::new(nomaly_kernels::Isa::Portable, shape).unwrap();
        let [x, w, b, g] = tensors(&conv, 1);
        let (x, w, b) = (wide(&x), wide(&w), wide(&b));
        let analytic = naive(&shape, 1, &x, &w, &b, &wide(&g));
        let loss = |x: &[f64], w: &[f64], b: &[f64]| dot(&naive(&shape, 1, x, w, b, &[]).output, &g);
        for (analytic, numeric) in [
            (&analytic.input, numeric_gradient(&x, |x| loss(x, &w, &b))),
            (&analytic.weight, numeric_gradient(&w, |w| loss(&x, w, &b))),
            (&analytic.bias, numeric_gradient(&b, |b| loss(&x, &w, b))),
        ] {
            for (analytic, numeric) in analytic.iter().zip(numeric) {
                // The loss is linear in each argument: only rounding of sums of a few hundred terms, over the step of
                // 1e-5.
                prop_assert!((analytic - numeric).abs() < 1e-7, "{analytic} {numeric}");
            }
        }
    }

    #[test]
    fn a_transposed_convolution_is_the_adjoint_of_a_convolution(
        channels in [1usize..40, 1usize..40],
        input in [1usize..8, 1usize..8],
        kernel in 1usize..4,
        stride in 1usize..4,
        extra in 0usize..2,
        images in 1usize..4,
    ) {
        let shape = ConvTransposeShape {
            in_channels: channels[0],
            out_channels: channels[1],
            input,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: Padding::symmetric((kernel - 1) / 2),
            output_padding: [extra.min(stride - 1); 2],
        };
        let plan = ConvTranspose2d::new(nomaly_kernels::Isa::Portable, shape).unwrap();
        let x = values(images * plan.input_len(), 1);
        let w = values(plan.weight_len(), 2);
        let b = values(shape.out_channels, 3);
        let g = values(images * plan.output_len(), 4);
        // The reverse convolution: its input gradient is the output here, and so on.
        let inverse = ConvShape {
            in_channels: channels[1],
            out_channels: channels[0],
            input: plan.output(),
            kernel: shape.kernel,
            stride: shape.stride,
            padding: shape.padding,
            groups: 1,
        };
        let zeros = vec![0.0; channels[0]];
        let back = naive(&inverse, images, &wide(&g), &wide(&w), &zeros, &wide(&x));
        let [height, width] = plan.output();
        let want: Vec<f64> = back.input.iter().enumerate()
            .map(|(i, v)| v + f64::from(b[i / (height * width) % channels[1]]))
            .collect();
        on_every_isa(
            |isa| {
                let conv = ConvTranspose2d::new(isa, shape).unwrap();
                let mut results = Results {
                    output: vec![f32::NAN; g.len()],
                    input: vec![f32::NAN; x.len()],
                    weight: vec![f32::NAN; w.len()],
                    bias: vec![f32::NAN; b.len()],
                };
                conv.forward(&x, &w, Some(&b), &mut results.output).unwrap();
                conv.input_gradient(&g, &w, &mut results.input).unwrap();
                conv.weight_gradient(&x, &g, &mut results.weight).unwrap();
                conv.bias_gradient(&g, &mut results.bias).unwrap();
                results
            },
            |isa, got| {
                let window = kernel * kernel;
                let positions = images * height * width;
                assert_close(&got.output, &want, tolerance(channels[0] * window + 1), &("output", isa, shape));
                assert_close(&got.input, &back.output, tolerance(channels[1] * window), &("input", isa, shape));
                assert_close(&got.weight, &back.weight, tolerance(positions), &("weight", isa, shape));
                let sums: Vec<f64> = (0..channels[1])
                    .map(|c| g.chunks(height * width).skip(c).step_by(channels[1]).flat_map(wide).sum())
                    .collect();
                assert_close(&got.bias, &sums, tolerance(positions), &("bias", isa, shape));
            },
        );
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let isa = nomaly_kernels::Isa::Portable;
    let good = square([2, 3], [5, 5], 3, 1, 1);
    let error = |shape| Conv2d::new(isa, shape).map(|_| ()).unwrap_err();
    assert_eq!(
        error(ConvShape { in_channels: 0, ..good }).to_string(),
        "the number of input channels must not be zero"
    );
    assert_eq!(
        error(ConvShape { kernel: [9, 3], ..good }),
        WindowError::KernelTooLarge { kernel: [9, 3], padded: [7, 7] }.into()
    );
    assert_eq!(
        error(ConvShape { padding: Padding::symmetric(3), ..good }),
        WindowError::PaddingTooLarge { padding: 3, kernel: 3 }.into()
    );
    assert_eq!(error(ConvShape { input: [usize::MAX / 2, 5], ..good }), TrainingError::TooLarge { what: "the input" });
    assert_eq!(error(ConvShape { groups: 2, ..good }), TrainingError::Groups { groups: 2, channels: [2, 3] });
    let conv = Conv2d::new(isa, good).unwrap();
    let (weight, mut output) = (vec![0.0; 54], vec![0.0; 75]);
    assert_eq!(
        conv.forward(&[0.0; 49], &weight, None, &mut output).unwrap_err().to_string(),
        "the input has 49 values, which is not a multiple of the 50 values of one sample"
    );
    assert_eq!(
        conv.forward(&[0.0; 50], &weight, Some(&[0.0; 2]), &mut output).unwrap_err().to_string(),
        "the bias has 2 values, expected 3"
    );
    let transposed = ConvTransposeShape {
        in_channels: 1,
        out_channels: 1,
        input: [3, 3],
        kernel: [2, 2],
        stride: [2, 2],
        padding: Padding::default(),
        output_padding: [2, 0],
    };
    let error = ConvTranspose2d::new(isa, transposed).unwrap_err();
    assert_eq!(error, TrainingError::TransposedSize { input: [3, 3], output_padding: [2, 0] });
}
