//! Operations on a result while it is still in a register: activations, lowered to a clamp and, rarely, a curve.
//!
//! The clamp is part of every kernel. A curve is a second step on values that have just been stored: its constants
//! would not fit the registers beside the sums of a tile, and kernels without a curve do not pay for it.

use crate::geometry::Activation;
use crate::simd::{Kernel, Simd, gelu, gelu_tanh, leaky_relu, sigmoid, silu, tanh};

/// An activation as the kernels apply it: `curve(min(high, max(low, x)))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Epilogue {
    pub(crate) low: f32,
    pub(crate) high: f32,
    pub(crate) curve: Option<Curve>,
}

/// The activations that are not a clamp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Curve {
    Silu,
    Sigmoid,
    LeakyRelu(f32),
    Tanh,
    Gelu,
    GeluTanh,
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
            Activation::LeakyRelu(slope) => (all, Some(Curve::LeakyRelu(slope.value()))),
            Activation::Tanh => (all, Some(Curve::Tanh)),
            Activation::Gelu => (all, Some(Curve::Gelu)),
            Activation::GeluTanh => (all, Some(Curve::GeluTanh)),
        };
        Self { low, high, curve }
    }

    /// The clamp. NaN stays NaN, because the vector operations then return their second operand.
    #[inline(always)]
    pub(crate) fn clamp<S: Simd>(&self, s: S, x: S::V) -> S::V {
        s.min(s.splat(self.high), s.max(s.splat(self.low), x))
    }
}

impl Curve {
    /// The curve at `x`.
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        match self {
            Self::Silu => silu(s, x),
            Self::Sigmoid => sigmoid(s, x),
            Self::LeakyRelu(slope) => leaky_relu(s, s.splat(slope), x),
            Self::Tanh => tanh(s, x),
            Self::Gelu => gelu(s, x),
            Self::GeluTanh => gelu_tanh(s, x),
        }
    }
}

/// Applies a curve in place to vectors that have just been stored: `rows` times `columns` of them.
pub(crate) struct CurveRows {
    pub(crate) curve: Curve,
    pub(crate) start: *mut f32,
    /// Distance between rows, in values.
    pub(crate) row: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Kernel for CurveRows {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for y in 0..self.rows {
            for x in 0..self.columns {
                // SAFETY: these are the places that the caller itself wrote.
                unsafe {
                    let at = self.start.add(y * self.row + x * S::LANES);
                    s.store(at, self.curve.apply(s, s.load(at)));
                }
            }
        }
    }
}
