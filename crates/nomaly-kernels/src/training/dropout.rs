//! Dropout with recomputed masks.

use rayon::prelude::*;

use crate::random::unit;

use super::error::{TrainingError, positive, samples};
use super::memory::threads_for;

/// Values of a unit of work.
const UNIT: usize = 16 << 10;

/// Inverted dropout (Srivastava et al. 2014, section 10): each value becomes 0 with probability `rate`, or else is
/// divided by 1 − `rate`, which preserves the mean.
///
/// Whether a value is dropped depends only on a key and its position, so the mask of a forward pass is not stored for
/// the backward pass but computed again, on any number of threads.
///
/// ```
/// use nomaly_kernels::training::Dropout;
///
/// let dropout = Dropout::new(0.5)?;
/// let mut values = [1.0; 64];
/// dropout.apply(7, 64, &mut values)?;
/// assert!(values.iter().all(|value| [0.0, 2.0].contains(value)));
///
/// let mut gradient = [1.0; 64];
/// dropout.apply(7, 64, &mut gradient)?;
/// assert_eq!(gradient, values);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    rate: f64,
    factor: f32,
}

impl Dropout {
    /// Dropout of a share `rate` of the values, in [0, 1).
    ///
    /// # Errors
    /// If `rate` is not in [0, 1).
    pub fn new(rate: f64) -> Result<Self, TrainingError> {
        if !(0.0..1.0).contains(&rate) {
            return Err(TrainingError::DropoutRate { rate: rate.to_string() });
        }
        Ok(Self { rate, factor: (1.0 / (1.0 - rate)) as f32 })
    }

    /// Multiplies `values` by the mask of `key`, which is 0 or 1 / (1 − rate) and repeats itself after `period`
    /// values: the forward pass on values, and the backward pass on gradients.
    ///
    /// # Errors
    /// If the period is zero or does not divide the number of values.
    pub fn apply(&self, key: u64, period: usize, values: &mut [f32]) -> Result<(), TrainingError> {
        positive(&[("the period of a mask", period)])?;
        samples("the values to drop", values.len(), period)?;
        let run = |start: usize, mut values: &mut [f32]| {
            let mut place = start % period;
            while !values.is_empty() {
                let (part, rest) = values.split_at_mut(values.len().min(period - place));
                for (value, place) in part.iter_mut().zip(place as u64..) {
                    *value = if unit(key, place) < self.rate { 0.0 } else { *value * self.factor };
                }
                (values, place) = (rest, 0);
            }
        };
        if threads_for(32 * values.len()) == 1 {
            run(0, values);
        } else {
            values.par_chunks_mut(UNIT).enumerate().for_each(|(index, values)| run(index * UNIT, values));
        }
        Ok(())
    }
}
