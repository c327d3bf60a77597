//! An affine subspace, and the distance of rows from it.

use faer::linalg::matmul::matmul;
use faer::prelude::{Reborrow, ReborrowMut};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::ScorerError;
use crate::moments::center_into;
use crate::scorer::{State, Tensor, check_rows};

/// Rows that are projected at once. Short blocks are padded with zeros, so that every row goes through the same
/// operations regardless of the others.
const BLOCK: usize = 32;

/// The tolerance for the length of stored directions: far more than rounding, far less than would change a decision.
const UNIT: f64 = 1e-6;

/// The stored directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Basis {
    /// Those of the subspace: a row is projected on them and compared with its projection.
    Kept,
    /// Those left out: the projection on them is the distance, or the monitored part of it.
    LeftOut,
}

/// A point, orthonormal directions, and their meaning.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    /// Subtracted from each row, `[dim]`.
    pub(super) center: Vec<f64>,
    /// The positive divisors of the centered columns, if any.
    pub(super) scale: Option<Vec<f64>>,
    pub(super) basis: Basis,
    /// `[dim, m]`, orthonormal columns.
    pub(super) directions: Mat<f64>,
    /// The variances along the directions, if projections are standardized.
    pub(super) variances: Option<Vec<f64>>,
}

impl Affine {
    /// The subspace of the first `kept` of the orthonormal `directions` `[dim, m]`, of which there are `dim` if they
    /// span the space. Stores the kept or the remaining directions, whichever is less work.
    pub(super) fn of_leading(center: Vec<f64>, directions: MatRef<'_, f64>, kept: usize) -> Self {
        let (dim, known) = directions.shape();
        // Comparing with the projection takes two products, projecting on the rest one.
        let basis = if known == dim && dim - kept <= 2 * kept || kept == 0 { Basis::LeftOut } else { Basis::Kept };
        let directions = match basis {
            Basis::Kept => directions.subcols(0, kept).to_owned(),
            Basis::LeftOut => directions.subcols(kept, dim - kept).to_owned(),
        };
        Self { center, scale: None, basis, directions, variances: None }
    }

    pub(super) fn dim(&self) -> usize {
        self.center.len()
    }

    /// The distances of rows `[n, dim]` from the subspace.
    pub(super) fn distances(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        let dim = self.dim();
        check_rows(rows, dim)?;
        let mut distances = vec![0.0f64; rows.nrows()];
        distances.par_chunks_mut(BLOCK).enumerate().for_each_init(
            || (vec![0.0f64; BLOCK * dim], Mat::zeros(self.directions.ncols(), BLOCK)),
            |(buffer, projected), (block, distances)| {
                self.load(rows, block, buffer);
                self.distances_of_block(buffer, projected.as_mut(), distances);
            },
        );
        Ok(distances)
    }

    /// The projections of rows `[n, dim]` on the directions, `[n, m]`.
    pub(super) fn projections(&self, rows: ArrayView2<'_, f32>) -> Result<Array2<f32>, ScorerError> {
        let (dim, count) = self.directions.shape();
        check_rows(rows, dim)?;
        let mut projections = Array2::zeros((rows.nrows(), count));
        let blocks = projections.as_slice_mut().unwrap_or_default().par_chunks_mut(BLOCK * count);
        blocks.enumerate().for_each_init(
            || (vec![0.0f64; BLOCK * dim], Mat::zeros(count, BLOCK)),
            |(buffer, projected), (block, target)| {
                self.load(rows, block, buffer);
                self.project(buffer, projected.as_mut());
                for (target, column) in target.chunks_exact_mut(count).zip(projected.col_iter()) {
                    target.iter_mut().zip(column.iter()).for_each(|(target, value)| *target = *value as f32);
                }
            },
        );
        match projections.outer_iter().position(|row| row.iter().any(|value| !value.is_finite())) {
            Some(row) => {
                let reason = format!("row {row} is beyond the range of single precision");
                Err(ScorerError::Numerical { what: "the projection", reason })
            }
            None => Ok(projections),
        }
    }

    /// Fills `buffer` with a block of rows, centered and scaled, and with zeros beyond the last row.
    fn load(&self, rows: ArrayView2<'_, f32>, block: usize, buffer: &mut [f64]) {
        let (first, dim) = (block * BLOCK, self.dim());
        let (filled, rest) = buffer.split_at_mut(BLOCK.min(rows.nrows() - first) * dim);
        center_into(rows, first, &self.center, filled);
        if let Some(scale) = &self.scale {
            for row in filled.chunks_exact_mut(dim) {
                row.iter_mut().zip(scale).for_each(|(value, scale)| *value /= scale);
            }
        }
        rest.fill(0.0);
    }

    /// Projects a block on the directions.
    fn project(&self, block: &[f64], projected: MatMut<'_, f64>) {
        // The rows are the columns of a column-major matrix.
        let columns = MatRef::from_column_major_slice(block, self.dim(), BLOCK);
        matmul(projected, Accum::Replace, self.directions.transpose(), columns, 1.0, Par::Seq);
    }

    fn distances_of_block(&self, buffer: &mut [f64], mut projected: MatMut<'_, f64>, distances: &mut [f64]) {
        let dim = self.dim();
        self.project(buffer, projected.rb_mut());
        match self.basis {
            Basis::Kept => {
                let columns = MatMut::from_column_major_slice_mut(buffer, dim, BLOCK);
                matmul(columns, Accum::Add, self.directions.as_ref(), projected.rb(), -1.0, Par::Seq);
                for (distance, rest) in distances.iter_mut().zip(buffer.chunks_exact(dim)) {
                    *distance = rest.iter().map(|value| value * value).sum::<f64>().sqrt();
                }
            }
            Basis::LeftOut => {
                for (distance, column) in distances.iter_mut().zip(projected.rb().col_iter()) {
                    let squares = column.iter().map(|value| value * value);
                    let squares: f64 = match &self.variances {
                        None => squares.sum(),
                        Some(variances) => squares.zip(variances).map(|(square, variance)| square / variance).sum(),
                    };
                    *distance = squares.sqrt();
                }
            }
        }
    }

    /// Its tensors by name.
    pub(super) fn tensors(&self) -> Vec<(&'static str, Tensor)> {
        let (dim, count) = self.directions.shape();
        let directions = self.directions.col_iter().flat_map(|column| column.iter().copied().collect::<Vec<_>>());
        let mut tensors = vec![
            ("centre", Tensor::f64([dim], self.center.clone())),
            ("directions", Tensor::f64([count, dim], directions.collect())),
        ];
        if let Some(scale) = &self.scale {
            tensors.push(("scale", Tensor::f64([dim], scale.clone())));
        }
        if let Some(variances) = &self.variances {
            tensors.push(("variance", Tensor::f64([count], variances.clone())));
        }
        tensors
    }

    /// Reads the [`tensors`](Self::tensors); the settings determine whether there are scales and variances.
    pub(super) fn from_state(state: &State, basis: Basis, scaled: bool, weighted: bool) -> Result<Self, ScorerError> {
        let mut names = vec!["centre", "directions"];
        names.extend(scaled.then_some("scale"));
        names.extend(weighted.then_some("variance"));
        state.expect_only(&names)?;
        let [dim] = state.shape("centre")?;
        let [count, _] = state.shape("directions")?;
        if count > dim {
            return Err(state.tensor_error("directions", format!("{count} directions in {dim} dimensions")));
        }
        let directions = state.read_f64("directions", [count, dim])?;
        for (at, direction) in directions.chunks_exact(dim).enumerate() {
            let length = direction.iter().map(|value| value * value).sum::<f64>().sqrt();
            if (length - 1.0).abs() > UNIT {
                return Err(state.tensor_error("directions", format!("direction {at} has length {length}, not 1")));
            }
        }
        let positive = |name: &str, len: usize| {
            let values = state.read_f64(name, [len])?;
            match values.iter().position(|value| *value <= 0.0) {
                Some(at) => Err(state.tensor_error(name, format!("number {at} is not positive"))),
                None => Ok(values.to_vec()),
            }
        };
        Ok(Self {
            center: state.read_f64("centre", [dim])?.to_vec(),
            scale: if scaled { Some(positive("scale", dim)?) } else { None },
            basis,
            directions: MatRef::from_column_major_slice(directions, dim, count).to_owned(),
            variances: if weighted { Some(positive("variance", count)?) } else { None },
        })
    }
}
