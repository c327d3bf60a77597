//! The M-step: sums over rows weighted with responsibilities, and the parameters that follow from them.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::{Array1, Array2, Array3};
use rayon::prelude::*;

use super::density::{BLOCK, PANEL, Scratch, with_squares};
use super::{Covariances, MixtureCovariance};
use crate::blocks::BlockRows;
use crate::{ScorerError, Watch};

/// Rows that are gathered for one update of a scatter matrix.
const GATHER: usize = 128;

/// Responsibilities below this are lost in the rounding of a sum of squares.
const NEGLIGIBLE: f64 = 1e-20;

/// The most tasks that the rows are divided among.
const TASKS: usize = 32;

/// The most numbers in the sums of all tasks together, if there are more than two tasks.
const SUMS: usize = 1 << 25;

/// Statistics of the rows that do not change between steps.
pub(super) struct Spread {
    /// The floor added to each variance.
    pub(super) floor: f64,
    /// The lower triangle of the scatter matrix about the center, `[dim, dim]`; only for the tied covariance.
    pub(super) scatter: Option<Array2<f64>>,
}

/// Sums over rows.
pub(super) struct Moments {
    covariance: MixtureCovariance,
    /// The sum of the log-likelihoods.
    pub(super) log_likelihood: f64,
    counts: Vec<f64>,
    /// Of the rows less the center, `[k, dim]`.
    sums: Vec<f64>,
    /// `full`: of outer products about `means`, the lower triangles of `[k, dim, dim]`, column-major. `diagonal` and
    /// `spherical`: of squares, `[k, dim]`.
    squares: Vec<f64>,
}

/// Computes the sums over all `rows`. `responsibilities` fills in those of a block, `[BLOCK, k]`, given its first row
/// and the rows themselves, and returns the sum of their log-likelihoods; `means` `[k, dim]` are near the means.
pub(super) fn moments(
    rows: &BlockRows<'_>,
    covariance: MixtureCovariance,
    means: &[f64],
    responsibilities: impl Fn(usize, &[f64], usize, &mut Scratch, &mut [f64]) -> f64 + Sync,
    watch: Watch<'_>,
) -> Result<Moments, ScorerError> {
    let dim = rows.dim();
    let k = means.len() / dim;
    let size = k * dim * if covariance == MixtureCovariance::Full { dim } else { 1 };
    let tasks = (SUMS / size).clamp(2, TASKS);
    let share = rows.len().div_ceil(tasks).next_multiple_of(BLOCK);
    let of_task = |task: usize| {
        let mut sums = Moments::new(covariance, k, dim);
        let mut gathered = Gathered::new(k, dim);
        let mut scratch = Scratch::default();
        let mut features = Vec::new();
        let mut block = vec![0.0; BLOCK * dim];
        let mut shares = vec![0.0; BLOCK * k];
        for first in (task * share..rows.len().min((task + 1) * share)).step_by(BLOCK) {
            watch.check()?;
            let count = BLOCK.min(rows.len() - first);
            rows.load(first, &mut block);
            sums.log_likelihood += responsibilities(first, &block, count, &mut scratch, &mut shares);
            shares[count * k..].fill(0.0);
            sums.add(&block, &shares, &mut features);
            if covariance == MixtureCovariance::Full {
                gathered.add(&block, &shares, means, &mut sums.squares);
            }
        }
        (0..k).for_each(|component| gathered.flush(component, &mut sums.squares));
        Ok(sums)
    };
    let parts: Vec<Moments> =
        (0..rows.len().div_ceil(share)).into_par_iter().map(of_task).collect::<Result<_, ScorerError>>()?;
    let mut total = Moments::new(covariance, k, dim);
    for part in parts {
        total.log_likelihood += part.log_likelihood;
        let pairs =
            [(&mut total.counts, part.counts), (&mut total.sums, part.sums), (&mut total.squares, part.squares)];
        for (total, part) in pairs {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        }
    }
    Ok(total)
}

impl Moments {
    fn new(covariance: MixtureCovariance, k: usize, dim: usize) -> Self {
        let squares = match covariance {
            MixtureCovariance::Full => k * dim * dim,
            MixtureCovariance::Tied => 0,
            MixtureCovariance::Diagonal | MixtureCovariance::Spherical => k * dim,
        };
        let sums = vec![0.0; k * dim];
        Self { covariance, log_likelihood: 0.0, counts: vec![0.0; k], sums, squares: vec![0.0; squares] }
    }

    fn add(&mut self, block: &[f64], shares: &[f64], features: &mut Vec<f64>) {
        let k = self.counts.len();
        let dim = self.sums.len() / k;
        for shares in shares.chunks_exact(k) {
            self.counts.iter_mut().zip(shares).for_each(|(count, share)| *count += share);
        }
        let shares = MatRef::from_row_major_slice(shares, BLOCK, k);
        let rows = MatRef::from_column_major_slice(block, dim, BLOCK);
        let sums = MatMut::from_column_major_slice_mut(&mut self.sums, dim, k);
        matmul(sums, Accum::Add, rows, shares, 1.0, Par::Seq);
        if matches!(self.covariance, MixtureCovariance::Diagonal | MixtureCovariance::Spherical) {
            with_squares(block, dim, features);
            let squares = MatRef::from_column_major_slice(features, 2 * dim, BLOCK).subrows(0, dim);
            let sums = MatMut::from_column_major_slice_mut(&mut self.squares, dim, k);
            matmul(sums, Accum::Add, squares, shares, 1.0, Par::Seq);
        }
    }

    /// Weights, means less the center `[k, dim]`, and covariances; `old` `[k, dim]` are the means that outer products
    /// were taken about.
    pub(super) fn parameters(self, old: &[f64], spread: &Spread) -> (Vec<f64>, Array2<f64>, Covariances) {
        let k = self.counts.len();
        let dim = self.sums.len() / k;
        let counts: Vec<f64> = self.counts.iter().map(|count| count + 10.0 * f64::EPSILON).collect();
        let total: f64 = counts.iter().sum();
        let weights = counts.iter().map(|count| count / total).collect();
        // A component without rows keeps its mean.
        let means = Array2::from_shape_fn((k, dim), |(component, column)| {
            let at = component * dim + column;
            if self.counts[component] > 0.0 { self.sums[at] / counts[component] } else { old[at] }
        });
        let axis = |component: usize, column: usize| {
            let mean = means[[component, column]];
            let square = self.squares[component * dim + column] / counts[component];
            (square - mean * mean).max(0.0) + spread.floor
        };
        let covariances = match self.covariance {
            MixtureCovariance::Full => Covariances::Full(Array3::from_shape_fn((k, dim, dim), |(component, i, j)| {
                let (row, column) = (i.max(j), i.min(j));
                let moved = |at: usize| means[[component, at]] - old[component * dim + at];
                let lower = self.squares[(component * dim + column) * dim + row] / counts[component];
                let value = lower - moved(row) * moved(column);
                if i == j { value.max(0.0) + spread.floor } else { value }
            })),
            MixtureCovariance::Tied => Covariances::Tied(Array2::from_shape_fn((dim, dim), |(i, j)| {
                let (row, column) = (i.max(j), i.min(j));
                let all = spread.scatter.as_ref().map_or(0.0, |scatter| scatter[[row, column]]);
                let between: f64 = (0..k).map(|at| counts[at] * means[[at, row]] * means[[at, column]]).sum();
                let value = (all - between) / total;
                if i == j { value.max(0.0) + spread.floor } else { value }
            })),
            MixtureCovariance::Diagonal => {
                Covariances::Diagonal(Array2::from_shape_fn((k, dim), |at| axis(at.0, at.1)))
            }
            MixtureCovariance::Spherical => Covariances::Spherical(Array1::from_shape_fn(k, |component| {
                (0..dim).map(|column| axis(component, column)).sum::<f64>() / dim as f64
            })),
        };
        (weights, means, covariances)
    }
}

/// Buffered rows for the scatter matrix of their component, multiplied by the root of their responsibility. Most
/// responsibilities of a converged mixture are negligible; those rows are skipped.
struct Gathered {
    dim: usize,
    /// `[k, GATHER, dim]`.
    rows: Vec<f64>,
    counts: Vec<usize>,
}

impl Gathered {
    fn new(k: usize, dim: usize) -> Self {
        Self { dim, rows: vec![0.0; k * GATHER * dim], counts: vec![0; k] }
    }

    fn add(&mut self, block: &[f64], shares: &[f64], means: &[f64], squares: &mut [f64]) {
        let k = self.counts.len();
        for (row, shares) in block.chunks_exact(self.dim).zip(shares.chunks_exact(k)) {
            for (component, share) in shares.iter().enumerate().filter(|(_, share)| **share > NEGLIGIBLE) {
                let at = (component * GATHER + self.counts[component]) * self.dim;
                let mean = &means[component * self.dim..(component + 1) * self.dim];
                let root = share.sqrt();
                for ((target, value), mean) in self.rows[at..at + self.dim].iter_mut().zip(row).zip(mean) {
                    *target = root * (value - mean);
                }
                self.counts[component] += 1;
                if self.counts[component] == GATHER {
                    self.flush(component, squares);
                }
            }
        }
    }

    fn flush(&mut self, component: usize, squares: &mut [f64]) {
        let (dim, count) = (self.dim, std::mem::take(&mut self.counts[component]));
        if count == 0 {
            return;
        }
        let rows = &self.rows[component * GATHER * dim..][..count * dim];
        let rows = MatRef::from_column_major_slice(rows, dim, count);
        let mut target =
            MatMut::from_column_major_slice_mut(&mut squares[component * dim * dim..][..dim * dim], dim, dim);
        for first in (0..dim).step_by(PANEL) {
            let width = PANEL.min(dim - first);
            let target = target.as_mut().submatrix_mut(first, first, dim - first, width);
            let right = rows.subrows(first, width).transpose();
            matmul(target, Accum::Add, rows.subrows(first, dim - first), right, 1.0, Par::Seq);
        }
    }
}
