//! Stratified bootstrap intervals for metrics of a ranking.
//!
//! # What it computes
//! Anomalous and normal items are resampled with replacement, separately and in their original numbers, and the figures
//! are recomputed; the interval contains the middle `level` of the values. Scores are ranked once: a resample is a
//! count per ranked item, so it is already sorted.
//!
//! If items come in dependent groups, whole groups are drawn in place of items, separately for groups with anomalous
//! and with normal items: the cluster bootstrap.
//!
//! # When to use
//! For figures whose distribution has no simple form: average precision, F1, the equal error rate. Rates of one class
//! at a threshold are better served by [`share_interval`](crate::share_interval), AUROC by
//! [`auroc_with_interval`](crate::auroc_with_interval).
//!
//! # Parameters
//! The number of resamples, the level and the seed.
//!
//! # Reference
//! B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 8 (strata) and 13 (percentiles);
//! A. C. Davison, D. V. Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8 (groups).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::interval::{Interval, central_interval};
use crate::rank::{Ranked, Ranking, Score, ScoreKey};
use crate::{ConfusionMatrix, MetricError};

/// Resamples that one task draws: fixed, so that the intervals do not depend on the number of threads.
const CHUNK: usize = 16;
/// The fewest resamples with meaningful outer quantiles.
const FEWEST: usize = 40;
/// The figures of one resample: those of the ranking, then those at the threshold.
const FIGURES: usize = 9;

/// Options of the bootstrap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// The number of resamples, at least 40.
    pub resamples: usize,
    /// The share of resamples whose figure lies in the interval, in (0, 1).
    pub level: f64,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 1000 resamples, 95 %.
    fn default() -> Self {
        Self { resamples: 1000, level: 0.95, seed: 0 }
    }
}

/// Intervals of figures over images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageIntervals {
    /// Of AUROC.
    pub auroc: Interval,
    /// Of average precision.
    pub ap: Interval,
    /// Of the best F1 over all thresholds.
    pub f1_max: Interval,
    /// Of the equal error rate.
    pub eer: Interval,
    /// Of the true-positive rate at the threshold.
    pub tpr: Interval,
    /// Of the false-positive rate at the threshold.
    pub fpr: Interval,
    /// Of precision at the threshold, over the resamples in which something is flagged; `None` if there are none.
    pub precision: Option<Interval>,
    /// Of accuracy at the threshold.
    pub accuracy: Interval,
    /// Of F1 at the threshold.
    pub f1: Interval,
}

impl Bootstrap {
    /// Intervals of the figures of `scores`, and of the decisions `score > threshold`.
    ///
    /// # Errors
    /// Lengths that differ, no scores, a NaN score or threshold, labels of one class only, a level outside (0, 1), or
    /// fewer than 40 resamples.
    pub fn intervals<S: Score>(
        &self,
        scores: &[S],
        labels: &[bool],
        threshold: f64,
    ) -> Result<ImageIntervals, MetricError> {
        if !(self.level > 0.0 && self.level < 1.0) {
            return Err(MetricError::Level { level: self.level });
        }
        if self.resamples < FEWEST {
            return Err(MetricError::Resamples { resamples: self.resamples, needed: FEWEST });
        }
        if threshold.is_nan() {
            return Err(MetricError::NanThreshold);
        }
        let ranked = Ranked::new(scores, labels)?;
        let view = ranked.view();
        let numbers: Vec<usize> = (0..self.resamples).collect();
        let figures: Vec<[f64; FIGURES]> = numbers
            .par_chunks(CHUNK)
            .flat_map_iter(|chunk| {
                let mut resample = Resample::new(&view);
                let figures = chunk.iter().map(|&number| resample.draw(&view, self.seed, number).figures(threshold));
                figures.collect::<Vec<_>>()
            })
            .collect();
        Ok(self.collected(&figures))
    }

    /// As [`intervals`](Self::intervals), for items that depend on each other within groups; `groups` has the group
    /// number of each item.
    ///
    /// # Errors
    /// As [`intervals`](Self::intervals), and if the numbers of groups and scores differ.
    pub fn intervals_of_groups<S: Score>(
        &self,
        scores: &[S],
        labels: &[bool],
        groups: &[u32],
        threshold: f64,
    ) -> Result<ImageIntervals, MetricError> {
        // That function checks all arguments.
        let independent = self.intervals(scores, labels, threshold)?;
        if groups.len() != scores.len() {
            return Err(MetricError::LengthMismatch { scores: scores.len(), labels: groups.len() });
        }
        if groups.iter().collect::<std::collections::BTreeSet<_>>().len() == groups.len() {
            return Ok(independent);
        }
        let class = |label: bool| Clusters::new(scores, labels, groups, label);
        let (positives, negatives) = (class(true), class(false));
        let numbers: Vec<usize> = (0..self.resamples).collect();
        let figures: Vec<[f64; FIGURES]> = numbers
            .par_iter()
            .map(|&number| {
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
                rng.set_stream(number as u64);
                let (positives, negatives) = (positives.draw(&mut rng), negatives.draw(&mut rng));
                Ranking { positives: &positives, negatives: &negatives }.figures(threshold)
            })
            .collect();
        Ok(self.collected(&figures))
    }

    /// The intervals of figures of resamples.
    fn collected(&self, figures: &[[f64; FIGURES]]) -> ImageIntervals {
        let of = |figure: usize| {
            let values = figures.iter().map(|figures| figures[figure]).filter(|value| !value.is_nan()).collect();
            central_interval(values, self.level)
        };
        // All but precision are defined in every resample, which has items of both classes.
        let defined = |figure: usize| of(figure).unwrap_or(Interval { low: 0.0, high: 1.0 });
        ImageIntervals {
            auroc: defined(0),
            ap: defined(1),
            f1_max: defined(2),
            eer: defined(3),
            tpr: defined(4),
            fpr: defined(5),
            precision: of(6),
            accuracy: defined(7),
            f1: defined(8),
        }
    }
}

/// The items of one class in ranked order, with their groups.
struct Clusters<K> {
    items: Vec<(K, usize)>,
    groups: usize,
}

impl<K: ScoreKey> Clusters<K> {
    fn new<S: Score<Key = K>>(scores: &[S], labels: &[bool], groups: &[u32], class: bool) -> Self {
        let mut places = std::collections::BTreeMap::new();
        let of_class = scores.iter().zip(labels).zip(groups).filter(|((_, label), _)| **label == class);
        let mut items: Vec<(K, usize)> = of_class
            .map(|((score, _), group)| {
                let next = places.len();
                (score.key(), *places.entry(*group).or_insert(next))
            })
            .collect();
        items.sort_by_key(|(key, _)| *key);
        Self { items, groups: places.len() }
    }

    /// Draws the original number of groups with replacement; returns their items in ranked order.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Vec<K> {
        let mut times = vec![0usize; self.groups];
        for _ in 0..self.groups {
            times[((u64::from(rng.next_u32()) * self.groups as u64) >> 32) as usize] += 1;
        }
        self.items.iter().flat_map(|&(key, group)| std::iter::repeat_n(key, times[group])).collect()
    }
}

/// Buffers for one resample in ranked order.
struct Resample<K> {
    times: Vec<u32>,
    positives: Vec<K>,
    negatives: Vec<K>,
}

impl<K: ScoreKey> Resample<K> {
    fn new(of: &Ranking<'_, K>) -> Self {
        let (positives, negatives) = (of.positives.len(), of.negatives.len());
        Self {
            times: vec![0; positives.max(negatives)],
            positives: Vec::with_capacity(positives),
            negatives: Vec::with_capacity(negatives),
        }
    }

    fn draw(&mut self, of: &Ranking<'_, K>, seed: u64, number: usize) -> Ranking<'_, K> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number as u64);
        draw_sorted(of.positives, &mut rng, &mut self.times, &mut self.positives);
        draw_sorted(of.negatives, &mut rng, &mut self.times, &mut self.negatives);
        Ranking { positives: &self.positives, negatives: &self.negatives }
    }
}

/// Draws the original number of items with replacement, in order.
fn draw_sorted<K: Copy>(from: &[K], rng: &mut ChaCha8Rng, times: &mut [u32], into: &mut Vec<K>) {
    let times = &mut times[..from.len()];
    times.fill(0);
    for _ in 0..from.len() {
        // The high half of the product is below the number of items.
        times[((u64::from(rng.next_u32()) * from.len() as u64) >> 32) as usize] += 1;
    }
    into.clear();
    for (&item, &times) in from.iter().zip(&*times) {
        into.extend(std::iter::repeat_n(item, times as usize));
    }
}

impl<K: ScoreKey> Ranking<'_, K> {
    /// Every figure with an interval; NaN for precision if nothing is flagged.
    fn figures(&self, threshold: f64) -> [f64; FIGURES] {
        let flagged = |keys: &[K]| (keys.len() - keys.partition_point(|key| key.score() <= threshold)) as u64;
        let (true_positives, false_positives) = (flagged(self.positives), flagged(self.negatives));
        let counts = ConfusionMatrix {
            true_positives,
            false_positives,
            true_negatives: self.negatives.len() as u64 - false_positives,
            false_negatives: self.positives.len() as u64 - true_positives,
        };
        let at = |share: Option<f64>| share.unwrap_or(f64::NAN);
        [
            self.auroc(),
            self.average_precision(),
            self.f1_max().f1,
            self.eer().rate,
            at(counts.tpr()),
            at(counts.fpr()),
            at(counts.precision()),
            at(counts.accuracy()),
            at(counts.f1()),
        ]
    }
}
