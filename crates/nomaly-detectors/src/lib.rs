//! Methods of visual anomaly detection: fit on images of good items, then score new ones.
//!
//! A method is data flow, not a framework: a [`FeatureExtractor`] (backbone, taps, preprocessing) feeds a
//! [`Method`], which learns what normal is and gives every image a score, *higher = more anomalous*.
//! [`Detector`] → [`FittedDetector`] ties them together, calibrates the decision on held-out normal images and
//! keeps everything in one [model file](model_file).
//!
//! ```no_run
//! use nomaly_detectors::{Detector, FitOptions, PredictOptions, Settings};
//! use nomaly_store::Silent;
//!
//! let dataset = nomaly_data::open("parts/bottle")?;
//! let detector = Detector::new("mvg", "efficientnet-lite0", &Settings::default())?;
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
mod detector;
mod error;
pub mod explain;
mod features;
pub mod fusion;
pub mod groups;
mod images;
pub mod info;
mod judge;
pub mod map_maker;
pub mod maps;
mod method;
pub mod methods;
pub mod model_file;
mod networks;
mod outcome;
pub mod recalibration;
pub mod recognition;
pub mod refit;
pub mod regions;
pub mod registry;
pub mod rows;
mod score;
mod settings;
pub mod shift;
mod skipped;
mod stage;
mod state;
mod stored;
pub mod suspicion;
pub mod training;

pub use calibration::{Calibration, DecisionRule};
pub use detector::{COMMON_PARAMETERS, Detector, Fit, FitOptions, FittedDetector, PooledRows, PredictOptions};
pub use error::DetectorError;
pub use features::{FeatureBatch, FeatureSource};
pub use groups::{GroupBy, Groups};
pub use images::{FeatureExtractor, StreamOptions, Streamed};
pub use maps::AnomalyMap;
pub use method::{
    BuildMethod, Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodNetwork, MoreParameters,
    Published, PublishedClasses,
};
pub use nomaly_scorers::Parameter;
pub use outcome::{HeldOutImage, Outcome, Prediction};
pub use registry::METHODS;
pub use score::{HeldOut, MethodScore};
pub use settings::{Memory, Settings};
pub use skipped::Skipped;
pub use stage::Stage;
