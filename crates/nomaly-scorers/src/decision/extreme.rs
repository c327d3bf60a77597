//! The tail of held-out scores, extrapolated beyond the largest of them.

use super::{Conformal, check_number};
use crate::ScorerError;

/// The fewest scores that a tail is fitted to.
const FEWEST_EXCEEDANCES: usize = 10;
/// The fewest distinct exceedances that determine two parameters.
const FEWEST_DISTINCT: usize = 4;
/// The lower bound of the shape: below it maximum likelihood is not regular, and below −1 the likelihood has no
/// bound.
const LEAST_SHAPE: f64 = -0.5;
/// Grid points at which the profile likelihood is evaluated before the best is refined.
const GRID: usize = 96;
/// Decades of `1 + ξ y_max / σ` that the grid spans on each side of 1, where the tail is exponential.
const GRID_DECADES: f64 = 12.0;
/// Steps of golden-section search: each shrinks the bracket by 0.618, so these reach full precision.
const GOLDEN_STEPS: usize = 60;

/// A threshold and p-values from a generalized Pareto tail: peaks over threshold.
///
/// # What it computes
/// Scores above a high initial threshold `u`, less `u`, follow a generalized Pareto distribution the more closely the
/// higher `u` is: `P(S > u + y | S > u) = (1 + ξ y / σ)^(-1/ξ)`, and `exp(-y / σ)` for `ξ = 0`. Here `u` is the
/// `(k + 1)`-th largest of `n` held-out scores, shape `ξ ≥ -1/2` and scale `σ` maximize the likelihood, and for a
/// rate below `k / n` the threshold is `u + σ/ξ ((rate n / k)^(-ξ) - 1)`. At and below `u` the rule is
/// [`Conformal`].
///
/// With `ξ` and `x = ξ / σ` the scale drops out (Grimshaw 1993): `ξ(x)` is the mean of `ln(1 + x y)`, which leaves
/// a one-dimensional search, over a grid and then by golden sections. The bound on `ξ` is where maximum likelihood
/// stops being regular; shorter tails than that get a slightly longer one, which errs towards fewer alarms.
///
/// # When to use
/// For false-alarm rates below `1 / (n + 1)`, which no rule without a model of the tail can reach, and for smooth
/// p-values beyond all held-out scores. The rate is only as good as the limit distribution: at `k / (20 n)` it depends
/// on the shape, which `k` exceedances determine poorly.
///
/// # Parameters
/// `k` is a tenth of the scores up to 50, then a fiftieth of them where that is more, and at least ten; so `u` is the
/// 0.9 quantile of 500 scores and the 0.98 quantile of 2500 and more, as in SPOT.
///
/// # Reference
/// Pickands, *Statistical inference using extreme order statistics* (1975); Balkema and de Haan, *Residual life time at
/// great age* (1974); Grimshaw, *Computing maximum likelihood estimates for the generalized Pareto distribution*
/// (1993); Siffer, Fouque, Termier and Largouet, *Anomaly detection in streams with extreme value theory* (2017).
///
/// ```
/// use nomaly_scorers::decision::ExtremeValue;
///
/// // The quantiles of an exponential distribution.
/// let scores: Vec<f64> = (1..=500).map(|i| -(1.0 - (f64::from(i) - 0.5) / 500.0).ln()).collect();
/// let rule = ExtremeValue::fit(scores)?;
/// assert!(rule.shape().abs() < 0.1);
/// let threshold = rule.threshold(1e-4).unwrap(); // 500 scores alone cannot promise less than 0.2 %
/// assert!((threshold + 1e-4f64.ln()).abs() < 1.0);
/// assert!((rule.p_value(threshold) - 1e-4).abs() < 1e-12);
/// # Ok::<(), nomaly_scorers::ScorerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ExtremeValue {
    body: Conformal,
    initial: f64,
    exceedances: usize,
    tail: Tail,
}

/// A generalized Pareto distribution that starts at 0.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tail {
    shape: f64,
    scale: f64,
}

impl ExtremeValue {
    /// The fewest held-out scores that a tail is fitted to.
    pub const FEWEST_SCORES: usize = 50;

    /// Calibrates on the scores of held-out normal items.
    ///
    /// # Errors
    /// [`ScorerError::TooFewScores`] below 50, [`ScorerError::NonFiniteScore`], [`ScorerError::ConstantTail`] where
    /// fewer than four different scores lie above the initial threshold, [`ScorerError::Numerical`] where no
    /// generalized Pareto distribution is as heavy as the tail.
    pub fn fit(held_out_scores: Vec<f64>) -> Result<Self, ScorerError> {
        let body = Conformal::new(held_out_scores)?;
        let n = body.n();
        if n < Self::FEWEST_SCORES {
            return Err(ScorerError::TooFewScores {
                what: "the extreme-value rule",
                needed: Self::FEWEST_SCORES,
                got: n,
            });
        }
        let wanted = (n / 10).min(50).max(n / 50).max(FEWEST_EXCEEDANCES);
        let initial = body.scores()[n - 1 - wanted];
        let start = body.scores().partition_point(|&score| score <= initial);
        let exceedances: Vec<f64> = body.scores()[start..].iter().map(|score| score - initial).collect();
        let distinct = exceedances.chunk_by(|a, b| a == b).count();
        if distinct < FEWEST_DISTINCT {
            return Err(ScorerError::ConstantTail { distinct, initial, needed: FEWEST_DISTINCT });
        }
        let tail = Tail::fit(&exceedances)?;
        Ok(Self { exceedances: exceedances.len(), body, initial, tail })
    }

    /// The number of held-out scores.
    pub fn n(&self) -> usize {
        self.body.n()
    }

    /// The score `u` above which the tail is modelled.
    pub fn initial_threshold(&self) -> f64 {
        self.initial
    }

    /// The number of held-out scores above [`initial_threshold`](Self::initial_threshold).
    pub fn exceedances(&self) -> usize {
        self.exceedances
    }

    /// The shape `ξ`, from −1/2: above 0 a power-law tail, at 0 exponential, below 0 a bounded tail.
    pub fn shape(&self) -> f64 {
        self.tail.shape
    }

    /// The scale `σ`, above 0, in the unit of the scores.
    pub fn scale(&self) -> f64 {
        self.tail.scale
    }

    /// The p-value of a score, in [0, 1]; small means anomalous. It is 0 beyond the end of a tail that has one, and for
    /// a NaN score, so that an item without a score never counts as normal.
    pub fn p_value(&self, score: f64) -> f64 {
        if score <= self.initial {
            return self.body.p_value(score);
        }
        if score.is_nan() { 0.0 } else { self.tail_share() * self.tail.survival(score - self.initial) }
    }

    /// The threshold `t` for which `score > t` holds where `p_value(score) <= rate`, up to rounding.
    ///
    /// Minus infinity (everything is anomalous) where `rate` is 1 or more.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for a rate that is not above 0.
    pub fn threshold(&self, rate: f64) -> Result<f64, ScorerError> {
        check_number("rate", rate, rate > 0.0, "a rate above 0")?;
        let share = self.tail_share();
        Ok(if rate < share {
            self.initial + self.tail.quantile(rate / share)
        } else {
            // The body's threshold may lie above `u` where ties or rounding make its rank small.
            self.body.threshold(rate).map_or(self.initial, |threshold| threshold.min(self.initial))
        })
    }

    /// The share of the held-out scores in the tail.
    fn tail_share(&self) -> f64 {
        self.exceedances as f64 / self.n() as f64
    }
}

impl Tail {
    /// The most likely tail of ascending positive exceedances.
    fn fit(exceedances: &[f64]) -> Result<Self, ScorerError> {
        let largest = exceedances[exceedances.len() - 1];
        // Scaled to (0, 1], so that nothing over- or underflows in any unit of the scores.
        let scaled: Vec<f64> = exceedances.iter().map(|y| y / largest).collect();
        let shape = |x: f64| scaled.iter().map(|y| (x * y).ln_1p()).sum::<f64>() / scaled.len() as f64;
        let mean = scaled.iter().sum::<f64>() / scaled.len() as f64;
        // The search runs over ln(1 + x): x lies above −1, and the exponential tail is at 0.
        let tail = |place: f64| {
            let x = place.exp_m1();
            let shape = shape(x);
            // ξ / x loses precision near 0, where it tends to the mean of the exceedances.
            let scale = if x.abs() < 1e-9 { mean } else { shape / x };
            Self { shape, scale }
        };
        // The likelihood of n exceedances at its best scale, divided by n.
        let likelihood = |place: f64| {
            let Self { shape, scale } = tail(place);
            -(scale.ln() + shape + 1.0)
        };
        let end = GRID_DECADES * std::f64::consts::LN_10;
        // ξ grows with x, so the bound on it is a bound on x.
        let (mut low, mut start) = (-3.0 * end, 0.0);
        for _ in 0..GOLDEN_STEPS {
            let middle = 0.5 * (low + start);
            if tail(middle).shape < LEAST_SHAPE { low = middle } else { start = middle }
        }
        let step = (end - start) / (GRID - 1) as f64;
        let best = (0..GRID)
            .map(|point| (point, likelihood(start + step * point as f64)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .map_or(0, |(point, _)| point);
        if best == GRID - 1 {
            return Err(ScorerError::Numerical {
                what: "the extreme-value rule",
                reason: "the largest held-out scores are more spread out than any power law".to_owned(),
            });
        }
        let bracket = [best.saturating_sub(1), best + 1].map(|point| start + step * point as f64);
        let Self { shape, scale } = tail(maximize(likelihood, bracket));
        Ok(Self { shape, scale: scale * largest })
    }

    /// The chance of an exceedance above `y`.
    fn survival(self, y: f64) -> f64 {
        let relative = y / self.scale;
        if self.shape == 0.0 {
            return (-relative).exp();
        }
        let inside = (self.shape * relative).max(-1.0);
        (-inside.ln_1p() / self.shape).exp()
    }

    /// The exceedance that a share in (0, 1] of the exceedances lies above.
    fn quantile(self, share: f64) -> f64 {
        let log = -share.ln();
        // exp_m1 keeps the precision for shapes near 0, whose limit is the exponential tail.
        if self.shape == 0.0 { self.scale * log } else { self.scale * (self.shape * log).exp_m1() / self.shape }
    }
}

/// The maximizer of `function` in the bracket, by golden-section search.
fn maximize(function: impl Fn(f64) -> f64, [mut low, mut high]: [f64; 2]) -> f64 {
    let golden = (5f64.sqrt() - 1.0) / 2.0;
    let (mut left, mut right) = (high - golden * (high - low), low + golden * (high - low));
    let (mut at_left, mut at_right) = (function(left), function(right));
    for _ in 0..GOLDEN_STEPS {
        if at_left >= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - golden * (high - low);
            at_left = function(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + golden * (high - low);
            at_right = function(right);
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_near_zero_are_exponential() {
        let limit = Tail { shape: 0.0, scale: 2.0 };
        for shape in [1e-300, -1e-12, 1e-9] {
            let tail = Tail { shape, scale: 2.0 };
            for share in [0.5, 1e-3, 1e-9] {
                assert!((tail.quantile(share) / limit.quantile(share) - 1.0).abs() < 1e-7, "{shape} {share}");
                assert!((tail.survival(tail.quantile(share)) / share - 1.0).abs() < 1e-7, "{shape} {share}");
            }
        }
    }

    #[test]
    fn a_tail_with_an_end_has_nothing_beyond() {
        let tail = Tail { shape: -0.5, scale: 1.0 };
        assert_eq!(tail.survival(2.0), 0.0);
        assert_eq!(tail.survival(5.0), 0.0);
        assert!((tail.quantile(0.01) - 1.8).abs() < 1e-12); // 2 (1 - 0.01^0.5)
    }

    #[test]
    fn threshold_and_p_value_say_the_same() {
        // Many ties, so that the rank of the initial threshold is not clean.
        let scores: Vec<f64> = (0..200).map(|i| f64::from(i * i % 211)).collect();
        let rule = ExtremeValue::fit(scores).unwrap();
        for rate in [1e-6, 1e-3, 0.01, 0.04, 0.09, 0.1, 0.105, 0.11, 0.5, 1.0] {
            let threshold = rule.threshold(rate).unwrap();
            for score in (-5..600).map(|step| f64::from(step) * 0.125 + 1e-7) {
                assert_eq!(score > threshold, rule.p_value(score) <= rate, "rate {rate}, score {score}");
            }
        }
    }

    #[test]
    fn tails_that_say_nothing_are_refused() {
        let ramp: Vec<f64> = (0..100).map(f64::from).collect();
        assert!(matches!(
            ExtremeValue::fit(ramp[..49].to_vec()),
            Err(ScorerError::TooFewScores { needed: 50, got: 49, .. })
        ));
        let stepped: Vec<f64> = ramp.iter().map(|score| (score / 5.0).floor()).collect();
        assert!(matches!(ExtremeValue::fit(stepped), Err(ScorerError::ConstantTail { distinct: 2, .. })));
        assert!(matches!(ExtremeValue::fit(vec![3.0; 100]), Err(ScorerError::ConstantTail { distinct: 0, .. })));
        let rule = ExtremeValue::fit(ramp).unwrap();
        assert!(rule.threshold(0.0).is_err() && rule.threshold(f64::NAN).is_err());
        assert_eq!(rule.p_value(f64::NAN), 0.0);
        // A uniform tail is shorter than the bound on the shape allows, which keeps its end above all scores.
        assert!((rule.shape() + 0.5).abs() < 1e-9 && rule.threshold(1e-9).unwrap() > 99.0);
    }

    #[test]
    fn the_unit_of_the_scores_does_not_matter() {
        let scores: Vec<f64> = (1..=300).map(|i| 1.0 / (1.0 - f64::from(i) / 301.0)).collect();
        let rule = ExtremeValue::fit(scores.clone()).unwrap();
        for unit in [1e-200, 1e-6, 1e200] {
            let other = ExtremeValue::fit(scores.iter().map(|score| score * unit).collect()).unwrap();
            let ratio = other.threshold(1e-4).unwrap() / (unit * rule.threshold(1e-4).unwrap());
            assert!((ratio - 1.0).abs() < 1e-6, "unit {unit}: {ratio}");
        }
    }
}
