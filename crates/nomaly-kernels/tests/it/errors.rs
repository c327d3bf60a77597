//! Hostile shapes are errors that say what disagrees.

use nomaly_kernels::isa::Isa;
use nomaly_kernels::network::*;

fn conv(weight: &[f32]) -> ConvLayer<'_> {
    ConvLayer {
        out_channels: 2,
        kernel: [3, 3],
        stride: [1, 1],
        padding: Padding::symmetric(1),
        groups: 1,
        weight,
        bias: None,
        activation: Activation::Identity,
        residual: None,
    }
}

fn message<T>(result: Result<T, NetworkError>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn convolutions_that_cannot_be() {
    let mut net = NetworkBuilder::new(Isa::Portable);
    let x = net.input(4, 5, 5);
    let weight = [0.0; 2 * 4 * 9];
    let good = conv(&weight);
    let y = net.conv2d(x, good).unwrap();
    assert_eq!(net.shape(y), [2, 5, 5]);
    let table = [
        (ConvLayer { weight: &weight[1..], ..good }, "the convolution weight has 71 values, expected 72"),
        (ConvLayer { bias: Some(&[0.0]), ..good }, "the convolution bias has 1 values, expected 2"),
        (ConvLayer { out_channels: 0, weight: &[], ..good }, "the number of output channels must not be zero"),
        (ConvLayer { kernel: [0, 3], ..good }, "the kernel size must not be zero"),
        (ConvLayer { stride: [1, 0], ..good }, "the stride must not be zero"),
        (ConvLayer { groups: 2, ..good }, "convolution with 2 groups from 4 to 2 channels is not supported"),
        (ConvLayer { groups: 0, ..good }, "convolution with 0 groups"),
        (ConvLayer { padding: Padding::symmetric(3), ..good }, "padding 3 is not smaller than the kernel size 3"),
        (ConvLayer { kernel: [9, 3], ..good }, "kernel [9, 3] is larger than the padded input [7, 7]"),
        (ConvLayer { residual: Some(x), ..good }, "shape [4, 5, 5] does not match [2, 5, 5]"),
        (ConvLayer { out_channels: usize::MAX, ..good }, "is too large"),
        (ConvLayer { kernel: [usize::MAX; 2], ..good }, "is larger than the padded input"),
    ];
    for (bad, expected) in table {
        let text = message(net.conv2d(x, bad));
        assert!(text.contains(expected), "{text:?} should contain {expected:?}");
    }
    let big = NetworkBuilder::new(Isa::Portable).input(1, 1, 1);
    let mut other = NetworkBuilder::new(Isa::Portable);
    assert_eq!(message(other.global_avg_pool(big)), "node 0 does not exist: the network has 0 nodes");
}

#[test]
fn other_operations_that_cannot_be() {
    let mut net = NetworkBuilder::new(Isa::Portable);
    let x = net.input(4, 5, 6);
    let small = net.max_pool(x, Pool2d { kernel: [2, 2], stride: [2, 2], padding: Padding::default() }).unwrap();
    assert_eq!(net.shape(small), [4, 2, 3]);
    assert!(message(net.add(x, small, Activation::Relu)).contains("[4, 2, 3] does not match [4, 5, 6]"));
    assert!(message(net.affine(x, &[1.0; 3], &[0.0; 4], Activation::Relu)).contains("scale"));
    assert!(message(net.affine(x, &[1.0; 4], &[0.0; 5], Activation::Relu)).contains("shift"));
    assert!(message(net.linear(x, 2, &[0.0; 8], None)).contains("does not match [4, 1, 1]"));
    let wide = Pool2d { kernel: [7, 7], stride: [1, 1], padding: Padding::default() };
    assert!(message(net.avg_pool(x, wide, true)).contains("larger than the padded input [5, 6]"));
    let empty = SqueezeExcite {
        reduced: 0,
        reduce_weight: &[],
        reduce_bias: &[],
        activation: Activation::Relu,
        expand_weight: &[],
        expand_bias: &[0.0; 4],
    };
    assert!(message(net.squeeze_excite(x, empty)).contains("must not be zero"));
}

#[test]
fn a_padding_smaller_than_the_kernel_always_leaves_something_to_pool() {
    let mut net = NetworkBuilder::new(Isa::Portable);
    let x = net.input(4, 1, 1);
    let padding = Padding { bottom: 4, ..Padding::default() };
    let pool = Pool2d { kernel: [5, 1], stride: [1, 1], padding };
    assert!(net.max_pool(x, pool).is_ok(), "one window, which begins inside");
    let pool = Pool2d { kernel: [2, 1], stride: [1, 1], padding: Padding { top: 1, bottom: 1, ..Padding::default() } };
    assert!(net.avg_pool(x, pool, false).is_ok(), "two windows, each with the one position");
}

#[test]
fn networks_that_cannot_be() {
    let finish = |inputs: &[[usize; 3]], isa| {
        let mut net = NetworkBuilder::new(isa);
        let nodes: Vec<NodeId> = inputs.iter().map(|[c, h, w]| net.input(*c, *h, *w)).collect();
        let outputs: Vec<_> = nodes.iter().take(1).map(|id| (*id, OutputLayout::Nchw)).collect();
        net.finish(&outputs)
    };
    assert!(finish(&[[1, 2, 3]], Isa::Portable).is_ok());
    assert!(message(finish(&[], Isa::Portable)).contains("exactly one input, found 0"));
    assert!(message(finish(&[[1, 2, 3], [1, 2, 3]], Isa::Portable)).contains("exactly one input, found 2"));
    assert!(message(finish(&[[1, 0, 3]], Isa::Portable)).contains("must not be zero"));
    assert!(message(finish(&[[usize::MAX, 2, 3]], Isa::Portable)).contains("too large"));
    let mut net = NetworkBuilder::new(Isa::Portable);
    net.input(1, 1, 1);
    assert!(message(net.finish(&[])).contains("at least one output"));
    let absent = [Isa::Avx512, Isa::Avx2, Isa::Neon].into_iter().find(|isa| !isa.is_available()).unwrap();
    assert!(message(finish(&[[1, 2, 3]], absent)).contains("not supported by this processor"));
}

#[test]
fn runs_that_cannot_be() {
    let net = |size| {
        let mut net = NetworkBuilder::new(Isa::Portable);
        let x = net.input(1, size, size);
        net.finish(&[(x, OutputLayout::Nchw)]).unwrap()
    };
    let (small, large) = (net(2), net(9));
    let mut workspace = small.workspace(3);
    let mut outputs = vec![Vec::new()];
    assert!(small.run(&[1.0; 8], 2, &mut workspace, &mut outputs).is_ok());
    assert_eq!(outputs[0], [1.0; 8]);
    assert!(message(small.run(&[1.0; 9], 2, &mut workspace, &mut outputs)).contains("9 values, expected 8"));
    assert!(message(small.run(&[1.0; 4], 1, &mut workspace, &mut [])).contains("0 output vectors given"));
    assert!(message(large.run(&[1.0; 81], 1, &mut workspace, &mut outputs)).contains("the workspace holds"));
    assert!(message(small.run(&[1.0; 9], usize::MAX, &mut workspace, &mut outputs)).contains("too large"));
}
