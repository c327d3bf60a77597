//! The receiver operating characteristic and the area under it.
//!
//! # What it computes
//! The curve of the true-positive rate (share of anomalous items flagged) over the false-positive rate (share of normal
//! items flagged) as the threshold falls from the highest score to -∞, with one point for each distinct score. The
//! area under it, AUROC, is the probability that a random anomalous item scores higher than a random normal one, ties
//! counting one half (the Mann–Whitney U statistic divided by the number of pairs).
//!
//! # When to use
//! AUROC compares detectors without choosing a threshold and does not depend on how common anomalies are. If anomalies
//! are rare and false alarms expensive, also consider [`average_precision`](crate::average_precision).
//!
//! # Parameters
//! [`CurvePoints`]: every point, or only those at which the curve turns.
//!
//! # Reference
//! T. Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27 (2006).

use serde::{Deserialize, Serialize};

use crate::MetricError;
use crate::rank::{Keyed, Ranked, Ranking, Score, Step};

/// The points of a curve to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CurvePoints {
    /// One for each distinct score.
    All,
    /// Only the corners and both ends: the same curve and area with fewer points.
    #[default]
    Corners,
    /// Both ends, and a point whenever a rate has moved by at least one part in this many: enough to plot a curve with
    /// millions of points. At most twice as many points plus two.
    Thinned(usize),
}

/// A ROC curve: the three vectors have the same length, at least 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RocCurve {
    /// False-positive rates, ascending from 0 to 1.
    pub fpr: Vec<f64>,
    /// True-positive rates, ascending from 0 to 1.
    pub tpr: Vec<f64>,
    /// Point `i` results when items with `score > thresholds[i]` are flagged; descending, the last is -∞.
    pub thresholds: Vec<f64>,
}

impl RocCurve {
    /// The area under the curve by the trapezoidal rule; equals [`auroc`] up to rounding.
    pub fn area(&self) -> f64 {
        let widths = self.fpr.windows(2).map(|x| x[1] - x[0]);
        let heights = self.tpr.windows(2).map(|y| 0.5 * (y[0] + y[1]));
        widths.zip(heights).map(|(width, height)| width * height).sum()
    }
}

/// The ROC curve of scores.
///
/// It starts at (0, 0), where the threshold is the highest score, and ends at (1, 1), where it is -∞.
///
/// # Errors
/// Lengths that differ, no scores, a NaN score, or labels of one class only.
pub fn roc_curve<S: Score>(scores: &[S], labels: &[bool], points: CurvePoints) -> Result<RocCurve, MetricError> {
    Ok(Ranked::new(scores, labels)?.view().roc_curve(points))
}

/// The area under the ROC curve, in [0, 1]: 0.5 is chance.
///
/// Counted in integers and divided once, so the result is exact to about the last bit for any number of scores.
///
/// # Errors
/// Lengths that differ, no scores, a NaN score, or labels of one class only.
pub fn auroc<S: Score>(scores: &[S], labels: &[bool]) -> Result<f64, MetricError> {
    Ok(Ranked::new(scores, labels)?.view().auroc())
}

impl<P: Keyed> Ranking<'_, P> {
    pub(crate) fn auroc(&self) -> f64 {
        let mut twice_u = 0u128;
        let mut above = 0u128;
        for group in self.groups() {
            let tied = group.positives.len() as u128;
            twice_u += group.negatives as u128 * (2 * above + tied);
            above += tied;
        }
        let twice_pairs = 2 * self.positives.len() as u128 * self.negatives.len() as u128;
        twice_u as f64 / twice_pairs as f64
    }

    pub(crate) fn roc_curve(&self, points: CurvePoints) -> RocCurve {
        let mut curve = RocCurve { fpr: Vec::new(), tpr: Vec::new(), thresholds: Vec::new() };
        let (positives, negatives) = (self.positives.len() as f64, self.negatives.len() as f64);
        for point in self.curve_points(points) {
            curve.fpr.push(point.false_positives as f64 / negatives);
            curve.tpr.push(point.true_positives as f64 / positives);
            curve.thresholds.push(point.threshold);
        }
        curve
    }

    /// The points of a ROC curve as counts, from nothing flagged to everything.
    pub(crate) fn curve_points(&self, points: CurvePoints) -> Vec<CurvePoint> {
        let mut kept = Vec::new();
        let (positives, negatives) = (self.positives.len() as f64, self.negatives.len() as f64);
        let mut steps = self.steps().peekable();
        let threshold = steps.peek().map_or(f64::NEG_INFINITY, |step| step.score);
        let mut last = CurvePoint { false_positives: 0, true_positives: 0, threshold };
        let mut previous: Option<CurvePoint> = None;
        for step in steps {
            let Step { false_positives, true_positives, below: threshold, .. } = step;
            let next = CurvePoint { false_positives, true_positives, threshold };
            // `last` is needed unless it lies on the line from the previous point to the next one.
            let straight = previous.is_some_and(|previous| {
                let (before, after) = (last.since(previous), next.since(last));
                before.0 * after.1 == before.1 * after.0
            });
            let far = |steps: usize| {
                previous.is_none_or(|previous| {
                    let (false_positives, true_positives) = last.since(previous);
                    let moved = |count: u128, total: f64| count as f64 * steps as f64 >= total;
                    moved(false_positives, negatives) || moved(true_positives, positives)
                })
            };
            let keep = match points {
                CurvePoints::All => true,
                CurvePoints::Corners => !straight,
                CurvePoints::Thinned(steps) => far(steps),
            };
            if keep {
                kept.push(last);
                previous = Some(last);
            }
            last = next;
        }
        kept.push(last);
        kept
    }
}

/// One point of a ROC curve: the items flagged by a threshold.
#[derive(Clone, Copy)]
pub(crate) struct CurvePoint {
    pub(crate) false_positives: u64,
    pub(crate) true_positives: u64,
    /// Items with `score > threshold` are flagged.
    pub(crate) threshold: f64,
}

impl CurvePoint {
    /// The numbers of additional normal and anomalous items flagged compared with a higher threshold; wide, for
    /// products.
    fn since(self, higher: Self) -> (u128, u128) {
        (
            u128::from(self.false_positives - higher.false_positives),
            u128::from(self.true_positives - higher.true_positives),
        )
    }
}
