//! The history of decisions of a model.

use serde::{Deserialize, Serialize};

use crate::calibration::{Calibration, DecisionRule};

/// The calibration data of a model, and its earlier decisions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionHistory {
    /// The name of the data of the held-out scores; `None` for the training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated_on: Option<String>,
    /// Earlier decisions, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<PastDecision>,
}

impl DecisionHistory {
    /// Whether the history is empty.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Appends the decision of `calibration`.
    pub(crate) fn push(&mut self, calibration: &Calibration) {
        self.past.push(PastDecision {
            rule: calibration.rule(),
            threshold: calibration.threshold(),
            held_out: calibration.in_order().len(),
            groups: calibration.independent(),
            calibrated_on: self.calibrated_on.take(),
        });
    }
}

/// An earlier decision of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastDecision {
    /// The rule.
    pub rule: DecisionRule,
    /// The threshold, if any; `None` for models of classes.
    pub threshold: Option<f64>,
    /// The number of held-out scores.
    pub held_out: usize,
    /// The number of independent ones.
    pub groups: usize,
    /// The name of their data; `None` for the training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated_on: Option<String>,
}
