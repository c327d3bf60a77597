//! `nomaly eval`: evaluates a model or a method on labelled images.

use std::path::{Path, PathBuf};

use nomaly::calibration::DEFAULT_MAX_FPR;
use nomaly::evaluation::reference_of_images;
use nomaly::evaluation::{Evaluated, LabelledPrediction, evaluate, evaluate_grouped};
use nomaly::evaluation::{Voice, hybrid};
use nomaly::store::{create_folder, write_atomic};
use nomaly::wire::HybridFigures;
use nomaly::{Dataset, Label};
use nomaly::{FittedDetector, PredictOptions};

use super::evaluation_data::{limit, open};
use super::{
    Status, check_writable, classes, figures, fit_detector, one_vs_all, recipe, rows, tell_skipped, warn_unattainable,
};
use crate::args::{EvalArgs, Format};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::{print_json, stdout, write_csv};
use crate::progress::{Bars, Unit};
use crate::report::{EvaluationReport, PREVIEW_SIDE};
use crate::writable::{check_apart, files_in_settings};

/// The files of a report.
const RESULTS: [&str; 3] = ["report.html", "scores.csv", "evaluation.json"];

pub(crate) fn run(args: &EvalArgs, console: &Console) -> anyhow::Result<Status> {
    let executor = args.method.device.open()?;
    if rows::is_about_rows(Path::new(&args.data), &args.rows)? {
        return rows::eval(args, console);
    }
    if args.labels.of_images()? {
        return classes::eval(args, &executor, console);
    }
    if args.one_vs_all.one_vs_all {
        return one_vs_all::run(args, &executor, console);
    }
    if let Some(folder) = &args.report {
        create_folder(folder)?;
        let results = RESULTS.map(|name| folder.join(name));
        let models = args.model.iter().chain(&args.with).map(PathBuf::as_path);
        let inputs: Vec<&Path> = models.chain(files_in_settings(&args.method.set)).collect();
        check_apart(&results.each_ref().map(PathBuf::as_path), &inputs)?;
        results.iter().try_for_each(|result| check_writable(result))?;
    }
    // Normal images alone suffice to count false alarms.
    let needed: &[Label] =
        if args.supervised_reference { &[Label::Normal, Label::Anomalous] } else { &[Label::Normal] };
    let mut dataset = open(&args.data, needed)?;
    limit(&mut dataset, args, args.method.seed);
    let (detector, checkpoint, fit_s, rule) = match &args.model {
        Some(path) => {
            let detector = FittedDetector::load_on(path, &executor)?;
            if detector.classes().is_some_and(|classes| classes.known().len() > 1) {
                let message = format!("{} is a model of several classes", path.display());
                return Err(Failure::new(
                    message,
                    "`nomaly eval DATA --labels -m FILE` measures how it tells them apart",
                )
                .into());
            }
            let rule = args.rule.rule(Some(detector.info().decision))?;
            (detector, None, None, rule)
        }
        None => {
            let rule = args.rule.rule(None)?;
            let recipe = recipe(&args.method, rule, args.reading.options(None), &executor)?;
            let (fit, fit_s) = fit_detector(&recipe, &dataset, console)?;
            // The detector already has the rule.
            (fit.detector, fit.checkpoint, Some(fit_s), None)
        }
    };
    let preview = args.report.is_some().then_some(PREVIEW_SIDE);
    let options = PredictOptions { rule, stream: args.reading.options(preview) };
    let decider = detector.decider_under(options.rule)?;
    let calibration = decider.calibration();
    if args.model.is_some() {
        warn_unattainable(calibration, "image", console);
    }
    let limits = options.stream.limits;
    let mut report = args.report.as_ref().map(|_| EvaluationReport::new(&detector, calibration, limits)).transpose()?;
    let bars = Bars::new(console, Unit::Images);
    let mut evaluated =
        evaluate_grouped(&detector, &dataset, fit_s, &args.method.groups.group_by, &options, &bars, |outcome| {
            if let Some(report) = &mut report {
                report.record(outcome);
            }
        })?;
    tell_skipped(&evaluated.figures.skipped, "image", console);
    if args.supervised_reference {
        let seed = detector.info().training.seed;
        let reference = reference_of_images(&detector, &dataset.test, seed, args.reading.options(None), &bars)?;
        evaluated.figures.supervised_reference = Some(reference);
    }

    if let Some(path) = &args.with {
        evaluated.figures.hybrid = Some(hybrid_figures(path, (&detector, &evaluated), &dataset, &options, console)?);
    }

    let printed = match args.format {
        Format::Json => print_json(&evaluated.figures),
        Format::Table => figures::print(&mut stdout(), &evaluated.figures).map_err(Into::into),
    };
    if let (Some(mut report), Some(folder)) = (report, &args.report) {
        report.images.explain(&detector, &dataset.test, options.stream, console)?;
        report.write(&folder.join("report.html"), &evaluated, calibration, &[])?;
        write_results(folder, &evaluated)?;
        console.note(format_args!("wrote report.html, scores.csv and evaluation.json into {}", folder.display()));
    }
    printed?;
    if let Some(checkpoint) = checkpoint {
        checkpoint.remove();
    }
    Ok(Status::Done)
}

/// The figures of the model in a file combined with the first one, which is already evaluated.
fn hybrid_figures(
    path: &Path,
    (first, evaluated): (&FittedDetector, &Evaluated),
    dataset: &Dataset,
    options: &PredictOptions,
    console: &Console,
) -> anyhow::Result<HybridFigures> {
    let second = FittedDetector::load_on(path, first.executor())?;
    let bars = Bars::new(console, Unit::Images);
    let other = evaluate(&second, dataset, None, options, &bars, |_| {})?;
    let rule = options.rule.unwrap_or(first.info().decision);
    let item = |detector, evaluated| Voice { detector, evaluated };
    let both = [item(first, evaluated), item(&second, &other)];
    Ok(hybrid(&both, rule.rate().unwrap_or(DEFAULT_MAX_FPR))?)
}

/// Writes the figures and the score of every test image.
fn write_results(folder: &Path, evaluated: &Evaluated) -> anyhow::Result<()> {
    let mut json = serde_json::to_vec_pretty(&evaluated.figures)?;
    json.push(b'\n');
    write_atomic(&folder.join("evaluation.json"), &json)?;
    write_atomic(&folder.join("scores.csv"), &scores_csv(&evaluated.predictions)?)?;
    Ok(())
}

fn scores_csv(predictions: &[LabelledPrediction]) -> anyhow::Result<Vec<u8>> {
    let mut csv = Vec::new();
    write_csv(&mut csv, &["id", "kind", "anomalous_label", "score", "p_value", "anomalous"])?;
    for image in predictions {
        write_csv(
            &mut csv,
            &[
                &image.id,
                &image.kind,
                &image.anomalous_label.to_string(),
                &image.prediction.score.to_string(),
                &image.prediction.p_value.to_string(),
                &image.prediction.anomalous.map_or_else(String::new, |anomalous| anomalous.to_string()),
            ],
        )?;
    }
    Ok(csv)
}
