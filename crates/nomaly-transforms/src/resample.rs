//! Separable resampling of 8-bit images in Pillow's fixed-point arithmetic.
//!
//! The problem: features are compared with those of programs that resize with Pillow, and a resize that rounds
//! differently deviates by single grey levels. Measured on 492 magnetic tiles (EfficientNet-Lite0, bicubic): the AUROC
//! of single levels moved by up to 0.09 points, that of nearest neighbours by 0.13. So the weights are rounded to 22
//! fractional bits, the sums start at one half, and each pass is rounded to 8 bits, as Pillow's are.
//!
//! The order of the two passes also affects rounding. Rows come first, unless the image gets lower but not narrower:
//! then Pillow 13 and this code take the columns first. If an image shrinks along both axes, Pillow 13 sometimes also
//! takes the columns first, by a rule that is not implemented here: in tests, a bilinear resize then differed by at
//! most one grey level, a bicubic one by several.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Fractional bits of a weight: 32 less 8 for the pixel and 2 for weights outside [0, 1].
const PRECISION: u32 = 32 - 8 - 2;
const ONE_HALF: i32 = 1 << (PRECISION - 1);
const CHANNELS: usize = 3;

/// An interpolation kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// A triangle; torchvision's default.
    Bilinear,
    /// Keys' cubic with a = −½ (Catmull–Rom); EfficientNet's.
    Bicubic,
}

/// The source samples of one output sample, and their weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Resamples interleaved RGB from `source` = (width, height) to `target`; both have pixels.
pub(crate) fn resample(pixels: &[u8], source: (usize, usize), target: (usize, usize), filter: Filter) -> Vec<u8> {
    let ((width, height), (new_width, new_height)) = (source, target);
    let along_rows = |pixels: &[u8]| rows(pixels, width, &taps(width, new_width, filter));
    let along_columns = |pixels: &[u8]| columns(pixels, height, &taps(height, new_height, filter));
    match (width == new_width, height == new_height) {
        (true, true) => pixels.to_vec(),
        (false, true) => along_rows(pixels),
        (true, false) => along_columns(pixels),
        (false, false) if new_height < height && new_width >= width => along_rows(&along_columns(pixels)),
        (false, false) => along_columns(&along_rows(pixels)),
    }
}

/// The taps of every output sample of one axis.
fn taps(source: usize, target: usize, filter: Filter) -> Vec<Taps> {
    let scale = source as f64 / target as f64;
    let stretch = scale.max(1.0);
    let reach = stretch
        * match filter {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        };
    (0..target)
        .map(|at| {
            let center = (at as f64 + 0.5) * scale;
            let first = (center - reach + 0.5).max(0.0) as usize;
            let end = ((center + reach + 0.5) as usize).min(source);
            let weights: Vec<f64> =
                (first..end).map(|from| kernel(filter, (from as f64 - center + 0.5) / stretch)).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |weight: f64| (weight / sum * f64::from(1 << PRECISION) + 0.5f64.copysign(weight)) as i32;
            Taps { first, weights: weights.into_iter().map(fixed).collect() }
        })
        .collect()
}

fn kernel(filter: Filter, x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    match filter {
        Filter::Bilinear => (1.0 - x).max(0.0),
        Filter::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        Filter::Bicubic => 0.0,
    }
}

/// Resamples along each row of `width` pixels.
fn rows(pixels: &[u8], width: usize, taps: &[Taps]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pixels.len() / width * taps.len());
    for row in pixels.chunks_exact(width * CHANNELS) {
        for Taps { first, weights } in taps {
            let mut sums = [ONE_HALF; CHANNELS];
            let (window, _) = row[first * CHANNELS..].as_chunks::<CHANNELS>();
            for (pixel, weight) in window.iter().zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            out.extend(sums.map(to_level));
        }
    }
    out
}

/// Resamples along each column of `height` pixels.
fn columns(pixels: &[u8], height: usize, taps: &[Taps]) -> Vec<u8> {
    let stride = pixels.len() / height;
    let mut out = Vec::with_capacity(stride * taps.len());
    let mut sums = vec![ONE_HALF; stride];
    for Taps { first, weights } in taps {
        sums.fill(ONE_HALF);
        for (row, weight) in pixels[first * stride..].chunks_exact(stride).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| to_level(sum)));
    }
    out
}

/// A sum as a grey level: the whole part, clipped.
fn to_level(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}
