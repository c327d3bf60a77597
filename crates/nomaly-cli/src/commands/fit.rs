//! `nomaly fit`: learns what normal looks like, and writes a model file.

use std::iter;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nomaly::FitResult;

use super::{Status, check_writable, classes, decision, fit_detector, interval_in_words, recipe, rows, shard};
use crate::args::FitArgs;
use crate::console::Console;
use crate::failure::{Failure, chain};
use crate::output::{and_skipped, bytes, counted, seconds};
use crate::report::write_training;
use crate::writable::{check_apart, files_in_settings};

pub(crate) fn run(args: &FitArgs, console: &Console) -> anyhow::Result<Status> {
    let executor = args.method.device.open()?;
    if rows::is_about_rows(Path::new(&args.data), &args.rows)? {
        if let Some(shard) = args.shard {
            let message = format!("--shard {shard} is for images, and {} is a table", args.data);
            return Err(Failure::new(message, "fit it in one process: a table takes seconds").into());
        }
        if args.keep.updatable {
            let message = format!("--updatable is for images, and {} is a table", args.data);
            return Err(Failure::new(message, "fit it again with the new rows: a table takes seconds").into());
        }
        return rows::fit(args, console);
    }
    if args.shard.is_some() {
        shard::check(args)?;
    }
    let labelled = args.labels.of_images()?;
    let results: Vec<&Path> = iter::once(&args.output).chain(&args.report).map(PathBuf::as_path).collect();
    check_apart(&results, &files_in_settings(&args.method.set))?;
    check_writable(&args.output)?;
    if let Some(path) = &args.report {
        if labelled {
            bail!("--report is for models of one kind of good images, not for --labels");
        }
        check_writable(path)?;
    }
    let dataset =
        if labelled { nomaly::data::open_classes(Path::new(&args.data))? } else { nomaly::data::open(&args.data)? };
    let mut recipe = recipe(&args.method, args.rule.rule(None)?, args.reading.options(None), &executor)?;
    recipe.drop_suspicious = args.drop_suspicious;
    recipe.options.updatable = args.keep.updatable;
    if labelled {
        if args.drop_suspicious.is_some() {
            bail!("--drop-suspicious is for models of one kind of good images, not for --labels");
        }
        classes::prepare(&mut recipe, &dataset)?;
    }
    if let Some(shard) = args.shard {
        return shard::absorb(&recipe, &dataset, shard, &args.output, console);
    }
    let (fit, fit_s) = fit_detector(&recipe, &dataset, console)?;
    if let Some(classes) = fit.detector.classes() {
        classes::check_attainable(classes, "image")?;
    }
    fit.save(&args.output).map_err(|error| {
        let error = anyhow::Error::from(error);
        match fit.checkpoint {
            Some(_) => {
                let hint = "the training is kept: the same command goes on from its end";
                Failure::new(chain(&error), hint).into()
            }
            None => error,
        }
    })?;
    if let Some(path) = &args.report {
        write_training(path, &fit, &dataset.train, args.reading.options(None).limits)?;
        console.note(format_args!("wrote {}", path.display()));
    }
    tell_model(&fit, "fitted", &args.output, fit_s, console)
}

/// Describes the fitted model, its file and its decision.
pub(super) fn tell_model(
    fit: &FitResult,
    verb: &str,
    output: &Path,
    seconds_taken: f64,
    console: &Console,
) -> anyhow::Result<Status> {
    let size = std::fs::metadata(output).with_context(|| format!("cannot read {}", output.display()))?.len();
    let info = fit.detector.info();
    let training = &info.training;
    console.note(format_args!(
        "{verb} {} on {}: {} of {}{}, {}",
        info.method.name,
        info.backbone.name,
        counted(training.images, "image"),
        training.dataset,
        and_skipped(training.skipped),
        seconds(seconds_taken),
    ));
    match fit.detector.classes() {
        Some(classes) => console.note(classes::decision(classes)),
        None => {
            console.note(decision(fit.detector.calibration()));
            if let Some(interval) = interval_in_words(fit.detector.calibration(), "image") {
                console.detail(interval);
            }
        }
    }
    console.note(format_args!("wrote {} ({})", output.display(), bytes(size)));
    Ok(Status::Done)
}
