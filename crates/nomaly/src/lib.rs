//! Visual anomaly detection: learn what normal looks like from images of good items, and find what is not.
//!
//! A [`Detector`] is a method on a backbone. Fitted on good images it becomes a [`FittedDetector`], which gives every
//! further image a score (*higher = more anomalous*), a p-value and a decision with a controlled rate of false alarms.
//! A fitted detector is one file: it holds everything that scoring needs, and scores anywhere, offline.
//!
//! ```
//! use nomaly::data::demo;
//! use nomaly::store::Silent;
//! use nomaly::{Detector, FitOptions, PredictOptions, Assignments};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Embedded photographs of a texture; in earnest it is `nomaly::data::open("folder/of/good/images")?`.
//! let images = demo::dataset("brick", 0)?;
//! let (train, test) = (&images.train[..12], &images.test[..4]);
//!
//! // The default backbone has its weights in the library: nothing is downloaded.
//! let settings = Assignments::new().with("input_size", 64); // small, to be quick
//! let detector = Detector::new("mvg", "efficientnet-lite0", &settings)?;
//! let fit = detector.fit(&images.name, train, &FitOptions::default(), &Silent)?;
//!
//! let mut decisions = Vec::new();
//! fit.detector.predict(test, &PredictOptions::default(), &Silent, |outcome| {
//!     match outcome.result {
//!         Ok(prediction) => decisions.push((prediction.score, prediction.p_value, prediction.anomalous)),
//!         Err(skipped) => eprintln!("{}: {}", skipped.id, skipped.message),
//!     }
//!     Ok(())
//! })?;
//! assert_eq!(decisions.len(), test.len());
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | module | what it has |
//! |---|---|
//! | [`detectors`] | fit, calibration, the model file |
//! | [`evaluation`] | figures on labelled items, the one-against-all protocol |
//! | [`methods`] | what detectors learn with: methods, groups, maps, the training loop |
//! | [`data`] | data sets: folders, MVTec layout, named sets; the streaming loader |
//! | [`metrics`] | AUROC, AP, F1-max, EER, AUPRO … |
//! | [`scorers`] | detectors for vectors of any origin |
//! | [`transforms`] | safe decoding, preprocessing, transformation sets, synthetic defects |
//! | [`backbones`] | networks with feature taps, and their weights |
//! | [`kernels`] | the numeric core: convolution plans, nearest neighbours, instruction sets |
//! | [`store`] | downloads, archives, atomic writes, the [`Progress`](store::Progress) of long work |
//! | [`registry`] | how units are listed and found by name |
//!
//! # Threads and determinism
//! Work runs on rayon's current thread pool. The same images, settings and seed give the same bytes whatever the number
//! of threads.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub use nomaly_backbones as backbones;
pub use nomaly_backbones::kernels;
pub use nomaly_data as data;
pub use nomaly_detectors as detectors;
pub use nomaly_evaluation as evaluation;
pub use nomaly_methods as methods;
pub use nomaly_metrics as metrics;
pub use nomaly_registry as registry;
pub use nomaly_scorers as scorers;
pub use nomaly_settings as settings;
pub use nomaly_store as store;
pub use nomaly_transforms as transforms;
pub use nomaly_wire as wire;

pub use nomaly_data::{Dataset, Label, Sample};
pub use nomaly_detectors::{
    Calibration, DecisionRule, Detector, DetectorError, Fit, FitOptions, FittedDetector, Outcome, PredictOptions,
    Prediction, StreamOptions,
};
pub use nomaly_methods::{AnomalyMap, GroupBy, Skipped};
pub use nomaly_settings::Assignments;
pub use nomaly_transforms::Limits;
