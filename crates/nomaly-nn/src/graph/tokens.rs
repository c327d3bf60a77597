//! Tokens, and the options of nodes on them.
//!
//! A value of the layout [`NodeLayout::Tokens`] has a row of features for each token, `[T, D]` per image; its shape is
//! given as `[D, T, 1]`. Tokens of an image's positions stand row by row behind a *prefix* of learned tokens.

use std::fmt;

/// The order of the values of a node's result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NodeLayout {
    /// `[C, H, W]`: a plane for each channel.
    #[default]
    Image,
    /// `[T, D]`: a row for each token, of shape `[D, T, 1]`.
    Tokens,
}

impl fmt::Display for NodeLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Image => "an image",
            Self::Tokens => "tokens",
        })
    }
}

/// The grid for which a position embedding was learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedGrid {
    /// Rows of the embedding before those of the grid; they belong to as many tokens and are not resized.
    pub prefix: usize,
    /// Rows and columns.
    pub size: [usize; 2],
}

/// How a position embedding is resized to another grid, by cubic interpolation of each value. A grid of its own size is
/// left as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PositionResize {
    /// Keys's kernel with a = −0.75 at positions that are scaled by `(new + offset) / old`, no wider when the grid
    /// shrinks: DINOv2 without registers, whose offset is 0.1.
    Scaled {
        /// Added to the new size in the scale.
        offset: f64,
    },
    /// By the sizes of the grids, with a kernel (a = −0.5) that widens as the grid shrinks: DINOv2 with registers.
    Antialiased,
}

/// Rotary position embedding of the rows and columns of a grid (Siméoni et al., *DINOv3*, 2025): the first quarter of
/// a head's values is rotated by the row and the second by the column, each with the value half a head further on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxialRotary {
    /// Tokens before those of the grid, which are not rotated.
    pub prefix: usize,
    /// The ratio of the longest to the shortest period, but for one step; 100 in DINOv3.
    pub base: f64,
}

/// A pre-norm transformer block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockOptions {
    /// Heads.
    pub heads: usize,
    /// Width of the hidden layer, as a multiple of the tokens' width.
    pub mlp_ratio: usize,
    /// Added to the variances of the norms.
    pub epsilon: f64,
    /// Whether each branch ends with a LayerScale, `ls1` and `ls2`.
    pub layer_scale: bool,
    /// Rotation of queries and keys.
    pub rotary: Option<AxialRotary>,
}

impl BlockOptions {
    /// A block of DINOv2: a hidden layer four times as wide, epsilon 1e-6, LayerScale.
    pub const fn dinov2(heads: usize) -> Self {
        Self { heads, mlp_ratio: 4, epsilon: 1e-6, layer_scale: true, rotary: None }
    }
}
