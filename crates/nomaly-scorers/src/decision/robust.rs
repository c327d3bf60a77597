//! The tail of scores that may include anomalous items.

use super::{check_number, check_scores};
use crate::ScorerError;

/// An exponential tail whose location and scale come from the middle of the scores, so that a minority of anomalous
/// items moves it little.
///
/// # What it computes
/// With the median `m` and the upper quartile `q` of the scores, `P(S > s) = exp(-(s - m) ln 2 / (q - m)) / 2` from `m`
/// on: the exponential tail through both. Below `m` it is the share of scores that are higher.
///
/// # When to use
/// To name training items that look anomalous, and as a threshold where a few training items may be. A share `e` of
/// anomalous items, all with high scores, moves the two quantiles to ranks `1 / 2 + e / 2` and `3 / 4 + e / 4` at most;
/// the tail stays finite up to a quarter. Tails of normal scores that are lighter than exponential get too large
/// p-values: the rule errs towards fewer alarms. It promises no rate in any sample, as [`Conformal`](super::Conformal)
/// does.
///
/// # Reference
/// Huber and Ronchetti, *Robust Statistics* (2009), chapter 1, for quantiles of contaminated samples.
///
/// ```
/// use nomaly_scorers::decision::RobustTail;
///
/// let mut scores: Vec<f64> = (1..=100).map(f64::from).collect();
/// scores.extend([900.0, 950.0, 990.0]);
/// let tail = RobustTail::fit(&scores)?;
/// assert!(tail.p_value(900.0) < 1e-6 && tail.p_value(100.0) > 0.1);
/// # Ok::<(), nomaly_scorers::ScorerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RobustTail {
    /// Ascending.
    scores: Vec<f64>,
    median: f64,
    /// The mean excess over the median, above 0.
    scale: f64,
}

impl RobustTail {
    /// The fewest scores with meaningful quartiles.
    pub const FEWEST_SCORES: usize = 8;

    /// Fits the tail to the scores of mostly normal items.
    ///
    /// # Errors
    /// [`ScorerError::TooFewScores`] below 8, [`ScorerError::NonFiniteScore`], [`ScorerError::ConstantScores`] where
    /// the upper quartile is not above the median.
    pub fn fit(scores: &[f64]) -> Result<Self, ScorerError> {
        check_scores("the robust tail", Self::FEWEST_SCORES, scores)?;
        let mut scores = scores.to_vec();
        scores.sort_by(f64::total_cmp);
        let (median, quartile) = (super::quantile(&scores, 0.5)?, super::quantile(&scores, 0.25)?);
        let scale = (quartile - median) / std::f64::consts::LN_2;
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(ScorerError::ConstantScores { n: scores.len() });
        }
        Ok(Self { scores, median, scale })
    }

    /// The p-value of a score, in [0, 1]; small means anomalous, 0 for NaN.
    pub fn p_value(&self, score: f64) -> f64 {
        if score.is_nan() {
            return 0.0;
        }
        if score >= self.median {
            return 0.5 * (-(score - self.median) / self.scale).exp();
        }
        let below = self.scores.partition_point(|other| *other < score);
        (1.0 - below as f64 / self.scores.len() as f64).max(0.5)
    }

    /// The threshold `t` above which p-values are below `rate`, in (0, 1/2].
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for another rate.
    pub fn threshold(&self, rate: f64) -> Result<f64, ScorerError> {
        check_number("rate", rate, rate > 0.0 && rate <= 0.5, "a rate above 0, at most a half")?;
        Ok(self.median - self.scale * (2.0 * rate).ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_goes_through_median_and_quartile() {
        let scores: Vec<f64> = (0..=100).map(f64::from).collect();
        let tail = RobustTail::fit(&scores).unwrap();
        for (score, p) in [(50.0, 0.5), (75.0, 0.25), (100.0, 0.125), (150.0, 1.0 / 32.0)] {
            assert!((tail.p_value(score) - p).abs() < 1e-12, "{score}");
            assert!((tail.threshold(p).unwrap() - score).abs() < 1e-9);
        }
        assert_eq!((tail.p_value(f64::NAN), tail.p_value(-1.0), tail.p_value(f64::INFINITY)), (0.0, 1.0, 0.0));
    }

    #[test]
    fn anomalous_scores_move_the_threshold_by_what_the_ranks_move() {
        // Normal scores with an exponential tail, and a tenth as many anomalous ones.
        let clean: Vec<f64> = (1..=200).map(|i| -(1.0 - (f64::from(i) - 0.5) / 200.0).ln()).collect();
        let spoiled = [clean.clone(), vec![1e6; 20]].concat();
        let at = |scores: &[f64]| RobustTail::fit(scores).unwrap().threshold(0.01).unwrap();
        assert!((at(&clean) - 100f64.ln()).abs() < 0.1, "{}", at(&clean));
        assert!((1.0..1.4).contains(&(at(&spoiled) / at(&clean))), "{} {}", at(&spoiled), at(&clean));
    }

    #[test]
    fn scores_without_a_tail_are_refused() {
        let few = RobustTail::fit(&[1.0; 7]).unwrap_err();
        assert!(matches!(few, ScorerError::TooFewScores { needed: 8, got: 7, .. }));
        assert!(matches!(RobustTail::fit(&[1.0; 9]), Err(ScorerError::ConstantScores { n: 9 })));
        let tail = RobustTail::fit(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]).unwrap();
        assert!(matches!(tail.threshold(0.6), Err(ScorerError::Setting(error)) if error.name() == "rate"));
    }
}
