//! What was decided before.

use serde::{Deserialize, Serialize};

use crate::calibration::{Calibration, DecisionRule};

/// What a model was calibrated on, and the decisions that it had before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionHistory {
    /// The name of the data that the held-out scores are of; `None` for the training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated_on: Option<String>,
    /// Earlier decisions, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<PastDecision>,
}

impl DecisionHistory {
    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Puts the decision of `calibration` among the past ones.
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

/// A decision that a model had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastDecision {
    /// The rule.
    pub rule: DecisionRule,
    /// The threshold, where the rule had one; `None` for models of classes too.
    pub threshold: Option<f64>,
    /// Held-out scores.
    pub held_out: usize,
    /// How many of them were independent.
    pub groups: usize,
    /// The name of the data that they were of; `None` for the training data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibrated_on: Option<String>,
}
