//! A method on a backbone, before and after it has seen data.

mod fit;
mod fitted;
mod parameters;
mod pooled;
mod preprocessing;
mod seeing;

pub use self::fit::{Detector, Fit, FitOptions};
pub use self::fitted::{FittedDetector, PredictOptions};
pub use self::parameters::COMMON_PARAMETERS;
pub use self::pooled::PooledRows;
