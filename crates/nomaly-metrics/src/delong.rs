//! The uncertainty of AUROC.
//!
//! # What it computes
//! DeLong's estimate of the variance of AUROC. Each anomalous item has a *placement*, the share of normal items that it
//! outranks (ties count one half), and each normal item one among the anomalous; AUROC is the mean of either. Its
//! variance is that of the anomalous placements divided by their number, plus that of the normal placements divided by
//! theirs. Placements are differences of midranks, so one pass over the ranked scores gives all of them (Sun and Xu).
//!
//! The confidence interval is symmetric around the logit of AUROC, so that it stays within (0, 1) and its coverage
//! holds for good detectors, unlike that of the plain interval. If the classes are ranked perfectly (or perfectly
//! wrong), the estimated variance is 0 and not informative. Then all of the `min(m, n)` independent pairs of `m`
//! anomalous and `n` normal items are in order, and the interval starts at the AUROC `A` for which that has the
//! probability `A^min(m, n) = (1 - level) / 2`, as in Clopper and Pearson's interval for shares.
//!
//! # When to use
//! With every AUROC of a few hundred items or fewer: at 0.95 on 50 + 50 items the uncertainty is about ± 0.04.
//!
//! # Parameters
//! The confidence level.
//!
//! # Reference
//! E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or more correlated receiver
//! operating characteristic curves", Biometrics 44 (1988); X. Sun, W. Xu, "Fast implementation of DeLong's algorithm",
//! IEEE Signal Processing Letters 21 (2014); logit interval: M. S. Pepe, "The Statistical Evaluation of Medical Tests"
//! (2003), section 5.2.

use serde::{Deserialize, Serialize};

use crate::MetricError;
use crate::interval::{Interval, two_sided};
use crate::rank::{Keyed, Ranked, Ranking, Score};

/// AUROC and its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Auroc {
    /// Area under the ROC curve, in [0, 1].
    pub auroc: f64,
    /// DeLong's variance; `None` if a class has only one item.
    pub variance: Option<f64>,
    /// The confidence interval; `None` if a class has only one item and the ranking is not perfect.
    pub interval: Option<Interval>,
}

/// The area under the ROC curve with DeLong's variance and a confidence interval, in O(n log n).
///
/// # Errors
/// Lengths that differ, no scores, a NaN score, labels of one class only, or a level outside (0, 1).
pub fn auroc_with_interval<S: Score>(scores: &[S], labels: &[bool], level: f64) -> Result<Auroc, MetricError> {
    let z = two_sided(level)?;
    let ranked = Ranked::new(scores, labels)?;
    let view = ranked.view();
    let (auroc, variance) = (view.auroc(), view.auroc_variance());
    let fewest = view.positives.len().min(view.negatives.len());
    Ok(Auroc { auroc, variance, interval: interval(auroc, variance, fewest, z, level) })
}

fn interval(auroc: f64, variance: Option<f64>, fewest: usize, z: f64, level: f64) -> Option<Interval> {
    let certain = ((1.0 - level) / 2.0).powf(1.0 / fewest as f64);
    if auroc == 1.0 {
        return Some(Interval { low: certain, high: 1.0 });
    }
    if auroc == 0.0 {
        return Some(Interval { low: 0.0, high: 1.0 - certain });
    }
    let logit = (auroc / (1.0 - auroc)).ln();
    let half = z * variance?.sqrt() / (auroc * (1.0 - auroc));
    let back = |logit: f64| 1.0 / (1.0 + (-logit).exp());
    Some(Interval { low: back(logit - half), high: back(logit + half) })
}

impl<P: Keyed> Ranking<'_, P> {
    /// DeLong's variance of AUROC; `None` if a class has only one item.
    pub(crate) fn auroc_variance(&self) -> Option<f64> {
        let (m, n) = (self.positives.len() as u64, self.negatives.len() as u64);
        if m < 2 || n < 2 {
            return None;
        }
        let mean = self.auroc();
        let (mut positives_above, mut negatives_above) = (0u64, 0u64);
        let (mut of_positives, mut of_negatives) = (0.0, 0.0);
        for group in self.groups() {
            let (positives, negatives) = (group.positives.len() as u64, group.negatives as u64);
            // Twice the number of outranked items, which is an integer.
            let below = 2 * (n - negatives_above) - negatives;
            let above = 2 * positives_above + positives;
            let deviation = |twice: u64, of: u64| (twice as f64 / (2 * of) as f64 - mean).powi(2);
            of_positives += positives as f64 * deviation(below, n);
            of_negatives += negatives as f64 * deviation(above, m);
            positives_above += positives;
            negatives_above += negatives;
        }
        let (m, n) = (m as f64, n as f64);
        Some(of_positives / (m - 1.0) / m + of_negatives / (n - 1.0) / n)
    }
}
