//! RMSProp.

use crate::isa::Isa;
use crate::simd::{Simd, Token};

use super::super::error::TrainingError;
use super::Gradient;
use super::pass::{Update, run};

/// RMSProp (Hinton, *Neural Networks for Machine Learning*, lecture 6e, 2012), as `torch.optim.RMSprop`.
///
/// With g the gradient plus `weight_decay` · parameter: v ← `alpha` · v + (1 - `alpha`) · g², and d = g / (√v +
/// `epsilon`); `centered`, v is replaced in d by the variance v - a², where a ← `alpha` · a + (1 - `alpha`) · g
/// (Graves 2013). The parameter moves by -`rate` · d, with momentum by -`rate` · b, where b ← `momentum` · b + d.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsPropStep {
    /// Learning rate; PyTorch's default is 0.01.
    pub rate: f64,
    /// Share of the running means that is kept; PyTorch's default is 0.99.
    pub alpha: f64,
    /// Added to the root.
    pub epsilon: f64,
    /// Factor of the parameters that is added to their gradient.
    pub weight_decay: f64,
    /// Share of the velocity that is kept; 0 needs no velocity.
    pub momentum: f64,
    /// Whether the gradient is divided by its deviation instead of its root mean square. A variance that rounding made
    /// negative counts as zero.
    pub centered: bool,
}

/// The state of RMSProp: zero before the first step, and as long as the parameters where it is used.
#[derive(Debug, Default)]
pub struct RmsPropState<'a> {
    /// The running mean of the squared gradient.
    pub square: &'a mut [f32],
    /// The running mean of the gradient, if centered; else empty.
    pub mean: &'a mut [f32],
    /// The velocity, with momentum; else empty.
    pub velocity: &'a mut [f32],
}

impl RmsPropStep {
    /// Moves `parameters` and updates `state`.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and when the lengths differ.
    pub fn apply<'a>(
        &self,
        isa: Isa,
        parameters: &mut [f32],
        gradient: impl Into<Gradient<'a>>,
        RmsPropState { square, mean, velocity }: RmsPropState<'_>,
    ) -> Result<(), TrainingError> {
        let (token, gradient) = (Token::new(isa)?, gradient.into());
        let update = RmsUpdate {
            rate: -self.rate as f32,
            keep: self.alpha as f32,
            take: (1.0 - self.alpha) as f32,
            momentum: self.momentum as f32,
            epsilon: self.epsilon as f32,
            decay: self.weight_decay as f32,
        };
        let square = ("the mean square", square);
        let mean = ("the mean gradient", mean);
        let velocity = ("the velocity", velocity);
        match (self.centered, self.momentum != 0.0) {
            (false, false) => run(token, &Plain(update), parameters, gradient, [square]),
            (true, false) => run(token, &Centered(update), parameters, gradient, [square, mean]),
            (false, true) => run(token, &WithMomentum(update), parameters, gradient, [square, velocity]),
            (true, true) => run(token, &CenteredWithMomentum(update), parameters, gradient, [square, mean, velocity]),
        }
    }
}

struct RmsUpdate {
    rate: f32,
    keep: f32,
    take: f32,
    momentum: f32,
    epsilon: f32,
    decay: f32,
}

impl RmsUpdate {
    #[inline(always)]
    fn decayed<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V) -> S::V {
        s.fma(parameter, s.splat(self.decay), gradient)
    }

    /// A running mean with a new value.
    #[inline(always)]
    fn mean<S: Simd>(&self, s: S, mean: S::V, value: S::V) -> S::V {
        s.fma(value, s.splat(self.take), s.mul(mean, s.splat(self.keep)))
    }

    /// The gradient over the root of `square`.
    #[inline(always)]
    fn direction<S: Simd>(&self, s: S, gradient: S::V, square: S::V) -> S::V {
        s.div(gradient, s.add(s.sqrt(square), s.splat(self.epsilon)))
    }

    #[inline(always)]
    fn variance<S: Simd>(&self, s: S, square: S::V, mean: S::V) -> S::V {
        s.max(s.splat(0.0), s.sub(square, s.mul(mean, mean)))
    }

    #[inline(always)]
    fn velocity<S: Simd>(&self, s: S, velocity: S::V, direction: S::V) -> S::V {
        s.fma(velocity, s.splat(self.momentum), direction)
    }

    #[inline(always)]
    fn moved<S: Simd>(&self, s: S, parameter: S::V, direction: S::V) -> S::V {
        s.fma(direction, s.splat(self.rate), parameter)
    }
}

struct Plain(RmsUpdate);

impl Update<1> for Plain {
    const FLOPS: usize = 16;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 1]) -> (S::V, [S::V; 1]) {
        let Self(rule) = self;
        let gradient = rule.decayed(s, parameter, gradient);
        let square = rule.mean(s, state[0], s.mul(gradient, gradient));
        (rule.moved(s, parameter, rule.direction(s, gradient, square)), [square])
    }
}

struct Centered(RmsUpdate);

impl Update<2> for Centered {
    const FLOPS: usize = 16;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 2]) -> (S::V, [S::V; 2]) {
        let Self(rule) = self;
        let gradient = rule.decayed(s, parameter, gradient);
        let square = rule.mean(s, state[0], s.mul(gradient, gradient));
        let mean = rule.mean(s, state[1], gradient);
        let direction = rule.direction(s, gradient, rule.variance(s, square, mean));
        (rule.moved(s, parameter, direction), [square, mean])
    }
}

struct WithMomentum(RmsUpdate);

impl Update<2> for WithMomentum {
    const FLOPS: usize = 16;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 2]) -> (S::V, [S::V; 2]) {
        let Self(rule) = self;
        let gradient = rule.decayed(s, parameter, gradient);
        let square = rule.mean(s, state[0], s.mul(gradient, gradient));
        let velocity = rule.velocity(s, state[1], rule.direction(s, gradient, square));
        (rule.moved(s, parameter, velocity), [square, velocity])
    }
}

struct CenteredWithMomentum(RmsUpdate);

impl Update<3> for CenteredWithMomentum {
    const FLOPS: usize = 16;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 3]) -> (S::V, [S::V; 3]) {
        let Self(rule) = self;
        let gradient = rule.decayed(s, parameter, gradient);
        let square = rule.mean(s, state[0], s.mul(gradient, gradient));
        let mean = rule.mean(s, state[1], gradient);
        let direction = rule.direction(s, gradient, rule.variance(s, square, mean));
        let velocity = rule.velocity(s, state[2], direction);
        (rule.moved(s, parameter, velocity), [square, mean, velocity])
    }
}
