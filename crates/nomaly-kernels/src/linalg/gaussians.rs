//! Mahalanobis distances at many positions.

use rayon::prelude::*;

use super::cholesky::LANES as POSITION_LANES;
use super::{LinalgError, check_shape};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, Token};

/// Rows of the inverse factors that lie side by side: the longest vector, whatever the instruction set.
const PANEL: usize = 16;

/// Images that share one pass over the factors of a position.
const IMAGES: usize = 8;

/// A Gaussian for each of many positions.
///
/// Memory: 4 bytes for each of the about `dim (dim + 16) / 2` values of a position's inverse factor and for each of its mean.
#[derive(Clone, Debug)]
pub struct PositionGaussians {
    positions: usize,
    dim: usize,
    mean: Vec<f32>,
    inverses: Vec<f32>,
    token: Token,
}

/// Rows that the first panel lacks: the last ends with the last row, so that the longest rows fill theirs.
const fn missing_rows(dim: usize) -> usize {
    dim.next_multiple_of(PANEL) - dim
}

/// Values of all panels of one position. A panel whose last row is `r` has `PANEL` values for each of `r + 1` columns.
pub(super) const fn panels_len(dim: usize) -> usize {
    let (mut total, mut panel) = (0, 0);
    while panel < dim.div_ceil(PANEL) {
        panel += 1;
        total += PANEL * (panel * PANEL - missing_rows(dim));
    }
    total
}

/// Writes inverse factors `[side, side]` of several positions as panels `[column][row]`, one position after the other.
pub(super) fn store_panels(inverse: &[[f64; POSITION_LANES]], side: usize, dim: usize, panels: &mut [f32]) {
    for (lane, panels) in panels.chunks_exact_mut(panels_len(dim)).enumerate() {
        let mut values = panels.iter_mut();
        for end in (PANEL..=dim.next_multiple_of(PANEL)).step_by(PANEL).map(|end| end - missing_rows(dim)) {
            for column in 0..end {
                for offset in 0..PANEL {
                    let row = (end + offset).checked_sub(PANEL);
                    let value = row.map_or(0.0, |row| inverse[row * side + column][lane]);
                    if let Some(target) = values.next() {
                        *target = value as f32;
                    }
                }
            }
        }
    }
}

impl PositionGaussians {
    /// Brings back what [`mean`](Self::mean) and [`inverse_factors`](Self::inverse_factors) gave.
    ///
    /// # Errors
    /// [`LinalgError::Empty`], [`LinalgError::Length`], [`LinalgError::Isa`].
    pub fn from_parts(
        positions: usize,
        dim: usize,
        mean: Vec<f32>,
        inverse_factors: Vec<f32>,
        isa: Isa,
    ) -> Result<Self, LinalgError> {
        check_shape(positions, dim)?;
        for (what, expected, got) in [
            ("the mean", positions * dim, mean.len()),
            ("the inverse factors", positions * panels_len(dim), inverse_factors.len()),
        ] {
            if expected != got {
                return Err(LinalgError::Length { what, expected, got });
            }
        }
        Ok(Self { positions, dim, mean, inverses: inverse_factors, token: Token::new(isa)? })
    }

    /// The number of positions.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// The numbers of a position.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The means, `[positions, dim]`.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The inverses `W` of the Cholesky factors, `[positions, len]`. The rows of each are cut into panels of 16 such that the
    /// last panel ends with the last row; a panel is stored column by column up to its last row, with zeros for what the
    /// first panel lacks and for what lies above the diagonal.
    pub fn inverse_factors(&self) -> &[f32] {
        &self.inverses
    }

    /// The Mahalanobis distance `‖W (x - mean)‖` of each position of `images` `[images, positions, dim]`, as
    /// `[images, positions]`. Works in parallel over the positions on rayon's current pool; what an image gets does not
    /// depend on the images beside it.
    ///
    /// # Errors
    /// [`LinalgError::Length`].
    pub fn mahalanobis(&self, images: &[f32]) -> Result<Vec<f32>, LinalgError> {
        /// Positions of one task.
        const TASK: usize = 16;
        let (dim, expected, size) = (self.dim, self.positions * self.dim, panels_len(self.dim));
        if !images.len().is_multiple_of(expected) {
            return Err(LinalgError::Length { what: "a batch of images", expected, got: images.len() });
        }
        let count = images.len() / expected;
        let mut distances = vec![0.0f32; images.len() / dim];
        for (images, distances) in images.chunks(IMAGES * expected).zip(distances.chunks_mut(IMAGES * self.positions)) {
            let own = count.min(images.len() / expected);
            let mut by_position = vec![0.0f32; own * self.positions];
            let tasks = by_position.par_chunks_mut(TASK * own).zip(self.inverses.par_chunks(TASK * size)).enumerate();
            tasks.for_each_init(
                || vec![0.0f32; own * dim],
                |centred, (task, (distances, inverses))| {
                    let positions = distances.chunks_exact_mut(own).zip(inverses.chunks_exact(size)).enumerate();
                    for (offset, (distances, inverse)) in positions {
                        let at = (task * TASK + offset) * dim;
                        let mean = &self.mean[at..at + dim];
                        for (centred, image) in centred.chunks_exact_mut(dim).zip(images.chunks_exact(expected)) {
                            let values = image[at..at + dim].iter().zip(mean);
                            centred.iter_mut().zip(values).for_each(|(target, (value, mean))| *target = value - mean);
                        }
                        self.token.dispatch(Lengths { inverse, centred, dim, lengths: distances });
                    }
                },
            );
            for (position, values) in by_position.chunks_exact(own).enumerate() {
                for (image, value) in values.iter().enumerate() {
                    distances[image * self.positions + position] = *value;
                }
            }
        }
        Ok(distances)
    }
}

/// `‖W x‖` for each of a few centred rows.
struct Lengths<'a> {
    inverse: &'a [f32],
    /// `[rows, dim]`.
    centred: &'a [f32],
    dim: usize,
    lengths: &'a mut [f32],
}

impl Kernel for Lengths<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { inverse, centred, dim, lengths } = self;
        // Four rows at a time share each load of the factor; a row's arithmetic is the same in either.
        let (fours, rest) = lengths.split_at_mut(lengths.len() / 4 * 4);
        let (many, few) = centred.split_at(fours.len() * dim);
        for (lengths, rows) in fours.chunks_exact_mut(4).zip(many.chunks_exact(4 * dim)) {
            lengths.copy_from_slice(&products::<S, 4>(simd, inverse, rows, dim));
        }
        for (length, row) in rest.iter_mut().zip(few.chunks_exact(dim)) {
            [*length] = products::<S, 1>(simd, inverse, row, dim);
        }
    }
}

#[inline(always)]
fn products<S: Simd, const N: usize>(simd: S, inverse: &[f32], rows: &[f32], dim: usize) -> [f32; N] {
    /// Chains of sums, so that no product waits for the one before.
    const SUMS: usize = 4;
    assert!(rows.len() == N * dim && inverse.len() == panels_len(dim) && PANEL.is_multiple_of(S::LANES));
    let mut squares = [[0.0f64; PANEL]; N];
    let mut first = 0;
    for end in (PANEL..=dim.next_multiple_of(PANEL)).step_by(PANEL).map(|end| end - missing_rows(dim)) {
        let panel = &inverse[first..first + PANEL * end];
        first += panel.len();
        for lane in (0..PANEL).step_by(S::LANES) {
            let mut sums = [[simd.splat(0.0); SUMS]; N];
            let mut add = |chain: usize, column: usize| {
                // SAFETY: callers keep `column < end <= dim`; a panel has PANEL values for each of `end` columns, and there
                // are N rows of `dim` values.
                unsafe {
                    let factors = simd.load(panel.as_ptr().add(column * PANEL + lane));
                    for n in 0..N {
                        let value = simd.splat(*rows.get_unchecked(n * dim + column));
                        sums[n][chain] = simd.fma(factors, value, sums[n][chain]);
                    }
                }
            };
            let whole = end / SUMS * SUMS;
            for column in (0..whole).step_by(SUMS) {
                for chain in 0..SUMS {
                    add(chain, column + chain);
                }
            }
            for column in whole..end {
                add(column - whole, column);
            }
            for n in 0..N {
                let total = simd.add(simd.add(sums[n][0], sums[n][1]), simd.add(sums[n][2], sums[n][3]));
                let mut values = [0.0f32; PANEL];
                // SAFETY: `lane + LANES <= PANEL`.
                unsafe { simd.store(values.as_mut_ptr().add(lane), total) };
                for at in lane..lane + S::LANES {
                    squares[n][at] += f64::from(values[at]) * f64::from(values[at]);
                }
            }
        }
    }
    squares.map(|squares| squares.iter().sum::<f64>().sqrt() as f32)
}
