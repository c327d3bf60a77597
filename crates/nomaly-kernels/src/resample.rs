//! Bilinear resizing of maps and of rows of features, without antialiasing.
//!
//! Both layouts interpolate vertically first. Maps `[height, width]` do so with whole vectors along a row and then pick
//! pairs of columns; features `[positions, channels]` have whole vectors of channels everywhere.
//!
//! ```
//! use nomaly_kernels::Isa;
//! use nomaly_kernels::resample::{Bilinear, Grid};
//!
//! let double = Bilinear::new([1, 2], [1, 4], Grid::HalfPixel, Isa::best()?)?;
//! assert_eq!(double.maps(&[0.0, 1.0])?, [0.0, 0.25, 0.75, 1.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use rayon::prelude::*;

use crate::isa::{Isa, IsaError};
use crate::simd::{Kernel, Simd, Token};

/// How the two grids are aligned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Grid {
    /// Aligns the outer edges of the corner pixels: `align_corners=False` of PyTorch, and what PaDiM and PatchCore do.
    #[default]
    HalfPixel,
    /// Aligns the centres of the corner pixels: `align_corners=True`, which reverse distillation uses for its maps.
    AlignCorners,
}

/// Why a map cannot be resized.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ResampleError {
    /// The instruction set is not available.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// A side without pixels.
    #[error("{from:?} cannot be resized to {to:?} (height, width): every side needs a pixel")]
    Empty {
        /// Height and width of the input.
        from: [usize; 2],
        /// Height and width of the output.
        to: [usize; 2],
    },
    /// The values do not form whole maps.
    #[error("{len} numbers are not a whole number of maps of {from:?} (height, width) with {channels} channels")]
    Ragged {
        /// The numbers.
        len: usize,
        /// Height and width of the input.
        from: [usize; 2],
        /// Values per pixel.
        channels: usize,
    },
}

/// A resizing from one size to another.
#[derive(Clone, Debug)]
pub struct Bilinear {
    from: [usize; 2],
    to: [usize; 2],
    rows: Vec<Tap>,
    columns: Vec<Tap>,
    token: Token,
}

/// The two input positions that an output position lies between.
#[derive(Clone, Copy, Debug)]
struct Tap {
    low: usize,
    high: usize,
    /// The share of `high`.
    weight: f32,
}

/// The taps along one axis.
fn taps(from: usize, to: usize, grid: Grid) -> Vec<Tap> {
    let place = |at: usize| match grid {
        Grid::HalfPixel => ((at as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0),
        Grid::AlignCorners if to == 1 => 0.0,
        Grid::AlignCorners => at as f64 * (from - 1) as f64 / (to - 1) as f64,
    };
    let tap = |at: usize| {
        let place = place(at);
        let low = (place as usize).min(from - 1);
        Tap { low, high: (low + 1).min(from - 1), weight: (place - low as f64) as f32 }
    };
    (0..to).map(tap).collect()
}

impl Bilinear {
    /// Plans a resizing; sizes are height and width in pixels.
    ///
    /// # Errors
    /// [`ResampleError::Empty`], [`ResampleError::Isa`].
    pub fn new(from: [usize; 2], to: [usize; 2], grid: Grid, isa: Isa) -> Result<Self, ResampleError> {
        if from.contains(&0) || to.contains(&0) {
            return Err(ResampleError::Empty { from, to });
        }
        let token = Token::new(isa)?;
        Ok(Self { from, to, rows: taps(from[0], to[0], grid), columns: taps(from[1], to[1], grid), token })
    }

    /// Resizes `maps` `[maps, height, width]` (channels of feature maps likewise), in parallel over the maps.
    ///
    /// # Errors
    /// [`ResampleError::Ragged`].
    pub fn maps(&self, maps: &[f32]) -> Result<Vec<f32>, ResampleError> {
        let ([height, width], [to_height, to_width]) = (self.from, self.to);
        let count = self.count(maps.len(), 1)?;
        let mut resized = vec![0.0f32; count * to_height * to_width];
        let pairs = maps.par_chunks_exact(height * width).zip(resized.par_chunks_exact_mut(to_height * to_width));
        pairs.for_each_init(
            || vec![0.0f32; width],
            |line, (map, resized)| {
                for (tap, target) in self.rows.iter().zip(resized.chunks_exact_mut(to_width)) {
                    let row = |row: usize| &map[row * width..(row + 1) * width];
                    let (a, b) = (row(tap.low), row(tap.high));
                    self.token.dispatch(Blend { a, b, weight: tap.weight, out: line });
                    for (target, tap) in target.iter_mut().zip(&self.columns) {
                        *target = line[tap.low] + tap.weight * (line[tap.high] - line[tap.low]);
                    }
                }
            },
        );
        Ok(resized)
    }

    /// Resizes feature maps that are rows of positions, `[images, height * width, channels]`, in parallel over the
    /// output's lines.
    ///
    /// # Errors
    /// [`ResampleError::Ragged`].
    pub fn rows(&self, features: &[f32], channels: usize) -> Result<Vec<f32>, ResampleError> {
        let ([height, width], [to_height, to_width]) = (self.from, self.to);
        let count = self.count(features.len(), channels)?;
        let mut resized = vec![0.0f32; count * to_height * to_width * channels];
        let lines = resized.par_chunks_exact_mut(to_width * channels).enumerate();
        lines.for_each_init(
            || vec![0.0f32; width * channels],
            |line, (at, resized)| {
                let image = &features[at / to_height * height * width * channels..][..height * width * channels];
                let tap = self.rows[at % to_height];
                let row = |row: usize| &image[row * width * channels..(row + 1) * width * channels];
                let (a, b) = (row(tap.low), row(tap.high));
                self.token.dispatch(Blend { a, b, weight: tap.weight, out: line });
                for (out, tap) in resized.chunks_exact_mut(channels).zip(&self.columns) {
                    let pixel = |column: usize| &line[column * channels..(column + 1) * channels];
                    let (a, b) = (pixel(tap.low), pixel(tap.high));
                    self.token.dispatch(Blend { a, b, weight: tap.weight, out });
                }
            },
        );
        Ok(resized)
    }

    fn count(&self, len: usize, channels: usize) -> Result<usize, ResampleError> {
        let size = self.from[0].saturating_mul(self.from[1]).saturating_mul(channels);
        if size == 0 || !len.is_multiple_of(size) {
            return Err(ResampleError::Ragged { len, from: self.from, channels });
        }
        Ok(len / size)
    }
}

/// `a + weight (b - a)`.
struct Blend<'a> {
    a: &'a [f32],
    b: &'a [f32],
    weight: f32,
    out: &'a mut [f32],
}

impl Kernel for Blend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { a, b, weight, out } = self;
        assert!(a.len() == b.len() && a.len() == out.len());
        let whole = a.len() / S::LANES * S::LANES;
        for at in (0..whole).step_by(S::LANES) {
            // SAFETY: `at + LANES` is within all three slices, which are equally long.
            unsafe {
                let (low, high) = (simd.load(a.as_ptr().add(at)), simd.load(b.as_ptr().add(at)));
                simd.store(out.as_mut_ptr().add(at), simd.fma(simd.splat(weight), simd.sub(high, low), low));
            }
        }
        for at in whole..a.len() {
            out[at] = a[at] + weight * (b[at] - a[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_features_are_resized_as_maps_are() {
        let (from, to, channels) = ([5, 7], [12, 9], 19);
        let features: Vec<f32> = (0..2 * 35 * channels).map(|i| (i * 7919 % 1009) as f32 / 1009.0).collect();
        for isa in Isa::available() {
            for grid in [Grid::HalfPixel, Grid::AlignCorners] {
                let resize = Bilinear::new(from, to, grid, isa).unwrap();
                let rows = resize.rows(&features, channels).unwrap();
                for image in 0..2 {
                    for channel in 0..channels {
                        let map: Vec<f32> =
                            (0..35).map(|at| features[(image * 35 + at) * channels + channel]).collect();
                        for (at, want) in resize.maps(&map).unwrap().iter().enumerate() {
                            let got = rows[(image * 108 + at) * channels + channel];
                            // One implementation may round a product that the other fuses.
                            assert!((got - want).abs() < 3e-7, "{isa} {grid:?}: {got} for {want}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let map: Vec<f32> = (0..6 * 35).map(|i| (i * 31 % 17) as f32).collect();
        for grid in [Grid::HalfPixel, Grid::AlignCorners] {
            let resize = Bilinear::new([6, 35], [6, 35], grid, Isa::Portable).unwrap();
            assert_eq!(resize.maps(&map).unwrap(), map);
        }
    }

    #[test]
    fn wrong_input_is_an_error_that_names_it() {
        let empty = Bilinear::new([0, 4], [2, 2], Grid::HalfPixel, Isa::Portable).unwrap_err();
        assert_eq!(empty, ResampleError::Empty { from: [0, 4], to: [2, 2] });
        let resize = Bilinear::new([2, 4], [2, 2], Grid::HalfPixel, Isa::Portable).unwrap();
        assert_eq!(resize.maps(&[0.0; 9]), Err(ResampleError::Ragged { len: 9, from: [2, 4], channels: 1 }));
        assert_eq!(resize.rows(&[], 0), Err(ResampleError::Ragged { len: 0, from: [2, 4], channels: 0 }));
    }
}
