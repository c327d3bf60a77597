//! Gaussian blur of maps.
//!
//! **The design.** The kernel of a Gaussian is a product, so a map is filtered down its columns and then along its
//! rows: `2 r + 1` weights per pass instead of their square, and since they are symmetric, pairs of values share one.
//! Each output row is finished before the next is begun, which leaves the row between the passes in the first-level
//! cache. Maps are filtered in parallel, each map by one thread, because a map of 224 by 224 takes too little time to
//! be worth waking another.

use rayon::prelude::*;

use super::{Border, FilterError, MAX_RADIUS};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, Token};

/// A Gaussian filter as `scipy.ndimage.gaussian_filter` computes it.
#[derive(Clone, Debug)]
pub struct GaussianBlur {
    /// The weight of the centre, and of the pixels at distance 1, 2, … on each side.
    weights: Vec<f32>,
    border: Border,
    token: Token,
}

impl GaussianBlur {
    /// A Gaussian of standard deviation `sigma` pixels, cut off at the radius `truncate * sigma + 0.5`, rounded down,
    /// and scaled to a sum of 1. Methods with anomaly maps use `sigma` 4 and scipy's default `truncate` of 4: a radius
    /// of 16.
    ///
    /// # Errors
    /// [`FilterError::Sigma`], [`FilterError::Isa`].
    pub fn new(sigma: f64, truncate: f64, border: Border, isa: Isa) -> Result<Self, FilterError> {
        if !(sigma > 0.0 && truncate > 0.0 && sigma * truncate <= MAX_RADIUS) {
            return Err(FilterError::Sigma { sigma, truncate });
        }
        let radius = (truncate * sigma + 0.5) as usize;
        let weight = |at: usize| (-0.5 * (at as f64 / sigma).powi(2)).exp();
        let sum = weight(0) + 2.0 * (1..=radius).map(weight).sum::<f64>();
        let weights = (0..=radius).map(|at| (weight(at) / sum) as f32).collect();
        Ok(Self { weights, border, token: Token::new(isa)? })
    }

    /// The radius of the kernel in pixels.
    pub fn radius(&self) -> usize {
        self.weights.len() - 1
    }

    /// Filters `maps` `[maps, height, width]`, in parallel over the maps.
    ///
    /// # Errors
    /// [`FilterError::Ragged`].
    pub fn apply(&self, maps: &[f32], height: usize, width: usize) -> Result<Vec<f32>, FilterError> {
        let size = height.saturating_mul(width);
        if size == 0 || !maps.len().is_multiple_of(size) {
            return Err(FilterError::Ragged { len: maps.len(), height, width });
        }
        let mut filtered = vec![0.0f32; maps.len()];
        maps.par_chunks_exact(size).zip(filtered.par_chunks_exact_mut(size)).for_each(|(map, filtered)| {
            self.token.dispatch(Blur { blur: self, map, height, width, filtered });
        });
        Ok(filtered)
    }
}

struct Blur<'a> {
    blur: &'a GaussianBlur,
    map: &'a [f32],
    height: usize,
    width: usize,
    filtered: &'a mut [f32],
}

impl Kernel for Blur<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { blur: GaussianBlur { weights, border, .. }, map, height, width, filtered } = self;
        let radius = weights.len() - 1;
        // Rows are filled up to whole vectors, so that no load runs into the next row.
        let stride = width.next_multiple_of(S::LANES);
        let mut padded = vec![0.0f32; height * stride];
        for (target, row) in padded.chunks_exact_mut(stride).zip(map.chunks_exact(width)) {
            target[..width].copy_from_slice(row);
        }
        let mut line = vec![0.0f32; stride + 2 * radius];
        let mut out = vec![0.0f32; stride];
        for y in 0..height {
            let above = |at: usize| if at <= y { y - at } else { border.before(at - y, height) };
            let below = |at: usize| if y + at < height { y + at } else { border.after(y + at - height + 1, height) };
            for x in (0..stride).step_by(S::LANES) {
                // SAFETY: every row index is below `height`, and `x + LANES <= stride`; `line` has `stride` values from
                // `radius` on.
                unsafe {
                    let load = |row: usize| simd.load(padded.as_ptr().add(row * stride + x));
                    let mut sum = simd.mul(load(y), simd.splat(weights[0]));
                    for (at, weight) in weights.iter().enumerate().skip(1) {
                        sum = simd.fma(simd.add(load(above(at)), load(below(at))), simd.splat(*weight), sum);
                    }
                    simd.store(line.as_mut_ptr().add(radius + x), sum);
                }
            }
            for at in 1..=radius {
                line[radius - at] = line[radius + border.before(at, width)];
                line[radius + width - 1 + at] = line[radius + border.after(at, width)];
            }
            for x in (0..stride).step_by(S::LANES) {
                // SAFETY: `x + 2 radius + LANES <= line.len()`, and `x + LANES <= out.len()`.
                unsafe {
                    let load = |at: usize| simd.load(line.as_ptr().add(at));
                    let middle = radius + x;
                    let mut sum = simd.mul(load(middle), simd.splat(weights[0]));
                    for (at, weight) in weights.iter().enumerate().skip(1) {
                        let pair = simd.add(load(middle - at), load(middle + at));
                        sum = simd.fma(pair, simd.splat(*weight), sum);
                    }
                    simd.store(out.as_mut_ptr().add(x), sum);
                }
            }
            filtered[y * width..(y + 1) * width].copy_from_slice(&out[..width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_map_stays_and_the_sum_of_a_reflected_one_too() {
        for isa in Isa::available() {
            for border in [Border::Reflect, Border::Nearest, Border::Mirror] {
                let blur = GaussianBlur::new(2.5, 4.0, border, isa).unwrap();
                let got = blur.apply(&[3.0; 2 * 7 * 21], 7, 21).unwrap();
                // The weights sum to 1 up to their rounding to f32.
                assert!(got.iter().all(|value| (value - 3.0).abs() < 3e-6), "{isa} {border:?}");
            }
            let blur = GaussianBlur::new(4.0, 4.0, Border::Reflect, isa).unwrap();
            let map: Vec<f32> = (0..20 * 33).map(|i| (i * 7919 % 1009) as f32 / 1009.0).collect();
            let sum = |map: &[f32]| map.iter().map(|value| f64::from(*value)).sum::<f64>();
            assert!((sum(&blur.apply(&map, 20, 33).unwrap()) - sum(&map)).abs() < 1e-3, "{isa}");
        }
    }

    #[test]
    fn wrong_input_is_an_error_that_names_it() {
        for (sigma, truncate) in [(0.0, 4.0), (f64::NAN, 4.0), (1.0, -1.0), (1e9, 4.0)] {
            let error = GaussianBlur::new(sigma, truncate, Border::Reflect, Isa::Portable).unwrap_err();
            assert!(matches!(error, FilterError::Sigma { .. }), "{error}");
        }
        let blur = GaussianBlur::new(1.0, 4.0, Border::Reflect, Isa::Portable).unwrap();
        assert_eq!(blur.radius(), 4);
        assert_eq!(blur.apply(&[0.0; 7], 2, 3), Err(FilterError::Ragged { len: 7, height: 2, width: 3 }));
        assert_eq!(blur.apply(&[], 0, 3), Err(FilterError::Ragged { len: 0, height: 0, width: 3 }));
    }
}
