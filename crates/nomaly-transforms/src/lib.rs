//! Image decoding, resizing, normalisation, sets of transformations and synthetic anomalies.
//!
//! Image processing for anomaly detection:
//!
//! * [`decode`]: files of unknown quality to 8-bit RGB, within [`Limits`], with errors that say what is wrong;
//! * [`Pipeline`]: resize, centre crop and normalisation, equal to torchvision's, producing a network's input planes
//!   from the whole image or from [`Views`] of it: overlapping tiles and flips;
//! * [`synthetic`]: seeded defects with exact masks, for demonstrations and validation;
//! * [`transformations`]: sets of transformations that a network learns to distinguish;
//! * [`augment`]: anomalies made from normal images, to train against;
//! * [`statistics`]: brightness, sharpness, noise and colour of an image.
//!
//! Also: [`samples`], a few embedded textures, and [`registry`], the list of all transforms.
//!
//! ```
//! use nomaly_transforms::{Filter, Limits, Normalize, Pipeline, Resize, ResizeMode, decode_bytes};
//!
//! # let png = {
//! #     let mut bytes = std::io::Cursor::new(Vec::new());
//! #     let image = image::RgbImage::from_pixel(20, 10, image::Rgb([127, 127, 255]));
//! #     image.write_to(&mut bytes, image::ImageFormat::Png)?;
//! #     bytes.into_inner()
//! # };
//! let image = decode_bytes(&png, &Limits::default())?;
//! let resize = Resize { mode: ResizeMode::Exact { height: 8, width: 8 }, filter: Filter::Bicubic };
//! let pipeline = Pipeline::new(resize, None, Normalize::EFFICIENTNET_LITE)?;
//! let input = pipeline.apply(&image)?; // [3, 8, 8]
//! assert_eq!(input[0], 0.0); // red is 127
//! assert!((input[2 * 64] - 1.0).abs() < 1e-6); // blue is 255
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod augment;
pub mod decode;
mod dice;
mod entry;
mod error;
mod limits;
mod pipeline;
mod planes;
pub mod registry;
mod resample;
mod resize;
pub mod samples;
pub mod statistics;
pub mod synthetic;
pub mod transformations;
mod views;

pub use decode::{
    FileFacts, FormatFamily, Limits, decode_bytes, decode_bytes_with_facts, decode_file, decode_file_with_facts,
    jpeg_scale,
};
pub use error::{DecodeError, Fault, TransformError};
pub use limits::{MAX_SIDE, MAX_TILES};
pub use pipeline::{CenterCrop, Footprint, Normalize, Pipeline, Resize, ResizeMode};
pub use resample::Filter;
pub use resize::{crop, resize, resize_mask, scaled_preview};
pub use views::{Flips, MAX_VIEW_PIXELS, Tiling, Views};
