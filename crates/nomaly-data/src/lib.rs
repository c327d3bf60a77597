//! Data sets of good and bad images: readers, manifests, a streaming loader.
//!
//! * [`open`] turns a directory or the name of a data set into a [`Dataset`]: normal training images and labelled test
//!   images, with masks if available.
//! * [`images_under`] lists the images to be scored.
//! * [`loader::stream`] passes samples to a network batch by batch, decoding the next batch in the meantime.
//! * [`demo`] creates a small data set with defects in memory.
//! * [`tables`] reads rows of features, for scorers without images.
//! * [`DATASETS`] and [`get`] know the public data sets, their terms, and how to fetch them.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # for (path, grey) in [("train/good/a.png", 90), ("test/good/b.png", 91), ("test/crack/c.png", 20)] {
//! #     let path = folder.path().join(path);
//! #     std::fs::create_dir_all(path.parent().unwrap())?;
//! #     image::RgbImage::from_pixel(8, 8, image::Rgb([grey; 3])).save(path)?;
//! # }
//! # let spec = folder.path().display().to_string();
//! // train/good/a.png, test/good/b.png, test/crack/c.png
//! let dataset = nomaly_data::open(&spec)?;
//! assert_eq!(dataset.train[0].id, "train/good/a.png");
//! assert_eq!(dataset.kinds(), ["crack", "good"]);
//! assert_eq!(dataset.count(nomaly_data::Label::Anomalous), 1);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod classes;
pub mod demo;
mod error;
mod frames;
pub mod loader;
mod manifest;
mod open;
mod options;
mod readers;
mod registry;
mod sample;
pub mod subset;
pub mod tables;
mod walk;

pub use error::DataError;
pub use frames::FrameCache;
pub use manifest::{Manifest, Route};
pub use open::{open, open_classes};
pub use options::with_option;
pub use registry::{Availability, DATASETS, DatasetEntry, get};
pub use sample::{Dataset, ImageSource, Label, MaskSource, PackedImages, Sample, with_changes};
pub use walk::{EXTENSIONS, UNLABELLED, images_under};
