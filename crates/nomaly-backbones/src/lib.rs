//! Backbones: networks that turn an image into features, with taps at every depth.
//!
//! An architecture is defined once, as data ([`Graph`](nomaly_nn::graph::Graph)). Together with a set of weights it
//! becomes the compiled CPU plan ([`Backbone::compile`]) or, with the feature `candle`, a `Module` for CUDA, Metal and
//! training. [`registry::BACKBONES`] lists all backbones; EfficientNet-Lite0 comes with its weights.
//!
//! ```
//! use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
//! use nomaly_nn::runtime::Executor;
//!
//! let backbone = Backbone::embedded()?;
//! let taps = [TapRequest::new("stage2", OutputLayout::Rows), TapRequest::new("stage4", OutputLayout::Mean)];
//! let extractor = backbone.compile([64, 64], &taps, &Executor::cpu()?)?;
//! assert_eq!(extractor.output_shape(0), [24, 16, 16]);
//!
//! let image = vec![0.0; 3 * 64 * 64]; // normalized by `backbone.preprocessing()`
//! let mut features = vec![Vec::new(); 2];
//! extractor.run(&image, 1, &mut extractor.workspace(1), &mut features)?;
//! assert_eq!(features[0].len(), 16 * 16 * 24);
//! assert_eq!(features[1].len(), 80);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod architectures;
mod backbone;
pub mod cache;
mod describe;
mod error;
pub mod explain;
mod extractor;
mod part;
pub mod registry;
mod taps;
pub mod weights;

pub use backbone::{Backbone, OpenOptions};
pub use describe::{Description, describe_all};
pub use error::BackboneError;
pub use extractor::{Extractor, Workspace};
pub use nomaly_kernels::geometry::OutputLayout;
pub use registry::{BackboneEntry, Interpolation, Preprocessing};
pub use taps::{PIXELS, TapInfo, TapRequest, tap_infos};
