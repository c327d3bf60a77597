//! Convolutions on blocked tensors.
//!
//! | kernel | eligible | how |
//! |---|---|---|
//! | [`dense`], planar | groups = 1, reads the network's input, at most four channels | broadcasts straight from `[C, H, W]` |
//! | [`dense`], flattened | groups = 1, 1x1, stride 1, input without halo | a matrix product over all positions |
//! | [`dense`], rows | every other groups = 1 | direct convolution, row by row |
//! | [`winograd`] | groups = 1, 3x3, stride 1, enough channels and positions | fewer multiplications, by transformed tiles |
//! | [`depthwise`] | groups = channels | one vector of channels per position |
//! | [`bottleneck`] | 1x1, then depthwise, the only reader of the tensor between | both by bands, without the tensor between |
//! | [`inverted`] | depthwise, then 1x1, the only reader of the tensor between | bands of rows through all layers |
//!
//! All but the depthwise one share one register tile ([`tile`]); they differ only in strides and in how positions are
//! cut.

mod bottleneck;
mod dense;
mod depthwise;
mod inverted;
pub(crate) mod tile;
pub(crate) mod winograd;

pub(crate) use bottleneck::Bottleneck;
pub(crate) use dense::{Dense, DenseWeights};
pub(crate) use depthwise::{Depthwise, DepthwiseWeights};
pub(crate) use inverted::{Inverted, WideLayer};
pub(crate) use winograd::{Winograd, WinogradWeights};

/// Whether a convolution of the network's input reads it in the caller's planar layout.
///
/// Blocks would consist mostly of unused lanes: with AVX-512, three channels in blocks of 16 are five times the memory
/// to write and read. Above four channels the blocked form costs little and needs no instantiations of its own.
pub(crate) fn reads_planar(channels: usize) -> bool {
    channels <= 4
}

/// Part `index` of `0..total` cut into `parts`.
fn part(total: usize, parts: usize, index: usize) -> std::ops::Range<usize> {
    index * total / parts..(index + 1) * total / parts
}
