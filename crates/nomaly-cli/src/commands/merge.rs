//! `nomaly merge`: a model from the partials of all shards.

use std::path::{Path, PathBuf};
use std::time::Instant;

use nomaly::shards::{MergeOptions, Merged, merge};

use super::fit::tell_model;
use super::{Status, check_writable, classes, tell_fit, tell_suspicious};
use crate::args::MergeArgs;
use crate::console::Console;
use crate::failure::Failure;
use crate::progress::{Bars, Unit};
use crate::writable::check_apart;

pub(crate) fn run(args: &MergeArgs, console: &Console) -> anyhow::Result<Status> {
    let partials: Vec<&Path> = args.partials.iter().map(PathBuf::as_path).collect();
    check_apart(&[&args.output], &partials)?;
    check_writable(&args.output)?;
    let options = MergeOptions { updatable: args.keep.updatable };
    let began = Instant::now();
    let Merged { fit, ids } = merge(&args.partials, options, &Bars::new(console, Unit::Images)).map_err(|error| {
        let hint = "the partials are as they were: the same command starts again";
        Failure::if_cancelled(error, "the merge was interrupted, and nothing was written", hint)
    })?;
    let took = began.elapsed().as_secs_f64();
    tell_fit(&fit, console);
    match fit.detector.classes() {
        Some(known) => classes::check_attainable(known, "image")?,
        None => tell_suspicious(&fit, &|sample| ids[sample].as_str(), console),
    }
    fit.save(&args.output)?;
    tell_model(&fit, "merged", &args.output, took, console)
}
