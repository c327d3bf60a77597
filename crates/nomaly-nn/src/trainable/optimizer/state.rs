//! The state of optimizers.

use nomaly_kernels::Isa;
use nomaly_kernels::training::{
    AdamState, AdamStep, Gradient, NAdamStep, RmsPropState, RmsPropStep, SgdStep, StableAdamWStep, TrainingError,
};

use super::rule::Rule;
use crate::trainable::error::TrainableError;

/// The state of one parameter; what its rule does not use is empty.
///
/// | rule | first | second | third |
/// |---|---|---|---|
/// | SGD | velocity, with momentum | | |
/// | Adam, StableAdamW | first moment | second moment | maximum, with AMSGrad |
/// | NAdam | first moment | second moment | |
/// | RMSProp | mean square | mean, if centered | velocity, with momentum |
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State(pub(super) [Vec<f32>; 3]);

impl State {
    /// Moves `parameters` by one step, the `step`-th.
    pub(crate) fn apply(
        &mut self,
        rule: &Rule,
        isa: Isa,
        step: u64,
        parameters: &mut [f32],
        gradient: Gradient<'_>,
    ) -> Result<(), TrainingError> {
        for (values, used) in self.0.iter_mut().zip(used(rule)) {
            if used {
                values.resize(parameters.len(), 0.0);
            }
        }
        let [first, second, maximum] = &mut self.0;
        match *rule {
            Rule::Sgd { rate, momentum, dampening, weight_decay, nesterov } => {
                let sgd = SgdStep { rate, momentum, dampening, weight_decay, nesterov, step };
                sgd.apply(isa, parameters, gradient, first)
            }
            Rule::Adam { rate, betas, epsilon, weight_decay, decay, amsgrad } => {
                let adam = AdamStep { rate, betas, epsilon, weight_decay, decay, amsgrad, step };
                adam.apply(isa, parameters, gradient, AdamState { first, second, maximum })
            }
            Rule::NAdam { rate, betas, epsilon, momentum_decay, weight_decay, decay } => {
                let nadam = NAdamStep { rate, betas, epsilon, momentum_decay, weight_decay, decay, step };
                nadam.apply(isa, parameters, gradient, AdamState { first, second, maximum })
            }
            Rule::RmsProp { rate, alpha, epsilon, weight_decay, momentum, centered } => {
                let rmsprop = RmsPropStep { rate, alpha, epsilon, weight_decay, momentum, centered };
                let state = RmsPropState { square: first, mean: second, velocity: maximum };
                rmsprop.apply(isa, parameters, gradient, state)
            }
            Rule::StableAdamW { rate, betas, epsilon, weight_decay, amsgrad, form } => {
                let stable = StableAdamWStep { rate, betas, epsilon, weight_decay, amsgrad, form, step };
                stable.apply(isa, parameters, gradient, AdamState { first, second, maximum }).map(drop)
            }
        }
    }

    /// A state of these moments.
    #[cfg(feature = "candle")]
    pub(crate) fn of(moments: [Vec<f32>; 3]) -> Self {
        Self(moments)
    }

    /// The moments.
    #[cfg(feature = "candle")]
    pub(crate) fn moments(&self) -> &[Vec<f32>; 3] {
        &self.0
    }

    /// Checks that the state fits a parameter of `len` values; a state that is empty fits any.
    pub(super) fn check(&self, parameter: &str, len: usize) -> Result<(), TrainableError> {
        match self.0.iter().find(|values| !values.is_empty() && values.len() != len) {
            Some(values) => Err(TrainableError::OptimizerState {
                parameter: parameter.to_owned(),
                expected: len,
                found: values.len(),
            }),
            None => Ok(()),
        }
    }
}

/// Which parts of the state a rule uses.
fn used(rule: &Rule) -> [bool; 3] {
    match *rule {
        Rule::Sgd { momentum, .. } => [momentum != 0.0, false, false],
        Rule::Adam { amsgrad, .. } | Rule::StableAdamW { amsgrad, .. } => [true, true, amsgrad],
        Rule::NAdam { .. } => [true, true, false],
        Rule::RmsProp { centered, momentum, .. } => [true, centered, momentum != 0.0],
    }
}

/// The state of a [`NetworkOptimizer`](super::NetworkOptimizer) or a [`TensorOptimizer`](super::TensorOptimizer), for
/// checkpoints.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerState {
    /// Steps done.
    pub steps: u64,
    /// For each trained parameter, in the order of [`Network::gradients`](crate::trainable::Network::gradients), the
    /// velocity (SGD), the first, second and largest second moment (Adam, NAdam, StableAdamW), or the mean square, the
    /// mean and the velocity (RMSProp). Unused state is empty, as is all state before the first step.
    pub moments: Vec<[Vec<f32>; 3]>,
}
