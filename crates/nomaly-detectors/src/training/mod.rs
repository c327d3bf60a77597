//! The training loop of every method that trains a network.
//!
//! # What it does
//! An [`Objective`] says what a batch of examples means: it runs the networks forward and backward and steps their
//! optimisers. [`train`] does the rest, once for all methods: the order of the examples, the learning rate, progress with
//! the loss, validation, early stopping, checkpoints, resumption and cancellation.
//!
//! # What holds
//! * The result depends on the seed, the settings and the data alone: the order of an epoch comes from the seed and the
//!   number of the epoch, and nothing from the clock. A training that was interrupted and goes on from its checkpoint ends
//!   with the same numbers, bit for bit, as one that was not.
//! * A [`Checkpoint`] is written after every epoch, at least every [`CHECKPOINT_EVERY`], and when the training is
//!   cancelled. It is replaced atomically; a checkpoint of other data, settings or seed is never taken.
//! * A loss that is not a finite number ends the training with an error.

mod checkpoint;
pub(crate) mod classification;
pub(crate) mod classifier;
pub(crate) mod examples;
pub(crate) mod images;
mod order;
mod run;
mod schedule;
pub(crate) mod set;
pub(crate) mod settings;

use std::fmt;

use nomaly_backbones::graph::Graph;
use nomaly_backbones::trainable::{Network, Optimiser, Rule, he_normal};
use nomaly_kernels::Isa;
use serde::{Deserialize, Serialize};

use crate::DetectorError;

pub use checkpoint::Checkpoint;
pub use order::shuffled;
pub use run::{CHECKPOINT_EVERY, train};
pub use schedule::{Schedule, UnknownSchedule};

/// How long and how a training goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingPlan {
    /// Passes over all examples, at least 1.
    pub epochs: usize,
    /// Examples a step, at least 1; the last step of an epoch may have fewer.
    pub batch: usize,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// Early stopping: so many epochs without a smaller validation loss end the training, and the networks of the best
    /// epoch are kept. `None` for all epochs, and the networks of the last.
    pub patience: Option<usize>,
    /// Decides the order of the examples.
    pub seed: u64,
}

/// A network with what moves it.
#[derive(Debug)]
pub struct Learner {
    /// The network.
    pub network: Network,
    /// Its optimiser; [`train`] sets the learning rate of its rule before each step.
    pub optimiser: Optimiser,
    /// The rule at the full learning rate.
    pub rule: Rule,
}

impl Learner {
    /// A network that has not been trained yet.
    pub fn new(network: Network, rule: Rule) -> Self {
        Self { network, optimiser: Optimiser::new(rule), rule }
    }

    /// A network that ends at the tap `logits` of `graph`, for inputs of `size` (height, width), with He-normal weights drawn
    /// from the seed.
    pub(crate) fn initialised(graph: &Graph, size: [usize; 2], rule: Rule, seed: u64) -> Result<Self, DetectorError> {
        let weights = he_normal(graph, seed);
        Ok(Self::new(Network::new(graph, &["logits"], size, &weights, Isa::best()?)?, rule))
    }

    /// Moves the parameters by the gradients of the last backward pass.
    ///
    /// # Errors
    /// As [`Network::step`].
    pub fn step(&mut self) -> Result<(), DetectorError> {
        Ok(self.network.step(&mut self.optimiser)?)
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
    fn step(&mut self, learners: &mut [Learner], batch: &Batch<'_>) -> Result<f64, DetectorError>;

    /// What the networks are worth after an epoch on images that take no part in training; *lower = better*. `None` where
    /// nothing is held out.
    ///
    /// # Errors
    /// Whatever the passes fail with.
    fn validate(&mut self, _learners: &mut [Learner], _epoch: usize) -> Result<Option<Validation>, DetectorError> {
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

/// What is known of an epoch that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Its number, from 1.
    pub epoch: usize,
    /// The mean loss of its examples, each before the step that learned from it.
    pub loss: f64,
    /// What held-out images say.
    pub validation: Option<Validation>,
}

/// What a training was like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trained {
    /// Its epochs.
    pub history: Vec<EpochRecord>,
    /// The epoch, from 1, whose networks were kept.
    pub kept: usize,
    /// The step that it went on from, where it found a checkpoint.
    pub resumed: Option<u64>,
}

impl fmt::Display for Trained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(first), Some(last)) = (self.history.first(), self.history.last()) else {
            return f.write_str("no epoch was trained");
        };
        write!(f, "trained for {} epochs, loss {:.4} to {:.4}", self.history.len(), first.loss, last.loss)?;
        if let Some(validation) = self.history.get(self.kept.saturating_sub(1)).and_then(|epoch| epoch.validation) {
            write!(f, "; {:.4} on held-out images", validation.loss)?;
            if let Some(accuracy) = validation.accuracy {
                write!(f, ", {:.1} % of which are told rightly", 100.0 * accuracy)?;
            }
        }
        if self.kept != self.history.len() {
            write!(f, "; the network of epoch {} was kept", self.kept)?;
        }
        if let Some(step) = self.resumed {
            write!(f, "; went on from step {step} of an interrupted training")?;
        }
        Ok(())
    }
}
