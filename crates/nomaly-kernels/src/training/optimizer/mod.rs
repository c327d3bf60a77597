//! Optimizer steps with PyTorch's formulas: one pass over parameters, gradient and state.
//!
//! **The problem.** A step does little arithmetic and is bound by memory. Written with operations on whole tensors, as
//! in PyTorch's loops over parameters, it reads and writes each tensor several times.
//!
//! **The design.** A formula is an [`Update`](pass::Update) of one vector of parameters, gradient and states; a single
//! pass applies it. The gradient is scaled and limited on its way in ([`Gradient`]), so that clipping needs no pass
//! that writes. [`StableAdamWStep`] alone has a second pass, which only reads, because its rate depends on all values.
//!
//! State belongs to the caller. It is zero before the first step, and as long as the parameters where the step uses it,
//! else empty.

mod adam;
mod nadam;
mod pass;
mod rmsprop;
mod sgd;
mod stable;

pub use adam::{AdamState, AdamStep};
pub use nadam::{NAdamRates, NAdamStep};
pub use rmsprop::{RmsPropState, RmsPropStep};
pub use sgd::SgdStep;
pub use stable::{StableAdamWStep, StableForm};

/// What weight decay does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WeightDecay {
    /// It is added to the gradient (Adam).
    #[default]
    Gradient,
    /// It shrinks the parameters by `rate · weight_decay`, besides the step (AdamW).
    Decoupled,
}

impl WeightDecay {
    /// The factor of the parameters that is added to their gradient, and the factor that they are multiplied by.
    fn constants(self, rate: f64, weight_decay: f64) -> Decay {
        match self {
            Self::Gradient => Decay { gradient: weight_decay as f32, shrink: 1.0 },
            Self::Decoupled => Decay { gradient: 0.0, shrink: (1.0 - rate * weight_decay) as f32 },
        }
    }
}

/// Constants of weight decay.
#[derive(Clone, Copy, Debug)]
struct Decay {
    /// Factor of the parameters that is added to their gradient.
    gradient: f32,
    /// Factor of the parameters.
    shrink: f32,
}

/// A gradient as a step reads it: each value is multiplied by `factor` and then limited to [-`limit`, `limit`].
///
/// A slice is a gradient that is taken as it is.
///
/// ```
/// use nomaly_kernels::Isa;
/// use nomaly_kernels::training::{Gradient, SgdStep};
///
/// let sgd = SgdStep { rate: 1.0, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false, step: 1 };
/// let mut parameters = [0.0; 3];
/// let gradient = Gradient { factor: 0.5, limit: 1.0, ..Gradient::from(&[1.0, -2.0, 4.0]) };
/// sgd.apply(Isa::best()?, &mut parameters, gradient, &mut [])?;
/// assert_eq!(parameters, [-0.5, 1.0, -1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gradient<'a> {
    /// The derivative of the loss by each parameter.
    pub values: &'a [f32],
    /// Factor of the values; 1 leaves them.
    pub factor: f32,
    /// The largest magnitude, after the factor; infinity for none. NaN stays NaN.
    pub limit: f32,
}

impl<'a> From<&'a [f32]> for Gradient<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self { values, factor: 1.0, limit: f32::INFINITY }
    }
}

impl<'a> From<&'a Vec<f32>> for Gradient<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Self::from(values.as_slice())
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for Gradient<'a> {
    fn from(values: &'a [f32; N]) -> Self {
        Self::from(values.as_slice())
    }
}
