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
/// Memory: 4 bytes for each of the about `dim (dim + 16) / 2` values of a position's inverse factor and for each of its
/// mean.
#[derive(Clone, Debug)]
pub struct PositionGaussians {
    positions: usize,
    dim: usize,
    mean: Vec<f32>,
    inverses: Vec<f32>,
    token: Token,
}

/// Rows missing from the first panel: the last panel ends with the last row, so that the longest rows fill their
/// panels.
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
    /// Rebuilds the Gaussians from [`mean`](Self::mean) and [`inverse_factors`](Self::inverse_factors).
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

    /// The values per position.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The means, `[positions, dim]`.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The inverses `W` of the Cholesky factors, `[positions, len]`. The rows of each are cut into panels of 16 such
    /// that the last panel ends with the last row; a panel is stored column by column up to its last row, with zeros
    /// for what the first panel lacks and for what lies above the diagonal.
    pub fn inverse_factors(&self) -> &[f32] {
        &self.inverses
    }

    /// The Mahalanobis distance `‖W (x - mean)‖` of each position of `images` `[images, positions, dim]`, as
    /// `[images, positions]`. Works in parallel over the positions on rayon's current pool; the distances of an image
    /// do not depend on the other images.
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
                |centered, (task, (distances, inverses))| {
                    let positions = distances.chunks_exact_mut(own).zip(inverses.chunks_exact(size)).enumerate();
                    for (offset, (distances, inverse)) in positions {
                        let at = (task * TASK + offset) * dim;
                        let mean = &self.mean[at..at + dim];
                        for (centered, image) in centered.chunks_exact_mut(dim).zip(images.chunks_exact(expected)) {
                            let values = image[at..at + dim].iter().zip(mean);
                            centered.iter_mut().zip(values).for_each(|(target, (value, mean))| *target = value - mean);
                        }
                        self.token.dispatch(Lengths { inverse, centered, dim, lengths: distances });
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

    /// The Mahalanobis distances of the images of a group from the Gaussians of all *other* images, as `[group,
    /// positions]`, exactly and without fitting them.
    ///
    /// `images` `[group, positions, dim]` are all the images of the group; the Gaussians are those of `count` images,
    /// these among them, fitted by [`gaussians`](super::PositionStatistics::gaussians) with the regularization `λ
    /// (rest - 1) / (count - 1)`, where `rest` is `count` less the group, and `λ` belongs to the fit on the rest.
    ///
    /// With `S` the scatter of all and `d` the deviations from their mean, the rest have the scatter `S - Σ dᵢ
    /// dᵢᵀ - (Σ dᵢ) (Σ dᵢ)ᵀ / rest`, which the Woodbury formula carries over to the inverse: all that is
    /// needed are the products of the whitened deviations with each other.
    ///
    /// # Errors
    /// [`LinalgError::Length`], [`LinalgError::TooFewImages`] where fewer than two are left.
    pub fn left_out(&self, images: &[f32], count: usize) -> Result<Vec<f32>, LinalgError> {
        let (dim, expected, size) = (self.dim, self.positions * self.dim, panels_len(self.dim));
        if images.is_empty() || !images.len().is_multiple_of(expected) {
            return Err(LinalgError::Length { what: "a group of images", expected, got: images.len() });
        }
        let group = images.len() / expected;
        if count < group + 2 {
            return Err(LinalgError::TooFewImages { count: count.saturating_sub(group) as u64 });
        }
        let mut by_position = vec![0.0f32; group * self.positions];
        by_position.par_chunks_exact_mut(group).enumerate().for_each_init(
            || (LeaveOutWorkspace::new(group), vec![0.0f32; dim], vec![0.0f32; group * dim], vec![0.0f64; group]),
            |(left_out, centered, whitened, squares), (position, distances)| {
                let mean = &self.mean[position * dim..(position + 1) * dim];
                let inverse = &self.inverses[position * size..(position + 1) * size];
                for (whitened, image) in whitened.chunks_exact_mut(dim).zip(images.chunks_exact(expected)) {
                    let values = image[position * dim..(position + 1) * dim].iter().zip(mean);
                    centered.iter_mut().zip(values).for_each(|(target, (value, mean))| *target = value - mean);
                    self.token.dispatch(Whitened { inverse, centered, whitened });
                }
                left_out.squares(whitened, count, squares);
                distances.iter_mut().zip(squares).for_each(|(distance, square)| *distance = square.sqrt() as f32);
            },
        );
        let mut distances = vec![0.0f32; by_position.len()];
        for (position, values) in by_position.chunks_exact(group).enumerate() {
            for (image, value) in values.iter().enumerate() {
                distances[image * self.positions + position] = *value;
            }
        }
        Ok(distances)
    }
}

/// Workspace of [`PositionGaussians::left_out`] for a group of images at one position.
struct LeaveOutWorkspace {
    /// The Gram matrix of the whitened deviations of the group, `[group, group]`.
    gram: Vec<f64>,
    /// `I - Gram B`, then its factors.
    system: Vec<f64>,
    /// `(I - Gram B)⁻¹ Gram`.
    solved: Vec<f64>,
}

impl LeaveOutWorkspace {
    fn new(group: usize) -> Self {
        let zeros = vec![0.0; group * group];
        Self { gram: zeros.clone(), system: zeros.clone(), solved: zeros }
    }

    /// Squared distances of the images of the group from the Gaussian of the `rest` others, from their whitened
    /// deviations `[group, dim]` under `count` images.
    fn squares(&mut self, whitened: &[f32], count: usize, squares: &mut [f64]) {
        let group = squares.len();
        let dim = whitened.len() / group;
        let rest = (count - group) as f64;
        let row = |image: usize| &whitened[image * dim..(image + 1) * dim];
        for i in 0..group {
            for j in 0..=i {
                let product: f64 = row(i).iter().zip(row(j)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                self.gram[i * group + j] = product / (count - 1) as f64;
                self.gram[j * group + i] = self.gram[i * group + j];
            }
        }
        // B = I + 1 1ᵀ / rest: the part of the scatter that the group contributes, about the mean of the rest.
        for i in 0..group {
            let sum: f64 = self.gram[i * group..(i + 1) * group].iter().sum();
            for j in 0..group {
                self.system[i * group + j] = f64::from(u8::from(i == j)) - self.gram[i * group + j] - sum / rest;
            }
        }
        self.solved.copy_from_slice(&self.gram);
        solve(&mut self.system, &mut self.solved, group);
        // An image's deviation from the mean of the rest is its own deviation plus the group's total, divided by
        // `rest`.
        for (image, square) in squares.iter_mut().enumerate() {
            let weight = |j: usize| f64::from(u8::from(j == image)) + 1.0 / rest;
            let products = (0..group).flat_map(|i| (0..group).map(move |j| (i, j)));
            let sum: f64 = products.map(|(i, j)| weight(i) * self.solved[i * group + j] * weight(j)).sum();
            *square = (rest - 1.0) * sum.max(0.0);
        }
    }
}

/// Solves `system · x = right`, both `[n, n]`, by elimination with partial pivots, in place. Pivots that rounding has
/// made too small are raised to the precision of f32, in which the system was computed.
fn solve(system: &mut [f64], right: &mut [f64], n: usize) {
    for column in 0..n {
        let larger = |a: &usize, b: &usize| system[a * n + column].abs().total_cmp(&system[b * n + column].abs());
        let pivot = (column..n).max_by(larger).unwrap_or(column);
        for at in 0..n {
            system.swap(column * n + at, pivot * n + at);
            right.swap(column * n + at, pivot * n + at);
        }
        let least = f64::from(f32::EPSILON);
        if system[column * n + column].abs() < least {
            system[column * n + column] = least;
        }
        for row in (0..n).filter(|&row| row != column) {
            let factor = system[row * n + column] / system[column * n + column];
            if factor != 0.0 {
                for at in column..n {
                    system[row * n + at] -= factor * system[column * n + at];
                }
                for at in 0..n {
                    right[row * n + at] -= factor * right[column * n + at];
                }
            }
        }
    }
    for row in 0..n {
        let pivot = system[row * n + row];
        right[row * n..(row + 1) * n].iter_mut().for_each(|value| *value /= pivot);
    }
}

/// `‖W x‖` for each of a few centered rows.
struct Lengths<'a> {
    inverse: &'a [f32],
    /// `[rows, dim]`.
    centered: &'a [f32],
    dim: usize,
    lengths: &'a mut [f32],
}

impl Kernel for Lengths<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { inverse, centered, dim, lengths } = self;
        // Four rows at a time share each load of the factor; the arithmetic of a row is the same in both loops.
        let (fours, rest) = lengths.split_at_mut(lengths.len() / 4 * 4);
        let (many, few) = centered.split_at(fours.len() * dim);
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
    let mut squares = [[0.0f64; PANEL]; N];
    panels::<S, N>(simd, inverse, rows, dim, |n, _, at, value| {
        squares[n][at] += f64::from(value) * f64::from(value);
    });
    squares.map(|squares| squares.iter().sum::<f64>().sqrt() as f32)
}

/// `W x` of centered rows: hands the value of each row of `W` to `each`, with the number of the row `x`, where the
/// panel of `W` ends, and the place in the panel; rows that the first panel lacks are 0.
#[inline(always)]
fn panels<S: Simd, const N: usize>(
    simd: S,
    inverse: &[f32],
    rows: &[f32],
    dim: usize,
    mut each: impl FnMut(usize, usize, usize, f32),
) {
    /// Independent sums, so that no product waits for the previous one.
    const SUMS: usize = 4;
    assert!(rows.len() == N * dim && inverse.len() == panels_len(dim) && PANEL.is_multiple_of(S::LANES));
    let mut first = 0;
    for end in (PANEL..=dim.next_multiple_of(PANEL)).step_by(PANEL).map(|end| end - missing_rows(dim)) {
        let panel = &inverse[first..first + PANEL * end];
        first += panel.len();
        for lane in (0..PANEL).step_by(S::LANES) {
            let mut sums = [[simd.splat(0.0); SUMS]; N];
            let mut add = |chain: usize, column: usize| {
                // SAFETY: callers keep `column < end <= dim`; a panel has PANEL values for each of `end` columns, and
                // there are N rows of `dim` values.
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
                    each(n, end, at, values[at]);
                }
            }
        }
    }
}

/// `W x` of one centered row.
struct Whitened<'a> {
    inverse: &'a [f32],
    /// `[dim]`.
    centered: &'a [f32],
    /// `[dim]`.
    whitened: &'a mut [f32],
}

impl Kernel for Whitened<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { inverse, centered, whitened } = self;
        panels::<S, 1>(simd, inverse, centered, centered.len(), |_, end, at, value| {
            if let Some(row) = (end + at).checked_sub(PANEL) {
                whitened[row] = value;
            }
        });
    }
}
