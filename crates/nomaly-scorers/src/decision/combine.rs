//! Combination of several detectors' results through p-values.
//!
//! # What it computes
//! A p-value puts the scores of different detectors on one scale: how rare a score is among normal items. [`Tail`]
//! computes it from a score, continuously, so that it ranks items as the score does: between held-out scores it is
//! interpolated, and beyond the largest of them it falls exponentially, at the rate of the largest tenth of the
//! held-out scores. [`cauchy`] and [`fisher`] combine several p-values.
//!
//! # When to use
//! To let a detector with one view of normal (a network trained on the images themselves) decide together with one of
//! another view (pretrained features). [`cauchy`] keeps its level however the detectors depend on each other, and
//! detectors of the same images always do; [`fisher`] is for independent detectors.
//!
//! # Parameters
//! None.
//!
//! # Reference
//! Liu & Xie, *Cauchy combination test: a powerful test with analytic p-value calculation under arbitrary dependency
//! structures*, JASA 2020; Fisher, *Statistical Methods for Research Workers*, 1932. The exponential tail is the
//! generalized Pareto distribution with shape 0 (Pickands 1975).

use std::f64::consts::PI;

use crate::ScorerError;

/// The share of the held-out scores that the tail is fitted to, and the fewest of them.
const TAIL: f64 = 0.1;
const FEWEST: usize = 3;

/// Maps scores to p-values.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// Held-out scores, ascending.
    held_out: Vec<f64>,
    /// Mean excess over the start of the tail.
    scale: f64,
}

impl Tail {
    /// Fits the tail to the scores of held-out normal items, in any order.
    ///
    /// # Errors
    /// [`ScorerError::TooFewScores`] for fewer than three, [`ScorerError::NonFiniteScore`], and
    /// [`ScorerError::ConstantScores`] where all are equal.
    pub fn new(held_out: &[f64]) -> Result<Self, ScorerError> {
        let n = held_out.len();
        if n < FEWEST {
            return Err(ScorerError::TooFewScores { what: "a p-value by the tail", needed: FEWEST, got: n });
        }
        if let Some(index) = held_out.iter().position(|score| !score.is_finite()) {
            return Err(ScorerError::NonFiniteScore { index, value: held_out[index] });
        }
        let mut sorted = held_out.to_vec();
        sorted.sort_by(f64::total_cmp);
        if sorted[0] == sorted[n - 1] {
            return Err(ScorerError::ConstantScores { n });
        }
        // Skips ties at the top until there is a slope.
        let mut count = ((n as f64 * TAIL).ceil() as usize).max(FEWEST - 1);
        let scale = loop {
            let start = sorted[n - 1 - count];
            let excess = sorted[n - count..].iter().map(|score| score - start).sum::<f64>() / count as f64;
            if excess > 0.0 || count + 1 == n {
                break excess;
            }
            count += 1;
        };
        Ok(Self { held_out: sorted, scale })
    }

    /// The p-value of a score, in (0, 1): `(1 + #{sᵢ ≥ s}) / (n + 1)` at the held-out scores, linear in between,
    /// and exponential beyond the largest.
    pub fn p_value(&self, score: f64) -> f64 {
        let levels = self.held_out.len() as f64 + 1.0;
        let at = |held_out: f64| (levels - self.held_out.partition_point(|other| *other < held_out) as f64) / levels;
        let next = self.held_out.partition_point(|held_out| *held_out <= score);
        let p = match (next.checked_sub(1).map(|before| self.held_out[before]), self.held_out.get(next)) {
            (Some(before), Some(next)) => at(before) + (score - before) / (next - before) * (at(*next) - at(before)),
            (Some(greatest), None) => at(greatest) * (-(score - greatest) / self.scale).exp(),
            (None, _) => 1.0,
        };
        p.clamp(f64::MIN_POSITIVE, 1.0 - 0.5 / levels)
    }
}

/// Combines p-values, each in (0, 1), by the Cauchy combination test with equal weights. The level holds approximately
/// under any dependence, the better the smaller it is.
///
/// ```
/// use nomaly_scorers::decision::combine::cauchy;
///
/// assert!((cauchy(&[0.03, 0.03]) - 0.03).abs() < 1e-12);
/// assert!(cauchy(&[0.001, 0.4]) < 0.0021);
/// ```
pub fn cauchy(p_values: &[f64]) -> f64 {
    let term = |p: &f64| {
        // tan((1/2 − p) π), in a form that keeps the precision of tiny p-values.
        if *p < 1e-8 { 1.0 / (p * PI) } else { ((0.5 - p) * PI).tan() }
    };
    let mean = p_values.iter().map(term).sum::<f64>() / p_values.len() as f64;
    if mean > 1e8 { 1.0 / (mean * PI) } else { 0.5 - mean.atan() / PI }
}

/// Combines independent p-values, each in (0, 1), by Fisher's method.
///
/// ```
/// use nomaly_scorers::decision::combine::fisher;
///
/// assert!((fisher(&[0.2]) - 0.2).abs() < 1e-12);
/// ```
pub fn fisher(p_values: &[f64]) -> f64 {
    // The survival function of χ² with an even number of degrees of freedom at −2 Σ ln p.
    let half: f64 = -p_values.iter().map(|p| p.ln()).sum::<f64>();
    let (mut term, mut sum) = (1.0, 0.0);
    for index in 0..p_values.len() {
        sum += term;
        term *= half / (index + 1) as f64;
    }
    ((-half).exp() * sum).clamp(f64::MIN_POSITIVE, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of SciPy 1.17's `combine_pvalues(method="fisher")`, and of the Cauchy formula in NumPy.
    #[test]
    fn combinations_are_those_of_scipy() {
        let close = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-10, "{got} {want}");
        close(fisher(&[0.01, 0.2, 0.3]), FISHER[0]);
        close(fisher(&[1e-6, 0.5]), FISHER[1]);
        close(cauchy(&[0.01, 0.2, 0.3]), CAUCHY[0]);
        close(cauchy(&[1e-6, 0.5]), CAUCHY[1]);
    }

    const FISHER: [f64; 2] = [0.021561751324834632, 7.754328869262112e-06];
    const CAUCHY: [f64; 2] = [0.02807651211282769, 2.000000000002e-06];

    #[test]
    fn p_values_fall_with_the_score_and_meet_the_conformal_ones() {
        let held_out: Vec<f64> = (0..50).map(|i| f64::from(i * i % 53) * 0.1).collect();
        let tail = Tail::new(&held_out).unwrap();
        let mut last = 1.0;
        for step in -20..800 {
            let p = tail.p_value(f64::from(step) * 0.01);
            assert!(p <= last && p > 0.0 && p < 1.0, "{step}: {p} {last}");
            last = p;
        }
        for score in &held_out {
            let conformal = (1 + held_out.iter().filter(|other| *other >= score).count()) as f64 / 51.0;
            assert!((tail.p_value(*score) - conformal.min(1.0 - 0.5 / 51.0)).abs() < 1e-12, "{score}");
        }
        assert!(tail.p_value(1e9) > 0.0);
    }

    #[test]
    fn scores_that_say_nothing_are_refused() {
        assert!(Tail::new(&[1.0, 2.0]).is_err());
        assert!(Tail::new(&[1.0; 20]).is_err());
        assert!(Tail::new(&[1.0, f64::NAN, 2.0]).is_err());
        let top_heavy = Tail::new(&[1.0, 2.0, 2.0, 2.0]).unwrap();
        assert!((top_heavy.p_value(3.0) - 0.8 * (-1f64).exp()).abs() < 1e-12);
    }
}
