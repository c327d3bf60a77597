//! `nomaly calibrate`: a new decision for a model.

use std::path::Path;

use anyhow::bail;
use nomaly::classes::Classes;
use nomaly::devices::Executor;
use nomaly::model_file::{AnySummary, read_any_summary};
use nomaly::rows::FittedRows;
use nomaly::{Calibration, FittedDetector, GroupBy, Skipped};

use super::{Status, check_writable, classes, decision, rows, tell_skipped, warn_unattainable};
use crate::args::CalibrateArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::output::counted;
use crate::progress::{Bars, Unit};
use crate::writable::check_apart;

pub(crate) fn run(args: &CalibrateArgs, console: &Console) -> anyhow::Result<Status> {
    let executor = args.device.open()?;
    let output = args.output.as_deref().unwrap_or(&args.model);
    let data: Vec<&Path> = args.data.iter().map(Path::new).collect();
    check_apart(&[output], &data)?;
    match read_any_summary(&args.model)? {
        AnySummary::Images(_) => of_images(args, output, &executor, console),
        AnySummary::Rows(_) => of_rows(args, output, console),
        _ => bail!("{} holds a model of a kind that cannot be calibrated", args.model.display()),
    }
}

fn of_images(args: &CalibrateArgs, output: &Path, executor: &Executor, console: &Console) -> anyhow::Result<Status> {
    if let Some(flag) = args.rows.given() {
        bail!("{flag} is for tables, and {} is a model of images", args.model.display());
    }
    args.data.iter().try_for_each(|data| rows::check_is_no_table(data, &args.model))?;
    let detector = FittedDetector::load_on(&args.model, executor)?;
    check_writable(output)?;
    let before = detector.info().decision;
    let rule = args.rule.rule(Some(before))?;
    let detector = match &args.data {
        Some(data) => {
            let dataset = nomaly::data::open(data)?;
            let (rule, stream) = (rule.unwrap_or(before), args.reading.options(None));
            let bars = Bars::new(console, Unit::Images);
            let calibrated =
                detector.calibrate(&dataset.name, &dataset.train, &args.groups.group_by, rule, stream, &bars);
            let (detector, skipped) = calibrated.map_err(|error| interrupted(error, &args.model))?;
            tell_calibration(detector.calibration(), &dataset.name, &skipped, "image", console);
            detector
        }
        None if !matches!(args.groups.group_by, GroupBy::Auto) => {
            bail!("--group-by says which of new images belong together, and there is no folder of them")
        }
        None => detector.with_decision(rule.ok_or_else(nothing_to_do)?)?,
    };
    tell_decision(detector.calibration(), detector.classes(), "image", console);
    detector.save(output)?;
    console.note(format_args!("wrote {}", output.display()));
    Ok(Status::Done)
}

fn of_rows(args: &CalibrateArgs, output: &Path, console: &Console) -> anyhow::Result<Status> {
    if !matches!(args.groups.group_by, GroupBy::Auto) {
        bail!("--group-by is for images, and {} is a model of rows: --group names a column", args.model.display());
    }
    if let (None, Some(flag)) = (&args.data, args.rows.given()) {
        bail!("{flag} says how a table is read, and there is none");
    }
    args.data.iter().try_for_each(|data| rows::check_is_table(data, &args.model))?;
    let detector = FittedRows::load(&args.model)?;
    check_writable(output)?;
    let before = detector.info().decision;
    let rule = args.rule.rule(Some(before))?;
    let detector = match &args.data {
        Some(data) => {
            let table = rows::normal_rows(nomaly::rows::read(Path::new(data), &args.rows.options())?, console)?;
            let (rule, strict) = (rule.unwrap_or(before), args.reading.options(None).strict);
            let calibrated = detector.calibrate(&table, rule, strict, &Bars::new(console, Unit::Images));
            let (detector, skipped) = calibrated.map_err(|error| interrupted(error, &args.model))?;
            tell_calibration(detector.calibration(), &table.name, &skipped, "row", console);
            detector
        }
        None => detector.with_decision(rule.ok_or_else(nothing_to_do)?)?,
    };
    tell_decision(detector.calibration(), detector.classes(), "row", console);
    detector.save(output)?;
    console.note(format_args!("wrote {}", output.display()));
    Ok(Status::Done)
}

/// Describes the new calibration.
fn tell_calibration(calibration: &Calibration, dataset: &str, skipped: &[Skipped], noun: &str, console: &Console) {
    tell_skipped(skipped, noun, console);
    let items = counted(calibration.in_order().len(), &format!("good {noun}"));
    let groups = match calibration.groups() {
        None => String::new(),
        Some(_) => format!(", of {}", counted(calibration.independent(), "independent group")),
    };
    console.note(format_args!("calibrated on {items} of {dataset}{groups}"));
}

/// Prints the new decision, and warns if nothing can be decided.
fn tell_decision(calibration: &Calibration, known: Option<&Classes>, noun: &str, console: &Console) {
    match known {
        Some(known) => {
            classes::warn_unattainable(known, console);
            console.note(classes::decision(known));
        }
        None => {
            warn_unattainable(calibration, noun, console);
            console.note(decision(calibration));
        }
    }
}

fn interrupted(error: nomaly::DetectorError, model: &Path) -> anyhow::Error {
    let message = format!("interrupted, and {} is as it was", model.display());
    Failure::if_cancelled(error, message, "the same command starts from the beginning")
}

fn nothing_to_do() -> anyhow::Error {
    let hint = "name a folder of good images, or one of --max-fpr, --rule and --threshold";
    Failure::new("there is neither new data nor a new rule", hint).into()
}
