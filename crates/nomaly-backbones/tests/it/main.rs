//! Backbones against the reference implementations.

mod embedded;
mod formula;
mod loading;
mod parity;
#[cfg(feature = "candle")]
mod training;
