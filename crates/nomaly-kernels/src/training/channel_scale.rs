//! Products of tensors with a factor per channel, with gradients: the gate of a squeeze-and-excitation block (Hu et al.
//! 2018), and LayerScale (Touvron et al. 2021).
//!
//! **The design.** Every pass reads and writes each tensor once. A unit of work is a group of planes, and the gradient
//! of a plane's factor is summed in the pass that computes the gradient of the plane. Planes of one position are rows
//! of channels (the tokens of a transformer): there vectors run over channels, and the gradient of a factor that all
//! rows share is a sum of columns.

use std::ops::Range;

use crate::isa::Isa;
use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token};

use super::columns::column_sums;
use super::error::{TrainingError, expect, positive, samples, values};
use super::memory::{Shared, threads_for};
use super::reduce::sum_pairs;
use super::vectors::map_vectors;

/// Values of a unit of work.
const UNIT: usize = 16 << 10;

/// Which values have a factor in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScalePer {
    /// Those of a channel of an image: factors are `[N, C]`.
    Plane,
    /// Those of a channel: factors are `[C]`.
    Channel,
}

/// `[N, C, P]` times a factor per plane or per channel.
///
/// ```
/// use nomaly_kernels::isa::Isa;
/// use nomaly_kernels::training::{ChannelScale, ScalePer};
///
/// let scale = ChannelScale::new(Isa::best()?, ScalePer::Channel, 2, 1)?;
/// let (x, factors) = ([1.0, 2.0, 3.0, 4.0], [10.0, 100.0]);
/// let mut output = [0.0; 4];
/// scale.forward(&x, &factors, &mut output)?;
/// assert_eq!(output, [10.0, 200.0, 30.0, 400.0]);
///
/// let (mut by_input, mut by_factor) = ([0.0; 4], [0.0; 2]);
/// scale.backward(&x, &factors, &[1.0; 4], &mut by_input, &mut by_factor)?;
/// assert_eq!((by_input, by_factor), ([10.0, 100.0, 10.0, 100.0], [4.0, 6.0]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChannelScale {
    token: Token,
    per: ScalePer,
    channels: usize,
    plane: usize,
}

impl ChannelScale {
    /// Plans for `[N, channels, plane]`.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and sizes of zero.
    pub fn new(isa: Isa, per: ScalePer, channels: usize, plane: usize) -> Result<Self, TrainingError> {
        let token = Token::new(isa)?;
        positive(&[("the number of channels", channels), ("the number of positions", plane)])?;
        values("the input", &[channels, plane, size_of::<f32>()])?;
        Ok(Self { token, per, channels, plane })
    }

    /// Multiplies.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of `input`.
    pub fn forward(&self, input: &[f32], factors: &[f32], output: &mut [f32]) -> Result<(), TrainingError> {
        self.check(input, factors)?;
        expect("the output", output.len(), input.len())?;
        let output = Shared::new(output);
        let (each, count) = self.stretches(input.len());
        for_each(count, threads_for(4 * input.len()), |unit| {
            let kernel = Multiply { plan: self, stretches: unit * each..((unit + 1) * each), input, factors, output };
            self.token.dispatch(kernel);
        });
        Ok(())
    }

    /// Computes the gradients of the input and of the factors from that of the output.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of `input`.
    pub fn backward(
        &self,
        input: &[f32],
        factors: &[f32],
        output_gradient: &[f32],
        input_gradient: &mut [f32],
        factor_gradient: &mut [f32],
    ) -> Result<(), TrainingError> {
        self.check(input, factors)?;
        expect("the gradient of the output", output_gradient.len(), input.len())?;
        expect("the gradient of the input", input_gradient.len(), input.len())?;
        expect("the gradient of the factors", factor_gradient.len(), factors.len())?;
        let threads = threads_for(6 * input.len());
        let to = Shared::new(input_gradient);
        match (self.per, self.plane) {
            (ScalePer::Plane, 1) => {
                let by_factor = Shared::new(factor_gradient);
                for_each(input.len().div_ceil(UNIT), threads, |unit| {
                    let range = unit * UNIT..((unit + 1) * UNIT).min(input.len());
                    self.token.dispatch(Products { range, input, factors, output_gradient, to, by_factor });
                });
            }
            (ScalePer::Channel, 1) => {
                let channels = self.channels;
                column_sums(input.len() / channels, channels, threads, [Some(factor_gradient)], |rows, sums| {
                    let kernel = ScaledRows { channels, rows, input, factors, output_gradient, to, sums };
                    self.token.dispatch(kernel);
                });
            }
            (ScalePer::Plane, plane) => {
                let by_factor = Shared::new(factor_gradient);
                let (each, count) = self.stretches(input.len());
                for_each(count, threads, |unit| {
                    for index in unit * each..((unit + 1) * each).min(factors.len()) {
                        let planes = std::iter::once(index * plane);
                        self.scale_gradient(planes, factors[index], input, output_gradient, to, by_factor, index);
                    }
                });
            }
            (ScalePer::Channel, plane) => {
                let by_factor = Shared::new(factor_gradient);
                for_each(self.channels, threads, |channel| {
                    let planes = (channel * plane..input.len()).step_by(self.channels * plane);
                    self.scale_gradient(planes, factors[channel], input, output_gradient, to, by_factor, channel);
                });
            }
        }
        Ok(())
    }

    /// The gradients of the planes that share a factor, and that of the factor.
    fn scale_gradient(
        &self,
        planes: impl Iterator<Item = usize>,
        factor: f32,
        input: &[f32],
        output_gradient: &[f32],
        to: Shared,
        by_factor: Shared,
        index: usize,
    ) {
        let mut sum = 0.0;
        for start in planes {
            let range = start..start + self.plane;
            let (input, gradient) = (&input[range.clone()], &output_gradient[range]);
            // SAFETY: no other unit of work has this plane.
            let to = unsafe { to.at(start, self.plane) };
            sum += self.token.dispatch(ScaledPlane { input, gradient, factor, to });
        }
        // SAFETY: each factor has a place of its own.
        unsafe { by_factor.at(index, 1).write(sum as f32) };
    }

    fn check(&self, input: &[f32], factors: &[f32]) -> Result<(), TrainingError> {
        let images = samples("the input", input.len(), self.channels * self.plane)?;
        let expected = match self.per {
            ScalePer::Plane => images * self.channels,
            ScalePer::Channel => self.channels,
        };
        expect("the factors", factors.len(), expected)
    }

    /// A unit of work: consecutive planes, or rows if a plane is one position; and the number of units.
    fn stretches(&self, len: usize) -> (usize, usize) {
        let stretch = if self.plane == 1 { self.channels } else { self.plane };
        let each = (UNIT / stretch).max(1);
        (each, (len / stretch).div_ceil(each))
    }
}

/// The forward pass of some planes, or of rows if a plane is one position.
struct Multiply<'a> {
    plan: &'a ChannelScale,
    stretches: Range<usize>,
    input: &'a [f32],
    factors: &'a [f32],
    output: Shared,
}

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { plan, stretches, input, factors, output } = self;
        if plan.plane == 1 {
            let each = plan.channels;
            for row in stretches.start..stretches.end.min(input.len() / each) {
                let first = row * each % factors.len();
                let (x, factors) = (&input[row * each..(row + 1) * each], &factors[first..first + each]);
                // SAFETY: no other unit has this row; the slices have the length of a row.
                unsafe {
                    let from = [x.as_ptr(), factors.as_ptr()];
                    map_vectors(s, from, [output.at(row * each, each)], each, |[x, factor]| [s.mul(x, factor)]);
                }
            }
            return;
        }
        let each = plan.plane;
        for index in stretches.start..stretches.end.min(input.len() / each) {
            let factor = s.splat(factors[index % factors.len()]);
            let x = &input[index * each..(index + 1) * each];
            // SAFETY: no other unit has this plane.
            unsafe {
                map_vectors(s, [x.as_ptr()], [output.at(index * each, each)], each, |[x]| [s.mul(x, factor)]);
            }
        }
    }
}

/// One plane: the gradient of the input, and the sum that belongs to the factor.
struct ScaledPlane<'a> {
    input: &'a [f32],
    gradient: &'a [f32],
    factor: f32,
    to: *mut f32,
}

impl Kernel for ScaledPlane<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let Self { input, gradient, factor, to } = self;
        let (factor, zero) = (s.splat(factor), s.splat(0.0));
        // Two passes over a plane that is in the first-level cache, or soon comes from the second.
        let [sum, _] = sum_pairs(s, input, gradient, |x, g| [s.mul(x, g), zero]);
        // SAFETY: `to` has the length of the plane.
        unsafe { map_vectors(s, [gradient.as_ptr()], [to], gradient.len(), |[g]| [s.mul(g, factor)]) };
        sum
    }
}

/// Planes of one position with factors of their own: both gradients are products.
struct Products<'a> {
    range: Range<usize>,
    input: &'a [f32],
    factors: &'a [f32],
    output_gradient: &'a [f32],
    to: Shared,
    by_factor: Shared,
}

impl Kernel for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (start, len) = (self.range.start, self.range.len());
        let gradient = &self.output_gradient[self.range.clone()];
        let (x, factors) = (&self.input[self.range.clone()], &self.factors[self.range]);
        // SAFETY: no other unit has these values; the slices have the length of the range.
        unsafe {
            let from = [x.as_ptr(), factors.as_ptr(), gradient.as_ptr()];
            let to = [self.to.at(start, len), self.by_factor.at(start, len)];
            map_vectors(s, from, to, len, |[x, factor, g]| [s.mul(g, factor), s.mul(g, x)]);
        }
    }
}

/// Rows of channels with common factors.
struct ScaledRows<'a> {
    channels: usize,
    rows: Range<usize>,
    input: &'a [f32],
    factors: &'a [f32],
    output_gradient: &'a [f32],
    to: Shared,
    sums: &'a mut [f32],
}

impl Kernel for ScaledRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { channels, rows, input, factors, output_gradient, to, sums } = self;
        for row in rows {
            let range = row * channels..(row + 1) * channels;
            let (x, gradient) = (&input[range.clone()], &output_gradient[range.clone()]);
            // SAFETY: no other unit has this row; all slices have the length of a row.
            unsafe {
                let from = [x.as_ptr(), gradient.as_ptr(), factors.as_ptr(), sums.as_ptr()];
                let to = [to.at(range.start, channels), sums.as_mut_ptr()];
                map_vectors(s, from, to, channels, |[x, g, factor, sum]| [s.mul(g, factor), s.fma(g, x, sum)]);
            }
        }
    }
}
