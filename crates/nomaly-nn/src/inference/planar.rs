//! Steps on planar tensors `[N, C, H, W]`.

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Activation, Padding, Pool2d};
use nomaly_kernels::training::{
    AfterNorm, AverageOver, BatchNorm, ChannelScale, Concat, Conv2d, ConvShape, ConvTranspose2d, ConvTransposeShape,
    GroupNorm, Pad, Pool, ScalePer, TrainingError, Upsample, add_assign, global_average, softmax,
};

use crate::error::CompileError;
use crate::graph::{Node, Op};
use crate::parameters::{Norm, Parameters, expect};

use super::tokens::TokenKind;
use super::transposed::interleave;

/// The operation of a step.
#[derive(Debug)]
pub(super) enum Kind {
    Conv {
        plan: Conv2d,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
    },
    ConvTranspose {
        plan: ConvTranspose2d,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
    },
    BatchNorm {
        plan: BatchNorm,
        affine: Option<[Vec<f32>; 2]>,
        mean: Vec<f32>,
        variance: Vec<f32>,
    },
    InstanceNorm {
        plan: GroupNorm,
        affine: Option<[Vec<f32>; 2]>,
    },
    /// The phases of a transposed convolution.
    Interleave {
        stride: usize,
        width: usize,
    },
    Copy,
    Add,
    Concat(Concat),
    Pad(Pad),
    Upsample(Upsample),
    MaxPool(Pool),
    AvgPool(Pool, AverageOver),
    GlobalAverage {
        plane: usize,
    },
    Gate(ChannelScale),
    Softmax {
        channels: usize,
    },
    Rows {
        channels: usize,
        plane: usize,
    },
    Tokens(TokenKind),
}

impl Kind {
    /// Whether the step can overwrite its first input.
    pub(super) fn is_in_place(&self) -> bool {
        match self {
            Self::Copy | Self::Add => true,
            Self::Tokens(kind) => kind.is_in_place(),
            _ => false,
        }
    }

    /// How a step with this many values of a result computes them, and its floating-point operations.
    pub(super) fn work(&self, len: usize) -> (&'static str, u64) {
        let (algorithm, each) = match self {
            Self::Conv { plan, .. } => ("planar", 2 * plan.weight_len() / plan.shape().out_channels),
            Self::ConvTranspose { plan, .. } => {
                let products = 2 * plan.weight_len() * plan.shape().input[0] * plan.shape().input[1];
                return ("planar", products as u64);
            }
            Self::Tokens(kind) => return kind.work(len),
            _ => ("planar", 0),
        };
        (algorithm, (each * len) as u64)
    }

    /// Computes `output`, which has the values of the first input if that is `None`; `places` is working memory.
    pub(super) fn run(
        &self,
        isa: Isa,
        inputs: &[Option<&[f32]>],
        output: &mut [f32],
        places: &mut Vec<u32>,
    ) -> Result<(), TrainingError> {
        let x = inputs[0].unwrap_or(&[]);
        match self {
            Self::Conv { plan, weight, bias } => plan.forward(x, weight, bias.as_deref(), output),
            Self::ConvTranspose { plan, weight, bias } => plan.forward(x, weight, bias.as_deref(), output),
            Self::BatchNorm { plan, affine, mean, variance } => {
                let [weight, bias] = parts(affine);
                plan.evaluate(x, weight, bias, mean, variance, output)
            }
            Self::InstanceNorm { plan, affine } => {
                let [weight, bias] = parts(affine);
                plan.forward(x, weight, bias, output)
            }
            Self::Interleave { stride, width } => {
                interleave(*stride, *width, inputs, output);
                Ok(())
            }
            Self::Copy => {
                if let Some(x) = inputs[0] {
                    output.copy_from_slice(x);
                }
                Ok(())
            }
            Self::Add => {
                if let Some(x) = inputs[0] {
                    output.copy_from_slice(x);
                }
                add_assign(output, inputs[1].unwrap_or(&[]))
            }
            Self::Concat(plan) => plan.forward(&inputs.iter().map(|x| x.unwrap_or(&[])).collect::<Vec<_>>(), output),
            Self::Pad(plan) => plan.forward(x, output),
            Self::Upsample(plan) => plan.forward(x, output),
            Self::MaxPool(plan) => {
                places.resize(output.len(), 0);
                plan.max(x, output, places)
            }
            Self::AvgPool(plan, over) => plan.average(*over, x, output),
            Self::GlobalAverage { plane } => global_average(isa, *plane, x, output),
            Self::Gate(plan) => plan.forward(x, inputs[1].unwrap_or(&[]), output),
            Self::Softmax { channels } => softmax(isa, *channels, x, output),
            Self::Tokens(kind) => kind.run(inputs, output),
            Self::Rows { channels, plane } => {
                let images = x.chunks_exact(channels * plane).zip(output.chunks_exact_mut(channels * plane));
                for (from, to) in images {
                    for (position, row) in to.chunks_exact_mut(*channels).enumerate() {
                        let column = from.iter().skip(position).step_by(*plane);
                        row.iter_mut().zip(column).for_each(|(to, from)| *to = *from);
                    }
                }
                Ok(())
            }
        }
    }
}

fn parts(affine: &Option<[Vec<f32>; 2]>) -> [Option<&[f32]>; 2] {
    match affine {
        Some([weight, bias]) => [Some(weight), Some(bias)],
        None => [None, None],
    }
}

/// The step of a node on inputs of shapes `from`, with a result of shape `to`. A batch norm that follows a convolution
/// or a transposed one, `norm`, is folded into its weights.
pub(super) fn kind(
    node: &Node,
    norm: Option<&Norm>,
    from: &[[usize; 3]],
    to: [usize; 3],
    parameters: &Parameters<'_>,
    isa: Isa,
) -> Result<Kind, CompileError> {
    let layer = name_of(&node.op);
    let fail = |source| CompileError::Layer { layer: layer.clone(), source };
    let [in_channels, height, width] = from.first().copied().unwrap_or(to);
    let (input, plane) = ([height, width], height * width);
    let channels = to[0];
    if let Some(norm) = norm {
        expect("the parameters of a batch norm", norm.scale.len(), channels)?;
        expect("the parameters of a batch norm", norm.shift.len(), channels)?;
    }
    let pool = |kernel: usize, stride: usize, padding: Padding| {
        Pool::new(input, Pool2d { kernel: [kernel; 2], stride: [stride; 2], padding }).map_err(&fail)
    };
    Ok(match &node.op {
        Op::Conv { name, kernel, stride, padding, groups, .. } => {
            let shape = ConvShape {
                in_channels,
                out_channels: channels,
                input,
                kernel: [*kernel; 2],
                stride: [*stride; 2],
                padding: padding.resolve(input, *kernel, *stride),
                groups: *groups,
            };
            let plan = Conv2d::new(isa, shape).map_err(&fail)?;
            let (mut weight, mut bias) = tensors(parameters, name, plan.weight_len(), channels)?;
            if let Some(norm) = norm {
                bias = Some(norm.fold(&mut weight, bias.as_deref()));
            }
            Kind::Conv { plan, weight, bias }
        }
        Op::ConvTranspose { name, kernel, stride, padding, output_padding, .. } => {
            let shape = ConvTransposeShape {
                in_channels,
                out_channels: channels,
                input,
                kernel: [*kernel; 2],
                stride: [*stride; 2],
                padding: Padding::symmetric(*padding),
                output_padding: [*output_padding; 2],
            };
            let plan = ConvTranspose2d::new(isa, shape).map_err(&fail)?;
            let (mut weight, mut bias) = tensors(parameters, name, plan.weight_len(), channels)?;
            if let Some(norm) = norm {
                bias = Some(norm.fold_transposed(&mut weight, kernel * kernel, bias.as_deref()));
            }
            Kind::ConvTranspose { plan, weight, bias }
        }
        Op::BatchNorm { name, epsilon, affine } => {
            let mean = sized(parameters, name, "running_mean", channels)?;
            let variance = sized(parameters, name, "running_var", channels)?;
            let plan = BatchNorm::new(isa, channels, plane, *epsilon, AfterNorm::Nothing).map_err(&fail)?;
            Kind::BatchNorm { plan, affine: affine_of(parameters, name, *affine, channels)?, mean, variance }
        }
        Op::InstanceNorm { name, epsilon, affine } => {
            let plan = GroupNorm::instance(isa, channels, plane, *epsilon).map_err(&fail)?;
            Kind::InstanceNorm { plan, affine: affine_of(parameters, name, *affine, channels)? }
        }
        Op::Activation(_) => Kind::Copy,
        Op::Add => Kind::Add,
        Op::Concat => {
            let channels: Vec<usize> = from.iter().map(|[channels, ..]| *channels).collect();
            Kind::Concat(Concat::new(&channels, plane).map_err(&fail)?)
        }
        Op::Pad { sides, border } => Kind::Pad(Pad::new(input, *sides, *border).map_err(&fail)?),
        Op::Upsample { factor, interpolation } => {
            Kind::Upsample(Upsample::by_factor(isa, input, [*factor; 2], *interpolation).map_err(&fail)?)
        }
        Op::MaxPool { kernel, stride, padding } => {
            Kind::MaxPool(pool(*kernel, *stride, padding.resolve(input, *kernel, *stride))?)
        }
        Op::AvgPool { kernel, stride, padding, count_padding } => {
            let over = if *count_padding { AverageOver::Window } else { AverageOver::Inside };
            Kind::AvgPool(pool(*kernel, *stride, padding.resolve(input, *kernel, *stride))?, over)
        }
        Op::GlobalMaxPool => {
            let window = Pool2d { kernel: input, stride: [1; 2], padding: Padding::default() };
            Kind::MaxPool(Pool::new(input, window).map_err(&fail)?)
        }
        Op::GlobalAvgPool => Kind::GlobalAverage { plane },
        Op::Gate => Kind::Gate(ChannelScale::new(isa, ScalePer::Plane, channels, plane).map_err(&fail)?),
        Op::Softmax => Kind::Softmax { channels },
        Op::Tokens => Kind::Rows { channels, plane },
        Op::Input | Op::Reshape { .. } | Op::Dropout { .. } | Op::Linear { .. } | Op::SqueezeExcite { .. } => {
            unreachable!("an input, another name of a value, or always part of a segment")
        }
        Op::TokenGrid { .. }
        | Op::SelectToken { .. }
        | Op::InsertTokens { .. }
        | Op::PositionEmbedding { .. }
        | Op::LayerNorm { .. }
        | Op::Attention { .. }
        | Op::LayerScale { .. } => unreachable!("a step on tokens"),
    })
}

/// The activation at the end of a node of its own.
pub(super) fn own_activation(op: &Op) -> Activation {
    match op {
        Op::Activation(activation) => *activation,
        _ => Activation::Identity,
    }
}

/// The name of an operation in messages.
pub(super) fn name_of(op: &Op) -> String {
    match op {
        Op::Conv { name, .. }
        | Op::ConvTranspose { name, .. }
        | Op::BatchNorm { name, .. }
        | Op::InstanceNorm { name, .. } => format!("`{name}`"),
        Op::Activation(activation) => format!("{activation:?}"),
        Op::Add => "a sum".to_owned(),
        Op::Concat => "a concatenation".to_owned(),
        Op::Pad { .. } => "padding".to_owned(),
        Op::Upsample { .. } => "upsampling".to_owned(),
        Op::MaxPool { .. } | Op::AvgPool { .. } | Op::GlobalAvgPool | Op::GlobalMaxPool => "pooling".to_owned(),
        Op::Gate => "a gate".to_owned(),
        Op::Softmax => "softmax".to_owned(),
        other => format!("`{}`", other.label()),
    }
}

/// A tensor with one value for each channel.
fn sized(parameters: &Parameters<'_>, name: &str, leaf: &str, channels: usize) -> Result<Vec<f32>, CompileError> {
    let values = parameters.values(name, leaf)?;
    expect("a tensor of a norm", values.len(), channels)?;
    Ok(values)
}

/// Weight and bias of a norm.
fn affine_of(
    parameters: &Parameters<'_>,
    name: &str,
    affine: bool,
    channels: usize,
) -> Result<Option<[Vec<f32>; 2]>, CompileError> {
    if !affine {
        return Ok(None);
    }
    Ok(Some([sized(parameters, name, "weight", channels)?, sized(parameters, name, "bias", channels)?]))
}

/// Weight and bias of a convolution.
fn tensors(
    parameters: &Parameters<'_>,
    name: &str,
    len: usize,
    channels: usize,
) -> Result<(Vec<f32>, Option<Vec<f32>>), CompileError> {
    let weight = parameters.values(name, "weight")?;
    expect("the weight of a convolution", weight.len(), len)?;
    let bias = parameters.optional(name, "bias")?;
    if let Some(bias) = &bias {
        expect("the bias of a convolution", bias.len(), channels)?;
    }
    Ok((weight, bias))
}
