//! From scores to decisions.

use nomaly_methods::MethodScore;

use crate::calibration::{Calibration, DecisionRule};
use crate::classes::Classes;
use crate::error::DetectorError;
use crate::outcome::Prediction;

/// The calibration of a model, and of each of its classes, if any.
#[derive(Clone, Debug)]
pub struct Decider {
    calibration: Calibration,
    classes: Option<Classes>,
}

impl Decider {
    pub(crate) fn new(calibration: Calibration, classes: Option<Classes>) -> Self {
        Self { calibration, classes }
    }

    /// The rule and the held-out scores. A model of classes decides by its [classes](Self::classes); this calibration
    /// then holds the held-out scores under the closest class.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The classes with their calibrations; `None` for models without classes.
    pub fn classes(&self) -> Option<&Classes> {
        self.classes.as_ref()
    }

    /// Recalibrates with the same held-out scores under another rule.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn with_rule(&self, rule: DecisionRule) -> Result<Self, DetectorError> {
        let classes = self.classes.as_ref().map(|classes| classes.with_rule(rule)).transpose()?;
        Ok(Self { calibration: self.calibration.with_rule(rule)?, classes })
    }

    /// Adds the held-out scores of further items.
    pub(crate) fn joined(self, more: &Calibration) -> Result<Self, DetectorError> {
        Ok(Self { calibration: self.calibration.joined(more)?, ..self })
    }

    /// Decides on an item with finite scores; its parts are the scores under each class.
    pub(crate) fn decide(&self, scored: MethodScore) -> Prediction {
        let MethodScore { score, deviation, parts, terms, map } = scored;
        let recognition = self.classes.as_ref().map(|classes| classes.recognize(&parts));
        let (score, p_value, anomalous) = match &recognition {
            // The closest class may differ between views, so that the combined score is not the minimum of the parts.
            Some(found) => (found.score, found.p_value, found.unknown),
            None => (score, self.calibration.p_value(score), self.calibration.decide(score)),
        };
        Prediction { score, deviation, p_value, anomalous, input_shift: None, parts, terms, recognition, map }
    }
}
