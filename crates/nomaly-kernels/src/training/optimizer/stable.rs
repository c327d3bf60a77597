//! AdamW with update clipping.

use crate::isa::Isa;
use crate::simd::{Kernel, Simd, Token};

use super::super::clip::ordered_sum;
use super::super::error::{TrainingError, expect};
use super::super::memory::threads_for;
use super::adam::{AdamState, AdamStep, SecondMoment};
use super::pass::{UNIT, clipped};
use super::{Gradient, WeightDecay};

/// StableAdamW (Wortsman et al., *Stable and low-precision training for large-scale vision-language models*, 2023,
/// algorithm 2): AdamW whose rate is divided by max(1, R), where R² is the mean over a tensor of g² / v̂, the
/// squared gradient over the new second moment. A gradient that is suddenly large does not meet a second moment that is
/// still small.
///
/// The paper's debiased betas are the moments of [`AdamStep`] with their correction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StableAdamWStep {
    /// Learning rate.
    pub rate: f64,
    /// Decay of the first and of the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Share of the parameters, times the rate, by which they shrink.
    pub weight_decay: f64,
    /// Whether the step divides by the root of the largest second moment so far, in R too.
    pub amsgrad: bool,
    /// Whose form of it.
    pub form: StableForm,
    /// Number of this step, from 1.
    pub step: u64,
}

/// Forms of StableAdamW.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StableForm {
    /// The paper's: R has g² / max(v̂, ε²), and weight decay takes the divided rate.
    #[default]
    Published,
    /// That of Dinomaly's code (Guo et al. 2025), also used by INP-Former: R has g² / (√v̂ + ε)², and weight
    /// decay takes the undivided rate.
    Dinomaly,
}

impl StableAdamWStep {
    /// Moves `parameters`, a whole tensor, and updates `state`. Returns R.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and when the lengths differ.
    pub fn apply<'a>(
        &self,
        isa: Isa,
        parameters: &mut [f32],
        gradient: impl Into<Gradient<'a>>,
        state: AdamState<'_>,
    ) -> Result<f64, TrainingError> {
        let (token, gradient) = (Token::new(isa)?, gradient.into());
        expect("the gradient", gradient.values.len(), parameters.len())?;
        expect("the second moment", state.second.len(), parameters.len())?;
        if self.amsgrad {
            expect("the maximum", state.maximum.len(), parameters.len())?;
        }
        let rms = self.rms(token, gradient, state.second, state.maximum);
        // NaN stays NaN, as it does in the update.
        let divided = if rms <= 1.0 { self.rate } else { self.rate / rms };
        let decay_rate = match self.form {
            StableForm::Published => divided,
            StableForm::Dinomaly => self.rate,
        };
        let Self { rate, betas, epsilon, weight_decay, amsgrad, step, .. } = *self;
        let decay = WeightDecay::Decoupled;
        let adam = AdamStep { rate, betas, epsilon, weight_decay, decay, amsgrad, step };
        adam.apply_with(token, divided, decay.constants(decay_rate, weight_decay), parameters, gradient, state)?;
        Ok(rms)
    }

    /// The root mean square of the gradient over the root of the second moment after this step.
    fn rms(&self, token: Token, gradient: Gradient<'_>, second: &[f32], maximum: &[f32]) -> f64 {
        let len = second.len();
        let sum = ordered_sum(len.div_ceil(UNIT), threads_for(16 * len), |unit| {
            let range = unit * UNIT..len.min((unit + 1) * UNIT);
            token.dispatch(Squares {
                gradient: Gradient { values: &gradient.values[range.clone()], ..gradient },
                second: &second[range.clone()],
                maximum: if self.amsgrad { &maximum[range] } else { &[] },
                rule: SecondMoment::new(self.betas[1], self.step),
                epsilon: match self.form {
                    StableForm::Published => [0.0, (self.epsilon as f32).max(f32::MIN_POSITIVE)],
                    StableForm::Dinomaly => [self.epsilon as f32, 0.0],
                },
            })
        });
        (sum / len.max(1) as f64).sqrt()
    }
}

/// Values whose squares are added in single precision.
const BLOCK: usize = 1 << 10;

/// The sum of the squares of the gradient over the root of its second moment.
struct Squares<'a> {
    gradient: Gradient<'a>,
    second: &'a [f32],
    /// Empty without AMSGrad.
    maximum: &'a [f32],
    rule: SecondMoment,
    /// Added to the root, and the least root.
    epsilon: [f32; 2],
}

impl Squares<'_> {
    /// The terms of one vector.
    ///
    /// # Safety
    /// The addresses must be valid for a vector; that of the maximum may be null.
    #[inline(always)]
    unsafe fn terms<S: Simd>(&self, s: S, at: [*const f32; 3]) -> S::V {
        // SAFETY: the caller's promise.
        let (gradient, second) = unsafe { (clipped(s, s.load(at[0]), &self.gradient), s.load(at[1])) };
        let mut second = self.rule.update(s, second, gradient);
        if !at[2].is_null() {
            // SAFETY: the caller's promise.
            second = s.max(unsafe { s.load(at[2]) }, second);
        }
        let root = s.add(self.rule.root(s, second), s.splat(self.epsilon[0]));
        let ratio = s.div(gradient, s.max(s.splat(self.epsilon[1]), root));
        s.mul(ratio, ratio)
    }
}

impl Kernel for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let len = self.second.len();
        let whole = len - len % S::LANES;
        let [gradient, second] = [self.gradient.values.as_ptr(), self.second.as_ptr()];
        let maximum = if self.maximum.is_empty() { std::ptr::null() } else { self.maximum.as_ptr() };
        let mut lanes = [0.0f32; 16];
        let mut total = 0.0;
        let mut start = 0;
        while start < whole {
            let end = whole.min(start + BLOCK);
            let mut sum = s.splat(0.0);
            for i in (start..end).step_by(S::LANES) {
                let third = if maximum.is_null() { maximum } else { maximum.wrapping_add(i) };
                // SAFETY: the slices are `len` values long, the maximum too unless it is empty.
                sum = s.add(sum, unsafe { self.terms(s, [gradient.add(i), second.add(i), third]) });
            }
            // SAFETY: `lanes` holds the longest vector.
            unsafe { s.store(lanes.as_mut_ptr(), sum) };
            for lane in 0..S::LANES {
                total += f64::from(lanes[lane]);
            }
            start = end;
        }
        if whole < len {
            // The rest goes through vectors padded with zeros; lanes beyond it are left out.
            let mut rest = [[0.0f32; 16]; 3];
            rest[0][..len - whole].copy_from_slice(&self.gradient.values[whole..]);
            rest[1][..len - whole].copy_from_slice(&self.second[whole..]);
            if !maximum.is_null() {
                rest[2][..len - whole].copy_from_slice(&self.maximum[whole..]);
            }
            let third = if maximum.is_null() { maximum } else { rest[2].as_ptr() };
            // SAFETY: each array holds the longest vector.
            unsafe { s.store(lanes.as_mut_ptr(), self.terms(s, [rest[0].as_ptr(), rest[1].as_ptr(), third])) };
            for lane in 0..len - whole {
                total += f64::from(lanes[lane]);
            }
        }
        total
    }
}
