//! The schedule of a training.

use super::schedule::{Schedule, Warmup};

/// The schedule of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingPlan {
    /// Passes over all examples, at least 1.
    pub epochs: usize,
    /// Examples per step, at least 1; the last step of an epoch may have fewer.
    pub batch: usize,
    /// The schedule of the learning rate.
    pub schedule: Schedule,
    /// The rise of the learning rate before its schedule begins.
    pub warmup: Warmup,
    /// Early stopping: the number of epochs without a smaller validation loss after which training stops and the
    /// networks of the best epoch are kept. `None` runs all epochs and keeps the networks of the last.
    pub patience: Option<usize>,
    /// Seeds the order of the examples.
    pub seed: u64,
}
