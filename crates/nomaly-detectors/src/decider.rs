//! From scores to decisions.

use nomaly_methods::MethodScore;

use crate::calibration::{Calibration, DecisionRule};
use crate::classes::Classes;
use crate::error::DetectorError;
use crate::outcome::Prediction;

/// The held-out scores of a model under a decision rule; those of each class too, where the model knows classes.
#[derive(Clone, Debug)]
pub struct Decider {
    calibration: Calibration,
    classes: Option<Classes>,
}

impl Decider {
    pub(crate) fn new(calibration: Calibration, classes: Option<Classes>) -> Self {
        Self { calibration, classes }
    }

    /// The rule and the held-out scores. A model of classes decides by its [classes](Self::classes); this holds the
    /// held-out scores under the closest class then.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The classes, with the decision for each; `None` for models of normal items alone.
    pub fn classes(&self) -> Option<&Classes> {
        self.classes.as_ref()
    }

    /// The same held-out scores under another rule.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn with_rule(&self, rule: DecisionRule) -> Result<Self, DetectorError> {
        let classes = self.classes.as_ref().map(|classes| classes.with_rule(rule)).transpose()?;
        Ok(Self { calibration: self.calibration.with_rule(rule)?, classes })
    }

    /// The same held-out scores, and those of further items.
    pub(crate) fn joined(self, more: &Calibration) -> Result<Self, DetectorError> {
        Ok(Self { calibration: self.calibration.joined(more)?, ..self })
    }

    /// Decides on an item with finite scores; those under each class are its parts.
    pub(crate) fn decide(&self, scored: MethodScore) -> Prediction {
        let MethodScore { score, deviation, parts, terms, map } = scored;
        let recognition = self.classes.as_ref().map(|classes| classes.recognize(&parts));
        let (score, p_value, anomalous) = match &recognition {
            // Views may differ in the class that is closest, so that their joint score is not the least of the parts.
            Some(found) => (found.score, found.p_value, found.unknown),
            None => (score, self.calibration.p_value(score), self.calibration.decide(score)),
        };
        Prediction { score, deviation, p_value, anomalous, input_shift: None, parts, terms, recognition, map }
    }
}
