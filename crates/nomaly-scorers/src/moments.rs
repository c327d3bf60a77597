//! The mean and the scatter matrix of many rows, in bounded memory and in parallel.
//!
//! Rows are taken in blocks of fixed size. The blocks are distributed over a fixed number of lanes, each of which sums
//! them in order; the lanes are added last. So the result depends on the rows alone.

use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::{ScorerError, Watch};

/// Rows that are centered and multiplied at once.
const BLOCK: usize = 512;

/// Sums that are kept side by side.
const LANES: usize = 8;

/// Up to this number of columns, each lane has its own scatter matrix.
const NARROW: usize = 256;

/// Columns of a wider scatter matrix that one task computes.
const PANEL: usize = 128;

/// The mean row; zeros if there are no rows.
pub(crate) fn mean(rows: ArrayView2<'_, f32>) -> Vec<f64> {
    let (count, dim) = rows.dim();
    let lanes: Vec<Vec<f64>> = (0..LANES)
        .into_par_iter()
        .map(|lane| {
            let mut sum = vec![0.0f64; dim];
            for index in lane_rows(lane, count) {
                let row = rows.row(index);
                match row.to_slice() {
                    Some(row) => sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value)),
                    None => sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value)),
                }
            }
            sum
        })
        .collect();
    let mut mean = vec![0.0f64; dim];
    for lane in &lanes {
        mean.iter_mut().zip(lane).for_each(|(mean, sum)| *mean += sum);
    }
    mean.iter_mut().for_each(|mean| *mean /= count.max(1) as f64);
    mean
}

/// `Σ (x - mean)(x - mean)ᵀ` over the rows `[n, dim]`, as the lower triangle of `[dim, dim]`.
///
/// # Errors
/// [`ScorerError::Cancelled`].
pub(crate) fn scatter(rows: ArrayView2<'_, f32>, mean: &[f64], watch: Watch<'_>) -> Result<Mat<f64>, ScorerError> {
    if mean.len() <= NARROW { narrow(rows, mean, watch) } else { wide(rows, mean, watch) }
}

fn narrow(rows: ArrayView2<'_, f32>, mean: &[f64], watch: Watch<'_>) -> Result<Mat<f64>, ScorerError> {
    let (count, dim) = rows.dim();
    let lanes: Vec<Mat<f64>> = (0..LANES)
        .into_par_iter()
        .map(|lane| {
            let mut sum = Mat::zeros(dim, dim);
            let mut buffer = vec![0.0f64; BLOCK * dim];
            for first in (lane * BLOCK..count).step_by(LANES * BLOCK) {
                watch.check()?;
                let block = BLOCK.min(count - first);
                let buffer = &mut buffer[..block * dim];
                center_into(rows, first, mean, buffer);
                let block = MatRef::from_row_major_slice(buffer, block, dim);
                triangular::matmul(
                    sum.as_mut(),
                    BlockStructure::TriangularLower,
                    Accum::Add,
                    block.transpose(),
                    BlockStructure::Rectangular,
                    block,
                    BlockStructure::Rectangular,
                    1.0,
                    Par::Seq,
                );
            }
            Ok(sum)
        })
        .collect::<Result<_, ScorerError>>()?;
    let mut total = Mat::zeros(dim, dim);
    for lane in &lanes {
        total += lane;
    }
    Ok(total)
}

fn wide(rows: ArrayView2<'_, f32>, mean: &[f64], watch: Watch<'_>) -> Result<Mat<f64>, ScorerError> {
    let (count, dim) = rows.dim();
    let mut total = vec![0.0f64; dim * dim];
    let mut buffer = vec![0.0f64; BLOCK.min(count) * dim];
    for first in (0..count).step_by(BLOCK) {
        watch.check()?;
        let block = BLOCK.min(count - first);
        let buffer = &mut buffer[..block * dim];
        buffer
            .par_chunks_mut(dim)
            .enumerate()
            .for_each(|(offset, target)| center_into(rows, first + offset, mean, target));
        let block = MatRef::from_row_major_slice(buffer, block, dim);
        total.par_chunks_mut(PANEL * dim).enumerate().for_each(|(panel, columns)| {
            let (first, width) = (panel * PANEL, columns.len() / dim);
            let target = MatMut::from_column_major_slice_mut(columns, dim, width).subrows_mut(first, dim - first);
            let left = block.subcols(first, dim - first).transpose();
            matmul(target, Accum::Add, left, block.subcols(first, width), 1.0, Par::Seq);
        });
    }
    Ok(MatRef::from_column_major_slice(&total, dim, dim).to_owned())
}

/// Writes the rows from `first` on, less `center`, into `target` `[n, dim]`, row-major, until it is full.
pub(crate) fn center_into(rows: ArrayView2<'_, f32>, first: usize, center: &[f64], target: &mut [f64]) {
    for (offset, target) in target.chunks_exact_mut(center.len()).enumerate() {
        let row = rows.row(first + offset);
        match row.to_slice() {
            Some(row) => subtract(row.iter(), center, target),
            None => subtract(row.iter(), center, target),
        }
    }
}

fn subtract<'a>(row: impl Iterator<Item = &'a f32>, center: &[f64], target: &mut [f64]) {
    target.iter_mut().zip(row).zip(center).for_each(|((target, value), center)| *target = f64::from(*value) - center);
}

/// The rows of a lane: every `LANES`-th block.
fn lane_rows(lane: usize, count: usize) -> impl Iterator<Item = usize> {
    (lane * BLOCK..count).step_by(LANES * BLOCK).flat_map(move |first| first..(first + BLOCK).min(count))
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    #[test]
    fn moments_are_those_of_the_definition() {
        for (n, dim) in [(1, 1), (5000, 3), (700, 300)] {
            let rows =
                Array2::from_shape_fn((n, dim), |(i, j)| ((i * 37 + j * 101 + i * j) % 97) as f32 / 7.0 + 1000.0);
            let mean = mean(rows.view());
            let columns: Vec<f64> =
                rows.columns().into_iter().map(|c| c.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64).collect();
            assert!(mean.iter().zip(&columns).all(|(got, want)| (got - want).abs() < 1e-9));
            let found = scatter(rows.view(), &mean, Watch::none()).unwrap();
            for j in (0..dim).step_by(17) {
                for i in (j..dim).step_by(13) {
                    let centered = |at: usize, k: usize| f64::from(rows[[at, k]]) - mean[k];
                    let want: f64 = (0..n).map(|at| centered(at, i) * centered(at, j)).sum();
                    assert!((found[(i, j)] - want).abs() < 1e-10 * n as f64 * 100.0, "{i} {j}: {}", found[(i, j)]);
                }
            }
        }
    }
}
