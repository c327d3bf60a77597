//! Optimizers that move candle's variables.

use std::sync::Mutex;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var};
use nomaly_kernels::Isa;
use nomaly_kernels::training::WeightDecay;

use super::{is_served, isa, slice, wrap};
use crate::trainable::{Rule, State};

/// The state of one variable.
enum VarState {
    /// On a CPU.
    Kernel(State),
    /// Elsewhere: velocity, or first and second moment.
    Tensors([Tensor; 2]),
}

/// An optimizer of candle variables. On a CPU it moves them in place, in one pass over parameters, gradient and state.
pub struct VarOptimizer {
    /// The rule; a schedule may change its constants between steps.
    pub rule: Rule,
    variables: Vec<(Var, VarState, u64)>,
}

impl std::fmt::Debug for VarOptimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VarOptimizer").field("rule", &self.rule).field("variables", &self.variables.len()).finish()
    }
}

struct Move<'a> {
    state: Mutex<&'a mut State>,
    rule: &'a Rule,
    isa: Isa,
    step: u64,
}

impl InplaceOp2 for Move<'_> {
    fn name(&self) -> &'static str {
        "optimiser-step"
    }

    fn cpu_fwd(&self, to: &mut CpuStorage, layout: &Layout, from: &CpuStorage, from_layout: &Layout) -> Result<()> {
        let gradient = slice(from, from_layout)?;
        let failed = |what: &str| candle_core::Error::Msg(what.to_owned()).bt();
        let CpuStorage::F32(values) = to else { return Err(failed("the variable is not of single precision")) };
        let Some((start, end)) = layout.contiguous_offsets() else {
            return Err(failed("the variable is not contiguous"));
        };
        let mut state = self.state.lock().map_err(|_| failed("an earlier step failed"))?;
        state.apply(self.rule, self.isa, self.step, &mut values[start..end], gradient).map_err(wrap)
    }
}

impl VarOptimizer {
    /// A new optimizer of `variables`.
    pub fn new(rule: Rule, variables: Vec<Var>) -> Self {
        let memory = |variable: Var| (variable, VarState::Kernel(State::default()), 0);
        Self { rule, variables: variables.into_iter().map(memory).collect() }
    }

    /// Moves each variable that has a gradient.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn step(&mut self, gradients: &GradStore) -> Result<()> {
        for (variable, memory, step) in &mut self.variables {
            let Some(gradient) = gradients.get(variable) else { continue };
            *step += 1;
            if is_served(&[variable.as_tensor(), gradient]) {
                let VarState::Kernel(state) = memory else { continue };
                let op = Move { state: Mutex::new(state), rule: &self.rule, isa: isa()?, step: *step };
                variable.as_tensor().inplace_op2(&gradient.contiguous()?, &op)?;
            } else {
                if let VarState::Kernel(_) = memory {
                    let zeros = variable.as_tensor().zeros_like()?;
                    *memory = VarState::Tensors([zeros.clone(), zeros]);
                }
                let VarState::Tensors(state) = memory else { continue };
                move_by_tensors(&self.rule, variable, &gradient.detach(), state, *step)?;
            }
        }
        Ok(())
    }
}

/// One step in candle's own operations.
fn move_by_tensors(rule: &Rule, variable: &Var, gradient: &Tensor, state: &mut [Tensor; 2], step: u64) -> Result<()> {
    let value = variable.as_tensor().detach();
    match *rule {
        Rule::Sgd { rate, momentum, dampening, weight_decay, nesterov } => {
            let gradient = (gradient + (&value * weight_decay)?)?;
            let velocity = match (momentum == 0.0, step) {
                (true, _) | (_, 1) => gradient.clone(),
                _ => ((&state[0] * momentum)? + (&gradient * (1.0 - dampening))?)?,
            };
            let direction = if nesterov { (gradient + (&velocity * momentum)?)? } else { velocity.clone() };
            state[0] = velocity;
            variable.set(&(value - (direction * rate)?)?)
        }
        Rule::Adam { rate, betas, epsilon, weight_decay, decay } => {
            let (value, gradient) = match decay {
                WeightDecay::Gradient => (value.clone(), (gradient + (&value * weight_decay)?)?),
                WeightDecay::Decoupled => ((value * (1.0 - rate * weight_decay))?, gradient.clone()),
            };
            state[0] = ((&state[0] * betas[0])? + (&gradient * (1.0 - betas[0]))?)?;
            state[1] = ((&state[1] * betas[1])? + (gradient.sqr()? * (1.0 - betas[1]))?)?;
            let step = i32::try_from(step).unwrap_or(i32::MAX);
            let [first, second] = betas.map(|beta| 1.0 - beta.powi(step));
            let root = ((state[1].sqrt()? / second.sqrt())? + epsilon)?;
            variable.set(&(value - (state[0].div(&root)? * (rate / first))?)?)
        }
    }
}
