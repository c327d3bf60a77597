//! The distance from the subspace that contains the rows up to gross errors of single entries.
//!
//! # What it computes
//! Principal component pursuit splits the rows `D`, less the median of each column, into a part of low rank and a
//! sparse one: `min ‖L‖_* + λ‖S‖₁` subject to `L + S = D`, by the inexact augmented Lagrangian method. The
//! mean of `L` (plus the medians) and its leading principal components `P` `[dim, m]` are the subspace of normal rows.
//! With `y` for a row less that mean the score is `‖y - P Pᵀ y‖`, the distance from the subspace.
//!
//! # When to use
//! As `pca`, where the training rows are not clean: dead pixels, outliers of single sensors, some anomalies among the
//! "normal" images. A gross error moves a principal component in proportion to its size, but hardly moves this
//! subspace. All entries have the same price, so columns in different units should be standardized first. It takes
//! about 40 rounds, each at the cost of a fit of `pca`, and three copies of the rows in double precision.
//!
//! # Parameters
//! `components` and `lambda`: see [`RobustPcaOptions`].
//!
//! # Reference
//! Candès, Li, Ma and Wright, *Robust principal component analysis?* (2011), for the program and its `λ`; Lin, Chen
//! and Ma, *The augmented Lagrange multiplier method for exact recovery of corrupted low-rank matrices* (2010),
//! algorithm 5.

use faer::{Mat, MatRef};
use ndarray::ArrayView2;
use nomaly_settings::{Auto, Settings};
use rayon::prelude::*;

use super::{Affine, Basis, KeptComponents, components, pursuit};
use crate::entry::{ScorerParams, check_settings};
use crate::scorer::{Scorer, State, check_finite};
use crate::{ScorerError, Watch, linalg, moments};

/// Singular values of the low-rank part below this share of the largest are within the pursuit's tolerance.
const RANK: f64 = 1e-6;

/// The settings of a [`RobustPca`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct RobustPcaOptions {
    /// The leading directions of the part of low rank that make up the subspace of normal rows: their number, below
    /// that of the columns, or the share of its squared singular values that they explain.
    pub components: KeptComponents,
    /// Price of an entry of the sparse part; `auto`: 1 / sqrt(max(rows, columns)).
    ///
    /// The price is in that of a unit of a singular value of the part of low rank. The larger it is, the less is sparse
    /// and the nearer the subspace is to that of `pca`; `auto` recovers both parts with high probability (Candès et
    /// al. 2011, theorem 1.1).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lambda: Auto<f64>,
}

impl Default for RobustPcaOptions {
    /// The directions of 95 % of the squares, at the price of Candès et al.
    fn default() -> Self {
        Self { components: KeptComponents::Share(0.95), lambda: Auto::Auto }
    }
}

impl Settings for RobustPcaOptions {}

impl ScorerParams for RobustPcaOptions {
    const NAME: &'static str = "robust-pca";
    const SUMMARY: &'static str =
        "distance from the subspace of the rows less gross errors of single entries (principal component pursuit)";
    type Fitted = RobustPca;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<RobustPca, ScorerError> {
        RobustPca::fit(rows, *self, watch)
    }

    fn restore(state: &State) -> Result<RobustPca, ScorerError> {
        RobustPca::from_state(state)
    }
}

/// The form of `lambda` in model files.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(remote = "Auto::<f64>")]
enum StoredLambda {
    #[serde(rename = "auto")]
    Auto,
    #[serde(rename = "number")]
    Value(f64),
}

/// A subspace that gross errors of single entries of the training rows do not move.
///
/// Fitting takes about 40 rounds of `2 n m²` multiplications, where `m` is the smaller of `n` and `dim`; scoring takes
/// at most `2 kept dim` per row.
#[derive(Clone, Debug)]
pub struct RobustPca {
    options: RobustPcaOptions,
    /// The number of kept directions.
    kept: usize,
    /// The rank of the part of low rank.
    rank: usize,
    affine: Affine,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    basis: Basis,
    #[serde(with = "components::Stored")]
    components: KeptComponents,
    kept: usize,
    #[serde(with = "StoredLambda")]
    lambda: Auto<f64>,
    rank: usize,
}

impl RobustPca {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for settings out of range, [`ScorerError::TooFewRows`] below 2 rows,
    /// [`ScorerError::ConstantRows`], [`ScorerError::NoColumns`], [`ScorerError::NonFiniteFeature`],
    /// [`ScorerError::Numerical`] where nothing of low rank is left at that `lambda`, [`ScorerError::NoConvergence`],
    /// [`ScorerError::Cancelled`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: RobustPcaOptions, watch: Watch<'_>) -> Result<Self, ScorerError> {
        check_finite(rows)?;
        let (count, dim) = rows.dim();
        if count < 2 {
            return Err(ScorerError::TooFewRows { what: "robust principal components", needed: 2, got: count });
        }
        check_settings(&options)?;
        options.components.check_at_most(dim - 1)?;
        let lambda = options.lambda.unwrap_or(1.0 / (count.max(dim) as f64).sqrt());
        let center = medians(rows);
        let mut centered = vec![0.0f64; count * dim];
        moments::center_into(rows, 0, &center, &mut centered);
        // In units of the largest number, so that no square overflows.
        let largest = centered.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        if largest == 0.0 {
            return Err(ScorerError::ConstantRows { rows: count as u64 });
        }
        centered.iter_mut().for_each(|value| *value /= largest);
        let mut low = low_rank(&centered, dim, lambda, watch)?;
        drop(centered);
        let mean: Vec<f64> = (0..dim).map(|at| low.iter().skip(at).step_by(dim).sum::<f64>() / count as f64).collect();
        for row in low.chunks_exact_mut(dim) {
            row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
        }
        let (values, directions) = components(&low, dim).ok_or(ScorerError::NoConvergence { rows: count, dim })?;
        let rank = values.iter().take_while(|value| **value > RANK * values[0]).count();
        let squares: Vec<f64> = values[..rank].iter().map(|value| value * value).collect();
        if rank == 0 {
            let reason = "nothing of low rank is left; use a larger `lambda`".to_owned();
            return Err(ScorerError::Numerical { what: "principal component pursuit", reason });
        }
        let center: Vec<f64> = center.iter().zip(&mean).map(|(median, mean)| median + mean * largest).collect();
        // At least one direction must be left out.
        let kept = options.components.of(&squares).min(dim - 1);
        let affine = Affine::of_leading(center, directions.as_ref(), kept);
        Ok(Self { options, kept, rank, affine })
    }

    /// The settings.
    pub fn options(&self) -> RobustPcaOptions {
        self.options
    }

    /// The number of directions that make up the subspace; 0 for rows of a single column.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// The rank of the part of low rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { basis, components, kept, lambda, rank } = state.read_config()?;
        let options = RobustPcaOptions { components, lambda };
        check_settings(&options).map_err(|error| state.config_error(error.to_string()))?;
        let affine = Affine::from_state(state, basis, false, false)?;
        let (dim, stored) = affine.directions.shape();
        let directions = if basis == Basis::Kept { kept } else { dim.saturating_sub(kept) };
        if kept >= dim || kept > rank || rank > dim || stored != directions {
            let reason = format!("{stored} directions in {dim} dimensions with {kept} of {rank} kept");
            return Err(state.tensor_error("directions", reason));
        }
        Ok(Self { options, kept, rank, affine })
    }
}

/// The part of low rank of rows `[n, dim]`.
fn low_rank(rows: &[f64], dim: usize, lambda: f64, watch: Watch<'_>) -> Result<Vec<f64>, ScorerError> {
    let count = rows.len() / dim;
    if count >= dim {
        return pursuit::low_rank(rows, dim, lambda, watch);
    }
    // The solution for the transpose is the transpose of the solution, and pursuit is faster with few columns.
    let found = pursuit::low_rank(&transposed(rows, dim), count, lambda, watch)?;
    Ok(transposed(&found, count))
}

fn transposed(rows: &[f64], dim: usize) -> Vec<f64> {
    (0..dim).flat_map(|column| rows.iter().skip(column).step_by(dim).copied()).collect()
}

/// The singular values of rows `[n, dim]`, descending, and their right singular vectors: all `dim` if there are enough
/// rows.
fn components(rows: &[f64], dim: usize) -> Option<(Vec<f64>, Mat<f64>)> {
    if rows.len() / dim < dim {
        let svd = linalg::thin_svd(rows, dim)?;
        return Some((svd.values, svd.right));
    }
    let scatter = linalg::scatter(rows, dim);
    let eigen = linalg::symmetric_eigen(MatRef::from_column_major_slice(&scatter, dim, dim))?;
    Some((eigen.values.iter().map(|value| value.max(0.0).sqrt()).collect(), eigen.vectors))
}

/// The median of each column; of an even number of rows the mean of the two in the middle.
fn medians(rows: ArrayView2<'_, f32>) -> Vec<f64> {
    let median = |column: usize| {
        let mut values: Vec<f32> = rows.column(column).to_vec();
        let middle = values.len() / 2;
        let (below, upper, _) = values.select_nth_unstable_by(middle, f32::total_cmp);
        let upper = f64::from(*upper);
        if rows.nrows() % 2 == 1 {
            return upper;
        }
        0.5 * (f64::from(below.iter().copied().fold(f32::NEG_INFINITY, f32::max)) + upper)
    };
    (0..rows.ncols()).into_par_iter().map(median).collect()
}

impl Scorer for RobustPca {
    fn dim(&self) -> usize {
        self.affine.dim()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        self.affine.distances(rows)
    }

    fn state(&self) -> State {
        let RobustPcaOptions { components, lambda } = self.options;
        let config = Config { basis: self.affine.basis, components, kept: self.kept, lambda, rank: self.rank };
        State::with_tensors(RobustPcaOptions::NAME, &config, self.affine.tensors())
    }
}
