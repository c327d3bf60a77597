//! Dense linear algebra with a fixed order of additions.
//!
//! faer may split its work over threads in ways that change rounding, so it is only ever called serially here; rayon
//! runs such calls side by side on blocks whose borders depend on the shape alone.

use faer::linalg::cholesky::llt::factor::{LltParams, LltRegularization, cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Accum, Auto, Mat, MatMut, MatRef, Par, Spec};
use ndarray::ArrayView2;
use rayon::prelude::*;

use faer::dyn_stack::{MemBuffer, MemStack};

/// Columns of a scatter matrix that one task computes.
const PANEL: usize = 128;

/// Rows that are scored by one call into faer. Short chunks are padded with zeros, so that every row goes through the
/// same operations regardless of the others.
const CHUNK: usize = 16;

/// Centered rows and their mean.
pub(crate) struct Centered {
    /// The mean row.
    pub(crate) mean: Vec<f64>,
    /// `[n, dim]`, row-major.
    pub(crate) rows: Vec<f64>,
}

/// The mean row of `rows`, which has at least one row.
pub(crate) fn mean(rows: ArrayView2<'_, f32>) -> Vec<f64> {
    let mut mean = vec![0.0f64; rows.ncols()];
    for row in rows.outer_iter() {
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    let count = rows.nrows() as f64;
    mean.iter_mut().for_each(|sum| *sum /= count);
    mean
}

/// Subtracts the mean row from `rows`, which has at least one row.
pub(crate) fn center(rows: ArrayView2<'_, f32>) -> Centered {
    let mean = mean(rows);
    let mut centered = Vec::with_capacity(rows.len());
    for row in rows.outer_iter() {
        centered.extend(row.iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean));
    }
    Centered { mean, rows: centered }
}

/// The lower triangle of `rowsᵀ rows` for `rows` `[n, dim]`, in a column-major `[dim, dim]` array. The upper triangle
/// is unspecified.
pub(crate) fn scatter(rows: &[f64], dim: usize) -> Vec<f64> {
    let rows = MatRef::from_row_major_slice(rows, rows.len() / dim, dim);
    let mut scatter = vec![0.0f64; dim * dim];
    scatter.par_chunks_mut(PANEL * dim).enumerate().for_each(|(panel, columns)| {
        let first = panel * PANEL;
        let width = columns.len() / dim;
        let target = MatMut::from_column_major_slice_mut(columns, dim, width).subrows_mut(first, dim - first);
        let left = rows.subcols(first, dim - first).transpose();
        matmul(target, Accum::Replace, left, rows.subcols(first, width), 1.0, Par::Seq);
    });
    scatter
}

/// The Cholesky factor of the symmetric matrix with the lower triangle in `matrix`, or `None` if it is not numerically
/// positive definite: if a pivot is within rounding of zero relative to its diagonal element.
pub(crate) fn cholesky(mut matrix: Mat<f64>) -> Option<Mat<f64>> {
    let dim = matrix.nrows();
    let diagonal: Vec<f64> = (0..dim).map(|i| matrix[(i, i)]).collect();
    let params = Spec::<LltParams, f64>::default();
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(dim, Par::Seq, params));
    let stack = MemStack::new(&mut memory);
    cholesky_in_place(matrix.as_mut(), LltRegularization::default(), Par::Seq, stack, params).ok()?;
    let rounding = f64::EPSILON * dim.max(8) as f64;
    (0..dim).all(|i| matrix[(i, i)] * matrix[(i, i)] > rounding * diagonal[i]).then_some(matrix)
}

/// Singular values (descending) and singular vectors.
pub(crate) struct Svd {
    /// `[n, min(n, dim)]`.
    pub(crate) left: Mat<f64>,
    /// Descending.
    pub(crate) values: Vec<f64>,
    /// `[dim, min(n, dim)]`.
    pub(crate) right: Mat<f64>,
}

/// The thin singular value decomposition of `rows` `[n, dim]`, or `None` if it does not converge.
pub(crate) fn thin_svd(rows: &[f64], dim: usize) -> Option<Svd> {
    let rows = MatRef::from_row_major_slice(rows, rows.len() / dim, dim);
    let rank = rows.nrows().min(dim);
    let mut left = Mat::zeros(rows.nrows(), rank);
    let mut right = Mat::zeros(dim, rank);
    let mut values = faer::Col::zeros(rank);
    let params = Spec::new(Auto::<f64>::auto());
    let vectors = ComputeSvdVectors::Thin;
    let mut memory = MemBuffer::new(svd_scratch::<f64>(rows.nrows(), dim, vectors, vectors, Par::Seq, params));
    let stack = MemStack::new(&mut memory);
    let diagonal = values.as_mut().as_diagonal_mut();
    svd(rows, diagonal, Some(left.as_mut()), Some(right.as_mut()), Par::Seq, stack, params).ok()?;
    let values: Vec<f64> = values.iter().copied().collect();
    values.iter().all(|value| value.is_finite()).then_some(Svd { left, values, right })
}

/// Eigenvalues (descending) and eigenvectors of a symmetric matrix.
pub(crate) struct Eigen {
    /// Descending.
    pub(crate) values: Vec<f64>,
    /// `[dim, dim]`, a vector in each column.
    pub(crate) vectors: Mat<f64>,
}

/// The eigenvalues and eigenvectors of the symmetric matrix with the lower triangle in `matrix`, or `None` if the
/// iteration does not converge.
pub(crate) fn symmetric_eigen(matrix: MatRef<'_, f64>) -> Option<Eigen> {
    let dim = matrix.nrows();
    let mut ascending = faer::Col::zeros(dim);
    let mut vectors = Mat::zeros(dim, dim);
    let params = Spec::new(Auto::<f64>::auto());
    let scratch = self_adjoint_evd_scratch::<f64>(dim, ComputeEigenvectors::Yes, Par::Seq, params);
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    let diagonal = ascending.as_mut().as_diagonal_mut();
    self_adjoint_evd(matrix, diagonal, Some(vectors.as_mut()), Par::Seq, stack, params).ok()?;
    let values: Vec<f64> = ascending.iter().rev().copied().collect();
    let vectors = vectors.as_ref().reverse_cols().to_owned();
    values.iter().all(|value| value.is_finite()).then_some(Eigen { values, vectors })
}

/// Scores `rows - mean` in chunks: `distance` gets a column-major `[dim, CHUNK]` matrix, a row of features in each
/// column, and returns one number per column.
pub(crate) fn score_chunks(
    rows: ArrayView2<'_, f32>,
    mean: &[f64],
    distance: impl Fn(MatMut<'_, f64>) -> [f64; CHUNK] + Sync,
) -> Vec<f64> {
    let dim = mean.len();
    let mut scores = vec![0.0f64; rows.nrows()];
    scores.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, scores)| {
        let mut buffer = vec![0.0f64; dim * CHUNK];
        for (offset, column) in buffer.chunks_exact_mut(dim).take(scores.len()).enumerate() {
            for ((target, value), mean) in column.iter_mut().zip(rows.row(chunk * CHUNK + offset)).zip(mean) {
                *target = f64::from(*value) - mean;
            }
        }
        let found = distance(MatMut::from_column_major_slice_mut(&mut buffer, dim, CHUNK));
        scores.copy_from_slice(&found[..scores.len()]);
    });
    scores
}

/// The sum of weighted squares of each column, then the square root.
pub(crate) fn column_norms(columns: MatRef<'_, f64>, weight: impl Fn(usize) -> f64) -> [f64; CHUNK] {
    std::array::from_fn(|column| {
        let squares = columns.col(column).iter().enumerate().map(|(i, value)| value * value * weight(i));
        squares.sum::<f64>().sqrt()
    })
}
