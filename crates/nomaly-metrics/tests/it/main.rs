//! Metrics against independent implementations and against slow references.

mod errors;
mod golden;
mod properties;
mod sklearn;
