//! Metrics against independent implementations and against slow references.

mod confidence;
mod errors;
mod golden;
mod properties;
mod sklearn;
