//! A scorer of scaled rows.

use nomaly_methods::MethodError;
use nomaly_methods::recognition::ClassModel;
use nomaly_scorers::{Scorer, State, restore};

use crate::error::DetectorError;

/// The state of the scorer.
const SCORER: &str = "scorer";
/// The scorer name of models of classes.
pub(super) const OPEN_SET: &str = "open-set";

/// A scorer of scaled rows.
pub(super) enum RowScorer {
    /// A scorer of the registry.
    Normal(Box<dyn Scorer>),
    /// A model of classes.
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

    /// Restores the scorer of this name from its [`states`](Self::states).
    pub(super) fn restore(name: &str, states: &[(String, State)]) -> Result<Self, DetectorError> {
        match states {
            _ if name == OPEN_SET => Ok(Self::Classes(ClassModel::restore(states)?)),
            [(state_name, state)] if state_name == SCORER && state.kind == name => Ok(Self::Normal(restore(state)?)),
            _ => Err(DetectorError::from(MethodError::State { state: SCORER.to_owned(), reason: None })),
        }
    }
}
