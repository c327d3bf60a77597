//! Evaluation of detectors on labelled items: figures, and references to compare them with.
//!
//! ```no_run
//! use nomaly_detectors::{FittedDetector, PredictOptions};
//! use nomaly_evaluation::evaluate;
//! use nomaly_store::Silent;
//!
//! let dataset = nomaly_data::open("parts/bottle")?;
//! let detector = FittedDetector::load("bottle.nomaly".as_ref())?;
//! let evaluated = evaluate(&detector, &dataset, None, &PredictOptions::default(), &Silent, |_| ())?;
//! if let Some(image) = evaluated.figures.image {
//!     println!("AUROC {:.3}", image.auroc);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod clock;
mod decisions;
mod error;
pub mod hybrid;
mod images;
mod intervals;
pub mod protocol;
pub mod recognition;
pub mod rows;
pub mod supervised;

pub use clock::peak_rss_mib;
pub use error::EvaluationError;
pub use images::{Evaluated, LabelledPrediction, PRO_LIMIT, PixelCurves, evaluate, evaluate_grouped};
pub use intervals::LEVEL;
