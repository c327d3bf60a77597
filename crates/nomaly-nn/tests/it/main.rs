//! Networks and their operations against reference implementations.

mod formula;
mod graphs;
mod inference;
#[cfg(feature = "candle")]
mod module;
mod networks;
#[cfg(feature = "candle")]
mod ops;
mod runtime;
mod steps;
mod tokens;
