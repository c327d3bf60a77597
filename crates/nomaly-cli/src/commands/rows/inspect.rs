//! `nomaly inspect` of a model of rows.

use nomaly::Calibration;
use nomaly::detectors::model_file::Summary;
use nomaly::detectors::rows::RowsInfo;

use super::super::decision;
use crate::output::{bytes, counted};

/// What is in the file, for people.
pub(crate) fn run(summary: &Summary<RowsInfo>, calibration: &Calibration) -> Vec<(&'static str, String)> {
    let info = &summary.info;
    let settings: Vec<String> = info.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let skipped = match info.training.skipped {
        0 => String::new(),
        skipped => format!(" ({skipped} more could not be used)"),
    };
    vec![
        ("scorer", info.scorer.clone()),
        ("settings", settings.join(" ")),
        ("columns", info.columns.as_ref().map_or_else(|| info.dim.to_string(), |columns| columns.join(", "))),
        ("trained on", format!("{} of {}{skipped}", counted(info.training.rows, "row"), info.training.dataset)),
        ("seed", info.training.seed.to_string()),
        ("decision", decision(calibration)),
        ("file", format!("{}, {}", bytes(summary.file_bytes), counted(summary.tensors, "tensor"))),
        ("format", format!("version {}, written by nomaly {}", summary.format, summary.written_by)),
    ]
}
