//! Optimizers that move candle's variables.

use std::sync::Mutex;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, Var};
use nomaly_kernels::Isa;
use nomaly_kernels::training::{NAdamRates, NAdamStep, StableForm, WeightDecay};

use super::{is_served, isa, slice, wrap};
use crate::trainable::{OptimizerState, Rule, State};

/// The state of one variable.
enum VarState {
    /// On a CPU.
    Kernel(State),
    /// Elsewhere: the same three, zeros where they are not used.
    Tensors([Tensor; 3]),
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
        "optimizer-step"
    }

    fn cpu_fwd(&self, to: &mut CpuStorage, layout: &Layout, from: &CpuStorage, from_layout: &Layout) -> Result<()> {
        let gradient = slice(from, from_layout)?;
        let failed = |what: &str| candle_core::Error::Msg(what.to_owned()).bt();
        let CpuStorage::F32(values) = to else { return Err(failed("the variable is not of single precision")) };
        let Some((start, end)) = layout.contiguous_offsets() else {
            return Err(failed("the variable is not contiguous"));
        };
        let mut state = self.state.lock().map_err(|_| failed("an earlier step failed"))?;
        state.apply(self.rule, self.isa, self.step, &mut values[start..end], gradient.into()).map_err(wrap)
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
        let rule = self.rule;
        self.step_by(|_| rule, |_, variable| gradients.get(variable))
    }

    /// A copy of its state, with the variables in their order. The number of steps is the largest of the variables.
    ///
    /// # Errors
    /// Errors of candle when values are copied from the device.
    pub fn export(&self) -> Result<OptimizerState> {
        let moments = |memory: &VarState| match memory {
            VarState::Kernel(state) => Ok(state.moments().clone()),
            VarState::Tensors([first, second, third]) => Ok([values(first)?, values(second)?, values(third)?]),
        };
        let steps = self.variables.iter().map(|(_, _, step)| *step).max().unwrap_or(0);
        let moments = self.variables.iter().map(|(_, memory, _)| moments(memory)).collect::<Result<_>>()?;
        Ok(OptimizerState { steps, moments: if steps == 0 { Vec::new() } else { moments } })
    }

    /// Continues from the state of an optimizer of the same variables; an empty one starts anew.
    ///
    /// # Errors
    /// For another number of variables, moments of another length than the variable, and errors of candle.
    pub fn resume(&mut self, state: OptimizerState) -> Result<()> {
        let OptimizerState { steps, moments } = state;
        if moments.is_empty() {
            self.variables.iter_mut().for_each(|(_, memory, step)| {
                (*memory, *step) = (VarState::Kernel(State::default()), steps);
            });
            return Ok(());
        }
        if moments.len() != self.variables.len() {
            candle_core::bail!("a state of {} variables does not fit {}", moments.len(), self.variables.len());
        }
        let mut resumed = Vec::with_capacity(moments.len());
        for ((variable, _, _), moments) in self.variables.iter().zip(moments) {
            if moments.iter().any(|values| !values.is_empty() && values.len() != variable.elem_count()) {
                candle_core::bail!("a moment does not fit its variable of {} values", variable.elem_count());
            }
            resumed.push(if is_served(&[variable.as_tensor()]) {
                VarState::Kernel(State::of(moments))
            } else {
                let [first, second, third] = moments.map(|values| tensor_like(variable, values));
                VarState::Tensors([first?, second?, third?])
            });
        }
        for ((_, memory, step), resumed) in self.variables.iter_mut().zip(resumed) {
            (*memory, *step) = (resumed, steps);
        }
        Ok(())
    }

    /// Moves each variable for which there is a gradient, by its place and itself, with the rule of its place.
    pub(crate) fn step_by<'a>(
        &mut self,
        rules: impl Fn(usize) -> Rule,
        gradients: impl Fn(usize, &Var) -> Option<&'a Tensor>,
    ) -> Result<()> {
        for (place, (variable, memory, step)) in self.variables.iter_mut().enumerate() {
            let Some(gradient) = gradients(place, variable) else { continue };
            *step += 1;
            let rule = &rules(place);
            if is_served(&[variable.as_tensor(), gradient]) {
                let VarState::Kernel(state) = memory else { continue };
                let op = Move { state: Mutex::new(state), rule, isa: isa()?, step: *step };
                variable.as_tensor().inplace_op2(&gradient.contiguous()?, &op)?;
            } else {
                if let VarState::Kernel(_) = memory {
                    let zeros = variable.as_tensor().zeros_like()?;
                    *memory = VarState::Tensors([zeros.clone(), zeros.clone(), zeros]);
                }
                let VarState::Tensors(state) = memory else { continue };
                move_by_tensors(rule, variable, &gradient.detach(), state, *step)?;
            }
        }
        Ok(())
    }
}

/// The values of a tensor.
fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

/// A moment of a variable; zeros if there are no values.
fn tensor_like(variable: &Var, values: Vec<f32>) -> Result<Tensor> {
    if values.is_empty() {
        return variable.as_tensor().zeros_like();
    }
    Tensor::from_vec(values, variable.shape(), variable.device())?.to_dtype(variable.dtype())
}

/// One step in candle's own operations.
fn move_by_tensors(rule: &Rule, variable: &Var, gradient: &Tensor, state: &mut [Tensor; 3], step: u64) -> Result<()> {
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
        Rule::Adam { rate, betas, epsilon, weight_decay, decay, amsgrad } => {
            let (value, gradient) = decayed(value, gradient, decay, rate, weight_decay)?;
            let [first, second] = moments(state, &gradient, betas, amsgrad, step)?;
            variable.set(&(value - (first.div(&(second.sqrt()? + epsilon)?)? * rate)?)?)
        }
        Rule::NAdam { rate, betas, epsilon, momentum_decay, weight_decay, decay } => {
            let (value, gradient) = decayed(value, gradient, decay, rate, weight_decay)?;
            let [_, second] = moments(state, &gradient, betas, false, step)?;
            let nadam = NAdamStep { rate, betas, epsilon, momentum_decay, weight_decay, decay, step };
            let NAdamRates { gradient: of_gradient, moment } = nadam.rates();
            let direction = ((gradient * of_gradient)? + (&state[0] * moment)?)?;
            variable.set(&(value - direction.div(&(second.sqrt()? + epsilon)?)?)?)
        }
        Rule::RmsProp { rate, alpha, epsilon, weight_decay, momentum, centered } => {
            let gradient = (gradient + (&value * weight_decay)?)?;
            state[0] = running(&state[0], &gradient.sqr()?, alpha)?;
            let mut square = state[0].clone();
            if centered {
                state[1] = running(&state[1], &gradient, alpha)?;
                square = (square - state[1].sqr()?)?.relu()?;
            }
            let mut direction = gradient.div(&(square.sqrt()? + epsilon)?)?;
            if momentum != 0.0 {
                direction = ((&state[2] * momentum)? + direction)?;
                state[2] = direction.clone();
            }
            variable.set(&(value - (direction * rate)?)?)
        }
        Rule::StableAdamW { rate, betas, epsilon, weight_decay, amsgrad, form } => {
            let [first, second] = moments(state, gradient, betas, amsgrad, step)?;
            let denominator = (second.sqrt()? + epsilon)?;
            let divisor = match form {
                StableForm::Published => second.sqrt()?.maximum(epsilon)?,
                StableForm::Dinomaly => denominator.clone(),
            };
            let mean = gradient.div(&divisor)?.sqr()?.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            let clipped = if mean <= 1.0 { rate } else { rate / mean.sqrt() };
            let decay_rate = match form {
                StableForm::Published => clipped,
                StableForm::Dinomaly => rate,
            };
            let value = (value * (1.0 - decay_rate * weight_decay))?;
            variable.set(&(value - (first.div(&denominator)? * clipped)?)?)
        }
    }
}

/// Value and gradient after weight decay.
fn decayed(
    value: Tensor,
    gradient: &Tensor,
    decay: WeightDecay,
    rate: f64,
    weight_decay: f64,
) -> Result<(Tensor, Tensor)> {
    match decay {
        WeightDecay::Gradient => {
            let gradient = (gradient + (&value * weight_decay)?)?;
            Ok((value, gradient))
        }
        WeightDecay::Decoupled => Ok(((value * (1.0 - rate * weight_decay))?, gradient.clone())),
    }
}

/// A running mean with a new value.
fn running(mean: &Tensor, value: &Tensor, kept: f64) -> Result<Tensor> {
    (mean * kept)? + (value * (1.0 - kept))?
}

/// Updates both moments of Adam, with `amsgrad` the maximum too, and returns them without bias.
fn moments(
    state: &mut [Tensor; 3],
    gradient: &Tensor,
    betas: [f64; 2],
    amsgrad: bool,
    step: u64,
) -> Result<[Tensor; 2]> {
    state[0] = running(&state[0], gradient, betas[0])?;
    state[1] = running(&state[1], &gradient.sqr()?, betas[1])?;
    if amsgrad {
        state[2] = state[2].maximum(&state[1])?;
    }
    let step = i32::try_from(step).unwrap_or(i32::MAX);
    let [first, second] = betas.map(|beta| 1.0 / (1.0 - beta.powi(step)));
    Ok([(&state[0] * first)?, (&state[if amsgrad { 2 } else { 1 }] * second)?])
}
