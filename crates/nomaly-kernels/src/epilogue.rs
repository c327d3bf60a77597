//! Operations on a result while it is still in a register: activations, lowered to a clamp and, rarely, a curve.

use crate::geometry::Activation;
use crate::simd::{Simd, sigmoid, silu};

/// An activation as the kernels apply it: `curve(min(high, max(low, x)))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Epilogue {
    pub(crate) low: f32,
    pub(crate) high: f32,
    pub(crate) curve: Option<Curve>,
}

/// The activations that need an exponential.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Curve {
    Silu,
    Sigmoid,
}

impl Epilogue {
    pub(crate) fn new(activation: Activation) -> Self {
        let all = (f32::NEG_INFINITY, f32::INFINITY);
        let ((low, high), curve) = match activation {
            Activation::Identity => (all, None),
            Activation::Relu => ((0.0, f32::INFINITY), None),
            Activation::Relu6 => ((0.0, 6.0), None),
            Activation::Silu => (all, Some(Curve::Silu)),
            Activation::Sigmoid => (all, Some(Curve::Sigmoid)),
        };
        Self { low, high, curve }
    }

    /// The clamp. NaN stays NaN, because the vector operations then return their second operand.
    #[inline(always)]
    pub(crate) fn clamp<S: Simd>(&self, s: S, x: S::V) -> S::V {
        s.min(s.splat(self.high), s.max(s.splat(self.low), x))
    }

    /// The whole activation.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(&self, s: S, x: S::V) -> S::V {
        match self.curve {
            None => self.clamp(s, x),
            Some(Curve::Silu) => silu(s, x),
            Some(Curve::Sigmoid) => sigmoid(s, x),
        }
    }
}
