//! The arguments for classes of good items.

use anyhow::bail;
use clap::Args;

use crate::failure::Failure;

/// Open-set recognition.
#[derive(Debug, Args)]
#[command(next_help_heading = "Classes")]
pub(crate) struct LabelsArgs {
    /// Tell the classes of good items apart, and call what belongs to none of them unknown: the class of an image is
    /// the name of its folder in DATA (give `--labels` after DATA), that of a row stands in COLUMN
    #[arg(long, value_name = "COLUMN", num_args = 0..=1, default_missing_value = "", conflicts_with = "label")]
    labels: Option<String>,
}

impl LabelsArgs {
    /// Whether the folders of images are their classes.
    pub(crate) fn of_images(&self) -> anyhow::Result<bool> {
        match self.labels.as_deref() {
            None => Ok(false),
            Some("") => Ok(true),
            Some(column) => bail!(Failure::new(
                format!("--labels {column} names a column, and the data are images"),
                "the class of an image is the name of its folder: give `--labels` alone, after the other arguments",
            )),
        }
    }

    /// The column with the classes of rows, if given.
    pub(crate) fn column(&self) -> anyhow::Result<Option<&str>> {
        match self.labels.as_deref() {
            Some("") => bail!(Failure::new("--labels needs the name of a column here", "`--labels COLUMN`")),
            column => Ok(column),
        }
    }
}
