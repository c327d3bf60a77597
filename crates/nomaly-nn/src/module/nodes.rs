//! The nodes of a graph as candle operations.

use candle_core::{Result, Tensor, Var};
use nomaly_kernels::geometry::{Activation, Padding, Pool2d};
use nomaly_kernels::training::{AverageOver, Dropout};

use crate::graph::{NodeLayout, Op, PaddingRule};
use crate::ops::{self, ConvGeometry, Norm};

use super::{Mode, Module};

/// A forward pass.
pub(super) struct Context<'a> {
    pub(super) module: &'a Module,
    pub(super) mode: Mode,
    /// The keys of the dropout masks, in the order of the graph.
    pub(super) masks: Box<dyn Iterator<Item = u64>>,
}

impl Context<'_> {
    /// An input of the network.
    pub(super) fn input(&self, x: &Tensor, channels: usize, layout: NodeLayout) -> Result<Tensor> {
        let found = match layout {
            NodeLayout::Image => x.dims4()?.1,
            NodeLayout::Tokens => x.dims3()?.2,
        };
        if found == channels {
            return Ok(x.clone());
        }
        candle_core::bail!("the input has {found} channels, expected {channels}")
    }

    /// The result of `op` on `operands`; `grid` are rows and columns of the image from which its tokens come.
    pub(super) fn compute(&mut self, op: &Op, operands: &[Tensor], grid: Option<[usize; 2]>) -> Result<Tensor> {
        let [x, rest @ ..] = operands else { candle_core::bail!("a node has no input") };
        match op {
            Op::Input => Ok(x.clone()),
            Op::Conv { name, kernel, stride, padding, groups, .. } => {
                let geometry = ConvGeometry {
                    stride: [*stride; 2],
                    padding: resolve(x, *padding, *kernel, *stride)?,
                    groups: *groups,
                };
                // A bias may come from a batch norm that was folded before the weights were written.
                ops::conv2d_with(x, self.tensor(name, "weight")?, self.optional(name, "bias"), geometry)
            }
            Op::ConvTranspose { name, stride, padding, output_padding, bias, .. } => {
                let (weight, bias) = (self.tensor(name, "weight")?, self.bias(name, *bias)?);
                ops::conv_transpose2d(x, weight, bias, *stride, *padding, *output_padding)
            }
            Op::BatchNorm { name, epsilon, affine } => self.batch_norm(x, name, *epsilon, *affine),
            Op::InstanceNorm { name, epsilon, affine } => {
                let [weight, bias] = self.affine(x, name, *affine)?;
                ops::instance_norm(x, &weight, &bias, *epsilon)
            }
            Op::Activation(activation) => ops::activation(x, *activation),
            Op::Add => rest.iter().try_fold(x.clone(), |sum, other| sum.add(other)),
            Op::Concat => Tensor::cat(operands, 1),
            Op::Reshape { shape: [channels, height, width] } => {
                x.contiguous()?.reshape((x.dim(0)?, *channels, *height, *width))
            }
            Op::Pad { sides, border } => ops::pad2d(x, *sides, *border),
            Op::Upsample { factor, interpolation } => ops::upsample2d(x, *factor, *interpolation),
            Op::Softmax => ops::softmax(x),
            Op::Gate => match rest {
                [factors] => ops::gate(x, factors),
                _ => candle_core::bail!("a gate has {} inputs, expected 2", operands.len()),
            },
            Op::MaxPool { kernel, stride, padding } => ops::max_pool2d_with(x, pool(x, *kernel, *stride, *padding)?),
            Op::AvgPool { kernel, stride, padding, count_padding } => {
                let over = if *count_padding { AverageOver::Window } else { AverageOver::Inside };
                ops::avg_pool2d_with(x, pool(x, *kernel, *stride, *padding)?, over)
            }
            Op::GlobalAvgPool => ops::global_avg_pool(x),
            Op::GlobalMaxPool => ops::global_max_pool(x),
            Op::Dropout { rate } => self.dropout(x, *rate),
            Op::SqueezeExcite { reduce, expand, activation, .. } => {
                let dense = |x: &Tensor, name: &str| {
                    let weight = self.tensor(name, "weight")?.flatten_from(1)?;
                    ops::linear(x, &weight, Some(self.tensor(name, "bias")?))
                };
                let squeezed = dense(&ops::global_avg_pool(x)?.flatten_from(1)?, reduce)?;
                let gate = dense(&ops::activation(&squeezed, *activation)?, expand)?;
                let gate = ops::activation(&gate, Activation::Sigmoid)?;
                ops::gate(x, &gate.reshape((x.dim(0)?, (), 1, 1))?)
            }
            Op::Linear { name, bias } => {
                let (weight, bias) = (self.tensor(name, "weight")?, self.bias(name, *bias)?);
                if x.rank() == 3 {
                    return self.token_linear(x, weight, bias);
                }
                ops::linear(&x.flatten_from(1)?, weight, bias)?.reshape((x.dim(0)?, (), 1, 1))
            }
            Op::Tokens
            | Op::TokenGrid { .. }
            | Op::SelectToken { .. }
            | Op::InsertTokens { .. }
            | Op::PositionEmbedding { .. }
            | Op::LayerNorm { .. }
            | Op::Attention { .. }
            | Op::LayerScale { .. } => self.on_tokens(op, x, grid),
        }
    }

    fn optional(&self, prefix: &str, leaf: &str) -> Option<&Tensor> {
        self.module.tensors.get(&format!("{prefix}.{leaf}"))
    }

    /// A tensor by its whole name.
    pub(super) fn named(&self, name: &str) -> Result<&Tensor> {
        let missing = || candle_core::Error::CannotFindTensor { path: name.to_owned() }.bt();
        self.module.tensors.get(name).ok_or_else(missing)
    }

    pub(super) fn tensor(&self, prefix: &str, leaf: &str) -> Result<&Tensor> {
        let missing = || candle_core::Error::CannotFindTensor { path: format!("{prefix}.{leaf}") }.bt();
        self.optional(prefix, leaf).ok_or_else(missing)
    }

    fn bias(&self, prefix: &str, present: bool) -> Result<Option<&Tensor>> {
        present.then(|| self.tensor(prefix, "bias")).transpose()
    }

    /// Factors and summands of a normalization of `x`: ones and zeros where it has none.
    fn affine(&self, x: &Tensor, name: &str, affine: bool) -> Result<[Tensor; 2]> {
        if affine {
            return Ok([self.tensor(name, "weight")?.clone(), self.tensor(name, "bias")?.clone()]);
        }
        let (channels, dtype, device) = (x.dim(1)?, x.dtype(), x.device());
        Ok([Tensor::ones(channels, dtype, device)?, Tensor::zeros(channels, dtype, device)?])
    }

    fn statistic(&self, name: &str, leaf: &str) -> Option<&Var> {
        self.module.statistics.get(&format!("{name}.{leaf}"))
    }

    /// Batch norm; the identity if it was folded into its convolution before the weights were written.
    fn batch_norm(&self, x: &Tensor, name: &str, epsilon: f64, affine: bool) -> Result<Tensor> {
        let [Some(mean), Some(variance)] = ["running_mean", "running_var"].map(|leaf| self.statistic(name, leaf))
        else {
            return Ok(x.clone());
        };
        let [weight, bias] = self.affine(x, name, affine)?;
        match self.mode {
            Mode::Train { momentum } => {
                let norm = Norm { epsilon, momentum, ..Norm::default() };
                ops::batch_norm(x, &weight, &bias, Some([mean, variance]), norm)
            }
            Mode::Evaluate | Mode::Sample => {
                ops::batch_norm_fixed(x, &weight, &bias, [mean.as_tensor(), variance.as_tensor()], epsilon)
            }
        }
    }

    fn dropout(&mut self, x: &Tensor, rate: f32) -> Result<Tensor> {
        let images = x.dim(0)?;
        let each = x.elem_count() / images.max(1);
        let (Some(period), Some(key)) = (self.mode.pass().period(images, each), self.masks.next()) else {
            return Ok(x.clone());
        };
        let dropout = Dropout::new(f64::from(rate)).map_err(candle_core::Error::wrap)?;
        ops::dropout(x, dropout, key, period)
    }
}

fn resolve(x: &Tensor, padding: PaddingRule, kernel: usize, stride: usize) -> Result<Padding> {
    let (_, _, height, width) = x.dims4()?;
    Ok(padding.resolve([height, width], kernel, stride))
}

fn pool(x: &Tensor, kernel: usize, stride: usize, padding: PaddingRule) -> Result<Pool2d> {
    let padding = resolve(x, padding, kernel, stride)?;
    Ok(Pool2d { kernel: [kernel; 2], stride: [stride; 2], padding })
}
