//! Squared distances between many rows, block by block, in double precision.
//!
//! `‖a - b‖² = ‖a‖² + ‖b‖² - 2 a·b` turns distances into a matrix product. Rows should be centered
//! first, which keeps the norms small and with them the rounding error of the subtraction; negative differences are set
//! to zero. Blocks have a fixed size and are padded with zeros, so that a row goes through the same operations
//! regardless of other rows.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Queries that are compared at once.
const QUERIES: usize = 32;
/// Rows of the bank that are compared at once.
const BANK: usize = 256;

/// Rows that others are compared with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rows {
    dim: usize,
    /// `[n, dim]`, row-major.
    values: Vec<f64>,
    /// `‖row‖²`.
    norms: Vec<f64>,
}

impl Rows {
    /// Rows `[n, dim]`, row-major, which the caller has centered.
    pub(crate) fn new(values: Vec<f64>, dim: usize) -> Self {
        let norms = values.chunks_exact(dim).map(square).collect();
        Self { dim, values, norms }
    }

    /// Folds over the squared distances of each of `queries` rows. `load` writes a query, centered alike; `start`
    /// creates its value; `step` updates it with the squared distances from the rows `first..first + distances.len()`
    /// of this bank, block by block in order; `end` turns it into the result.
    ///
    /// A result does not depend on the other queries, nor on the number of threads.
    pub(crate) fn fold<S, T: Send>(
        &self,
        queries: usize,
        load: impl Fn(usize, &mut [f64]) + Sync,
        start: impl Fn(usize) -> S + Sync,
        step: impl Fn(&mut S, usize, &[f64]) + Sync,
        end: impl Fn(S) -> T + Sync,
    ) -> Vec<T> {
        let dim = self.dim;
        let blocks = queries.div_ceil(QUERIES);
        let of_block = |block: usize| {
            let first = block * QUERIES;
            let count = QUERIES.min(queries - first);
            let mut left = vec![0.0f64; QUERIES * dim];
            for (offset, target) in left.chunks_exact_mut(dim).take(count).enumerate() {
                load(first + offset, target);
            }
            let norms: Vec<f64> = left.chunks_exact(dim).map(square).collect();
            let mut states: Vec<S> = (first..first + count).map(&start).collect();
            let mut products = vec![0.0f64; QUERIES * BANK];
            let mut distances = vec![0.0f64; BANK];
            for (part, rows) in self.values.chunks(BANK * dim).enumerate() {
                let (from, width) = (part * BANK, rows.len() / dim);
                let products = &mut products[..QUERIES * width];
                // Column-major `[bank rows, queries]`: a column holds the products of one query.
                matmul(
                    MatMut::from_column_major_slice_mut(products, width, QUERIES),
                    Accum::Replace,
                    MatRef::from_row_major_slice(rows, width, dim),
                    MatRef::from_column_major_slice(&left, dim, QUERIES),
                    1.0,
                    Par::Seq,
                );
                let bank_norms = &self.norms[from..from + width];
                for ((state, products), norm) in states.iter_mut().zip(products.chunks_exact(width)).zip(&norms) {
                    let distances = &mut distances[..width];
                    for ((distance, product), bank) in distances.iter_mut().zip(products).zip(bank_norms) {
                        *distance = (norm + bank - 2.0 * product).max(0.0);
                    }
                    step(state, from, distances);
                }
            }
            states.into_iter().map(&end).collect::<Vec<T>>()
        };
        (0..blocks).into_par_iter().map(of_block).collect::<Vec<_>>().into_iter().flatten().collect()
    }
}

fn square(row: &[f64]) -> f64 {
    row.iter().map(|value| value * value).sum()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, ArrayView2};

    use super::*;

    #[test]
    fn distances_are_those_of_the_definition_whatever_the_company() {
        for (n, m, dim) in [(1, 1, 1), (3, 300, 5), (70, 257, 64)] {
            let rows = |seed: usize, n: usize| {
                Array2::from_shape_fn((n, dim), |(i, j)| ((i * 37 + j * 101 + seed) % 97) as f32 / 7.0 + 100.0)
            };
            let (queries, bank) = (rows(1, n), rows(2, m));
            let mean = bank.mean_axis(ndarray::Axis(0)).unwrap().mapv(f64::from);
            let centered = |rows: ArrayView2<'_, f32>| -> Vec<f64> {
                rows.outer_iter().flat_map(|row| (&row.mapv(f64::from) - &mean).to_vec()).collect()
            };
            let compared = Rows::new(centered(bank.view()), dim);
            let collect = |queries: ArrayView2<'_, f32>| {
                let rows = centered(queries);
                let load = |at: usize, target: &mut [f64]| target.copy_from_slice(&rows[at * dim..][..dim]);
                let all = |all: &mut Vec<f64>, _, some: &[f64]| all.extend_from_slice(some);
                compared.fold(queries.nrows(), load, |_| Vec::new(), all, |all| all)
            };
            let found = collect(queries.view());
            for (i, found) in found.iter().enumerate() {
                for (j, found) in found.iter().enumerate() {
                    let want: f64 =
                        (0..dim).map(|k| (f64::from(queries[[i, k]]) - f64::from(bank[[j, k]])).powi(2)).sum();
                    assert!((found - want).abs() <= 1e-9 * want.max(1.0), "{i} {j}: {found} for {want}");
                }
            }
            let alone = collect(queries.slice_axis(ndarray::Axis(0), (n - 1..n).into()));
            assert_eq!(alone[0], found[n - 1]);
        }
    }
}
