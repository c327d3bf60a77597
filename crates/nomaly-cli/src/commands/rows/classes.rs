//! `nomaly eval --labels` on a table.

use std::path::Path;

use nomaly::classes::UNKNOWN;
use nomaly::data::{Choice, choose};
use nomaly::evaluation::evaluate_row_classes;
use nomaly::rows::read;
use nomaly::rows::{FittedRows, RowFitOptions, RowPredictOptions};

use super::super::{Status, classes, tell_skipped};
use super::{check_method, detector, fit_rows, refusal, subset};
use crate::args::{EvalArgs, Format};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::{counted, print_json, stdout};
use crate::progress::{Bars, Unit};

pub(super) fn run(args: &EvalArgs, console: &Console) -> anyhow::Result<Status> {
    check_method(&args.method, true)?;
    if args.report.is_some() {
        return Err(refusal("--report", "`--format json` gives the figures"));
    }
    if args.supervised_reference {
        let hint = "it is for normal and anomalous rows: `--label COLUMN` in place of `--labels COLUMN`";
        return Err(Failure::new("--supervised-reference is for evaluations without --labels", hint).into());
    }
    let column = args.labels.column()?.unwrap_or_default();
    let table = read(Path::new(&args.data), &args.rows.options_with_classes(column))?;
    let labels: &[String] = table.labels.as_deref().unwrap_or_default();
    let labelled: Vec<usize> = (0..labels.len()).filter(|&row| !labels[row].is_empty()).collect();
    if labelled.len() < labels.len() {
        console.note(format_args!("left out {} without a label", counted(labels.len() - labelled.len(), "row")));
    }
    let strict = args.reading.options(None).strict;
    let (detector, test, fit_s, rule) = match &args.model {
        Some(path) => {
            let detector = FittedRows::load(path)?;
            let rule = args.rule.rule(Some(detector.calibration().rule()))?;
            (detector, labelled, None, rule)
        }
        None => {
            let train = half_of_each(labels, &labelled, args.method.seed);
            let most = args.max_train.map_or(usize::MAX, std::num::NonZero::get);
            let kept = choose(train.len(), most, Choice::Seeded(args.method.seed));
            let train: Vec<usize> = kept.into_iter().map(|place| train[place]).collect();
            let test = labelled.into_iter().filter(|row| train.binary_search(row).is_err()).collect();
            console.note(format_args!(
                "learning from {}, half of each class, chosen by the seed; testing with all others",
                counted(train.len(), "row")
            ));
            let rule = args.rule.rule(None)?.unwrap_or(RowFitOptions::default().rule);
            let options = RowFitOptions { seed: args.method.seed, rule, strict };
            let train = subset(&table, &train);
            classes::check_counts(train.labels.iter().flatten().map(String::as_str), "row", rule)?;
            let (detector, fit_s) = fit_rows(detector(&args.method.set, true)?, &train, &options, console)?;
            (detector, test, Some(fit_s), None)
        }
    };
    let options = RowPredictOptions { rule, strict };
    let decider = detector.decider_under(options.rule)?;
    let Some(known) = decider.classes() else {
        let hint = "`nomaly fit DATA --labels COLUMN` makes a model that does";
        return Err(Failure::new("the model does not tell classes apart", hint).into());
    };
    if args.model.is_some() {
        classes::warn_unattainable(known, console);
    }
    let bars = Bars::new(console, Unit::Images);
    let evaluation = evaluate_row_classes(&detector, &subset(&table, &test), fit_s, &options, &bars)?;
    tell_skipped(&evaluation.skipped, "row", console);
    match args.format {
        Format::Json => print_json(&evaluation)?,
        Format::Table => classes::print_figures(&mut stdout(), &evaluation)?,
    }
    Ok(Status::Done)
}

/// Half of the rows of each class, chosen by the seed, ascending; rows labelled `unknown` are used only for testing.
fn half_of_each(labels: &[String], labelled: &[usize], seed: u64) -> Vec<usize> {
    let mut members: std::collections::BTreeMap<&str, Vec<usize>> = std::collections::BTreeMap::new();
    for &row in labelled.iter().filter(|&&row| !labels[row].eq_ignore_ascii_case(UNKNOWN)) {
        members.entry(&labels[row]).or_default().push(row);
    }
    let half = |members: Vec<usize>| {
        let chosen = choose(members.len(), members.len() / 2, Choice::Seeded(seed));
        chosen.into_iter().map(move |place| members[place])
    };
    let mut train: Vec<usize> = members.into_values().flat_map(half).collect();
    train.sort_unstable();
    train
}
