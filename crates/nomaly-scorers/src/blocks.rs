//! Centered rows in blocks, in double precision, for matrix products.

use ndarray::{ArrayView2, CowArray, Ix2};

/// Rows of features that are read block by block. Only the current block is held in double precision.
pub(crate) struct BlockRows<'a> {
    /// `[n, dim]`, in standard layout.
    values: CowArray<'a, f32, Ix2>,
    /// Subtracted from each row, `[dim]`.
    center: Vec<f64>,
}

impl<'a> BlockRows<'a> {
    /// Rows `[n, dim]`, read less `center` `[dim]`.
    pub(crate) fn new(rows: ArrayView2<'a, f32>, center: Vec<f64>) -> Self {
        let values =
            if rows.is_standard_layout() { rows.into() } else { rows.as_standard_layout().into_owned().into() };
        Self { values, center }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.nrows()
    }

    pub(crate) fn dim(&self) -> usize {
        self.center.len()
    }

    pub(crate) fn center(&self) -> &[f64] {
        &self.center
    }

    /// Fills `block`, a whole number of rows, with the rows from `first` on and with zeros where there are no more.
    pub(crate) fn load(&self, first: usize, block: &mut [f64]) {
        let dim = self.dim();
        let all = self.values.as_slice().unwrap_or_default();
        let values = &all[first * dim..all.len().min(first * dim + block.len())];
        for (target, values) in block.chunks_exact_mut(dim).zip(values.chunks_exact(dim)) {
            for ((target, value), center) in target.iter_mut().zip(values).zip(&self.center) {
                *target = f64::from(*value) - center;
            }
        }
        block[values.len()..].fill(0.0);
    }

    /// One row, `[dim]`.
    pub(crate) fn row(&self, index: usize) -> Vec<f64> {
        let mut row = vec![0.0; self.dim()];
        self.load(index, &mut row);
        row
    }

    /// The mean over the columns of the mean square of a column, which is its variance about the center.
    pub(crate) fn mean_variance(&self) -> f64 {
        let mut row = vec![0.0; self.dim()];
        let mut sum = 0.0;
        for index in 0..self.len() {
            self.load(index, &mut row);
            sum += row.iter().map(|value| value * value).sum::<f64>();
        }
        sum / self.len() as f64 / self.dim() as f64
    }
}
