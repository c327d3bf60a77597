//! Networks and their operations against reference implementations.

mod formula;
mod graphs;
mod inference;
#[cfg(feature = "candle")]
mod ops;
mod steps;
