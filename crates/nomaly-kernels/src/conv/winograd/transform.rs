//! The small linear maps of Winograd's algorithm, on vectors of channels.
//!
//! A one-dimensional F(m, 3) computes m outputs of a filter with three taps by m + 2 multiplications: `y = Aᵀ (G g
//! ⊙ Bᵀ d)`; in two dimensions each map is applied to columns and then to rows (Lavin and Gray 2016, "Fast
//! Algorithms for Convolutional Neural Networks", section 4). The maps follow from the points at which polynomials are
//! evaluated: 0, ±1, ∞ for m = 2, and 0, ±√½, ±√2, ∞ for m = 4. Unlike the integers 0, ±1, ±2, these
//! points keep the largest and the smallest factor of each map close to each other, which keeps the rounding error
//! small (Barabasz et al. 2020, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
//! Networks").

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};

use crate::simd::Simd;

/// The side of an input tile for an output tile of side `outputs`: 4 or 6.
pub(super) const fn side(outputs: usize) -> usize {
    outputs + 2
}

/// `Bᵀ d`, for T = 4 or 6 values.
#[inline(always)]
fn input<S: Simd, const T: usize>(s: S, d: [S::V; T]) -> [S::V; T] {
    let mut t = d;
    if T == 4 {
        t[0] = s.sub(d[0], d[2]);
        t[1] = s.add(d[1], d[2]);
        t[2] = s.sub(d[2], d[1]);
        t[3] = s.sub(d[1], d[3]);
    } else {
        let (near, far) = (s.splat(FRAC_1_SQRT_2), s.splat(-SQRT_2));
        let (two, half, center) = (s.splat(-2.0), s.splat(-0.5), s.splat(-2.5));
        let even = s.fma(d[2], two, d[4]);
        let odd = s.fma(d[1], far, s.mul(d[3], near));
        let even_far = s.fma(d[2], half, d[4]);
        let odd_far = s.sub(s.mul(d[3], s.splat(SQRT_2)), s.mul(d[1], near));
        t[0] = s.fma(d[2], center, s.add(d[0], d[4]));
        t[1] = s.add(even, odd);
        t[2] = s.sub(even, odd);
        t[3] = s.add(even_far, odd_far);
        t[4] = s.sub(even_far, odd_far);
        t[5] = s.fma(d[3], center, s.add(d[1], d[5]));
    }
    t
}

/// `Aᵀ m`, from T values to the first T - 2 of the result.
#[inline(always)]
fn output<S: Simd, const T: usize>(s: S, m: [S::V; T]) -> [S::V; T] {
    let mut y = m;
    if T == 4 {
        y[0] = s.add(m[0], s.add(m[1], m[2]));
        y[1] = s.sub(m[1], s.add(m[2], m[3]));
    } else {
        let (sum, difference) = (s.add(m[1], m[2]), s.sub(m[1], m[2]));
        let (sum_far, difference_far) = (s.add(m[3], m[4]), s.sub(m[3], m[4]));
        y[0] = s.add(m[0], s.add(sum, sum_far));
        y[1] = s.fma(difference_far, s.splat(SQRT_2), s.mul(difference, s.splat(FRAC_1_SQRT_2)));
        y[2] = s.fma(sum_far, s.splat(2.0), s.mul(sum, s.splat(0.5)));
        let near = s.fma(difference, s.splat(FRAC_1_SQRT_2 / 2.0), m[5]);
        y[3] = s.fma(difference_far, s.splat(2.0 * SQRT_2), near);
    }
    y
}

/// `Bᵀ d B` of a T x T tile at `from`, whose rows and columns are `row` and `S::LANES` values apart; value `(y, x)`
/// goes to `to + (y * T + x) * stride`.
///
/// # Safety
/// All these places must be valid.
#[inline(always)]
pub(super) unsafe fn load<S: Simd, const T: usize>(s: S, from: *const f32, row: usize, to: *mut f32, stride: usize) {
    let zero = s.splat(0.0);
    let mut tile = [[zero; T]; T];
    // SAFETY: the caller's promise.
    unsafe {
        for x in 0..T {
            let mut column = [zero; T];
            for y in 0..T {
                column[y] = s.load(from.add(y * row + x * S::LANES));
            }
            let column = input(s, column);
            for y in 0..T {
                tile[y][x] = column[y];
            }
        }
        for y in 0..T {
            let line = input(s, tile[y]);
            for x in 0..T {
                s.store(to.add((y * T + x) * stride), line[x]);
            }
        }
    }
}

/// `Aᵀ m A` of the T x T values at `from + (y * T + x) * stride`; the result is the upper left part, T - 2 by T - 2.
///
/// # Safety
/// All these places must be valid.
#[inline(always)]
pub(super) unsafe fn gather<S: Simd, const T: usize>(s: S, from: *const f32, stride: usize) -> [[S::V; T]; T] {
    let zero = s.splat(0.0);
    let mut tile = [[zero; T]; T];
    // SAFETY: the caller's promise.
    unsafe {
        for x in 0..T {
            let mut column = [zero; T];
            for y in 0..T {
                column[y] = s.load(from.add((y * T + x) * stride));
            }
            let column = output(s, column);
            for y in 0..T - 2 {
                tile[y][x] = column[y];
            }
        }
    }
    for y in 0..T - 2 {
        tile[y] = output(s, tile[y]);
    }
    tile
}

/// `G g Gᵀ` of a 3 x 3 filter: the first `side(outputs)`² values, row by row.
pub(super) fn filter(outputs: usize, g: &[f32]) -> [f64; 36] {
    let root = std::f64::consts::SQRT_2;
    let map: &[[f64; 3]] = if outputs == 2 {
        &[[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]]
    } else {
        &[
            [1.0, 0.0, 0.0],
            [-2.0 / 3.0, -root / 3.0, -1.0 / 3.0],
            [-2.0 / 3.0, root / 3.0, -1.0 / 3.0],
            [1.0 / 6.0, root / 6.0, 1.0 / 3.0],
            [1.0 / 6.0, -root / 6.0, 1.0 / 3.0],
            [0.0, 0.0, 1.0],
        ]
    };
    let mut result = [0.0; 36];
    for (y, rows) in map.iter().enumerate() {
        // One row of G g.
        let row = [0, 1, 2].map(|x| (0..3).map(|k| rows[k] * f64::from(g[3 * k + x])).sum::<f64>());
        for (x, columns) in map.iter().enumerate() {
            result[y * map.len() + x] = (0..3).map(|k| row[k] * columns[k]).sum();
        }
    }
    result
}
