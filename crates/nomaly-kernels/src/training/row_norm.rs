//! Normalization of each sample by its own statistics: layer norm (Ba et al. 2016) of rows, group norm (Wu & He 2018)
//! and instance norm (Ulyanov et al. 2016) of planes.
//!
//! **The problem.** As in batch norm, almost all time goes into moving tensors; but here what is normalized together is
//! contiguous and small enough for a cache.
//!
//! **The design.** A unit of work normalizes some rows or groups. No statistics are kept for the backward pass, which
//! computes them again from values that it must read anyway. Gradients of weight and bias are sums over rows or images
//! in parts that the shapes alone determine, added in order.
//!
//! With x̂ = (x - mean) / deviation and h the gradient of x̂ (the output's times the weight), the gradient of the
//! input is (h - mean(h) - x̂ mean(h x̂)) / deviation.

use std::ops::Range;

use crate::isa::Isa;
use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token};

use super::columns::column_sums;
use super::error::{TrainingError, expect, expect_some, positive, samples, values};
use super::memory::{Shared, threads_for, with_scratch};
use super::reduce::{Moments, sum_pairs};
use super::vectors::{map_vectors, sum_vectors};

/// Values of a unit of work.
const UNIT: usize = 16 << 10;

/// Operations per value that decide whether threads share the work.
const WORK: usize = 8;

/// The tensors of a backward pass of [`LayerNorm`] and [`GroupNorm`].
#[derive(Debug)]
pub struct RowNormBackward<'a> {
    /// The input of the forward pass.
    pub input: &'a [f32],
    /// The factors of the forward pass.
    pub weight: Option<&'a [f32]>,
    /// The gradient of the output.
    pub output_gradient: &'a [f32],
    /// Destination of the input's gradient.
    pub input_gradient: &'a mut [f32],
    /// Destination of the gradient of the factors, if it is wanted.
    pub weight_gradient: Option<&'a mut [f32]>,
    /// Destination of the gradient of the summands, if it is wanted.
    pub bias_gradient: Option<&'a mut [f32]>,
}

impl RowNormBackward<'_> {
    fn check(&self, parameters: usize) -> Result<(), TrainingError> {
        expect("the gradient of the output", self.output_gradient.len(), self.input.len())?;
        expect("the gradient of the input", self.input_gradient.len(), self.input.len())?;
        expect_some("the weight", self.weight, parameters)?;
        expect_some("the gradient of the weight", self.weight_gradient.as_deref(), parameters)?;
        expect_some("the gradient of the bias", self.bias_gradient.as_deref(), parameters)
    }
}

/// Layer norm of rows `[R, C]`: `(x - mean) / sqrt(variance + epsilon) * weight + bias`, with the mean and the biased
/// variance of each row, and weight and bias `[C]`.
///
/// ```
/// use nomaly_kernels::isa::Isa;
/// use nomaly_kernels::training::LayerNorm;
///
/// let norm = LayerNorm::new(Isa::best()?, 2, 0.0)?;
/// let mut output = [0.0; 4];
/// norm.forward(&[1.0, 3.0, 6.0, 2.0], Some(&[2.0, 4.0]), None, &mut output)?;
/// assert_eq!(output, [-2.0, 4.0, 2.0, -4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct LayerNorm {
    token: Token,
    width: usize,
    epsilon: f64,
    /// Weight and bias where there are none.
    ones: Vec<f32>,
    zeros: Vec<f32>,
}

impl LayerNorm {
    /// Plans for rows of `width` values.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and a width of zero.
    pub fn new(isa: Isa, width: usize, epsilon: f64) -> Result<Self, TrainingError> {
        let token = Token::new(isa)?;
        positive(&[("the width of a row", width)])?;
        values("the input", &[width, size_of::<f32>()])?;
        Ok(Self { token, width, epsilon, ones: vec![1.0; width], zeros: vec![0.0; width] })
    }

    /// Normalizes; an absent weight counts as one, an absent bias as zero.
    ///
    /// # Errors
    /// If the length of a slice does not match the width and the rows of `input`.
    pub fn forward(
        &self,
        input: &[f32],
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        output: &mut [f32],
    ) -> Result<(), TrainingError> {
        let rows = samples("the input", input.len(), self.width)?;
        expect_some("the weight", weight, self.width)?;
        expect_some("the bias", bias, self.width)?;
        expect("the output", output.len(), input.len())?;
        let (weight, bias) = (weight.unwrap_or(&self.ones), bias.unwrap_or(&self.zeros));
        let output = Shared::new(output);
        let each = (UNIT / self.width).max(1);
        for_each(rows.div_ceil(each), threads_for(WORK * input.len()), |unit| {
            let rows = unit * each..((unit + 1) * each).min(rows);
            self.token.dispatch(LayerForward { norm: self, rows, input, weight, bias, output });
        });
        Ok(())
    }

    /// Computes the gradients of input, weight and bias.
    ///
    /// # Errors
    /// If the length of a slice does not match the width and the rows of the input.
    pub fn backward(&self, tensors: RowNormBackward<'_>) -> Result<(), TrainingError> {
        tensors.check(self.width)?;
        let RowNormBackward { input, weight, output_gradient, input_gradient, weight_gradient, bias_gradient } =
            tensors;
        let rows = samples("the input", input.len(), self.width)?;
        let weight = weight.unwrap_or(&self.ones);
        let to = Shared::new(input_gradient);
        let threads = threads_for(WORK * input.len());
        column_sums(rows, self.width, threads, [weight_gradient, bias_gradient], |rows, sums| {
            self.token.dispatch(LayerBackward { norm: self, rows, input, weight, output_gradient, to, sums });
        });
        Ok(())
    }
}

struct LayerForward<'a> {
    norm: &'a LayerNorm,
    rows: Range<usize>,
    input: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    output: Shared,
}

impl Kernel for LayerForward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.norm.width;
        for row in self.rows {
            let x = &self.input[row * width..(row + 1) * width];
            let [mean, inverse] = Moments::of(s, x).normalizer(self.norm.epsilon).map(|value| s.splat(value));
            let from = [x.as_ptr(), self.weight.as_ptr(), self.bias.as_ptr()];
            // SAFETY: no other unit has this row; weight and bias have its length.
            unsafe {
                let to = self.output.at(row * width, width);
                map_vectors(s, from, [to], width, |[x, weight, bias]| {
                    [s.fma(s.mul(s.sub(x, mean), inverse), weight, bias)]
                });
            }
        }
    }
}

struct LayerBackward<'a> {
    norm: &'a LayerNorm,
    rows: Range<usize>,
    input: &'a [f32],
    weight: &'a [f32],
    output_gradient: &'a [f32],
    to: Shared,
    /// Sums for weight and bias.
    sums: &'a mut [f32],
}

impl Kernel for LayerBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.norm.width;
        let (by_weight, by_bias) = self.sums.split_at_mut(width);
        for row in self.rows {
            let range = row * width..(row + 1) * width;
            let (x, gradient) = (&self.input[range.clone()], &self.output_gradient[range.clone()]);
            let [mean, inverse] = Moments::of(s, x).normalizer(self.norm.epsilon).map(|value| s.splat(value));
            let normalized = |x: S::V| s.mul(s.sub(x, mean), inverse);
            // SAFETY: no other unit has this row; all slices have its length.
            unsafe {
                let from = [x.as_ptr(), gradient.as_ptr(), self.weight.as_ptr()];
                let [sum, product] = sum_vectors(s, from, width, |[x, gradient, weight]| {
                    let weighted = s.mul(gradient, weight);
                    [weighted, s.mul(weighted, normalized(x))]
                });
                let [sum, product] = [sum, product].map(|sum| s.splat((sum / width as f64) as f32));
                let from = [x, gradient, self.weight, by_weight, by_bias].map(<[f32]>::as_ptr);
                let to = [self.to.at(range.start, width), by_weight.as_mut_ptr(), by_bias.as_mut_ptr()];
                map_vectors(s, from, to, width, |[x, gradient, weight, by_weight, by_bias]| {
                    let normalized = normalized(x);
                    let rest = s.sub(s.sub(s.mul(gradient, weight), sum), s.mul(normalized, product));
                    [s.mul(rest, inverse), s.fma(gradient, normalized, by_weight), s.add(gradient, by_bias)]
                });
            }
        }
    }
}

/// Group norm of `[N, C, P]`, P positions per plane: `(x - mean) / sqrt(variance + epsilon) * weight + bias`, with the
/// mean and the biased variance of each group of channels of each image, and weight and bias `[C]`.
///
/// Groups of one channel are instance norm.
///
/// ```
/// use nomaly_kernels::isa::Isa;
/// use nomaly_kernels::training::GroupNorm;
///
/// let norm = GroupNorm::instance(Isa::best()?, 2, 2, 0.0)?;
/// let mut output = [0.0; 4];
/// norm.forward(&[1.0, 3.0, 6.0, 2.0], Some(&[2.0, 4.0]), None, &mut output)?;
/// assert_eq!(output, [-2.0, 2.0, 4.0, -4.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct GroupNorm {
    token: Token,
    channels: usize,
    plane: usize,
    groups: usize,
    epsilon: f64,
}

impl GroupNorm {
    /// Plans for planes of `plane` positions and `groups` groups of consecutive channels.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, sizes of zero, and groups of different sizes.
    pub fn new(isa: Isa, channels: usize, plane: usize, groups: usize, epsilon: f64) -> Result<Self, TrainingError> {
        let token = Token::new(isa)?;
        positive(&[
            ("the number of channels", channels),
            ("the number of positions", plane),
            ("the number of groups", groups),
        ])?;
        values("the input", &[channels, plane, size_of::<f32>()])?;
        samples("the channels", channels, groups)?;
        Ok(Self { token, channels, plane, groups, epsilon })
    }

    /// Plans instance norm: each plane by itself.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and sizes of zero.
    pub fn instance(isa: Isa, channels: usize, plane: usize, epsilon: f64) -> Result<Self, TrainingError> {
        Self::new(isa, channels, plane, channels, epsilon)
    }

    /// Normalizes; an absent weight counts as one, an absent bias as zero.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of `input`.
    pub fn forward(
        &self,
        input: &[f32],
        weight: Option<&[f32]>,
        bias: Option<&[f32]>,
        output: &mut [f32],
    ) -> Result<(), TrainingError> {
        let images = samples("the input", input.len(), self.channels * self.plane)?;
        expect_some("the weight", weight, self.channels)?;
        expect_some("the bias", bias, self.channels)?;
        expect("the output", output.len(), input.len())?;
        let output = Shared::new(output);
        self.each_unit(images, |groups| {
            self.token.dispatch(GroupForward { norm: self, groups, input, weight, bias, output });
        });
        Ok(())
    }

    /// Computes the gradients of input, weight and bias.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of the input.
    pub fn backward(&self, tensors: RowNormBackward<'_>) -> Result<(), TrainingError> {
        tensors.check(self.channels)?;
        let RowNormBackward { input, weight, output_gradient, input_gradient, weight_gradient, bias_gradient } =
            tensors;
        let images = samples("the input", input.len(), self.channels * self.plane)?;
        let planes = images * self.channels;
        let to = Shared::new(input_gradient);
        with_scratch(2 * planes, |sums| {
            let shared = Shared::new(sums);
            self.each_unit(images, |groups| {
                let kernel = GroupBackward { norm: self, groups, input, weight, output_gradient, to, sums: shared };
                self.token.dispatch(kernel);
            });
            for (part, total) in [weight_gradient, bias_gradient].into_iter().enumerate() {
                for (channel, total) in total.into_iter().flatten().enumerate() {
                    let planes = (channel..planes).step_by(self.channels);
                    *total = planes.map(|plane| f64::from(sums[2 * plane + part])).sum::<f64>() as f32;
                }
            }
        });
        Ok(())
    }

    /// Values of a group of an image.
    fn group_len(&self) -> usize {
        self.channels / self.groups * self.plane
    }

    /// Calls `work` for ranges of groups, counted over all images.
    fn each_unit(&self, images: usize, work: impl Fn(Range<usize>) + Send + Sync) {
        let (groups, len) = (images * self.groups, self.group_len());
        let each = (UNIT / len).max(1);
        for_each(groups.div_ceil(each), threads_for(WORK * groups * len), |unit| {
            work(unit * each..((unit + 1) * each).min(groups));
        });
    }

    /// The planes of a group: where each begins, and its channel.
    fn planes(&self, group: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (channels, plane, each) = (self.channels, self.plane, self.channels / self.groups);
        (group * each..(group + 1) * each).map(move |index| (index * plane, index % channels))
    }

    /// Mean and inverse deviation of a group.
    #[inline(always)]
    fn moments<S: Simd>(&self, s: S, input: &[f32], group: usize) -> [f32; 2] {
        let mut moments = Moments::default();
        for (start, _) in self.planes(group) {
            moments.add(s, &input[start..start + self.plane]);
        }
        moments.normalizer(self.epsilon)
    }
}

struct GroupForward<'a> {
    norm: &'a GroupNorm,
    groups: Range<usize>,
    input: &'a [f32],
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    output: Shared,
}

impl Kernel for GroupForward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (norm, plane) = (self.norm, self.norm.plane);
        for group in self.groups.clone() {
            let [mean, inverse] = norm.moments(s, self.input, group);
            let mean = s.splat(mean);
            for (start, channel) in norm.planes(group) {
                let scale = s.splat(self.weight.map_or(1.0, |weight| weight[channel]) * inverse);
                let shift = s.splat(self.bias.map_or(0.0, |bias| bias[channel]));
                let x = &self.input[start..start + plane];
                // SAFETY: no other unit has this plane.
                unsafe {
                    let to = self.output.at(start, plane);
                    map_vectors(s, [x.as_ptr()], [to], plane, |[x]| [s.fma(s.sub(x, mean), scale, shift)]);
                }
            }
        }
    }
}

struct GroupBackward<'a> {
    norm: &'a GroupNorm,
    groups: Range<usize>,
    input: &'a [f32],
    weight: Option<&'a [f32]>,
    output_gradient: &'a [f32],
    to: Shared,
    /// The terms of the gradients of weight and bias of each plane.
    sums: Shared,
}

impl Kernel for GroupBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (norm, plane) = (self.norm, self.norm.plane);
        let weight = |channel: usize| self.weight.map_or(1.0, |weight| weight[channel]);
        for group in self.groups.clone() {
            let [mean, inverse] = norm.moments(s, self.input, group);
            let centers = s.splat(mean);
            let [mut sum, mut product] = [0.0f64; 2];
            for (start, channel) in norm.planes(group) {
                let range = start..start + plane;
                let terms = sum_pairs(s, &self.input[range.clone()], &self.output_gradient[range], |x, gradient| {
                    [s.mul(gradient, s.sub(x, centers)), gradient]
                });
                let terms = [terms[0] * f64::from(inverse), terms[1]];
                product += terms[0] * f64::from(weight(channel));
                sum += terms[1] * f64::from(weight(channel));
                // SAFETY: each plane has places of its own.
                unsafe {
                    let to = self.sums.at(2 * (start / plane), 2);
                    to.write(terms[0] as f32);
                    to.add(1).write(terms[1] as f32);
                }
            }
            let inverse = f64::from(inverse);
            let len = norm.group_len() as f64;
            let [by_input, constant] =
                [-inverse * inverse * product / len, -inverse * sum / len].map(|value| s.splat(value as f32));
            for (start, channel) in norm.planes(group) {
                let scale = s.splat((f64::from(weight(channel)) * inverse) as f32);
                let range = start..start + plane;
                let from = [self.input[range.clone()].as_ptr(), self.output_gradient[range].as_ptr()];
                // SAFETY: no other unit has this plane.
                unsafe {
                    map_vectors(s, from, [self.to.at(start, plane)], plane, |[x, gradient]| {
                        [s.fma(gradient, scale, s.fma(s.sub(x, centers), by_input, constant))]
                    });
                }
            }
        }
    }
}
