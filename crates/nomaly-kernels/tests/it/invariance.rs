//! Results do not depend on the batch, the position in it, the number of threads, or the workspace's history.

use nomaly_kernels::isa::Isa;
use nomaly_kernels::network::*;
use rayon::ThreadPoolBuilder;

use crate::oracle::values;

/// A small network with every operation, shared memory, and three outputs.
fn network(isa: Isa) -> CompiledNetwork {
    let mut net = NetworkBuilder::new(isa);
    let mut seed = 100;
    let mut conv = |net: &mut NetworkBuilder, x, out: usize, kernel: usize, stride: usize, depthwise, residual| {
        seed += 1;
        let channels = net.shape(x)[0];
        let groups = if depthwise { channels } else { 1 };
        let weight: Vec<f32> =
            values(out * channels / groups * kernel * kernel, seed).iter().map(|w| w * 0.1).collect();
        let conv = ConvLayer {
            out_channels: out,
            kernel: [kernel, kernel],
            stride: [stride, stride],
            padding: Padding::symmetric(kernel / 2),
            groups,
            weight: &weight,
            bias: Some(&values(out, seed)),
            activation: Activation::Silu,
            residual,
        };
        net.conv2d(x, conv).unwrap()
    };
    let x = net.input(3, 65, 65);
    let stem = conv(&mut net, x, 40, 7, 2, false, None);
    let pool = Pool2d { kernel: [3, 3], stride: [2, 2], padding: Padding::symmetric(1) };
    let pooled = net.max_pool(stem, pool).unwrap();
    let a = conv(&mut net, pooled, 72, 3, 1, false, None);
    let b = conv(&mut net, a, 72, 5, 1, true, None);
    let c = net
        .squeeze_excite(
            b,
            SqueezeExcite {
                reduced: 5,
                reduce_weight: &values(5 * 72, 1),
                reduce_bias: &values(5, 2),
                activation: Activation::Relu,
                expand_weight: &values(72 * 5, 3),
                expand_bias: &values(72, 4),
            },
        )
        .unwrap();
    let d = conv(&mut net, c, 40, 1, 1, false, Some(pooled));
    conv(&mut net, d, 400, 3, 1, false, None); // needed by no output
    let e = net.affine(d, &values(40, 5), &values(40, 6), Activation::Relu6).unwrap();
    // Two by Winograd's algorithm, the second with more weights than a core keeps in its cache.
    let wide = conv(&mut net, e, 160, 3, 1, false, None);
    let wide = conv(&mut net, wide, 160, 3, 1, false, None);
    let f = conv(&mut net, wide, 300, 3, 2, false, None);
    let g = net.add(f, f, Activation::Relu).unwrap();
    net.finish(&[(d, OutputLayout::Rows), (stem, OutputLayout::Nchw), (g, OutputLayout::Mean)]).unwrap()
}

fn run(
    net: &CompiledNetwork,
    threads: usize,
    input: &[f32],
    batch: usize,
    workspace: &mut NetworkWorkspace,
) -> Vec<Vec<f32>> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let mut outputs = vec![Vec::new(); net.output_count()];
    pool.install(|| net.run(input, batch, workspace, &mut outputs)).unwrap();
    outputs
}

#[test]
fn an_image_gets_the_same_bits_in_every_batch_and_with_any_number_of_threads() {
    const BATCH: usize = 11; // more than run together
    for isa in Isa::available() {
        let net = network(isa);
        let image = net.input_shape().iter().product::<usize>();
        let input = values(BATCH * image, 9);
        let mut workspace = net.workspace(BATCH);
        let reference = run(&net, 1, &input, BATCH, &mut workspace);
        assert!(reference.iter().flatten().all(|v| v.is_finite()));
        for threads in [2, 3, 7] {
            assert!(run(&net, threads, &input, BATCH, &mut workspace) == reference, "{isa}, {threads} threads");
        }
        for (index, one) in input.chunks(image).enumerate() {
            for threads in [1, 3] {
                let alone = run(&net, threads, one, 1, &mut net.workspace(1));
                for (output, alone) in alone.iter().enumerate() {
                    let len = net.output_len(output);
                    let there = &reference[output][index * len..(index + 1) * len];
                    assert!(alone == there, "{isa}: image {index}, output {output}, {threads} threads");
                }
            }
        }
        // A workspace for one image serves a batch, image by image.
        assert!(run(&net, 2, &input, BATCH, &mut net.workspace(1)) == reference);
        assert_eq!(run(&net, 2, &[], 0, &mut workspace), vec![Vec::<f32>::new(); 3]);
    }
}

#[test]
fn a_result_does_not_depend_on_what_the_workspace_held() {
    for isa in Isa::available() {
        let net = network(isa);
        let image = net.input_shape().iter().product::<usize>();
        let mut used = net.workspace(2);
        let mut ignored = vec![Vec::new(); 3];
        net.run(&vec![f32::NAN; 2 * image], 2, &mut used, &mut ignored).unwrap();
        assert!(ignored[0].iter().all(|v| v.is_nan()), "not a number must stay visible");
        let input = values(2 * image, 10);
        let (mut again, mut fresh) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
        net.run(&input, 2, &mut used, &mut again).unwrap();
        net.run(&input, 2, &mut net.workspace(2), &mut fresh).unwrap();
        assert!(again == fresh, "{isa}");
    }
}

#[test]
fn nodes_that_no_output_needs_are_not_run() {
    let net = network(Isa::Portable);
    assert!(net.steps().iter().all(|step| !step.description.contains("->400")));
    assert!(net.steps().iter().any(|step| step.description == "conv 7x7 3->40 at 33x33"));
    let input = values(3 * 65 * 65, 1);
    let mut outputs = vec![Vec::new(); 3];
    let times = net.profile(&input, 1, &mut net.workspace(1), &mut outputs).unwrap();
    assert_eq!(times.len(), net.steps().len());
}

#[test]
fn memory_is_shared_between_tensors_that_do_not_live_together() {
    let mut net = NetworkBuilder::new(Isa::Portable);
    let mut x = net.input(8, 32, 32);
    for _ in 0..20 {
        x = net.affine(x, &[1.0; 8], &[0.5; 8], Activation::Identity).unwrap();
    }
    let net = net.finish(&[(x, OutputLayout::Nchw)]).unwrap();
    assert_eq!(net.workspace(1).bytes(), 2 * 8 * 32 * 32 * 4);
    let mut outputs = vec![Vec::new()];
    net.run(&[0.0; 8 * 32 * 32], 1, &mut net.workspace(1), &mut outputs).unwrap();
    assert!(outputs[0].iter().all(|v| *v == 10.0));
}

/// An output in the middle prevents fusion of the steps around it; the results must not change.
#[test]
fn joined_steps_give_the_same_bits_as_steps_apart() {
    let (expand, depthwise, bias) = (values(48 * 24, 1), values(48 * 9, 2), values(48, 3));
    let conv = |weight, kernel, stride, groups| ConvLayer {
        out_channels: 48,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: Padding::symmetric(kernel / 2),
        groups,
        weight,
        bias: Some(&bias[..]),
        activation: Activation::Silu,
        residual: None,
    };
    for isa in Isa::available() {
        for (size, stride) in [(7, 1), (14, 2), (33, 1), (95, 2)] {
            let build = |apart: bool| {
                let mut net = NetworkBuilder::new(isa);
                let x = net.input(24, size, size + 3);
                let wide = net.conv2d(x, conv(&expand, 1, 1, 1)).unwrap();
                let y = net.conv2d(wide, conv(&depthwise, 3, stride, 48)).unwrap();
                let mean = net.global_avg_pool(y).unwrap();
                let outputs = [(y, OutputLayout::Nchw), (mean, OutputLayout::Nchw), (wide, OutputLayout::Nchw)];
                net.finish(&outputs[..if apart { 3 } else { 2 }]).unwrap()
            };
            let input = values(2 * 24 * size * (size + 3), 4);
            let (joined, apart) = (build(false), build(true));
            assert!(joined.steps().iter().any(|step| step.algorithm == "fused"));
            assert!(apart.steps().iter().all(|step| step.algorithm != "fused"));
            let a = run(&joined, 2, &input, 2, &mut joined.workspace(2));
            let b = run(&apart, 1, &input, 2, &mut apart.workspace(1));
            assert!(a[..2] == b[..2], "{isa} {size} {stride}");
        }
    }
}

/// The same for whole inverted bottlenecks, whose bands depend on the threads and the images; the next layer reads with
/// or without a border of zeros.
#[test]
fn inverted_bottlenecks_give_the_same_bits_as_steps_apart() {
    struct Block {
        size: usize,
        kernel: usize,
        stride: usize,
        expanded: bool,
        bordered: bool,
    }
    let block = |size, kernel, stride, expanded, bordered| Block { size, kernel, stride, expanded, bordered };
    for isa in Isa::available() {
        for Block { size, kernel, stride, expanded, bordered } in [
            block(7, 5, 1, true, false),
            block(14, 5, 1, true, true),
            block(15, 3, 2, true, false),
            block(33, 3, 1, true, true),
            block(40, 3, 4, true, false),
            block(95, 5, 2, true, true),
            block(112, 3, 1, false, false),
            block(31, 5, 2, false, true),
        ] {
            let build = |apart: bool| {
                let mut net = NetworkBuilder::new(isa);
                let mut seed = 0;
                let mut conv = |net: &mut NetworkBuilder, x, out, kernel, stride, depthwise, residual| {
                    seed += 1;
                    let channels = net.shape(x)[0];
                    let groups = if depthwise { channels } else { 1 };
                    let weight: Vec<f32> = values(out * channels / groups * kernel * kernel, seed);
                    let conv = ConvLayer {
                        out_channels: out,
                        kernel: [kernel; 2],
                        stride: [stride; 2],
                        padding: Padding::symmetric(kernel / 2),
                        groups,
                        weight: &weight,
                        bias: Some(&values(out, seed + 100)),
                        activation: if depthwise { Activation::Relu6 } else { Activation::Identity },
                        residual,
                    };
                    net.conv2d(x, conv).unwrap()
                };
                let image = net.input(20, size, size + 2);
                let x = conv(&mut net, image, 24, 1, 1, false, None);
                let expanded = if expanded { conv(&mut net, x, 72, 1, 1, false, None) } else { x };
                let channels = net.shape(expanded)[0];
                let wide = conv(&mut net, expanded, channels, kernel, stride, true, None);
                let y = conv(&mut net, wide, 24, 1, 1, false, (stride == 1).then_some(x));
                let z = conv(&mut net, y, 8, if bordered { 3 } else { 1 }, 1, false, None);
                let taps = [(z, OutputLayout::Nchw), (wide, OutputLayout::Nchw), (expanded, OutputLayout::Nchw)];
                net.finish(&taps[..if apart { 3 } else { 1 }]).unwrap()
            };
            let (joined, apart) = (build(false), build(true));
            assert!(joined.steps().iter().any(|step| step.algorithm == "fused" && step.description.contains("->24")));
            assert!(apart.steps().iter().all(|step| step.algorithm != "fused"));
            const BATCH: usize = 5;
            let input = values(BATCH * 20 * size * (size + 2), 4);
            let want = run(&apart, 1, &input, BATCH, &mut apart.workspace(BATCH)).swap_remove(0);
            let image = input.len() / BATCH;
            for threads in [1, 2, 3, 16] {
                let what = format!("{isa}, {kernel}x{kernel} at {size}, {threads} threads");
                let together = run(&joined, threads, &input, BATCH, &mut joined.workspace(BATCH));
                assert!(together[0] == want, "{what}");
                let alone = run(&joined, threads, &input[..image], 1, &mut joined.workspace(1));
                assert!(alone[0] == want[..want.len() / BATCH], "{what}, one image");
            }
        }
    }
}

/// A requested tensor is computed as if nothing were fused.
#[test]
fn a_tensor_in_the_middle_can_be_an_output() {
    let (expand, depthwise, project) = (values(40 * 12, 1), values(40 * 9, 2), values(12 * 40, 3));
    for isa in Isa::available() {
        let build = |taps: &[usize]| {
            let mut net = NetworkBuilder::new(isa);
            let conv = |out: usize, weight, kernel, groups, residual| ConvLayer {
                out_channels: out,
                kernel: [kernel; 2],
                stride: [1; 2],
                padding: Padding::symmetric(kernel / 2),
                groups,
                weight,
                bias: None,
                activation: Activation::Relu,
                residual,
            };
            let x = net.input(12, 9, 10);
            let a = net.conv2d(x, conv(40, &expand, 1, 1, None)).unwrap();
            let b = net.conv2d(a, conv(40, &depthwise, 3, 40, None)).unwrap();
            let c = net.conv2d(b, conv(12, &project, 1, 1, Some(x))).unwrap();
            let all = [(a, OutputLayout::Nchw), (b, OutputLayout::Rows), (c, OutputLayout::Nchw)];
            net.finish(&taps.iter().map(|tap| all[*tap]).collect::<Vec<_>>()).unwrap()
        };
        let input = values(12 * 9 * 10, 5);
        let all = build(&[0, 1, 2]);
        let want = run(&all, 1, &input, 1, &mut all.workspace(1));
        for taps in [&[2][..], &[1, 2], &[0, 2], &[1], &[0]] {
            let net = build(taps);
            let got = run(&net, 2, &input, 1, &mut net.workspace(1));
            assert!(taps.iter().zip(&got).all(|(tap, got)| *got == want[*tap]), "{isa} {taps:?}");
        }
    }
}
