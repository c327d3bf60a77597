//! Networks, and what they are trained for.

use nomaly_backbones::graph::Graph;
use nomaly_backbones::trainable::{Network, NetworkOptimizer, Rule, he_normal};
use nomaly_kernels::Isa;
use serde::{Deserialize, Serialize};

use crate::error::MethodError;

/// A network with what moves it.
#[derive(Debug)]
pub struct Learner {
    /// The network.
    pub network: Network,
    /// Its optimizer; [`train`](super::train) sets the learning rate of its rule before each step.
    pub optimizer: NetworkOptimizer,
    /// The rule at the full learning rate.
    pub rule: Rule,
}

impl Learner {
    /// A network that has not been trained yet.
    pub fn new(network: Network, rule: Rule) -> Self {
        Self { network, optimizer: NetworkOptimizer::new(rule), rule }
    }

    /// A network that ends at the tap `logits` of `graph`, for inputs of `size` (height, width), with He-normal weights
    /// drawn from the seed.
    pub(crate) fn initialized(graph: &Graph, size: [usize; 2], rule: Rule, seed: u64) -> Result<Self, MethodError> {
        let weights = he_normal(graph, seed);
        Ok(Self::new(Network::new(graph, &["logits"], size, &weights, Isa::best()?)?, rule))
    }

    /// Moves the parameters by the gradients of the last backward pass.
    ///
    /// # Errors
    /// As [`Network::step`].
    pub fn step(&mut self) -> Result<(), MethodError> {
        Ok(self.network.step(&mut self.optimizer)?)
    }
}

/// The examples of one step.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Their numbers, each below [`Objective::examples`].
    pub examples: &'a [u32],
    /// The epoch, from 0.
    pub epoch: usize,
    /// The step of the whole training, from 0: what random choices of an objective are seeded with.
    pub step: u64,
}

/// What a method trains its networks for.
pub trait Objective {
    /// How many examples an epoch has; at most `u32::MAX`.
    fn examples(&self) -> usize;

    /// Takes one step: the passes over a batch, and the steps of the optimisers. Returns the mean loss of the batch.
    ///
    /// # Errors
    /// Whatever the passes fail with.
    fn step(&mut self, learners: &mut [Learner], batch: &Batch<'_>) -> Result<f64, MethodError>;

    /// What the networks are worth after an epoch on images that take no part in training; *lower = better*. `None`
    /// where nothing is held out.
    ///
    /// # Errors
    /// Whatever the passes fail with.
    fn validate(&mut self, _learners: &mut [Learner], _epoch: usize) -> Result<Option<Validation>, MethodError> {
        Ok(None)
    }
}

/// What images that take no part in training say of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Their mean loss.
    pub loss: f64,
    /// The share of them that is classified rightly, for classifiers.
    pub accuracy: Option<f64>,
}
