//! The arguments of `nomaly calibrate`.

use std::path::PathBuf;

use clap::Args;

use super::{DeviceArgs, GroupArgs, ReadingArgs, RowArgs, RuleArgs};

const CALIBRATE_HELP: &str = "\
The decision is what the model calls anomalous; what it has learned stays as it is. With GOOD, a folder of good \
images that it has not learned from (today's light, this camera), their scores take the place of the held-out \
scores of the training. Without it, the same held-out scores get another rule. Earlier decisions stay in the file: \
`nomaly inspect` shows them.

Examples:
  nomaly calibrate parts/today -m part.nomaly                    held-out scores of today's good parts
  nomaly calibrate parts/today -m part.nomaly --max-fpr 0.01
  nomaly calibrate -m part.nomaly --max-fpr 0.02                 another rate
  nomaly calibrate -m part.nomaly --threshold 31.5 -o strict.nomaly";

/// Arguments of `nomaly calibrate`.
#[derive(Debug, Args)]
#[command(after_help = CALIBRATE_HELP)]
pub(crate) struct CalibrateArgs {
    /// Good images that the model has not learned from: a folder or a named data set; or a table of such rows
    #[arg(value_name = "GOOD")]
    pub(crate) data: Option<String>,
    /// The model file
    #[arg(short, long, value_name = "FILE")]
    pub(crate) model: PathBuf,
    /// The model file to write, in place of replacing the one that was read
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) rule: RuleArgs,
    #[command(flatten)]
    pub(crate) groups: GroupArgs,
    #[command(flatten)]
    pub(crate) rows: RowArgs,
    #[command(flatten)]
    pub(crate) reading: ReadingArgs,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}
