//! The header of a model file for rows.

use nomaly_methods::MethodError;
use nomaly_methods::groups::GroupInfo;
use nomaly_methods::recognition::KnownClass;
use nomaly_settings::Assignments;
use serde::{Deserialize, Serialize};

use super::history::DecisionHistory;
use crate::{DecisionRule, DetectorError};

/// The description of a model of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsInfo {
    /// The scorer's name; `open-set` for models of classes.
    pub scorer: String,
    /// Its full settings, and `standardize`.
    pub settings: Assignments,
    /// The names of the columns; `None` if the table had none.
    pub columns: Option<Vec<String>>,
    /// The number of columns.
    pub dim: usize,
    /// The known classes, ascending by name; empty for models without classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<KnownClass>,
    /// The decision rule.
    pub decision: DecisionRule,
    /// Its calibration data and earlier decisions.
    #[serde(default, skip_serializing_if = "DecisionHistory::is_empty")]
    pub history: DecisionHistory,
    /// Its training data.
    pub training: RowsTraining,
}

impl RowsInfo {
    /// Rejects invalid names of columns: too few or many, empty or duplicate.
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

/// The training data of a model of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsTraining {
    /// The name of the file.
    pub dataset: String,
    /// Used rows.
    pub rows: usize,
    /// Unusable rows.
    pub skipped: usize,
    /// The seed of all random choices.
    pub seed: u64,
    /// The groups of the rows.
    pub groups: GroupInfo,
}
