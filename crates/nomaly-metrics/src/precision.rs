//! Average precision: the area under the precision–recall curve.
//!
//! # What it computes
//! Σₖ (Rₖ − Rₖ₋₁) · Pₖ over the distinct scores from the highest down, where Pₖ and Rₖ are
//! precision and recall when all items down to the k-th distinct score are flagged. A step sum, not a trapezoid:
//! straight lines between points of a precision–recall curve are too optimistic.
//!
//! # When to use
//! Where anomalies are rare. Unlike AUROC it depends on their share, which is the value of a random detector.
//!
//! # Parameters
//! None.
//!
//! # Reference
//! J. Davis, M. Goadrich, "The relationship between precision-recall and ROC curves", ICML 2006; the definition is that
//! of scikit-learn's `average_precision_score`.

use crate::MetricError;
use crate::rank::{Keyed, Ranked, Ranking, Score};

/// The average precision, in (0, 1].
///
/// # Errors
/// Lengths that differ, no scores, a NaN score, or labels of one class only.
pub fn average_precision<S: Score>(scores: &[S], labels: &[bool]) -> Result<f64, MetricError> {
    Ok(Ranked::new(scores, labels)?.view().average_precision())
}

impl<P: Keyed> Ranking<'_, P> {
    pub(crate) fn average_precision(&self) -> f64 {
        let mut sum = 0.0;
        let mut before = 0;
        for step in self.steps() {
            let found = step.true_positives - before;
            if found > 0 {
                let flagged = step.true_positives + step.false_positives;
                sum += found as f64 * (step.true_positives as f64 / flagged as f64);
                before = step.true_positives;
            }
        }
        sum / self.positives.len() as f64
    }
}
