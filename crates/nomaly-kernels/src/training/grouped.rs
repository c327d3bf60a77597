//! Which kernels compute a convolution with groups.
//!
//! **The problem.** The register tile of a dense convolution has a vector of output channels that share their inputs.
//! Groups with fewer channels than that leave most of it empty, depthwise convolutions all but one value.
//!
//! **The design.** Groups with at least a vector of channels, in and out, are dense convolutions of a part of the
//! channels, computed by the dense kernels ([`Correlation`], [`WeightGradient`]) side by side. Other groups are
//! computed plane by plane ([`PlaneCorrelation`], [`PlaneWeightGradient`]), with vectors of neighbouring columns.

use crate::geometry::Padding;
use crate::simd::Token;

use super::correlation::{Correlation, Phase, Shape};
use super::depthwise::PlaneCorrelation;
use super::depthwise_gradient::PlaneWeightGradient;
use super::weight_gradient::WeightGradient;

/// Whether groups of `[I, O]` channels are computed plane by plane; a single group never is.
fn by_planes(groups: usize, lanes: usize, channels: [usize; 2]) -> bool {
    groups > 1 && channels.into_iter().min() < Some(lanes)
}

/// A correlation within each group.
#[derive(Debug)]
pub(super) enum GroupedCorrelation {
    Dense(Correlation),
    Planes(PlaneCorrelation),
}

impl GroupedCorrelation {
    /// Plans `phases`, which together must cover all outputs of a group of `shape`.
    pub(super) fn new(token: Token, lanes: usize, groups: usize, shape: Shape, phases: Vec<Phase>) -> Self {
        if by_planes(groups, lanes, [shape.input[0], shape.output[0]]) {
            Self::Planes(PlaneCorrelation::new(token, lanes, groups, shape, phases))
        } else {
            Self::Dense(Correlation::new(token, lanes, groups, shape, phases))
        }
    }

    /// Computes `output` from `input`, whose lengths have been checked, and adds `bias`.
    pub(super) fn run(&self, images: usize, input: &[f32], weight: &[f32], bias: Option<&[f32]>, output: &mut [f32]) {
        match self {
            Self::Dense(plan) => plan.run(images, input, weight, bias, output),
            Self::Planes(plan) => plan.run(images, input, weight, bias, output),
        }
    }
}

/// The gradient of the weights of all groups.
#[derive(Debug)]
pub(super) enum GroupedWeightGradient {
    Dense(WeightGradient),
    Planes(PlaneWeightGradient),
}

impl GroupedWeightGradient {
    /// Plans for one geometry, whose sizes have been checked; `shapes` are the input and the output of one group.
    pub(super) fn new(
        token: Token,
        lanes: usize,
        groups: usize,
        shapes: [[usize; 3]; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: Padding,
    ) -> Self {
        if by_planes(groups, lanes, shapes.map(|shape| shape[0])) {
            Self::Planes(PlaneWeightGradient::new(token, lanes, groups, shapes, kernel, stride, padding))
        } else {
            Self::Dense(WeightGradient::new(token, lanes, groups, shapes, kernel, stride, padding))
        }
    }

    /// Computes `gradient` `[G · O, I, kh, kw]` from the input and the gradient of the output, whose lengths have been
    /// checked.
    pub(super) fn run(&self, images: usize, input: &[f32], output_gradient: &[f32], gradient: &mut [f32]) {
        match self {
            Self::Dense(plan) => plan.run(images, input, output_gradient, gradient),
            Self::Planes(plan) => plan.run(images, input, output_gradient, gradient),
        }
    }
}
