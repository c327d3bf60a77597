//! Metrics of anomaly detection: ROC, AUROC, AP, F1-max, EER, AUPRO, with confidence intervals.
//!
//! Three conventions hold in the whole crate:
//!
//! * **Scores**: higher = more anomalous, `f32` or `f64`. Infinities are ordinary extreme scores; NaN is an error that
//!   names its index. `-0.0` and `0.0` are equal.
//! * **Labels**: `true` = anomalous ("positive").
//! * **Thresholds**: an item is *flagged* if and only if `score > threshold`. A threshold of `-∞` therefore flags
//!   every finite score, and a threshold equal to the highest score flags nothing.
//!
//! Ties are never broken by input order: items with equal scores are always flagged together. Every figure is computed
//! from integer counts per distinct score, so it does not depend on the order of the input or on the number of threads.
//!
//! ```
//! use nomaly_metrics::{ConfusionMatrix, PixelMetrics, auroc, f1_max};
//!
//! let scores = [0.1, 0.4, 0.35, 0.8];
//! let labels = [false, false, true, true];
//! assert_eq!(auroc(&scores, &labels)?, 0.75);
//!
//! let best = f1_max(&scores, &labels)?;
//! assert_eq!((best.f1, best.threshold), (0.8, 0.1));
//! let counts = ConfusionMatrix::at(&scores, &labels, best.threshold)?;
//! assert_eq!((counts.tpr(), counts.fpr()), (Some(1.0), Some(0.5)));
//!
//! // Pixel figures: one map and one mask per image, pushed one after another.
//! let mut pixels = PixelMetrics::new();
//! pixels.push(&[0.1, 0.2, 0.9, 0.3], &[0, 0, 255, 0], 2, 2)?;
//! pixels.push_normal(&[0.1, 0.2, 0.3, 0.4], 2, 2)?;
//! assert_eq!(pixels.aupro(0.3)?, 1.0);
//! # Ok::<(), nomaly_metrics::MetricError>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod bootstrap;
pub mod components;
mod confusion;
mod delong;
mod eer;
mod error;
mod f1;
mod interval;
mod pixel;
mod precision;
mod pro;
mod radix;
mod rank;
pub mod registry;
mod roc;

pub use bootstrap::{Bootstrap, ImageIntervals};
pub use confusion::{ConfusionCurve, ConfusionMatrix, confusion_curve};
pub use delong::{Auroc, auroc_with_interval};
pub use eer::{Eer, eer};
pub use error::MetricError;
pub use f1::{F1Max, f1_max};
pub use interval::{Interval, grouped_share_interval, share_interval};
pub use pixel::PixelMetrics;
pub use precision::average_precision;
pub use pro::ProCurve;
pub use rank::Score;
pub use roc::{CurvePoints, RocCurve, auroc, roc_curve};
