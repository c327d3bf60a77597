//! Shared parts of methods that train a network: what they keep of the images, examples, the trained network.

pub(crate) mod classification;
pub(crate) mod classifier;
mod data;
pub(crate) mod examples;
pub(crate) mod images;
pub(crate) mod set;
mod taps;

pub use self::classifier::{NetworkBuffers, StoredNetwork, TrainedNetwork};
pub use self::data::FitData;
pub use self::images::PixelStore;
pub use self::set::{TrainingNeeds, TrainingSet};
pub use self::taps::{TapLimits, TapStore};
