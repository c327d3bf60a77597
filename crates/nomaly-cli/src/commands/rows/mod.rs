//! The commands on tables of numbers, where the data is a `.csv`, `.tsv`, `.npy` or `.parquet` file.

mod classes;
mod eval;
mod fit;
mod inspect;
mod score;

use std::path::Path;
use std::time::Instant;

use nomaly::evaluation::is_anomalous_label;
use nomaly::methods::MethodError;
use nomaly::rows::{FittedRows, RowDetector, RowFitOptions};
use nomaly::rows::{Table, is_table};
use nomaly::settings::SettingError;
use nomaly::{Assignments, DetectorError};

pub(crate) use self::eval::run as eval;
pub(crate) use self::fit::normal_rows;
pub(crate) use self::fit::run as fit;
pub(crate) use self::inspect::run as inspect;
pub(crate) use self::score::run as score;
use super::{tell_skipped, warn_unattainable};
use crate::args::{MethodArgs, RowArgs};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::counted;
use crate::progress::{Bars, Unit};
use nomaly::AUTO;

/// Where the settings of models of rows are shown.
const SCORER_SETTINGS: &str =
    "`nomaly list scorers` shows the settings of each; `nomaly schema settings rows` those of all";

/// Rejects `data` other than a table for a model of rows.
pub(crate) fn check_is_table(data: &str, model: &Path) -> anyhow::Result<()> {
    if is_table(Path::new(data)) {
        return Ok(());
    }
    let message = format!("{data} is not a table, and {} is a model of rows", model.display());
    Err(Failure::new(message, "a table is a .csv, .tsv, .npy or .parquet file").into())
}

/// Rejects a table for a model of images.
pub(crate) fn check_is_no_table(data: &str, model: &Path) -> anyhow::Result<()> {
    if !is_table(Path::new(data)) {
        return Ok(());
    }
    let message = format!("{data} is a table, and {} is a model of images", model.display());
    Err(Failure::new(message, "name a folder of images, or a model that was fitted on a table").into())
}

/// Whether the data is a table; rejects flags for tables if it is not.
pub(crate) fn is_about_rows(data: &Path, args: &RowArgs) -> anyhow::Result<bool> {
    if is_table(data) {
        return Ok(true);
    }
    match args.given() {
        None => Ok(false),
        Some(flag) => Err(Failure::new(
            format!("{flag} is for tables, and {} is none", data.display()),
            "a table is a .csv, .tsv, .npy or .parquet file",
        )
        .into()),
    }
}

/// The detector with these settings: one of classes, or one of normal rows.
fn detector(settings: &[String], of_classes: bool) -> anyhow::Result<RowDetector> {
    let settings = Assignments::parse(settings)?;
    if of_classes {
        return Ok(RowDetector::of_classes(&settings)?);
    }
    RowDetector::new(&settings).map_err(|error| match error {
        DetectorError::Method(MethodError::Setting(SettingError::Unknown(_))) => {
            Failure::new(error.to_string(), SCORER_SETTINGS).into()
        }
        error => error.into(),
    })
}

/// Rejects flags for images, and settings unknown to the scorer, before a table is read.
fn check_method(args: &MethodArgs, of_classes: bool) -> anyhow::Result<()> {
    detector(&args.set, of_classes)?;
    let flag = if args.method != AUTO {
        "--method"
    } else if args.backbone.is_some() {
        "--backbone"
    } else if args.epochs.is_some() {
        "--epochs"
    } else if args.time_budget.is_some() {
        "--time-budget"
    } else {
        return Ok(());
    };
    Err(refusal(flag, "rows have a scorer: `--set scorer=NAME`, and `nomaly list scorers` shows the names"))
}

fn refusal(flag: &str, hint: &str) -> anyhow::Error {
    Failure::new(format!("{flag} is for images, and the data is a table of numbers"), hint).into()
}

/// For each row, whether it is labelled anomalous.
fn labels(table: &Table) -> anyhow::Result<Option<Vec<bool>>> {
    let Some(labels) = &table.labels else { return Ok(None) };
    let read = |(row, label): (usize, &String)| {
        is_anomalous_label(label).ok_or_else(|| {
            let message = format!("row {} of {} is labelled `{label}`", row + 1, table.name);
            Failure::new(message, "labels are 0/1, normal/anomalous, good/bad, false/true or inlier/outlier").into()
        })
    };
    labels.iter().enumerate().map(read).collect::<anyhow::Result<_>>().map(Some)
}

/// The rows with these indices, with their names.
fn subset(table: &Table, places: &[usize]) -> Table {
    let pick = |texts: &Option<Vec<String>>| {
        texts.as_ref().map(|texts| places.iter().map(|&place| texts[place].clone()).collect())
    };
    Table {
        name: table.name.clone(),
        columns: table.columns.clone(),
        rows: table.select(places),
        labels: pick(&table.labels),
        ids: pick(&table.ids),
        groups: pick(&table.groups),
    }
}

/// Fits a detector on rows; also returns the seconds of the fit.
fn fit_rows(
    detector: RowDetector,
    table: &Table,
    options: &RowFitOptions,
    console: &Console,
) -> anyhow::Result<(FittedRows, f64)> {
    console.detail(format_args!("fitting on {} of {}", counted(table.rows.nrows(), "row"), table.name));
    let began = Instant::now();
    let fit = detector.fit(table, options, &Bars::new(console, Unit::Images)).map_err(|error| {
        let hint = "a fit is not resumed: the same command starts from the beginning";
        Failure::if_cancelled(error, "the fit was interrupted, and nothing was written", hint)
    })?;
    let seconds = began.elapsed().as_secs_f64();
    tell_skipped(&fit.skipped, "row", console);
    match fit.detector.classes() {
        Some(classes) => super::classes::check_attainable(classes, "row")?,
        None => warn_unattainable(fit.detector.calibration(), "row", console),
    }
    Ok((fit.detector, seconds))
}
