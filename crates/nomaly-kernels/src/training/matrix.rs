//! Products of small matrices that lie in a cache.
//!
//! The right operand is packed in panels of two vectors of columns, `[panel][depth][2 lanes]`; the left one is read
//! where it is, row by row or, for a product with its transpose, column by column. A tile holds its sums in registers
//! over the whole depth, while the panel stays in the first-level cache.

use crate::neighbours::tile::tile_rows;
use crate::simd::{Kernel, Simd};

/// The left operand: element (row, step of the sum) is at `start + row * row_step + step` or, transposed, at
/// `start + step * row_step + row`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    /// Distance between rows as they lie in memory.
    pub(super) row_step: usize,
    pub(super) transposed: bool,
}

/// `result = left × right`, or `result += left × right`.
#[derive(Debug)]
pub(super) struct Product<'a> {
    pub(super) left: Left<'a>,
    /// Packed by [`pack_rows`], or by [`pack_panels`](crate::neighbours::tile::pack_panels) for the product with the
    /// transpose.
    pub(super) right: &'a [f32],
    /// Rows of the result; a multiple of the height of a tile.
    pub(super) rows: usize,
    /// Terms of each sum.
    pub(super) depth: usize,
    /// Columns of the result; a multiple of two vectors.
    pub(super) columns: usize,
    /// `[rows, columns]` with `step` values from row to row.
    pub(super) result: &'a mut [f32],
    pub(super) step: usize,
    /// Whether the product is added to the result.
    pub(super) add: bool,
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // The height of the tile must be a constant of the function that holds it in registers.
        match tile_rows(S::COLUMNS) {
            14 => self.tiles::<S, 14>(s),
            6 => self.tiles::<S, 6>(s),
            4 => self.tiles::<S, 4>(s),
            _ => self.tiles::<S, 2>(s),
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const M: usize>(self, s: S) {
        let Self { left, right, rows, depth, columns, result, step, add } = self;
        let width = 2 * S::LANES;
        assert!(rows.is_multiple_of(M) && columns.is_multiple_of(width) && columns <= step);
        assert!(right.len() >= columns * depth && result.len() >= rows * step);
        let (outer, inner) = if left.transposed { (depth, rows) } else { (rows, depth) };
        assert!(inner <= left.row_step && left.values.len() >= outer * left.row_step);
        for panel in 0..columns / width {
            for row in (0..rows).step_by(M) {
                // SAFETY: by the assertions above, every element of the left operand, of the panel and of the tile lies
                // inside its slice.
                unsafe {
                    let panel_at = right.as_ptr().add(panel * width * depth);
                    let to = result.as_mut_ptr().add(row * step + panel * width);
                    if left.transposed {
                        let from = left.values.as_ptr().add(row);
                        tile::<S, M>(s, depth, from, [1, left.row_step], panel_at, to, step, add);
                    } else {
                        let from = left.values.as_ptr().add(row * left.row_step);
                        tile::<S, M>(s, depth, from, [left.row_step, 1], panel_at, to, step, add);
                    }
                }
            }
        }
    }
}

/// M × 2 vectors of sums of `depth` products.
///
/// # Safety
/// `left` must be valid for reading at M multiples of the first step plus `depth` multiples of the second, `right` for
/// `2 · LANES · depth` values, and `to` for reading and writing `2 · LANES` values at each of M multiples of `step`.
#[inline(always)]
unsafe fn tile<S: Simd, const M: usize>(
    s: S,
    depth: usize,
    left: *const f32,
    [row_step, depth_step]: [usize; 2],
    right: *const f32,
    to: *mut f32,
    step: usize,
    add: bool,
) {
    let mut sums = [[s.splat(0.0); 2]; M];
    // SAFETY: every offset below stays within what the caller promises.
    unsafe {
        if add {
            for m in 0..M {
                sums[m] = [s.load(to.add(m * step)), s.load(to.add(m * step + S::LANES))];
            }
        }
        let (mut left, mut right) = (left, right);
        for _ in 0..depth {
            let (low, high) = (s.load(right), s.load(right.add(S::LANES)));
            for m in 0..M {
                let value = s.splat(*left.add(m * row_step));
                sums[m] = [s.fma(value, low, sums[m][0]), s.fma(value, high, sums[m][1])];
            }
            left = left.wrapping_add(depth_step);
            right = right.add(2 * S::LANES);
        }
        for m in 0..M {
            s.store(to.add(m * step), sums[m][0]);
            s.store(to.add(m * step + S::LANES), sums[m][1]);
        }
    }
}

/// Packs rows of `dim` values, one for each step of the sum, in panels of `width` columns, filled up with zeros.
pub(super) fn pack_rows(rows: &[f32], dim: usize, width: usize, packed: &mut [f32]) {
    let depth = rows.len() / dim;
    for (panel, packed) in packed.chunks_exact_mut(width * depth).enumerate() {
        let columns = panel * width..dim.min((panel + 1) * width);
        for (row, packed) in rows.chunks_exact(dim).zip(packed.chunks_exact_mut(width)) {
            packed[..columns.len()].copy_from_slice(&row[columns.clone()]);
            packed[columns.len()..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::neighbours::tile::pack_panels;
    use crate::simd::Token;

    /// Small integers, whose products are exact.
    fn integers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 11) % 13) as f32 - 6.0).collect()
    }

    #[test]
    fn products_are_those_of_loops() {
        for isa in Isa::available() {
            let token = Token::new(isa).expect("available");
            let (height, width) = (tile_rows(token.columns()), 2 * isa.lanes());
            let (rows, depth, dim) = (2 * height, 9, width + 3);
            let columns = 2 * width;
            let matrix = integers(depth * dim, 1);
            let turned: Vec<f32> = (0..dim * depth).map(|i| matrix[i % depth * dim + i / depth]).collect();
            let mut packed = [vec![f32::NAN; columns * depth], vec![f32::NAN; columns * depth]];
            pack_rows(&matrix, dim, width, &mut packed[0]);
            pack_panels(token, &turned, &vec![1.0; dim], depth, depth, width, &mut packed[1]);
            assert_eq!(packed[0], packed[1], "{isa}");
            for transposed in [false, true] {
                let row_step = if transposed { rows + 1 } else { depth + 2 };
                let left = integers(row_step * if transposed { depth } else { rows }, 2);
                for add in [false, true] {
                    let step = columns + 5;
                    let mut result = vec![1.0; rows * step];
                    let left = Left { values: &left, row_step, transposed };
                    let right = &packed[0];
                    token.dispatch(Product { left, right, rows, depth, columns, result: &mut result, step, add });
                    for row in 0..rows {
                        for column in 0..dim {
                            let at = |k| if transposed { k * row_step + row } else { row * row_step + k };
                            let term = |k: usize| left.values[at(k)] * matrix[k * dim + column];
                            let sum: f32 = (0..depth).map(term).sum();
                            let want = if add { sum + 1.0 } else { sum };
                            assert_eq!(result[row * step + column], want, "{isa} {transposed} {add} {row} {column}");
                        }
                    }
                }
            }
        }
    }
}
