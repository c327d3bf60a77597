//! The E-step: the weighted log-densities of rows under each component, a block of rows at a time.

use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2};

use super::Covariances;
use crate::{ScorerError, linalg};

/// Rows in one block. Short blocks are padded with zeros, so that a row goes through the same operations regardless of
/// other rows.
pub(super) const BLOCK: usize = 64;

/// Rows of a whitening matrix that are multiplied at a time; most of the zeros right of the diagonal are skipped.
pub(super) const PANEL: usize = 32;

/// A mixture prepared for evaluation on rows less `center`.
pub(super) struct Density {
    pub(super) center: Vec<f64>,
    /// Means less the center, `[k, dim]`, row-major.
    pub(super) means: Vec<f64>,
    /// `ln weight - (dim ln 2π + ln det covariance) / 2` of each component.
    constants: Vec<f64>,
    form: Form,
}

enum Form {
    /// Whitening matrices `W = L⁻¹` with `covariance = L Lᵀ`, and the whitened means, `[k, dim]`.
    Full { whitening: Panels, means: Vec<f64> },
    /// One whitening matrix for all components.
    Tied { whitening: Panels, means: Vec<f64> },
    /// The squared distance as a product with `[x², x]`: `[k, 2 dim]` factors, row-major, and `Σ mean² / variance`.
    Axes { factors: Vec<f64>, offsets: Vec<f64> },
}

/// Lower triangular matrices one above the other, cut into panels of rows.
struct Panels {
    /// For each panel the rows of all matrices, `[count · height, columns]`, row-major.
    rows: Vec<Vec<f64>>,
    count: usize,
    dim: usize,
}

/// Reusable workspace of evaluations.
#[derive(Default)]
pub(super) struct Scratch {
    products: Vec<f64>,
    features: Vec<f64>,
}

impl Density {
    /// Prepares the evaluation; fails if a covariance is not positive definite.
    pub(super) fn new(
        weights: &[f64],
        means: &Array2<f64>,
        covariances: &Covariances,
        center: Vec<f64>,
    ) -> Result<Self, ScorerError> {
        let (k, dim) = means.dim();
        let shifted: Vec<f64> = means
            .rows()
            .into_iter()
            .flat_map(|row| row.iter().zip(&center).map(|(mean, center)| mean - center).collect::<Vec<_>>())
            .collect();
        let (form, log_determinants) = match covariances {
            Covariances::Full(all) => {
                let whitened = all.outer_iter().enumerate().map(|(at, one)| whitening(one, at));
                let (matrices, logs): (Vec<_>, Vec<_>) = whitened.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
                let means = matrices.iter().zip(shifted.chunks_exact(dim)).flat_map(|(w, mean)| times(w, mean));
                let means = means.collect();
                (Form::Full { whitening: Panels::new(&matrices), means }, logs)
            }
            Covariances::Tied(one) => {
                let (matrix, log) = whitening(one.view(), 0)?;
                let means = shifted.chunks_exact(dim).flat_map(|mean| times(&matrix, mean)).collect();
                (Form::Tied { whitening: Panels::new(&[matrix]), means }, vec![log; k])
            }
            Covariances::Diagonal(all) => axes(&shifted, dim, |component, column| all[[component, column]])?,
            Covariances::Spherical(all) => axes(&shifted, dim, |component, _| all[component])?,
        };
        let normalizer = dim as f64 * (2.0 * std::f64::consts::PI).ln();
        let constants =
            weights.iter().zip(log_determinants).map(|(w, log)| w.ln() - 0.5 * (normalizer + log)).collect();
        Ok(Self { center, means: shifted, constants, form })
    }

    pub(super) fn components(&self) -> usize {
        self.constants.len()
    }

    /// `ln (weight · density)` of each row of `block`, `[BLOCK, dim]` less the center, under each component:
    /// `logs` `[BLOCK, k]`.
    pub(super) fn weighted_logs(&self, block: &[f64], scratch: &mut Scratch, logs: &mut [f64]) {
        let (k, dim) = (self.components(), self.center.len());
        match &self.form {
            Form::Full { whitening, means } => {
                logs.fill(0.0);
                whitening.multiply(block, scratch, |first, height, products| {
                    for (logs, products) in logs.chunks_exact_mut(k).zip(products.chunks_exact(k * height)) {
                        for (component, (log, products)) in
                            logs.iter_mut().zip(products.chunks_exact(height)).enumerate()
                        {
                            *log += squared_distance(products, &means[component * dim + first..][..height]);
                        }
                    }
                });
            }
            Form::Tied { whitening, means } => {
                logs.fill(0.0);
                whitening.multiply(block, scratch, |first, height, products| {
                    for (logs, products) in logs.chunks_exact_mut(k).zip(products.chunks_exact(height)) {
                        for (component, log) in logs.iter_mut().enumerate() {
                            *log += squared_distance(products, &means[component * dim + first..][..height]);
                        }
                    }
                });
            }
            Form::Axes { factors, offsets } => {
                with_squares(block, dim, &mut scratch.features);
                matmul(
                    MatMut::from_column_major_slice_mut(logs, k, BLOCK),
                    Accum::Replace,
                    MatRef::from_row_major_slice(factors, k, 2 * dim),
                    MatRef::from_column_major_slice(&scratch.features, 2 * dim, BLOCK),
                    1.0,
                    Par::Seq,
                );
                for logs in logs.chunks_exact_mut(k) {
                    logs.iter_mut().zip(offsets).for_each(|(log, offset)| *log = (*log + offset).max(0.0));
                }
            }
        }
        for logs in logs.chunks_exact_mut(k) {
            logs.iter_mut().zip(&self.constants).for_each(|(log, constant)| *log = constant - 0.5 * *log);
        }
    }
}

/// Turns the weighted log-densities of a row into responsibilities and returns the logarithm of their sum.
pub(super) fn normalize(logs: &mut [f64]) -> f64 {
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for log in logs.iter_mut() {
        *log = (*log - largest).exp();
        sum += *log;
    }
    logs.iter_mut().for_each(|share| *share /= sum);
    largest + sum.ln()
}

/// The rows of a block as `[x², x]`, `[BLOCK, 2 dim]`.
pub(super) fn with_squares(block: &[f64], dim: usize, features: &mut Vec<f64>) {
    features.resize(2 * block.len(), 0.0);
    for (features, row) in features.chunks_exact_mut(2 * dim).zip(block.chunks_exact(dim)) {
        let (squares, values) = features.split_at_mut(dim);
        squares.iter_mut().zip(row).for_each(|(square, value)| *square = value * value);
        values.copy_from_slice(row);
    }
}

impl Panels {
    fn new(matrices: &[Mat<f64>]) -> Self {
        let dim = matrices[0].nrows();
        let panel = |first: usize| {
            let last = dim.min(first + PANEL);
            let rows = matrices.iter().flat_map(move |matrix| (first..last).map(move |row| (matrix, row)));
            rows.flat_map(|(matrix, row)| (0..last).map(move |column| matrix[(row, column)])).collect()
        };
        Self { rows: (0..dim).step_by(PANEL).map(panel).collect(), count: matrices.len(), dim }
    }

    /// Passes to `visit` for each panel its first row, its height, and the products of all matrices with the rows of
    /// `block`, `[BLOCK, count, height]`.
    fn multiply(&self, block: &[f64], scratch: &mut Scratch, mut visit: impl FnMut(usize, usize, &[f64])) {
        for (panel, rows) in self.rows.iter().enumerate() {
            let first = panel * PANEL;
            let last = self.dim.min(first + PANEL);
            let height = last - first;
            scratch.products.resize(self.count * height * BLOCK, 0.0);
            matmul(
                MatMut::from_column_major_slice_mut(&mut scratch.products, self.count * height, BLOCK),
                Accum::Replace,
                MatRef::from_row_major_slice(rows, self.count * height, last),
                MatRef::from_column_major_slice(block, self.dim, BLOCK).subrows(0, last),
                1.0,
                Par::Seq,
            );
            visit(first, height, &scratch.products);
        }
    }
}

/// `‖a - b‖²` in four sums, which the compiler vectorizes.
fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0f64; 4];
    let (a, b) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| (a - b) * (a - b)).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..4 {
            let difference = a[lane] - b[lane];
            sums[lane] += difference * difference;
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// The inverse of the Cholesky factor of `covariance`, and the logarithm of its determinant.
fn whitening(covariance: ArrayView2<'_, f64>, component: usize) -> Result<(Mat<f64>, f64), ScorerError> {
    let dim = covariance.nrows();
    let matrix = Mat::from_fn(dim, dim, |row, column| covariance[[row, column]]);
    let factor = linalg::cholesky(matrix).ok_or_else(|| not_positive(component))?;
    let log_determinant = 2.0 * (0..dim).map(|at| factor[(at, at)].ln()).sum::<f64>();
    let mut inverse = Mat::identity(dim, dim);
    solve_lower_triangular_in_place(factor.as_ref(), inverse.as_mut(), Par::Seq);
    Ok((inverse, log_determinant))
}

/// The product of a lower triangular matrix with a vector.
fn times(matrix: &Mat<f64>, vector: &[f64]) -> Vec<f64> {
    (0..vector.len()).map(|row| (0..=row).map(|column| matrix[(row, column)] * vector[column]).sum()).collect()
}

fn axes(means: &[f64], dim: usize, variance: impl Fn(usize, usize) -> f64) -> Result<(Form, Vec<f64>), ScorerError> {
    let k = means.len() / dim;
    let mut factors = Vec::with_capacity(2 * means.len());
    let (mut offsets, mut logs) = (vec![0.0; k], vec![0.0; k]);
    for (component, mean) in means.chunks_exact(dim).enumerate() {
        let precisions: Vec<f64> = (0..dim).map(|column| 1.0 / variance(component, column)).collect();
        if precisions.iter().any(|precision| !precision.is_finite() || *precision <= 0.0) {
            return Err(not_positive(component));
        }
        factors.extend(&precisions);
        factors.extend(precisions.iter().zip(mean).map(|(precision, mean)| -2.0 * precision * mean));
        offsets[component] = precisions.iter().zip(mean).map(|(precision, mean)| precision * mean * mean).sum();
        logs[component] = -precisions.iter().map(|precision| precision.ln()).sum::<f64>();
    }
    Ok((Form::Axes { factors, offsets }, logs))
}

fn not_positive(component: usize) -> ScorerError {
    ScorerError::Numerical {
        what: "the mixture",
        reason: format!(
            "the covariance of component {component} is not positive definite; raise `floor` or lower `components`"
        ),
    }
}
