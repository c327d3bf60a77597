//! Batch norm of rows `[N, C]`, whose planes are one position: vectors run over channels.
//!
//! A unit of work is a group of channels of all rows. Sums run in f32 lanes over [`ROWS`] rows and in f64 beyond;
//! variances are taken around a first estimate of the mean, as for planes.

use std::ops::Range;

use crate::simd::{Kernel, Simd, leaky_relu};

use super::{AfterNorm, BatchNorm};
use crate::training::memory::Shared;
use crate::training::vectors::map_vectors;

/// Channels of a unit of work.
pub(super) const CHANNELS: usize = 128;

/// Rows whose values are summed in f32.
const ROWS: usize = 64;

/// Values of a group of channels.
type Group = [f32; CHANNELS];

/// Two sums over all rows for each channel of a group.
struct Sums {
    parts: [Group; 2],
    totals: [[f64; CHANNELS]; 2],
    rows: usize,
}

impl Sums {
    fn new() -> Self {
        Self { parts: [[0.0; CHANNELS]; 2], totals: [[0.0; CHANNELS]; 2], rows: 0 }
    }

    /// Counts a row that has been added to `parts`.
    fn count_row(&mut self) {
        self.rows += 1;
        if self.rows == ROWS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        for (part, total) in self.parts.iter_mut().zip(&mut self.totals) {
            for (part, total) in part.iter_mut().zip(total) {
                *total += f64::from(std::mem::take(part));
            }
        }
        self.rows = 0;
    }
}

/// Means and biased variances of a group of channels.
pub(super) struct RowMoments<'a> {
    pub(super) input: &'a [f32],
    /// Channels of a row.
    pub(super) width: usize,
    pub(super) channels: Range<usize>,
}

impl Kernel for RowMoments<'_> {
    type Output = Vec<[f64; 2]>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let Self { input, width, channels } = self;
        let count = (input.len() / width).max(1) as f64;
        let mut centers = [0.0f32; CHANNELS];
        let mut moments = Vec::new();
        // The first estimates are the means up to the rounding of sums of large values; those of the differences from
        // them are exact enough.
        for estimated in [false, true] {
            let mut sums = Sums::new();
            for row in input.chunks_exact(width) {
                let row = &row[channels.clone()];
                let [sum, squares] = sums.parts.each_mut().map(|part| part.as_mut_ptr());
                let from = [row.as_ptr(), centers.as_ptr(), sum.cast_const(), squares.cast_const()];
                // SAFETY: a group has at most `CHANNELS` channels.
                unsafe {
                    map_vectors(s, from, [sum, squares], row.len(), |[x, center, sum, squares]| {
                        let centered = s.sub(x, center);
                        [s.add(sum, centered), s.fma(centered, centered, squares)]
                    });
                }
                sums.count_row();
            }
            sums.flush();
            for channel in 0..channels.len() {
                let difference = sums.totals[0][channel] / count;
                if estimated {
                    let variance = sums.totals[1][channel] / count - difference * difference;
                    moments.push([f64::from(centers[channel]) + difference, variance.max(0.0)]);
                } else {
                    centers[channel] = difference as f32;
                }
            }
        }
        moments
    }
}

/// Applies the affine maps of a group of channels.
pub(super) struct NormalizeRows<'a> {
    pub(super) after: AfterNorm,
    pub(super) input: &'a [f32],
    pub(super) width: usize,
    pub(super) channels: Range<usize>,
    /// Factor and summand of each channel of the group.
    pub(super) affine: &'a [[f32; 2]],
    pub(super) output: Shared,
}

impl Kernel for NormalizeRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let zero = s.splat(0.0);
        match self.after {
            AfterNorm::Nothing => self.each(s, |y| y),
            AfterNorm::Relu => self.each(s, |y| s.max(zero, y)),
            AfterNorm::LeakyRelu(slope) => {
                let slope = s.splat(slope.value());
                self.each(s, |y| leaky_relu(s, slope, y));
            }
        }
    }
}

impl NormalizeRows<'_> {
    #[inline(always)]
    fn each<S: Simd>(self, s: S, after: impl Fn(S::V) -> S::V) {
        let [scale, shift] = columns(self.affine);
        let (start, len) = (self.channels.start, self.channels.len());
        for (index, row) in self.input.chunks_exact(self.width).enumerate() {
            let from = [row[self.channels.clone()].as_ptr(), scale.as_ptr(), shift.as_ptr()];
            // SAFETY: no other unit has these channels, and a group has at most `CHANNELS`.
            unsafe {
                let to = self.output.at(index * self.width + start, len);
                map_vectors(s, from, [to], len, |[x, scale, shift]| [after(s.fma(x, scale, shift))]);
            }
        }
    }
}

/// The gradients of a group of channels; returns the terms of those of weight and bias.
pub(super) struct BackwardRows<'a> {
    pub(super) norm: &'a BatchNorm,
    pub(super) input: &'a [f32],
    pub(super) output_gradient: &'a [f32],
    pub(super) width: usize,
    pub(super) channels: Range<usize>,
    pub(super) affine: &'a [[f32; 2]],
    /// Mean and variance of each channel of the group.
    pub(super) moments: &'a [[f64; 2]],
    /// Whether the statistics depend on the input.
    pub(super) of_batch: bool,
    pub(super) to: Shared,
}

impl Kernel for BackwardRows<'_> {
    type Output = Vec<[f64; 2]>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        match self.norm.after() {
            AfterNorm::Nothing => self.each(s, |_, gradient| gradient),
            AfterNorm::Relu => self.each(s, |y, gradient| s.where_positive(y, gradient)),
            AfterNorm::LeakyRelu(slope) => {
                let slope = s.splat(slope.value());
                self.each(s, |y, gradient| s.select(y, gradient, s.mul(slope, gradient)))
            }
        }
    }
}

impl BackwardRows<'_> {
    #[inline(always)]
    fn each<S: Simd>(self, s: S, before: impl Fn(S::V, S::V) -> S::V) -> Vec<[f64; 2]> {
        let (start, len) = (self.channels.start, self.channels.len());
        let [scale, shift] = columns(self.affine);
        let mut mean = [0.0f32; CHANNELS];
        mean.iter_mut().zip(self.moments).for_each(|(mean, moments)| *mean = moments[0] as f32);
        let rows = || {
            let pairs = self.input.chunks_exact(self.width).zip(self.output_gradient.chunks_exact(self.width));
            pairs.map(|(x, gradient)| [x, gradient].map(|row| row[self.channels.clone()].as_ptr()))
        };
        let mut sums = Sums::new();
        for [x, gradient] in rows() {
            let [sum, product] = sums.parts.each_mut().map(|part| part.as_mut_ptr());
            let from = [x, gradient, scale.as_ptr(), shift.as_ptr(), mean.as_ptr(), sum, product];
            // SAFETY: a group has at most `CHANNELS` channels.
            unsafe {
                map_vectors(s, from, [sum, product], len, |[x, gradient, scale, shift, mean, sum, product]| {
                    let gradient = before(s.fma(x, scale, shift), gradient);
                    [s.add(sum, gradient), s.fma(gradient, s.sub(x, mean), product)]
                });
            }
            sums.count_row();
        }
        sums.flush();

        let count = (self.input.len() / self.width).max(1) as f64;
        let [mut by_input, mut constant] = [[0.0f32; CHANNELS]; 2];
        let mut terms = Vec::new();
        for channel in 0..len {
            let [sum, product] = [sums.totals[0][channel], sums.totals[1][channel]];
            let inverse = 1.0 / (self.moments[channel][1] + self.norm.epsilon()).sqrt();
            let factor = f64::from(scale[channel]);
            if self.of_batch {
                by_input[channel] = (-factor * inverse * inverse * product / count) as f32;
                constant[channel] = (-factor * sum / count) as f32;
            }
            terms.push([product * inverse, sum]);
        }
        for (index, [x, gradient]) in rows().enumerate() {
            let columns = [&scale, &shift, &mean, &by_input, &constant].map(|column| column.as_ptr());
            let [scale, shift, mean, by_input, constant] = columns;
            let from = [x, gradient, scale, shift, mean, by_input, constant];
            // SAFETY: no other unit has these channels, and a group has at most `CHANNELS`.
            unsafe {
                let to = self.to.at(index * self.width + start, len);
                map_vectors(s, from, [to], len, |[x, gradient, scale, shift, mean, by_input, constant]| {
                    let gradient = before(s.fma(x, scale, shift), gradient);
                    [s.fma(gradient, scale, s.fma(s.sub(x, mean), by_input, constant))]
                });
            }
        }
        terms
    }
}

/// Factors and summands as two arrays.
fn columns(affine: &[[f32; 2]]) -> [Group; 2] {
    let mut columns = [[0.0; CHANNELS]; 2];
    for (channel, [scale, shift]) in affine.iter().enumerate() {
        columns[0][channel] = *scale;
        columns[1][channel] = *shift;
    }
    columns
}
