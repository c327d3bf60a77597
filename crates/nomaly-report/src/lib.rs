//! Self-contained HTML reports with plots.
//!
//! [`render`] turns a [`Report`], plain values independent of detectors, into one HTML file without network access or
//! external fonts, styles or scripts. It works on a phone, in dark mode, on paper, with screen readers, and without
//! JavaScript (except filters, sorting and the slider between image and heat map). All text is escaped.
//!
//! [`overlay`] draws anomaly maps on images, [`files`] writes them for other programs.
//!
//! ```
//! use image::RgbImage;
//! use nomaly_report::{Decision, Item, Picture, Report, Threshold, render};
//!
//! let image = RgbImage::from_pixel(640, 480, image::Rgb([120, 130, 140]));
//! let report = Report {
//!     title: "Castings".into(),
//!     threshold: Some(Threshold { value: 0.5, rule: "fixed".into(), max_fpr: None }),
//!     items: vec![Item {
//!         id: "casting-017.png".into(),
//!         score: 0.83,
//!         p_value: Some(0.01),
//!         decision: Decision::Anomalous,
//!         thumbnail: Some(Picture::photo(&image)?),
//!         ..Item::default()
//!     }],
//!     ..Report::default()
//! };
//! let html = render(&report)?;
//! assert!(html.starts_with("<!DOCTYPE html>"));
//! assert!(html.contains("casting-017.png"));
//! # Ok::<(), nomaly_report::ReportError>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod cards;
mod contour;
mod error;
pub mod files;
mod histogram;
mod model;
mod number;
pub mod overlay;
mod page;
mod picture;
mod plots;
mod tally;
mod toolbar;

pub use cards::MAX_REGIONS;
pub use contour::{Contour, MAX_POINTS};
pub use error::ReportError;
pub use model::{Decision, Figure, Item, KindRow, MapCurves, PixelCurve, RegionBox, Report, SkippedFile, Threshold};
pub use page::render;
pub use picture::{MAX_SIDE, Picture};
pub use tally::{MAX_IMAGES, MAX_MISTAKES};
