//! Gradient clipping, as `torch.nn.utils.clip_grad_norm_` and `clip_grad_value_`.
//!
//! An optimizer step takes a factor and a limit of its [`Gradient`](super::Gradient), so a norm that is only needed for
//! the step takes [`global_norm`] and [`norm_factor`], which read the gradients once and write nothing. The other
//! functions change gradients in place.

use rayon::prelude::*;

use crate::isa::Isa;
use crate::simd::{Kernel, Simd, Token};

use super::error::TrainingError;
use super::memory::threads_for;

/// Values of a unit of work.
const UNIT: usize = 32 << 10;
/// Sums that are added to in turn; the same number on every instruction set.
const SUMS: usize = 32;

/// The sum of `term` over units, added in their order.
pub(super) fn ordered_sum(units: usize, threads: usize, term: impl Fn(usize) -> f64 + Send + Sync) -> f64 {
    if units <= 1 || threads <= 1 {
        (0..units).map(term).sum()
    } else {
        (0..units).into_par_iter().with_max_len(1).map(term).collect::<Vec<_>>().into_iter().sum()
    }
}

/// The Euclidean norm of all values of several slices, as if they were one.
///
/// Sums are in double precision, in an order that the lengths alone determine.
///
/// # Errors
/// For an instruction set that this processor does not have.
pub fn global_norm(isa: Isa, slices: &[&[f32]]) -> Result<f64, TrainingError> {
    let token = Token::new(isa)?;
    let units: Vec<&[f32]> = slices.iter().flat_map(|values| values.chunks(UNIT)).collect();
    let values: usize = slices.iter().map(|values| values.len()).sum();
    Ok(ordered_sum(units.len(), threads_for(4 * values), |unit| token.dispatch(Squares(units[unit]))).sqrt())
}

/// The factor that brings gradients of norm `norm` to at most `max_norm`: `max_norm / (norm + 1e-6)`, at most 1. NaN
/// stays NaN, and an infinite norm gives 0.
///
/// ```
/// use nomaly_kernels::training::norm_factor;
///
/// assert_eq!(norm_factor(0.5, 1.0), 1.0);
/// assert!((norm_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
/// ```
pub fn norm_factor(norm: f64, max_norm: f64) -> f64 {
    let factor = max_norm / (norm + 1e-6);
    if factor > 1.0 { 1.0 } else { factor }
}

/// Scales gradients in place so that their [`global_norm`] is at most `max_norm`. Returns the norm before.
///
/// ```
/// use nomaly_kernels::Isa;
/// use nomaly_kernels::training::clip_norm;
///
/// let (mut a, mut b) = ([3.0], [0.0, 4.0]);
/// assert_eq!(clip_norm(Isa::best()?, &mut [&mut a, &mut b], 1.0)?, 5.0);
/// assert!((a[0] - 0.6).abs() < 1e-6 && (b[1] - 0.8).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// For an instruction set that this processor does not have.
pub fn clip_norm(isa: Isa, gradients: &mut [&mut [f32]], max_norm: f64) -> Result<f64, TrainingError> {
    let norm = global_norm(isa, &gradients.iter().map(|values| &**values).collect::<Vec<_>>())?;
    let factor = norm_factor(norm, max_norm);
    if factor != 1.0 {
        in_place(isa, gradients, factor as f32, f32::INFINITY)?;
    }
    Ok(norm)
}

/// Limits each value of gradients to [-`limit`, `limit`] in place; NaN stays NaN.
///
/// # Errors
/// For an instruction set that this processor does not have.
pub fn clip_value(isa: Isa, gradients: &mut [&mut [f32]], limit: f64) -> Result<(), TrainingError> {
    in_place(isa, gradients, 1.0, limit as f32)
}

/// Multiplies each value by `factor`, then limits it.
fn in_place(isa: Isa, gradients: &mut [&mut [f32]], factor: f32, limit: f32) -> Result<(), TrainingError> {
    let token = Token::new(isa)?;
    let len: usize = gradients.iter().map(|values| values.len()).sum();
    let units = gradients.iter_mut().flat_map(|values| values.chunks_mut(UNIT));
    let clip = |values: &mut [f32]| token.dispatch(Clip { values, factor, limit });
    if threads_for(4 * len) == 1 {
        units.for_each(clip);
    } else {
        units.collect::<Vec<_>>().into_par_iter().with_max_len(1).for_each(clip);
    }
    Ok(())
}

struct Squares<'a>(&'a [f32]);

impl Kernel for Squares<'_> {
    type Output = f64;

    /// Plain loops, which the compiler turns into vectors of the instruction set: the squares of single-precision
    /// values are exact in double precision, so the result is the same on each.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let mut sums = [0.0f64; SUMS];
        let (whole, rest) = self.0.as_chunks::<SUMS>();
        for values in whole {
            for i in 0..SUMS {
                let value = f64::from(values[i]);
                sums[i] += value * value;
            }
        }
        let mut total = 0.0;
        for sum in sums {
            total += sum;
        }
        for value in rest {
            total += f64::from(*value) * f64::from(*value);
        }
        total
    }
}

struct Clip<'a> {
    values: &'a mut [f32],
    factor: f32,
    limit: f32,
}

impl Kernel for Clip<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { values, factor, limit } = self;
        let len = values.len();
        let whole = len - len % S::LANES;
        let (low, high) = (s.splat(-limit), s.splat(limit));
        for i in (0..whole).step_by(S::LANES) {
            // SAFETY: `whole` is not beyond the values.
            unsafe {
                let at = values.as_mut_ptr().add(i);
                let scaled = s.mul(s.load(at), s.splat(factor));
                // NaN as second operand stays NaN.
                s.store(at, s.max(low, s.min(high, scaled)));
            }
        }
        for value in &mut values[whole..] {
            let scaled = *value * factor;
            *value = if scaled > limit {
                limit
            } else if scaled < -limit {
                -limit
            } else {
                scaled
            };
        }
    }
}
