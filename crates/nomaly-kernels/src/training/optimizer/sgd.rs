//! Stochastic gradient descent.

use crate::isa::Isa;
use crate::simd::{Simd, Token};

use super::super::error::TrainingError;
use super::Gradient;
use super::pass::{Update, run};

/// Stochastic gradient descent with momentum, as `torch.optim.SGD`.
///
/// With g the gradient plus `weight_decay` · parameter, and v the velocity: v ← `momentum` · v + (1 - `dampening`)
/// · g (in the first step v ← g); the parameter moves by -`rate` · v, with `nesterov` by -`rate` · (g + `momentum`
/// · v).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub rate: f64,
    /// Share of the velocity that is kept; 0 needs no velocity.
    pub momentum: f64,
    /// Share of the gradient that does not enter the velocity.
    pub dampening: f64,
    /// Factor of the parameters that is added to their gradient.
    pub weight_decay: f64,
    /// Whether the step looks ahead.
    pub nesterov: bool,
    /// Number of this step, from 1.
    pub step: u64,
}

impl SgdStep {
    /// Moves `parameters` and updates `velocity`, which is empty or, with momentum, as long as the parameters.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and when the lengths differ.
    pub fn apply<'a>(
        &self,
        isa: Isa,
        parameters: &mut [f32],
        gradient: impl Into<Gradient<'a>>,
        velocity: &mut [f32],
    ) -> Result<(), TrainingError> {
        let token = Token::new(isa)?;
        let gradient = gradient.into();
        if self.momentum == 0.0 {
            let update = PlainUpdate { rate: -self.rate as f32, decay: self.weight_decay as f32 };
            return run(token, &update, parameters, gradient, []);
        }
        let update = SgdUpdate {
            rate: -self.rate as f32,
            momentum: if self.step <= 1 { 0.0 } else { self.momentum as f32 },
            share: if self.step <= 1 { 1.0 } else { (1.0 - self.dampening) as f32 },
            ahead: if self.nesterov { self.momentum as f32 } else { 0.0 },
            decay: self.weight_decay as f32,
            nesterov: self.nesterov,
        };
        run(token, &update, parameters, gradient, [("the velocity", velocity)])
    }
}

struct PlainUpdate {
    rate: f32,
    decay: f32,
}

impl Update<0> for PlainUpdate {
    const FLOPS: usize = 8;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 0]) -> (S::V, [S::V; 0]) {
        let gradient = s.fma(parameter, s.splat(self.decay), gradient);
        (s.fma(gradient, s.splat(self.rate), parameter), state)
    }
}

struct SgdUpdate {
    rate: f32,
    momentum: f32,
    share: f32,
    ahead: f32,
    decay: f32,
    nesterov: bool,
}

impl Update<1> for SgdUpdate {
    const FLOPS: usize = 8;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 1]) -> (S::V, [S::V; 1]) {
        let gradient = s.fma(parameter, s.splat(self.decay), gradient);
        let velocity = s.fma(gradient, s.splat(self.share), s.mul(state[0], s.splat(self.momentum)));
        let step = if self.nesterov { s.fma(velocity, s.splat(self.ahead), gradient) } else { velocity };
        (s.fma(step, s.splat(self.rate), parameter), [velocity])
    }
}
