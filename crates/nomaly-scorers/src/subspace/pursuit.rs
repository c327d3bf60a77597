//! Principal component pursuit: a matrix as the sum of one of low rank and a sparse one.
//!
//! `min ‖L‖_* + λ‖S‖₁` subject to `L + S = D` by the inexact augmented Lagrangian method (Lin, Chen and Ma
//! 2010, algorithm 5), with its constants. Written with the scaled multiplier `Z = Y / μ` a round is
//!
//! ```text
//! S = shrink(D - L + Z, λ / μ)        W = D - S + Z
//! L = W M                             Z = (W - L) / ρ        M = V diag(max(0, 1 - 1 / (μ σ))) Vᵀ
//! ```
//!
//! with the singular values `σ` and right singular vectors `V` of `W`, which are those of the small matrix `Wᵀ W`.
//! As `L` and `Z` follow from `W` and `M`, a round is one pass over the rows, and no singular value decomposition of a
//! tall matrix. Singular values below about `1e-8` of the largest are lost that way; the last threshold `1 / μ` lies
//! above them.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::linalg::{self, Eigen};
use crate::{ScorerError, Watch};

/// Rows that are multiplied at once.
const BLOCK: usize = 256;

/// Stretches of rows that are processed in parallel, each with its own sum.
const LANES: usize = 8;

/// The growth factor of the penalty `μ` per round.
const GROWTH: f64 = 1.5;

/// The first penalty, in units of 1 over the largest singular value.
const FIRST_PENALTY: f64 = 1.25;

/// The largest penalty, in units of the first.
const MOST_GROWTH: f64 = 1e7;

/// The relative norm of `D - L - S` at which the iteration ends.
const TOLERANCE: f64 = 1e-7;

/// Rounds after which the iteration counts as stuck; 40 are usual.
const ROUNDS: usize = 1000;

/// The part of low rank of the matrix `data` `[n, dim]`, row-major, tall and not zero. `lambda` is the price of an
/// entry of the sparse part.
pub(super) fn low_rank(data: &[f64], dim: usize, lambda: f64, watch: Watch<'_>) -> Result<Vec<f64>, ScorerError> {
    let no_convergence = || ScorerError::NoConvergence { rows: data.len() / dim, dim };
    let norm = data.iter().map(|value| value * value).sum::<f64>().sqrt();
    let largest = data.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let mut state = Rounds { data, dim, whole: data.to_vec(), sparse: vec![0.0; data.len()] };
    let spectral = linalg::symmetric_eigen(state.gram().as_ref()).ok_or_else(no_convergence)?.values[0].sqrt();
    let mut penalty = FIRST_PENALTY / spectral;
    let most = penalty * MOST_GROWTH;
    // The multiplier starts as the data, scaled into the unit ball of the dual norm; `Z = W / ρ` where `M` is zero.
    let scale = GROWTH / (penalty * spectral.max(largest / lambda));
    state.whole.iter_mut().for_each(|value| *value *= scale);
    let (mut growth, mut map) = (GROWTH, Mat::zeros(dim, dim));
    for round in 0..ROUNDS {
        watch.check()?;
        let (gram, rest) = state.pass(map.as_ref(), growth, lambda / penalty);
        let Eigen { values, vectors } = linalg::symmetric_eigen(gram.as_ref()).ok_or_else(no_convergence)?;
        let values: Vec<f64> = values.into_iter().map(|value| value.max(0.0).sqrt()).collect();
        let kept: Vec<f64> = values.iter().map(|value| (value - 1.0 / penalty).max(0.0)).collect();
        let rank = kept.iter().take_while(|value| **value > 0.0).count();
        let shrunk = Mat::from_fn(dim, rank, |row, column| vectors[(row, column)] * kept[column] / values[column]);
        let leading = vectors.subcols(0, rank);
        matmul(map.as_mut(), Accum::Replace, shrunk.as_ref(), leading.transpose(), 1.0, Par::Seq);
        // The residual is known one round late: a pass uses the low-rank part of the previous one.
        if round > 0 && rest.sqrt() < TOLERANCE * norm {
            return Ok(state.into_low_rank(map.as_ref()));
        }
        growth = (penalty * GROWTH).min(most) / penalty;
        penalty *= growth;
    }
    Err(ScorerError::Numerical { what: "principal component pursuit", reason: format!("no end after {ROUNDS} rounds") })
}

struct Rounds<'a> {
    /// `D`.
    data: &'a [f64],
    dim: usize,
    /// `W`.
    whole: Vec<f64>,
    /// `S`.
    sparse: Vec<f64>,
}

impl Rounds<'_> {
    /// The values per lane: whole blocks.
    fn stretch(&self) -> usize {
        (self.data.len() / self.dim).div_ceil(LANES).next_multiple_of(BLOCK) * self.dim
    }

    /// The lower triangle of `Wᵀ W`.
    fn gram(&self) -> Mat<f64> {
        let dim = self.dim;
        let lanes = self.whole.par_chunks(self.stretch()).map(|lane| {
            let mut gram = Mat::zeros(dim, dim);
            lane.chunks(BLOCK * dim).for_each(|block| add_gram(block, dim, gram.as_mut()));
            gram
        });
        total(lanes.collect(), dim)
    }

    /// Shrinks once with the threshold given; `growth` is the growth of the penalty since `map` was computed. Returns
    /// the lower triangle of `Wᵀ W` and the squared length of `D - L - S` before the pass.
    fn pass(&mut self, map: MatRef<'_, f64>, growth: f64, threshold: f64) -> (Mat<f64>, f64) {
        let (dim, stretch) = (self.dim, self.stretch());
        let lanes = self.whole.par_chunks_mut(stretch).zip(self.sparse.par_chunks_mut(stretch));
        let lanes: Vec<(Mat<f64>, f64)> = lanes
            .zip(self.data.par_chunks(stretch))
            .map(|((whole, sparse), data)| {
                let (mut gram, mut rest) = (Mat::zeros(dim, dim), 0.0);
                let mut low = vec![0.0; BLOCK * dim];
                let blocks = whole.chunks_mut(BLOCK * dim).zip(sparse.chunks_mut(BLOCK * dim));
                for ((whole, sparse), data) in blocks.zip(data.chunks(BLOCK * dim)) {
                    let low = &mut low[..whole.len()];
                    multiply(whole, map, low);
                    for (((whole, sparse), data), low) in whole.iter_mut().zip(sparse).zip(data).zip(low) {
                        let multiplier = (*whole - *low) / growth;
                        let left_over = data - *low - *sparse;
                        rest += left_over * left_over;
                        let target = data - *low + multiplier;
                        *sparse = target - target.clamp(-threshold, threshold);
                        *whole = data - *sparse + multiplier;
                    }
                    add_gram(whole, dim, gram.as_mut());
                }
                (gram, rest)
            })
            .collect();
        let (grams, rests): (Vec<_>, Vec<f64>) = lanes.into_iter().unzip();
        (total(grams, dim), rests.iter().sum())
    }

    /// `L = W M`.
    fn into_low_rank(self, map: MatRef<'_, f64>) -> Vec<f64> {
        let (dim, mut whole) = (self.dim, self.whole);
        whole.par_chunks_mut(BLOCK * dim).for_each_init(Vec::new, |buffer, block| {
            buffer.clear();
            buffer.extend_from_slice(block);
            multiply(buffer, map, block);
        });
        whole
    }
}

/// The rows of `block`, `[n, dim]`, times `map`.
fn multiply(block: &[f64], map: MatRef<'_, f64>, product: &mut [f64]) {
    let dim = map.nrows();
    let rows = block.len() / dim;
    matmul(
        MatMut::from_row_major_slice_mut(product, rows, dim),
        Accum::Replace,
        MatRef::from_row_major_slice(block, rows, dim),
        map,
        1.0,
        Par::Seq,
    );
}

fn add_gram(block: &[f64], dim: usize, gram: MatMut<'_, f64>) {
    let rows = MatRef::from_row_major_slice(block, block.len() / dim, dim);
    triangular::matmul(
        gram,
        BlockStructure::TriangularLower,
        Accum::Add,
        rows.transpose(),
        BlockStructure::Rectangular,
        rows,
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
}

fn total(lanes: Vec<Mat<f64>>, dim: usize) -> Mat<f64> {
    let mut total = Mat::zeros(dim, dim);
    lanes.iter().for_each(|lane| total += lane);
    total
}
