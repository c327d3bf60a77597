//! Adam with Nesterov momentum.

use crate::isa::Isa;
use crate::simd::{Simd, Token};

use super::super::error::TrainingError;
use super::adam::{AdamState, SecondMoment};
use super::pass::{Update, run};
use super::{Decay, Gradient, WeightDecay};

/// NAdam (Dozat 2016), as `torch.optim.NAdam`.
///
/// With μₜ = β₁ · (1 - 0.96^(t · `momentum_decay`) / 2) and the moments m and v of
/// [`AdamStep`](super::AdamStep), the parameter moves in step t by -`rate` · ((1 - μₜ) / (1 - Π μ₁…μₜ) ·
/// g + μₜ₊₁ / (1 - Π μ₁…μₜ₊₁) · m) / (√v̂ + `epsilon`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NAdamStep {
    /// Learning rate; PyTorch's default is 0.002.
    pub rate: f64,
    /// Decay of the first and of the second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// How fast the momentum grows from β₁ / 2 to β₁; PyTorch's default is 0.004.
    pub momentum_decay: f64,
    /// Factor of the parameters, see `decay`.
    pub weight_decay: f64,
    /// What weight decay does.
    pub decay: WeightDecay,
    /// Number of this step, from 1.
    pub step: u64,
}

impl NAdamStep {
    /// Moves `parameters` and updates the first and the second moment of `state`; its maximum is not used.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and when the lengths differ.
    pub fn apply<'a>(
        &self,
        isa: Isa,
        parameters: &mut [f32],
        gradient: impl Into<Gradient<'a>>,
        AdamState { first, second, maximum: _ }: AdamState<'_>,
    ) -> Result<(), TrainingError> {
        let rates = self.rates();
        let update = NAdamUpdate {
            gradient_rate: -rates.gradient as f32,
            moment_rate: -rates.moment as f32,
            keep: self.betas[0] as f32,
            take: (1.0 - self.betas[0]) as f32,
            second: SecondMoment::new(self.betas[1], self.step),
            epsilon: self.epsilon as f32,
            decay: self.decay.constants(self.rate, self.weight_decay),
        };
        let states = [("the first moment", first), ("the second moment", second)];
        run(Token::new(isa)?, &update, parameters, gradient.into(), states)
    }

    /// The factors of the gradient and of the first moment in this step.
    pub fn rates(&self) -> NAdamRates {
        let momentum = |power: f64| self.betas[0] * (1.0 - 0.5 * power);
        let at = |step: u64| momentum(0.96f64.powf(step as f64 * self.momentum_decay));
        let (now, next) = (at(self.step), at(self.step.saturating_add(1)));
        // The product of all momenta so far needs no state: it is soon too small to count.
        let fall = 0.96f64.powf(self.momentum_decay);
        let (mut product, mut power) = (1.0, 1.0);
        for _ in 0..self.step {
            power *= fall;
            product *= momentum(power);
            if product < 0.25 * f64::EPSILON {
                break;
            }
        }
        NAdamRates {
            gradient: self.rate * (1.0 - now) / (1.0 - product),
            moment: self.rate * next / (1.0 - product * next),
        }
    }
}

/// Learning rates of one step of NAdam, before the division by the root of the second moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NAdamRates {
    /// Of the gradient.
    pub gradient: f64,
    /// Of the first moment.
    pub moment: f64,
}

struct NAdamUpdate {
    gradient_rate: f32,
    moment_rate: f32,
    keep: f32,
    take: f32,
    second: SecondMoment,
    epsilon: f32,
    decay: Decay,
}

impl Update<2> for NAdamUpdate {
    const FLOPS: usize = 16;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 2]) -> (S::V, [S::V; 2]) {
        let gradient = s.fma(parameter, s.splat(self.decay.gradient), gradient);
        let parameter = s.mul(parameter, s.splat(self.decay.shrink));
        let first = s.fma(gradient, s.splat(self.take), s.mul(state[0], s.splat(self.keep)));
        let second = self.second.update(s, state[1], gradient);
        let root = s.add(self.second.root(s, second), s.splat(self.epsilon));
        let step = s.fma(gradient, s.splat(self.gradient_rate), s.mul(first, s.splat(self.moment_rate)));
        (s.add(parameter, s.div(step, root)), [first, second])
    }
}
