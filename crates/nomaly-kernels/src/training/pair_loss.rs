//! Losses of pairs of predictions and targets, value by value: binary cross-entropy, squared and absolute errors.

use rayon::prelude::*;

use crate::isa::Isa;
use crate::simd::{Kernel, Simd, Token, exp_of_negative, ln_1p_of_share};

use super::error::{TrainingError, expect};
use super::memory::{Shared, threads_for};
use super::vectors::map_sum_vectors;

/// Values of a unit of work, whose losses are summed in f32 lanes; units are summed in f64.
const UNIT: usize = 16 << 10;

/// Operations per value that decide whether threads share the work.
const WORK: usize = 16;

/// The mean of `max(x, 0) - x t + ln(1 + exp(-|x|))`, which is the cross-entropy of targets t in [0, 1] and
/// probabilities `sigmoid(x)`, and its gradient by the logits x.
///
/// The loss of no values is 0.
///
/// # Errors
/// For an instruction set that this processor does not have, and when the lengths differ.
///
/// ```
/// use nomaly_kernels::isa::Isa;
/// use nomaly_kernels::training::binary_cross_entropy;
///
/// let mut gradient = [0.0; 2];
/// let loss = binary_cross_entropy(Isa::best()?, &[0.0, 0.0], &[1.0, 0.0], &mut gradient)?;
/// assert!((loss - 2f32.ln()).abs() < 1e-6);
/// assert_eq!(gradient, [-0.25, 0.25]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn binary_cross_entropy(
    isa: Isa,
    logits: &[f32],
    targets: &[f32],
    gradient: &mut [f32],
) -> Result<f32, TrainingError> {
    run(isa, Loss::BinaryCrossEntropy, logits, targets, gradient)
}

/// As [`binary_cross_entropy`], with the terms of positives weighted: the mean of
/// `-p t ln(sigmoid(x)) - (1 - t) ln(1 - sigmoid(x))`, where p is `positive_weight`, as `pos_weight` of
/// `torch.nn.BCEWithLogitsLoss`. A weight above 1 makes up for few positives.
///
/// # Errors
/// As for [`binary_cross_entropy`], and unless the weight is positive and finite.
pub fn weighted_binary_cross_entropy(
    isa: Isa,
    positive_weight: f32,
    logits: &[f32],
    targets: &[f32],
    gradient: &mut [f32],
) -> Result<f32, TrainingError> {
    if !(positive_weight > 0.0 && positive_weight.is_finite()) {
        return Err(TrainingError::PositiveWeight { weight: positive_weight.to_string() });
    }
    run(isa, Loss::WeightedCrossEntropy { positive: positive_weight }, logits, targets, gradient)
}

/// The mean of `(x - t)²` over predictions x and targets t, and its gradient by the predictions.
///
/// # Errors
/// As for [`binary_cross_entropy`].
pub fn mean_squared_error(
    isa: Isa,
    predictions: &[f32],
    targets: &[f32],
    gradient: &mut [f32],
) -> Result<f32, TrainingError> {
    run(isa, Loss::Squared, predictions, targets, gradient)
}

/// The mean of `|x - t|` over predictions x and targets t, and its gradient by the predictions, which is 0 where the
/// two are equal.
///
/// # Errors
/// As for [`binary_cross_entropy`].
pub fn mean_absolute_error(
    isa: Isa,
    predictions: &[f32],
    targets: &[f32],
    gradient: &mut [f32],
) -> Result<f32, TrainingError> {
    run(isa, Loss::Absolute, predictions, targets, gradient)
}

/// The mean of the smooth L1 loss (Girshick 2015) of the differences d of predictions and targets, and its gradient by
/// the predictions: `d² / (2 beta)` where `|d| < beta`, elsewhere `|d| - beta / 2`.
///
/// # Errors
/// As for [`binary_cross_entropy`], and unless `beta` is positive and finite.
pub fn smooth_l1(
    isa: Isa,
    beta: f32,
    predictions: &[f32],
    targets: &[f32],
    gradient: &mut [f32],
) -> Result<f32, TrainingError> {
    if !(beta > 0.0 && beta.is_finite()) {
        return Err(TrainingError::SmoothL1Beta { beta: beta.to_string() });
    }
    run(isa, Loss::SmoothL1 { beta }, predictions, targets, gradient)
}

#[derive(Clone, Copy)]
enum Loss {
    BinaryCrossEntropy,
    WeightedCrossEntropy { positive: f32 },
    Squared,
    Absolute,
    SmoothL1 { beta: f32 },
}

fn run(isa: Isa, loss: Loss, predictions: &[f32], targets: &[f32], gradient: &mut [f32]) -> Result<f32, TrainingError> {
    let token = Token::new(isa)?;
    let count = predictions.len();
    expect("the targets", targets.len(), count)?;
    expect("the gradient", gradient.len(), count)?;
    let share = 1.0 / count.max(1) as f64;
    let gradient = Shared::new(gradient);
    let unit_loss = |unit: usize| {
        let range = unit * UNIT..((unit + 1) * UNIT).min(count);
        // SAFETY: no other unit has these values.
        let gradient = unsafe { gradient.at(range.start, range.len()) };
        let (predictions, targets) = (&predictions[range.clone()], &targets[range]);
        token.dispatch(Pairs { loss, predictions, targets, gradient, share: share as f32 })
    };
    let units = 0..count.div_ceil(UNIT);
    let sums: Vec<f64> = if threads_for(WORK.saturating_mul(count)) > 1 {
        units.into_par_iter().with_max_len(1).map(unit_loss).collect()
    } else {
        units.map(unit_loss).collect()
    };
    Ok((sums.iter().sum::<f64>() * share) as f32)
}

struct Pairs<'a> {
    loss: Loss,
    predictions: &'a [f32],
    targets: &'a [f32],
    /// As long as the predictions.
    gradient: *mut f32,
    /// Factor of the gradient.
    share: f32,
}

impl Kernel for Pairs<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let (zero, one, share) = (s.splat(0.0), s.splat(1.0), s.splat(self.share));
        let magnitude = |x: S::V| s.max(x, s.sub(zero, x));
        match self.loss {
            Loss::BinaryCrossEntropy => self.each(s, |x, target| {
                let decay = exp_of_negative(s, magnitude(x));
                let inverse = s.reciprocal(s.add(one, decay));
                let probability = s.select(x, inverse, s.mul(decay, inverse));
                let linear = s.sub(s.max(zero, x), s.mul(x, target));
                [s.add(linear, ln_1p_of_share(s, decay)), s.mul(s.sub(probability, target), share)]
            }),
            Loss::WeightedCrossEntropy { positive } => {
                let (extra, positive) = (s.splat(positive - 1.0), s.splat(positive));
                self.each(s, |x, target| {
                    let decay = exp_of_negative(s, magnitude(x));
                    let inverse = s.reciprocal(s.add(one, decay));
                    let probability = s.select(x, inverse, s.mul(decay, inverse));
                    let weight = s.fma(extra, target, one);
                    // -ln(sigmoid(x)) = max(-x, 0) + ln(1 + exp(-|x|))
                    let surprise = s.add(s.max(zero, s.sub(zero, x)), ln_1p_of_share(s, decay));
                    let loss = s.fma(weight, surprise, s.mul(s.sub(one, target), x));
                    let slope = s.sub(s.mul(weight, probability), s.mul(positive, target));
                    [loss, s.mul(slope, share)]
                })
            }
            Loss::Squared => {
                let twice = s.add(share, share);
                self.each(s, |x, target| {
                    let difference = s.sub(x, target);
                    [s.mul(difference, difference), s.mul(difference, twice)]
                })
            }
            Loss::Absolute => self.each(s, |x, target| {
                let difference = s.sub(x, target);
                let negative = s.where_positive(s.sub(zero, difference), s.sub(zero, share));
                [magnitude(difference), s.select(difference, share, negative)]
            }),
            Loss::SmoothL1 { beta } => {
                let (inverse, beta, half) = (s.splat(1.0 / beta), s.splat(beta), s.splat(-0.5));
                self.each(s, |x, target| {
                    let difference = s.sub(x, target);
                    let size = magnitude(difference);
                    let near = s.min(beta, size);
                    let slope = s.min(one, s.max(s.sub(zero, one), s.mul(difference, inverse)));
                    [s.mul(s.mul(near, inverse), s.fma(near, half, size)), s.mul(slope, share)]
                })
            }
        }
    }
}

impl Pairs<'_> {
    /// Sums the first and writes the second result of `f`.
    #[inline(always)]
    fn each<S: Simd>(self, s: S, f: impl Fn(S::V, S::V) -> [S::V; 2]) -> f64 {
        let from = [self.predictions.as_ptr(), self.targets.as_ptr()];
        // SAFETY: all three have the same length.
        let [sum] = unsafe {
            map_sum_vectors(s, from, [self.gradient], self.predictions.len(), |[x, target]| {
                let [loss, slope] = f(x, target);
                ([slope], [loss])
            })
        };
        sum
    }
}
