//! Activations of whole tensors, with gradients.
//!
//! An activation does little arithmetic for each value that it moves, so a pass costs what its memory traffic costs.
//! [`activate_in_place`] moves half of what [`activate`] does, and is enough whenever the gradient reads the output
//! ([`Activation::gradient_reads`]) or no gradient is wanted.

use crate::epilogue::{Curve, Epilogue};
use crate::geometry::Activation;
use crate::isa::Isa;
use crate::parallel::for_each;
use crate::simd::{
    GELU_CUBIC, GELU_LINEAR, Kernel, Simd, Token, gelu, gelu_tanh, leaky_relu, normal, sigmoid, silu, tanh,
};

use super::error::{TrainingError, expect};
use super::memory::{Shared, threads_for};
use super::vectors::map_vectors;

/// Values of a unit of work.
const UNIT: usize = 16 << 10;

/// Operations per value that decide whether threads share the work.
const WORK: usize = 16;

/// Which tensor of a forward pass the gradient of an activation is computed from; the other one need not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reads {
    /// None: the gradient passes unchanged.
    Nothing,
    /// The input.
    Input,
    /// The output.
    Output,
    /// Either of the two, because they tell the same.
    Either,
}

impl Activation {
    /// What [`activation_gradient`] reads.
    ///
    /// ReLU, ReLU6 and leaky ReLU with a slope of at least zero read either tensor, sigmoid and tanh the output, SiLU,
    /// both GELUs and leaky ReLU with a negative slope the input, identity nothing.
    pub fn gradient_reads(self) -> Reads {
        match self {
            Self::Identity => Reads::Nothing,
            Self::Relu | Self::Relu6 => Reads::Either,
            Self::LeakyRelu(slope) if slope.value() >= 0.0 => Reads::Either,
            Self::Sigmoid | Self::Tanh => Reads::Output,
            Self::Silu | Self::LeakyRelu(_) | Self::Gelu | Self::GeluTanh => Reads::Input,
        }
    }
}

/// Writes the activation of each value of `input`.
///
/// # Errors
/// For an instruction set that this processor does not have, and when the lengths differ.
///
/// ```
/// use nomaly_kernels::geometry::Activation;
/// use nomaly_kernels::isa::Isa;
/// use nomaly_kernels::training::{Reads, activate, activation_gradient};
///
/// let (isa, leaky) = (Isa::best()?, Activation::leaky_relu(0.25));
/// let mut output = [0.0; 2];
/// activate(isa, leaky, &[-2.0, 2.0], &mut output)?;
/// assert_eq!(output, [-0.5, 2.0]);
///
/// assert_eq!(leaky.gradient_reads(), Reads::Either);
/// let mut gradient = [1.0; 2];
/// activation_gradient(isa, leaky, &output, &mut gradient)?;
/// assert_eq!(gradient, [0.25, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn activate(isa: Isa, activation: Activation, input: &[f32], output: &mut [f32]) -> Result<(), TrainingError> {
    let token = Token::new(isa)?;
    expect("the output", output.len(), input.len())?;
    let to = Shared::new(output);
    units(input.len(), |start, len| {
        // SAFETY: no other unit has these values, and `input` is borrowed beside `output`.
        let (from, to) = unsafe { (input.as_ptr().add(start), to.at(start, len)) };
        token.dispatch(Forward { epilogue: Epilogue::new(activation), from, to, len });
    });
    Ok(())
}

/// Replaces each value by its activation.
///
/// # Errors
/// For an instruction set that this processor does not have.
pub fn activate_in_place(isa: Isa, activation: Activation, values: &mut [f32]) -> Result<(), TrainingError> {
    let token = Token::new(isa)?;
    if activation == Activation::Identity {
        return Ok(());
    }
    let count = values.len();
    let values = Shared::new(values);
    units(count, |start, len| {
        // SAFETY: no other unit has these values.
        let at = unsafe { values.at(start, len) };
        token.dispatch(Forward { epilogue: Epilogue::new(activation), from: at, to: at, len });
    });
    Ok(())
}

/// Turns the gradient of an activation's output into that of its input.
///
/// `values` is the tensor that [`Activation::gradient_reads`] names; with [`Reads::Nothing`] it is not looked at.
///
/// # Errors
/// For an instruction set that this processor does not have, and when the lengths differ.
pub fn activation_gradient(
    isa: Isa,
    activation: Activation,
    values: &[f32],
    gradient: &mut [f32],
) -> Result<(), TrainingError> {
    let token = Token::new(isa)?;
    if activation.gradient_reads() == Reads::Nothing {
        return Ok(());
    }
    expect("the gradient", gradient.len(), values.len())?;
    let gradient = Shared::new(gradient);
    units(values.len(), |start, len| {
        // SAFETY: no other unit has these values.
        let gradient = unsafe { gradient.at(start, len) };
        token.dispatch(Backward { activation, values: &values[start..start + len], gradient });
    });
    Ok(())
}

/// Calls `work` with start and length of each unit.
fn units(count: usize, work: impl Fn(usize, usize) + Send + Sync) {
    for_each(count.div_ceil(UNIT), threads_for(WORK.saturating_mul(count)), |unit| {
        let start = unit * UNIT;
        work(start, UNIT.min(count - start));
    });
}

/// `len` values; `to` may equal `from`.
pub(super) struct Forward {
    pub(super) epilogue: Epilogue,
    pub(super) from: *const f32,
    pub(super) to: *mut f32,
    pub(super) len: usize,
}

impl Kernel for Forward {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let epilogue = self.epilogue;
        // One loop for each curve, whose constants then stay in registers.
        match epilogue.curve {
            None => self.each(s, |x| epilogue.clamp(s, x)),
            Some(Curve::Silu) => self.each(s, |x| silu(s, x)),
            Some(Curve::Sigmoid) => self.each(s, |x| sigmoid(s, x)),
            Some(Curve::LeakyRelu(slope)) => {
                let slope = s.splat(slope);
                self.each(s, |x| leaky_relu(s, slope, x));
            }
            Some(Curve::Tanh) => self.each(s, |x| tanh(s, x)),
            Some(Curve::Gelu) => self.each(s, |x| gelu(s, x)),
            Some(Curve::GeluTanh) => self.each(s, |x| gelu_tanh(s, x)),
        }
    }
}

impl Forward {
    #[inline(always)]
    fn each<S: Simd>(self, s: S, f: impl Fn(S::V) -> S::V) {
        // SAFETY: `activate` and `activate_in_place` hand over `len` values of their slices.
        unsafe { map_vectors(s, [self.from], [self.to], self.len, |[x]| [f(x)]) };
    }
}

struct Backward<'a> {
    activation: Activation,
    values: &'a [f32],
    gradient: *mut f32,
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.activation {
            Activation::Identity => {}
            Activation::Relu => self.each(s, |y, g| s.where_positive(y, g)),
            Activation::Relu6 => {
                let six = s.splat(6.0);
                self.each(s, |y, g| s.where_positive(y, s.where_positive(s.sub(six, y), g)));
            }
            Activation::LeakyRelu(slope) => {
                let slope = s.splat(slope.value());
                self.each(s, |y, g| s.select(y, g, s.mul(slope, g)));
            }
            // With y the output: y (1 - y), and 1 - y².
            Activation::Sigmoid => self.each(s, |y, g| s.mul(g, s.sub(y, s.mul(y, y)))),
            Activation::Tanh => self.each(s, |y, g| s.mul(g, s.sub(s.splat(1.0), s.mul(y, y)))),
            Activation::Silu => self.each(s, |x, g| s.mul(g, silu_slope(s, x))),
            Activation::Gelu => self.each(s, |x, g| {
                let [distribution, density] = normal(s, x);
                s.mul(g, s.fma(x, density, distribution))
            }),
            Activation::GeluTanh => self.each(s, |x, g| s.mul(g, gelu_tanh_slope(s, x))),
        }
    }
}

impl Backward<'_> {
    #[inline(always)]
    fn each<S: Simd>(self, s: S, f: impl Fn(S::V, S::V) -> S::V) {
        // SAFETY: `activation_gradient` hands over as many gradients as values.
        unsafe {
            let from = [self.values.as_ptr(), self.gradient.cast_const()];
            map_vectors(s, from, [self.gradient], self.values.len(), |[value, gradient]| [f(value, gradient)]);
        }
    }
}

/// σ(x) (1 + x (1 - σ(x))).
#[inline(always)]
fn silu_slope<S: Simd>(s: S, x: S::V) -> S::V {
    // Beyond the bounds the slope is 0 and 1; larger magnitudes would multiply the residue of the exponential.
    let x = s.min(s.splat(80.0), s.max(s.splat(-80.0), x));
    let share = sigmoid(s, x);
    s.mul(share, s.fma(x, s.sub(s.splat(1.0), share), s.splat(1.0)))
}

/// σ(v) (1 + x (1 - σ(v)) v') with v = 2 sqrt(2 / π) (x + 0.044715 x³).
#[inline(always)]
fn gelu_tanh_slope<S: Simd>(s: S, x: S::V) -> S::V {
    // As in `silu_slope`: at ten, v is 87.
    let x = s.min(s.splat(10.0), s.max(s.splat(-10.0), x));
    let square = s.mul(x, x);
    let share = sigmoid(s, s.mul(x, s.fma(square, s.splat(GELU_CUBIC), s.splat(GELU_LINEAR))));
    let slope = s.fma(square, s.splat(3.0 * GELU_CUBIC), s.splat(GELU_LINEAR));
    s.mul(share, s.fma(s.mul(x, slope), s.sub(s.splat(1.0), share), s.splat(1.0)))
}
