//! The best F1 over all thresholds.
//!
//! # What it computes
//! The maximum over thresholds of F1 = 2TP / (2TP + FP + FN), with the threshold that reaches it; ties go to the one
//! that flags the fewest items.
//!
//! # When to use
//! As an upper bound for a threshold on these scores. The threshold is chosen *on the labels*, so it is not an estimate
//! for other data: choose operating thresholds on held-out normal items instead.
//!
//! # Parameters
//! None.
//!
//! # Reference
//! C. J. van Rijsbergen, "Information Retrieval", 2nd ed. (1979), chapter 7.

use serde::{Deserialize, Serialize};

use crate::MetricError;
use crate::rank::{Keyed, Ranked, Ranking, Score};

/// The best F1 and its threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct F1Max {
    /// Harmonic mean of precision and recall, in (0, 1].
    pub f1: f64,
    /// Items with `score > threshold` are flagged. The highest score that stays unflagged, or -∞ if none does.
    pub threshold: f64,
    /// Share of the flagged items that are anomalous.
    pub precision: f64,
    /// Share of the anomalous items that are flagged.
    pub recall: f64,
}

/// The best F1 over all thresholds.
///
/// # Errors
/// Lengths that differ, no scores, a NaN score, or labels of one class only.
pub fn f1_max<S: Score>(scores: &[S], labels: &[bool]) -> Result<F1Max, MetricError> {
    Ok(Ranked::new(scores, labels)?.view().f1_max())
}

impl<P: Keyed> Ranking<'_, P> {
    pub(crate) fn f1_max(&self) -> F1Max {
        let positives = self.positives.len() as f64;
        let mut best = F1Max { f1: 0.0, threshold: f64::INFINITY, precision: 0.0, recall: 0.0 };
        for step in self.steps() {
            let hits = step.true_positives as f64;
            let flagged = hits + step.false_positives as f64;
            let f1 = 2.0 * hits / (flagged + positives);
            if f1 > best.f1 {
                best = F1Max { f1, threshold: step.below, precision: hits / flagged, recall: hits / positives };
            }
        }
        best
    }
}
