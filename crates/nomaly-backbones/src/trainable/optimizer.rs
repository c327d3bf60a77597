//! Optimizers.

use nomaly_kernels::Isa;
use nomaly_kernels::training::{AdamState, AdamStep, SgdStep, TrainingError, WeightDecay};

use super::error::TrainableError;

/// The formula of an optimizer and its constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Stochastic gradient descent, as `torch.optim.SGD`.
    Sgd {
        /// Learning rate.
        rate: f64,
        /// Share of the velocity that is kept; 0 for plain descent.
        momentum: f64,
        /// Share of the gradient that does not enter the velocity.
        dampening: f64,
        /// Factor of the parameters that is added to their gradient.
        weight_decay: f64,
        /// Whether the step looks ahead.
        nesterov: bool,
    },
    /// Adam and AdamW, as `torch.optim.Adam` and `torch.optim.AdamW`.
    Adam {
        /// Learning rate.
        rate: f64,
        /// Decay of the first and of the second moment.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        epsilon: f64,
        /// Factor of the parameters.
        weight_decay: f64,
        /// What weight decay does.
        decay: WeightDecay,
    },
}

impl Rule {
    /// SGD with momentum, without weight decay.
    pub const fn sgd(rate: f64, momentum: f64) -> Self {
        Self::Sgd { rate, momentum, dampening: 0.0, weight_decay: 0.0, nesterov: false }
    }

    /// Adam with PyTorch's defaults: betas 0.9 and 0.999, epsilon 1e-8, no weight decay.
    pub const fn adam(rate: f64) -> Self {
        Self::Adam { rate, betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.0, decay: WeightDecay::Gradient }
    }

    /// AdamW with PyTorch's defaults: betas 0.9 and 0.999, epsilon 1e-8, weight decay 0.01.
    pub const fn adamw(rate: f64) -> Self {
        Self::Adam { rate, betas: [0.9, 0.999], epsilon: 1e-8, weight_decay: 0.01, decay: WeightDecay::Decoupled }
    }

    /// The same rule with another learning rate, for schedules.
    pub const fn with_rate(mut self, new: f64) -> Self {
        match &mut self {
            Self::Sgd { rate, .. } | Self::Adam { rate, .. } => *rate = new,
        }
        self
    }
}

/// Velocity, or first and second moment, of one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State([Vec<f32>; 2]);

impl State {
    /// Moves `parameters` by one step, the `step`-th.
    pub(crate) fn apply(
        &mut self,
        rule: &Rule,
        isa: Isa,
        step: u64,
        parameters: &mut [f32],
        gradient: &[f32],
    ) -> Result<(), TrainingError> {
        let Self([first, second]) = self;
        match *rule {
            Rule::Sgd { rate, momentum, dampening, weight_decay, nesterov } => {
                if momentum != 0.0 {
                    first.resize(parameters.len(), 0.0);
                }
                let sgd = SgdStep { rate, momentum, dampening, weight_decay, nesterov, step };
                sgd.apply(isa, parameters, gradient, first)
            }
            Rule::Adam { rate, betas, epsilon, weight_decay, decay } => {
                first.resize(parameters.len(), 0.0);
                second.resize(parameters.len(), 0.0);
                let adam = AdamStep { rate, betas, epsilon, weight_decay, decay, amsgrad: false, step };
                adam.apply(isa, parameters, gradient, AdamState { first, second, maximum: &mut [] })
            }
        }
    }
}

/// The state of a [`NetworkOptimizer`], for checkpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerState {
    /// Steps done.
    pub steps: u64,
    /// For each trained parameter, in the order of [`Network::gradients`](super::Network::gradients), the velocity and
    /// nothing (SGD) or the first and the second moment (Adam). Unused state is empty, as is all state before the first
    /// step.
    pub moments: Vec<[Vec<f32>; 2]>,
}

/// A rule with the state of its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkOptimizer {
    /// The rule; a schedule may change its constants between steps.
    pub rule: Rule,
    step: u64,
    states: Vec<State>,
}

impl NetworkOptimizer {
    /// A new optimizer.
    pub const fn new(rule: Rule) -> Self {
        Self { rule, step: 0, states: Vec::new() }
    }

    /// An optimizer that continues from `state`: with the same rule its steps equal, bit for bit, those of the
    /// [exported](Self::export) optimizer. [`Network::step`](super::Network::step) checks whether the state fits a
    /// network.
    pub fn restore(rule: Rule, state: OptimizerState) -> Self {
        Self { rule, step: state.steps, states: state.moments.into_iter().map(State).collect() }
    }

    /// A copy of its state.
    pub fn export(&self) -> OptimizerState {
        OptimizerState { steps: self.step, moments: self.states.iter().map(|State(moments)| moments.clone()).collect() }
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Checks that the states fit parameters with these names and lengths; an optimizer without state fits any.
    pub(super) fn check<'a>(&self, parameters: impl Iterator<Item = (&'a str, usize)>) -> Result<(), TrainableError> {
        if self.states.is_empty() {
            return Ok(());
        }
        let parameters: Vec<_> = parameters.collect();
        if parameters.len() != self.states.len() {
            return Err(TrainableError::Optimizer { expected: parameters.len(), found: self.states.len() });
        }
        for (&(parameter, expected), State(moments)) in parameters.iter().zip(&self.states) {
            if let Some(moment) = moments.iter().find(|moment| !moment.is_empty() && moment.len() != expected) {
                let (parameter, found) = (parameter.to_owned(), moment.len());
                return Err(TrainableError::OptimizerState { parameter, expected, found });
            }
        }
        Ok(())
    }

    /// Moves the parameters by their gradients; they must be the same in each step.
    pub(super) fn apply<'a>(
        &mut self,
        isa: Isa,
        parameters: impl Iterator<Item = (&'a mut [f32], &'a [f32])>,
    ) -> Result<(), TrainingError> {
        self.step += 1;
        for (index, (values, gradient)) in parameters.enumerate() {
            if index == self.states.len() {
                self.states.push(State::default());
            }
            self.states[index].apply(&self.rule, isa, self.step, values, gradient)?;
        }
        Ok(())
    }
}
