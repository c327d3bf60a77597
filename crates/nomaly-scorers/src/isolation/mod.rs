//! Isolation forests: anomalies are the rows that few random splits set apart.

mod axis;
mod extended;
mod trees;

pub use axis::{IsolationForest, IsolationForestOptions};
pub use extended::{ExtendedIsolationForest, ExtendedIsolationForestOptions};
pub use trees::average_path_length;

pub(crate) use axis::ENTRY;
pub(crate) use extended::ENTRY as EXTENDED_ENTRY;
