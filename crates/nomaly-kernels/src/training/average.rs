//! Exponential moving averages of weights.

use rayon::prelude::*;

use crate::isa::Isa;
use crate::simd::{Kernel, Simd, Token};

use super::error::{TrainingError, expect};
use super::memory::threads_for;

/// Values of a unit of work.
const UNIT: usize = 16 << 10;

/// An exponential moving average of weights (Polyak & Juditsky 1992; Tarvainen & Valpola 2017): a ← d · a + (1 - d)
/// · w.
///
/// It is computed as a + (1 - d) · (w - a), so that the average of constant weights is exactly those weights: rounded
/// to single precision, d and 1 - d do not add up to 1.
///
/// ```
/// use nomaly_kernels::Isa;
/// use nomaly_kernels::training::WeightAverage;
///
/// let mut average = [1.0, 1.0];
/// WeightAverage { decay: 0.75, warm_up: false, step: 1 }.apply(Isa::best()?, &mut average, &[5.0, -3.0])?;
/// assert_eq!(average, [2.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightAverage {
    /// Share of the average that is kept, in [0, 1].
    pub decay: f64,
    /// Whether the first steps keep less, so that the first weights are soon forgotten: min(`decay`, (1 + `step`) /
    /// (10 + `step`)), as in TensorFlow's `ExponentialMovingAverage`.
    pub warm_up: bool,
    /// Number of this step, from 1.
    pub step: u64,
}

impl WeightAverage {
    /// Share of the average that is kept in this step.
    pub fn kept(&self) -> f64 {
        let step = self.step as f64;
        if self.warm_up { self.decay.min((1.0 + step) / (10.0 + step)) } else { self.decay }
    }

    /// Moves `average` towards `weights`.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and when the lengths differ.
    pub fn apply(&self, isa: Isa, average: &mut [f32], weights: &[f32]) -> Result<(), TrainingError> {
        let token = Token::new(isa)?;
        expect("the vector of weights", weights.len(), average.len())?;
        let share = (1.0 - self.kept()) as f32;
        let run = |average: &mut [f32], weights: &[f32]| token.dispatch(Lerp { average, weights, share });
        if threads_for(4 * average.len()) == 1 {
            run(average, weights);
        } else {
            let chunks = average.par_chunks_mut(UNIT).zip(weights.par_chunks(UNIT)).with_max_len(1);
            chunks.for_each(|(average, weights)| run(average, weights));
        }
        Ok(())
    }
}

struct Lerp<'a> {
    average: &'a mut [f32],
    weights: &'a [f32],
    share: f32,
}

impl Kernel for Lerp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { average, weights, share } = self;
        let len = average.len();
        let whole = len - len % S::LANES;
        let share = s.splat(share);
        for i in (0..whole).step_by(S::LANES) {
            // SAFETY: both slices are `len` values long, and `whole` is not beyond.
            unsafe {
                let at = average.as_mut_ptr().add(i);
                let old = s.load(at);
                s.store(at, s.fma(s.sub(s.load(weights.as_ptr().add(i)), old), share, old));
            }
        }
        let mut lanes = [[0.0f32; 16]; 2];
        let rest = len - whole;
        lanes[0][..rest].copy_from_slice(&average[whole..]);
        lanes[1][..rest].copy_from_slice(&weights[whole..]);
        // SAFETY: each array holds the longest vector.
        unsafe {
            let (old, new) = (s.load(lanes[0].as_ptr()), s.load(lanes[1].as_ptr()));
            s.store(lanes[0].as_mut_ptr(), s.fma(s.sub(new, old), share, old));
        }
        average[whole..].copy_from_slice(&lanes[0][..rest]);
    }
}
