//! Scores rows by how well and how sparsely a learned dictionary codes them.
//!
//! # What it computes
//! A dictionary `D` of atoms is learned on one part of the normal rows, less their mean. A row `s`, less that mean, is
//! coded by basis pursuit denoising, `α = argmin ½‖Dα - s‖² + λ‖α‖₁`, and described by two features:
//! its error `‖Dα - s‖²` and its sparsity `‖α‖₁`. A Gaussian is fitted to the features of the other part
//! of the rows, which the dictionary has not seen, and the score is the Mahalanobis distance from it. The Gaussian is
//! one of `ln(1 + x / m)` for a feature `x` and its mean `m` over those rows: both features are sums that are skewed to
//! the right, and the logarithm brings them closer to a Gaussian, whatever the unit of the rows. The covariance is that
//! of Ledoit and Wolf.
//!
//! # When to use
//! On patches of a textured image and on rows with many regimes, each of which lies near a subspace of its own: an
//! anomaly leaves an error, or needs unusually many atoms. An item that is *easier* to code than the normal ones, such
//! as an even patch in a texture, is found as well. Scoring takes tens of iterations of `atoms²` multiplications for
//! each row; independently of the number of normal rows.
//!
//! # Parameters
//! `atoms`, `held_out`, `iterations`, `lambda`, `max_rows` and `seed`: see [`SparseOptions`].
//!
//! # Reference
//! Carrera, Manganini, Boracchi and Lanzarone, *Defect detection in SEM images of nanofibrous materials* (2017), for
//! the features and their density; Boyd, Parikh, Chu, Peleato and Eckstein, *Distributed optimization and statistical
//! learning via the alternating direction method of multipliers* (2011), section 6.4, for the codes; Mairal, Bach,
//! Ponce and Sapiro, *Online learning for matrix factorization and sparse coding* (2010), algorithm 2, for the atoms.

use ndarray::{Array2, ArrayView2, Axis};
use nomaly_settings::{Auto, Settings};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::admm::{BasisPursuit, TASK};
use super::dictionary::{self, Learning};
use crate::blocks::BlockRows;
use crate::entry::{ScorerParams, check_settings};
use crate::gaussian::{Covariance, Gaussian, GaussianOptions};
use crate::scorer::{Scorer, State, Tensor, check_finite, check_rows};
use crate::{ScorerError, Watch, linalg, random};

/// The least number of held-out rows: fewer give no covariance of two features.
const HELD_OUT_ROWS: usize = 3;

/// The least number of rows to learn from.
const LEARNING_ROWS: usize = 2;

/// The most atoms of `auto`.
const AUTO_ATOMS: usize = 256;

/// The tolerance of codes; features then have some four digits.
const TOLERANCE: f64 = 1e-4;

/// The settings of [`SparseCoding`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct SparseOptions {
    /// Atoms of the dictionary; `auto`: twice the columns, at most 256 and half the rows learned from.
    #[schemars(extend("minimum" = 1))]
    pub atoms: Auto<usize>,
    /// Share of the rows that the density is fitted to, and the dictionary not.
    ///
    /// There are at least 3 of them.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub held_out: f64,
    /// Most rounds of coding and of moving the atoms.
    ///
    /// Learning ends earlier where a round gains less than a ten-thousandth.
    #[schemars(extend("minimum" = 1))]
    pub iterations: usize,
    /// Weight of sparsity, in units of the root mean square of a centered column.
    ///
    /// For rows of unit length the default is the `1.2 / √dim` of Mairal et al. (2010), section 5.1.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub lambda: f64,
    /// Most rows to learn from, and most held-out rows; of more, so many are chosen.
    #[schemars(extend("minimum" = HELD_OUT_ROWS))]
    pub max_rows: usize,
    /// Which rows are held out, and which are the first atoms.
    pub seed: u64,
}

impl Default for SparseOptions {
    fn default() -> Self {
        Self { atoms: Auto::Auto, held_out: 0.3, iterations: 30, lambda: 1.2, max_rows: 10_000, seed: 0 }
    }
}

impl SparseOptions {
    /// The number of atoms for `rows` rows `[rows, dim]` to learn from.
    fn atoms(&self, rows: usize, dim: usize) -> usize {
        self.atoms.unwrap_or(dim.saturating_mul(2).min(AUTO_ATOMS).min(rows / 2).max(1))
    }
}

impl Settings for SparseOptions {}

impl ScorerParams for SparseOptions {
    const NAME: &'static str = "sparse-coding";
    const SUMMARY: &'static str = "unusual error or sparsity of a code over a learned dictionary";
    type Fitted = SparseCoding;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<SparseCoding, ScorerError> {
        SparseCoding::fit(rows, *self, watch)
    }

    fn restore(state: &State) -> Result<SparseCoding, ScorerError> {
        SparseCoding::from_state(state)
    }
}

/// The split of rows into learning and held-out rows.
struct Split {
    learning: Vec<usize>,
    held_out: Vec<usize>,
    /// The random numbers of later choices.
    random: ChaCha8Rng,
}

impl Split {
    /// Splits `count` rows, at least 5.
    fn of(options: &SparseOptions, count: usize) -> Self {
        let mut random = random::stream(options.seed, 0);
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut random);
        let share = (count as f64 * options.held_out).round() as usize;
        let (held_out, learning) = order.split_at(share.clamp(HELD_OUT_ROWS, count - LEARNING_ROWS));
        let chosen = |part: &[usize]| {
            let mut part = part[..part.len().min(options.max_rows)].to_vec();
            part.sort_unstable();
            part
        };
        Self { learning: chosen(learning), held_out: chosen(held_out), random }
    }
}

/// A learned dictionary and the density of the features of normal rows.
#[derive(Clone, Debug)]
pub struct SparseCoding {
    /// Subtracted from each row, `[dim]`.
    center: Vec<f64>,
    /// `[atoms, dim]`, each of length at most 1.
    atoms: Array2<f64>,
    lambda: f64,
    solver: BasisPursuit,
    /// The divisors of the features before the logarithm, above 0.
    units: [f64; 2],
    density: Gaussian,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    lambda: f64,
    /// The configuration of the Gaussian.
    density: serde_json::Value,
}

impl SparseCoding {
    /// Learns from rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`], [`ScorerError::TooFewRows`] below 5 rows or where a given number of atoms is more than
    /// the rows that are learned from, [`ScorerError::ConstantRows`], [`ScorerError::NonFiniteFeature`],
    /// [`ScorerError::Numerical`] where the features of the held-out rows have no density, [`ScorerError::Cancelled`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: SparseOptions, watch: Watch<'_>) -> Result<Self, ScorerError> {
        check_settings(&options)?;
        check_finite(rows)?;
        let (count, dim) = rows.dim();
        let needed = LEARNING_ROWS + HELD_OUT_ROWS;
        if count < needed {
            return Err(ScorerError::TooFewRows { what: "sparse coding", needed, got: count });
        }
        let Split { learning, held_out, mut random } = Split::of(&options, count);
        let chosen = |part: &[usize]| rows.select(Axis(0), part);
        let (learning, held_out) = (chosen(&learning), chosen(&held_out));
        let size = options.atoms(learning.nrows(), dim);
        if size > learning.nrows() {
            let what = "learning so many atoms";
            return Err(ScorerError::TooFewRows { what, needed: size, got: learning.nrows() });
        }

        let center = linalg::mean(learning.view());
        let blocks = BlockRows::new(learning.view(), center.clone());
        let spread = blocks.mean_variance().sqrt();
        // Rounding errors of equal rows do not count as spread.
        let magnitude = center.iter().map(|value| value.abs()).fold(0.0, f64::max);
        if spread <= 1e-12 * magnitude || spread == 0.0 {
            return Err(ScorerError::ConstantRows { rows: learning.nrows() as u64 });
        }
        let lambda = options.lambda * spread;
        let mut centered = vec![0.0f64; learning.len()];
        blocks.load(0, &mut centered);
        let task = Learning { atoms: size, lambda, iterations: options.iterations };
        let atoms = dictionary::learn(&centered, dim, task, &mut random, watch)?;
        let atoms = Array2::from_shape_vec((size, dim), atoms)
            .map_err(|error| ScorerError::Numerical { what: "the dictionary", reason: error.to_string() })?;
        let solver = BasisPursuit::new(atoms.view(), lambda, TOLERANCE)?;

        let features = features(&solver, &center, held_out.view(), watch)?;
        let units = [0, 1].map(|feature| {
            let mean = features.iter().map(|features| features[feature]).sum::<f64>() / features.len() as f64;
            // A feature that is zero for all normal rows keeps its own unit.
            let own = [spread * spread * dim as f64, spread * (dim as f64).sqrt()][feature];
            if mean > 0.0 { mean } else { own }
        });
        let density = Gaussian::fit(logarithms(&features, units).view(), Covariance::LedoitWolf).map_err(|error| {
            ScorerError::Numerical { what: "the density of the features of held-out rows", reason: error.to_string() }
        })?;
        Ok(Self { center, atoms, lambda, solver, units, density })
    }

    /// The numbers of the rows that a [`fit`](Self::fit) of `rows` rows holds out, in ascending order. Further models
    /// of features of rows unknown to the dictionary should learn from these.
    ///
    /// # Errors
    /// [`ScorerError::Setting`], [`ScorerError::TooFewRows`] below 5 rows.
    pub fn held_out_rows(options: &SparseOptions, rows: usize) -> Result<Vec<usize>, ScorerError> {
        check_settings(options)?;
        let needed = LEARNING_ROWS + HELD_OUT_ROWS;
        if rows < needed {
            return Err(ScorerError::TooFewRows { what: "sparse coding", needed, got: rows });
        }
        Ok(Split::of(options, rows).held_out)
    }

    /// The atoms of the dictionary, `[atoms, dim]`, of length at most 1.
    pub fn atoms(&self) -> ArrayView2<'_, f64> {
        self.atoms.view()
    }

    /// The mean of the rows that were learned from, `[dim]`, which is subtracted from each row before it is coded.
    pub fn center(&self) -> &[f64] {
        &self.center
    }

    /// The weight of sparsity in the unit of the rows.
    pub fn lambda(&self) -> f64 {
        self.lambda
    }

    /// The codes `[n, atoms]` of rows `[n, dim]`.
    ///
    /// # Errors
    /// As [`score`](Scorer::score).
    pub fn codes(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>, ScorerError> {
        check_rows(rows, self.dim())?;
        let blocks = BlockRows::new(rows, self.center.clone());
        let size = self.atoms.nrows();
        let mut codes = vec![0.0f32; rows.nrows() * size];
        codes.par_chunks_mut(TASK * size).enumerate().for_each(|(task, codes)| {
            let (_, found) = code_task(&self.solver, &blocks, task);
            codes.iter_mut().zip(found).for_each(|(code, found)| *code = found as f32);
        });
        Array2::from_shape_vec((rows.nrows(), size), codes)
            .map_err(|error| ScorerError::Numerical { what: "the codes", reason: error.to_string() })
    }

    /// The error `‖Dα - s‖²` and the sparsity `‖α‖₁` of rows `[n, dim]`, `[n, 2]`, in the square of the
    /// unit of the rows and in their unit. Values too large for `f32` saturate.
    ///
    /// # Errors
    /// As [`score`](Scorer::score).
    pub fn features(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>, ScorerError> {
        check_rows(rows, self.dim())?;
        let features = features(&self.solver, &self.center, rows, Watch::none())?;
        let single = |(row, feature): (usize, usize)| features[row][feature].min(f64::from(f32::MAX)) as f32;
        Ok(Array2::from_shape_fn((rows.nrows(), 2), single))
    }

    /// `ln(1 + x / m)` for each of the [`features`](Self::features) `x` and its mean `m` over held-out normal rows,
    /// `[n, 2]`: unitless and less skewed, which suits densities and distances.
    ///
    /// # Errors
    /// As [`score`](Scorer::score).
    pub fn log_features(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>, ScorerError> {
        check_rows(rows, self.dim())?;
        Ok(logarithms(&features(&self.solver, &self.center, rows, Watch::none())?, self.units))
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { lambda, density } = state.read_config()?;
        state.expect_only(&["atoms", "centre", "factor", "mean", "units"])?;
        let [size, dim] = state.shape("atoms")?;
        let atoms = state.read_f64("atoms", [size, dim])?.to_vec();
        let center = state.read_f64("centre", [dim])?.to_vec();
        if let Some(at) = center.iter().position(|value| value.abs() > f64::from(f32::MAX)) {
            return Err(state.tensor_error("centre", format!("number {at} is not a mean of rows")));
        }
        let units: [f64; 2] = match state.read_f64("units", [2])? {
            [error, sparsity] if *error > 0.0 && *sparsity > 0.0 => [*error, *sparsity],
            _ => return Err(state.tensor_error("units", "a number is not positive".to_owned())),
        };
        state.read_f64("mean", [2])?;
        let mut inner =
            State { kind: GaussianOptions::NAME.to_owned(), config: density, tensors: state.tensors.clone() };
        inner.tensors.retain(|name, _| name == "factor" || name == "mean");
        let density = Gaussian::from_state(&inner).map_err(|error| state.config_error(error.to_string()))?;
        let atoms = Array2::from_shape_vec((size, dim), atoms)
            .map_err(|error| state.tensor_error("atoms", error.to_string()))?;
        let solver = BasisPursuit::new(atoms.view(), lambda, TOLERANCE)
            .map_err(|error| state.config_error(error.to_string()))?;
        Ok(Self { center, atoms, lambda, solver, units, density })
    }
}

impl Scorer for SparseCoding {
    fn dim(&self) -> usize {
        self.center.len()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        self.density.score(self.log_features(rows)?.view())
    }

    fn state(&self) -> State {
        let inner = self.density.state();
        let (size, dim) = self.atoms.dim();
        let mut state = State::new(
            SparseOptions::NAME,
            &Config { lambda: self.lambda, density: inner.config },
            [
                ("atoms", Tensor::f64([size, dim], self.atoms.iter().copied().collect())),
                ("centre", Tensor::f64([dim], self.center.clone())),
                ("units", Tensor::f64([2], self.units.to_vec())),
            ],
        );
        state.tensors.extend(inner.tensors);
        state
    }
}

/// The centered rows `[n, dim]` of a task and their codes `[n, atoms]`.
fn code_task(solver: &BasisPursuit, rows: &BlockRows<'_>, task: usize) -> (Vec<f64>, Vec<f64>) {
    let first = task * TASK;
    let count = TASK.min(rows.len() - first);
    let mut centered = vec![0.0f64; count * solver.dim()];
    rows.load(first, &mut centered);
    let mut codes = vec![0.0f64; count * solver.atoms()];
    solver.solve(&centered, &mut codes, &mut vec![0.0; count * solver.atoms()]);
    (centered, codes)
}

/// Error and sparsity of each row.
fn features(
    solver: &BasisPursuit,
    center: &[f64],
    rows: ArrayView2<'_, f32>,
    watch: Watch<'_>,
) -> Result<Vec<[f64; 2]>, ScorerError> {
    let blocks = BlockRows::new(rows, center.to_vec());
    let mut features = vec![[0.0f64; 2]; rows.nrows()];
    features.par_chunks_mut(TASK).enumerate().try_for_each(|(task, features)| {
        watch.check()?;
        let (mut centered, codes) = code_task(solver, &blocks, task);
        let of_rows = centered.chunks_exact_mut(solver.dim()).zip(codes.chunks_exact(solver.atoms()));
        for (features, (row, code)) in features.iter_mut().zip(of_rows) {
            let cost = solver.cost(row, code);
            *features = [cost.error, cost.sparsity];
        }
        Ok::<(), ScorerError>(())
    })?;
    Ok(features)
}

/// `ln(1 + feature / unit)`, `[n, 2]`.
fn logarithms(features: &[[f64; 2]], units: [f64; 2]) -> Array2<f32> {
    Array2::from_shape_fn((features.len(), 2), |(row, feature)| {
        // Also valid if the quotient overflows.
        (features[row][feature] / units[feature]).min(f64::MAX).ln_1p() as f32
    })
}
