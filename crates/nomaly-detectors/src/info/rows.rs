//! What the model file says of a detector for rows.

use nomaly_methods::MethodError;
use nomaly_methods::groups::GroupInfo;
use nomaly_methods::recognition::KnownClass;
use nomaly_settings::Assignments;
use serde::{Deserialize, Serialize};

use super::history::DecisionHistory;
use crate::{DecisionRule, DetectorError};

/// What a model of rows is made of and what it was fitted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsInfo {
    /// The scorer's name; `open-set` for models of classes.
    pub scorer: String,
    /// Its settings in full, and `standardize`.
    pub settings: Assignments,
    /// The names of the columns; `None` where the file had none.
    pub columns: Option<Vec<String>>,
    /// The number of columns.
    pub dim: usize,
    /// The classes that it tells apart, ascending by name; empty for models of normal rows alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<KnownClass>,
    /// The decision rule in force where none other is asked for.
    pub decision: DecisionRule,
    /// What it was calibrated on, and its earlier decisions.
    #[serde(default, skip_serializing_if = "DecisionHistory::is_empty")]
    pub history: DecisionHistory,
    /// What it was fitted on.
    pub training: RowsTraining,
}

impl RowsInfo {
    /// Refuses names of columns that no table could have given: too few or many, empty, or twice the same.
    pub(crate) fn check_columns(&self) -> Result<(), DetectorError> {
        let damaged = |reason: String| {
            Err(DetectorError::from(MethodError::State { state: "columns".to_owned(), reason: Some(reason) }))
        };
        let Some(columns) = &self.columns else { return Ok(()) };
        if columns.len() != self.dim {
            return damaged(format!("{} names for {} columns", columns.len(), self.dim));
        }
        let mut seen = std::collections::BTreeSet::new();
        for name in columns {
            if name.is_empty() {
                return damaged("a name is empty".to_owned());
            }
            if !seen.insert(name) {
                return damaged(format!("two columns are called `{name}`"));
            }
        }
        Ok(())
    }
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
    /// Which of the rows depend on each other.
    pub groups: GroupInfo,
}
