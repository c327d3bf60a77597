//! The distance from a Gaussian: full, diagonal or identity covariance.
//!
//! # What it computes
//! `sqrt((x - m)ᵀ C⁻¹ (x - m))` for the mean `m` of the rows and an estimate `C` of their covariance. With the
//! full covariance this is the Mahalanobis distance, with its diagonal the standardized Euclidean distance (SED), with
//! the identity the L2 distance from the mean.
//!
//! The log-likelihood is that of the Gaussian with this mean and covariance, `-(d ln 2π + ln det C + distance²) / 2`;
//! for `identity`, of the Gaussian with variance 1 in every direction.
//!
//! # When to use
//! On features of a pretrained network, pooled over an image: a Gaussian for each level and the sum of the distances is
//! the MVG method. `ledoit-wolf` is right there, where rows are fewer than columns. `empirical` needs many more rows
//! than columns and fails where the covariance is singular.
//!
//! # Parameters
//! `covariance`: see [`GaussianOptions`].
//!
//! # Reference
//! Rippel, Mertens and Merhof, *Modeling the distribution of normal data in pre-trained deep features for anomaly
//! detection* (2020), section III; Ledoit and Wolf, *A well-conditioned estimator for large-dimensional covariance
//! matrices* (2004).

use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Mat, MatRef, Par};
use ndarray::ArrayView2;
use nomaly_settings::Settings;

use super::statistics::{GaussianStatistics, pack_lower, read_lower};
use crate::choice::named_choice;
use crate::entry::ScorerParams;
use crate::linalg::{self, column_norms};
use crate::scorer::{Scorer, State, Tensor, check_rows};
use crate::{ScorerError, Watch};

named_choice! {
    /// How the covariance is estimated. All estimates divide by the number of rows (maximum likelihood).
    Covariance {
        /// The empirical covariance shrunk towards a multiple of the identity; see
        /// [`GaussianStatistics::shrinkage`]. Needs at least 2 rows that differ, in practice 3.
        LedoitWolf = "ledoit-wolf",
        /// The covariance of the rows as it is. Needs more rows than columns and no column that follows from others.
        Empirical = "empirical",
        /// The variances alone. A column that is constant in all rows (to a relative 1e-12) is given a millionth of the
        /// mean variance, so that leaving that constant counts, but does not by itself decide.
        Diagonal = "diagonal",
        /// No covariance: the L2 distance from the mean.
        Identity = "identity",
    }
}

/// The settings of a [`Gaussian`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct GaussianOptions {
    /// How the covariance is estimated.
    pub covariance: Covariance,
}

impl Default for GaussianOptions {
    /// The estimate for few rows in many columns.
    fn default() -> Self {
        Self { covariance: Covariance::LedoitWolf }
    }
}

impl Settings for GaussianOptions {}

impl ScorerParams for GaussianOptions {
    const NAME: &'static str = "gaussian";
    const SUMMARY: &'static str = "distance from a Gaussian: Mahalanobis, standardised Euclidean or L2";
    type Fitted = Gaussian;

    fn fit(&self, rows: ArrayView2<'_, f32>, _: Watch<'_>) -> Result<Gaussian, ScorerError> {
        Gaussian::fit(rows, self.covariance)
    }

    fn restore(state: &State) -> Result<Gaussian, ScorerError> {
        Gaussian::from_state(state)
    }
}

/// Standard deviations below this share of the mean are rounding of a constant column.
const CONSTANT: f64 = 1e-12;

/// The share of the mean variance that a constant column is given.
const CONSTANT_SHARE: f64 = 1e-6;

/// A fitted Gaussian.
///
/// Fitting takes `n dim² + dim³ / 3` multiplications, scoring `dim² / 2` for each row.
#[derive(Clone, Debug)]
pub struct Gaussian {
    covariance: Covariance,
    rows: u64,
    shrinkage: f64,
    mean: Vec<f64>,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// The Cholesky factor of the covariance, lower triangle.
    Full(Mat<f64>),
    /// The variances.
    Diagonal(Vec<f64>),
    Identity,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    covariance: Covariance,
    rows: u64,
    shrinkage: f64,
}

impl Gaussian {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// As [`from_statistics`](Self::from_statistics), and [`ScorerError::NonFiniteFeature`].
    pub fn fit(rows: ArrayView2<'_, f32>, covariance: Covariance) -> Result<Self, ScorerError> {
        Self::from_statistics(&GaussianStatistics::from_rows(rows)?, covariance)
    }

    /// Fits on statistics, which may be merged from parts.
    ///
    /// # Errors
    /// [`ScorerError::TooFewRows`] below 2 rows (1 for the identity), [`ScorerError::ConstantRows`],
    /// [`ScorerError::SingularCovariance`].
    pub fn from_statistics(statistics: &GaussianStatistics, covariance: Covariance) -> Result<Self, ScorerError> {
        let needed = if covariance == Covariance::Identity { 1 } else { 2 };
        let rows = statistics.count();
        if rows < needed as u64 {
            return Err(ScorerError::TooFewRows { what: "a Gaussian", needed, got: rows as usize });
        }
        let mut shrinkage = 0.0;
        let form = match covariance {
            Covariance::Identity => Form::Identity,
            Covariance::Diagonal => Form::Diagonal(variances(statistics)?),
            Covariance::Empirical | Covariance::LedoitWolf => {
                if variances(statistics).is_err() {
                    return Err(ScorerError::ConstantRows { rows });
                }
                if covariance == Covariance::LedoitWolf {
                    shrinkage = statistics.shrinkage();
                }
                Form::Full(factor(statistics, covariance, shrinkage)?)
            }
        };
        Ok(Self { covariance, rows, shrinkage, mean: statistics.mean().to_vec(), form })
    }

    /// How the covariance was estimated.
    pub fn covariance(&self) -> Covariance {
        self.covariance
    }

    /// The mean row `[dim]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The number of rows of the fit.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The Ledoit–Wolf shrinkage in `[0, 1]`; 0 for the other estimates.
    pub fn shrinkage(&self) -> f64 {
        self.shrinkage
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { covariance, rows, shrinkage } = state.read_config()?;
        if !(0.0..=1.0).contains(&shrinkage) {
            return Err(state.config_error(format!("shrinkage is {shrinkage}, expected 0 to 1")));
        }
        let [dim] = state.shape("mean")?;
        let mean = state.read_f64("mean", [dim])?.to_vec();
        let form = match covariance {
            Covariance::Identity => {
                state.expect_only(&["mean"])?;
                Form::Identity
            }
            Covariance::Diagonal => {
                state.expect_only(&["mean", "variance"])?;
                let variance = state.read_f64("variance", [dim])?;
                if let Some(at) = variance.iter().position(|variance| *variance <= 0.0) {
                    return Err(state.tensor_error("variance", format!("number {at} is not positive")));
                }
                Form::Diagonal(variance.to_vec())
            }
            Covariance::LedoitWolf | Covariance::Empirical => {
                state.expect_only(&["factor", "mean"])?;
                let lower = read_lower(state, "factor", dim)?;
                if let Some(at) = (0..dim).find(|at| lower[at * dim + at] <= 0.0) {
                    return Err(state.tensor_error("factor", format!("diagonal element {at} is not positive")));
                }
                Form::Full(MatRef::from_column_major_slice(&lower, dim, dim).to_owned())
            }
        };
        Ok(Self { covariance, rows, shrinkage, mean, form })
    }
}

impl Scorer for Gaussian {
    fn dim(&self) -> usize {
        self.mean.len()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        Ok(linalg::score_chunks(rows, &self.mean, |mut columns| match &self.form {
            Form::Full(factor) => {
                solve_lower_triangular_in_place(factor.as_ref(), columns.as_mut(), Par::Seq);
                column_norms(columns.as_ref(), |_| 1.0)
            }
            Form::Diagonal(variance) => column_norms(columns.as_ref(), |i| 1.0 / variance[i]),
            Form::Identity => column_norms(columns.as_ref(), |_| 1.0),
        }))
    }

    fn log_likelihood(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        let log_root_determinant = match &self.form {
            Form::Full(factor) => (0..self.dim()).map(|at| factor[(at, at)].ln()).sum(),
            Form::Diagonal(variance) => 0.5 * variance.iter().map(|variance| variance.ln()).sum::<f64>(),
            Form::Identity => 0.0,
        };
        Ok(log_densities(self.score(rows)?, self.dim(), log_root_determinant))
    }

    fn state(&self) -> State {
        let dim = self.dim();
        let config = Config { covariance: self.covariance, rows: self.rows, shrinkage: self.shrinkage };
        let mut state = State::new(GaussianOptions::NAME, &config, [("mean", Tensor::f64([dim], self.mean.clone()))]);
        let form = match &self.form {
            Form::Full(factor) => {
                let columns: Vec<Vec<f64>> = (0..dim).map(|j| (j..dim).map(|i| factor[(i, j)]).collect()).collect();
                let packed = pack_lower(dim, |column| &columns[column]);
                Some(("factor", Tensor::f64([packed.len()], packed)))
            }
            Form::Diagonal(variance) => Some(("variance", Tensor::f64([dim], variance.clone()))),
            Form::Identity => None,
        };
        state.tensors.extend(form.map(|(name, tensor)| (name.to_owned(), tensor)));
        state
    }
}

/// The logarithms of a Gaussian's density at Mahalanobis distances in `dim` dimensions, given half the logarithm of the
/// determinant of its covariance.
pub(super) fn log_densities(distances: Vec<f64>, dim: usize, log_root_determinant: f64) -> Vec<f64> {
    let largest = -0.5 * dim as f64 * (2.0 * std::f64::consts::PI).ln() - log_root_determinant;
    distances.into_iter().map(|distance| largest - 0.5 * distance * distance).collect()
}

/// The variance of each column, with a floor for constant ones.
fn variances(statistics: &GaussianStatistics) -> Result<Vec<f64>, ScorerError> {
    let count = statistics.count() as f64;
    let dim = statistics.dim();
    let is_constant = |at: usize, variance: f64| variance.sqrt() <= CONSTANT * statistics.mean()[at].abs();
    let mut variance: Vec<f64> = (0..dim).map(|at| statistics.scatter(at, at) / count).collect();
    if (0..dim).all(|at| is_constant(at, variance[at])) {
        return Err(ScorerError::ConstantRows { rows: statistics.count() });
    }
    let floor = CONSTANT_SHARE * variance.iter().sum::<f64>() / dim as f64;
    for (at, variance) in variance.iter_mut().enumerate() {
        if is_constant(at, *variance) {
            *variance = floor;
        }
    }
    Ok(variance)
}

/// The Cholesky factor of the estimated covariance.
fn factor(statistics: &GaussianStatistics, covariance: Covariance, shrinkage: f64) -> Result<Mat<f64>, ScorerError> {
    let (rows, dim) = (statistics.count(), statistics.dim());
    let singular = || {
        let (estimate, advice) = match covariance {
            Covariance::LedoitWolf => ("Ledoit-Wolf", format!(" (shrinkage {shrinkage}); use more rows")),
            _ => ("empirical", "; use covariance `ledoit-wolf` or `diagonal`, or more rows".to_owned()),
        };
        ScorerError::SingularCovariance { estimate, rows, dim, advice }
    };
    // Centering removes one dimension from the rows.
    if shrinkage == 0.0 && rows <= dim as u64 {
        return Err(singular());
    }
    let mut matrix = MatRef::from_column_major_slice(statistics.lower(), dim, dim).to_owned();
    let scale = (1.0 - shrinkage) / rows as f64;
    let ridge = shrinkage * statistics.trace() / rows as f64 / dim as f64;
    for column in 0..dim {
        for row in column..dim {
            matrix[(row, column)] *= scale;
        }
        matrix[(column, column)] += ridge;
    }
    linalg::cholesky(matrix).ok_or_else(singular)
}
