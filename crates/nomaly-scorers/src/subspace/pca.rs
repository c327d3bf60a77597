//! The distance from the principal subspace, or the projection on the last components.
//!
//! # What it computes
//! The principal components of the rows are the eigenvectors of their covariance, in descending order of the
//! eigenvalues `λ`. The first `m` span the subspace of normal rows. With `y` for a row less the mean and `P` `[dim,
//! m]` for these components the score is one of
//!
//! * `reconstruction`: `‖y - P Pᵀ y‖`, the distance from the subspace (the root of the statistic *Q* or *SPE* of
//!   process monitoring);
//! * `last-components`: `sqrt(Σ z_i² / λ_i)` over the components `i > m` of numerical rank, with `z_i` for the
//!   projection: the part outside the subspace, each direction measured by its own spread.
//!
//! Variances have the divisor `n - 1`. With more rows than columns the components come from the scatter matrix, which
//! is summed in blocks; a singular value below about `1e-7` of the largest cannot be told from zero then. Otherwise
//! they come from a singular value decomposition of the rows. Distances to the mean *within* the subspace (Hotelling's
//! *T²*) are what `gaussian-pca` with `keep=leading` and `covariance=empirical` scores.
//!
//! # When to use
//! Rows with correlated columns: patches of a texture, sensors of a process, features with many more columns than
//! degrees of freedom. `reconstruction` also detects a change in a column that was constant; `last-components` detects
//! small deviations in directions in which normal rows hardly vary, and ignores directions in which they do not vary at
//! all.
//!
//! # Parameters
//! `components`, `score` and `standardize`: see [`PcaMonitorOptions`].
//!
//! # Reference
//! Jackson and Mudholkar, *Control procedures for residuals associated with principal component analysis* (1979), for
//! the residual; Shyu, Chen, Sarinnapakorn and Chang, *A novel anomaly detection scheme based on principal component
//! classifier* (2003), for the last components.

use ndarray::ArrayView2;
use nomaly_settings::Settings;

use super::{Affine, Basis, KeptComponents, components};
use crate::choice::named_choice;
use crate::entry::{ScorerParams, check_settings};
use crate::linalg::{self, Centered};
use crate::scorer::{Scorer, State, check_finite};
use crate::{ScorerError, Watch, moments};

named_choice! {
    /// The monitored part of a row.
    Monitored {
        /// The distance from the subspace.
        Reconstruction = "reconstruction",
        /// The projection on the components left out, each divided by its standard deviation.
        LastComponents = "last-components",
    }
}

/// The settings of a [`PcaMonitor`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct PcaMonitorOptions {
    /// The leading components that make up the subspace of normal rows: their number, below that of the columns, or the
    /// share of the variance that they explain.
    pub components: KeptComponents,
    /// The distance from the subspace, or the whitened projection on the components left out.
    pub score: Monitored,
    /// Whether columns are divided by their standard deviations first.
    ///
    /// The deviations have the divisor `n`. A column that is constant in all rows (to a relative 1e-12) is not divided.
    #[schemars(extend("x-formerly" = ["standardise"]))]
    pub standardize: bool,
}

impl Default for PcaMonitorOptions {
    /// The distance from the subspace that explains 95 % of the variance, of columns as they are.
    fn default() -> Self {
        Self { components: KeptComponents::Share(0.95), score: Monitored::Reconstruction, standardize: false }
    }
}

impl Settings for PcaMonitorOptions {}

impl ScorerParams for PcaMonitorOptions {
    const NAME: &'static str = "pca";
    const SUMMARY: &'static str =
        "distance from the subspace of the leading principal components, or projection on the last ones";
    type Fitted = PcaMonitor;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<PcaMonitor, ScorerError> {
        PcaMonitor::fit(rows, *self, watch)
    }

    fn restore(state: &State) -> Result<PcaMonitor, ScorerError> {
        PcaMonitor::from_state(state)
    }
}

/// Standard deviations below this share of the mean are rounding of a constant column.
const CONSTANT: f64 = 1e-12;

/// Principal components that are monitored.
///
/// Fitting takes `n dim² + 9 dim³` multiplications where rows are more than columns, scoring at most `2 m dim` per
/// row.
#[derive(Clone, Debug)]
pub struct PcaMonitor {
    options: PcaMonitorOptions,
    /// The number of kept components.
    kept: usize,
    affine: Affine,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    basis: Basis,
    #[serde(with = "components::Stored")]
    components: KeptComponents,
    kept: usize,
    score: Monitored,
    #[serde(rename = "standardise")]
    standardize: bool,
}

/// Principal components in descending order of variance, up to the numerical rank, followed by all further directions
/// if known.
pub(super) struct Principal {
    pub(super) variances: Vec<f64>,
    pub(super) directions: faer::Mat<f64>,
}

impl PcaMonitor {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for components out of range, [`ScorerError::TooFewRows`] below 2 rows,
    /// [`ScorerError::ConstantRows`], [`ScorerError::NoColumns`], [`ScorerError::NonFiniteFeature`],
    /// [`ScorerError::NoConvergence`], [`ScorerError::Cancelled`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: PcaMonitorOptions, watch: Watch<'_>) -> Result<Self, ScorerError> {
        check_finite(rows)?;
        let dim = rows.ncols();
        check_settings(&options)?;
        options.components.check_at_most(dim - 1)?;
        let (center, scale, Principal { variances, directions }) = decompose(rows, options.standardize, watch)?;
        let rank = variances.len();
        // At least one direction must be left out; for the last components, one in which the rows vary.
        let most = if options.score == Monitored::LastComponents { rank - 1 } else { dim - 1 };
        options.components.check_at_most(most)?;
        let kept = options.components.of(&variances).min(most);
        let affine = match options.score {
            Monitored::Reconstruction => Affine { scale, ..Affine::of_leading(center, directions.as_ref(), kept) },
            Monitored::LastComponents => Affine {
                center,
                scale,
                basis: Basis::LeftOut,
                directions: directions.subcols(kept, rank - kept).to_owned(),
                variances: Some(variances[kept..].to_vec()),
            },
        };
        Ok(Self { options, kept, affine })
    }

    /// The settings.
    pub fn options(&self) -> PcaMonitorOptions {
        self.options
    }

    /// The number of leading components that make up the subspace; 0 for rows of a single column.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// The mean row `[dim]`.
    pub fn mean(&self) -> &[f64] {
        &self.affine.center
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { basis, components, kept, score, standardize } = state.read_config()?;
        let options = PcaMonitorOptions { components, score, standardize };
        check_settings(&options).map_err(|error| state.config_error(error.to_string()))?;
        let last = score == Monitored::LastComponents;
        if last && basis == Basis::Kept {
            return Err(state.config_error("the last components are none of those kept".to_owned()));
        }
        let affine = Affine::from_state(state, basis, standardize, last)?;
        let (dim, stored) = affine.directions.shape();
        let fits = match (basis, last) {
            (Basis::Kept, _) => stored == kept && kept < dim,
            (Basis::LeftOut, false) => kept < dim && stored == dim - kept,
            (Basis::LeftOut, true) => kept < dim && stored <= dim - kept,
        };
        if !fits {
            let reason = format!("{stored} directions in {dim} dimensions with {kept} components kept");
            return Err(state.tensor_error("directions", reason));
        }
        Ok(Self { options, kept, affine })
    }
}

type Decomposition = (Vec<f64>, Option<Vec<f64>>, Principal);

/// The mean, the scales if columns are standardized, and the components of at least one row.
pub(super) fn decompose(
    rows: ArrayView2<'_, f32>,
    standardize: bool,
    watch: Watch<'_>,
) -> Result<Decomposition, ScorerError> {
    let (count, dim) = rows.dim();
    if count < 2 {
        return Err(ScorerError::TooFewRows { what: "principal components", needed: 2, got: count });
    }
    watch.check()?;
    let found = if count > dim { from_scatter(rows, standardize, watch)? } else { from_rows(rows, standardize)? };
    if found.2.variances.is_empty() {
        return Err(ScorerError::ConstantRows { rows: count as u64 });
    }
    Ok(found)
}

/// The components from the eigenvectors of the scatter matrix, all `dim` of them.
fn from_scatter(rows: ArrayView2<'_, f32>, standardize: bool, watch: Watch<'_>) -> Result<Decomposition, ScorerError> {
    let (count, dim) = rows.dim();
    let mean = moments::mean(rows);
    let mut scatter = moments::scatter(rows, &mean, watch)?;
    let scale = standardize.then(|| scales(&mean, |at| scatter[(at, at)] / count as f64));
    if let Some(scale) = &scale {
        for column in 0..dim {
            for row in column..dim {
                scatter[(row, column)] /= scale[row] * scale[column];
            }
        }
    }
    let eigen = linalg::symmetric_eigen(scatter.as_ref()).ok_or(ScorerError::NoConvergence { rows: count, dim })?;
    watch.check()?;
    // Values below the first bound are rounding of the sums and the decomposition, those below the second rounding of
    // the mean.
    let of_sums = eigen.values[0] * (dim + 64) as f64 * f64::EPSILON;
    let of_mean = count as f64 * (largest(rows, &scale) * f64::EPSILON).powi(2);
    let rank = eigen.values.iter().take_while(|value| **value > of_sums.max(of_mean)).count();
    let variances = eigen.values[..rank].iter().map(|value| value / (count - 1) as f64).collect();
    Ok((mean, scale, Principal { variances, directions: eigen.vectors }))
}

/// The components from a singular value decomposition, at most one less than rows.
fn from_rows(rows: ArrayView2<'_, f32>, standardize: bool) -> Result<Decomposition, ScorerError> {
    let (count, dim) = rows.dim();
    let Centered { mean, rows: mut centered } = linalg::center(rows);
    let variance = |at: usize| centered.iter().skip(at).step_by(dim).map(|value| value * value).sum::<f64>();
    let scale = standardize.then(|| scales(&mean, |at| variance(at) / count as f64));
    if let Some(scale) = &scale {
        for row in centered.chunks_exact_mut(dim) {
            row.iter_mut().zip(scale).for_each(|(value, scale)| *value /= scale);
        }
    }
    let svd = linalg::thin_svd(&centered, dim).ok_or(ScorerError::NoConvergence { rows: count, dim })?;
    let size = dim as f64;
    let rounding = (svd.values[0] * size).max(largest(rows, &scale) * size.sqrt()) * f64::EPSILON;
    let rank = svd.values.iter().take(count - 1).take_while(|value| **value > rounding).count();
    let variances = svd.values[..rank].iter().map(|value| value * value / (count - 1) as f64).collect();
    Ok((mean, scale, Principal { variances, directions: svd.right.subcols(0, rank).to_owned() }))
}

/// The standard deviations, and 1 for constant columns.
fn scales(mean: &[f64], variance: impl Fn(usize) -> f64) -> Vec<f64> {
    let scale = |(at, mean): (usize, &f64)| {
        let deviation = variance(at).max(0.0).sqrt();
        if deviation > CONSTANT * mean.abs() { deviation } else { 1.0 }
    };
    mean.iter().enumerate().map(scale).collect()
}

/// The largest number of the rows, in units of the scales.
fn largest(rows: ArrayView2<'_, f32>, scale: &Option<Vec<f64>>) -> f64 {
    let largest = |of: ArrayView2<'_, f32>| of.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    match scale {
        None => f64::from(largest(rows)),
        Some(scale) => {
            let columns = rows.axis_chunks_iter(ndarray::Axis(1), 1).zip(scale);
            columns.fold(0.0, |all, (column, scale)| f64::max(all, f64::from(largest(column)) / scale))
        }
    }
}

impl Scorer for PcaMonitor {
    fn dim(&self) -> usize {
        self.affine.dim()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        self.affine.distances(rows)
    }

    fn state(&self) -> State {
        let PcaMonitorOptions { components, score, standardize } = self.options;
        let config = Config { basis: self.affine.basis, components, kept: self.kept, score, standardize };
        State::with_tensors(PcaMonitorOptions::NAME, &config, self.affine.tensors())
    }
}
