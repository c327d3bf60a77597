//! Softmax and its logarithm over rows, with gradients.
//!
//! A row passes through the cache three times (greatest value, exponentials with their sum, quotients) but through
//! memory once.

use crate::isa::Isa;
use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token, exp_of_negative};

use super::error::{TrainingError, expect, positive, samples};
use super::memory::{Shared, threads_for};
use super::vectors::{greatest, map_vectors, sum_vectors};

/// Values of a unit of work.
const UNIT: usize = 16 << 10;

/// Operations per value that decide whether threads share the work.
const WORK: usize = 20;

/// Softmax of each row of `[R, width]`: `exp(x) / Σ exp(x)`.
///
/// Logits more than 87 below the greatest of their row count as 87 below.
///
/// # Errors
/// For an instruction set that this processor does not have, a width of zero, and lengths that do not match.
///
/// ```
/// use nomaly_kernels::isa::Isa;
/// use nomaly_kernels::training::{softmax, softmax_gradient};
///
/// let isa = Isa::best()?;
/// let mut output = [0.0; 2];
/// softmax(isa, 2, &[0.0, 3f32.ln()], &mut output)?;
/// assert!((output[0] - 0.25).abs() < 1e-6 && (output[1] - 0.75).abs() < 1e-6);
///
/// let mut gradient = [1.0, 0.0];
/// softmax_gradient(isa, 2, &output, &mut gradient)?;
/// assert!((gradient[0] - 0.1875).abs() < 1e-6 && (gradient[1] + 0.1875).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn softmax(isa: Isa, width: usize, input: &[f32], output: &mut [f32]) -> Result<(), TrainingError> {
    run(isa, width, Pass::Softmax, ("the input", input), ("the output", output))
}

/// Turns the gradient of the output of [`softmax`], which it also needs, into that of the input: `y (g - Σ g y)`.
///
/// # Errors
/// As for [`softmax`].
pub fn softmax_gradient(isa: Isa, width: usize, output: &[f32], gradient: &mut [f32]) -> Result<(), TrainingError> {
    run(isa, width, Pass::SoftmaxGradient, ("the output", output), ("the gradient", gradient))
}

/// The logarithm of [`softmax`]: `x - ln Σ exp(x)`.
///
/// # Errors
/// As for [`softmax`].
pub fn log_softmax(isa: Isa, width: usize, input: &[f32], output: &mut [f32]) -> Result<(), TrainingError> {
    run(isa, width, Pass::LogSoftmax, ("the input", input), ("the output", output))
}

/// Turns the gradient of the output of [`log_softmax`], which it also needs, into that of the input: `g - exp(y) Σ g`.
///
/// # Errors
/// As for [`softmax`].
pub fn log_softmax_gradient(isa: Isa, width: usize, output: &[f32], gradient: &mut [f32]) -> Result<(), TrainingError> {
    run(isa, width, Pass::LogSoftmaxGradient, ("the output", output), ("the gradient", gradient))
}

#[derive(Clone, Copy)]
enum Pass {
    Softmax,
    SoftmaxGradient,
    LogSoftmax,
    LogSoftmaxGradient,
}

fn run(
    isa: Isa,
    width: usize,
    pass: Pass,
    (from_name, from): (&'static str, &[f32]),
    (to_name, to): (&'static str, &mut [f32]),
) -> Result<(), TrainingError> {
    let token = Token::new(isa)?;
    positive(&[("the width of a row", width)])?;
    let rows = samples(from_name, from.len(), width)?;
    expect(to_name, to.len(), from.len())?;
    let to = Shared::new(to);
    let each = (UNIT / width).max(1);
    for_each(rows.div_ceil(each), threads_for(WORK * from.len()), |unit| {
        let (start, end) = (unit * each * width, ((unit + 1) * each).min(rows) * width);
        // SAFETY: no other unit has these rows.
        let to = unsafe { to.at(start, end - start) };
        token.dispatch(Rows { width, pass, from: &from[start..end], to });
    });
    Ok(())
}

struct Rows<'a> {
    width: usize,
    pass: Pass,
    from: &'a [f32],
    /// As long as `from`.
    to: *mut f32,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (index, row) in self.from.chunks_exact(self.width).enumerate() {
            // SAFETY: `to` is as long as `from`.
            unsafe {
                let to = self.to.add(index * self.width);
                match self.pass {
                    Pass::Softmax => softmax_row(s, row, to),
                    Pass::SoftmaxGradient => softmax_gradient_row(s, row, to),
                    Pass::LogSoftmax => log_softmax_row(s, row, to),
                    Pass::LogSoftmaxGradient => log_softmax_gradient_row(s, row, to),
                }
            }
        }
    }
}

/// Writes the exponentials of the differences from the greatest value, and returns their sum.
///
/// # Safety
/// `row` must be valid for reading and `to` for writing `len` values; they are the same or do not overlap.
#[inline(always)]
pub(super) unsafe fn exponentials<S: Simd>(s: S, row: *const f32, to: *mut f32, len: usize) -> f64 {
    // SAFETY: the caller's promise; nothing is written while the slice exists.
    let high = s.splat(greatest(s, unsafe { std::slice::from_raw_parts(row, len) }));
    let rest = len % S::LANES;
    let whole = len - rest;
    let mut sum = s.splat(0.0);
    let mut lanes = [0.0f32; 16];
    // Without a closure, which would not be inlined into several callers.
    // SAFETY: vectors end before `whole`, and `lanes` holds the longest vector.
    unsafe {
        for at in (0..whole).step_by(S::LANES) {
            let exponential = exp_of_negative(s, s.sub(high, s.load(row.add(at))));
            s.store(to.add(at), exponential);
            sum = s.add(sum, exponential);
        }
        s.store(lanes.as_mut_ptr(), sum);
        let mut total: f64 = lanes[..S::LANES].iter().map(|v| f64::from(*v)).sum();
        if rest > 0 {
            lanes.as_mut_ptr().copy_from_nonoverlapping(row.add(whole), rest);
            let exponential = exp_of_negative(s, s.sub(high, s.load(lanes.as_ptr())));
            s.store(lanes.as_mut_ptr(), exponential);
            to.add(whole).copy_from_nonoverlapping(lanes.as_ptr(), rest);
            total += lanes[..rest].iter().map(|v| f64::from(*v)).sum::<f64>();
        }
        total
    }
}

/// # Safety
/// `to` must be valid for writing as many values as `row` has.
#[inline(always)]
unsafe fn softmax_row<S: Simd>(s: S, row: &[f32], to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let inverse = s.splat((1.0 / exponentials(s, row.as_ptr(), to, row.len())) as f32);
        map_vectors(s, [to.cast_const()], [to], row.len(), |[exponential]| [s.mul(exponential, inverse)]);
    }
}

/// # Safety
/// `gradient` must be valid for reading and writing as many values as `row`, the output, has.
#[inline(always)]
unsafe fn softmax_gradient_row<S: Simd>(s: S, row: &[f32], gradient: *mut f32) {
    let from = [row.as_ptr(), gradient.cast_const()];
    // SAFETY: the caller's promise.
    unsafe {
        let [sum] = sum_vectors(s, from, row.len(), |[y, g]| [s.mul(y, g)]);
        let sum = s.splat(sum as f32);
        map_vectors(s, from, [gradient], row.len(), |[y, g]| [s.mul(y, s.sub(g, sum))]);
    }
}

/// # Safety
/// `to` must be valid for writing as many values as `row` has.
#[inline(always)]
unsafe fn log_softmax_row<S: Simd>(s: S, row: &[f32], to: *mut f32) {
    let high = s.splat(greatest(s, row));
    // SAFETY: the caller's promise.
    unsafe {
        let [sum] = sum_vectors(s, [row.as_ptr()], row.len(), |[x]| [exp_of_negative(s, s.sub(high, x))]);
        let sum = s.splat(sum.ln() as f32);
        map_vectors(s, [row.as_ptr()], [to], row.len(), |[x]| [s.sub(s.sub(x, high), sum)]);
    }
}

/// # Safety
/// `gradient` must be valid for reading and writing as many values as `row`, the output, has.
#[inline(always)]
unsafe fn log_softmax_gradient_row<S: Simd>(s: S, row: &[f32], gradient: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let [sum] = sum_vectors(s, [gradient.cast_const()], row.len(), |[g]| [g]);
        let (sum, zero) = (s.splat(sum as f32), s.splat(0.0));
        map_vectors(s, [row.as_ptr(), gradient.cast_const()], [gradient], row.len(), |[y, g]| {
            [s.sub(g, s.mul(exp_of_negative(s, s.sub(zero, y)), sum))]
        });
    }
}
