//! The stored content of a model.

use nomaly_nn::weights::Weights;
use nomaly_scorers::{State, Tensor};

/// The stored content of a model.
#[doc(hidden)]
#[derive(Default)]
pub struct Stored {
    /// The states of the method, by name.
    pub states: Vec<(String, State)>,
    /// Height and width, then 1 inside and 0 outside, for models of images.
    pub region: Option<Tensor>,
    /// The weights of the backbone, for models of images.
    pub backbone: Weights,
}
