//! Steps on tokens: rows of features, `[T, D]` for each image.

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::Activation;
use nomaly_kernels::training::{
    Attention, AttentionShape, ChannelScale, LayerNorm, PackedLinear, Qkv, Rotary, RotaryPairs, ScalePer,
    TrainingError, add_assign,
};

use crate::error::CompileError;
use crate::graph::{Graph, LearnedGrid, Op, PaddingRule};
use crate::parameters::{Parameters, expect};
use crate::positions::{GridResize, rotary_tables};

/// Side of the squares in which tokens are transposed: two of them fit into the first-level cache.
const SQUARE: usize = 32;

/// The operation of a step.
#[derive(Debug)]
pub(super) enum TokenKind {
    /// The windows of a convolution that do not overlap, as rows of their values.
    Patches {
        channels: usize,
        input: [usize; 2],
        kernel: usize,
    },
    /// The positions behind the prefix as an image.
    Image {
        channels: usize,
        tokens: usize,
        prefix: usize,
    },
    /// The tokens behind the prefix.
    Rest {
        channels: usize,
        tokens: usize,
        prefix: usize,
    },
    /// The mean of the tokens behind the prefix.
    Mean {
        channels: usize,
        tokens: usize,
        prefix: usize,
    },
    Select {
        channels: usize,
        tokens: usize,
        token: usize,
    },
    /// Learned rows behind the first `before` values of each image of `each` values.
    Insert {
        values: Vec<f32>,
        each: usize,
        before: usize,
    },
    /// The sum with a row for each token.
    Position(Vec<f32>),
    Norm {
        plan: LayerNorm,
        weight: Vec<f32>,
        bias: Vec<f32>,
    },
    Linear(PackedLinear),
    /// A linear layer of the second input, added to the first.
    LinearOnto(PackedLinear),
    Attention {
        plan: Attention,
        tokens: usize,
        tables: Option<[Vec<f32>; 2]>,
    },
    Scale {
        plan: ChannelScale,
        factors: Vec<f32>,
    },
}

impl TokenKind {
    /// Whether the step can overwrite its first input.
    pub(super) fn is_in_place(&self) -> bool {
        matches!(self, Self::Position(_) | Self::LinearOnto(_))
    }

    /// How a step with this many values of a result computes them, and its floating-point operations.
    pub(super) fn work(&self, len: usize) -> (&'static str, u64) {
        match self {
            Self::Linear(plan) | Self::LinearOnto(plan) => ("packed rows", (2 * plan.sizes()[0] * len) as u64),
            Self::Attention { tokens, .. } => ("blocks of queries", (4 * tokens * len) as u64),
            _ => ("rows", 0),
        }
    }

    /// Computes `output`, which has the values of the first input if that is `None`.
    pub(super) fn run(&self, inputs: &[Option<&[f32]>], output: &mut [f32]) -> Result<(), TrainingError> {
        let x = inputs[0].unwrap_or(&[]);
        match self {
            Self::Patches { channels, input, kernel } => patches(*channels, *input, *kernel, x, output),
            Self::Image { channels, tokens, prefix } => {
                let plane = tokens - prefix;
                for (from, to) in x.chunks_exact(channels * tokens).zip(output.chunks_exact_mut(channels * plane)) {
                    transpose(&from[prefix * channels..], *channels, to);
                }
            }
            Self::Rest { channels, tokens, prefix } => {
                let each = channels * (tokens - prefix);
                for (from, to) in x.chunks_exact(channels * tokens).zip(output.chunks_exact_mut(each)) {
                    to.copy_from_slice(&from[prefix * channels..]);
                }
            }
            Self::Mean { channels, tokens, prefix } => {
                let mut sums = vec![0.0f64; *channels];
                for (from, to) in x.chunks_exact(channels * tokens).zip(output.chunks_exact_mut(*channels)) {
                    sums.fill(0.0);
                    for row in from[prefix * channels..].chunks_exact(*channels) {
                        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
                    }
                    let count = (tokens - prefix) as f64;
                    to.iter_mut().zip(&sums).for_each(|(to, sum)| *to = (sum / count) as f32);
                }
            }
            Self::Select { channels, tokens, token } => {
                for (from, to) in x.chunks_exact(channels * tokens).zip(output.chunks_exact_mut(*channels)) {
                    to.copy_from_slice(&from[token * channels..][..*channels]);
                }
            }
            Self::Insert { values, each, before } => {
                for (from, to) in x.chunks_exact(*each).zip(output.chunks_exact_mut(each + values.len())) {
                    let (head, rest) = to.split_at_mut(*before);
                    head.copy_from_slice(&from[..*before]);
                    rest[..values.len()].copy_from_slice(values);
                    rest[values.len()..].copy_from_slice(&from[*before..]);
                }
            }
            Self::Position(values) => {
                if let Some(x) = inputs[0] {
                    output.copy_from_slice(x);
                }
                for image in output.chunks_exact_mut(values.len()) {
                    add_assign(image, values)?;
                }
            }
            Self::Norm { plan, weight, bias } => plan.forward(x, Some(weight), Some(bias), output)?,
            Self::Linear(plan) => plan.forward(x, None, output)?,
            Self::LinearOnto(plan) => {
                let rows = inputs[1].unwrap_or(&[]);
                match inputs[0] {
                    Some(residual) => plan.forward(rows, Some(residual), output)?,
                    None => plan.forward_onto(rows, output)?,
                }
            }
            Self::Attention { plan, tables, .. } => {
                let rotary = tables.as_ref().map(|[cos, sin]| Rotary { cos, sin, pairs: RotaryPairs::Halves });
                plan.forward(Qkv::Packed(x), rotary, output)?;
            }
            Self::Scale { plan, factors } => plan.forward(x, factors, output)?,
        }
        Ok(())
    }
}

/// The windows of `images` as rows, each with the values of one channel after another.
fn patches(channels: usize, [height, width]: [usize; 2], kernel: usize, images: &[f32], output: &mut [f32]) {
    let (plane, [rows, columns]) = (height * width, [height / kernel, width / kernel]);
    let row = channels * kernel * kernel;
    for (image, output) in images.chunks_exact(channels * plane).zip(output.chunks_exact_mut(rows * columns * row)) {
        for (position, to) in output.chunks_exact_mut(row).enumerate() {
            let corner = position / columns * kernel * width + position % columns * kernel;
            for (line, to) in to.chunks_exact_mut(kernel).enumerate() {
                let from = line / kernel * plane + corner + line % kernel * width;
                to.copy_from_slice(&image[from..from + kernel]);
            }
        }
    }
}

/// Writes the columns of `rows` one after another.
fn transpose(rows: &[f32], width: usize, to: &mut [f32]) {
    let count = rows.len() / width;
    for first in (0..count).step_by(SQUARE) {
        for left in (0..width).step_by(SQUARE) {
            for column in left..width.min(left + SQUARE) {
                for row in first..count.min(first + SQUARE) {
                    to[column * count + row] = rows[row * width + column];
                }
            }
        }
    }
}

/// Whether node `index` is a convolution whose windows become the tokens of node `reader`: they do not overlap, so each
/// is a row of a linear layer.
pub(super) fn is_patch_embedding(graph: &Graph, index: usize, reader: usize) -> bool {
    let no_overlap = matches!(
        graph.nodes()[index].op,
        Op::Conv { kernel, stride, padding: PaddingRule::Symmetric(0), groups: 1, .. } if kernel == stride
    );
    no_overlap && graph.nodes()[reader].op == Op::Tokens
}

/// What a linear layer does beside its product.
pub(super) struct Epilogue {
    /// Factors of a LayerScale behind it.
    pub(super) scale: Option<Vec<f32>>,
    pub(super) activation: Activation,
}

/// Whether a layer has a bias.
pub(super) enum Bias {
    Required,
    /// A convolution gets one by folding.
    IfPresent,
    None,
}

/// The linear layer or patch embedding `name` of these `[inputs, outputs]`, with factors folded into its weights.
pub(super) fn packed(
    parameters: &Parameters<'_>,
    name: &str,
    sizes: [usize; 2],
    bias: Bias,
    epilogue: &Epilogue,
    isa: Isa,
) -> Result<PackedLinear, CompileError> {
    let [inputs, outputs] = sizes;
    let mut weight = parameters.values(name, "weight")?;
    expect("the weight of a linear layer", weight.len(), inputs * outputs)?;
    let mut bias = match bias {
        Bias::Required => Some(parameters.values(name, "bias")?),
        Bias::IfPresent => parameters.optional(name, "bias")?,
        Bias::None => None,
    };
    if let Some(bias) = &bias {
        expect("the bias of a linear layer", bias.len(), outputs)?;
    }
    if let Some(factors) = &epilogue.scale {
        expect("the factors of a LayerScale", factors.len(), outputs)?;
        for (row, factor) in weight.chunks_exact_mut(inputs).zip(factors) {
            row.iter_mut().for_each(|value| *value *= factor);
        }
        bias.iter_mut().flatten().zip(factors).for_each(|(value, factor)| *value *= factor);
    }
    PackedLinear::new(isa, sizes, &weight, bias.as_deref(), epilogue.activation)
        .map_err(|source| CompileError::Layer { layer: format!("`{name}`"), source })
}

/// The step of the node `index`, which takes or gives tokens, where the nodes' results have `shapes`.
pub(super) fn kind(
    graph: &Graph,
    index: usize,
    shapes: &[[usize; 3]],
    parameters: &Parameters<'_>,
    isa: Isa,
) -> Result<TokenKind, CompileError> {
    let node = &graph.nodes()[index];
    let [channels, tokens, _] = shapes[node.inputs[0]];
    let label = format!("`{}`", node.op.label());
    let fail = |source| CompileError::Layer { layer: label.clone(), source };
    let grid = || graph.token_grid(index, shapes).unwrap_or([tokens, 1]);
    Ok(match &node.op {
        Op::TokenGrid { prefix } => TokenKind::Image { channels, tokens, prefix: *prefix },
        Op::SelectToken { token } => TokenKind::Select { channels, tokens, token: *token },
        Op::InsertTokens { name, place, count } => {
            let values = parameters.whole(name)?;
            expect("learned tokens", values.len(), count * channels)?;
            TokenKind::Insert { values, each: channels * tokens, before: place * channels }
        }
        Op::PositionEmbedding { name, grid: LearnedGrid { prefix, size }, resize } => {
            let learned = parameters.whole(name)?;
            let resize = GridResize::new(*size, grid(), *resize);
            expect("a position embedding", learned.len(), (prefix + resize.learned()) * channels)?;
            let mut values = vec![0.0; tokens * channels];
            let (own, rest) = values.split_at_mut(prefix * channels);
            own.copy_from_slice(&learned[..prefix * channels]);
            resize.apply(&learned[prefix * channels..], channels, rest);
            TokenKind::Position(values)
        }
        Op::LayerNorm { name, epsilon } => {
            let [weight, bias] = ["weight", "bias"].map(|leaf| parameters.values(name, leaf));
            let (weight, bias) = (weight?, bias?);
            expect("the weight of a layer norm", weight.len(), channels)?;
            expect("the bias of a layer norm", bias.len(), channels)?;
            TokenKind::Norm { plan: LayerNorm::new(isa, channels, *epsilon).map_err(fail)?, weight, bias }
        }
        Op::Attention { heads, rotary } => {
            let head_dim = channels / 3 / heads;
            let shape = AttentionShape { heads: *heads, tokens, head_dim };
            let tables = rotary.map(|rotary| rotary_tables(&rotary, grid(), head_dim));
            TokenKind::Attention { plan: Attention::new(isa, shape).map_err(fail)?, tokens, tables }
        }
        Op::LayerScale { name } => {
            let factors = parameters.values(name, "gamma")?;
            expect("the factors of a LayerScale", factors.len(), channels)?;
            TokenKind::Scale { plan: ChannelScale::new(isa, ScalePer::Channel, channels, 1).map_err(fail)?, factors }
        }
        _ => unreachable!("called for operations on tokens only"),
    })
}
