//! Dirichlet distributions of vectors of probabilities.
//!
//! # What it computes
//! The maximum-likelihood Dir(α) of vectors `p` on the simplex, by Minka's fixed point
//! `ψ(αⱼ) = ψ(Σα) + mean ln pⱼ` from a moment-like estimate, and its log-density
//! `ln Γ(Σα) − Σ ln Γ(αⱼ) + Σ (αⱼ − 1) ln pⱼ`. The last sum alone is the normality score of GeoTrans.
//!
//! # When to use
//! For a classifier's predictions on normal images under a known transformation: the concentration separates classes
//! that are easily confused from those that are not.
//!
//! # Parameters
//! None. Vectors come as logarithms, so that probabilities below the range of floating point keep their precision. The
//! concentration Σα of nearly equal vectors is limited to [`MAX_CONCENTRATION`].
//!
//! # Reference
//! Minka, *Estimating a Dirichlet distribution*, 2000, equations 9 and 21; Golan & El-Yaniv, *Deep anomaly detection
//! using geometric transformations*, NeurIPS 2018, section 4.

mod special;

use crate::ScorerError;
use special::{digamma, inverse_digamma, ln_gamma};

/// The largest sum of the concentrations: for equal vectors, the likelihood has no maximum.
pub const MAX_CONCENTRATION: f64 = 1e6;
/// The concentration of a class that normal images never get.
const MIN_ALPHA: f64 = 1e-6;
const MOST_STEPS: usize = 1000;
const TOLERANCE: f64 = 1e-9;

/// Sufficient statistics of vectors of probabilities for maximum likelihood.
#[derive(Clone, Debug, PartialEq)]
pub struct SimplexStatistics {
    count: usize,
    /// Sums of `p` and of `ln p`, per class.
    sums: Vec<[f64; 2]>,
}

impl SimplexStatistics {
    /// Statistics of no vectors of `classes` probabilities.
    pub fn new(classes: usize) -> Self {
        Self { count: 0, sums: vec![[0.0; 2]; classes] }
    }

    /// Adds a vector, given as the logarithms of its probabilities.
    ///
    /// # Errors
    /// [`ScorerError::Dimension`] for another number of classes and [`ScorerError::NonFiniteFeature`].
    pub fn push(&mut self, log_p: &[f64]) -> Result<(), ScorerError> {
        check(log_p, self.sums.len(), self.count)?;
        self.count += 1;
        for ([p, log], value) in self.sums.iter_mut().zip(log_p) {
            *p += value.exp();
            *log += value;
        }
        Ok(())
    }
}

/// A Dirichlet distribution.
#[derive(Clone, Debug, PartialEq)]
pub struct Dirichlet {
    alpha: Vec<f64>,
    /// Logarithm of the normalizing constant.
    log_constant: f64,
}

impl Dirichlet {
    /// The distribution with these concentrations.
    ///
    /// # Errors
    /// [`ScorerError::Numerical`] for fewer than two, and for one that is not a positive number.
    pub fn new(alpha: Vec<f64>) -> Result<Self, ScorerError> {
        let sum: f64 = alpha.iter().sum();
        if alpha.len() < 2 || alpha.iter().any(|value| value.is_nan() || *value <= 0.0) || !sum.is_finite() {
            let reason = "concentrations are two or more positive numbers".to_owned();
            return Err(ScorerError::Numerical { what: "a Dirichlet distribution", reason });
        }
        let log_constant = ln_gamma(sum) - alpha.iter().map(|value| ln_gamma(*value)).sum::<f64>();
        Ok(Self { alpha, log_constant })
    }

    /// The maximum-likelihood distribution of the vectors in `statistics`.
    ///
    /// # Errors
    /// [`ScorerError::TooFewRows`] for none or one, and [`ScorerError::Numerical`] for fewer than two classes.
    pub fn fit(statistics: &SimplexStatistics) -> Result<Self, ScorerError> {
        let SimplexStatistics { count, sums } = statistics;
        if *count < 2 {
            return Err(ScorerError::TooFewRows { what: "a Dirichlet distribution", needed: 2, got: *count });
        }
        let n = *count as f64;
        let mean_log: Vec<f64> = sums.iter().map(|[_, log]| log / n).collect();
        let mut alpha = start(sums.iter().map(|[p, _]| p / n), &mean_log);
        for _ in 0..MOST_STEPS {
            let total = digamma(alpha.iter().sum());
            let mut moved = 0.0;
            for (alpha, mean_log) in alpha.iter_mut().zip(&mean_log) {
                let next = inverse_digamma(total + mean_log).max(MIN_ALPHA);
                moved += (next - *alpha).powi(2);
                *alpha = next;
            }
            let sum: f64 = alpha.iter().sum();
            if sum > MAX_CONCENTRATION {
                alpha.iter_mut().for_each(|value| *value = (*value * MAX_CONCENTRATION / sum).max(MIN_ALPHA));
                break;
            }
            if moved.sqrt() < TOLERANCE {
                break;
            }
        }
        Self::new(alpha)
    }

    /// The concentrations α, one per class, all positive.
    pub fn alpha(&self) -> &[f64] {
        &self.alpha
    }

    /// Σ (αⱼ − 1) ln pⱼ of a vector given as logarithms: the log-density without its constant, GeoTrans'
    /// normality score.
    ///
    /// # Errors
    /// As [`SimplexStatistics::push`].
    pub fn normality(&self, log_p: &[f64]) -> Result<f64, ScorerError> {
        check(log_p, self.alpha.len(), 0)?;
        Ok(self.alpha.iter().zip(log_p).map(|(alpha, value)| (alpha - 1.0) * value).sum())
    }

    /// The logarithm of the probability density on the simplex of a vector given as logarithms.
    ///
    /// # Errors
    /// As [`SimplexStatistics::push`].
    pub fn log_density(&self, log_p: &[f64]) -> Result<f64, ScorerError> {
        Ok(self.log_constant + self.normality(log_p)?)
    }
}

/// The moment-like start: the mean vector times a concentration (Minka, equation 21, solved for equal digammas).
fn start(mean: impl Iterator<Item = f64> + Clone, mean_log: &[f64]) -> Vec<f64> {
    let classes = mean_log.len() as f64;
    // The mean of vectors without zeros has no zero, except by underflow.
    let mean = mean.map(|p| p.max(f64::MIN_POSITIVE));
    let spread: f64 = mean.clone().zip(mean_log).map(|(p, log)| p * (p.ln() - log)).sum();
    let sum = ((classes - 1.0) * -digamma(1.0) / spread.max(f64::MIN_POSITIVE)).min(MAX_CONCENTRATION);
    mean.map(|p| (p * sum).max(MIN_ALPHA)).collect()
}

fn check(log_p: &[f64], classes: usize, row: usize) -> Result<(), ScorerError> {
    if log_p.len() != classes {
        return Err(ScorerError::Dimension { expected: classes, got: log_p.len() });
    }
    match log_p.iter().position(|value| !value.is_finite()) {
        Some(column) => Err(ScorerError::NonFiniteFeature { row, column }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(rows: &[Vec<f64>]) -> SimplexStatistics {
        let mut statistics = SimplexStatistics::new(rows[0].len());
        for row in rows {
            statistics.push(&row.iter().map(|p| p.ln()).collect::<Vec<_>>()).unwrap();
        }
        statistics
    }

    #[test]
    fn vectors_that_are_all_equal_give_the_largest_concentration_at_their_place() {
        let fitted = Dirichlet::fit(&statistics(&vec![vec![0.7, 0.2, 0.1]; 5])).unwrap();
        let sum: f64 = fitted.alpha().iter().sum();
        assert!((sum / MAX_CONCENTRATION - 1.0).abs() < 1e-6, "{sum}");
        assert!((fitted.alpha()[0] / sum - 0.7).abs() < 1e-6);
    }

    #[test]
    fn probabilities_that_hardly_are_above_zero_give_finite_numbers() {
        let mut statistics = SimplexStatistics::new(3);
        statistics.push(&[-1e-9, -700.0, -21.0]).unwrap();
        statistics.push(&[-2e-9, -650.0, -20.0]).unwrap();
        let fitted = Dirichlet::fit(&statistics).unwrap();
        assert!(fitted.alpha().iter().all(|value| value.is_finite() && *value > 0.0), "{fitted:?}");
        let near = fitted.log_density(&[-1e-9, -700.0, -21.0]).unwrap();
        let far = fitted.log_density(&[-5.0, -0.01, -6.0]).unwrap();
        assert!(near.is_finite() && far < near, "{near} {far}");
    }

    #[test]
    fn what_is_no_logarithm_of_a_probability_is_refused() {
        let mut statistics = SimplexStatistics::new(2);
        assert!(statistics.push(&[f64::NEG_INFINITY, 0.0]).is_err());
        assert!(statistics.push(&[-1.0]).is_err());
        assert!(Dirichlet::fit(&statistics).is_err());
        assert!(Dirichlet::new(vec![1.0, 0.0]).is_err());
        assert!(Dirichlet::new(vec![1.0, f64::NAN]).is_err());
    }
}
