//! `nomaly inspect`: what is in a model file, from its header.

use std::io::Write;

use anyhow::bail;
use nomaly::detectors::model_file::{AnySummary, Summary, read_any_summary};
use nomaly::detectors::recognition::{Classes, HeldOutClass, KnownClass};
use nomaly::{Calibration, DecisionRule};
use serde::Serialize;

use super::classes::{self, ClassRow};
use super::{Status, decision, interval_in_words, rows};
use crate::args::{Format, InspectArgs};
use crate::output::{bytes, counted, print_facts, print_json, stdout};

/// The summary with what follows from it.
#[derive(Serialize)]
struct Inspection<'a, I> {
    #[serde(flatten)]
    summary: &'a Summary<I>,
    /// The decision of each class, for a model of classes; the thresholds below are null then.
    #[serde(skip_serializing_if = "Option::is_none")]
    class_thresholds: Option<Vec<ClassRow>>,
    threshold: Option<f64>,
    /// The 95 % bootstrap interval of the threshold.
    threshold_ci: Option<[f64; 2]>,
    smallest_p_value: f64,
}

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<Status> {
    match read_any_summary(&args.model)? {
        AnySummary::Images(summary) => {
            let shown = Shown { rule: summary.info.decision, known: &summary.info.classes, noun: "image" };
            show(&summary, &shown, args.format, facts)?;
        }
        AnySummary::Rows(summary) => {
            let shown = Shown { rule: summary.info.decision, known: &summary.info.classes, noun: "row" };
            show(&summary, &shown, args.format, rows::inspect)?;
        }
        _ => bail!("{} holds a model of a kind that cannot be shown", args.model.display()),
    }
    Ok(Status::Done)
}

/// What the summaries of either kind have.
struct Shown<'a> {
    rule: DecisionRule,
    known: &'a [KnownClass],
    noun: &'static str,
}

/// Prints a summary of either kind.
fn show<I: Serialize>(
    summary: &Summary<I>,
    Shown { rule, known, noun }: &Shown<'_>,
    format: Format,
    facts: impl Fn(&Summary<I>) -> Vec<(&'static str, String)>,
) -> anyhow::Result<()> {
    let calibration = Calibration::new(summary.held_out.clone(), *rule)?;
    let of_classes = classes_of(known, &summary.class_scores, *rule)?;
    match format {
        Format::Json => {
            let threshold = calibration.threshold().filter(|_| of_classes.is_none());
            let interval = calibration.threshold_interval().filter(|_| of_classes.is_none());
            print_json(&Inspection {
                class_thresholds: of_classes.as_ref().map(classes::rows),
                threshold,
                threshold_ci: interval.map(|interval| [interval.low, interval.high]),
                smallest_p_value: calibration.smallest_p_value(),
                summary,
            })
        }
        Format::Table => {
            let mut facts = facts(summary);
            match &of_classes {
                Some(classes) => facts.push(("decision", classes::decision(classes))),
                None => {
                    let interval = interval_in_words(&calibration, noun);
                    facts.push(("decision", decision(&calibration)));
                    facts.push(("threshold", interval.unwrap_or_else(|| "set by hand, or unsupported".to_owned())));
                }
            }
            facts.push(("file", format!("{}, {}", bytes(summary.file_bytes), counted(summary.tensors, "tensor"))));
            facts.push(("format", format!("version {}, written by nomaly {}", summary.format, summary.written_by)));
            let mut out = stdout();
            print_facts(&mut out, &facts)?;
            if let Some(classes) = &of_classes {
                writeln!(out)?;
                classes::table(&classes::rows(classes), noun).print(&mut out)?;
            }
            Ok(())
        }
    }
}

/// The classes of a model, where it tells any apart.
fn classes_of(known: &[KnownClass], scores: &[Vec<f64>], rule: DecisionRule) -> anyhow::Result<Option<Classes>> {
    if known.len() != scores.len() {
        bail!("the model file has {} lists of held-out scores for {} classes", scores.len(), known.len());
    }
    if known.is_empty() {
        return Ok(None);
    }
    let pairs = known.iter().cloned().zip(scores.iter().cloned());
    Ok(Some(Classes::new(pairs.map(|(class, scores)| HeldOutClass { class, scores }).collect(), rule)?))
}

fn facts(summary: &Summary) -> Vec<(&'static str, String)> {
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
    ]
}
