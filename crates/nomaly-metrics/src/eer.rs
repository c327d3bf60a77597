//! The equal error rate.
//!
//! # What it computes
//! The rate at which false alarms and misses are equally common: where the ROC curve, as a polygon through the points
//! of all distinct scores, crosses the line FPR = FNR = 1 − TPR. Between two points the polygon is linear, and so is
//! the interpolation. The returned threshold is that of the end of the crossed edge where FPR and FNR differ least;
//! ties go to the end with fewer false alarms.
//!
//! # When to use
//! As a single figure with a simple meaning. It says nothing about low false-alarm rates, the operating range of
//! inspection.
//!
//! # Parameters
//! None.
//!
//! # Reference
//! ISO/IEC 19795-1, "Biometric performance testing and reporting".

use serde::{Deserialize, Serialize};

use crate::MetricError;
use crate::rank::{Keyed, Ranked, Ranking, Score};

/// The equal error rate and the threshold nearest to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eer {
    /// Rate of false alarms and of misses where both are equal, in [0, 1]: 0 is perfect, 0.5 is chance.
    pub rate: f64,
    /// Items with `score > threshold` are flagged.
    pub threshold: f64,
}

/// The equal error rate.
///
/// # Errors
/// Lengths that differ, no scores, a NaN score, or labels of one class only.
pub fn eer<S: Score>(scores: &[S], labels: &[bool]) -> Result<Eer, MetricError> {
    Ok(Ranked::new(scores, labels)?.view().eer())
}

impl<P: Keyed> Ranking<'_, P> {
    pub(crate) fn eer(&self) -> Eer {
        let (positives, negatives) = (self.positives.len() as f64, self.negatives.len() as f64);
        // With nothing flagged there are no false alarms and every anomaly is missed.
        let (mut fpr, mut excess, mut threshold) = (0.0, 1.0, f64::INFINITY);
        let mut steps = self.steps().peekable();
        if let Some(step) = steps.peek() {
            threshold = step.score;
        }
        for step in steps {
            let next_fpr = step.false_positives as f64 / negatives;
            let next_excess = 1.0 - step.true_positives as f64 / positives - next_fpr;
            if next_excess <= 0.0 {
                let rate = fpr + (next_fpr - fpr) * excess / (excess - next_excess);
                if -next_excess < excess {
                    threshold = step.below;
                }
                return Eer { rate, threshold };
            }
            (fpr, excess, threshold) = (next_fpr, next_excess, step.below);
        }
        // The last step flags everything: its excess is −1, so the loop has returned for any non-empty ranking.
        Eer { rate: fpr, threshold }
    }
}
