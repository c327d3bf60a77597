//! The columns of a table that are not features.

use clap::Args;
use nomaly::rows::ReadOptions;

/// What the columns of a table are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tables (.csv, .tsv, .npy, .parquet)")]
pub(crate) struct RowArgs {
    /// The column that says which rows are anomalous: 0/1, normal/anomalous, good/bad; `fit` learns from normal rows
    /// only
    #[arg(long, value_name = "COLUMN")]
    pub(crate) label: Option<String>,
    /// The column that names the rows
    #[arg(long, value_name = "COLUMN")]
    pub(crate) id: Option<String>,
    /// The column that says which rows depend on each other (one part, one batch): they are held out together and count
    /// as one when the false-alarm rate is kept
    #[arg(long, value_name = "COLUMN")]
    pub(crate) group: Option<String>,
    /// A column to leave out; may be given several times
    #[arg(long, value_name = "COLUMN")]
    pub(crate) ignore: Vec<String>,
}

impl RowArgs {
    pub(crate) fn options(&self) -> ReadOptions {
        let Self { label, id, group, ignore } = self;
        ReadOptions { label: label.clone(), id: id.clone(), group: group.clone(), ignore: ignore.clone() }
    }

    /// As `options`, with a column of classes.
    pub(crate) fn options_with_classes(&self, column: &str) -> ReadOptions {
        ReadOptions { label: Some(column.to_owned()), ..self.options() }
    }

    /// The first given flag, for an error without a table.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--label", self.label.is_some()),
            ("--id", self.id.is_some()),
            ("--group", self.group.is_some()),
            ("--ignore", !self.ignore.is_empty()),
        ];
        flags.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }
}
