//! Methods of visual anomaly detection, and what they share.
//!
//! A [`Method`] has checked its parameters. It visits a [`FeatureSource`] (what a backbone says of images) as often as
//! it needs, learns what normal is, and becomes a [`FittedMethod`], which gives every image a score, *higher = more
//! anomalous*, and some of them a map. Where images come from, and how scores become decisions, is not known here.
//!
//! [`METHODS`] lists them all:
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
mod networks;
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
pub use maps::AnomalyMap;
pub use method::{
    BuildMethod, Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodNetwork, MethodParams,
    MoreSettings, Published, PublishedClasses, Updates,
};
pub use nomaly_wire::Skipped;
pub use registry::METHODS;
pub use score::{HeldOut, MethodScore};
pub use stage::Stage;
pub use workspace::MethodWorkspace;
