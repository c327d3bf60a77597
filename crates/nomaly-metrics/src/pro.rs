//! The per-region overlap curve and the area under it, AUPRO.
//!
//! # What it computes
//! As the threshold falls through every distinct pixel score of the whole test set: the false-positive rate over all
//! normal pixels of all images (x), and the mean, over all 8-connected ground-truth regions of all images, of the share
//! of the region that is flagged (y). The curve runs from (0, 0) to (1, 1). AUPRO is its area by the trapezoidal rule
//! from 0 to a false-positive-rate limit, the value at the limit interpolated linearly, divided by the limit.
//!
//! # When to use
//! For anomaly maps against masks. Small defects count as much as large ones, unlike in pixel AUROC. Figures are
//! comparable only at the same limit (0.3 is usual), at the original resolution, and with the same definition: averages
//! of per-image figures, a few hundred thresholds or 4-connected regions give different numbers.
//!
//! # Parameters
//! The limit, in (0, 1].
//!
//! # Reference
//! P. Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129 (2021), section 5.2.

use serde::{Deserialize, Serialize};

use crate::MetricError;
use crate::radix::RadixKey;
use crate::rank::{Keyed, Ranking, ScoreKey};

/// A pixel of a ground-truth region: the key of its score in the upper 32 bits, the size of its region in the lower 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DefectPixel(u64);

impl DefectPixel {
    pub(crate) fn new(score_key: u32, region_size: u32) -> Self {
        Self(u64::from(score_key) << 32 | u64::from(region_size))
    }

    fn region_size(self) -> u32 {
        self.0 as u32
    }
}

impl Keyed for DefectPixel {
    type Key = u32;
    fn key(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl RadixKey for DefectPixel {
    const BITS: u32 = u64::BITS;
    fn digit(self, shift: u32) -> usize {
        self.0.digit(shift)
    }
}

/// A per-region overlap curve: the three vectors have the same length, at least 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProCurve {
    /// False-positive rates over all normal pixels, ascending from 0 to 1.
    pub fpr: Vec<f64>,
    /// Mean share of a region that is flagged, ascending from 0 to 1.
    pub pro: Vec<f64>,
    /// Point `i` results when pixels with `score > thresholds[i]` are flagged; descending, the last is -∞.
    pub thresholds: Vec<f64>,
}

/// One point of the curve.
#[derive(Clone, Copy)]
struct ProPoint {
    fpr: f64,
    pro: f64,
    score: f64,
}

/// The points from the highest score down, without the origin.
fn points<'a>(ranking: &Ranking<'a, DefectPixel>, regions: u64) -> impl Iterator<Item = ProPoint> + use<'a> {
    let normal_pixels = ranking.negatives.len() as f64;
    let (mut false_positives, mut shares) = (0, 0.0);
    ranking.groups().map(move |group| {
        false_positives += group.negatives;
        // Ties are ordered by region size, so the sum does not depend on the order of the images.
        shares += group.positives.iter().map(|pixel| 1.0 / f64::from(pixel.region_size())).sum::<f64>();
        let score = group.key.score();
        // A sum of rounded shares may exceed the number of regions in its last bits.
        ProPoint { fpr: false_positives as f64 / normal_pixels, pro: (shares / regions as f64).min(1.0), score }
    })
}

/// The curve with a point whenever one of its coordinates has moved by `step`, or with all points if that is 0.
pub(crate) fn curve(ranking: &Ranking<'_, DefectPixel>, regions: u64, step: f64) -> ProCurve {
    let mut curve = ProCurve { fpr: vec![0.0], pro: vec![0.0], thresholds: Vec::new() };
    let mut last = (0.0, 0.0);
    // The threshold that leaves a point just above is the score of the next one.
    let mut next_threshold = true;
    for point in points(ranking, regions) {
        if next_threshold {
            curve.thresholds.push(point.score);
        }
        next_threshold = point.fpr - last.0 >= step || point.pro - last.1 >= step;
        if next_threshold {
            last = (point.fpr, point.pro);
            curve.fpr.push(point.fpr);
            curve.pro.push(point.pro);
        }
    }
    if !next_threshold {
        curve.fpr.push(1.0);
        curve.pro.push(1.0);
    }
    curve.thresholds.push(f64::NEG_INFINITY);
    if let (Some(fpr), Some(pro)) = (curve.fpr.last_mut(), curve.pro.last_mut()) {
        (*fpr, *pro) = (1.0, 1.0);
    }
    curve
}

/// The area up to `limit`, divided by `limit`.
pub(crate) fn area(ranking: &Ranking<'_, DefectPixel>, regions: u64, limit: f64) -> Result<f64, MetricError> {
    if !(limit > 0.0 && limit <= 1.0) {
        return Err(MetricError::Limit { limit });
    }
    let (mut area, mut x, mut y) = (0.0, 0.0, 0.0);
    let end = ProPoint { fpr: 1.0, pro: 1.0, score: f64::NEG_INFINITY };
    for point in points(ranking, regions).chain([end]) {
        if point.fpr > limit {
            let at_limit = y + (point.pro - y) * (limit - x) / (point.fpr - x);
            area += 0.5 * (y + at_limit) * (limit - x);
            break;
        }
        area += 0.5 * (y + point.pro) * (point.fpr - x);
        (x, y) = (point.fpr, point.pro);
    }
    Ok(area / limit)
}
