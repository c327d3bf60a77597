//! Random weights to start a training from.

mod he;
mod pytorch;

pub use he::he_normal;
pub use pytorch::pytorch_default;
