//! Convolution layers with the shapes of real networks, and whole networks, on the best instruction set.
//!
//! `cargo bench -p nomaly-bench --bench conv`; throughput is in floating-point operations (Gelem/s = GFLOP/s).
//! `RAYON_NUM_THREADS=1` gives figures for one core, `NOMALY_ISA` chooses another instruction set.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nomaly_kernels::isa::Isa;
use nomaly_kernels::network::{
    Activation, CompiledNetwork, ConvLayer, NetworkBuilder, NodeId, OutputLayout, Padding, Pool2d,
};

/// A square convolution: kernel, stride, output channels, and whether it is depthwise.
#[derive(Clone, Copy)]
struct Layer {
    kernel: usize,
    stride: usize,
    out: usize,
    depthwise: bool,
}

fn values(count: usize, scale: f32) -> Vec<f32> {
    (0..count as u32).map(|i| ((i.wrapping_mul(2_654_435_761) >> 16) as f32 / 32768.0 - 1.0) * scale).collect()
}

fn conv(net: &mut NetworkBuilder, x: NodeId, layer: Layer, activation: Activation, residual: Option<NodeId>) -> NodeId {
    let Layer { kernel, stride, out, depthwise } = layer;
    let channels = net.shape(x)[0];
    let groups = if depthwise { channels } else { 1 };
    let fan_in = channels / groups * kernel * kernel;
    let weight = values(out * fan_in, (3.0 / fan_in as f32).sqrt());
    let bias = values(out, 0.1);
    let conv = ConvLayer {
        out_channels: out,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: Padding::symmetric(kernel / 2),
        groups,
        weight: &weight,
        bias: Some(&bias),
        activation,
        residual,
    };
    net.conv2d(x, conv).expect("a valid layer")
}

fn dense(kernel: usize, stride: usize, out: usize) -> Layer {
    Layer { kernel, stride, out, depthwise: false }
}

/// ResNet-18 up to its last feature map, 224 x 224.
fn resnet18(isa: Isa) -> CompiledNetwork {
    let mut net = NetworkBuilder::new(isa);
    let image = net.input(3, 224, 224);
    let stem = conv(&mut net, image, dense(7, 2, 64), Activation::Relu, None);
    let pool = Pool2d { kernel: [3; 2], stride: [2; 2], padding: Padding::symmetric(1) };
    let mut x = net.max_pool(stem, pool).expect("a valid pool");
    for (out, stride) in [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)] {
        let y = conv(&mut net, x, dense(3, stride, out), Activation::Relu, None);
        let shortcut = if stride == 2 { conv(&mut net, x, dense(1, 2, out), Activation::Identity, None) } else { x };
        x = conv(&mut net, y, dense(3, 1, out), Activation::Relu, Some(shortcut));
    }
    net.finish(&[(x, OutputLayout::Mean)]).expect("a valid network")
}

/// EfficientNet-Lite0 up to its last feature map, 224 x 224.
fn efficientnet_lite0(isa: Isa) -> CompiledNetwork {
    let mut net = NetworkBuilder::new(isa);
    let image = net.input(3, 224, 224);
    let mut x = conv(&mut net, image, dense(3, 2, 32), Activation::Relu6, None);
    // Expansion, kernel, stride of the first block, output channels, blocks.
    for (expansion, kernel, stride, out, blocks) in [
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ] {
        for block in 0..blocks {
            let channels = net.shape(x)[0];
            let wide = channels * expansion;
            let stride = if block == 0 { stride } else { 1 };
            let y = if expansion == 1 { x } else { conv(&mut net, x, dense(1, 1, wide), Activation::Relu6, None) };
            let layer = Layer { kernel, stride, out: wide, depthwise: true };
            let y = conv(&mut net, y, layer, Activation::Relu6, None);
            let shortcut = (stride == 1 && channels == out).then_some(x);
            x = conv(&mut net, y, dense(1, 1, out), Activation::Identity, shortcut);
        }
    }
    let x = conv(&mut net, x, dense(1, 1, 1280), Activation::Relu6, None);
    net.finish(&[(x, OutputLayout::Mean)]).expect("a valid network")
}

/// Times the convolution alone, without the conversions into and out of the blocked layout.
fn layers(criterion: &mut Criterion) {
    let isa = Isa::best().expect("an instruction set");
    let depthwise = |kernel, stride, out| Layer { kernel, stride, out, depthwise: true };
    let mut group = criterion.benchmark_group(format!("layer/{isa}"));
    for (channels, size, layer) in [
        (3, 224, dense(7, 2, 64)),
        (64, 56, dense(3, 1, 64)),
        (128, 28, dense(3, 1, 128)),
        (256, 14, dense(3, 1, 256)),
        (512, 7, dense(3, 1, 512)),
        (64, 56, dense(3, 2, 128)),
        (64, 56, dense(1, 1, 256)),
        (512, 28, dense(1, 1, 256)),
        (1024, 14, dense(1, 1, 512)),
        (1152, 7, dense(1, 1, 320)),
        (96, 112, depthwise(3, 2, 96)),
        (240, 28, depthwise(5, 1, 240)),
        (1152, 7, depthwise(5, 1, 1152)),
    ] {
        let mut net = NetworkBuilder::new(isa);
        let x = net.input(channels, size, size);
        let y = conv(&mut net, x, layer, Activation::Relu, None);
        let net = net.finish(&[(y, OutputLayout::Mean)]).expect("a valid network");
        let steps = net.steps();
        let step = steps.iter().position(|step| step.description.contains(&format!("{0}x{0} ", layer.kernel)));
        let step = step.expect("the layer is a step");
        let input = values(channels * size * size, 1.0);
        let (mut workspace, mut outputs) = (net.workspace(1), vec![Vec::new()]);
        group.throughput(Throughput::Elements(steps[step].flops));
        group.bench_function(&steps[step].description, |bencher| {
            bencher.iter_custom(|times| {
                let mut total = Duration::ZERO;
                for _ in 0..times {
                    total += net.profile(&input, 1, &mut workspace, &mut outputs).expect("a run")[step];
                }
                total
            });
        });
    }
    group.finish();
}

fn networks(criterion: &mut Criterion) {
    let isa = Isa::best().expect("an instruction set");
    let mut group = criterion.benchmark_group(format!("network/{isa}"));
    group.sample_size(20);
    for (name, net) in [("resnet18", resnet18(isa)), ("efficientnet-lite0", efficientnet_lite0(isa))] {
        let flops: u64 = net.steps().iter().map(|step| step.flops).sum();
        for batch in [1, 8] {
            let input = values(batch * 3 * 224 * 224, 2.0);
            let (mut workspace, mut outputs) = (net.workspace(batch), vec![Vec::new()]);
            group.throughput(Throughput::Elements(flops * batch as u64));
            group.bench_function(format!("{name}/224/batch{batch}"), |bencher| {
                bencher.iter(|| net.run(&input, batch, &mut workspace, &mut outputs).expect("a run"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, layers, networks);
criterion_main!(benches);
