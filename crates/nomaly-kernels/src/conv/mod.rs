//! Convolutions on blocked tensors.
//!
//! | kernel | eligible | how |
//! |---|---|---|
//! | [`dense`], planar | groups = 1, reads the network's input, at most four channels | broadcasts straight from `[C, H, W]` |
//! | [`dense`], flattened | groups = 1, 1x1, stride 1, input without halo | a matrix product over all positions |
//! | [`dense`], rows | every other groups = 1 | direct convolution, row by row |
//! | [`depthwise`] | groups = channels | one vector of channels a position |
//!
//! All dense forms share one register tile ([`tile`]); they differ only in strides and in how positions are cut.

mod dense;
mod depthwise;
pub(crate) mod tile;

pub(crate) use dense::{Dense, DenseWeights};
pub(crate) use depthwise::{Depthwise, DepthwiseWeights};

/// Whether a convolution of the network's input reads it in the caller's planar layout.
///
/// A block would hold mostly unused lanes: with AVX-512, three channels in blocks of 16 are five times the memory to
/// write and read. Above four channels the blocked form costs little and needs no instantiations of its own.
pub(crate) fn reads_planar(channels: usize) -> bool {
    channels <= 4
}
