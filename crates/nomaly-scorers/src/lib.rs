//! Anomaly scorers for rows of features, and decision rules.
//!
//! A [`Scorer`] is fitted on rows of features of normal items and gives each further row one score; *higher = more
//! anomalous*, everywhere. It can be stored as a [`State`] (numbers and a small configuration, no code) and loaded with
//! [`restore`], which trusts nothing in it. [`SCORERS`] lists every scorer with its settings; [`decision`] turns scores
//! into decisions with a controlled rate of false alarms.
//!
//! Rows are `[n, dim]` arrays of `f32`; all statistics are kept in `f64`. The same rows give the same bytes on any
//! number of threads, and the score of a row does not depend on other rows.
//!
//! ```
//! use ndarray::array;
//! use nomaly_scorers::{SCORERS, restore};
//! use nomaly_settings::Assignments;
//!
//! let normal = array![[1.0f32, 2.0], [1.2, 2.1], [0.9, 1.7], [1.1, 2.4], [0.8, 2.2]];
//! let entry = SCORERS.get("gaussian")?;
//! let scorer = entry.fit(&Assignments::new().with("covariance", "ledoit-wolf"), normal.view())?;
//!
//! let scores = scorer.score(array![[1.0f32, 2.0], [5.0, -3.0]].view())?;
//! assert!(scores[1] > 3.0 && scores[0] < 1.0);
//! let again = restore(&scorer.state())?;
//! assert_eq!(again.score(array![[5.0f32, -3.0]].view())?[0], scores[1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod blocks;
mod choice;
pub mod clustering;
pub mod decision;
pub mod dirichlet;
mod entry;
mod error;
pub mod gaussian;
pub mod histogram;
pub mod isolation;
pub mod kde;
pub mod kernel_machines;
mod kmeans;
mod linalg;
pub mod lof;
pub mod logistic;
pub mod mixture;
mod moments;
pub mod neighbours;
pub mod open_set;
mod pairs;
mod random;
pub mod random_projections;
pub mod registry;
mod scorer;
pub mod sparse;
pub mod subspace;
mod watch;

pub use entry::{ScorerEntry, ScorerParams};
pub use error::ScorerError;
pub use registry::{SCORERS, restore};
pub use scorer::{Scorer, State, Tensor, TensorData};
pub use watch::Watch;
