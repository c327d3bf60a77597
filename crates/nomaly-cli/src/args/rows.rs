//! Which columns of a table are no features.

use clap::Args;
use nomaly::data::tables::ReadOptions;

/// What the columns of a table are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Tables (.csv, .tsv, .npy, .parquet)")]
pub(crate) struct RowArgs {
    /// The column that says which rows are anomalous: 0/1, normal/anomalous, good/bad; `fit` learns from normal rows only
    #[arg(long, value_name = "COLUMN")]
    pub(crate) label: Option<String>,
    /// The column that names the rows
    #[arg(long, value_name = "COLUMN")]
    pub(crate) id: Option<String>,
    /// A column to leave out; may be given several times
    #[arg(long, value_name = "COLUMN")]
    pub(crate) ignore: Vec<String>,
}

impl RowArgs {
    pub(crate) fn options(&self) -> ReadOptions {
        ReadOptions { label: self.label.clone(), id: self.id.clone(), ignore: self.ignore.clone() }
    }

    /// The same where a column holds the classes of rows.
    pub(crate) fn options_with_classes(&self, column: &str) -> ReadOptions {
        ReadOptions { label: Some(column.to_owned()), ..self.options() }
    }

    /// The first flag that was given, for where there is no table.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let flags =
            [("--label", self.label.is_some()), ("--id", self.id.is_some()), ("--ignore", !self.ignore.is_empty())];
        flags.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }
}
