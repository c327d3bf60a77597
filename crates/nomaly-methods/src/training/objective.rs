//! Networks in training and their objective.

use nomaly_nn::graph::Graph;
use nomaly_nn::runtime::TrainableNetwork;
use nomaly_nn::trainable::{Clip, OptimizerOptions, Rule, TrainableError};
use nomaly_registry::UnknownName;
use serde::{Deserialize, Serialize};

use crate::error::MethodError;

/// A network with its optimizer.
#[derive(Debug)]
pub struct Learner {
    /// The network.
    pub network: Box<dyn TrainableNetwork>,
    /// The update rule at the full learning rate.
    pub rule: Rule,
    /// The learning rate of the next step; [`train`](super::train) sets it.
    pub rate: f64,
}

impl Learner {
    /// A learner with a fresh optimizer.
    pub fn new(network: Box<dyn TrainableNetwork>, rule: Rule) -> Self {
        Self { network, rule, rate: rule.rate() }
    }

    /// Limits the gradients before each step.
    #[must_use]
    pub fn with_clip(mut self, clip: Option<Clip>) -> Self {
        self.network.set_optimizer_options(OptimizerOptions { clip, ..OptimizerOptions::default() });
        self
    }

    /// Updates the parameters with the gradients of the last backward pass.
    ///
    /// # Errors
    /// As [`TrainableNetwork::step`].
    pub fn step(&mut self) -> Result<(), MethodError> {
        Ok(self.network.step(self.rule.with_rate(self.rate))?)
    }
}

/// The node of a tap.
///
/// # Errors
/// The tap is not one of the graph.
pub fn tap_node(graph: &Graph, name: &str) -> Result<usize, MethodError> {
    let found = graph.taps().iter().find(|tap| tap.name == name).map(|tap| tap.node);
    let unknown = || UnknownName::new("tap", name, graph.taps().iter().map(|tap| tap.name.as_str()));
    found.ok_or_else(|| TrainableError::from(unknown()).into())
}

/// The examples of one step.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The numbers of the examples, each below [`Objective::examples`].
    pub examples: &'a [u32],
    /// The epoch, from 0.
    pub epoch: usize,
    /// The step of the whole training, from 0; seeds the random choices of an objective.
    pub step: u64,
}

/// The objective of a training: networks, and what they learn.
pub trait Objective {
    /// The number of examples per epoch; at most `u32::MAX`.
    fn examples(&self) -> usize;

    /// The networks that learn, by name, always in the same order. [`train`](super::train) sets their learning rates,
    /// writes them to checkpoints, and restores those of the best epoch.
    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)>;

    /// Takes one training step: runs the networks on a batch and steps their optimizers, each as often as the method
    /// demands.
    ///
    /// # Errors
    /// Errors of the networks.
    fn step(&mut self, batch: &Batch<'_>) -> Result<Losses, MethodError>;

    /// Validates the networks after an epoch on held-out images. `None` without held-out images.
    ///
    /// # Errors
    /// Whatever the passes fail with.
    fn validate(&mut self, _epoch: usize) -> Result<Option<Validation>, MethodError> {
        Ok(None)
    }
}

/// The losses of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// The mean loss of the batch, which the history of the training keeps.
    pub total: f64,
    /// Further losses by name, for progress: that of each network of several, or the terms of a sum.
    pub parts: Vec<(&'static str, f64)>,
}

impl From<f64> for Losses {
    fn from(total: f64) -> Self {
        Self { total, parts: Vec::new() }
    }
}

impl Losses {
    /// Whether all are finite numbers.
    pub(super) fn are_finite(&self) -> bool {
        self.total.is_finite() && self.parts.iter().all(|(_, loss)| loss.is_finite())
    }
}

/// The validation of an epoch on held-out images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// The mean loss; *lower = better*.
    pub loss: f64,
    /// The share of correctly classified examples, for classifiers.
    pub accuracy: Option<f64>,
}
