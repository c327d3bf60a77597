//! How long and how a training goes.

use super::schedule::Schedule;

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
