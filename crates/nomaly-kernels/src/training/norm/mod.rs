//! Batch normalisation in training, fused with the ReLU or leaky ReLU that follows it.
//!
//! **The problem.** Batch norm does almost no arithmetic but passes over each tensor twice in either direction: once
//! for sums, once for results. Tensors of tens of megabytes come from memory each time.
//!
//! **The design.** A unit of work is one channel over the whole batch. Its planes (half a megabyte for 128 images of
//! 32 × 32) stay in the second-level cache between the passes, so memory sees each tensor once. The activation needs
//! no pass: its mask is computed again from the input in the backward pass, and its result needs no tensor of its own.
//!
//! Sums run in f32 lanes over one plane and in f64 over planes; variances are taken around the mean of each plane and
//! combined (Chan, Golub & LeVeque 1983), so that a large mean loses no precision.

mod rows;

use std::ops::Range;

use crate::geometry::Slope;
use crate::isa::Isa;
use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token, leaky_relu};

use super::error::{TrainingError, expect, expect_some, positive, samples, values};
use super::memory::{Shared, threads_for};
use super::reduce::{Moments, sum_pairs};
use rows::{BackwardRows, CHANNELS, NormalizeRows, RowMoments};

/// The activation after normalization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AfterNorm {
    /// Nothing.
    #[default]
    Nothing,
    /// max(x, 0)
    Relu,
    /// x where it is positive, elsewhere slope * x
    LeakyRelu(Slope),
}

/// Batch normalisation of `[N, C, P]`, P positions per plane: `(x - mean) / sqrt(variance + epsilon) * weight + bias`,
/// with the mean and the biased variance of each channel over the batch. An absent weight counts as one, an absent bias
/// as zero.
///
/// ```
/// use nomaly_kernels::isa::Isa;
/// use nomaly_kernels::training::{AfterNorm, BatchNorm};
///
/// let norm = BatchNorm::new(Isa::best()?, 1, 4, 0.0, AfterNorm::Nothing)?;
/// let (mut mean, mut variance, mut output) = ([0.0], [0.0], [0.0; 4]);
/// norm.forward(&[1.0, 3.0, 1.0, 3.0], Some(&[2.0]), Some(&[5.0]), &mut mean, &mut variance, &mut output)?;
/// assert_eq!((mean[0], variance[0]), (2.0, 1.0));
/// assert_eq!(output, [3.0, 7.0, 3.0, 7.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BatchNorm {
    token: Token,
    channels: usize,
    plane: usize,
    epsilon: f64,
    after: AfterNorm,
}

/// The tensors of a backward pass.
#[derive(Debug)]
pub struct NormBackward<'a> {
    /// The input of the forward pass, `[N, C, P]`.
    pub input: &'a [f32],
    /// Factor of each channel, as in the forward pass.
    pub weight: Option<&'a [f32]>,
    /// Summand of each channel, as in the forward pass.
    pub bias: Option<&'a [f32]>,
    /// Mean of each channel that the forward pass used.
    pub mean: &'a [f32],
    /// Variance of each channel that the forward pass used; biased if it is the batch's.
    pub variance: &'a [f32],
    /// The gradient of the output, `[N, C, P]`.
    pub output_gradient: &'a [f32],
    /// Destination of the input's gradient, `[N, C, P]`.
    pub input_gradient: &'a mut [f32],
    /// Destination of the gradient of the factors, `[C]`, if it is wanted.
    pub weight_gradient: Option<&'a mut [f32]>,
    /// Destination of the gradient of the summands, `[C]`, if it is wanted.
    pub bias_gradient: Option<&'a mut [f32]>,
}

impl BatchNorm {
    /// Plans for planes of `plane` positions.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and sizes of zero.
    pub fn new(isa: Isa, channels: usize, plane: usize, epsilon: f64, after: AfterNorm) -> Result<Self, TrainingError> {
        let token = Token::new(isa)?;
        positive(&[("the number of channels", channels), ("the number of positions", plane)])?;
        values("the input", &[channels, plane, size_of::<f32>()])?;
        Ok(Self { token, channels, plane, epsilon, after })
    }

    /// Normalises by the statistics of the batch, which it also returns: means and biased variances.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of `input`.
    pub fn forward(
        &self,
        input: &[f32],
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        mean: &mut [f32],
        variance: &mut [f32],
        output: &mut [f32],
    ) -> Result<(), TrainingError> {
        samples("the input", input.len(), self.channels * self.plane)?;
        expect_some("the weight", weight, self.channels)?;
        expect_some("the bias", bias, self.channels)?;
        self.expect_channels(&[("the mean", mean.len()), ("the variance", variance.len())])?;
        expect("the output", output.len(), input.len())?;
        let [mean, variance, output] = [mean, variance, output].map(Shared::new);
        if self.plane == 1 {
            self.each_group(input.len(), |channels| {
                let width = self.channels;
                let moments = self.token.dispatch(RowMoments { input, width, channels: channels.clone() });
                for (channel, moments) in channels.clone().zip(&moments) {
                    // SAFETY: each channel has a place of its own.
                    unsafe {
                        mean.at(channel, 1).write(moments[0] as f32);
                        variance.at(channel, 1).write(moments[1] as f32);
                    }
                }
                self.normalize_rows(input, channels, weight, bias, &moments, output);
            });
            return Ok(());
        }
        for_each(self.channels, threads_for(4 * input.len()), |channel| {
            let moments = self.token.dispatch(ChannelMoments { norm: self, input, channel });
            // SAFETY: each channel has a place of its own.
            unsafe {
                mean.at(channel, 1).write(moments[0] as f32);
                variance.at(channel, 1).write(moments[1] as f32);
            }
            let affine = self.affine(channel, weight, bias, moments);
            self.token.dispatch(Normalize { norm: self, input, channel, affine, output });
        });
        Ok(())
    }

    /// Normalises by given statistics, as in evaluation.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of `input`.
    pub fn evaluate(
        &self,
        input: &[f32],
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        mean: &[f32],
        variance: &[f32],
        output: &mut [f32],
    ) -> Result<(), TrainingError> {
        samples("the input", input.len(), self.channels * self.plane)?;
        expect_some("the weight", weight, self.channels)?;
        expect_some("the bias", bias, self.channels)?;
        self.expect_channels(&[("the mean", mean.len()), ("the variance", variance.len())])?;
        expect("the output", output.len(), input.len())?;
        let output = Shared::new(output);
        if self.plane == 1 {
            self.each_group(input.len(), |channels| {
                let moments = wide_moments(mean, variance, channels.clone());
                self.normalize_rows(input, channels, weight, bias, &moments, output);
            });
            return Ok(());
        }
        for_each(self.channels, threads_for(4 * input.len()), |channel| {
            let moments = [f64::from(mean[channel]), f64::from(variance[channel])];
            let affine = self.affine(channel, weight, bias, moments);
            self.token.dispatch(Normalize { norm: self, input, channel, affine, output });
        });
        Ok(())
    }

    /// Moves running statistics towards those of a batch of `images`, as PyTorch does: the running variance is that of
    /// the population, so the batch's is multiplied by n / (n - 1).
    ///
    /// # Errors
    /// Unless each slice has one value per channel.
    pub fn update_running(
        &self,
        images: usize,
        momentum: f64,
        [mean, variance]: [&[f32]; 2],
        [running_mean, running_variance]: [&mut [f32]; 2],
    ) -> Result<(), TrainingError> {
        self.expect_channels(&[
            ("the mean", mean.len()),
            ("the variance", variance.len()),
            ("the running mean", running_mean.len()),
            ("the running variance", running_variance.len()),
        ])?;
        let count = (images * self.plane) as f64;
        let unbiased = count / (count - 1.0).max(1.0);
        let towards = |running: &mut f32, batch: f64| {
            *running = (f64::from(*running) * (1.0 - momentum) + batch * momentum) as f32;
        };
        running_mean.iter_mut().zip(mean).for_each(|(running, batch)| towards(running, f64::from(*batch)));
        let pairs = running_variance.iter_mut().zip(variance);
        pairs.for_each(|(running, batch)| towards(running, f64::from(*batch) * unbiased));
        Ok(())
    }

    /// Computes the gradients of input, factors and summands of [`forward`](Self::forward), through the statistics of
    /// the batch.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of the input.
    pub fn backward(&self, tensors: NormBackward<'_>) -> Result<(), TrainingError> {
        self.differentiate(tensors, Statistics::OfBatch)
    }

    /// Computes the gradients of input, factors and summands of [`evaluate`](Self::evaluate), whose statistics are
    /// constants.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of the input.
    pub fn backward_fixed(&self, tensors: NormBackward<'_>) -> Result<(), TrainingError> {
        self.differentiate(tensors, Statistics::Fixed)
    }

    fn differentiate(&self, tensors: NormBackward<'_>, statistics: Statistics) -> Result<(), TrainingError> {
        let NormBackward {
            input,
            weight,
            bias,
            mean,
            variance,
            output_gradient,
            input_gradient,
            weight_gradient,
            bias_gradient,
        } = tensors;
        samples("the input", input.len(), self.channels * self.plane)?;
        expect_some("the weight", weight, self.channels)?;
        expect_some("the bias", bias, self.channels)?;
        self.expect_channels(&[("the mean", mean.len()), ("the variance", variance.len())])?;
        expect_some("the gradient of the weight", weight_gradient.as_deref(), self.channels)?;
        expect_some("the gradient of the bias", bias_gradient.as_deref(), self.channels)?;
        expect("the gradient of the output", output_gradient.len(), input.len())?;
        expect("the gradient of the input", input_gradient.len(), input.len())?;
        let to = Shared::new(input_gradient);
        let [weight_gradient, bias_gradient] = [weight_gradient, bias_gradient].map(|slice| slice.map(Shared::new));
        let write = |channel: usize, sums: [f64; 2]| {
            for (to, sum) in [weight_gradient, bias_gradient].into_iter().zip(sums) {
                if let Some(to) = to {
                    // SAFETY: each channel has a place of its own.
                    unsafe { to.at(channel, 1).write(sum as f32) };
                }
            }
        };
        if self.plane == 1 {
            self.each_group(input.len(), |channels| {
                let moments = wide_moments(mean, variance, channels.clone());
                let sums = self.token.dispatch(BackwardRows {
                    norm: self,
                    input,
                    output_gradient,
                    width: self.channels,
                    channels: channels.clone(),
                    affine: &self.affines(channels.clone(), weight, bias, &moments),
                    moments: &moments,
                    of_batch: statistics == Statistics::OfBatch,
                    to,
                });
                channels.zip(sums).for_each(|(channel, sums)| write(channel, sums));
            });
            return Ok(());
        }
        for_each(self.channels, threads_for(6 * input.len()), |channel| {
            let moments = [f64::from(mean[channel]), f64::from(variance[channel])];
            let affine = self.affine(channel, weight, bias, moments);
            let kernel = Backward { norm: self, input, output_gradient, channel, affine, moments, statistics, to };
            write(channel, self.token.dispatch(kernel));
        });
        Ok(())
    }

    fn expect_channels(&self, slices: &[(&'static str, usize)]) -> Result<(), TrainingError> {
        slices.iter().try_for_each(|(what, found)| expect(what, *found, self.channels))
    }

    /// Calls `work` with groups of channels, for planes of one position.
    fn each_group(&self, values: usize, work: impl Fn(Range<usize>) + Send + Sync) {
        for_each(self.channels.div_ceil(CHANNELS), threads_for(6 * values), |group| {
            work(group * CHANNELS..((group + 1) * CHANNELS).min(self.channels));
        });
    }

    /// Normalizes some channels of rows.
    fn normalize_rows(
        &self,
        input: &[f32],
        channels: Range<usize>,
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        moments: &[[f64; 2]],
        output: Shared,
    ) {
        let affine = &self.affines(channels.clone(), weight, bias, moments);
        let (after, width) = (self.after, self.channels);
        self.token.dispatch(NormalizeRows { after, input, width, channels, affine, output });
    }

    /// [`affine`](Self::affine) of some channels.
    fn affines(
        &self,
        channels: Range<usize>,
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        moments: &[[f64; 2]],
    ) -> Vec<[f32; 2]> {
        channels.zip(moments).map(|(channel, moments)| self.affine(channel, weight, bias, *moments)).collect()
    }

    pub(super) fn after(&self) -> AfterNorm {
        self.after
    }

    pub(super) fn epsilon(&self) -> f64 {
        self.epsilon
    }

    /// Factor and summand of a channel, given its mean and variance.
    fn affine(
        &self,
        channel: usize,
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        [mean, variance]: [f64; 2],
    ) -> [f32; 2] {
        let weight = weight.map_or(1.0, |weight| f64::from(weight[channel]));
        let bias = bias.map_or(0.0, |bias| f64::from(bias[channel]));
        let scale = weight / (variance + self.epsilon).sqrt();
        [scale as f32, (bias - mean * scale) as f32]
    }

    /// Where the planes of a channel begin.
    fn planes(&self, len: usize, channel: usize) -> impl Iterator<Item = usize> + use<> {
        let (each, plane) = (self.channels * self.plane, self.plane);
        (0..len / each).map(move |image| image * each + channel * plane)
    }
}

/// Means and variances of some channels.
fn wide_moments(mean: &[f32], variance: &[f32], channels: Range<usize>) -> Vec<[f64; 2]> {
    channels.map(|channel| [f64::from(mean[channel]), f64::from(variance[channel])]).collect()
}

/// Mean and biased variance of one channel.
struct ChannelMoments<'a> {
    norm: &'a BatchNorm,
    input: &'a [f32],
    channel: usize,
}

impl Kernel for ChannelMoments<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [f64; 2] {
        let mut moments = Moments::default();
        for start in self.norm.planes(self.input.len(), self.channel) {
            moments.add(s, &self.input[start..start + self.norm.plane]);
        }
        moments.mean_and_variance()
    }
}

/// Applies the affine map of one channel.
struct Normalize<'a> {
    norm: &'a BatchNorm,
    input: &'a [f32],
    channel: usize,
    affine: [f32; 2],
    output: Shared,
}

impl Kernel for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let zero = s.splat(0.0);
        match self.norm.after {
            AfterNorm::Nothing => self.each(s, |y| y),
            AfterNorm::Relu => self.each(s, |y| s.max(zero, y)),
            AfterNorm::LeakyRelu(slope) => {
                let slope = s.splat(slope.value());
                self.each(s, |y| leaky_relu(s, slope, y));
            }
        }
    }
}

impl Normalize<'_> {
    #[inline(always)]
    fn each<S: Simd>(self, s: S, after: impl Fn(S::V) -> S::V) {
        let plane = self.norm.plane;
        let [scale, shift] = self.affine.map(|value| s.splat(value));
        let map = |x: S::V| after(s.fma(x, scale, shift));
        let whole = plane - plane % S::LANES;
        for start in self.norm.planes(self.input.len(), self.channel) {
            let from = &self.input[start..start + plane];
            // SAFETY: no other unit of work has this plane; vectors end before `whole`, and one lane holds a value of
            // the rest.
            unsafe {
                let to = self.output.at(start, plane);
                for i in (0..whole).step_by(S::LANES) {
                    s.store(to.add(i), map(s.load(from.as_ptr().add(i))));
                }
                let mut lanes = [0.0f32; 16];
                for i in whole..plane {
                    s.store(lanes.as_mut_ptr(), map(s.splat(from[i])));
                    to.add(i).write(lanes[0]);
                }
            }
        }
    }
}

/// Whether the mean and the variance depend on the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statistics {
    OfBatch,
    Fixed,
}

/// The gradients of one channel.
struct Backward<'a> {
    norm: &'a BatchNorm,
    input: &'a [f32],
    output_gradient: &'a [f32],
    channel: usize,
    affine: [f32; 2],
    moments: [f64; 2],
    statistics: Statistics,
    to: Shared,
}

impl Kernel for Backward<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [f64; 2] {
        match self.norm.after {
            AfterNorm::Nothing => self.each(s, |_, gradient| gradient),
            AfterNorm::Relu => self.each(s, |y, gradient| s.where_positive(y, gradient)),
            AfterNorm::LeakyRelu(slope) => {
                let slope = s.splat(slope.value());
                self.each(s, |y, gradient| s.select(y, gradient, s.mul(slope, gradient)))
            }
        }
    }
}

impl Backward<'_> {
    /// `before` turns the gradient of the activation's result into that of its argument, which comes first.
    #[inline(always)]
    fn each<S: Simd>(self, s: S, before: impl Fn(S::V, S::V) -> S::V) -> [f64; 2] {
        let plane = self.norm.plane;
        let [scale, shift] = self.affine.map(|value| s.splat(value));
        let mean = s.splat(self.moments[0] as f32);
        let masked = |x: S::V, gradient: S::V| before(s.fma(x, scale, shift), gradient);
        let [mut sum, mut product] = [0.0f64; 2];
        for start in self.norm.planes(self.input.len(), self.channel) {
            let range = start..start + plane;
            let terms = sum_pairs(s, &self.input[range.clone()], &self.output_gradient[range], |x, gradient| {
                let gradient = masked(x, gradient);
                [gradient, s.mul(gradient, s.sub(x, mean))]
            });
            sum += terms[0];
            product += terms[1];
        }

        let count = (self.input.len() / self.norm.channels) as f64;
        let inverse = 1.0 / (self.moments[1] + self.norm.epsilon).sqrt();
        let factor = f64::from(self.affine[0]);
        let [by_input, constant] = match self.statistics {
            Statistics::OfBatch => [-factor * inverse * inverse * product / count, -factor * sum / count],
            Statistics::Fixed => [0.0; 2],
        }
        .map(|value| s.splat(value as f32));
        let map =
            |x: S::V, gradient: S::V| s.fma(masked(x, gradient), scale, s.fma(s.sub(x, mean), by_input, constant));
        let whole = plane - plane % S::LANES;
        for start in self.norm.planes(self.input.len(), self.channel) {
            let (x, gradient) = (&self.input[start..start + plane], &self.output_gradient[start..start + plane]);
            // SAFETY: as in `Normalize`.
            unsafe {
                let to = self.to.at(start, plane);
                for i in (0..whole).step_by(S::LANES) {
                    s.store(to.add(i), map(s.load(x.as_ptr().add(i)), s.load(gradient.as_ptr().add(i))));
                }
                let mut lanes = [0.0f32; 16];
                for i in whole..plane {
                    s.store(lanes.as_mut_ptr(), map(s.splat(x[i]), s.splat(gradient[i])));
                    to.add(i).write(lanes[0]);
                }
            }
        }
        [product * inverse, sum]
    }
}
