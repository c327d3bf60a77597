//! What the model file says of a detector for rows.

use serde::{Deserialize, Serialize};

use crate::{DecisionRule, Settings};

/// What a model of rows is made of and what it was fitted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsInfo {
    /// The scorer's name.
    pub scorer: String,
    /// Its settings in full, and `standardise`.
    pub settings: Settings,
    /// The names of the columns; `None` where the file had none.
    pub columns: Option<Vec<String>>,
    /// The number of columns.
    pub dim: usize,
    /// The decision rule in force where none other is asked for.
    pub decision: DecisionRule,
    /// What it was fitted on.
    pub training: RowsTraining,
}

/// What a model of rows was fitted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsTraining {
    /// The name of the file.
    pub dataset: String,
    /// Rows that were used.
    pub rows: usize,
    /// Rows that could not be used.
    pub skipped: usize,
    /// The seed of every random choice.
    pub seed: u64,
}
