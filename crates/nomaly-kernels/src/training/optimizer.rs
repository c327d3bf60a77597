//! Optimizer steps: one pass over parameters, gradients and state, with PyTorch's formulas.

use rayon::prelude::*;

use crate::isa::Isa;
use crate::simd::{Kernel, Simd, Token};

use super::error::{TrainingError, expect};
use super::memory::threads_for;

/// Values of a unit of work.
const UNIT: usize = 16 << 10;

/// Stochastic gradient descent with momentum, as `torch.optim.SGD`.
///
/// With g the gradient plus `weight_decay` · parameter, and v the velocity: v ← `momentum` · v + (1 - `dampening`) · g
/// (in the first step v ← g); the parameter moves by -`rate` · v, with `nesterov` by -`rate` · (g + `momentum` · v).
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

/// Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019), as `torch.optim.Adam` and `torch.optim.AdamW`.
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
    /// Number of this step, from 1.
    pub step: u64,
}

/// What weight decay does in [`AdamStep`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WeightDecay {
    /// It is added to the gradient (Adam).
    #[default]
    Gradient,
    /// It shrinks the parameters by `rate · weight_decay`, besides the step (AdamW).
    Decoupled,
}

impl SgdStep {
    /// Moves `parameters` and updates `velocity`, which is empty or, with momentum, as long as the parameters.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and when the lengths differ.
    pub fn apply(
        &self,
        isa: Isa,
        parameters: &mut [f32],
        gradient: &[f32],
        velocity: &mut [f32],
    ) -> Result<(), TrainingError> {
        let token = Token::new(isa)?;
        expect("the gradient", gradient.len(), parameters.len())?;
        if self.momentum == 0.0 {
            return Self::without_momentum(self, token, parameters, gradient);
        }
        expect("the velocity", velocity.len(), parameters.len())?;
        let update = SgdUpdate {
            rate: -self.rate as f32,
            momentum: if self.step <= 1 { 0.0 } else { self.momentum as f32 },
            share: if self.step <= 1 { 1.0 } else { (1.0 - self.dampening) as f32 },
            ahead: if self.nesterov { self.momentum as f32 } else { 0.0 },
            decay: self.weight_decay as f32,
            nesterov: self.nesterov,
        };
        let run = |parameters: &mut [f32], gradient: &[f32], velocity: &mut [f32]| {
            token.dispatch(Pass { update: &update, parameters, gradient, state: [velocity, &mut []] });
        };
        if threads_for(8 * parameters.len()) == 1 {
            run(parameters, gradient, velocity);
        } else {
            let chunks = parameters.par_chunks_mut(UNIT).zip(gradient.par_chunks(UNIT));
            let chunks = chunks.zip(velocity.par_chunks_mut(UNIT));
            chunks.for_each(|((parameters, gradient), velocity)| run(parameters, gradient, velocity));
        }
        Ok(())
    }

    fn without_momentum(&self, token: Token, parameters: &mut [f32], gradient: &[f32]) -> Result<(), TrainingError> {
        let update = PlainUpdate { rate: -self.rate as f32, decay: self.weight_decay as f32 };
        let run = |parameters: &mut [f32], gradient: &[f32]| {
            token.dispatch(Pass { update: &update, parameters, gradient, state: [&mut [], &mut []] });
        };
        if threads_for(8 * parameters.len()) == 1 {
            run(parameters, gradient);
        } else {
            let chunks = parameters.par_chunks_mut(UNIT).zip(gradient.par_chunks(UNIT));
            chunks.for_each(|(parameters, gradient)| run(parameters, gradient));
        }
        Ok(())
    }
}

impl AdamStep {
    /// Moves `parameters` and updates the moments, which are as long as the parameters and zero before the first step.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, and when the lengths differ.
    pub fn apply(
        &self,
        isa: Isa,
        parameters: &mut [f32],
        gradient: &[f32],
        [first, second]: [&mut [f32]; 2],
    ) -> Result<(), TrainingError> {
        let token = Token::new(isa)?;
        expect("the gradient", gradient.len(), parameters.len())?;
        expect("the first moment", first.len(), parameters.len())?;
        expect("the second moment", second.len(), parameters.len())?;
        let step = i32::try_from(self.step).unwrap_or(i32::MAX);
        let correction = self.betas.map(|beta| 1.0 - beta.powi(step));
        let decoupled = self.decay == WeightDecay::Decoupled;
        let update = AdamUpdate {
            rate: (-self.rate / correction[0]) as f32,
            keep: self.betas.map(|beta| beta as f32),
            take: self.betas.map(|beta| (1.0 - beta) as f32),
            root: correction[1].sqrt() as f32,
            epsilon: self.epsilon as f32,
            decay: if decoupled { 0.0 } else { self.weight_decay as f32 },
            shrink: if decoupled { (1.0 - self.rate * self.weight_decay) as f32 } else { 1.0 },
        };
        let run = |parameters: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]| {
            token.dispatch(Pass { update: &update, parameters, gradient, state: [first, second] });
        };
        if threads_for(16 * parameters.len()) == 1 {
            run(parameters, gradient, first, second);
        } else {
            let chunks = parameters.par_chunks_mut(UNIT).zip(gradient.par_chunks(UNIT));
            let chunks = chunks.zip(first.par_chunks_mut(UNIT).zip(second.par_chunks_mut(UNIT)));
            chunks.for_each(|((parameters, gradient), (first, second))| run(parameters, gradient, first, second));
        }
        Ok(())
    }
}

/// The formula of an optimizer, on vectors.
trait Update {
    /// The number of states, up to two.
    const STATES: usize;

    /// Parameter and states after the step.
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 2]) -> (S::V, [S::V; 2]);
}

struct PlainUpdate {
    rate: f32,
    decay: f32,
}

impl Update for PlainUpdate {
    const STATES: usize = 0;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 2]) -> (S::V, [S::V; 2]) {
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

impl Update for SgdUpdate {
    const STATES: usize = 1;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 2]) -> (S::V, [S::V; 2]) {
        let gradient = s.fma(parameter, s.splat(self.decay), gradient);
        let velocity = s.fma(gradient, s.splat(self.share), s.mul(state[0], s.splat(self.momentum)));
        let step = if self.nesterov { s.fma(velocity, s.splat(self.ahead), gradient) } else { velocity };
        (s.fma(step, s.splat(self.rate), parameter), [velocity, state[1]])
    }
}

struct AdamUpdate {
    rate: f32,
    keep: [f32; 2],
    take: [f32; 2],
    root: f32,
    epsilon: f32,
    decay: f32,
    shrink: f32,
}

impl Update for AdamUpdate {
    const STATES: usize = 2;

    #[inline(always)]
    fn update<S: Simd>(&self, s: S, parameter: S::V, gradient: S::V, state: [S::V; 2]) -> (S::V, [S::V; 2]) {
        let gradient = s.fma(parameter, s.splat(self.decay), gradient);
        let parameter = s.mul(parameter, s.splat(self.shrink));
        let first = s.fma(gradient, s.splat(self.take[0]), s.mul(state[0], s.splat(self.keep[0])));
        let square = s.mul(gradient, gradient);
        let second = s.fma(square, s.splat(self.take[1]), s.mul(state[1], s.splat(self.keep[1])));
        let root = s.add(s.div(s.sqrt(second), s.splat(self.root)), s.splat(self.epsilon));
        (s.fma(s.div(first, root), s.splat(self.rate), parameter), [first, second])
    }
}

/// Updates one vector of parameters and states.
///
/// # Safety
/// Parameters, gradient and all states of the update must be valid for a vector.
#[inline(always)]
unsafe fn one<S: Simd, U: Update>(s: S, update: &U, at: [*mut f32; 3], gradient: *const f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut state = [s.splat(0.0); 2];
        for i in 0..U::STATES {
            state[i] = s.load(at[1 + i]);
        }
        let (parameter, state) = update.update(s, s.load(at[0]), s.load(gradient), state);
        s.store(at[0], parameter);
        for i in 0..U::STATES {
            s.store(at[1 + i], state[i]);
        }
    }
}

/// One pass of an update over slices.
struct Pass<'a, U> {
    update: &'a U,
    parameters: &'a mut [f32],
    gradient: &'a [f32],
    state: [&'a mut [f32]; 2],
}

impl<U: Update> Kernel for Pass<'_, U> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let len = self.parameters.len();
        let whole = len - len % S::LANES;
        let [first, second] = self.state;
        let bases = [self.parameters.as_mut_ptr(), first.as_mut_ptr(), second.as_mut_ptr()];
        for i in (0..whole).step_by(S::LANES) {
            let at = bases.map(|base| base.wrapping_add(i));
            // SAFETY: the slices that the update has are `len` values long, and `whole` is not beyond.
            unsafe { one(s, self.update, at, self.gradient.as_ptr().wrapping_add(i)) };
        }
        if whole < len {
            // The rest goes through vectors padded with zeros.
            let mut lanes = [[0.0f32; 16]; 4];
            let rest = len - whole;
            let [p, a, b, g] = &mut lanes;
            p[..rest].copy_from_slice(&self.parameters[whole..]);
            g[..rest].copy_from_slice(&self.gradient[whole..]);
            let mut states = [(first, a), (second, b)];
            for (state, lanes) in &mut states[..U::STATES] {
                lanes[..rest].copy_from_slice(&state[whole..]);
            }
            let at = [p.as_mut_ptr(), states[0].1.as_mut_ptr(), states[1].1.as_mut_ptr()];
            // SAFETY: each array holds the longest vector.
            unsafe { one(s, self.update, at, g.as_ptr()) };
            self.parameters[whole..].copy_from_slice(&p[..rest]);
            for (state, lanes) in &mut states[..U::STATES] {
                state[whole..].copy_from_slice(&lanes[..rest]);
            }
        }
    }
}
