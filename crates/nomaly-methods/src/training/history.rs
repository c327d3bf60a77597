//! The history of a training.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::objective::Validation;

/// The record of a finished epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch, from 1.
    pub epoch: usize,
    /// The mean training loss, each example's before the step that learns from it.
    pub loss: f64,
    /// The validation result.
    pub validation: Option<Validation>,
}

/// The record of a finished training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trained {
    /// The epochs.
    pub history: Vec<EpochRecord>,
    /// The epoch, from 1, whose networks were kept.
    pub kept_epoch: usize,
    /// The step at which it resumed, if it found a checkpoint.
    pub resumed: Option<u64>,
}

impl fmt::Display for Trained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(first), Some(last)) = (self.history.first(), self.history.last()) else {
            return f.write_str("no epoch was trained");
        };
        write!(f, "trained for {} epochs, loss {:.4} to {:.4}", self.history.len(), first.loss, last.loss)?;
        if let Some(validation) = self.history.get(self.kept_epoch.saturating_sub(1)).and_then(|epoch| epoch.validation)
        {
            write!(f, "; {:.4} on held-out images", validation.loss)?;
            if let Some(accuracy) = validation.accuracy {
                write!(f, ", {:.1} % of which are told rightly", 100.0 * accuracy)?;
            }
        }
        if self.kept_epoch != self.history.len() {
            write!(f, "; the network of epoch {} was kept", self.kept_epoch)?;
        }
        if let Some(step) = self.resumed {
            write!(f, "; went on from step {step} of an interrupted training")?;
        }
        Ok(())
    }
}
