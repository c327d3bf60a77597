//! Operations on each value by itself, with gradients.

use rayon::prelude::*;

use super::error::{TrainingError, expect};
use super::memory::threads_for;

/// Values of a unit of work.
const UNIT: usize = 32 << 10;

/// Calls `work` on chunks of two slices of one length.
fn each(to: &mut [f32], from: &[f32], work: impl Fn(&mut [f32], &[f32]) + Send + Sync) {
    if threads_for(16 * to.len()) == 1 {
        work(to, from);
    } else {
        to.par_chunks_mut(UNIT).zip(from.par_chunks(UNIT)).for_each(|(to, from)| work(to, from));
    }
}

/// Adds `from` to `to`.
///
/// # Errors
/// When the lengths differ.
pub fn add_assign(to: &mut [f32], from: &[f32]) -> Result<(), TrainingError> {
    expect("the summand", from.len(), to.len())?;
    each(to, from, |to, from| to.iter_mut().zip(from).for_each(|(to, from)| *to += from));
    Ok(())
}

/// Writes max(x, 0) of `input`; NaN stays NaN.
///
/// # Errors
/// When the lengths differ.
pub fn relu(input: &[f32], output: &mut [f32]) -> Result<(), TrainingError> {
    expect("the output", output.len(), input.len())?;
    each(output, input, |to, from| {
        to.iter_mut().zip(from).for_each(|(to, x)| *to = if *x < 0.0 { 0.0 } else { *x });
    });
    Ok(())
}

/// Turns the gradient of the output of [`relu`] into that of its input, given either of the two.
///
/// # Errors
/// When the lengths differ.
pub fn relu_gradient(values: &[f32], gradient: &mut [f32]) -> Result<(), TrainingError> {
    expect("the gradient", gradient.len(), values.len())?;
    each(gradient, values, |gradient, values| {
        gradient.iter_mut().zip(values).for_each(|(gradient, x)| *gradient = if *x > 0.0 { *gradient } else { 0.0 });
    });
    Ok(())
}
