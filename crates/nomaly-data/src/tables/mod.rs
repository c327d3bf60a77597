//! Tables of numbers: rows of features without images.
//!
//! [`read`] loads a CSV, NumPy or Parquet file into a [`Table`]. [`ReadOptions`] names the columns that are not
//! features: a column that is not numeric must be a label, an identifier or a group, or be ignored.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("parts.csv");
//! std::fs::write(&path, "part;width;height;state\nA1;2.5;3;good\nA2;2.6;;bad\n")?;
//! let options = nomaly_data::tables::ReadOptions {
//!     label: Some("state".to_owned()),
//!     id: Some("part".to_owned()),
//!     ..Default::default()
//! };
//! let table = nomaly_data::tables::read(&path, &options)?;
//! assert_eq!(table.columns.unwrap(), ["width", "height"]);
//! assert_eq!(table.labels.unwrap(), ["good", "bad"]);
//! assert!(table.rows[[1, 1]].is_nan()); // a missing cell
//! # Ok(())
//! # }
//! ```

mod columns;
mod csv;
mod npy;
mod parquet;

use std::path::Path;

use ndarray::{Array2, Axis};

use self::columns::Columns;
use crate::DataError;

/// The extensions of files that hold tables, in lower case.
pub const TABLE_EXTENSIONS: &[&str] = &["csv", "tsv", "npy", "parquet"];

/// The most cells of a table: 4 GiB of single-precision numbers.
const MAX_CELLS: usize = 1 << 30;

/// The columns of a file that are not features. In a file without names, columns are named by their numbers, from 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The column with the kind of item.
    pub label: Option<String>,
    /// The column with the names of rows.
    pub id: Option<String>,
    /// The column with the groups: rows with equal cells depend on each other.
    pub group: Option<String>,
    /// Ignored columns.
    pub ignore: Vec<String>,
}

/// Rows of features.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The name of the table in results: that of its file.
    pub name: String,
    /// The names of the features; `None` for files without names.
    pub columns: Option<Vec<String>>,
    /// The features `[n, columns]`. Missing cells are NaN; NaN and infinities in the file are kept.
    pub rows: Array2<f32>,
    /// The label of each row, if [`ReadOptions::label`] names a column.
    pub labels: Option<Vec<String>>,
    /// The identifier of each row, if [`ReadOptions::id`] names a column.
    pub ids: Option<Vec<String>>,
    /// The group of each row, if [`ReadOptions::group`] names a column.
    pub groups: Option<Vec<String>>,
}

impl Table {
    /// The features of the rows with these indices.
    ///
    /// # Panics
    /// If an index is not below the number of rows.
    pub fn select(&self, places: &[usize]) -> Array2<f32> {
        self.rows.select(Axis(0), places)
    }

    /// The display name of a column: its name, or its number from 1.
    pub fn column_name(&self, column: usize) -> String {
        match &self.columns {
            Some(names) => names[column].clone(),
            None => (column + 1).to_string(),
        }
    }
}

/// Whether the extension of a path is that of a table.
pub fn is_table(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| TABLE_EXTENSIONS.contains(&extension.as_str()))
}

/// Reads a table. The extension of the file determines the format: `csv` and `tsv` are text with a separator (comma,
/// semicolon or tab, detected in the first line), with or without a header line; `npy` is a NumPy array with two axes,
/// `parquet` a file of flat columns (plain, or compressed by Snappy or gzip) without the index that pandas stores.
///
/// # Errors
/// Files that cannot be read or are damaged, text in place of numbers, requested columns that do not exist; the message
/// names the file and the position in it.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Table, DataError> {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    let table = match extension.as_deref() {
        Some("npy") => npy::read(path, options)?,
        Some("parquet") => parquet::read(path, options)?,
        _ => csv::read(path, options)?,
    };
    if table.rows.nrows() == 0 {
        return Err(DataError::Empty { path: path.to_owned(), wanted: "rows".to_owned() });
    }
    Ok(table)
}

/// A table under construction, row by row.
struct Builder<'a> {
    path: &'a Path,
    columns: Columns,
    cells: Vec<f32>,
    labels: Vec<String>,
    ids: Vec<String>,
    groups: Vec<String>,
    rows: usize,
}

impl<'a> Builder<'a> {
    fn new(path: &'a Path, columns: Columns) -> Self {
        Self { path, columns, cells: Vec::new(), labels: Vec::new(), ids: Vec::new(), groups: Vec::new(), rows: 0 }
    }

    /// Rejects a table that would not fit into memory.
    fn check_size(&self, rows: usize) -> Result<(), DataError> {
        let features = self.columns.features.len();
        if rows.checked_mul(features).is_none_or(|cells| cells > MAX_CELLS) {
            let reason = format!("{rows} rows of {features} columns are more than {MAX_CELLS} numbers; split the file");
            return Err(DataError::table(self.path, reason));
        }
        Ok(())
    }

    fn finish(self) -> Result<Table, DataError> {
        let Self { path, columns, cells, labels, ids, groups, rows } = self;
        let rows = Array2::from_shape_vec((rows, columns.features.len()), cells)
            .map_err(|error| DataError::table(path, error.to_string()))?;
        Ok(Table {
            name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            columns: columns.names,
            rows,
            labels: columns.label.map(|_| labels),
            ids: columns.id.map(|_| ids),
            groups: columns.group.map(|_| groups),
        })
    }
}
