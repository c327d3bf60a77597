//! What was learned, as a model file keeps it.

use nomaly_backbones::weights::Weights;
use nomaly_scorers::{State, Tensor};

/// What a model file keeps of a model.
#[doc(hidden)]
#[derive(Default)]
pub struct Stored {
    /// What was learned, by name.
    pub states: Vec<(String, State)>,
    /// Height and width, then 1 inside and 0 outside, for models of images.
    pub region: Option<Tensor>,
    /// The weights of the backbone, for models of images.
    pub backbone: Weights,
}
