//! Detectors of images, before and after they are fitted.

mod fit;
mod fitted;
mod input_stage;
mod learned;
mod pooled;
mod preprocessing;
mod several_sizes;
mod training;

pub use self::fit::{Detector, FitOptions, FitResult};
pub use self::fitted::{FittedDetector, ForImages, PredictOptions};
pub(crate) use self::learned::DetectorParts;
pub use self::pooled::PooledRows;
pub(crate) use self::training::Training;
