//! Counts and rates of decisions at one threshold.
//!
//! # What it computes
//! Counts of flagged (`score > threshold`) and unflagged anomalous and normal items, and the resulting rates.
//!
//! # When to use
//! To evaluate a detector at its operating threshold, rather than its ranking.
//!
//! [`confusion_curve`] counts them at every threshold at which a decision changes, for plots of precision, recall, F1
//! and accuracy.
//!
//! # Parameters
//! The threshold, or the points of a curve to keep.
//!
//! # Reference
//! T. Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006), section 2.

use serde::{Deserialize, Serialize};

use crate::rank::{Ranked, Score, check};
use crate::{CurvePoints, MetricError};

/// Decisions against labels. Rates are in [0, 1], and `None` if the denominator is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionMatrix {
    /// Anomalous items that were flagged.
    pub true_positives: u64,
    /// Normal items that were flagged: false alarms.
    pub false_positives: u64,
    /// Normal items that were not flagged.
    pub true_negatives: u64,
    /// Anomalous items that were not flagged: misses.
    pub false_negatives: u64,
}

impl ConfusionMatrix {
    /// Counts the decisions of a threshold: an item is flagged if `score > threshold`. One class only is allowed.
    ///
    /// # Errors
    /// Lengths that differ, no scores, a NaN score or a NaN threshold.
    pub fn at<S: Score>(scores: &[S], labels: &[bool], threshold: f64) -> Result<Self, MetricError> {
        check(scores, labels)?;
        if threshold.is_nan() {
            return Err(MetricError::NanThreshold);
        }
        let mut counts = Self::default();
        for (&score, &label) in scores.iter().zip(labels) {
            counts.record(score.to_f64() > threshold, label);
        }
        Ok(counts)
    }

    /// Adds one decision.
    pub fn record(&mut self, flagged: bool, label: bool) {
        match (flagged, label) {
            (true, true) => self.true_positives += 1,
            (true, false) => self.false_positives += 1,
            (false, false) => self.true_negatives += 1,
            (false, true) => self.false_negatives += 1,
        }
    }

    /// Number of items counted.
    pub fn total(&self) -> u64 {
        self.true_positives + self.false_positives + self.true_negatives + self.false_negatives
    }

    /// True-positive rate (sensitivity): share of the anomalous items that were flagged.
    pub fn tpr(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_negatives)
    }

    /// False-positive rate (false-alarm rate): share of the normal items that were flagged.
    pub fn fpr(&self) -> Option<f64> {
        share(self.false_positives, self.false_positives + self.true_negatives)
    }

    /// False-negative rate (miss rate): share of the anomalous items that were not flagged.
    pub fn fnr(&self) -> Option<f64> {
        share(self.false_negatives, self.true_positives + self.false_negatives)
    }

    /// True-negative rate (specificity): share of the normal items that were not flagged.
    pub fn tnr(&self) -> Option<f64> {
        share(self.true_negatives, self.false_positives + self.true_negatives)
    }

    /// Share of the flagged items that are anomalous.
    pub fn precision(&self) -> Option<f64> {
        share(self.true_positives, self.true_positives + self.false_positives)
    }

    /// Another name of [`tpr`](Self::tpr).
    pub fn recall(&self) -> Option<f64> {
        self.tpr()
    }

    /// Share of correct decisions.
    pub fn accuracy(&self) -> Option<f64> {
        share(self.true_positives + self.true_negatives, self.total())
    }

    /// Harmonic mean of precision and recall, 2TP / (2TP + FP + FN).
    pub fn f1(&self) -> Option<f64> {
        let hits = 2 * self.true_positives;
        share(hits, hits + self.false_positives + self.false_negatives)
    }
}

/// The decisions at thresholds from the highest down: both vectors have the same length, at least 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfusionCurve {
    /// An item is flagged where `score > thresholds[i]`; descending, the last is -∞.
    pub thresholds: Vec<f64>,
    /// The counts at each threshold.
    pub counts: Vec<ConfusionMatrix>,
}

/// The decisions of every threshold at which they change, or of those that a plot needs.
///
/// The points are those of [`roc_curve`](crate::roc_curve).
///
/// # Errors
/// Lengths that differ, no scores, a NaN score, or labels of one class only.
pub fn confusion_curve<S: Score>(
    scores: &[S],
    labels: &[bool],
    points: CurvePoints,
) -> Result<ConfusionCurve, MetricError> {
    let ranked = Ranked::new(scores, labels)?;
    let view = ranked.view();
    let (positives, negatives) = (view.positives.len() as u64, view.negatives.len() as u64);
    let (thresholds, counts) = view
        .curve_points(points)
        .into_iter()
        .map(|point| {
            let counts = ConfusionMatrix {
                true_positives: point.true_positives,
                false_positives: point.false_positives,
                true_negatives: negatives - point.false_positives,
                false_negatives: positives - point.true_positives,
            };
            (point.threshold, counts)
        })
        .unzip();
    Ok(ConfusionCurve { thresholds, counts })
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_equal_to_the_threshold_is_not_flagged() {
        let counts = ConfusionMatrix::at(&[0.5f32, 0.5, 0.75, 0.25], &[true, false, true, false], 0.5).unwrap();
        let expected = ConfusionMatrix { true_positives: 1, false_positives: 0, true_negatives: 2, false_negatives: 1 };
        assert_eq!(counts, expected);
        assert_eq!((counts.tpr(), counts.fnr(), counts.recall()), (Some(0.5), Some(0.5), Some(0.5)));
        assert_eq!((counts.fpr(), counts.tnr()), (Some(0.0), Some(1.0)));
        assert_eq!((counts.precision(), counts.accuracy(), counts.f1()), (Some(1.0), Some(0.75), Some(2.0 / 3.0)));
    }

    #[test]
    fn shares_of_nothing_are_absent() {
        let counts = ConfusionMatrix::at(&[0.0, 1.0], &[false, false], 2.0).unwrap();
        assert_eq!((counts.tpr(), counts.fnr(), counts.precision(), counts.f1()), (None, None, None, None));
        assert_eq!((counts.fpr(), counts.accuracy()), (Some(0.0), Some(1.0)));
        assert_eq!(ConfusionMatrix::default().accuracy(), None);
    }
}
