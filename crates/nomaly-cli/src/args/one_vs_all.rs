//! The one-against-all protocol.

use std::num::NonZeroUsize;

use clap::Args;

/// Each class as the normal one in turn.
#[derive(Debug, Args)]
#[command(next_help_heading = "One class against all")]
pub(crate) struct OneVsAllArgs {
    /// Take each class of DATA as the normal one in turn, and print the table of all classes beside the published one.
    /// Runs that have ended are kept, and not repeated by the same command
    #[arg(long, conflicts_with_all = ["model", "labels", "supervised_reference"])]
    pub(crate) one_vs_all: bool,
    /// Only these classes, with commas between them
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "one_vs_all")]
    pub(crate) classes: Vec<String>,
    /// Repeat each class with so many seeds, from --seed on
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN, requires = "one_vs_all")]
    pub(crate) seeds: NonZeroUsize,
}
