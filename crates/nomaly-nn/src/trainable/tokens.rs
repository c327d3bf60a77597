//! Steps on tokens, forward and backward.

use nomaly_kernels::Isa;
use nomaly_kernels::training::{
    Attention, AttentionShape, ChannelScale, LayerNorm, Qkv, QkvGradient, Rotary, RotaryPairs, RowNormBackward,
    ScalePer, TrainingError, add_assign,
};

use crate::graph::{Graph, LearnedGrid, Op};
use crate::positions::{GridResize, rotary_tables};

/// The operation of a step. Images have `channels * tokens` values before it, unless it says otherwise.
#[derive(Debug)]
pub(super) enum TokenKind {
    /// Planes to rows.
    Rows {
        channels: usize,
        plane: usize,
    },
    /// Rows behind the prefix to planes.
    Image {
        channels: usize,
        tokens: usize,
        prefix: usize,
    },
    Select {
        channels: usize,
        tokens: usize,
        token: usize,
    },
    /// `len` learned values behind the first `before` of each image of `each` values.
    Insert {
        each: usize,
        before: usize,
        len: usize,
    },
    Position {
        resize: GridResize,
        channels: usize,
        tokens: usize,
        prefix: usize,
    },
    Norm(LayerNorm),
    Attention {
        plan: Attention,
        tables: Option<[Vec<f32>; 2]>,
    },
    Scale(ChannelScale),
}

/// The values of a parameter and the destination of its gradient, if that is wanted.
pub(super) type Trained<'a> = (&'a [f32], Option<&'a mut [f32]>);

/// The step of node `index`, if it is one of these, where the nodes' results have `shapes`.
pub(super) fn kind(
    graph: &Graph,
    index: usize,
    shapes: &[[usize; 3]],
    isa: Isa,
) -> Result<Option<TokenKind>, TrainingError> {
    let node = &graph.nodes()[index];
    let Some(&input) = node.inputs.first() else { return Ok(None) };
    let [channels, tokens, width] = shapes[input];
    let grid = || graph.token_grid(index, shapes).unwrap_or([tokens, 1]);
    Ok(Some(match &node.op {
        Op::Tokens => TokenKind::Rows { channels, plane: tokens * width },
        Op::TokenGrid { prefix } => TokenKind::Image { channels, tokens, prefix: *prefix },
        Op::SelectToken { token } => TokenKind::Select { channels, tokens, token: *token },
        Op::InsertTokens { place, count, .. } => {
            TokenKind::Insert { each: channels * tokens, before: place * channels, len: count * channels }
        }
        Op::PositionEmbedding { grid: LearnedGrid { prefix, size }, resize, .. } => {
            let resize = GridResize::new(*size, grid(), *resize);
            TokenKind::Position { resize, channels, tokens, prefix: *prefix }
        }
        Op::LayerNorm { epsilon, .. } => TokenKind::Norm(LayerNorm::new(isa, channels, *epsilon)?),
        Op::Attention { heads, rotary } => {
            let head_dim = channels / 3 / heads;
            let plan = Attention::new(isa, AttentionShape { heads: *heads, tokens, head_dim })?;
            TokenKind::Attention { plan, tables: rotary.map(|rotary| rotary_tables(&rotary, grid(), head_dim)) }
        }
        Op::LayerScale { .. } => TokenKind::Scale(ChannelScale::new(isa, ScalePer::Channel, channels, 1)?),
        _ => return Ok(None),
    }))
}

impl TokenKind {
    /// Whether the gradient is computed from the input.
    pub(super) fn keeps_inputs(&self) -> bool {
        matches!(self, Self::Norm(_) | Self::Attention { .. } | Self::Scale(_))
    }

    /// The position embedding as it is added.
    fn resized(resize: &GridResize, channels: usize, tokens: usize, prefix: usize, learned: &[f32]) -> Vec<f32> {
        let mut rows = vec![0.0; tokens * channels];
        let (own, rest) = rows.split_at_mut(prefix * channels);
        own.copy_from_slice(&learned[..prefix * channels]);
        resize.apply(&learned[prefix * channels..], channels, rest);
        rows
    }

    /// Computes the result from the input and the parameters of the step.
    pub(super) fn forward(&self, x: &[f32], parameters: &[&[f32]], to: &mut [f32]) -> Result<(), TrainingError> {
        match self {
            Self::Rows { channels, plane } => each_image(x, to, channels * plane, |from, to| {
                transpose(from, *plane, to);
            }),
            Self::Image { channels, tokens, prefix } => {
                let images = x.chunks_exact(channels * tokens).zip(to.chunks_exact_mut(channels * (tokens - prefix)));
                images.for_each(|(from, to)| transpose(&from[prefix * channels..], *channels, to));
            }
            Self::Select { channels, tokens, token } => {
                let images = x.chunks_exact(channels * tokens).zip(to.chunks_exact_mut(*channels));
                images.for_each(|(from, to)| to.copy_from_slice(&from[token * channels..][..*channels]));
            }
            Self::Insert { each, before, len } => {
                for (from, to) in x.chunks_exact(*each).zip(to.chunks_exact_mut(each + len)) {
                    to[..*before].copy_from_slice(&from[..*before]);
                    to[*before..before + len].copy_from_slice(parameters[0]);
                    to[before + len..].copy_from_slice(&from[*before..]);
                }
            }
            Self::Position { resize, channels, tokens, prefix } => {
                let rows = Self::resized(resize, *channels, *tokens, *prefix, parameters[0]);
                to.copy_from_slice(x);
                for image in to.chunks_exact_mut(rows.len()) {
                    add_assign(image, &rows)?;
                }
            }
            Self::Norm(plan) => plan.forward(x, Some(parameters[0]), Some(parameters[1]), to)?,
            Self::Attention { plan, tables } => plan.forward(Qkv::Packed(x), rotary(tables), to)?,
            Self::Scale(plan) => plan.forward(x, parameters[0], to)?,
        }
        Ok(())
    }

    /// Computes the gradient of the input, `below`, and those of the parameters, from that of the result.
    pub(super) fn backward(
        &self,
        x: &[f32],
        mut parameters: Vec<Trained<'_>>,
        gradient: &[f32],
        below: &mut [f32],
    ) -> Result<(), TrainingError> {
        match self {
            Self::Rows { channels, plane } => each_image(gradient, below, channels * plane, |from, to| {
                transpose(from, *channels, to);
            }),
            Self::Image { channels, tokens, prefix } => {
                let plane = tokens - prefix;
                let images = gradient.chunks_exact(channels * plane).zip(below.chunks_exact_mut(channels * tokens));
                for (from, to) in images {
                    to[..prefix * channels].fill(0.0);
                    transpose(from, plane, &mut to[prefix * channels..]);
                }
            }
            Self::Select { channels, tokens, token } => {
                below.fill(0.0);
                let images = gradient.chunks_exact(*channels).zip(below.chunks_exact_mut(channels * tokens));
                images.for_each(|(from, to)| to[token * channels..][..*channels].copy_from_slice(from));
            }
            Self::Insert { each, before, len } => {
                let images = gradient.chunks_exact(each + len);
                for (from, to) in images.clone().zip(below.chunks_exact_mut(*each)) {
                    to[..*before].copy_from_slice(&from[..*before]);
                    to[*before..].copy_from_slice(&from[before + len..]);
                }
                if let (_, Some(to)) = &mut parameters[0] {
                    to.fill(0.0);
                    for from in images {
                        add_assign(to, &from[*before..before + len])?;
                    }
                }
            }
            Self::Position { resize, channels, tokens, prefix } => {
                below.copy_from_slice(gradient);
                if let (_, Some(to)) = &mut parameters[0] {
                    let mut sum = vec![0.0; channels * tokens];
                    for image in gradient.chunks_exact(channels * tokens) {
                        add_assign(&mut sum, image)?;
                    }
                    to.fill(0.0);
                    let (own, rest) = sum.split_at(prefix * channels);
                    to[..own.len()].copy_from_slice(own);
                    resize.add_gradient(rest, *channels, &mut to[own.len()..]);
                }
            }
            Self::Norm(plan) => {
                let (_, bias_gradient) = parameters.remove(1);
                let (weight, weight_gradient) = parameters.remove(0);
                plan.backward(RowNormBackward {
                    input: x,
                    weight: Some(weight),
                    output_gradient: gradient,
                    input_gradient: below,
                    weight_gradient,
                    bias_gradient,
                })?;
            }
            Self::Attention { plan, tables } => {
                plan.backward(Qkv::Packed(x), rotary(tables), gradient, QkvGradient::Packed(below))?;
            }
            Self::Scale(plan) => {
                let (factors, by_factor) = parameters.remove(0);
                let mut unused = Vec::new();
                let by_factor = by_factor.unwrap_or_else(|| {
                    unused.resize(factors.len(), 0.0);
                    &mut unused
                });
                plan.backward(x, factors, gradient, below, by_factor)?;
            }
        }
        Ok(())
    }
}

fn rotary(tables: &Option<[Vec<f32>; 2]>) -> Option<Rotary<'_>> {
    tables.as_ref().map(|[cos, sin]| Rotary { cos, sin, pairs: RotaryPairs::Halves })
}

fn each_image(from: &[f32], to: &mut [f32], each: usize, work: impl Fn(&[f32], &mut [f32])) {
    from.chunks_exact(each).zip(to.chunks_exact_mut(each)).for_each(|(from, to)| work(from, to));
}

/// Writes the columns of `rows` of `width` values one after another.
fn transpose(rows: &[f32], width: usize, to: &mut [f32]) {
    let count = rows.len() / width;
    for (row, values) in rows.chunks_exact(width).enumerate() {
        to.iter_mut().skip(row).step_by(count).zip(values).for_each(|(to, value)| *to = *value);
    }
}
