//! The variability of a threshold over samples of held-out scores.
//!
//! # What it computes
//! The percentile bootstrap interval of a statistic of `n` scores: the scores are drawn `n` times with replacement,
//! `resamples` times over, and the interval lies between the `(1 - level) / 2` and `(1 + level) / 2` quantiles of the
//! statistic on the resamples (type 7).
//!
//! # When to use
//! To see whether there are enough held-out scores for a rule: a threshold whose interval is as wide as the gap between
//! normal and anomalous items is mostly chance. The percentile interval stands in place of BCa because thresholds are
//! order statistics, whose jackknife variance, which BCa's acceleration rests on, is inconsistent (Efron, *The
//! jackknife, the bootstrap and other resampling plans*, 1982, section 3.4). An upper threshold never lies above the
//! largest score of its resample: the interval of a rare rate is too short upwards.
//!
//! # Parameters
//! The number of resamples, the level and the seed: [`ThresholdBootstrap`].
//!
//! # Reference
//! Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapter 13.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use super::{check_number, check_scores, draw_below};
use crate::ScorerError;

/// Resamples that one task draws: fixed, so that the interval does not depend on the number of threads.
const CHUNK: usize = 16;
/// The largest share of resamples on which the statistic may be undefined.
const MAX_UNDEFINED: f64 = 0.05;
/// The fewest resamples with meaningful 2.5 and 97.5 % quantiles.
const FEWEST: usize = 40;

/// How the interval of a threshold, or of another statistic of held-out scores, is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThresholdBootstrap {
    /// How many resamples are drawn, from 40.
    pub resamples: usize,
    /// The share of resamples whose statistic lies in the interval, in (0, 1).
    pub level: f64,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for ThresholdBootstrap {
    /// 1000 resamples, 95 %.
    fn default() -> Self {
        Self { resamples: 1000, level: 0.95, seed: 0 }
    }
}

/// The interval of a statistic over resamples of the held-out scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThresholdInterval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl ThresholdBootstrap {
    /// The interval of a statistic of `groups` groups, which are drawn whole. `statistic` gets the numbers of the
    /// groups of a resample, ascending, as many as there are groups.
    ///
    /// # Errors
    /// As [`interval`](Self::interval), with groups in place of scores.
    pub fn interval_of_groups(
        &self,
        groups: usize,
        statistic: impl Fn(&[usize]) -> Result<f64, ScorerError> + Sync,
    ) -> Result<ThresholdInterval, ScorerError> {
        let numbers: Vec<f64> = (0..groups).map(|group| group as f64).collect();
        self.interval(&numbers, |drawn| statistic(&drawn.iter().map(|&group| group as usize).collect::<Vec<_>>()))
    }

    /// The interval of `statistic`, which gets ascending scores, as many as there are held-out scores.
    ///
    /// Resamples on which `statistic` fails are left out, as long as they are few.
    ///
    /// # Errors
    /// [`ScorerError::TooFewScores`] below 2, [`ScorerError::NonFiniteScore`], [`ScorerError::Setting`], and the
    /// first error of `statistic` where it fails on more than 5 % of the resamples.
    pub fn interval(
        &self,
        held_out_scores: &[f64],
        statistic: impl Fn(&[f64]) -> Result<f64, ScorerError> + Sync,
    ) -> Result<ThresholdInterval, ScorerError> {
        check_scores("a bootstrap interval", 2, held_out_scores)?;
        check_number("level", self.level, self.level > 0.0 && self.level < 1.0, "a share between 0 and 1")?;
        check_number("resamples", self.resamples as f64, self.resamples >= FEWEST, "a whole number from 40")?;
        let mut scores = held_out_scores.to_vec();
        scores.sort_by(f64::total_cmp);
        let numbers: Vec<usize> = (0..self.resamples).collect();
        let outcomes: Vec<Result<f64, ScorerError>> = numbers
            .par_chunks(CHUNK)
            .flat_map_iter(|chunk| {
                let mut times = vec![0u32; scores.len()];
                let mut resample = Vec::with_capacity(scores.len());
                let outcomes = chunk.iter().map(|&number| {
                    self.draw(number, &scores, &mut times, &mut resample);
                    statistic(&resample)
                });
                outcomes.collect::<Vec<_>>()
            })
            .collect();
        let mut values = Vec::with_capacity(outcomes.len());
        let mut failure = None;
        for outcome in outcomes {
            match outcome {
                Ok(value) => values.push(value),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let undefined = self.resamples - values.len();
        if let Some(error) = failure.filter(|_| undefined as f64 > MAX_UNDEFINED * self.resamples as f64) {
            return Err(error);
        }
        let tail = (1.0 - self.level) / 2.0;
        Ok(ThresholdInterval { low: super::quantile(&values, 1.0 - tail)?, high: super::quantile(&values, tail)? })
    }

    /// Draws resample `number` in ascending order by counting how often each score is drawn.
    fn draw(&self, number: usize, scores: &[f64], times: &mut [u32], resample: &mut Vec<f64>) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number as u64);
        times.fill(0);
        for _ in 0..scores.len() {
            times[draw_below(&mut rng, scores.len())] += 1;
        }
        resample.clear();
        for (&score, &times) in scores.iter().zip(&*times) {
            resample.extend(std::iter::repeat_n(score, times as usize));
        }
    }
}
