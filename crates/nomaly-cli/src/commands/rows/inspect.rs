//! `nomaly inspect` of a model of rows.

use nomaly::model_file::RowsInfo;
use nomaly::model_file::Summary;

use super::super::provenance::{groups, history};
use crate::output::counted;

/// The facts about the model.
pub(crate) fn run(summary: &Summary<RowsInfo>) -> Vec<(&'static str, String)> {
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
        ("independent groups", groups(&info.training.groups)),
        ("calibrated on", history(&info.history)),
        ("seed", info.training.seed.to_string()),
    ]
}
