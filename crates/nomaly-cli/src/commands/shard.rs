//! `nomaly fit --shard I/N`: one process of a distributed fit.

use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use nomaly::shards::Shard;
use nomaly::{Dataset, Recipe};

use super::{Status, tell_skipped};
use crate::args::FitArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::output::{and_skipped, bytes, counted, seconds};
use crate::progress::{Bars, Unit};

/// Rejects options that need all images in one process.
pub(super) fn check(args: &FitArgs) -> anyhow::Result<()> {
    if args.method.time_budget.is_some() {
        bail!(Failure::new(
            "--time-budget does not go with --shard: the choice depends on the speed of each machine, and all shards \
             need the same method",
            "name a --method, or leave the budget out: `auto` then chooses by the images alone",
        ));
    }
    if args.drop_suspicious.is_some() {
        bail!(Failure::new(
            "--drop-suspicious does not go with --shard: what is suspicious shows when all shards are merged",
            "`nomaly merge` names suspicious images: take them out, and fit again",
        ));
    }
    if args.keep.updatable {
        bail!(Failure::new("--updatable does not go with --shard", "give it to `nomaly merge`"));
    }
    if args.report.is_some() {
        bail!(Failure::new(
            "--report does not go with --shard: a shard has no scores yet",
            "`nomaly eval` and `nomaly score` make reports with the merged model",
        ));
    }
    Ok(())
}

/// Runs the images of a shard through the network, and writes a partial.
pub(super) fn absorb(
    recipe: &Recipe,
    dataset: &Dataset,
    shard: Shard,
    output: &Path,
    console: &Console,
) -> anyhow::Result<Status> {
    let chosen = recipe.choose(&dataset.train)?;
    if let Some(reason) = &chosen.reason {
        console.note(reason);
    }
    let detector = recipe.detector(&chosen)?;
    let began = Instant::now();
    let bars = Bars::new(console, Unit::Images);
    let absorbed =
        detector.absorb(&dataset.name, &dataset.train, shard, &recipe.options, output, &bars).map_err(|error| {
            let hint = "a shard is not resumed: the same command starts it from the beginning";
            Failure::if_cancelled(error, "the shard was interrupted, and nothing was written", hint)
        })?;
    tell_skipped(&absorbed.skipped, "image", console);
    console.note(format_args!(
        "shard {shard} for {} on {}: {} of {} of {}{}, {}",
        chosen.method,
        chosen.backbone,
        absorbed.images,
        counted(dataset.train.len(), "image"),
        dataset.name,
        and_skipped(absorbed.skipped.len()),
        seconds(began.elapsed().as_secs_f64()),
    ));
    console.detail(format_args!("an image takes {} of a partial", bytes(absorbed.image_bytes)));
    console.note(format_args!("wrote {} ({})", output.display(), bytes(absorbed.bytes)));
    Ok(Status::Done)
}
