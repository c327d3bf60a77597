//! The values of a calibration, as stored in the file.

use nomaly_methods::MethodError;
use nomaly_methods::recognition::{HeldOutClass, KnownClass};

use crate::calibration::{Calibration, DecisionRule};
use crate::classes::Classes;
use crate::error::DetectorError;

/// The values of a calibration, as stored in the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredScores {
    /// Held-out scores, in the order of their items.
    pub values: Vec<f64>,
    /// The group number of each item; `None` if all are independent.
    pub groups: Option<Vec<u32>>,
    /// The largest value of each map, for methods that make maps.
    pub map_maxima: Option<Vec<f64>>,
}

impl StoredScores {
    /// Calibrates a rule on these values.
    ///
    /// # Errors
    /// Lists that contradict each other, values that are not finite, and a [rule](DecisionRule::checked) out of range.
    pub fn calibration(self, rule: DecisionRule) -> Result<Calibration, DetectorError> {
        let calibration = match self.groups {
            Some(groups) => Calibration::of_groups(self.values, groups, rule)?,
            None => Calibration::new(self.values, rule)?,
        };
        match self.map_maxima {
            Some(map_maxima) => calibration.with_map_maxima(map_maxima),
            None => Ok(calibration),
        }
    }
}

/// The classes of a file with their calibrations; `None` without classes.
///
/// # Errors
/// Different numbers of classes and lists of held-out scores, and the errors of [`Classes::new`].
pub fn stored_classes(
    known: &[KnownClass],
    scores: Vec<StoredScores>,
    rule: DecisionRule,
) -> Result<Option<Classes>, DetectorError> {
    if known.len() != scores.len() {
        let reason = format!("{} lists of held-out scores for {} classes", scores.len(), known.len());
        return Err(DetectorError::from(MethodError::State { state: "classes".to_owned(), reason: Some(reason) }));
    }
    if known.is_empty() {
        return Ok(None);
    }
    let held_out = known.iter().cloned().zip(scores);
    let held_out =
        held_out.map(|(class, StoredScores { values: scores, groups, .. })| HeldOutClass { class, scores, groups });
    Classes::new(held_out.collect(), rule).map(Some)
}
