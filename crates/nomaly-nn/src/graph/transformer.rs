//! The nodes of vision transformers (Dosovitskiy et al., *An Image is Worth 16x16 Words*, 2021).

use nomaly_kernels::geometry::Activation;

use super::builder::GraphBuilder;
use super::error::GraphError;
use super::tokens::{AxialRotary, BlockOptions, LearnedGrid, NodeLayout, PositionResize};
use super::{Graph, Op};

impl Graph {
    /// Rows and columns of the image whose positions became the tokens of node `index`, where the nodes' results have
    /// `shapes`; `None` if they come from no image.
    pub fn token_grid(&self, index: usize, shapes: &[[usize; 3]]) -> Option<[usize; 2]> {
        let mut at = index;
        loop {
            let &input = self.nodes[at].inputs.first()?;
            if self.nodes[at].op == Op::Tokens {
                return Some([shapes[input][1], shapes[input][2]]);
            }
            at = input;
        }
    }

    /// As [`token_grid`](Self::token_grid), for `tokens` of which `prefix` stand before those of the grid.
    pub(super) fn grid_behind(
        &self,
        layer: &str,
        index: usize,
        prefix: usize,
        shapes: &[[usize; 3]],
    ) -> Result<[usize; 2], GraphError> {
        let found = shapes[index];
        let fail = |reason: String| GraphError::Size { layer: layer.to_owned(), found, reason };
        let Some(grid) = self.token_grid(index, shapes) else {
            return Err(fail("its tokens come from no image".to_owned()));
        };
        let expected = prefix + grid[0] * grid[1];
        if found[1] != expected {
            return Err(fail(format!(
                "{} x {} positions behind {prefix} others are {expected} tokens",
                grid[0], grid[1]
            )));
        }
        Ok(grid)
    }
}

impl GraphBuilder {
    /// The layout of a node's result; reports inputs of the wrong one.
    pub(super) fn layout_of(&mut self, op: &Op, inputs: &[usize]) -> NodeLayout {
        use NodeLayout::{Image, Tokens};
        let (expected, result) = match op {
            Op::Input => return Image,
            Op::Activation(_) | Op::Add | Op::Dropout { .. } | Op::Linear { .. } => {
                let first = inputs.first().map_or(Image, |&input| self.layout(input));
                (first, first)
            }
            Op::Tokens => (Image, Tokens),
            Op::TokenGrid { .. } | Op::SelectToken { .. } => (Tokens, Image),
            Op::InsertTokens { .. }
            | Op::PositionEmbedding { .. }
            | Op::LayerNorm { .. }
            | Op::Attention { .. }
            | Op::LayerScale { .. } => (Tokens, Tokens),
            Op::Conv { .. }
            | Op::ConvTranspose { .. }
            | Op::BatchNorm { .. }
            | Op::InstanceNorm { .. }
            | Op::Concat
            | Op::Reshape { .. }
            | Op::Pad { .. }
            | Op::Upsample { .. }
            | Op::Softmax
            | Op::Gate
            | Op::MaxPool { .. }
            | Op::AvgPool { .. }
            | Op::GlobalAvgPool
            | Op::GlobalMaxPool
            | Op::SqueezeExcite { .. } => (Image, Image),
        };
        if let Some(&input) = inputs.iter().find(|&&input| self.layout(input) != expected) {
            let (layer, found) = (format!("`{}`", op.label()), self.layout(input));
            self.fail(GraphError::Layout { layer, input, expected, found });
        }
        result
    }

    /// The positions of the image `x` as tokens, row by row.
    pub fn tokens(&mut self, x: usize) -> usize {
        self.push(Op::Tokens, &[x], self.channels(x), self.strided(x, 1))
    }

    /// Tokens as the image that they were taken from, without the `prefix` before them.
    pub fn token_grid(&mut self, x: usize, prefix: usize) -> usize {
        self.push(Op::TokenGrid { prefix }, &[x], self.channels(x), self.strided(x, 1))
    }

    /// Token number `token`, `[C, 1, 1]`.
    pub fn select_token(&mut self, x: usize, token: usize) -> usize {
        self.push(Op::SelectToken { token }, &[x], self.channels(x), None)
    }

    /// `x` with `count` learned tokens behind its first `place`.
    pub fn insert_tokens(&mut self, x: usize, name: impl Into<String>, place: usize, count: usize) -> usize {
        let op = Op::InsertTokens { name: name.into(), place, count };
        self.push(op, &[x], self.channels(x), self.strided(x, 1))
    }

    /// The sum of `x` and a learned position embedding.
    pub fn position_embedding(
        &mut self,
        x: usize,
        name: impl Into<String>,
        grid: LearnedGrid,
        resize: PositionResize,
    ) -> usize {
        let name = name.into();
        if grid.size.contains(&0) {
            self.fail(GraphError::Window { layer: name.clone() });
        }
        let op = Op::PositionEmbedding { name, grid, resize };
        self.push(op, &[x], self.channels(x), self.strided(x, 1))
    }

    /// Layer norm of each token, with weight and bias.
    pub fn layer_norm(&mut self, x: usize, name: impl Into<String>, epsilon: f64) -> usize {
        self.push(Op::LayerNorm { name: name.into(), epsilon }, &[x], self.channels(x), self.strided(x, 1))
    }

    /// Attention of `heads` heads, whose queries, keys and values `x` has in this order.
    pub fn attention(&mut self, x: usize, heads: usize, rotary: Option<AxialRotary>) -> usize {
        let channels = self.channels(x);
        // A rotation takes pairs of values for the row and as many for the column.
        let parts = 3 * heads * if rotary.is_some() { 4 } else { 1 };
        if parts == 0 || !channels.is_multiple_of(parts) {
            let node = self.count();
            self.fail(GraphError::Heads { node, heads, channels });
        }
        self.push(Op::Attention { heads, rotary }, &[x], channels / 3, self.strided(x, 1))
    }

    /// `x` times a learned factor for each channel.
    pub fn layer_scale(&mut self, x: usize, name: impl Into<String>) -> usize {
        self.push(Op::LayerScale { name: name.into() }, &[x], self.channels(x), self.strided(x, 1))
    }

    /// A pre-norm transformer block: `y = x + ls1(attn(norm1(x)))`, and `y + ls2(mlp(norm2(y)))` with exact GELU.
    /// Parameters are named as in DINOv2: `norm1`, `attn.qkv`, `attn.proj`, `ls1`, `norm2`, `mlp.fc1`, `mlp.fc2`, `ls2`
    /// behind `name`.
    pub fn transformer_block(&mut self, x: usize, name: &str, options: BlockOptions) -> usize {
        let BlockOptions { heads, mlp_ratio, epsilon, layer_scale, rotary } = options;
        let width = self.channels(x);
        let y = self.layer_norm(x, format!("{name}.norm1"), epsilon);
        let y = self.linear(y, format!("{name}.attn.qkv"), 3 * width);
        let y = self.attention(y, heads, rotary);
        let mut y = self.linear(y, format!("{name}.attn.proj"), width);
        if layer_scale {
            y = self.layer_scale(y, format!("{name}.ls1"));
        }
        let x = self.add(x, y);
        let y = self.layer_norm(x, format!("{name}.norm2"), epsilon);
        let y = self.linear(y, format!("{name}.mlp.fc1"), mlp_ratio * width);
        let y = self.activation(y, Activation::Gelu);
        let mut y = self.linear(y, format!("{name}.mlp.fc2"), width);
        if layer_scale {
            y = self.layer_scale(y, format!("{name}.ls2"));
        }
        self.add(x, y)
    }
}
