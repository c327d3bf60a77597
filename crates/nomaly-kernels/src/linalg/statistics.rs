//! Means and scatter matrices, image by image.

use rayon::prelude::*;

use super::cholesky::{Factors, LANES, first_error};
use super::gaussians::{PositionGaussians, panels_len};
use super::{LinalgError, check_shape, packed_len};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, Token};

/// Images that are added in one pass over the scatter matrices.
const BATCH: usize = 16;

/// The count, mean and scatter of the rows added at each position.
///
/// Memory: 4 bytes for each of the `dim (dim + 1) / 2` values of a position's scatter, 8 for each value of its mean.
/// Batches are centered on their own mean in f64 before they are multiplied, so that large means lose no precision;
/// sums are f32.
#[derive(Clone, Debug)]
pub struct PositionStatistics {
    positions: usize,
    dim: usize,
    count: u64,
    /// `[positions, dim]`.
    mean: Vec<f64>,
    /// `[positions, dim (dim + 1) / 2]`: `Σ (x - mean) (x - mean)ᵀ`.
    scatter: Vec<f32>,
    isa: Isa,
    token: Token,
}

impl PositionStatistics {
    /// Statistics of no images.
    ///
    /// # Errors
    /// [`LinalgError::Empty`], [`LinalgError::Isa`].
    pub fn new(positions: usize, dim: usize, isa: Isa) -> Result<Self, LinalgError> {
        check_shape(positions, dim)?;
        let (mean, scatter) = (vec![0.0; positions * dim], vec![0.0; positions * packed_len(dim)]);
        Ok(Self { positions, dim, count: 0, mean, scatter, isa, token: Token::new(isa)? })
    }

    /// Puts together what [`count`](Self::count), [`mean`](Self::mean) and [`scatter`](Self::scatter) gave.
    ///
    /// # Errors
    /// [`LinalgError::Empty`], [`LinalgError::Length`], [`LinalgError::Isa`].
    pub fn from_parts(
        [positions, dim]: [usize; 2],
        count: u64,
        mean: Vec<f64>,
        scatter: Vec<f32>,
        isa: Isa,
    ) -> Result<Self, LinalgError> {
        check_shape(positions, dim)?;
        for (what, expected, got) in [
            ("the mean", positions * dim, mean.len()),
            ("the scatter matrices", positions * packed_len(dim), scatter.len()),
        ] {
            if expected != got {
                return Err(LinalgError::Length { what, expected, got });
            }
        }
        Ok(Self { positions, dim, count, mean, scatter, isa, token: Token::new(isa)? })
    }

    /// Images seen.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean of each position, `[positions, dim]`.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// `Σ (x - mean) (x - mean)ᵀ` of each position, `[positions, dim (dim + 1) / 2]`: lower triangles row by row.
    pub fn scatter(&self) -> &[f32] {
        &self.scatter
    }

    /// Adds `images` `[images, positions, dim]`, in parallel over the positions.
    ///
    /// # Errors
    /// [`LinalgError::Length`].
    pub fn add(&mut self, images: &[f32]) -> Result<(), LinalgError> {
        let expected = self.positions * self.dim;
        if !images.len().is_multiple_of(expected) {
            return Err(LinalgError::Length { what: "a batch of images", expected, got: images.len() });
        }
        for batch in images.chunks(BATCH * expected) {
            let added = batch.len() / expected;
            let (dim, count, token) = (self.dim, self.count as f64, self.token);
            let positions = self.mean.par_chunks_exact_mut(dim).zip(self.scatter.par_chunks_exact_mut(packed_len(dim)));
            positions.enumerate().for_each_init(
                || vec![0.0f32; (added + 1) * dim],
                |rows, (position, (mean, scatter))| {
                    let total = count + added as f64;
                    // The scatter about the common mean is that of both parts plus one more row for the shift between
                    // their means.
                    for (column, mean) in mean.iter_mut().enumerate() {
                        let value = |image: usize| f64::from(batch[image * expected + position * dim + column]);
                        let own = (0..added).map(value).sum::<f64>() / added as f64;
                        for image in 0..added {
                            rows[image * dim + column] = (value(image) - own) as f32;
                        }
                        let shift = own - *mean;
                        rows[added * dim + column] = ((count * added as f64 / total).sqrt() * shift) as f32;
                        *mean += shift * added as f64 / total;
                    }
                    token.dispatch(AddProducts { rows, dim, scatter });
                },
            );
            self.count += added as u64;
        }
        Ok(())
    }

    /// Merges the statistics of other images: the result is that of all images, up to rounding.
    ///
    /// # Errors
    /// [`LinalgError::Shape`].
    pub fn merge(&mut self, other: &Self) -> Result<(), LinalgError> {
        let shape = |statistics: &Self| (statistics.positions, statistics.dim);
        if shape(self) != shape(other) {
            return Err(LinalgError::Shape { own: shape(self), other: shape(other) });
        }
        if other.count == 0 {
            return Ok(());
        }
        let (dim, own, added) = (self.dim, self.count as f64, other.count as f64);
        let total = own + added;
        let mine = self.mean.par_chunks_exact_mut(dim).zip(self.scatter.par_chunks_exact_mut(packed_len(dim)));
        let theirs = other.mean.par_chunks_exact(dim).zip(other.scatter.par_chunks_exact(packed_len(dim)));
        mine.zip(theirs).for_each(|((mean, scatter), (other_mean, other_scatter))| {
            let shifts: Vec<f64> = mean.iter().zip(other_mean).map(|(own, other)| other - own).collect();
            let weight = own * added / total;
            for row in 0..dim {
                let range = packed_len(row)..packed_len(row + 1);
                let values = scatter[range.clone()].iter_mut().zip(&other_scatter[range]).zip(&shifts);
                for ((value, other), shift) in values {
                    *value = (f64::from(*value) + f64::from(*other) + weight * shifts[row] * shift) as f32;
                }
            }
            mean.iter_mut().zip(&shifts).for_each(|(mean, shift)| *mean += shift * added / total);
        });
        self.count += other.count;
        Ok(())
    }

    /// The Gaussians with these means and the covariances `scatter / (count - 1) + ridge · I`, in parallel over the
    /// positions.
    ///
    /// # Errors
    /// [`LinalgError::TooFewImages`], [`LinalgError::NotPositiveDefinite`].
    pub fn gaussians(&self, ridge: f64) -> Result<PositionGaussians, LinalgError> {
        if self.count < 2 {
            return Err(LinalgError::TooFewImages { count: self.count });
        }
        let (dim, size) = (self.dim, panels_len(self.dim));
        let mut inverses = vec![0.0f32; self.positions * size];
        let groups = self.scatter.par_chunks(LANES * packed_len(dim)).zip(inverses.par_chunks_mut(LANES * size));
        let results = groups.enumerate().map_init(
            || Factors::new(dim),
            |factors, (group, (scatter, inverses))| {
                factors.load(scatter, 1.0 / (self.count - 1) as f64, ridge);
                factors.factorize(self.token).map_err(|error| error.in_group(group))?;
                factors.invert(self.token);
                super::gaussians::store_panels(&factors.inverse, factors.side, dim, inverses);
                Ok(())
            },
        );
        first_error(results.collect())?;
        let mean = self.mean.iter().map(|mean| *mean as f32).collect();
        PositionGaussians::from_parts(self.positions, dim, mean, inverses, self.isa)
    }
}

/// Adds `Σ x xᵀ` over the rows to a packed lower triangle.
struct AddProducts<'a> {
    rows: &'a [f32],
    dim: usize,
    scatter: &'a mut [f32],
}

impl Kernel for AddProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { rows, dim, scatter } = self;
        assert!(rows.len().is_multiple_of(dim) && scatter.len() == packed_len(dim));
        for i in 0..dim {
            let target = &mut scatter[packed_len(i)..packed_len(i + 1)];
            let whole = target.len() / S::LANES * S::LANES;
            for j in (0..whole).step_by(S::LANES) {
                // SAFETY: `j + LANES <= i + 1`, within `target` and within each row.
                unsafe {
                    let mut sum = simd.load(target.as_ptr().add(j));
                    for row in rows.chunks_exact(dim) {
                        sum = simd.fma(simd.splat(row[i]), simd.load(row.as_ptr().add(j)), sum);
                    }
                    simd.store(target.as_mut_ptr().add(j), sum);
                }
            }
            for j in whole..=i {
                target[j] += rows.chunks_exact(dim).map(|row| row[i] * row[j]).sum::<f32>();
            }
        }
    }
}
