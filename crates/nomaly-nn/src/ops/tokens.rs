//! Layer norm and attention of tokens.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use nomaly_kernels::training::{
    Attention, AttentionShape, LayerNorm, Qkv, QkvGradient, Rotary, RotaryPairs, TrainingError,
};

use super::norm::normalize_rows;
use super::{is_served, isa, map2, slice, wrap};

/// Cosines and sines of the angles of rotary position embedding, `[tokens, head_dim / 2]` each: value i of a head is
/// rotated with value `i + head_dim / 2`.
pub type RotaryTables = [Vec<f32>; 2];

/// Layer norm of each row of `x` `[N, T, D]`, with factors and summands `[D]`.
///
/// # Errors
/// For shapes that do not fit, and errors of candle.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Result<Tensor> {
    if is_served(&[x, weight, bias]) {
        let plan = LayerNorm::new(isa()?, x.dim(D::Minus1)?, epsilon).map_err(wrap)?;
        return normalize_rows(x, weight, bias, plan);
    }
    let centered = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let deviation = (centered.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?;
    centered.broadcast_div(&deviation)?.broadcast_mul(weight)?.broadcast_add(bias)
}

struct Attend {
    plan: Attention,
    rotary: Option<RotaryTables>,
}

impl Attend {
    fn rotary(&self) -> Option<Rotary<'_>> {
        self.rotary.as_ref().map(|[cos, sin]| Rotary { cos, sin, pairs: RotaryPairs::Halves })
    }
}

impl CustomOp1 for Attend {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (images, tokens, width) = layout.shape().dims3()?;
        let mut output = vec![0.0; images * tokens * (width / 3)];
        self.plan.forward(Qkv::Packed(slice(storage, layout)?), self.rotary(), &mut output).map_err(wrap)?;
        Ok((CpuStorage::F32(output), Shape::from((images, tokens, width / 3))))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let backward = |x: &[f32], gradient: &[f32], to: &mut [f32]| -> std::result::Result<(), TrainingError> {
            self.plan.backward(Qkv::Packed(x), self.rotary(), gradient, QkvGradient::Packed(to))
        };
        map2("attention-gradient", [x, gradient], x.shape(), backward).map(Some)
    }
}

/// Multi-head attention `[N, T, D]` of packed queries, keys and values `[N, T, 3 D]`: of each token first the queries
/// of all heads, then the keys, then the values. The scale is the inverse root of the values of a head.
///
/// # Errors
/// For shapes that do not fit, and errors of candle.
pub fn attention(x: &Tensor, heads: usize, rotary: Option<RotaryTables>) -> Result<Tensor> {
    let (images, tokens, width) = x.dims3()?;
    if heads == 0 || !width.is_multiple_of(3 * heads) {
        candle_core::bail!("{width} values are not queries, keys and values of {heads} heads");
    }
    let head_dim = width / 3 / heads;
    if is_served(&[x]) {
        let plan = Attention::new(isa()?, AttentionShape { heads, tokens, head_dim }).map_err(wrap)?;
        return x.contiguous()?.apply_op1(Attend { plan, rotary });
    }
    let parts = x.reshape((images, tokens, 3, heads, head_dim))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
    let [queries, keys, values] = [0, 1, 2].map(|part| parts.get(part));
    let (queries, keys) = match &rotary {
        Some(tables) => (rotate(&queries?, tables)?, rotate(&keys?, tables)?),
        None => (queries?, keys?),
    };
    let scores = (queries.matmul(&keys.t()?)? * (head_dim as f64).powf(-0.5))?;
    let result = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&values?)?;
    result.transpose(1, 2)?.contiguous()?.reshape((images, tokens, heads * head_dim))
}

/// `(a, b)` becomes `(a cos - b sin, b cos + a sin)`, for `x` `[N, heads, T, head_dim]` with halves a and b.
fn rotate(x: &Tensor, tables: &RotaryTables) -> Result<Tensor> {
    let (_, _, tokens, head_dim) = x.dims4()?;
    let half = head_dim / 2;
    let [cos, sin] =
        [0, 1].map(|table: usize| Tensor::from_slice(&tables[table], (tokens, half), x.device())?.to_dtype(x.dtype()));
    let (cos, sin) = (cos?, sin?);
    let (a, b) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
    let first = a.broadcast_mul(&cos)?.sub(&b.broadcast_mul(&sin)?)?;
    let second = b.broadcast_mul(&cos)?.add(&a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], 3)
}
