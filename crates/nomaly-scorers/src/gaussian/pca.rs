//! The Mahalanobis distance in a subspace of principal components.
//!
//! # What it computes
//! The rows are projected on some of the principal components of their empirical covariance, and a Gaussian is fitted
//! to the projections. The components are uncorrelated over the rows, so its covariance is diagonal:
//! `(1 - δ) λ_i + δ mean(λ)` with the eigenvalues `λ` kept and the shrinkage `δ` that Ledoit–Wolf finds *on the
//! projections* (0 for `empirical`). The score is the square root of `Σ z_i² / variance_i`.
//!
//! With the components in descending order of variance and `i` the first whose cumulated share of the variance exceeds
//! `variance`: `leading` keeps the components up to and with `i` (PCA), `trailing` keeps them from `i - 1` on (NPCA).
//! The true border lies between `i - 1` and `i`, and both variants include it, as the authors' implementation does.
//! Components beyond the numerical rank, which is at most the number of rows less one, are not directions of the data
//! and are never kept; the authors' implementation takes one more arbitrary direction there.
//!
//! # When to use
//! NPCA in place of the full Gaussian for subtle defects: defects show in the directions in which normal items hardly
//! vary. PCA is the control experiment and smaller.
//!
//! # Parameters
//! `keep`, `variance` and `covariance`: see [`PcaOptions`]. "NPCA 1 %", "0.1 %" and "0.01 %" are `variance` 0.99, 0.999
//! and 0.9999.
//!
//! # Reference
//! Rippel, Mertens and Merhof, *Modeling the distribution of normal data in pre-trained deep features for anomaly
//! detection* (2020), section III.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use ndarray::ArrayView2;
use nomaly_settings::Settings;

use super::scorer::log_densities;
use super::statistics::shrinkage;
use crate::choice::named_choice;
use crate::entry::{ScorerParams, check_settings};
use crate::linalg::{self, Centered, Svd, column_norms};
use crate::scorer::{Scorer, State, Tensor, check_finite, check_rows};
use crate::{ScorerError, Watch};

named_choice! {
    /// Which principal components are kept.
    Keep {
        /// Those of the largest variance (PCA).
        Leading = "leading",
        /// Those of the smallest variance (NPCA).
        Trailing = "trailing",
    }
}

named_choice! {
    /// How the variances of the kept components are estimated.
    PcaEstimator {
        /// Shrunk towards their mean.
        LedoitWolf = "ledoit-wolf",
        /// As they are.
        Empirical = "empirical",
    }
}

/// The settings of a [`PcaGaussian`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct PcaOptions {
    /// The components kept: those of the largest (PCA) or of the smallest variance (NPCA).
    pub keep: Keep,
    /// The share of the variance that the leading components explain.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub variance: f64,
    /// How the variances of the kept components are estimated.
    pub covariance: PcaEstimator,
}

impl Default for PcaOptions {
    /// NPCA 1 % with Ledoit–Wolf shrinkage.
    fn default() -> Self {
        Self { keep: Keep::Trailing, variance: 0.99, covariance: PcaEstimator::LedoitWolf }
    }
}

impl Settings for PcaOptions {}

impl ScorerParams for PcaOptions {
    const NAME: &'static str = "gaussian-pca";
    const SUMMARY: &'static str = "Mahalanobis distance on the principal components of largest or of smallest variance";
    type Fitted = PcaGaussian;

    fn fit(&self, rows: ArrayView2<'_, f32>, _: Watch<'_>) -> Result<PcaGaussian, ScorerError> {
        PcaGaussian::fit(rows, *self)
    }

    fn restore(state: &State) -> Result<PcaGaussian, ScorerError> {
        PcaGaussian::from_state(state)
    }
}

/// A Gaussian fitted in a subspace of principal components.
#[derive(Clone, Debug)]
pub struct PcaGaussian {
    options: PcaOptions,
    rows: u64,
    shrinkage: f64,
    mean: Vec<f64>,
    /// `[dim, kept]`, orthonormal columns.
    components: Mat<f64>,
    variances: Vec<f64>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    covariance: PcaEstimator,
    keep: Keep,
    rows: u64,
    shrinkage: f64,
    variance: f64,
}

impl PcaGaussian {
    /// Fits on rows `[n, dim]` by a singular value decomposition of the centered rows.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for a share outside `(0, 1)`, [`ScorerError::TooFewRows`] below 2 rows,
    /// [`ScorerError::ConstantRows`], [`ScorerError::NonFiniteFeature`], [`ScorerError::NoConvergence`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: PcaOptions) -> Result<Self, ScorerError> {
        check_settings(&options)?;
        check_finite(rows)?;
        let (count, dim) = rows.dim();
        if count < 2 {
            return Err(ScorerError::TooFewRows { what: "principal components", needed: 2, got: count });
        }
        let Centered { mean, rows: centered } = linalg::center(rows);
        let largest = rows.iter().fold(0.0f64, |largest, value| largest.max(f64::from(value.abs())));
        let Svd { left, values, right } =
            linalg::thin_svd(&centered, dim).ok_or(ScorerError::NoConvergence { rows: count, dim })?;
        // Values below the first bound are rounding of the decomposition, those below the second rounding of the
        // centering.
        let size = count.max(dim) as f64;
        let rounding = (values[0] * size).max(largest * size.sqrt()) * f64::EPSILON;
        let rank = values.iter().take(count - 1).take_while(|value| **value > rounding).count();
        if rank == 0 {
            return Err(ScorerError::ConstantRows { rows: count as u64 });
        }
        let range = kept_range(&values[..rank], options);
        let (first, kept) = (range.start, range.len());
        let kept_values = &values[range];
        let shrinkage = match options.covariance {
            PcaEstimator::Empirical => 0.0,
            PcaEstimator::LedoitWolf => projected_shrinkage(left.as_ref().subcols(first, kept), kept_values),
        };
        let variances: Vec<f64> = kept_values.iter().map(|value| value * value / count as f64).collect();
        let mean_variance = variances.iter().sum::<f64>() / kept as f64;
        let variances = variances.iter().map(|own| (1.0 - shrinkage) * own + shrinkage * mean_variance).collect();
        let components = right.as_ref().subcols(first, kept).to_owned();
        Ok(Self { options, rows: count as u64, shrinkage, mean, components, variances })
    }

    /// The settings.
    pub fn options(&self) -> PcaOptions {
        self.options
    }

    /// The mean row `[dim]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The variances of the kept components, after shrinkage, in descending order.
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    /// The Ledoit–Wolf shrinkage in `[0, 1]` on the kept components; 0 for the empirical estimate.
    pub fn shrinkage(&self) -> f64 {
        self.shrinkage
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { covariance, keep, rows, shrinkage, variance } = state.read_config()?;
        if !(0.0..=1.0).contains(&shrinkage) {
            return Err(state.config_error(format!("shrinkage is {shrinkage}, expected 0 to 1")));
        }
        let options = PcaOptions { keep, variance, covariance };
        check_settings(&options).map_err(|error| state.config_error(error.to_string()))?;
        state.expect_only(&["components", "mean", "variance"])?;
        let [dim] = state.shape("mean")?;
        let mean = state.read_f64("mean", [dim])?.to_vec();
        let [kept] = state.shape("variance")?;
        let variances = state.read_f64("variance", [kept])?.to_vec();
        if let Some(at) = variances.iter().position(|variance| *variance <= 0.0) {
            return Err(state.tensor_error("variance", format!("number {at} is not positive")));
        }
        if kept > dim {
            return Err(state.tensor_error("variance", format!("{kept} components in {dim} dimensions")));
        }
        let components = state.read_f64("components", [kept, dim])?;
        let components = MatRef::from_column_major_slice(components, dim, kept).to_owned();
        Ok(Self { options, rows, shrinkage, mean, components, variances })
    }
}

impl Scorer for PcaGaussian {
    fn dim(&self) -> usize {
        self.mean.len()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        Ok(linalg::score_chunks(rows, &self.mean, |columns| {
            let mut projected = Mat::zeros(self.variances.len(), columns.ncols());
            let components = self.components.transpose();
            matmul(projected.as_mut(), Accum::Replace, components, columns.as_ref(), 1.0, Par::Seq);
            column_norms(projected.as_ref(), |i| 1.0 / self.variances[i])
        }))
    }

    fn log_likelihood(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        let log_root_determinant = 0.5 * self.variances.iter().map(|variance| variance.ln()).sum::<f64>();
        Ok(log_densities(self.score(rows)?, self.variances.len(), log_root_determinant))
    }

    fn state(&self) -> State {
        let (dim, kept) = self.components.shape();
        let PcaOptions { keep, variance, covariance } = self.options;
        let components = (0..kept).flat_map(|j| (0..dim).map(move |i| (i, j))).map(|at| self.components[at]).collect();
        State::new(
            PcaOptions::NAME,
            &Config { covariance, keep, rows: self.rows, shrinkage: self.shrinkage, variance },
            [
                ("components", Tensor::f64([kept, dim], components)),
                ("mean", Tensor::f64([dim], self.mean.clone())),
                ("variance", Tensor::f64([kept], self.variances.clone())),
            ],
        )
    }
}

/// The components to keep, given the singular values of all.
fn kept_range(values: &[f64], options: PcaOptions) -> std::ops::Range<usize> {
    let total: f64 = values.iter().map(|value| value * value).sum();
    let mut cumulated = 0.0;
    let border = values.iter().position(|value| {
        cumulated += value * value;
        cumulated / total > options.variance
    });
    // Rounding may leave the sum slightly below the total.
    let border = border.unwrap_or(values.len() - 1);
    match options.keep {
        Keep::Leading => 0..border + 1,
        Keep::Trailing => border.saturating_sub(1)..values.len(),
    }
}

/// Ledoit–Wolf shrinkage of the rows `left · diag(values)`.
fn projected_shrinkage(left: MatRef<'_, f64>, values: &[f64]) -> f64 {
    let trace = values.iter().map(|value| value * value).sum();
    let squares = values.iter().map(|value| value.powi(4)).sum();
    let fourth = (0..left.nrows())
        .map(|row| {
            let square: f64 = values.iter().enumerate().map(|(j, value)| (left[(row, j)] * value).powi(2)).sum();
            square * square
        })
        .sum();
    shrinkage(left.nrows() as u64, values.len(), trace, squares, fourth)
}
