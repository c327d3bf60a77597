//! `nomaly fit` on a table.

use std::path::Path;

use anyhow::Context;
use nomaly::GroupBy;
use nomaly::rows::RowFitOptions;
use nomaly::rows::{Table, read};

use super::super::{Status, check_writable, classes, decision, tell_groups};
use super::{check_method, detector, fit_rows, labels, subset};
use crate::args::FitArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::output::{and_skipped, bytes, counted, seconds};
use crate::writable::check_apart;

pub(crate) fn run(args: &FitArgs, console: &Console) -> anyhow::Result<Status> {
    let column = args.labels.column()?;
    check_method(&args.method, column.is_some())?;
    let of_images = [
        ("--report", args.report.is_some()),
        ("--drop-suspicious", args.drop_suspicious.is_some()),
        ("--bear", args.method.bear.is_some()),
        ("--group-by", !matches!(args.method.groups.group_by, GroupBy::Auto)),
    ];
    if let Some((flag, _)) = of_images.into_iter().find(|(_, given)| *given) {
        let hint = "leave it out; rows that depend on each other are named by --group COLUMN";
        return Err(Failure::new(format!("{flag} is for images, and {} is a table", args.data), hint).into());
    }
    check_apart(&[&args.output], &[Path::new(&args.data)])?;
    check_writable(&args.output)?;
    let rule = args.rule.rule(None)?.unwrap_or(RowFitOptions::default().rule);
    let path = Path::new(&args.data);
    let table = match column {
        Some(column) => {
            let table = read(path, &args.rows.options_with_classes(column))?;
            let named = table.labels.iter().flatten().map(String::as_str).filter(|label| !label.is_empty());
            classes::check_counts(named, "row", rule)?;
            table
        }
        None => normal_rows(read(path, &args.rows.options())?, console)?,
    };
    let options = RowFitOptions { seed: args.method.seed, rule, strict: args.reading.options(None).strict };
    let detector = detector(&args.method.set, column.is_some())?;
    let (detector, fit_s) = fit_rows(detector, &table, &options, console)?;
    detector.save(&args.output)?;
    let size = std::fs::metadata(&args.output).with_context(|| format!("cannot read {}", args.output.display()))?.len();
    let training = &detector.info().training;
    console.note(format_args!(
        "fitted {}: {} of {}{}, {}",
        detector.info().scorer,
        counted(training.rows, "row"),
        training.dataset,
        and_skipped(training.skipped),
        seconds(fit_s),
    ));
    tell_groups(&training.groups, training.rows, "row", console);
    match detector.classes() {
        Some(classes) => console.note(classes::decision(classes)),
        None => console.note(decision(detector.calibration())),
    }
    console.note(format_args!("wrote {} ({})", args.output.display(), bytes(size)));
    Ok(Status::Done)
}

/// The rows that are not labelled anomalous.
pub(crate) fn normal_rows(table: Table, console: &Console) -> anyhow::Result<Table> {
    let Some(labels) = labels(&table)? else { return Ok(table) };
    let normal: Vec<usize> = (0..labels.len()).filter(|&row| !labels[row]).collect();
    let left_out = labels.len() - normal.len();
    if left_out == 0 {
        return Ok(table);
    }
    console.note(format_args!("left out {} labelled anomalous", counted(left_out, "row")));
    Ok(subset(&table, &normal))
}
