//! `nomaly bench backbone`: a whole network, and each of its layers.

use std::time::{Duration, Instant};

use nomaly::backbones::{Backbone, BackboneError, OpenOptions, OutputLayout, TapInfo, TapRequest};
use nomaly::devices::{Device, Executor};
use nomaly::kernels::StepInfo;
use serde::Serialize;

use super::{PeakReport, Rate, Spread, repeated, values};
use crate::args::{BenchBackboneArgs, Format};
use crate::console::Console;
use crate::output::{Align, Table, bytes, counted, percent, print_facts, print_json, significant, stdout};

/// The printed figures; the help describes the fields of its JSON.
#[derive(Debug, Serialize)]
struct Report {
    backbone: String,
    weights: String,
    random_weights: bool,
    tap: String,
    device: String,
    isa: &'static str,
    threads: usize,
    batch: usize,
    input: [usize; 3],
    repeats: u32,
    ms: Spread,
    images_per_s: f64,
    gflop_per_image: f64,
    #[serde(flatten)]
    rate: Rate,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_gflop_per_s: Option<PeakReport>,
    workspace_bytes: usize,
    layers: Vec<Layer>,
}

#[derive(Debug, Serialize)]
struct Layer {
    description: String,
    algorithm: &'static str,
    ms: f64,
    #[serde(flatten)]
    rate: Rate,
}

pub(crate) fn run(args: &BenchBackboneArgs, console: &Console) -> anyhow::Result<()> {
    let executor = args.device.open()?;
    let (backbone, random_weights) = open(args, console)?;
    let report = measure(args, &executor, &backbone, random_weights)?;
    match args.format {
        Format::Json => print_json(&report),
        Format::Table => print_table(&report),
    }
}

/// The backbone with its weights if available, otherwise with random ones.
fn open(args: &BenchBackboneArgs, console: &Console) -> anyhow::Result<(Backbone, bool)> {
    match Backbone::open(&args.backbone, &OpenOptions { weights: args.weights.clone() }) {
        Ok(backbone) => Ok((backbone, false)),
        Err(
            BackboneError::NoWeights { backbone }
            | BackboneError::Untrained { backbone }
            | BackboneError::NotImported { backbone, .. },
        ) if backbone == args.backbone => {
            console.note(format_args!(
                "there are no weights for {} here: timing it with random ones, which takes the same time",
                args.backbone
            ));
            let classes = nomaly::backbones::BACKBONES.get(&args.backbone)?.classes;
            Ok((Backbone::initialized(&args.backbone, classes, 0)?, true))
        }
        Err(error) => Err(error.into()),
    }
}

fn measure(
    args: &BenchBackboneArgs,
    executor: &Executor,
    backbone: &Backbone,
    random_weights: bool,
) -> anyhow::Result<Report> {
    let (isa, on_cpu) = (executor.isa(), executor.device() == Device::Cpu);
    let taps = match &args.tap {
        Some(tap) => vec![tap.clone()],
        None => backbone.taps_by_network().filter_map(deepest_features).collect(),
    };
    let size = args.input_size.map_or(backbone.preprocessing().input_size, |size| size as usize);
    let requests: Vec<_> = taps.iter().map(|tap| TapRequest::new(tap, OutputLayout::Mean)).collect();
    let extractor = backbone.compile([size; 2], &requests, executor)?;
    let batch = args.batch as usize;
    let input = values(batch * extractor.input_shape().iter().product::<usize>(), 2.0);
    let mut workspace = extractor.workspace(batch);
    let mut outputs = vec![Vec::new(); taps.len()];

    let before = on_cpu.then(|| PeakReport::measure(isa)).transpose()?;
    let times = repeated(args.repeats, || {
        let began = Instant::now();
        extractor.run(&input, batch, &mut workspace, &mut outputs)?;
        Ok(began.elapsed())
    })?;
    let higher = |peak: Option<PeakReport>| peak.map(|peak| peak.or_higher(isa)).transpose();
    let mut peak = higher(before)?;
    // The same work, whatever the device.
    let steps = backbone.compile([size; 2], &requests, &Executor::from(isa))?.steps();
    let flops: u64 = steps.iter().map(|step| step.flops).sum();
    let ms = Spread::of(&times);
    let layers = if args.no_layers || !on_cpu {
        Vec::new()
    } else {
        let profiles =
            repeated(args.repeats, || Ok(extractor.profile(&input, batch, &mut workspace, &mut outputs)?))?;
        peak = higher(peak)?;
        layers(steps, &profiles, batch, peak)
    };
    Ok(Report {
        backbone: backbone.name().to_owned(),
        weights: backbone.source().to_owned(),
        random_weights,
        tap: taps.join(", "),
        device: executor.device().to_string(),
        isa: isa.name(),
        threads: rayon::current_num_threads(),
        batch,
        input: extractor.input_shape(),
        repeats: args.repeats,
        ms,
        images_per_s: batch as f64 * 1e3 / ms.median,
        gflop_per_image: flops as f64 / 1e9,
        rate: Rate::new(flops * batch as u64, ms.min, peak),
        peak_gflop_per_s: peak,
        workspace_bytes: workspace.bytes(),
        layers,
    })
}

/// The steps with their shortest times in the profiles.
fn layers(steps: Vec<StepInfo>, profiles: &[Vec<Duration>], batch: usize, peak: Option<PeakReport>) -> Vec<Layer> {
    let layer = |(index, step): (usize, StepInfo)| {
        let ms = Spread::of(&profiles.iter().map(|profile| profile[index]).collect::<Vec<_>>()).min;
        let rate = Rate::new(step.flops * batch as u64, ms, peak);
        Layer { description: step.description, algorithm: step.algorithm, ms, rate }
    };
    steps.into_iter().enumerate().map(layer).collect()
}

/// The deepest tap of a network before the classifier, which no method uses.
fn deepest_features(taps: Vec<TapInfo>) -> Option<String> {
    let features = taps.iter().rfind(|tap| !tap.is_classifier());
    features.or(taps.last()).map(|tap| tap.name.clone())
}

fn print_table(report: &Report) -> anyhow::Result<()> {
    let Report { ms, rate, threads, .. } = report;
    let [channels, height, width] = report.input;
    let milliseconds = |ms: f64| significant(ms, 4);
    let mut out = stdout();
    let of_peak = rate.share_of_peak.map_or_else(String::new, |share| format!(", {} of the peak", percent(share)));
    let mut facts = vec![
        ("backbone", format!("{} up to {}", report.backbone, report.tap)),
        ("weights", report.weights.clone()),
        ("input", format!("{} of {channels}×{height}×{width}", counted(report.batch, "image"))),
        ("kernels", format!("{}, {}", report.isa, counted(*threads, "thread"))),
        (
            "time per call",
            format!(
                "{} ms (median of {}; {} … {})",
                milliseconds(ms.median),
                report.repeats,
                milliseconds(ms.min),
                milliseconds(ms.max)
            ),
        ),
        ("images per second", significant(report.images_per_s, 4)),
        (
            "arithmetic",
            format!(
                "{} GFLOP per image; {} GFLOP/s{of_peak}",
                significant(report.gflop_per_image, 3),
                significant(rate.gflop_per_s, 4),
            ),
        ),
    ];
    match report.peak_gflop_per_s {
        Some(peak) => {
            facts.push(("peak", peak.in_words(*threads)));
            facts.push(("memory", format!("{} of intermediate results", bytes(report.workspace_bytes as u64))));
        }
        None => facts.push(("device", report.device.clone())),
    }
    print_facts(&mut out, &facts)?;
    if report.layers.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("layer", Align::Left),
        ("algorithm", Align::Left),
        ("ms", Align::Right),
        ("GFLOP/s", Align::Right),
        ("of peak", Align::Right),
    ]);
    for layer in &report.layers {
        let [gflops, share] = layer.rate.cells();
        table.row([layer.description.clone(), layer.algorithm.to_owned(), format!("{:.3}", layer.ms), gflops, share]);
    }
    std::io::Write::write_all(&mut out, b"\n")?;
    Ok(table.print(&mut out)?)
}
