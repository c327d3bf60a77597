//! `nomaly fit` on a table.

use std::path::Path;

use anyhow::Context;
use nomaly::data::tables::read;
use nomaly::detectors::rows::RowFitOptions;

use super::super::{Status, and_skipped, check_writable, decision};
use super::{check_method, fit_rows, labels, subset};
use crate::args::FitArgs;
use crate::console::Console;
use crate::output::{bytes, counted, seconds};

pub(crate) fn run(args: &FitArgs, console: &Console) -> anyhow::Result<Status> {
    check_method(&args.method)?;
    check_writable(&args.output)?;
    let mut table = read(Path::new(&args.data), &args.rows.options())?;
    if let Some(labels) = labels(&table)? {
        let normal: Vec<usize> = (0..labels.len()).filter(|&row| !labels[row]).collect();
        let left_out = labels.len() - normal.len();
        if left_out > 0 {
            console.note(format_args!("left out {} labelled anomalous", counted(left_out, "row")));
            table = subset(&table, &normal);
        }
    }
    let options = RowFitOptions {
        seed: args.method.seed,
        rule: args.rule.rule(None)?.unwrap_or(RowFitOptions::default().rule),
        strict: args.reading.options(None).strict,
    };
    let (detector, fit_s) = fit_rows(&args.method.set, &table, &options, console)?;
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
    console.note(decision(detector.calibration()));
    console.note(format_args!("wrote {} ({})", args.output.display(), bytes(size)));
    Ok(Status::Done)
}
