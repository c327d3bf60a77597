//! Mixtures of Gaussians, fitted by expectation–maximization (EM).
//!
//! # What it computes
//! A density `p(x) = Σ w_k N(x; m_k, C_k)`. EM raises the likelihood of the rows step by step: it computes the
//! responsibility of each component for each row, `w_k N(x; m_k, C_k) / p(x)`, then the weighted mean and covariance of
//! the rows for each component. It starts from the groups of k-means (greedy k-means++, then Lloyd's iteration), as
//! scikit-learn does by default, and ends once the mean log-likelihood of a row changes by less than `tolerance`. The
//! score of a row is `-ln p(x)`, taken by log-sum-exp, so it stays finite at any distance.
//!
//! `floor` times the mean variance of the columns is added to every variance (scikit-learn's `reg_covar` is an absolute
//! number; a share makes the fit the same in any unit).
//!
//! With `components = auto` the number from 1 to 8 with the smallest Bayesian information criterion `p ln n - 2 ln L`
//! is taken, where `p` is the number of free parameters. Components that have no more rows than dimensions reach any
//! likelihood that the floor allows, so no more are tried than leave each of them, on average, `dim + 1` rows (`full`)
//! or 2 rows (the others). Where the rows have fewer distinct values than components are asked for, there are as many
//! components as distinct values.
//!
//! # When to use
//! Where normal items come in several kinds, each with its own spread: several products, poses or lighting conditions.
//! `full` needs a few times `dim` rows for each component. With fewer, take `diagonal`, or reduce the columns first; or
//! raise `floor`: the fit is well-posed for any positive floor, but in directions without rows only the floor counts.
//!
//! # Parameters
//! `components`, `covariance`, `floor`, `max_iterations`, `seed`, `starts` and `tolerance`: see [`MixtureOptions`].
//!
//! # Reference
//! Dempster, Laird and Rubin, *Maximum likelihood from incomplete data via the EM algorithm* (1977); Bishop, *Pattern
//! recognition and machine learning* (2006), section 9.2; Schwarz, *Estimating the dimension of a model* (1978), for
//! BIC.

mod covariances;
mod density;
mod fit;
mod moments;
mod options;

use ndarray::{Array2, ArrayView2};
use nomaly_settings::SettingError;
use rayon::prelude::*;

pub use covariances::{Covariances, MixtureCovariance};
use density::{BLOCK, Density, Scratch, normalize};
pub use fit::MixtureStart;
pub use options::MixtureOptions;

use crate::ScorerError;
use crate::blocks::BlockRows;
use crate::entry::ScorerParams;
use crate::scorer::{Scorer, State, Tensor, check_rows};

/// The tolerance for the sum of the weights.
const ROUNDING: f64 = 1e-9;

/// A mixture of Gaussians.
///
/// A step of EM and an evaluation take `n k dim²` multiplications each for `full`, `n dim²` for `tied`, and `n k dim`
/// for the others.
pub struct Mixture {
    weights: Vec<f64>,
    /// `[k, dim]`.
    means: Array2<f64>,
    covariances: Covariances,
    /// The mean over the rows of the fit.
    log_likelihood: f64,
    iterations: u64,
    converged: bool,
    density: Density,
}

impl std::fmt::Debug for Mixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mixture")
            .field("weights", &self.weights)
            .field("dim", &self.dim())
            .field("covariance", &self.covariances.covariance())
            .finish_non_exhaustive()
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    converged: bool,
    covariance: MixtureCovariance,
    iterations: u64,
}

impl Mixture {
    /// A mixture of known parameters: `weights` `[k]`, positive with the sum 1, and `means` `[k, dim]`.
    ///
    /// It can score, and serve as a start of [`fit_from`](Self::fit_from).
    ///
    /// # Errors
    /// [`ScorerError::Setting`] where shapes disagree or a number is out of range, [`ScorerError::Numerical`] where a
    /// covariance is not positive definite.
    pub fn from_parameters(
        weights: Vec<f64>,
        means: Array2<f64>,
        covariances: Covariances,
    ) -> Result<Self, ScorerError> {
        let (k, dim) = means.dim();
        if dim == 0 {
            return Err(ScorerError::NoColumns);
        }
        if means.iter().any(|mean| !mean.is_finite()) {
            return Err(SettingError::value("means", "not finite", "finite numbers").into());
        }
        let sum: f64 = weights.iter().sum();
        let positive = weights.iter().all(|weight| *weight > 0.0) && (sum - 1.0).abs() <= ROUNDING;
        if k == 0 || weights.len() != k || !positive {
            let expected = format!("{} positive numbers with the sum 1", k.max(1));
            return Err(SettingError::value("weights", format!("{weights:?}"), &expected).into());
        }
        covariances.check(k, dim)?;
        Self::new(weights, means, covariances)
    }

    fn new(weights: Vec<f64>, means: Array2<f64>, covariances: Covariances) -> Result<Self, ScorerError> {
        let k = means.nrows() as f64;
        let center = means.columns().into_iter().map(|column| column.sum() / k).collect();
        let density = Density::new(&weights, &means, &covariances, center)?;
        Ok(Self { weights, means, covariances, log_likelihood: 0.0, iterations: 0, converged: false, density })
    }

    /// The number of components.
    pub fn components(&self) -> usize {
        self.weights.len()
    }

    /// The share of each component `[k]`.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// The mean of each component `[k, dim]`.
    pub fn means(&self) -> &Array2<f64> {
        &self.means
    }

    /// The covariances, floor included.
    pub fn covariances(&self) -> &Covariances {
        &self.covariances
    }

    /// The mean log-likelihood of the rows of the fit; 0 where there was no fit.
    pub fn mean_log_likelihood(&self) -> f64 {
        self.log_likelihood
    }

    /// The number of steps of EM.
    pub fn iterations(&self) -> u64 {
        self.iterations
    }

    /// Whether EM ended because the likelihood converged, not because of the limit on steps.
    pub fn converged(&self) -> bool {
        self.converged
    }

    /// The number of free parameters: of weights, means and covariances.
    pub fn free_parameters(&self) -> usize {
        self.components() - 1 + self.means.len() + self.covariances.parameters()
    }

    /// The Bayesian information criterion on the rows `[n, dim]`; the smaller, the better.
    ///
    /// # Errors
    /// As [`log_likelihood`](Scorer::log_likelihood).
    pub fn bic(&self, rows: ArrayView2<'_, f32>) -> Result<f64, ScorerError> {
        let log_likelihood: f64 = self.log_likelihood(rows)?.iter().sum();
        Ok(bic(self.free_parameters(), rows.nrows(), log_likelihood))
    }

    /// Akaike's information criterion on the rows `[n, dim]`; the smaller, the better.
    ///
    /// # Errors
    /// As [`log_likelihood`](Scorer::log_likelihood).
    pub fn aic(&self, rows: ArrayView2<'_, f32>) -> Result<f64, ScorerError> {
        let log_likelihood: f64 = self.log_likelihood(rows)?.iter().sum();
        Ok(2.0 * self.free_parameters() as f64 - 2.0 * log_likelihood)
    }

    /// The share `[n, k]` that each component has in the density at each of the rows `[n, dim]`; each row sums up to 1.
    ///
    /// # Errors
    /// [`ScorerError::Dimension`] and [`ScorerError::NonFiniteFeature`].
    pub fn responsibilities(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f64>, ScorerError> {
        let k = self.components();
        let mut shares = Array2::zeros((rows.nrows(), k));
        let found = self.evaluate(rows, |logs| {
            normalize(logs);
            logs.to_vec()
        })?;
        for (mut target, found) in shares.outer_iter_mut().zip(found) {
            target.iter_mut().zip(found).for_each(|(target, share)| *target = share);
        }
        Ok(shares)
    }

    /// Applies `of_row` to the weighted log-densities of each row.
    fn evaluate<T: Send + Clone + Default>(
        &self,
        rows: ArrayView2<'_, f32>,
        of_row: impl Fn(&mut [f64]) -> T + Sync,
    ) -> Result<Vec<T>, ScorerError> {
        check_rows(rows, self.dim())?;
        let (k, dim) = (self.components(), self.dim());
        let rows = BlockRows::new(rows, self.density.center.clone());
        let mut results = vec![T::default(); rows.len()];
        let memory = || (vec![0.0; BLOCK * dim], vec![0.0; BLOCK * k], Scratch::default());
        results.par_chunks_mut(BLOCK).enumerate().for_each_init(memory, |(block, logs, scratch), (at, results)| {
            rows.load(at * BLOCK, block);
            self.density.weighted_logs(block, scratch, logs);
            results.iter_mut().zip(logs.chunks_exact_mut(k)).for_each(|(result, logs)| *result = of_row(logs));
        });
        Ok(results)
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { converged, covariance, iterations } = state.read_config()?;
        state.expect_only(&["covariance", "log_likelihood", "means", "weights"])?;
        let [k, dim] = state.shape("means")?;
        let means = state.read_f64("means", [k, dim])?;
        let means = Array2::from_shape_fn((k, dim), |(component, column)| means[component * dim + column]);
        let weights = state.read_f64("weights", [k])?.to_vec();
        let covariances = Covariances::read(state, "covariance", covariance, k, dim)?;
        let log_likelihood = state.read_f64("log_likelihood", [1])?[0];
        let restored = Self::from_parameters(weights, means, covariances);
        let restored = restored.map_err(|error| state.config_error(error.to_string()))?;
        Ok(Self { log_likelihood, iterations, converged, ..restored })
    }
}

fn bic(parameters: usize, rows: usize, log_likelihood: f64) -> f64 {
    parameters as f64 * (rows as f64).ln() - 2.0 * log_likelihood
}

impl Scorer for Mixture {
    fn dim(&self) -> usize {
        self.means.ncols()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        self.evaluate(rows, |logs| -normalize(logs))
    }

    fn log_likelihood(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        self.evaluate(rows, normalize)
    }

    fn state(&self) -> State {
        let config = Config {
            converged: self.converged,
            covariance: self.covariances.covariance(),
            iterations: self.iterations,
        };
        State::new(
            MixtureOptions::NAME,
            &config,
            [
                ("covariance", self.covariances.tensor()),
                ("log_likelihood", Tensor::f64([1], vec![self.log_likelihood])),
                ("means", Tensor::f64(self.means.shape(), self.means.iter().copied().collect())),
                ("weights", Tensor::f64([self.components()], self.weights.clone())),
            ],
        )
    }
}
