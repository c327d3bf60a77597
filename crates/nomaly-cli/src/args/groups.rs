//! The argument for groups of dependent images.

use clap::Args;
use nomaly::GroupBy;

/// Which images depend on each other.
#[derive(Debug, Args)]
#[command(next_help_heading = "Decision")]
pub(crate) struct GroupArgs {
    /// Which images depend on each other and count as one when the false-alarm rate is kept: `auto` (near-copies, and
    /// runs of files that resemble each other), `none`, `folder`, `gap=SECONDS` (by the camera's clock, else the time
    /// of the last change), or a regular expression for names (equal text of its parentheses makes a group)
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub(crate) group_by: GroupBy,
}
