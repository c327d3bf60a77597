//! `nomaly eval --labels` on images.

use std::path::Path;

use nomaly::data::Choice;
use nomaly::data::open_classes;
use nomaly::devices::Executor;
use nomaly::evaluation::evaluate_classes;
use nomaly::{FittedDetector, PredictOptions};

use super::super::{Status, fit_detector, recipe, tell_skipped};
use super::{check_attainable, prepare, print_figures, warn_unattainable};
use crate::args::{EvalArgs, Format};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::{print_json, stdout};
use crate::progress::{Bars, Unit};

pub(crate) fn run(args: &EvalArgs, executor: &Executor, console: &Console) -> anyhow::Result<Status> {
    for (flag, given) in [("--report", args.report.is_some()), ("--supervised-reference", args.supervised_reference)] {
        if given {
            let hint = "`--format json` gives the figures";
            return Err(Failure::new(format!("{flag} is for evaluations without --labels"), hint).into());
        }
    }
    let mut dataset = open_classes(Path::new(&args.data))?;
    let (detector, fit_s, rule) = match &args.model {
        Some(path) => {
            let detector = FittedDetector::load_on(path, executor)?;
            let rule = args.rule.rule(Some(detector.info().decision))?;
            if dataset.test.is_empty() {
                dataset.test = std::mem::take(&mut dataset.train);
            }
            (detector, None, rule)
        }
        None => {
            if dataset.test.is_empty() {
                let message = format!("{} has no images to test with", args.data);
                let hint = "folders of classes in train/ and in test/, or a model: `nomaly fit DATA --labels -o FILE`";
                return Err(Failure::new(message, hint).into());
            }
            if let Some(max) = args.max_train {
                dataset.limit_train(max.get(), Choice::Seeded(args.method.seed));
            }
            let mut recipe = recipe(&args.method, args.rule.rule(None)?, args.reading.options(None), executor)?;
            prepare(&mut recipe, &dataset)?;
            let (fit, fit_s) = fit_detector(&recipe, &dataset, console)?;
            (fit.detector, Some(fit_s), None)
        }
    };
    let options = PredictOptions { rule, stream: args.reading.options(None) };
    let decider = detector.decider_under(options.rule)?;
    let Some(classes) = decider.classes() else {
        let hint = "`nomaly fit DATA --labels` makes a model that does";
        return Err(Failure::new("the model does not tell classes apart", hint).into());
    };
    match &args.model {
        Some(_) => warn_unattainable(classes, console),
        None => check_attainable(classes, "image")?,
    }
    let bars = Bars::new(console, Unit::Images);
    let evaluation = evaluate_classes(&detector, &dataset.name, &dataset.test, fit_s, &options, &bars)?;
    tell_skipped(&evaluation.skipped, "image", console);
    match args.format {
        Format::Json => print_json(&evaluation)?,
        Format::Table => print_figures(&mut stdout(), &evaluation)?,
    }
    Ok(Status::Done)
}
