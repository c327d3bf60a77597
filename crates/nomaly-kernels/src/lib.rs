//! The numeric core of nomaly: slices in, slices out, no images, files or methods.
//!
//! * [`network`]: whole convolutional networks as one plan, in a blocked layout, for one instruction set.
//! * [`training`]: forward and backward passes on planar tensors, losses, optimizer steps.
//! * [`geometry`]: padding, activations, pooling windows and layouts, which networks and training share.
//! * [`neighbours`]: exact and approximate nearest rows of a memory bank; [`coreset`]: a few rows that cover it.
//! * [`linalg`]: a Gaussian for each of many positions.
//! * [`rbf`]: the Gaussian kernel of many pairs of rows; [`exponentials`]: sums of them where rows want double
//!   precision.
//! * [`filter`] and [`resample`]: blur, medians and bilinear resizing of maps.
//! * [`isa`]: which vector instructions are used, chosen at run time.
//! * [`peak`]: the peak arithmetic throughput of this machine.
//!
//! This is the only crate of the workspace with `unsafe` code: vector intrinsics, and raw addresses into the arena that
//! the threads of a run share. A value of a token type proves that the processor has the instructions; addresses are
//! checked when a plan is made, not when it runs.
#![deny(unsafe_op_in_unsafe_fn)]
#![deny(missing_docs)]

mod blocked;
mod buffer;
mod conv;
mod convert;
pub mod coreset;
mod elementwise;
mod epilogue;
mod error;
pub mod exponentials;
pub mod filter;
pub mod geometry;
pub mod isa;
pub mod linalg;
pub mod neighbours;
pub mod network;
mod parallel;
pub mod peak;
mod pool;
mod random;
pub mod rbf;
pub mod resample;
mod simd;
mod squares;
mod team;
pub mod training;
mod window;

pub use isa::{Isa, IsaError};
pub use window::WindowError;
