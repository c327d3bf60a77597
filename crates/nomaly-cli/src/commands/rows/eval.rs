//! `nomaly eval` on a labelled table.

use std::path::Path;

use nomaly::data::{Choice, choose};
use nomaly::evaluation::evaluate_rows;
use nomaly::evaluation::reference_of_rows;
use nomaly::model_file::{AnySummary, read_any_summary};
use nomaly::rows::read;
use nomaly::rows::{FittedRows, RowFitOptions, RowPredictOptions};

use super::super::{Status, figures, tell_skipped, warn_unattainable};
use super::{check_is_no_table, check_method, classes, detector, fit_rows, labels, refusal, subset};
use crate::args::{EvalArgs, Format};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::{counted, print_json, stdout};
use crate::progress::{Bars, Unit};

pub(crate) fn run(args: &EvalArgs, console: &Console) -> anyhow::Result<Status> {
    if args.labels.column()?.is_some() {
        return classes::run(args, console);
    }
    check_method(&args.method, false)?;
    if args.report.is_some() {
        return Err(refusal("--report", "`--format json` gives the figures"));
    }
    if args.with.is_some() {
        return Err(refusal("--with", "one model scores rows"));
    }
    let fitted = args.model.as_deref().map(|path| load(path, &args.data)).transpose()?;
    let table = read(Path::new(&args.data), &args.rows.options())?;
    let Some(labels) = labels(&table)? else {
        let hint = "`--label COLUMN` names the column that says which rows are anomalous";
        return Err(Failure::new("an evaluation needs labels", hint).into());
    };
    let strict = args.reading.options(None).strict;
    let (detector, test, fit_s, rule) = match fitted {
        Some(detector) => {
            let rule = args.rule.rule(Some(detector.calibration().rule()))?;
            (detector, (0..labels.len()).collect::<Vec<_>>(), None, rule)
        }
        None => {
            let normal: Vec<usize> = (0..labels.len()).filter(|&row| !labels[row]).collect();
            let most = args.max_train.map_or(usize::MAX, std::num::NonZero::get).min(normal.len() / 2);
            let chosen = choose(normal.len(), most, Choice::Seeded(args.method.seed));
            let train: Vec<usize> = chosen.into_iter().map(|place| normal[place]).collect();
            let test = (0..labels.len()).filter(|row| train.binary_search(row).is_err()).collect();
            console.note(format_args!(
                "learning from {} labelled normal, chosen by the seed; testing with all others",
                counted(train.len(), "row")
            ));
            let rule = args.rule.rule(None)?.unwrap_or(RowFitOptions::default().rule);
            let options = RowFitOptions { seed: args.method.seed, rule, strict };
            let (detector, fit_s) =
                fit_rows(detector(&args.method.set, false)?, &subset(&table, &train), &options, console)?;
            (detector, test, Some(fit_s), None)
        }
    };
    let options = RowPredictOptions { rule, strict };
    if args.model.is_some() {
        warn_unattainable(detector.decider_under(options.rule)?.calibration(), "row", console);
    }
    let labels: Vec<bool> = test.iter().map(|&row| labels[row]).collect();
    let bars = Bars::new(console, Unit::Images);
    let test = subset(&table, &test);
    let mut figures = evaluate_rows(&detector, &test, &labels, fit_s, &options, &bars)?;
    tell_skipped(&figures.skipped, "row", console);
    if args.supervised_reference {
        let seed = detector.info().training.seed;
        figures.supervised_reference = Some(reference_of_rows(&detector, &test, &labels, seed, &bars)?);
    }
    match args.format {
        Format::Json => print_json(&figures)?,
        Format::Table => figures::print(&mut stdout(), &figures)?,
    }
    Ok(Status::Done)
}

/// Loads a model for the table `data`.
fn load(path: &Path, data: &str) -> anyhow::Result<FittedRows> {
    if let AnySummary::Images(_) = read_any_summary(path)? {
        check_is_no_table(data, path)?;
    }
    let detector = FittedRows::load(path)?;
    if detector.classes().is_some() {
        let message = format!("{} is a model of classes", path.display());
        let hint = "`nomaly eval DATA --labels COLUMN -m FILE` measures how it tells them apart";
        return Err(Failure::new(message, hint).into());
    }
    Ok(detector)
}
