//! What scores rows that have been brought to one scale.

use nomaly_methods::MethodError;
use nomaly_methods::recognition::ClassModel;
use nomaly_scorers::{Scorer, State, restore};

use crate::error::DetectorError;

/// The state of the scorer, beside that of the scaling.
const SCORER: &str = "scorer";
/// What stands for the scorer of models that tell classes apart.
pub(super) const OPEN_SET: &str = "open-set";

/// What scores rows that have been brought to one scale.
pub(super) enum RowScorer {
    /// A scorer of the registry.
    Normal(Box<dyn Scorer>),
    /// A model that tells classes apart.
    Classes(ClassModel),
}

impl RowScorer {
    pub(super) fn dim(&self) -> usize {
        match self {
            Self::Normal(scorer) => scorer.dim(),
            Self::Classes(model) => model.dim(),
        }
    }

    pub(super) fn states(&self) -> Vec<(String, State)> {
        match self {
            Self::Normal(scorer) => vec![(SCORER.to_owned(), scorer.state())],
            Self::Classes(model) => model.states(),
        }
    }

    /// Brings back what [`states`](Self::states) gave, of the scorer of this name.
    pub(super) fn restore(name: &str, states: &[(String, State)]) -> Result<Self, DetectorError> {
        match states {
            _ if name == OPEN_SET => Ok(Self::Classes(ClassModel::restore(states)?)),
            [(state_name, state)] if state_name == SCORER && state.kind == name => Ok(Self::Normal(restore(state)?)),
            _ => Err(DetectorError::from(MethodError::State { state: SCORER.to_owned(), reason: None })),
        }
    }
}
