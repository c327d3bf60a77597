//! `nomaly bench kernels`: single layers with the shapes of real networks.

use nomaly::kernels::Isa;
use nomaly::kernels::{
    Activation, CompiledNetwork, ConvLayer, NetworkBuilder, NetworkError, OutputLayout, Padding, StepInfo,
};
use serde::Serialize;

use super::{PeakReport, Rate, Spread, repeated, values};
use crate::args::{BenchKernelsArgs, Format};
use crate::output::{Align, Table, counted, print_facts, print_json, stdout};

/// A square convolution with bias and ReLU on a square image.
#[derive(Clone, Copy, Debug)]
struct Shape {
    channels: usize,
    size: usize,
    kernel: usize,
    stride: usize,
    out: usize,
    depthwise: bool,
}

const fn dense(channels: usize, size: usize, kernel: usize, stride: usize, out: usize) -> Shape {
    Shape { channels, size, kernel, stride, out, depthwise: false }
}

const fn depthwise(channels: usize, size: usize, kernel: usize, stride: usize) -> Shape {
    Shape { channels, size, kernel, stride, out: channels, depthwise: true }
}

/// The stem, the four depths and the strided and pointwise layers of ResNets; depthwise layers of EfficientNets.
const SHAPES: [Shape; 14] = [
    dense(3, 224, 7, 2, 64),
    dense(64, 56, 3, 1, 64),
    dense(128, 28, 3, 1, 128),
    dense(256, 14, 3, 1, 256),
    dense(512, 7, 3, 1, 512),
    dense(64, 56, 3, 2, 128),
    dense(64, 56, 1, 1, 256),
    dense(512, 28, 1, 1, 256),
    dense(1024, 14, 1, 1, 512),
    dense(1152, 7, 1, 1, 320),
    depthwise(96, 112, 3, 2),
    depthwise(144, 56, 3, 1),
    depthwise(240, 28, 5, 1),
    depthwise(1152, 7, 5, 1),
];

/// Images per run.
const BATCH: usize = 1;

/// The printed figures; the help describes the fields of its JSON.
#[derive(Debug, Serialize)]
struct Report {
    isa: &'static str,
    threads: usize,
    batch: usize,
    repeats: u32,
    peak_gflop_per_s: PeakReport,
    layers: Vec<Layer>,
}

#[derive(Debug, Serialize)]
struct Layer {
    description: String,
    algorithm: &'static str,
    ms: Spread,
    #[serde(flatten)]
    rate: Rate,
}

pub(crate) fn run(args: &BenchKernelsArgs) -> anyhow::Result<()> {
    let isa = Isa::best()?;
    let mut peak = PeakReport::measure(isa)?;
    let mut measured = Vec::with_capacity(SHAPES.len());
    for shape in SHAPES {
        measured.push(measure(shape, isa, args.repeats)?);
        peak = peak.or_higher(isa)?;
    }
    let layer = |(step, ms): (StepInfo, Spread)| {
        let rate = Rate::new(step.flops * BATCH as u64, ms.min, Some(peak));
        Layer { description: step.description, algorithm: step.algorithm, ms, rate }
    };
    let layers = measured.into_iter().map(layer).collect();
    let threads = rayon::current_num_threads();
    let report =
        Report { isa: isa.name(), threads, batch: BATCH, repeats: args.repeats, peak_gflop_per_s: peak, layers };
    match args.format {
        Format::Json => print_json(&report),
        Format::Table => print_table(&report),
    }
}

/// Times a convolution of this shape.
fn measure(shape: Shape, isa: Isa, repeats: u32) -> anyhow::Result<(StepInfo, Spread)> {
    let network = network(shape, isa)?;
    let input = values(BATCH * shape.channels * shape.size * shape.size, 1.0);
    let (mut workspace, mut outputs) = (network.workspace(BATCH), [Vec::new()]);
    let profiles = repeated(repeats, || Ok(network.profile(&input, BATCH, &mut workspace, &mut outputs)?))?;
    // The other steps convert layouts, with about one operation per value.
    let (index, step) = network
        .steps()
        .into_iter()
        .enumerate()
        .max_by_key(|(_, step)| step.flops)
        .expect("a network has at least an input and an output");
    let ms = Spread::of(&profiles.iter().map(|profile| profile[index]).collect::<Vec<_>>());
    Ok((step, ms))
}

/// A network of one convolution.
fn network(shape: Shape, isa: Isa) -> Result<CompiledNetwork, NetworkError> {
    let Shape { channels, size, kernel, stride, out, depthwise } = shape;
    let groups = if depthwise { channels } else { 1 };
    let fan_in = channels / groups * kernel * kernel;
    let weight = values(out * fan_in, (3.0 / fan_in as f32).sqrt());
    let bias = values(out, 0.1);
    let mut builder = NetworkBuilder::new(isa);
    let input = builder.input(channels, size, size);
    let conv = ConvLayer {
        out_channels: out,
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: Padding::symmetric(kernel / 2),
        groups,
        weight: &weight,
        bias: Some(&bias),
        activation: Activation::Relu,
        residual: None,
    };
    let result = builder.conv2d(input, conv)?;
    builder.finish(&[(result, OutputLayout::Mean)])
}

fn print_table(report: &Report) -> anyhow::Result<()> {
    let mut out = stdout();
    print_facts(
        &mut out,
        &[
            ("kernels", format!("{}, {}", report.isa, counted(report.threads, "thread"))),
            ("peak", report.peak_gflop_per_s.in_words(report.threads)),
        ],
    )?;
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("algorithm", Align::Left),
        ("ms", Align::Right),
        ("median", Align::Right),
        ("GFLOP/s", Align::Right),
        ("of peak", Align::Right),
    ]);
    for Layer { description, algorithm, ms, rate } in &report.layers {
        let [gflops, share] = rate.cells();
        let [min, median] = [ms.min, ms.median].map(|ms| format!("{ms:.3}"));
        table.row([description.clone(), (*algorithm).to_owned(), min, median, gflops, share]);
    }
    std::io::Write::write_all(&mut out, b"\n")?;
    Ok(table.print(&mut out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_layer_whose_convolution_is_the_step_with_the_most_work() {
        for shape in SHAPES {
            let steps = network(shape, Isa::Portable).unwrap().steps();
            let most = steps.iter().max_by_key(|step| step.flops).unwrap();
            let size = shape.size / shape.stride;
            let taps = shape.kernel * shape.kernel * if shape.depthwise { 1 } else { shape.channels };
            // One multiply-add per weight and position, plus bias and activation.
            let least = (2 * taps * shape.out * size * size) as u64;
            assert!((least..=least + least / 4).contains(&most.flops), "{shape:?}: {most:?}");
        }
    }
}
