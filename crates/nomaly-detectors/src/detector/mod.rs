//! A method on a backbone, before and after it has seen data.

mod fit;
mod fitted;
mod learned;
mod pooled;
mod preprocessing;
mod seeing;
mod several_sizes;

pub use self::fit::{Detector, FitOptions, FitResult};
pub use self::fitted::{FittedDetector, PredictOptions};
pub(crate) use self::learned::{Described, Training};
pub use self::pooled::PooledRows;
