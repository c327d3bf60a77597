//! `nomaly update`: trains a model on further images of good items.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use nomaly::FittedDetector;
use nomaly::model_file::{AnySummary, read_any_summary};

use super::{Status, check_writable, decision, rows, tell_fit};
use crate::args::UpdateArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::output::{and_skipped, bytes, counted, seconds};
use crate::progress::{Bars, Unit};
use crate::writable::check_apart;

pub(crate) fn run(args: &UpdateArgs, console: &Console) -> anyhow::Result<Status> {
    let executor = args.device.open()?;
    let output = args.output.as_ref().unwrap_or(&args.model);
    check_apart(&[output], &[Path::new(&args.data)])?;
    let detector =
        FittedDetector::load_on(&args.model, &executor).map_err(|error| match read_any_summary(&args.model) {
            Ok(AnySummary::Rows(_)) => {
                let message =
                    format!("{} is a model of rows, and only models of images can be updated", args.model.display());
                Failure::new(
                    message,
                    "`nomaly fit` on a table that holds the old and the new rows makes a model of both",
                )
                .into()
            }
            _ => anyhow::Error::from(error),
        })?;
    rows::check_is_no_table(&args.data, &args.model)?;
    check_writable(output)?;
    let dataset = nomaly::data::open(&args.data)?;
    let before = detector.info().training.images;

    let group_by = args.group_by.clone().unwrap_or_else(|| detector.group_by());
    let began = Instant::now();
    let bars = Bars::new(console, Unit::Images);
    let fit = detector.extend(&dataset.train, &group_by, args.reading.options(None), &bars).map_err(|error| {
        let message = format!("the update was interrupted, and {} is as it was", args.model.display());
        Failure::if_cancelled(error, message, "an update is not resumed: the same command starts from the beginning")
    })?;
    let took = began.elapsed().as_secs_f64();
    tell_fit(&fit, console);
    fit.save(output)?;
    let size = std::fs::metadata(output).with_context(|| format!("cannot read {}", output.display()))?.len();

    let info = fit.detector.info();
    console.note(format_args!(
        "updated {} on {} with {}: {} before, {} after{}, {}",
        info.method.name,
        info.backbone.name,
        dataset.name,
        counted(before, "image"),
        info.training.images,
        and_skipped(fit.skipped.len()),
        seconds(took),
    ));
    console.note(decision(fit.detector.calibration()));
    console.note(format_args!("wrote {} ({})", output.display(), bytes(size)));
    Ok(Status::Done)
}
