//! Networks as data, and what runs them.
//!
//! A [`Graph`](graph::Graph) says what a network computes; the [`GraphBuilder`](graph::GraphBuilder) makes one.
//! Together with [`Weights`](weights::Weights) it becomes an executable for inference
//! ([`Inference`](inference::Inference), or a single CPU plan by [`compile`]) or a [`Network`](trainable::Network) in
//! training. With the feature `candle` it also becomes a `module::Module` for CUDA and Metal. A
//! [`Runtime`](runtime::Runtime) does either for callers that are not to know which.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod error;
pub mod graph;
pub mod inference;
pub mod init;
mod masks;
#[cfg(feature = "candle")]
pub mod module;
#[cfg(feature = "candle")]
pub mod ops;
mod parameters;
mod plan;
mod positions;
pub mod runtime;
pub mod trainable;
pub mod weights;

pub use error::CompileError;
pub use plan::compile;
