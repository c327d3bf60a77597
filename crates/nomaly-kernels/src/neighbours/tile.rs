//! The product in registers, the search for candidates in it, and the direct distance.
//!
//! Queries are packed in panels of as many rows as the register tile is high, the bank in panels of two vectors:
//! position by position the values of all rows of the panel. A tile holds its sums in registers over [`DEPTH_BLOCK`]
//! positions, while the bank's panel of that depth stays in the first-level cache and those of the queries in the
//! second.

use crate::simd::{Kernel, Simd, Token};

/// Positions that are multiplied before the sums go back to memory.
const DEPTH_BLOCK: usize = 256;

/// The most queries of a block; its sums and its packed queries stay in the second-level cache.
pub(crate) const QUERY_ROWS: usize = 112;

/// Vectors that are searched for a candidate at a time.
const GROUP: usize = 4;

/// Rows of the register tile: the highest of the heights that are compiled which the registers have room for.
pub(crate) const fn tile_rows(columns: usize) -> usize {
    match columns {
        14.. => 14,
        6..14 => 6,
        4..6 => 4,
        _ => 2,
    }
}

/// Rows in panels of `width`, `[panel][position][row]`, filled up with zeros.
///
/// If `depth` exceeds the row by one, that position is 1 for rows of factor 0 and 0 for the others.
pub(crate) fn pack(token: Token, rows: &[f32], scales: &[f32], dim: usize, depth: usize, width: usize) -> Vec<f32> {
    let mut packed = vec![0.0f32; scales.len().div_ceil(width) * width * depth];
    pack_panels(token, rows, scales, dim, depth, width, &mut packed);
    packed
}

/// [`pack`] into memory with unspecified contents.
pub(crate) fn pack_panels(
    token: Token,
    rows: &[f32],
    scales: &[f32],
    dim: usize,
    depth: usize,
    width: usize,
    packed: &mut [f32],
) {
    let panels = rows.chunks(width * dim).zip(scales.chunks(width)).zip(packed.chunks_exact_mut(width * depth));
    for ((rows, scales), packed) in panels {
        token.dispatch(PackPanel { rows, scales, dim, depth, width, packed });
    }
}

/// One panel of [`pack`].
struct PackPanel<'a> {
    rows: &'a [f32],
    scales: &'a [f32],
    dim: usize,
    depth: usize,
    width: usize,
    packed: &'a mut [f32],
}

impl Kernel for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { rows, scales, dim, depth, width, packed } = self;
        let count = scales.len();
        assert!(rows.len() == count * dim && count <= width && packed.len() == width * depth);
        // Squares of LANES rows and positions go through registers, the rest one by one.
        let (square_rows, positions) = (count / S::LANES * S::LANES, dim / S::LANES * S::LANES);
        for position in (0..positions).step_by(S::LANES) {
            for row in (0..square_rows).step_by(S::LANES) {
                // SAFETY: `row + LANES <= count` and `position + LANES <= dim`, by the assertion inside `rows`; as
                // `row + LANES <= width` and `position + LANES <= depth`, inside `packed` too.
                unsafe {
                    let from = rows.as_ptr().add(row * dim + position);
                    simd.transpose(from, dim, packed.as_mut_ptr().add(position * width + row), width);
                }
            }
            for row in square_rows..count {
                for at in position..position + S::LANES {
                    packed[at * width + row] = rows[row * dim + at];
                }
            }
        }
        for position in positions..dim {
            for row in 0..count {
                packed[position * width + row] = rows[row * dim + position];
            }
        }
        if count < width {
            packed.chunks_exact_mut(width).for_each(|position| position[count..].fill(0.0));
        }
        if scales.iter().any(|scale| *scale != 1.0) {
            for position in packed.chunks_exact_mut(width).take(dim) {
                position.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
            }
        }
        if dim < depth {
            for (row, scale) in scales.iter().enumerate() {
                packed[dim * width + row] = if *scale == 0.0 { 1.0 } else { 0.0 };
            }
        }
    }
}

/// All products of a block of queries with a block of the bank, both packed.
pub(crate) struct Dots<'a> {
    pub(crate) queries: &'a [f32],
    pub(crate) bank: &'a [f32],
    pub(crate) depth: usize,
    /// Rows of the bank with padding.
    pub(crate) columns: usize,
    /// Distance between the products of consecutive queries; at least `columns`, and preferably not a multiple of a
    /// page.
    pub(crate) stride: usize,
    /// `[queries, stride]`, of which `columns` are written.
    pub(crate) dots: &'a mut [f32],
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // The height of the tile must be a constant of the function that holds it in registers.
        match tile_rows(S::COLUMNS) {
            14 => self.tiles::<S, 14>(simd),
            6 => self.tiles::<S, 6>(simd),
            4 => self.tiles::<S, 4>(simd),
            _ => self.tiles::<S, 2>(simd),
        }
    }
}

impl Dots<'_> {
    #[inline(always)]
    fn tiles<S: Simd, const M: usize>(self, simd: S) {
        let Self { queries, bank, depth, columns, stride, dots } = self;
        let width = 2 * S::LANES;
        let (rows, panels) = (queries.len() / depth, columns / width);
        assert!(rows.is_multiple_of(M) && columns.is_multiple_of(width));
        assert!(bank.len() == columns * depth && columns <= stride && dots.len() == rows * stride);
        for start in (0..depth).step_by(DEPTH_BLOCK) {
            let length = DEPTH_BLOCK.min(depth - start);
            for panel in 0..panels {
                for row in (0..rows).step_by(M) {
                    // SAFETY: the assertions above make every panel whole: `queries` has M·depth values from
                    // row·depth on, `bank` has width·depth values from panel·width·depth on, and `dots` has M rows
                    // of `stride` values from `row` on, of which `width` are written from panel·width on.
                    unsafe {
                        tile::<S, M>(
                            simd,
                            length,
                            queries.as_ptr().add(row * depth + start * M),
                            bank.as_ptr().add((panel * depth + start) * width),
                            dots.as_mut_ptr().add(row * stride + panel * width),
                            stride,
                            start == 0,
                        );
                    }
                }
            }
        }
    }
}

/// Adds `length` products to each of M × 2 vectors of sums.
///
/// # Safety
/// `queries` must be valid for reading `M · length` values, `bank` for `2 · LANES · length`, and `sums` for reading
/// and writing `2 · LANES` values at each of M multiples of `stride`.
#[inline(always)]
unsafe fn tile<S: Simd, const M: usize>(
    simd: S,
    length: usize,
    queries: *const f32,
    bank: *const f32,
    sums: *mut f32,
    stride: usize,
    first: bool,
) {
    let mut sum = [[simd.splat(0.0); 2]; M];
    // SAFETY: every offset below stays within what the caller promises.
    unsafe {
        if !first {
            for m in 0..M {
                sum[m] = [simd.load(sums.add(m * stride)), simd.load(sums.add(m * stride + S::LANES))];
            }
        }
        let (mut query, mut row) = (queries, bank);
        for _ in 0..length {
            let (low, high) = (simd.load(row), simd.load(row.add(S::LANES)));
            for m in 0..M {
                let value = simd.splat(*query.add(m));
                sum[m] = [simd.fma(value, low, sum[m][0]), simd.fma(value, high, sum[m][1])];
            }
            query = query.add(M);
            row = row.add(2 * S::LANES);
        }
        for m in 0..M {
            simd.store(sums.add(m * stride), sum[m][0]);
            simd.store(sums.add(m * stride + S::LANES), sum[m][1]);
        }
    }
}

/// Finds the rows with `half_square - dot <= limit` and passes them on with that bound, in order.
pub(super) struct Candidates<'a> {
    pub(super) dots: &'a [f32],
    pub(super) half_squares: &'a [f32],
    pub(super) limit: f32,
    pub(super) found: &'a mut Vec<(f32, u32)>,
}

impl Kernel for Candidates<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { dots, half_squares, limit, found } = self;
        assert_eq!(dots.len(), half_squares.len());
        let group = GROUP * S::LANES;
        let mut lowest = [0.0f32; 16];
        assert!(S::LANES <= lowest.len());
        for start in (0..dots.len()).step_by(group) {
            let end = dots.len().min(start + group);
            if end - start == group {
                let mut low = simd.splat(f32::INFINITY);
                for at in (start..end).step_by(S::LANES) {
                    // SAFETY: `at + LANES <= end`, which is within both slices.
                    let (half, dot) =
                        unsafe { (simd.load(half_squares.as_ptr().add(at)), simd.load(dots.as_ptr().add(at))) };
                    low = simd.min(low, simd.sub(half, dot));
                }
                // SAFETY: `lowest` holds at least LANES values.
                unsafe { simd.store(lowest.as_mut_ptr(), low) };
                if lowest[..S::LANES].iter().all(|low| *low > limit) {
                    continue;
                }
            }
            for at in start..end {
                let bound = half_squares[at] - dots[at];
                if bound <= limit && bound < f32::INFINITY {
                    found.push((bound, at as u32));
                }
            }
        }
    }
}

/// `Σ (scale · a - other_scale · b)²`.
pub(super) struct Direct<'a> {
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) scale: f32,
    pub(super) other_scale: f32,
}

impl Kernel for Direct<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        direct(simd, self.a, self.b, self.scale, self.other_scale)
    }
}

/// [`Direct`] of each query with each of consecutive rows of the bank.
pub(super) struct DirectRows<'a> {
    pub(super) queries: &'a [f32],
    pub(super) query_scales: &'a [f32],
    pub(super) rows: &'a [f32],
    pub(super) row_scales: &'a [f32],
    pub(super) dim: usize,
    /// `[rows, queries]`.
    pub(super) squares: &'a mut [f32],
}

impl Kernel for DirectRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { queries, query_scales, rows, row_scales, dim, squares } = self;
        let rows = rows.chunks_exact(dim).zip(row_scales).zip(squares.chunks_exact_mut(query_scales.len()));
        for ((row, row_scale), squares) in rows {
            for ((query, scale), square) in queries.chunks_exact(dim).zip(query_scales).zip(squares) {
                *square = direct(simd, query, row, *scale, *row_scale);
            }
        }
    }
}

#[inline(always)]
fn direct<S: Simd>(simd: S, a: &[f32], b: &[f32], scale: f32, other_scale: f32) -> f32 {
    // Factors of 1 change no bit and need no multiplication.
    if scale == 1.0 && other_scale == 1.0 {
        sum_of_differences::<S, false>(simd, a, b, scale, other_scale)
    } else {
        sum_of_differences::<S, true>(simd, a, b, scale, other_scale)
    }
}

#[inline(always)]
fn sum_of_differences<S: Simd, const SCALED: bool>(simd: S, a: &[f32], b: &[f32], scale: f32, other_scale: f32) -> f32 {
    const SUMS: usize = 4;
    assert_eq!(a.len(), b.len());
    let (scales, other_scales) = (simd.splat(scale), simd.splat(other_scale));
    let mut sums = [simd.splat(0.0); SUMS];
    let add = |sum: S::V, at: usize| {
        // SAFETY: callers keep `at + LANES <= a.len()`, which is `b.len()` too.
        let (x, y) = unsafe { (simd.load(a.as_ptr().add(at)), simd.load(b.as_ptr().add(at))) };
        // Both products are rounded, so that equal rows of equal scale have distance 0.
        let difference = if SCALED { simd.sub(simd.mul(x, scales), simd.mul(y, other_scales)) } else { simd.sub(x, y) };
        simd.fma(difference, difference, sum)
    };
    let vectors = a.len() / S::LANES;
    let whole = vectors / SUMS * SUMS;
    for first in (0..whole).step_by(SUMS) {
        for i in 0..SUMS {
            sums[i] = add(sums[i], (first + i) * S::LANES);
        }
    }
    for vector in whole..vectors {
        sums[0] = add(sums[0], vector * S::LANES);
    }
    let total = simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]));
    let mut lanes = [0.0f32; 16];
    assert!(S::LANES <= lanes.len());
    // SAFETY: `lanes` holds at least LANES values.
    unsafe { simd.store(lanes.as_mut_ptr(), total) };
    let mut sum: f32 = lanes[..S::LANES].iter().sum();
    for at in vectors * S::LANES..a.len() {
        let difference = a[at] * scale - b[at] * other_scale;
        sum += difference * difference;
    }
    sum
}
