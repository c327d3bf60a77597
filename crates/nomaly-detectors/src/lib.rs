//! Detectors of visual anomalies: fit on images of good items, then score new ones.
//!
//! A [`FeatureExtractor`] (backbone, taps, preprocessing) feeds a [`Method`](nomaly_methods::Method), which models
//! normality and gives every image a score, *higher = more anomalous*. [`Detector`] → [`FittedDetector`] combines
//! them, calibrates the decision on held-out normal images and saves everything in one [model file](model_file).
//!
//! ```no_run
//! use nomaly_detectors::{Detector, FitOptions, PredictOptions};
//! use nomaly_settings::Assignments;
//! use nomaly_store::Silent;
//!
//! let dataset = nomaly_data::open("parts/bottle")?;
//! let detector = Detector::new("mvg", "efficientnet-lite0", &Assignments::new())?;
//! let fit = detector.fit(&dataset.name, &dataset.train, &FitOptions::default(), &Silent)?;
//! fit.detector.save("bottle.nomaly".as_ref())?;
//! fit.detector.predict(&dataset.test, &PredictOptions::default(), &Silent, |outcome| {
//!     if let Ok(prediction) = outcome.result {
//!         println!("{} {:.3} p = {:.3}", outcome.sample.id, prediction.score, prediction.p_value);
//!     }
//!     Ok(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod auto;
pub mod calibration;
pub mod classes;
mod decider;
mod detector;
mod error;
pub mod explain;
mod fitted;
pub mod fusion;
mod images;
pub mod info;
mod judge;
pub mod model_file;
mod outcome;
pub mod partial;
pub mod recalibration;
mod recipe;
pub mod refit;
pub mod regions;
pub mod rows;
mod session;
pub mod shift;
mod stored;
pub mod suspicion;

pub use calibration::{Calibration, DecisionRule};
pub use decider::Decider;
pub use detector::{Detector, FitOptions, FitResult, FittedDetector, ForImages, PooledRows, PredictOptions};
pub use error::DetectorError;
pub use fitted::{Fitted, Model};
pub use images::{FeatureExtractor, StreamOptions, Streamed};
pub use outcome::{HeldOutImage, Outcome, Prediction};
pub use recipe::{AUTO, Chosen, DEFAULT_BACKBONE, Recipe};
pub use session::{Session, SessionOptions, Verdict};
