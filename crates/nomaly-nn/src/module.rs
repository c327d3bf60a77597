//! The candle module of a graph and weights: the same network on any candle device, with gradients.
//!
//! On a CPU the compiled plan is far faster; the module is for CUDA and Metal, for training with losses on candle's
//! tape, and as a reference for the plan in tests. Its convolutions, batch norm in training and pooling are [`ops`],
//! which run the training kernels on a CPU.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use nomaly_kernels::geometry::{Activation, Padding};

use crate::graph::{Graph, Op, ParameterRole};
use crate::ops::windows::{pad, window};
use crate::ops::{self, Norm};
use crate::weights::{WeightTensor, Weights, WeightsError};

/// The mode of batch norm in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Normalize by the running statistics. Gradients still flow: this mode is also for fine-tuning with frozen batch
    /// norm.
    Evaluate,
    /// Normalize by the batch's own statistics, and move the running ones towards them.
    Train {
        /// The share of the batch's statistics in the running ones, in [0, 1]; 0.1 is PyTorch's default.
        momentum: f64,
    },
}

/// Why a network cannot be loaded onto a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// A tensor cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The device failed.
    #[error("candle: {0}")]
    Candle(Box<candle_core::Error>),
}

impl From<candle_core::Error> for ModuleError {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(Box::new(error))
    }
}

/// A network on a candle device.
pub struct Module {
    graph: Graph,
    /// Tensors by name; for trained parameters and statistics, the tensor inside the variable.
    tensors: BTreeMap<String, Tensor>,
    trained: BTreeMap<String, Var>,
    statistics: BTreeMap<String, Var>,
    outputs: Vec<usize>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("tensors", &self.tensors.len())
            .field("trained", &self.trained.len())
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl Module {
    /// Loads `weights` onto `device` for the `outputs` (nodes of `graph`), without trainable parameters.
    ///
    /// # Errors
    /// For a tensor that cannot be read, and if the device fails.
    pub fn new(
        graph: Graph,
        outputs: Vec<usize>,
        weights: &Weights,
        device: &Device,
    ) -> std::result::Result<Self, ModuleError> {
        Self::trainable(graph, outputs, weights, device, |_| false)
    }

    /// Like [`Module::new`]; the parameters whose names `train` accepts become variables.
    ///
    /// # Errors
    /// As [`Module::new`].
    pub fn trainable(
        graph: Graph,
        outputs: Vec<usize>,
        weights: &Weights,
        device: &Device,
        train: impl Fn(&str) -> bool,
    ) -> std::result::Result<Self, ModuleError> {
        let roles: BTreeMap<String, ParameterRole> =
            graph.parameters().into_iter().map(|parameter| (parameter.name, parameter.role)).collect();
        let mut module =
            Self { graph, tensors: BTreeMap::new(), trained: BTreeMap::new(), statistics: BTreeMap::new(), outputs };
        for (name, weight) in weights {
            let tensor = Tensor::from_vec(weight.to_f32()?, weight.shape.as_slice(), device)?;
            let statistic = roles.get(name).is_some_and(|role| !role.is_trained());
            let kept = if statistic || train(name) {
                let variable = Var::from_tensor(&tensor)?;
                let kept = variable.as_tensor().clone();
                let variables = if statistic { &mut module.statistics } else { &mut module.trained };
                variables.insert(name.clone(), variable);
                kept
            } else {
                tensor
            };
            module.tensors.insert(name.clone(), kept);
        }
        Ok(module)
    }

    /// The variables to train, by parameter name.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.trained.iter().map(|(name, variable)| (name.as_str(), variable))
    }

    /// Runs the network on `input` `[N, 3, H, W]`; the results are `[N, C, h, w]` in the order of the taps (`logits`:
    /// `[N, classes, 1, 1]`).
    ///
    /// # Errors
    /// Errors of candle, such as an input of another shape or device.
    pub fn forward(&self, input: &Tensor, mode: Mode) -> Result<Vec<Tensor>> {
        let needed = self.graph.needed(&self.outputs);
        let mut last_use = vec![0; needed.len()];
        for (index, node) in self.graph.nodes().iter().enumerate().filter(|(index, _)| needed[*index]) {
            node.inputs.iter().for_each(|&input| last_use[input] = index);
        }
        let mut results: Vec<Option<Tensor>> = vec![None; needed.len()];
        for index in (0..needed.len()).filter(|&index| needed[index]) {
            let inputs = &self.graph.nodes()[index].inputs;
            let operands: Vec<Tensor> = inputs.iter().filter_map(|&input| results[input].clone()).collect();
            let result = match operands.as_slice() {
                [] => input.clone(),
                [x, rest @ ..] => self.node(index, x, rest, mode)?,
            };
            results[index] = Some(result);
            for &input in inputs {
                if last_use[input] == index && !self.outputs.contains(&input) {
                    results[input] = None;
                }
            }
        }
        Ok(self.outputs.iter().filter_map(|&output| results[output].clone()).collect())
    }

    /// The current parameters as f32, for building a backbone.
    ///
    /// # Errors
    /// Errors of candle when values are copied from the device.
    pub fn export(&self) -> Result<Weights> {
        let mut weights = Weights::new();
        for (name, tensor) in &self.tensors {
            let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            weights.insert(name.clone(), WeightTensor::from_f32(tensor.dims().to_vec(), &values));
        }
        Ok(weights)
    }

    fn tensor(&self, prefix: &str, leaf: &str) -> Result<&Tensor> {
        let name = format!("{prefix}.{leaf}");
        self.tensors.get(&name).ok_or_else(|| candle_core::Error::CannotFindTensor { path: name }.bt())
    }

    fn node(&self, index: usize, x: &Tensor, rest: &[Tensor], mode: Mode) -> Result<Tensor> {
        match &self.graph.nodes()[index].op {
            Op::Input => Ok(x.clone()),
            Op::Conv { name, kernel, stride, padding, groups, .. } => {
                let (_, channels, height, width) = x.dims4()?;
                let weight = self.tensor(name, "weight")?;
                let padding = padding.resolve([height, width], *kernel, *stride);
                let y = if *groups == channels && weight.dim(0)? == channels {
                    depthwise(&pad(x, padding, 0.0)?, weight, *kernel, *stride)?
                } else if *groups == 1 {
                    let (x, padding) = symmetric(x, padding, 0.0)?;
                    ops::conv2d(&x, weight, None, [*stride; 2], padding)?
                } else {
                    pad(x, padding, 0.0)?.conv2d(weight, 0, *stride, 1, *groups)?
                };
                match self.tensors.get(&format!("{name}.bias")) {
                    Some(bias) => y.broadcast_add(&per_channel(bias)?),
                    None => Ok(y),
                }
            }
            Op::BatchNorm { name, epsilon, affine: true } => self.batch_norm(x, name, *epsilon, mode),
            Op::Activation(activation) => activate(x, *activation),
            Op::Add => rest.iter().try_fold(x.clone(), |sum, other| sum.add(other)),
            Op::MaxPool { kernel, stride, padding } => {
                let (_, _, height, width) = x.dims4()?;
                let padding = padding.resolve([height, width], *kernel, *stride);
                match symmetric(x, padding, f32::NEG_INFINITY)? {
                    (x, [rows, columns]) if rows == columns => ops::max_pool2d(&x, *kernel, *stride, rows),
                    _ => ops::max_pool2d(&pad(x, padding, f32::NEG_INFINITY)?, *kernel, *stride, 0),
                }
            }
            Op::GlobalAvgPool => ops::global_avg_pool(x),
            Op::GlobalMaxPool => {
                let (images, channels, _, _) = x.dims4()?;
                x.flatten_from(2)?.max(D::Minus1)?.reshape((images, channels, 1, 1))
            }
            Op::Dropout { .. } => Ok(x.clone()),
            Op::SqueezeExcite { reduce, expand, activation, .. } => {
                let dense = |x: &Tensor, name: &str| {
                    x.matmul(&self.tensor(name, "weight")?.flatten_from(1)?.t()?)?
                        .broadcast_add(self.tensor(name, "bias")?)
                };
                let squeezed = activate(&dense(&x.mean((2, 3))?, reduce)?, *activation)?;
                let gate = sigmoid(&dense(&squeezed, expand)?)?;
                x.broadcast_mul(&gate.unsqueeze(D::Minus1)?.unsqueeze(D::Minus1)?)
            }
            Op::Linear { name, bias } => {
                let y = x.flatten_from(1)?.matmul(&self.tensor(name, "weight")?.t()?)?;
                let y = if *bias { y.broadcast_add(self.tensor(name, "bias")?)? } else { y };
                y.unsqueeze(D::Minus1)?.unsqueeze(D::Minus1)
            }
        }
    }

    /// Batch norm; the identity if it was folded into its convolution before the weights were written.
    fn batch_norm(&self, x: &Tensor, name: &str, epsilon: f64, mode: Mode) -> Result<Tensor> {
        let [Some(mean), Some(variance)] =
            ["running_mean", "running_var"].map(|leaf| self.statistics.get(&format!("{name}.{leaf}")))
        else {
            return Ok(x.clone());
        };
        let (weight, bias) = (self.tensor(name, "weight")?, self.tensor(name, "bias")?);
        if let Mode::Train { momentum } = mode {
            let norm = Norm { epsilon, momentum, ..Norm::default() };
            return ops::batch_norm(x, weight, bias, Some([mean, variance]), norm);
        }
        let centered = x.broadcast_sub(&per_channel(&mean.detach())?)?;
        let variance = per_channel(&variance.detach())?;
        let scale = per_channel(weight)?.div(&(variance + epsilon)?.sqrt()?)?;
        centered.broadcast_mul(&scale)?.broadcast_add(&per_channel(bias)?)
    }
}

/// `[C]` as `[1, C, 1, 1]`.
fn per_channel(x: &Tensor) -> Result<Tensor> {
    x.reshape((1, (), 1, 1))
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

pub(crate) fn leaky_relu(x: &Tensor, slope: f32) -> Result<Tensor> {
    x.relu()?.sub(&(x.neg()?.relu()? * f64::from(slope))?)
}

fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(x.clone()),
        Activation::Relu => x.relu(),
        Activation::Relu6 => x.clamp(0f32, 6f32),
        Activation::Silu => x.silu(),
        Activation::Sigmoid => sigmoid(x),
        Activation::LeakyRelu(slope) => leaky_relu(x, slope.value()),
        Activation::Tanh => x.tanh(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
    }
}

/// For operations with equal padding on opposite sides: `x` and that padding, or the padded `x` and zero.
fn symmetric(x: &Tensor, padding: Padding, value: f32) -> Result<(Tensor, [usize; 2])> {
    if padding.top == padding.bottom && padding.left == padding.right {
        Ok((x.clone(), [padding.top, padding.left]))
    } else {
        Ok((pad(x, padding, value)?, [0, 0]))
    }
}

/// A depthwise convolution as a sum over the positions of the kernel: candle itself runs one convolution per channel.
fn depthwise(x: &Tensor, weight: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let factors = weight.reshape((1, (), kernel * kernel, 1))?;
    let mut sum: Option<Tensor> = None;
    for (index, place) in window(x, kernel, stride)?.iter().enumerate() {
        let term = place.broadcast_mul(&factors.narrow(2, index, 1)?)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&term)?,
            None => term,
        });
    }
    sum.ok_or_else(|| candle_core::Error::Msg("a kernel has at least one place".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::windows::max_pool;

    /// `[2, 3, height, width]`, with distinct neighbouring values.
    fn images(height: usize, width: usize) -> Tensor {
        let values: Vec<f32> = (0..6 * height * width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        Tensor::from_vec(values, (2, 3, height, width), &Device::Cpu).unwrap()
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.dims(), b.dims());
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn windows_are_those_of_candles_own_convolution_and_pooling() {
        for (kernel, stride, height, width) in [(3, 1, 5, 4), (3, 2, 7, 8), (5, 2, 9, 6), (2, 3, 8, 9), (1, 2, 3, 4)] {
            let x = images(height, width);
            let weight = images(kernel, kernel).narrow(0, 0, 1).unwrap().reshape((3, 1, kernel, kernel)).unwrap();
            let ours = depthwise(&x, &weight, kernel, stride).unwrap();
            let theirs = x.conv2d(&weight, 0, stride, 1, 3).unwrap();
            assert!(largest_difference(&ours, &theirs) < 1e-5, "{kernel} {stride}");
            let ours = max_pool(&x, kernel, stride).unwrap();
            let theirs = x.max_pool2d_with_stride(kernel, stride).unwrap();
            assert_eq!(largest_difference(&ours, &theirs), 0.0, "{kernel} {stride}");
        }
    }
}
