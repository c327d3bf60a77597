//! Backbones against the reference implementations.

mod embedded;
mod explain;
mod formula;
mod joined;
mod loading;
mod modes;
#[cfg(feature = "candle")]
mod ops;
mod parity;
mod trainable;
#[cfg(feature = "candle")]
mod training;
