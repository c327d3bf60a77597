//! Vision transformers of DINOv2.
//!
//! # What it computes
//! Patches of 14×14 pixels become tokens by a linear layer. A class token stands before them, a learned position
//! embedding is added (resized from its 37×37 positions), and four register tokens may follow the class token. Then
//! come blocks of attention and a perceptron, each behind layer norm and with LayerScale; the last result is
//! normalized. Names as in the published files (`blocks.0.attn.qkv`, `norm`).
//!
//! Taps: `block0` … `block11`, the patch tokens after each block as they are, counted from 0 as in the names of the
//! weights; `patches`, those of the last block after the final norm; stride 14. `class`: the class token after the
//! final norm, which describes the whole image. Register and class tokens are no part of the other taps.
//!
//! # When to use
//! Features without labels that need no training on the product: nearest neighbours of patches, subspaces, Gaussians.
//! `dinov2-small` costs 12 GFLOP for 224×224 pixels. Sides must be multiples of 14. Registers take up what the network
//! stores of the whole image, which otherwise shows as outliers among the patches.
//!
//! # Parameters
//! Width, heads, blocks and registers.
//!
//! # Reference
//! Oquab et al., *DINOv2: Learning Robust Visual Features without Supervision*, 2023; Darcet et al., *Vision
//! Transformers Need Registers*, 2024.

use nomaly_nn::graph::{BlockOptions, ConvOptions, Graph, GraphBuilder, LearnedGrid, PositionResize};

/// Side of a patch in pixels.
pub const PATCH: usize = 14;

/// Rows and columns of the position embedding, which was learned for images of 518×518 pixels.
const GRID: [usize; 2] = [37, 37];

/// One vision transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisionTransformer {
    /// Values of a token.
    pub width: usize,
    /// Heads of each attention.
    pub heads: usize,
    /// Blocks.
    pub depth: usize,
    /// Register tokens.
    pub registers: usize,
}

impl VisionTransformer {
    /// The graph, which has no classifier.
    pub fn graph(&self) -> Graph {
        let Self { width, heads, depth, registers } = *self;
        let mut g = GraphBuilder::new(3);
        let x = g.conv_with_bias(0, "patch_embed.proj", width, ConvOptions::padded(PATCH, PATCH, 0));
        let x = g.tokens(x);
        let x = g.insert_tokens(x, "cls_token", 0, 1);
        // Both kinds resize the embedding in their own way.
        let resize = match registers {
            0 => PositionResize::Scaled { offset: 0.1 },
            _ => PositionResize::Antialiased,
        };
        let mut x = g.position_embedding(x, "pos_embed", LearnedGrid { prefix: 1, size: GRID }, resize);
        if registers > 0 {
            x = g.insert_tokens(x, "register_tokens", 1, registers);
        }
        let options = BlockOptions::dinov2(heads);
        for block in 0..depth {
            x = g.transformer_block(x, &format!("blocks.{block}"), options);
            let grid = g.token_grid(x, 1 + registers);
            g.tap(format!("block{block}"), grid);
        }
        let x = g.layer_norm(x, "norm", options.epsilon);
        let grid = g.token_grid(x, 1 + registers);
        g.tap("patches", grid);
        let class = g.select_token(x, 0);
        g.tap("class", class);
        g.finish().expect("the architecture is consistent")
    }
}
