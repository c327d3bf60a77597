//! `nomaly inspect`: what is in a model file, from its header.

use std::io::Write;

use anyhow::bail;
use nomaly::DecisionRule;
use nomaly::classes::KnownClass;
use nomaly::model_file::{AnySummary, Summary, read_any_summary, stored_classes};
use nomaly::wire::{InspectRecord, ModelRecord};
use serde::Serialize;
use serde_json::{Map, Value};

use super::classes;
use super::provenance::{groups, history};
use super::{Status, decision, interval_in_words, rows};
use crate::args::{Format, InspectArgs};
use crate::output::{bytes, counted, print_facts, print_json, stdout};

pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<Status> {
    match read_any_summary(&args.model)? {
        AnySummary::Images(summary) => {
            let shared = SharedFacts { rule: summary.info.decision, known: &summary.info.classes, noun: "image" };
            show(&summary, &shared, args.format, facts)?;
        }
        AnySummary::Rows(summary) => {
            let shared = SharedFacts { rule: summary.info.decision, known: &summary.info.classes, noun: "row" };
            show(&summary, &shared, args.format, rows::inspect)?;
        }
        _ => bail!("{} holds a model of a kind that cannot be shown", args.model.display()),
    }
    Ok(Status::Done)
}

/// The common parts of both kinds of summaries.
struct SharedFacts<'a> {
    rule: DecisionRule,
    known: &'a [KnownClass],
    noun: &'static str,
}

/// Prints a summary of either kind.
fn show<I: Serialize>(
    summary: &Summary<I>,
    SharedFacts { rule, known, noun }: &SharedFacts<'_>,
    format: Format,
    facts: impl Fn(&Summary<I>) -> Vec<(&'static str, String)>,
) -> anyhow::Result<()> {
    let calibration = summary.held_out.clone().calibration(*rule)?;
    let of_classes = stored_classes(known, summary.class_scores.clone(), *rule)?;
    match format {
        Format::Json => {
            let threshold = calibration.threshold().filter(|_| of_classes.is_none());
            let interval = calibration.threshold_interval().filter(|_| of_classes.is_none());
            let (model, more) = model(summary)?;
            print_json(&InspectRecord {
                format: summary.format,
                written_by: summary.written_by.clone(),
                model,
                file_bytes: summary.file_bytes,
                backbone_bytes: summary.backbone_bytes,
                tensors: summary.tensors,
                class_thresholds: of_classes.as_ref().map(classes::rows),
                threshold,
                threshold_ci: interval.map(|interval| [interval.low, interval.high]),
                smallest_p_value: calibration.smallest_p_value(),
                held_out: calibration.in_order().len(),
                independent: calibration.independent(),
                unattainable: calibration.unattainable().filter(|_| of_classes.is_none()).map(ToOwned::to_owned),
                more,
            })
        }
        Format::Table => {
            let mut facts = facts(summary);
            match &of_classes {
                Some(classes) => facts.push(("decision", classes::decision(classes))),
                None => {
                    let interval = interval_in_words(&calibration, noun);
                    facts.push(("decision", decision(&calibration)));
                    let unsupported = || calibration.unattainable().map(|reason| format!("none: {reason}"));
                    let by_hand = || "set by hand".to_owned();
                    facts.push(("threshold", interval.or_else(unsupported).unwrap_or_else(by_hand)));
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

/// The fields of a header in the record, and all others.
fn model<I: Serialize>(summary: &Summary<I>) -> anyhow::Result<(ModelRecord, Map<String, Value>)> {
    let header = serde_json::to_value(&summary.info)?;
    let model = if header.get("method").is_some() {
        ModelRecord::Images(serde_json::from_value(header.clone())?)
    } else {
        ModelRecord::Rows(serde_json::from_value(header.clone())?)
    };
    let promised = serde_json::to_value(&model)?;
    let more = header.as_object().into_iter().flatten().filter(|(name, _)| promised.get(name).is_none());
    Ok((model, more.map(|(name, value)| (name.clone(), value.clone())).collect()))
}

fn facts(summary: &Summary) -> Vec<(&'static str, String)> {
    let info = &summary.info;
    let settings: Vec<String> = info.method.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut skipped = match info.training.skipped {
        0 => String::new(),
        skipped => format!(" ({skipped} more could not be read)"),
    };
    if info.training.dropped > 0 {
        skipped += &format!(" ({} more looked unlike the others and were left out)", info.training.dropped);
    }
    let mut facts = vec![
        ("method", info.method.name.clone()),
        ("settings", settings.join(" ")),
        ("backbone", format!("{} ({} of weights)", info.backbone.name, bytes(summary.backbone_bytes))),
        ("weights from", info.backbone.source.clone()),
        ("licence of the weights", info.backbone.licence.clone()),
        ("input", info.input_in_words()),
        ("trained on", format!("{} of {}{skipped}", counted(info.training.images, "image"), info.training.dataset)),
        ("independent groups", groups(&info.training.groups)),
        ("calibrated on", history(&info.history)),
        ("seed", info.training.seed.to_string()),
    ];
    facts.extend(info.training.device.clone().map(|device| ("fitted on the device", device)));
    facts
}
