//! Networks and their operations against reference implementations.

mod formula;
mod graphs;
mod networks;
#[cfg(feature = "candle")]
mod ops;
mod steps;
