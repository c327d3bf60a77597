//! The Gaussian kernel `exp(-‖a - b‖²)` of many pairs of rows, and weighted sums of it.
//!
//! The problem: kernel machines evaluate hundreds of millions of exponentials of squared distances. Pair by pair that
//! runs at the speed of loads and of a scalar exponential.
//!
//! The design: `‖a - b‖² = ‖a‖² + ‖b‖² - 2 a·b` turns a block of pairs into a matrix product in
//! registers, and the exponential is a polynomial on whole vectors. The form cancels where rows lie far from the
//! origin: a squared distance is off by about `f32::EPSILON · (‖a‖² + ‖b‖²)`, so rows should be centred, and
//! scaled by the square root of the kernel's `γ`. Lengths are added up in the order of the products, so that equal
//! rows are at distance 0 and the kernel is symmetric, both to the last bit.
//!
//! ```
//! use nomaly_kernels::isa::Isa;
//! use nomaly_kernels::rbf::RbfBank;
//!
//! let bank = RbfBank::new(&[0.0, 0.0, 3.0, 4.0], 2, Isa::best()?)?; // 2 rows of 2
//! let sums = bank.weighted_sums(&[0.5, 2.0], &[0.0, 1.0])?; // exp(-1) / 2 + 2 exp(-18)
//! assert!((sums[0] - 0.183_94).abs() < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use rayon::prelude::*;

use crate::isa::{Isa, IsaError};
use crate::neighbours::tile::{Dots, QUERY_ROWS, pack, tile_rows};
use crate::simd::{Kernel, Simd, Token, exp_of_negative};

/// Rows of the bank whose products are held at a time. A multiple of the width of every panel.
const BLOCK: usize = 256;

/// Rows of the bank that one task sums over. A multiple of [`BLOCK`].
const STRETCH: usize = 16 * BLOCK;

/// Why kernel values cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RbfError {
    /// The instruction set is not available.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// Rows without columns.
    #[error("rows of dimension 0 have no kernel")]
    NoColumns,
    /// The length of a slice does not match the rows.
    #[error("{what}: {len} numbers where {expected} are expected")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The expected length, or a divisor of it.
        expected: usize,
    },
}

/// Rows that others are compared with, packed for the product.
#[derive(Clone, Debug)]
pub struct RbfBank {
    token: Token,
    dim: usize,
    len: usize,
    /// Panels of two vectors of rows, `[panel][position][row]`, padded with zeros.
    packed: Vec<f32>,
    /// `‖row‖²`, as long as all panels.
    squares: Vec<f32>,
}

impl RbfBank {
    /// Packs `rows` `[rows, dim]`; values and squared lengths should be finite.
    ///
    /// # Errors
    /// [`RbfError`]; an empty slice is valid.
    pub fn new(rows: &[f32], dim: usize, isa: Isa) -> Result<Self, RbfError> {
        let token = Token::new(isa)?;
        let len = count_rows("rows", rows, dim)?;
        let width = 2 * isa.lanes();
        let packed = pack(token, rows, &vec![1.0; len], dim, dim, width);
        let mut squares = vec![0.0f32; packed.len() / dim];
        token.dispatch(PanelSquares { packed: &packed, dim, squares: &mut squares });
        Ok(Self { token, dim, len, packed, squares })
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The length of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The kernel of each row of `queries` `[queries, dim]` with all rows of the bank: `values[q][b]`.
    ///
    /// Works in parallel on rayon's current pool. A value depends on its two rows alone.
    ///
    /// # Errors
    /// [`RbfError`] if the length of `values` is not queries × rows of the bank.
    pub fn values(&self, queries: &[f32], values: &mut [&mut [f32]]) -> Result<(), RbfError> {
        let count = count_rows("queries", queries, self.dim)?;
        check_length("rows of kernel values", values.len(), count)?;
        for row in values.iter() {
            check_length("a row of kernel values", row.len(), self.len)?;
        }
        let queries = Queries::new(self.token, queries, self.dim);
        let mut parts: Vec<_> = values.iter_mut().map(|row| row.chunks_mut(BLOCK)).collect();
        let blocks: Vec<Vec<&mut [f32]>> =
            (0..self.len.div_ceil(BLOCK)).map(|_| parts.iter_mut().filter_map(Iterator::next).collect()).collect();
        blocks.into_par_iter().enumerate().for_each_init(Vec::new, |dots, (block, mut targets)| {
            for (first, group) in (0..count).step_by(queries.group).zip(targets.chunks_mut(queries.group)) {
                let (squares, columns) = self.multiply(&queries, first, block * BLOCK, dots);
                let rows = dots.chunks_exact(columns).zip(&queries.squares[first..]);
                for ((dots, square), target) in rows.zip(group) {
                    let bank = &squares[..target.len()];
                    self.token.dispatch(Values { dots: &dots[..target.len()], squares: bank, square: *square, target });
                }
            }
        });
        Ok(())
    }

    /// For each row of `queries` `[queries, dim]` the sum of its kernels with all rows of the bank, times their
    /// `weights`.
    ///
    /// Some hundred terms are added up in single precision, the rest in double precision, in an order that depends on
    /// the size of the bank alone. Works in parallel on rayon's current pool.
    ///
    /// # Errors
    /// [`RbfError`] unless there is one weight for each row of the bank.
    pub fn weighted_sums(&self, weights: &[f32], queries: &[f32]) -> Result<Vec<f64>, RbfError> {
        let count = count_rows("queries", queries, self.dim)?;
        check_length("weights", weights.len(), self.len)?;
        let mut padded = weights.to_vec();
        padded.resize(self.squares.len(), 0.0);
        let queries = Queries::new(self.token, queries, self.dim);
        let (groups, stretches) = (count.div_ceil(queries.group), self.len.div_ceil(STRETCH));
        let parts: Vec<Vec<f64>> = (0..groups * stretches)
            .into_par_iter()
            .map_init(Vec::new, |dots, task| {
                let (first, start) = (task / stretches * queries.group, task % stretches * STRETCH);
                let mut sums = vec![0.0f64; queries.group.min(count - first)];
                for start in (start..self.squares.len().min(start + STRETCH)).step_by(BLOCK) {
                    let (squares, columns) = self.multiply(&queries, first, start, dots);
                    let weights = &padded[start..start + columns];
                    let rows = dots.chunks_exact(columns).zip(&queries.squares[first..]);
                    for ((dots, square), sum) in rows.zip(&mut sums) {
                        *sum += self.token.dispatch(WeightedSum { dots, squares, square: *square, weights });
                    }
                }
                sums
            })
            .collect();
        let of_group = |parts: &[Vec<f64>]| {
            let sum = |at: usize| parts.iter().map(|part| part[at]).sum();
            (0..parts[0].len()).map(sum).collect::<Vec<f64>>()
        };
        if stretches == 0 {
            return Ok(vec![0.0; count]);
        }
        Ok(parts.chunks(stretches).flat_map(of_group).collect())
    }

    /// The products of a group of queries with the rows of the bank from `start` on, at most [`BLOCK`], as `dots`
    /// `[queries, columns]`; returns the squared lengths of those rows and the number of columns.
    fn multiply(&self, queries: &Queries, first: usize, start: usize, dots: &mut Vec<f32>) -> (&[f32], usize) {
        let end = self.squares.len().min(start + BLOCK);
        let columns = end - start;
        let rows = queries.group.min(queries.squares.len() - first);
        let packed = &queries.packed[first * self.dim..(first + rows) * self.dim];
        dots.resize(rows * columns, 0.0);
        let bank = &self.packed[start * self.dim..end * self.dim];
        self.token.dispatch(Dots { queries: packed, bank, depth: self.dim, columns, stride: columns, dots });
        (&self.squares[start..end], columns)
    }
}

/// Rows that are compared with a bank, packed.
struct Queries {
    /// Rows that are multiplied at a time: whole panels.
    group: usize,
    packed: Vec<f32>,
    /// `‖row‖²`, as long as all panels.
    squares: Vec<f32>,
}

impl Queries {
    fn new(token: Token, rows: &[f32], dim: usize) -> Self {
        let height = tile_rows(token.columns());
        let count = rows.len() / dim;
        let packed = pack(token, rows, &vec![1.0; count], dim, dim, height);
        let mut squares = vec![0.0f32; packed.len() / dim];
        token.dispatch(RowSquares { rows, dim, squares: &mut squares });
        Self { group: QUERY_ROWS / height * height, packed, squares }
    }
}

fn count_rows(what: &'static str, rows: &[f32], dim: usize) -> Result<usize, RbfError> {
    match rows.len().checked_div(dim) {
        None => Err(RbfError::NoColumns),
        Some(count) if count * dim == rows.len() => Ok(count),
        Some(_) => Err(RbfError::Length { what, len: rows.len(), expected: dim }),
    }
}

fn check_length(what: &'static str, len: usize, expected: usize) -> Result<(), RbfError> {
    if len == expected { Ok(()) } else { Err(RbfError::Length { what, len, expected }) }
}

/// `‖row‖²` of each row of whole panels, position by position, as the products are added up.
struct PanelSquares<'a> {
    packed: &'a [f32],
    dim: usize,
    squares: &'a mut [f32],
}

impl Kernel for PanelSquares<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { packed, dim, squares } = self;
        let width = 2 * S::LANES;
        assert!(squares.len().is_multiple_of(width) && packed.len() == squares.len() * dim);
        for (panel, squares) in packed.chunks_exact(width * dim).zip(squares.chunks_exact_mut(width)) {
            for half in [0, S::LANES] {
                let mut sum = simd.splat(0.0);
                for position in 0..dim {
                    // SAFETY: the panel has `width` values for each position, and `half + LANES <= width`.
                    let value = unsafe { simd.load(panel.as_ptr().add(position * width + half)) };
                    sum = simd.fma(value, value, sum);
                }
                // SAFETY: `half + LANES` is at most the length of `squares`.
                unsafe { simd.store(squares.as_mut_ptr().add(half), sum) };
            }
        }
    }
}

/// The same of rows that are not packed; `squares` may be longer.
struct RowSquares<'a> {
    rows: &'a [f32],
    dim: usize,
    squares: &'a mut [f32],
}

impl Kernel for RowSquares<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut lanes = [0.0f32; 16];
        assert!(S::LANES <= lanes.len());
        for (row, square) in self.rows.chunks_exact(self.dim).zip(self.squares) {
            let mut sum = simd.splat(0.0);
            for value in row {
                let value = simd.splat(*value);
                sum = simd.fma(value, value, sum);
            }
            // SAFETY: `lanes` holds at least LANES values.
            unsafe { simd.store(lanes.as_mut_ptr(), sum) };
            *square = lanes[0];
        }
    }
}

/// `exp(-(a² + b² - 2 ab))` of vectors; distances that rounding makes negative count as 0.
#[inline(always)]
fn kernel_of<S: Simd>(simd: S, square: S::V, squares: S::V, dots: S::V) -> S::V {
    let distance = simd.fma(dots, simd.splat(-2.0), simd.add(square, squares));
    exp_of_negative(simd, simd.max(simd.splat(0.0), distance))
}

/// The kernel of one query with some rows of the bank.
struct Values<'a> {
    dots: &'a [f32],
    squares: &'a [f32],
    square: f32,
    target: &'a mut [f32],
}

impl Kernel for Values<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { dots, squares, square, target } = self;
        assert!(dots.len() == target.len() && squares.len() == target.len());
        let square = simd.splat(square);
        let whole = target.len() / S::LANES * S::LANES;
        for at in (0..whole).step_by(S::LANES) {
            // SAFETY: `at + LANES` is at most the length of all three slices.
            unsafe {
                let (dots, squares) = (simd.load(dots.as_ptr().add(at)), simd.load(squares.as_ptr().add(at)));
                simd.store(target.as_mut_ptr().add(at), kernel_of(simd, square, squares, dots));
            }
        }
        let mut lanes = [0.0f32; 16];
        assert!(S::LANES <= lanes.len());
        for at in whole..target.len() {
            let value = kernel_of(simd, square, simd.splat(squares[at]), simd.splat(dots[at]));
            // SAFETY: `lanes` holds at least LANES values.
            unsafe { simd.store(lanes.as_mut_ptr(), value) };
            target[at] = lanes[0];
        }
    }
}

/// The weighted sum of the kernels of one query with whole vectors of rows of the bank.
struct WeightedSum<'a> {
    dots: &'a [f32],
    squares: &'a [f32],
    square: f32,
    weights: &'a [f32],
}

impl Kernel for WeightedSum<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f64 {
        let Self { dots, squares, square, weights } = self;
        let len = weights.len();
        assert!(len.is_multiple_of(2 * S::LANES) && dots.len() == len && squares.len() == len);
        let square = simd.splat(square);
        let mut sums = [simd.splat(0.0); 2];
        for at in (0..len).step_by(2 * S::LANES) {
            for half in 0..2 {
                let at = at + half * S::LANES;
                // SAFETY: `at + LANES <= len`, the length of all three slices.
                let (dots, squares, weights) = unsafe {
                    let from = |slice: &[f32]| simd.load(slice.as_ptr().add(at));
                    (from(dots), from(squares), from(weights))
                };
                sums[half] = simd.fma(weights, kernel_of(simd, square, squares, dots), sums[half]);
            }
        }
        let mut lanes = [0.0f32; 16];
        assert!(S::LANES <= lanes.len());
        // SAFETY: `lanes` holds at least LANES values.
        unsafe { simd.store(lanes.as_mut_ptr(), simd.add(sums[0], sums[1])) };
        lanes[..S::LANES].iter().map(|lane| f64::from(*lane)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudorandom values in -1 … 1, scaled.
    fn noise(len: usize, seed: u64, scale: f32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let step = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
        };
        (0..len).map(step).collect()
    }

    fn definition(a: &[f32], b: &[f32]) -> f64 {
        (-a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>()).exp()
    }

    fn values(bank: &RbfBank, queries: &[f32]) -> Vec<Vec<f32>> {
        let mut values = vec![vec![0.0f32; bank.len()]; queries.len() / bank.dim()];
        let mut slices: Vec<&mut [f32]> = values.iter_mut().map(Vec::as_mut_slice).collect();
        bank.values(queries, &mut slices).unwrap();
        values
    }

    /// Squared lengths here are below 8, so that a distance is off by some units of 8 · 2^-24; the exponential adds
    /// 2.5 units of its own.
    const TOLERANCE: f64 = 4e-6;

    #[test]
    fn values_and_sums_are_those_of_the_definition() {
        for isa in Isa::available() {
            for (rows, queries, dim) in [(1, 1, 1), (300, 5, 3), (517, 130, 40), (BLOCK, 7, 300), (STRETCH + 9, 2, 4)] {
                let scale = 2.0 / (dim as f32).sqrt();
                let (bank_rows, query_rows) = (noise(rows * dim, 1, scale), noise(queries * dim, 2, scale));
                let weights = noise(rows, 3, 1.0);
                let bank = RbfBank::new(&bank_rows, dim, isa).unwrap();
                let sums = bank.weighted_sums(&weights, &query_rows).unwrap();
                for ((query, values), sum) in query_rows.chunks(dim).zip(values(&bank, &query_rows)).zip(&sums) {
                    let mut want_sum = 0.0;
                    for ((row, value), weight) in bank_rows.chunks(dim).zip(values).zip(&weights) {
                        let want = definition(query, row);
                        assert!((f64::from(value) - want).abs() <= TOLERANCE, "{isa} {rows} {dim}: {value}, {want}");
                        want_sum += want * f64::from(*weight);
                    }
                    let slack = TOLERANCE * (rows as f64).max(1.0);
                    assert!((sum - want_sum).abs() <= slack, "{isa} {rows} {dim}: sum {sum}, expected {want_sum}");
                }
            }
        }
    }

    #[test]
    fn equal_rows_have_kernel_one_and_the_kernel_is_symmetric() {
        for isa in Isa::available() {
            let rows = noise(270 * 70, 4, 1.0);
            let values = values(&RbfBank::new(&rows, 70, isa).unwrap(), &rows);
            for i in 0..270 {
                assert_eq!(values[i][i], 1.0, "{isa}");
                for j in 0..i {
                    assert_eq!(values[i][j], values[j][i], "{isa} {i} {j}");
                }
            }
        }
    }

    #[test]
    fn neither_company_nor_threads_change_a_bit() {
        let (rows, queries) = (noise(9000 * 6, 5, 1.0), noise(250 * 6, 6, 1.0));
        let weights = noise(9000, 7, 1.0);
        for isa in Isa::available() {
            let bank = RbfBank::new(&rows, 6, isa).unwrap();
            let run = |threads: usize, queries: &[f32]| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| (bank.weighted_sums(&weights, queries).unwrap(), values(&bank, queries)))
            };
            let together = run(1, &queries);
            assert!(run(3, &queries) == together, "{isa}");
            for at in [0, 5, 107, 249] {
                let alone = run(2, &queries[at * 6..(at + 1) * 6]);
                assert!(alone.0[0] == together.0[at] && alone.1[0] == together.1[at], "{isa} query {at}");
            }
        }
    }

    #[test]
    fn nothing_and_what_does_not_fit() {
        let empty = RbfBank::new(&[], 3, Isa::Portable).unwrap();
        assert!(empty.is_empty());
        assert_eq!(empty.weighted_sums(&[], &[1.0, 2.0, 3.0]), Ok(vec![0.0]));
        assert_eq!(RbfBank::new(&[1.0], 0, Isa::Portable).unwrap_err(), RbfError::NoColumns);
        let bank = RbfBank::new(&[0.0; 6], 3, Isa::Portable).unwrap();
        assert!(bank.weighted_sums(&[], &[]).is_err());
        assert_eq!(bank.weighted_sums(&[1.0, 1.0], &[]), Ok(vec![]));
        let error = bank.weighted_sums(&[1.0, 1.0], &[0.0; 4]).unwrap_err();
        assert_eq!(error.to_string(), "queries: 4 numbers where 3 are expected");
        assert!(bank.values(&[0.0; 3], &mut [&mut [0.0; 3]]).is_err());
        assert!(RbfBank::new(&[0.0; 4], 3, Isa::Portable).is_err());
    }
}
