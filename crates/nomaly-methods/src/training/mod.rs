//! The training loop of all methods that train a network.
//!
//! # The loop
//! An [`Objective`] owns the networks and defines the loss: it runs them forward and backward on a batch and steps
//! their optimizers. [`train`] does the rest for all methods: the order of the examples, the learning rate, progress
//! with the loss, validation, early stopping, checkpoints, resumption and cancellation.
//!
//! # Guarantees
//! * The result depends only on the seed, the settings and the data: the order of an epoch comes from the seed and the
//!   epoch's number, and nothing from the clock. A training that resumes from a checkpoint gives the same result, bit
//!   for bit, as an uninterrupted one.
//! * A [`Checkpoint`] is written after every epoch, at least every [`CHECKPOINT_EVERY`], and on cancellation. It is
//!   replaced atomically; a checkpoint of other data, settings or seed is never used.
//! * Random numbers of a network come from its [`NetworkStreams`], named after it, so that another network shifts none.
//! * A loss that is not a finite number ends the training with an error.

mod checkpoint;
mod history;
mod objective;
mod order;
mod plan;
mod run;
mod schedule;
pub(crate) mod settings;
mod streams;

pub use self::checkpoint::Checkpoint;
pub use self::history::{EpochRecord, Trained};
pub use self::objective::{Batch, Learner, Losses, Objective, Validation, tap_node};
pub use self::order::shuffled;
pub use self::plan::TrainingPlan;
pub use self::run::{CHECKPOINT_EVERY, train};
pub use self::schedule::{Schedule, Warmup, WarmupError};
pub use self::settings::{Optimizer, Patience, TrainingParams};
pub use self::streams::{NetworkStreams, StreamUse};
