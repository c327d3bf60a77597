//! Kernel principal components: the reconstruction error in the feature space of a kernel.
//!
//! # What it computes
//! Principal components of `φ(x_i) - mean φ` in the feature space of a kernel, from the eigenvectors of the centered
//! kernel matrix. With `f_l(x)` for the projection of a row on component `l` of unit length, the score is `‖φ(x) -
//! mean φ‖² - Σ f_l(x)²`: the squared distance from the subspace of the leading components, never below 0. With
//! `rbf` it is at most slightly more than 1, far from all rows.
//!
//! The kernel matrix takes memory as the square of the rows and its eigenvectors time as their cube. Of more than
//! `max_rows` rows, that many are therefore chosen at random by `seed`, and the components are those of the chosen
//! rows: an approximation whose error in an eigenvalue falls as one over the root of `max_rows` (Shawe-Taylor,
//! Williams, Cristianini and Kandola, 2005). Only the chosen rows are stored. With the defaults a matrix takes 8 MB.
//!
//! # When to use
//! Where normal rows lie near a curved surface, whose bends are errors to linear components. `gamma` sets how far the
//! surface may bend; `components` how much of the spread around it counts as normal.
//!
//! # Parameters
//! `kernel`, `gamma`, `degree` and `coef0`: see [`KernelOptions`](super::KernelOptions); `components`, `max_rows` and
//! `seed`: see [`KernelPcaOptions`].
//!
//! # Reference
//! Hoffmann, *Kernel PCA for novelty detection* (2007), section 2; Schölkopf, Smola and Müller, *Nonlinear component
//! analysis as a kernel eigenvalue problem* (1998), for the components.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::{ArrayView2, Axis};
use nomaly_settings::Settings;
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::kernel::{KernelBank, KernelFunction, KernelOptions, Points, Space};
use crate::entry::{ScorerParams, check_settings};
use crate::linalg::{Eigen, symmetric_eigen};
use crate::scorer::{Scorer, State, Tensor, check_finite, check_rows};
use crate::subspace::KeptComponents;
use crate::{ScorerError, Watch};

/// Rows that are projected at once; smaller blocks are padded with zeros.
const BLOCK: usize = 32;

/// The settings of [`KernelPca`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct KernelPcaOptions {
    /// The similarity of rows.
    #[serde(flatten)]
    pub kernel: KernelOptions,
    /// The leading components that make up the subspace of normal rows: their number, or a share of the variance.
    ///
    /// There are fewer where the kernel matrix has a smaller numerical rank. The variance is that in the feature space.
    pub components: KeptComponents,
    /// Rows of which the kernel matrix is made; of more, so many are chosen at random.
    #[schemars(extend("minimum" = 2))]
    pub max_rows: usize,
    /// Which rows are chosen where there are more than `max_rows`.
    pub seed: u64,
}

impl Default for KernelPcaOptions {
    /// The Gaussian kernel and 95 % of the variance of at most 1000 rows.
    fn default() -> Self {
        Self { kernel: KernelOptions::default(), components: KeptComponents::Share(0.95), max_rows: 1000, seed: 0 }
    }
}

impl Settings for KernelPcaOptions {}

impl ScorerParams for KernelPcaOptions {
    const NAME: &'static str = "kernel-pca";
    const SUMMARY: &'static str = "squared distance from the principal subspace in the feature space of a kernel";
    type Fitted = KernelPca;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<KernelPca, ScorerError> {
        KernelPca::fit(rows, *self, watch)
    }

    fn restore(state: &State) -> Result<KernelPca, ScorerError> {
        KernelPca::from_state(state)
    }
}

/// A fitted subspace.
#[derive(Clone, Debug)]
pub struct KernelPca {
    space: Space,
    /// The chosen rows, `[m, dim]`.
    rows: Vec<f32>,
    bank: KernelBank,
    /// The mean kernel of each chosen row with all of them, `[m]`.
    means: Vec<f64>,
    /// The mean of `means`.
    mean: f64,
    /// Coefficients of the components over the chosen rows, `[components, m]`, each of sum 0.
    components: Vec<f64>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    kernel: KernelFunction,
}

impl KernelPca {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`], [`ScorerError::TooFewRows`] below 2 rows, [`ScorerError::ConstantRows`] where the
    /// chosen rows are equal, [`ScorerError::NonFiniteFeature`], [`ScorerError::Numerical`],
    /// [`ScorerError::Cancelled`], [`ScorerError::InstructionSet`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: KernelPcaOptions, watch: Watch<'_>) -> Result<Self, ScorerError> {
        check_settings(&options)?;
        check_finite(rows)?;
        let count = rows.nrows();
        if count < 2 {
            return Err(ScorerError::TooFewRows { what: "kernel principal components", needed: 2, got: count });
        }
        // The scale of the kernel follows from all rows.
        let (space, _) = Space::fit(rows, options.kernel)?;
        watch.check()?;
        let mut chosen: Vec<usize> = (0..count).collect();
        if count > options.max_rows {
            let mut random = ChaCha8Rng::seed_from_u64(options.seed);
            chosen = index::sample(&mut random, count, options.max_rows).into_vec();
            chosen.sort_unstable();
        }
        let rows = rows.select(Axis(0), &chosen);
        let points = space.points(rows.view());
        let bank = space.bank(&points)?;
        let size = chosen.len();
        let kernels = kernel_matrix(&bank, &points, size)?;
        let means: Vec<f64> = kernels.chunks_exact(size).map(|row| row.iter().sum::<f64>() / size as f64).collect();
        let mean = means.iter().sum::<f64>() / size as f64;
        let centered = Mat::from_fn(size, size, |i, j| kernels[i * size + j] - means[i] - means[j] + mean);
        watch.check()?;
        let Some(Eigen { values, vectors }) = symmetric_eigen(centered.as_ref()) else {
            let reason = format!("the eigenvectors of a matrix of {size} rows did not converge");
            return Err(ScorerError::Numerical { what: "the kernel matrix", reason });
        };
        watch.check()?;
        // Values of the kernel are rounded to f32, so that smaller eigenvalues are noise.
        let largest = (0..size).map(|i| kernels[i * size + i].abs()).fold(0.0, f64::max);
        let noise = f64::from(f32::EPSILON) * size as f64 * largest;
        let rank = values.iter().take_while(|value| **value > noise).count();
        if rank == 0 {
            return Err(ScorerError::ConstantRows { rows: size as u64 });
        }
        let kept = match options.components {
            KeptComponents::Count(count) => count.min(rank),
            KeptComponents::Share(share) => {
                let total: f64 = values[..rank].iter().sum();
                let mut cumulated = 0.0;
                let enough = |value: &f64| {
                    cumulated += value;
                    cumulated >= share * total
                };
                values[..rank].iter().position(enough).map_or(rank, |last| last + 1)
            }
        };
        let mut components = Vec::with_capacity(kept * size);
        for (component, value) in values[..kept].iter().enumerate() {
            let vector = vectors.col(component);
            // Eigenvectors of a centered matrix have sum 0; this restores it up to rounding.
            let shift = vector.iter().sum::<f64>() / size as f64;
            components.extend(vector.iter().map(|coefficient| (coefficient - shift) / value.sqrt()));
        }
        Ok(Self { space, rows: rows.iter().copied().collect(), bank, means, mean, components })
    }

    /// The number of components.
    pub fn components(&self) -> usize {
        self.components.len() / self.means.len()
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { kernel } = state.read_config()?;
        state.expect_only(&["centre", "components", "mean", "means", "rows"])?;
        let [size, dim] = state.shape("rows")?;
        let [kept, _] = state.shape("components")?;
        let components = state.read_f64("components", [kept, size])?.to_vec();
        if kept > size {
            return Err(state.tensor_error("components", format!("{kept} components of {size} rows")));
        }
        let rows = state.read_f32("rows", [size, dim])?.to_vec();
        let means = state.read_f64("means", [size])?.to_vec();
        let mean = state.read_f64("mean", [1])?[0];
        let center = state.read_f64("centre", [dim])?.to_vec();
        let space = Space::restore(kernel, center).map_err(|reason| state.config_error(reason))?;
        let view = ArrayView2::from_shape((size, dim), &rows);
        let view = view.map_err(|error| state.tensor_error("rows", error.to_string()))?;
        let bank = space.bank(&space.points(view))?;
        Ok(Self { space, rows, bank, means, mean, components })
    }

    /// The scores of at most [`BLOCK`] rows.
    fn score_block(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        let (count, size, kept) = (rows.nrows(), self.means.len(), self.components());
        let points = self.space.points(rows);
        let kernels = self.kernels(&points, count)?;
        let mut centered = vec![0.0f64; BLOCK * size];
        let mut distances = self.space.self_kernels(points.view());
        let of_rows = kernels.chunks_exact(size).zip(centered.chunks_exact_mut(size)).zip(&mut distances);
        for ((kernels, centered), distance) in of_rows {
            let mut sum = 0.0;
            for ((centered, kernel), mean) in centered.iter_mut().zip(kernels).zip(&self.means) {
                sum += f64::from(*kernel);
                *centered = f64::from(*kernel) - mean;
            }
            *distance += self.mean - 2.0 * sum / size as f64;
        }
        let mut projections = vec![0.0f64; kept * BLOCK];
        matmul(
            MatMut::from_column_major_slice_mut(&mut projections, kept, BLOCK),
            Accum::Replace,
            MatRef::from_row_major_slice(&self.components, kept, size),
            MatRef::from_column_major_slice(&centered, size, BLOCK),
            1.0,
            Par::Seq,
        );
        let of_rows = distances.iter().zip(projections.chunks_exact(kept));
        let left = |(distance, projections): (&f64, &[f64])| {
            let inside: f64 = projections.iter().map(|projection| projection * projection).sum();
            // Covers rows so far away that both are infinite.
            (distance - inside).max(0.0)
        };
        Ok(of_rows.map(left).collect())
    }

    /// `k(x, chosen row)`, `[count, m]`.
    fn kernels(&self, points: &Points, count: usize) -> Result<Vec<f32>, ScorerError> {
        let mut kernels = vec![0.0f32; count * self.means.len()];
        let mut rows: Vec<&mut [f32]> = kernels.chunks_exact_mut(self.means.len()).collect();
        self.bank.values(points.view(), &mut rows)?;
        Ok(kernels)
    }
}

impl Scorer for KernelPca {
    fn dim(&self) -> usize {
        self.space.dim()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        let blocks: Vec<ArrayView2<'_, f32>> = rows.axis_chunks_iter(Axis(0), BLOCK).collect();
        let scores: Result<Vec<Vec<f64>>, ScorerError> =
            blocks.into_par_iter().map(|block| self.score_block(block)).collect();
        Ok(scores?.concat())
    }

    fn state(&self) -> State {
        let (size, dim) = (self.means.len(), self.dim());
        State::new(
            KernelPcaOptions::NAME,
            &Config { kernel: self.space.function },
            [
                ("centre", Tensor::f64([dim], self.space.center.clone())),
                ("components", Tensor::f64([self.components(), size], self.components.clone())),
                ("mean", Tensor::f64([1], vec![self.mean])),
                ("means", Tensor::f64([size], self.means.clone())),
                ("rows", Tensor::f32([size, dim], self.rows.clone())),
            ],
        )
    }
}

/// The kernels of all pairs of the points of a bank, row-major.
fn kernel_matrix(bank: &KernelBank, points: &Points, size: usize) -> Result<Vec<f64>, ScorerError> {
    let mut kernels = vec![0.0f32; size * size];
    let mut rows: Vec<&mut [f32]> = kernels.chunks_exact_mut(size).collect();
    bank.values(points.view(), &mut rows)?;
    Ok(kernels.into_iter().map(f64::from).collect())
}
