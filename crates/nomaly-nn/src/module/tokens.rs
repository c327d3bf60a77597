//! The nodes of transformers as candle operations, on tokens `[N, T, D]`.

use candle_core::{Result, Tensor};

use crate::graph::{LearnedGrid, Op};
use crate::ops;
use crate::positions::{GridResize, rotary_tables};

use super::nodes::Context;

impl Context<'_> {
    /// The result of an operation that takes or gives tokens on its input, whose tokens come from an image of `grid`
    /// positions.
    pub(super) fn on_tokens(&self, op: &Op, x: &Tensor, grid: Option<[usize; 2]>) -> Result<Tensor> {
        let missing = || candle_core::Error::Msg("the tokens come from no image".to_owned()).bt();
        match op {
            Op::Tokens => x.flatten_from(2)?.transpose(1, 2)?.contiguous(),
            Op::TokenGrid { prefix } => {
                let [rows, columns] = grid.ok_or_else(missing)?;
                let (images, tokens, width) = x.dims3()?;
                let positions = x.narrow(1, *prefix, tokens.saturating_sub(*prefix))?.transpose(1, 2)?;
                positions.contiguous()?.reshape((images, width, rows, columns))
            }
            Op::SelectToken { token } => x.narrow(1, *token, 1)?.transpose(1, 2)?.contiguous()?.unsqueeze(3),
            Op::InsertTokens { name, place, .. } => {
                let (images, tokens, width) = x.dims3()?;
                let own = self.named(name)?;
                let own = own.broadcast_as((images, own.dim(1)?, width))?;
                let mut parts = Vec::with_capacity(3);
                if *place > 0 {
                    parts.push(x.narrow(1, 0, *place)?);
                }
                parts.push(own);
                if *place < tokens {
                    parts.push(x.narrow(1, *place, tokens - place)?);
                }
                Tensor::cat(&parts, 1)
            }
            Op::PositionEmbedding { name, grid: LearnedGrid { prefix, size }, resize } => {
                let resize = GridResize::new(*size, grid.ok_or_else(missing)?, *resize);
                let learned = self.named(name)?;
                let grid = learned.narrow(1, *prefix, resize.learned())?;
                let grid = resized(&grid, *size, &resize)?;
                let rows = match prefix {
                    0 => grid,
                    _ => Tensor::cat(&[&learned.narrow(1, 0, *prefix)?, &grid], 1)?,
                };
                x.broadcast_add(&rows)
            }
            Op::LayerNorm { name, epsilon } => {
                ops::layer_norm(x, self.tensor(name, "weight")?, self.tensor(name, "bias")?, *epsilon)
            }
            Op::Attention { heads, rotary } => {
                let tables = match rotary {
                    Some(rotary) => {
                        let head_dim = x.dim(2)? / 3 / heads;
                        Some(rotary_tables(rotary, grid.ok_or_else(missing)?, head_dim))
                    }
                    None => None,
                };
                ops::attention(x, *heads, tables)
            }
            Op::LayerScale { name } => x.broadcast_mul(self.tensor(name, "gamma")?),
            other => candle_core::bail!("`{}` is no operation on tokens", other.label()),
        }
    }

    /// A linear layer on each token.
    pub(super) fn token_linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (images, tokens, width) = x.dims3()?;
        ops::linear(&x.reshape((images * tokens, width))?, weight, bias)?.reshape((images, tokens, ()))
    }
}

/// A learned grid `[1, rows * columns, D]` in another size: a product with a matrix for each axis.
fn resized(grid: &Tensor, [rows, columns]: [usize; 2], resize: &GridResize) -> Result<Tensor> {
    let Some([down, across]) = resize.matrices() else { return Ok(grid.clone()) };
    let width = grid.dim(2)?;
    let matrix = |values: Vec<f32>, old: usize| {
        Tensor::from_vec(values.clone(), (values.len() / old, old), grid.device())?.to_dtype(grid.dtype())
    };
    let (down, across) = (matrix(down, rows)?, matrix(across, columns)?);
    let (height, wide) = (down.dim(0)?, across.dim(0)?);
    let grid = down.matmul(&grid.contiguous()?.reshape((rows, columns * width))?)?;
    let across = across.broadcast_as((height, wide, columns))?.contiguous()?;
    across.matmul(&grid.reshape((height, columns, width))?)?.reshape((1, height * wide, width))
}
