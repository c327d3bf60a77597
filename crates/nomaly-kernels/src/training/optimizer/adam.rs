//! Adam, AdamW and their variant AMSGrad.

use crate::isa::Isa;
use crate::simd::{Simd, Token};

use super::super::error::TrainingError;
use super::pass::{Update, run};
use super::{Decay, Gradient, WeightDecay};

/// Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019), as `torch.optim.Adam` and `torch.optim.AdamW`.
///
/// With g the gradient and t the number of the step: m ← β₁ · m + (1 - β₁) · g, v ← β₂ · v + (1 -
/// β₂) · g², and the parameter moves by -`rate` · m̂ / (√v̂ + `epsilon`), where m̂ = m / (1 - β₁ᵗ) and
/// v̂ = v / (1 - β₂ᵗ).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Learning rate.
    pub rate: f64,
    /// Decay of the first and of the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Factor of the parameters, see `decay`.
    pub weight_decay: f64,
    /// What weight decay does.
    pub decay: WeightDecay,
    /// Whether the step divides by the root of the largest second moment so far (Reddi, Kale & Kumar 2018, algorithm
    /// 2, but with the correction of the bias, as in PyTorch).
    pub amsgrad: bool,
    /// Number of this step, from 1.
    pub step: u64,
}

/// The state of Adam and its relatives: zero before the first step, and as long as the parameters.
#[derive(Debug, Default)]
pub struct AdamState<'a> {
    /// First moment: the running mean of the gradient.
    pub first: &'a mut [f32],
    /// Second moment: the running mean of the squared gradient.
    pub second: &'a mut [f32],
    /// The largest second moment so far, with AMSGrad; empty without.
    pub maximum: &'a mut [f32],
}

impl AdamStep {
    /// Moves `parameters` and updates `state`.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and when the lengths differ.
    pub fn apply<'a>(
        &self,
        isa: Isa,
        parameters: &mut [f32],
        gradient: impl Into<Gradient<'a>>,
        state: AdamState<'_>,
    ) -> Result<(), TrainingError> {
        let decay = self.decay.constants(self.rate, self.weight_decay);
        self.apply_with(Token::new(isa)?, self.rate, decay, parameters, gradient.into(), state)
    }

    /// Steps with another rate and decay than those of this step.
    pub(super) fn apply_with(
        &self,
        token: Token,
        rate: f64,
        decay: Decay,
        parameters: &mut [f32],
        gradient: Gradient<'_>,
        AdamState { first, second, maximum }: AdamState<'_>,
    ) -> Result<(), TrainingError> {
        let update = AdamUpdate {
            rate: (-rate / bias_correction(self.betas[0], self.step)) as f32,
            keep: self.betas[0] as f32,
            take: (1.0 - self.betas[0]) as f32,
            second: SecondMoment::new(self.betas[1], self.step),
            epsilon: self.epsilon as f32,
            decay,
        };
        let [first, second] = [("the first moment", first), ("the second moment", second)];
        if self.amsgrad {
            run(token, &update, parameters, gradient, [first, second, ("the maximum", maximum)])
        } else {
            run(token, &update, parameters, gradient, [first, second])
        }
    }
}

/// 1 - betaᵗ in step t.
pub(super) fn bias_correction(beta: f64, step: u64) -> f64 {
    1.0 - beta.powi(i32::try_from(step).unwrap_or(i32::MAX))
}

/// How the second moment is updated, and its root.
#[derive(Clone, Copy, Debug)]
pub(super) struct SecondMoment {
    keep: f32,
    take: f32,
    /// The root of the correction of the bias.
    root: f32,
}

impl SecondMoment {
    pub(super) fn new(beta: f64, step: u64) -> Self {
        Self { keep: beta as f32, take: (1.0 - beta) as f32, root: bias_correction(beta, step).sqrt() as f32 }
    }

    /// The second moment after the step.
    #[inline(always)]
    pub(super) fn update<S: Simd>(&self, s: S, moment: S::V, gradient: S::V) -> S::V {
        s.fma(s.mul(gradient, gradient), s.splat(self.take), s.mul(moment, s.splat(self.keep)))
    }

    /// The root of the moment without its bias.
    #[inline(always)]
    pub(super) fn root<S: Simd>(&self, s: S, moment: S::V) -> S::V {
        s.div(s.sqrt(moment), s.splat(self.root))
    }
}

struct AdamUpdate {
    rate: f32,
    keep: f32,
    take: f32,
    second: SecondMoment,
    epsilon: f32,
    decay: Decay,
}

impl AdamUpdate {
    /// The gradient with weight decay, and both moments after the step.
    #[inline(always)]
    fn moments<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, [first, second]: [S::V; 2]) -> [S::V; 2] {
        let gradient = s.fma(parameter, s.splat(self.decay.gradient), gradient);
        let first = s.fma(gradient, s.splat(self.take), s.mul(first, s.splat(self.keep)));
        [first, self.second.update(s, second, gradient)]
    }

    #[inline(always)]
    fn moved<S: Simd>(&self, s: S, parameter: S::V, first: S::V, second: S::V) -> S::V {
        let parameter = s.mul(parameter, s.splat(self.decay.shrink));
        let root = s.add(self.second.root(s, second), s.splat(self.epsilon));
        s.fma(s.div(first, root), s.splat(self.rate), parameter)
    }
}

impl Update<2> for AdamUpdate {
    const FLOPS: usize = 16;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 2]) -> (S::V, [S::V; 2]) {
        let [first, second] = self.moments(s, parameter, gradient, state);
        (self.moved(s, parameter, first, second), [first, second])
    }
}

impl Update<3> for AdamUpdate {
    const FLOPS: usize = 16;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 3]) -> (S::V, [S::V; 3]) {
        let [first, second] = self.moments(s, parameter, gradient, [state[0], state[1]]);
        let maximum = s.max(state[2], second);
        (self.moved(s, parameter, first, maximum), [first, second, maximum])
    }
}
