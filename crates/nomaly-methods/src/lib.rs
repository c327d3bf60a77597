//! Methods of visual anomaly detection and their shared parts.
//!
//! A [`Method`] holds checked parameters. Its `fit` visits a [`FeatureSource`] (the backbone's features of the training
//! images) as often as it needs and returns a [`FittedMethod`], which gives every image a score, *higher = more
//! anomalous*; some methods also make anomaly maps. Reading images and turning scores into decisions happen in other
//! crates.
//!
//! [`METHODS`] lists all methods:
//!
//! ```
//! use nomaly_methods::METHODS;
//!
//! let entry = METHODS.get("padim")?;
//! assert!(entry.maps && !entry.trains);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod error;
mod features;
pub mod groups;
mod input;
mod kind;
mod map_maker;
pub mod maps;
mod method;
pub mod methods;
pub mod networks;
pub mod recognition;
mod registry;
mod score;
mod stage;
pub mod state;
pub mod training;
mod workspace;

pub use error::MethodError;
pub use features::{FeatureBatch, FeatureSource};
pub use groups::{GroupBy, Groups};
pub use input::{Aspect, INPUT_SIDES, InputParams, MOST_SIZES, Tiles, View};
pub use kind::ErrorKind;
pub use map_maker::{DEFAULT_SIGMA, MapMaker, finish_maps};
pub use maps::AnomalyMap;
pub use method::{
    BuildMethod, Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodNetwork, MethodParams,
    MoreSettings, Published, PublishedClasses, Sees, Updates,
};
pub use nomaly_wire::Skipped;
pub use registry::METHODS;
pub use score::{HeldOut, MethodScore};
pub use stage::Stage;
pub use workspace::MethodWorkspace;
