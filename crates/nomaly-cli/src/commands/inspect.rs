//! `nomaly inspect`: what is in a model file, from its header.

use anyhow::bail;
use nomaly::detectors::model_file::{AnySummary, Summary, read_any_summary};
use nomaly::{Calibration, DecisionRule};
use serde::Serialize;

use super::{Status, decision, interval_in_words, rows};
use crate::args::{Format, InspectArgs};
use crate::output::{bytes, counted, print_facts, print_json, stdout};

/// The summary with what follows from it.
#[derive(Serialize)]
struct Inspection<'a, I> {
    #[serde(flatten)]
    summary: &'a Summary<I>,
    threshold: Option<f64>,
    /// The 95 % bootstrap interval of the threshold.
    threshold_ci: Option<[f64; 2]>,
    smallest_p_value: f64,
}

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<Status> {
    match read_any_summary(&args.model)? {
        AnySummary::Images(summary) => show(&summary, summary.info.decision, args.format, facts)?,
        AnySummary::Rows(summary) => show(&summary, summary.info.decision, args.format, rows::inspect)?,
        _ => bail!("{} holds a model of a kind that cannot be shown", args.model.display()),
    }
    Ok(Status::Done)
}

/// Prints a summary of either kind.
fn show<I: Serialize>(
    summary: &Summary<I>,
    rule: DecisionRule,
    format: Format,
    facts: impl Fn(&Summary<I>, &Calibration) -> Vec<(&'static str, String)>,
) -> anyhow::Result<()> {
    let calibration = Calibration::new(summary.held_out.clone(), rule)?;
    match format {
        Format::Json => print_json(&Inspection {
            threshold: calibration.threshold(),
            threshold_ci: calibration.threshold_interval().map(|interval| [interval.low, interval.high]),
            smallest_p_value: calibration.smallest_p_value(),
            summary,
        }),
        Format::Table => Ok(print_facts(&mut stdout(), &facts(summary, &calibration))?),
    }
}

fn facts(summary: &Summary, calibration: &Calibration) -> Vec<(&'static str, String)> {
    let info = &summary.info;
    let settings: Vec<String> = info.method.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let [height, width] = info.pipeline.output_size();
    let skipped = match info.training.skipped {
        0 => String::new(),
        skipped => format!(" ({skipped} more could not be read)"),
    };
    vec![
        ("method", info.method.name.clone()),
        ("settings", settings.join(" ")),
        ("backbone", format!("{} ({} of weights)", info.backbone.name, bytes(summary.backbone_bytes))),
        ("weights from", info.backbone.source.clone()),
        ("licence of the weights", info.backbone.licence.clone()),
        ("input", format!("{height}×{width} pixels")),
        ("trained on", format!("{} of {}{skipped}", counted(info.training.images, "image"), info.training.dataset)),
        ("seed", info.training.seed.to_string()),
        ("decision", decision(calibration)),
        ("threshold", interval_in_words(calibration).unwrap_or_else(|| "set by hand, or unsupported".to_owned())),
        ("file", format!("{}, {}", bytes(summary.file_bytes), counted(summary.tensors, "tensor"))),
        ("format", format!("version {}, written by nomaly {}", summary.format, summary.written_by)),
    ]
}
