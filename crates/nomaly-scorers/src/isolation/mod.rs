//! Isolation forests: anomalies are the rows that few random splits isolate.

mod axis;
mod extended;
mod trees;

pub use axis::{IsolationForest, IsolationForestOptions};
pub use extended::{ExtendedIsolationForest, ExtendedIsolationForestOptions, Extension};
pub use trees::average_path_length;
