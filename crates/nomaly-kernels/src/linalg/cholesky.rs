//! Cholesky factors and their inverses, several positions side by side.

use rayon::prelude::*;

use super::{LinalgError, check_shape, packed_len};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, Token};

/// Positions that are factorised side by side: one vector of f64 of the widest instruction set.
pub(super) const LANES: usize = 8;

/// Rows and columns of a block, whose values stay in registers while a sum runs over the rows before.
const BLOCK: usize = 4;

/// One value of each position.
type Lane = [f64; LANES];

/// Factorises the symmetric positive definite matrices `[positions, dim (dim + 1) / 2]`, each a lower triangle row by
/// row, as `L Lᵀ` and replaces each by its `L`. Computes in f64, in parallel on rayon's current pool.
///
/// # Errors
/// [`LinalgError::Empty`], [`LinalgError::Length`], [`LinalgError::Isa`]; [`LinalgError::NotPositiveDefinite`], after
/// which the contents of the matrices are unspecified.
pub fn cholesky_in_place(matrices: &mut [f32], dim: usize, isa: Isa) -> Result<(), LinalgError> {
    let token = Token::new(isa)?;
    let size = packed_len(dim);
    check_shape(matrices.len(), dim)?;
    if !matrices.len().is_multiple_of(size) {
        return Err(LinalgError::Length { what: "the matrices", expected: size, got: matrices.len() });
    }
    let groups = matrices.par_chunks_mut(LANES * size).enumerate().map_init(
        || Factors::new(dim),
        |factors, (group, matrices)| {
            factors.load(matrices, 1.0, 0.0);
            factors.factorize(token).map_err(|error| error.in_group(group))?;
            for (lane, matrix) in matrices.chunks_exact_mut(size).enumerate() {
                for row in 0..dim {
                    for column in 0..=row {
                        matrix[packed_len(row) + column] = factors.lower[row * factors.side + column][lane] as f32;
                    }
                }
            }
            Ok(())
        },
    );
    first_error(groups.collect())
}

/// The error of the lowest position, regardless of the order in which errors occurred.
pub(super) fn first_error(groups: Vec<Result<(), LinalgError>>) -> Result<(), LinalgError> {
    groups.into_iter().collect()
}

/// Why a group of positions has no factors: the first lane that failed.
pub(super) struct Singular {
    lane: usize,
    row: usize,
    pivot: f64,
}

impl Singular {
    pub(super) fn in_group(self, group: usize) -> LinalgError {
        let position = group * LANES + self.lane;
        LinalgError::NotPositiveDefinite { position, row: self.row, pivot: self.pivot }
    }
}

/// The matrices of [`LANES`] positions and their factors, `[side, side]` with zeros above the diagonal.
pub(super) struct Factors {
    dim: usize,
    /// The dimension, filled up to whole blocks with rows of the unit matrix.
    pub(super) side: usize,
    /// The matrices, and then their factors.
    lower: Vec<Lane>,
    /// The inverses of the factors.
    pub(super) inverse: Vec<Lane>,
    /// The number of positions in use.
    lanes: usize,
}

impl Factors {
    pub(super) fn new(dim: usize) -> Self {
        let side = dim.next_multiple_of(BLOCK);
        let zeros = vec![[0.0; LANES]; side * side];
        Self { dim, side, lower: zeros.clone(), inverse: zeros, lanes: 0 }
    }

    /// Reads up to [`LANES`] packed matrices, times `factor`, plus `ridge` on the diagonal; absent ones become unit
    /// matrices.
    pub(super) fn load(&mut self, matrices: &[f32], factor: f64, ridge: f64) {
        let size = packed_len(self.dim);
        self.lanes = matrices.len() / size;
        for row in 0..self.side {
            for column in 0..=row {
                let diagonal = row == column;
                let target = &mut self.lower[row * self.side + column];
                *target = [f64::from(u8::from(diagonal)); LANES];
                if row < self.dim {
                    for (target, matrix) in target.iter_mut().zip(matrices.chunks_exact(size)) {
                        let ridge = if diagonal { ridge } else { 0.0 };
                        *target = f64::from(matrix[packed_len(row) + column]) * factor + ridge;
                    }
                }
            }
        }
    }

    /// Makes `lower` the factors.
    pub(super) fn factorize(&mut self, token: Token) -> Result<(), Singular> {
        let (side, lower) = (self.side, &mut self.lower);
        match token.dispatch(Factorize { side, lower, lanes: self.lanes }) {
            Some(singular) => Err(singular),
            None => Ok(()),
        }
    }

    /// Makes `inverse` the inverses of the factors.
    pub(super) fn invert(&mut self, token: Token) {
        token.dispatch(Invert { side: self.side, lower: &self.lower, inverse: &mut self.inverse });
    }
}

/// `sums[r][c] += Σ a_r[k] b_c[k]` over `length` values at given distances.
///
/// [`Step`] gives the distances within `a` and `b`.
#[inline(always)]
fn products(a: &[Lane], a_step: Step, b: &[Lane], b_step: Step, length: usize) -> [[Lane; BLOCK]; BLOCK] {
    let mut sums = [[[0.0; LANES]; BLOCK]; BLOCK];
    for k in 0..length {
        let (first_a, first_b) = (a_step.origin + k * a_step.sum, b_step.origin + k * b_step.sum);
        for r in 0..BLOCK {
            let x = &a[first_a + r * a_step.block];
            for c in 0..BLOCK {
                let y = &b[first_b + c * b_step.block];
                for lane in 0..LANES {
                    sums[r][c][lane] += x[lane] * y[lane];
                }
            }
        }
    }
    sums
}

/// Where the values of a product lie.
#[derive(Clone, Copy)]
struct Step {
    origin: usize,
    /// From one row or column of the block to the next.
    block: usize,
    /// From one term of the sum to the next.
    sum: usize,
}

struct Factorize<'a> {
    side: usize,
    lower: &'a mut [Lane],
    lanes: usize,
}

impl Kernel for Factorize<'_> {
    type Output = Option<Singular>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Option<Singular> {
        let Self { side, lower, lanes } = self;
        let at = |row: usize, column: usize| row * side + column;
        for i in (0..side).step_by(BLOCK) {
            for j in (0..=i).step_by(BLOCK) {
                let row = |row: usize| Step { origin: at(row, 0), block: side, sum: 1 };
                let sums = products(lower, row(i), lower, row(j), j);
                for r in 0..BLOCK {
                    // On the diagonal, only the lower triangle exists.
                    for c in 0..if i == j { r + 1 } else { BLOCK } {
                        let mut value = lower[at(i + r, j + c)];
                        for lane in 0..LANES {
                            value[lane] -= sums[r][c][lane];
                        }
                        for k in 0..c {
                            let (x, y) = (lower[at(i + r, j + k)], lower[at(j + c, j + k)]);
                            for lane in 0..LANES {
                                value[lane] -= x[lane] * y[lane];
                            }
                        }
                        if i + r == j + c {
                            // Also rejects NaN.
                            if let Some(lane) =
                                (0..lanes).find(|lane| !(value[*lane] > 0.0 && value[*lane].is_finite()))
                            {
                                return Some(Singular { lane, row: i + r, pivot: value[lane] });
                            }
                            value = value.map(f64::sqrt);
                        } else {
                            let pivot = lower[at(j + c, j + c)];
                            for lane in 0..LANES {
                                value[lane] /= pivot[lane];
                            }
                        }
                        lower[at(i + r, j + c)] = value;
                    }
                }
            }
        }
        None
    }
}

struct Invert<'a> {
    side: usize,
    lower: &'a [Lane],
    inverse: &'a mut [Lane],
}

impl Kernel for Invert<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { side, lower, inverse } = self;
        let at = |row: usize, column: usize| row * side + column;
        for i in (0..side).step_by(BLOCK) {
            for j in (0..=i).step_by(BLOCK) {
                // W[i][j] = (δ - Σ_{j <= k < i} L[i][k] W[k][j]) / L[i][i]; W is zero above its diagonal.
                let factors = Step { origin: at(i, j), block: side, sum: 1 };
                let inverses = Step { origin: at(j, j), block: 1, sum: side };
                let sums = products(lower, factors, inverse, inverses, i - j);
                for r in 0..BLOCK {
                    for c in 0..BLOCK {
                        let mut value = [f64::from(u8::from(i + r == j + c)); LANES];
                        for lane in 0..LANES {
                            value[lane] -= sums[r][c][lane];
                        }
                        for k in 0..r {
                            let (x, y) = (lower[at(i + r, i + k)], inverse[at(i + k, j + c)]);
                            for lane in 0..LANES {
                                value[lane] -= x[lane] * y[lane];
                            }
                        }
                        let pivot = lower[at(i + r, i + r)];
                        for lane in 0..LANES {
                            value[lane] /= pivot[lane];
                        }
                        inverse[at(i + r, j + c)] = if j + c > i + r { [0.0; LANES] } else { value };
                    }
                }
            }
        }
    }
}
