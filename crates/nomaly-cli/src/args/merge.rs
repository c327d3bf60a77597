//! The arguments of `nomaly merge`.

use std::path::PathBuf;

use clap::Args;

use super::KeepArgs;

const MERGE_HELP: &str = "\
A partial is what `nomaly fit --shard I/N` writes: what the network said of one shard of the images. The model is byte \
for byte the one that `nomaly fit` makes of all images in one process; images and weights are not needed again.

Examples:
  nomaly fit parts/good --method padim --shard 1/2 -o 1.partial      on one machine
  nomaly fit parts/good --method padim --shard 2/2 -o 2.partial      on another one, with the same images and options
  nomaly merge 1.partial 2.partial -o part.nomaly                    in any order";

/// Arguments of `nomaly merge`.
#[derive(Debug, Args)]
#[command(after_help = MERGE_HELP)]
pub(crate) struct MergeArgs {
    /// The partials of all shards
    #[arg(value_name = "PARTIAL", required = true)]
    pub(crate) partials: Vec<PathBuf>,
    /// The model file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
}
