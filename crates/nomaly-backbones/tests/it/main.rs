//! Backbones against the reference implementations.

mod embedded;
mod formula;
mod loading;
mod parity;
mod trainable;
#[cfg(feature = "candle")]
mod training;
