//! The training loop of every method that trains a network.
//!
//! # What it does
//! An [`Objective`] says what a batch of examples means: it runs the networks forward and backward and steps their
//! optimisers. [`train`] does the rest, once for all methods: the order of the examples, the learning rate, progress
//! with the loss, validation, early stopping, checkpoints, resumption and cancellation.
//!
//! # What holds
//! * The result depends on the seed, the settings and the data alone: the order of an epoch comes from the seed and the
//!   number of the epoch, and nothing from the clock. A training that was interrupted and goes on from its checkpoint
//!   ends with the same numbers, bit for bit, as one that was not.
//! * A [`Checkpoint`] is written after every epoch, at least every [`CHECKPOINT_EVERY`], and when the training is
//!   cancelled. It is replaced atomically; a checkpoint of other data, settings or seed is never taken.
//! * A loss that is not a finite number ends the training with an error.

mod checkpoint;
mod history;
mod objective;
mod order;
mod plan;
mod run;
mod schedule;
pub(crate) mod settings;

pub use self::checkpoint::Checkpoint;
pub use self::history::{EpochRecord, Trained};
pub use self::objective::{Batch, Learner, Objective, Validation};
pub use self::order::shuffled;
pub use self::plan::TrainingPlan;
pub use self::run::{CHECKPOINT_EVERY, train};
pub use self::schedule::Schedule;
