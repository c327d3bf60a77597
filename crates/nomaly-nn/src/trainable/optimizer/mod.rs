//! Optimizers.

mod group;
mod rule;
mod state;

use nomaly_kernels::Isa;
use nomaly_kernels::training::TrainingError;

use super::error::{TrainableError, in_layer};
use group::Clipping;

pub use group::{Clip, OptimizerOptions, ParameterGroup, ParameterNames};
pub use rule::Rule;
pub use state::OptimizerState;
pub(crate) use state::State;

/// A rule with the state of a network's parameters.
///
/// ```
/// use nomaly_nn::trainable::{Clip, NetworkOptimizer, ParameterGroup, ParameterNames, Rule};
///
/// // No weight decay on biases, a tenth of the rate for the stem, gradients of norm 1 at most.
/// let optimizer = NetworkOptimizer::new(Rule::adamw(1e-3)).with_clip(Clip::Norm(1.0)).with_groups(vec![
///     ParameterGroup { names: ParameterNames::Suffix(".bias".into()), rate_factor: 1.0, weight_decay: Some(0.0) },
///     ParameterGroup { names: ParameterNames::Prefix("stem.".into()), rate_factor: 0.1, weight_decay: None },
/// ]);
/// assert_eq!(optimizer.rule_of("stem.weight"), Rule::adamw(1e-4));
/// assert_eq!(optimizer.rule_of("head.bias"), Rule::adamw(1e-3).with_weight_decay(0.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkOptimizer {
    /// The rule; a schedule may change its constants between steps.
    pub rule: Rule,
    options: OptimizerOptions,
    step: u64,
    states: Vec<State>,
}

/// A parameter in a step.
#[derive(Debug)]
pub(super) struct Parameter<'a> {
    pub(super) name: &'a str,
    pub(super) values: &'a mut [f32],
    pub(super) gradient: &'a [f32],
}

impl NetworkOptimizer {
    /// A new optimizer.
    pub const fn new(rule: Rule) -> Self {
        let options = OptimizerOptions { groups: Vec::new(), clip: None };
        Self { rule, options, step: 0, states: Vec::new() }
    }

    /// Sets groups and clipping; the state stays.
    #[must_use]
    pub fn with_options(mut self, options: OptimizerOptions) -> Self {
        self.options = options;
        self
    }

    /// Gives parameters constants of their own. A parameter belongs to the first group that names it; each group must
    /// name one.
    #[must_use]
    pub fn with_groups(mut self, groups: Vec<ParameterGroup>) -> Self {
        self.options.groups = groups;
        self
    }

    /// Limits the gradients before each step. The network's own are left as they are.
    #[must_use]
    pub fn with_clip(mut self, clip: Clip) -> Self {
        self.options.clip = Some(clip);
        self
    }

    /// An optimizer that continues from `state`, without groups and clipping: with the same rule its steps equal, bit
    /// for bit, those of the [exported](Self::export) optimizer. [`Network::step`](super::Network::step) checks whether
    /// the state fits a network.
    pub fn restore(rule: Rule, state: OptimizerState) -> Self {
        let mut optimizer = Self::new(rule);
        optimizer.resume(state);
        optimizer
    }

    /// Continues from `state` with the present rule, groups and clipping, as [`restore`](Self::restore).
    pub fn resume(&mut self, state: OptimizerState) {
        self.step = state.steps;
        self.states = state.moments.into_iter().map(State).collect();
    }

    /// A copy of its state. Rule, groups and clipping are no part of it.
    pub fn export(&self) -> OptimizerState {
        OptimizerState { steps: self.step, moments: self.states.iter().map(|State(moments)| moments.clone()).collect() }
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The rule of a parameter with the constants of its group.
    pub fn rule_of(&self, parameter: &str) -> Rule {
        self.options.rule_of(self.rule, parameter)
    }

    /// Checks that groups and states fit parameters with these names and lengths; an optimizer without state fits any.
    pub(super) fn check<'a>(&self, parameters: impl Iterator<Item = (&'a str, usize)>) -> Result<(), TrainableError> {
        if self.states.is_empty() && self.options.groups.is_empty() {
            return Ok(());
        }
        let parameters: Vec<_> = parameters.collect();
        self.options.check(parameters.iter().map(|(parameter, _)| *parameter))?;
        if self.states.is_empty() {
            return Ok(());
        }
        if parameters.len() != self.states.len() {
            return Err(TrainableError::Optimizer { expected: parameters.len(), found: self.states.len() });
        }
        parameters.iter().zip(&self.states).try_for_each(|(&(parameter, len), state)| state.check(parameter, len))
    }

    /// Moves the parameters by their gradients; they must be the same in each step.
    pub(super) fn apply(&mut self, isa: Isa, parameters: Vec<Parameter<'_>>) -> Result<(), TrainingError> {
        let gradients: Vec<&[f32]> = parameters.iter().map(|parameter| parameter.gradient).collect();
        let clipping = Clipping::new(self.options.clip, isa, &gradients)?;
        self.step += 1;
        self.states.resize_with(parameters.len(), State::default);
        for (index, Parameter { name, values, gradient }) in parameters.into_iter().enumerate() {
            let rule = self.rule_of(name);
            self.states[index].apply(&rule, isa, self.step, values, clipping.of(gradient))?;
        }
        Ok(())
    }
}

/// A rule with the state of one tensor that belongs to no network, for example a code whose image is searched.
///
/// ```
/// use nomaly_nn::trainable::{Rule, TensorOptimizer};
/// use nomaly_kernels::Isa;
///
/// // The minimum of (x - 3)².
/// let mut x = [0.0];
/// let mut optimizer = TensorOptimizer::new(Rule::adam(0.1), Isa::best()?);
/// for _ in 0..200 {
///     let gradient = [2.0 * (x[0] - 3.0)];
///     optimizer.step(&mut x, &gradient)?;
/// }
/// assert!((x[0] - 3.0).abs() < 0.01);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TensorOptimizer {
    /// The rule; a schedule may change its constants between steps.
    pub rule: Rule,
    clip: Option<Clip>,
    isa: Isa,
    step: u64,
    state: State,
}

impl TensorOptimizer {
    /// A new optimizer.
    pub fn new(rule: Rule, isa: Isa) -> Self {
        Self { rule, clip: None, isa, step: 0, state: State::default() }
    }

    /// Limits the gradient before each step.
    #[must_use]
    pub fn with_clip(mut self, clip: Clip) -> Self {
        self.clip = Some(clip);
        self
    }

    /// Moves `values`, the same tensor in each step, by its gradient.
    ///
    /// # Errors
    /// If the gradient, or the tensor of earlier steps, has another length.
    pub fn step(&mut self, values: &mut [f32], gradient: &[f32]) -> Result<(), TrainableError> {
        const TENSOR: &str = "the tensor";
        self.state.check(TENSOR, values.len())?;
        let clipping = Clipping::new(self.clip, self.isa, &[gradient]).map_err(in_layer(TENSOR))?;
        let step = self.step + 1;
        self.state.apply(&self.rule, self.isa, step, values, clipping.of(gradient)).map_err(in_layer(TENSOR))?;
        self.step = step;
        Ok(())
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Forgets all steps, for another tensor; memory is kept.
    pub fn reset(&mut self) {
        self.step = 0;
        self.state.0.iter_mut().for_each(Vec::clear);
    }

    /// A copy of its state.
    pub fn export(&self) -> OptimizerState {
        OptimizerState { steps: self.step, moments: vec![self.state.0.clone()] }
    }

    /// Continues from `state`: its steps equal, bit for bit, those of the [exported](Self::export) optimizer.
    ///
    /// # Errors
    /// If the state is not of one tensor.
    pub fn resume(&mut self, state: OptimizerState) -> Result<(), TrainableError> {
        let [moments] = <[_; 1]>::try_from(state.moments)
            .map_err(|moments| TrainableError::Optimizer { expected: 1, found: moments.len() })?;
        (self.step, self.state) = (state.steps, State(moments));
        Ok(())
    }
}
