//! Architectures as data.
//!
//! A [`Graph`] describes what a network computes and the names of its parameters, but not how it is run. The compiled
//! CPU plan and the candle module are both built from it, so that an architecture is defined once.
//!
//! Nodes stand in topological order. Parameter names are those of the published state dicts.
//!
//! A value is an image or, in transformers, a row of features for each token; see [`NodeLayout`].

mod builder;
mod error;
mod shapes;
mod tokens;
mod transformer;

use nomaly_kernels::geometry::{Activation, Padding};
use nomaly_kernels::training::{Border, UpsampleMode};

pub use builder::{ConvOptions, ConvTransposeOptions, GraphBuilder};
pub use error::GraphError;
pub use tokens::{AxialRotary, BlockOptions, LearnedGrid, NodeLayout, PositionResize};

/// The padding rule per axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaddingRule {
    /// This many zeros on either side (PyTorch).
    Symmetric(usize),
    /// TensorFlow's `SAME`: the output has `ceil(input / stride)` samples; for an odd number of zeros, the larger half
    /// goes to the bottom and the right.
    Same,
}

impl PaddingRule {
    /// The padding of an `input` (height, width) under a square kernel.
    pub fn resolve(self, input: [usize; 2], kernel: usize, stride: usize) -> Padding {
        match self {
            Self::Symmetric(each) => Padding::symmetric(each),
            Self::Same => Padding::same(input, [kernel; 2], [stride; 2]),
        }
    }
}

/// The operation of a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// The image, `[N, C, H, W]`.
    Input,
    /// A square 2-D convolution; `weight` is `[O, I / groups, k, k]`. One without bias gets one if a weight file has
    /// it, because batch norm was folded in.
    Conv {
        /// Prefix of the parameter names.
        name: String,
        /// Side of the kernel.
        kernel: usize,
        /// Step in both axes.
        stride: usize,
        /// Zeros around the input.
        padding: PaddingRule,
        /// Number of channel groups; equal to the channels for a depthwise convolution.
        groups: usize,
        /// Whether it has a bias, `[O]`.
        bias: bool,
    },
    /// A square transposed convolution; `weight` is `[I, O, k, k]`. The output has
    /// `(input - 1) * stride - 2 * padding + kernel + output_padding` rows.
    ConvTranspose {
        /// Prefix of the parameter names.
        name: String,
        /// Side of the kernel.
        kernel: usize,
        /// Distance of neighbouring inputs in the output.
        stride: usize,
        /// Rows and columns cut from each side of the output.
        padding: usize,
        /// Rows and columns added below and to the right; less than the stride.
        output_padding: usize,
        /// Whether it has a bias, `[O]`.
        bias: bool,
    },
    /// Batch normalization: `(x - running_mean) / sqrt(running_var + epsilon) * weight + bias`.
    BatchNorm {
        /// Prefix of the parameter names.
        name: String,
        /// Added to the variance.
        epsilon: f64,
        /// Whether it has a weight and a bias.
        affine: bool,
    },
    /// Instance normalization: each channel of each image by its own mean and variance (Ulyanov et al. 2016).
    InstanceNorm {
        /// Prefix of the parameter names.
        name: String,
        /// Added to the variance.
        epsilon: f64,
        /// Whether it has a weight and a bias.
        affine: bool,
    },
    /// An element-wise function.
    Activation(Activation),
    /// The sum of the two inputs.
    Add,
    /// The channels of all inputs, one after another.
    Concat,
    /// The same values, in order, as another shape.
    Reshape {
        /// Shape `[C, H, W]` of the result.
        shape: [usize; 3],
    },
    /// Zeros or a reflection around the image.
    Pad {
        /// Rows and columns around it.
        sides: Padding,
        /// What they hold.
        border: Border,
    },
    /// Enlargement by a whole factor.
    Upsample {
        /// The factor of both axes.
        factor: usize,
        /// How values between positions are found.
        interpolation: UpsampleMode,
    },
    /// The softmax over the channels of `[N, C, 1, 1]`.
    Softmax,
    /// The first input times the second one, `[C, 1, 1]`: channel attention.
    Gate,
    /// The maximum over a square window; padding never wins.
    MaxPool {
        /// Side of the window.
        kernel: usize,
        /// Step in both axes.
        stride: usize,
        /// Samples around the input.
        padding: PaddingRule,
    },
    /// The mean over a square window.
    AvgPool {
        /// Side of the window.
        kernel: usize,
        /// Step in both axes.
        stride: usize,
        /// Samples around the input.
        padding: PaddingRule,
        /// Whether padding counts in the divisor (PyTorch's default).
        count_padding: bool,
    },
    /// The mean of each channel, `[N, C, 1, 1]`.
    GlobalAvgPool,
    /// The maximum of each channel, `[N, C, 1, 1]`.
    GlobalMaxPool,
    /// Inverted dropout in training and in Monte Carlo passes; the identity elsewhere.
    Dropout {
        /// The share of the values that become zero, in [0, 1).
        rate: f32,
    },
    /// Squeeze and excitation: `x * sigmoid(expand(act(reduce(mean(x)))))` (Hu et al. 2018); both are 1×1 convolutions
    /// with bias.
    SqueezeExcite {
        /// Prefix of the first convolution's parameters.
        reduce: String,
        /// Prefix of the second convolution's parameters.
        expand: String,
        /// Channels in between.
        reduced: usize,
        /// Activation in between.
        activation: Activation,
    },
    /// A fully connected layer on `[N, C, 1, 1]`, or on each token; `weight` is `[O, C]`.
    Linear {
        /// Prefix of the parameter names.
        name: String,
        /// Whether it has a bias, `[O]`.
        bias: bool,
    },
    /// The positions of an image as tokens, row by row.
    Tokens,
    /// Tokens as the image that they were taken from.
    TokenGrid {
        /// Tokens before those of the positions, which are dropped.
        prefix: usize,
    },
    /// One token as `[C, 1, 1]`.
    SelectToken {
        /// Its place.
        token: usize,
    },
    /// Learned tokens among those of the image, the same for every image; the parameter is `[1, count, C]`.
    InsertTokens {
        /// Name of the parameter.
        name: String,
        /// Tokens that stand before them.
        place: usize,
        /// Their number.
        count: usize,
    },
    /// The sum with a learned position embedding, `[1, prefix + rows * columns, C]`, that is resized to the grid of the
    /// tokens.
    PositionEmbedding {
        /// Name of the parameter.
        name: String,
        /// The grid of the parameter.
        grid: LearnedGrid,
        /// How it is resized.
        resize: PositionResize,
    },
    /// Layer norm of each token: `(x - mean) / sqrt(variance + epsilon) * weight + bias` (Ba et al. 2016).
    LayerNorm {
        /// Prefix of the parameter names.
        name: String,
        /// Added to the variance.
        epsilon: f64,
    },
    /// Multi-head attention; the input has for each token the queries of all heads, then the keys, then the values.
    Attention {
        /// Heads.
        heads: usize,
        /// Rotation of queries and keys by the positions of their tokens.
        rotary: Option<AxialRotary>,
    },
    /// A learned factor for each channel, `gamma` (LayerScale, Touvron et al. 2021).
    LayerScale {
        /// Prefix of the parameter's name.
        name: String,
    },
}

impl Op {
    /// Its name in messages: that of its parameters, or else what it does.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Conv { name, .. }
            | Self::ConvTranspose { name, .. }
            | Self::BatchNorm { name, .. }
            | Self::InstanceNorm { name, .. }
            | Self::Linear { name, .. }
            | Self::InsertTokens { name, .. }
            | Self::PositionEmbedding { name, .. }
            | Self::LayerNorm { name, .. }
            | Self::LayerScale { name } => name.clone(),
            Self::SqueezeExcite { reduce, .. } => reduce.clone(),
            Self::Input => "input".to_owned(),
            Self::Activation(activation) => format!("{activation:?}"),
            Self::Add => "sum".to_owned(),
            Self::Concat => "concatenation".to_owned(),
            Self::Reshape { .. } => "reshape".to_owned(),
            Self::Pad { .. } => "padding".to_owned(),
            Self::Upsample { .. } => "upsampling".to_owned(),
            Self::MaxPool { .. } => "max pooling".to_owned(),
            Self::AvgPool { .. } => "average pooling".to_owned(),
            Self::GlobalAvgPool => "global average pooling".to_owned(),
            Self::GlobalMaxPool => "global max pooling".to_owned(),
            Self::Dropout { .. } => "dropout".to_owned(),
            Self::Gate => "gate".to_owned(),
            Self::Softmax => "softmax".to_owned(),
            Self::Tokens => "tokens".to_owned(),
            Self::TokenGrid { .. } => "token grid".to_owned(),
            Self::SelectToken { .. } => "token selection".to_owned(),
            Self::Attention { .. } => "attention".to_owned(),
        }
    }
}

/// One operation of a [`Graph`].
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// Indices of the input nodes; each is less than the node's own.
    pub inputs: Vec<usize>,
    /// Channels of the result; of tokens, the values of one.
    pub channels: usize,
    /// Whether the result is an image or tokens.
    pub layout: NodeLayout,
    /// Pixels of the image between neighbouring samples of the result; `None` where it has no spatial extent.
    pub stride: Option<usize>,
}

/// A named place in a graph where features can be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// The name that users type.
    pub name: String,
    /// The node whose result is taken.
    pub node: usize,
}

/// The role of a parameter, which determines its initialization and valid values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterRole {
    /// The weight of a convolution or a linear layer.
    Weight,
    /// The bias of a convolution, of a linear layer or of squeeze-excite.
    Bias,
    /// The factor of a normalization.
    NormScale,
    /// The summand of a normalization.
    NormShift,
    /// A learned token or a position embedding.
    Embedding,
    /// The factor of a residual branch (LayerScale).
    LayerScale,
    /// Batch norm's mean over the training set; a statistic, not trained.
    RunningMean,
    /// Batch norm's variance over the training set; a statistic, not trained, never negative.
    RunningVariance,
}

impl ParameterRole {
    /// Whether training changes it by gradient; only such parameters count in the "number of parameters".
    pub fn is_trained(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVariance)
    }
}

/// A tensor that a node needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Name in the state dict.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its role.
    pub role: ParameterRole,
}

/// A network as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    nodes: Vec<Node>,
    taps: Vec<Tap>,
}

impl Graph {
    /// The nodes in topological order; the first is the input.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The taps, from the shallowest to the deepest. Each depends on every node that the one before it depends on, but
    /// for those that turn tokens into an image again.
    pub fn taps(&self) -> &[Tap] {
        &self.taps
    }

    /// Whether each node is needed for the results at `targets`.
    pub fn needed(&self, targets: &[usize]) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        for &target in targets {
            needed[target] = true;
        }
        for index in (0..self.nodes.len()).rev() {
            if needed[index] {
                for &input in &self.nodes[index].inputs {
                    needed[input] = true;
                }
            }
        }
        needed
    }

    /// The network from node `from` to node `to`, with `from` as its input and with the taps in between; `None` if `to`
    /// does not depend on the input through `from` alone.
    pub fn between(&self, from: usize, to: usize) -> Option<Self> {
        let mut needed = vec![false; self.nodes.len()];
        needed[to] = true;
        for index in (0..self.nodes.len()).rev().filter(|&index| index != from) {
            if needed[index] {
                if self.nodes[index].inputs.is_empty() {
                    return None;
                }
                self.nodes[index].inputs.iter().for_each(|&input| needed[input] = true);
            }
        }
        let mut moved = vec![None; self.nodes.len()];
        let mut graph = Self { nodes: Vec::new(), taps: Vec::new() };
        for index in (0..self.nodes.len()).filter(|&index| needed[index]) {
            let mut node = self.nodes[index].clone();
            if index == from {
                (node.op, node.inputs) = (Op::Input, Vec::new());
            } else {
                node.inputs = node.inputs.iter().filter_map(|&input| moved[input]).collect();
            }
            moved[index] = Some(graph.nodes.len());
            graph.nodes.push(node);
        }
        let inside = self.taps.iter().filter_map(|tap| Some(Tap { name: tap.name.clone(), node: moved[tap.node]? }));
        graph.taps = inside.collect();
        Some(graph)
    }

    /// The parameters of one node, in the order of a state dict.
    pub fn parameters_of(&self, index: usize) -> Vec<Parameter> {
        use ParameterRole::*;
        let node = &self.nodes[index];
        let inputs = node.inputs.first().map_or(0, |&input| self.nodes[input].channels);
        let parameter = |prefix: &str, leaf: &str, shape: &[usize], role| Parameter {
            name: format!("{prefix}.{leaf}"),
            shape: shape.to_vec(),
            role,
        };
        let embedding = |name: &str, tokens: usize| Parameter {
            name: name.to_owned(),
            shape: vec![1, tokens, node.channels],
            role: Embedding,
        };
        match &node.op {
            Op::Conv { name, kernel, groups, bias, .. } => {
                let weight = parameter(name, "weight", &[node.channels, inputs / groups, *kernel, *kernel], Weight);
                let bias = bias.then(|| parameter(name, "bias", &[node.channels], Bias));
                std::iter::once(weight).chain(bias).collect()
            }
            Op::ConvTranspose { name, kernel, bias, .. } => {
                let weight = parameter(name, "weight", &[inputs, node.channels, *kernel, *kernel], Weight);
                let bias = bias.then(|| parameter(name, "bias", &[node.channels], Bias));
                std::iter::once(weight).chain(bias).collect()
            }
            Op::BatchNorm { name, affine, .. } => {
                let scale = affine.then(|| parameter(name, "weight", &[inputs], NormScale));
                let shift = affine.then(|| parameter(name, "bias", &[inputs], NormShift));
                let mean = parameter(name, "running_mean", &[inputs], RunningMean);
                let variance = parameter(name, "running_var", &[inputs], RunningVariance);
                scale.into_iter().chain(shift).chain([mean, variance]).collect()
            }
            Op::InstanceNorm { name, affine: true, .. } | Op::LayerNorm { name, .. } => {
                vec![parameter(name, "weight", &[inputs], NormScale), parameter(name, "bias", &[inputs], NormShift)]
            }
            Op::SqueezeExcite { reduce, expand, reduced, .. } => vec![
                parameter(reduce, "weight", &[*reduced, inputs, 1, 1], Weight),
                parameter(reduce, "bias", &[*reduced], Bias),
                parameter(expand, "weight", &[inputs, *reduced, 1, 1], Weight),
                parameter(expand, "bias", &[inputs], Bias),
            ],
            Op::Linear { name, bias } => {
                let weight = parameter(name, "weight", &[node.channels, inputs], Weight);
                let bias = bias.then(|| parameter(name, "bias", &[node.channels], Bias));
                std::iter::once(weight).chain(bias).collect()
            }
            Op::InsertTokens { name, count, .. } => vec![embedding(name, *count)],
            Op::PositionEmbedding { name, grid: LearnedGrid { prefix, size: [rows, columns] }, .. } => {
                vec![embedding(name, prefix + rows * columns)]
            }
            Op::LayerScale { name } => vec![parameter(name, "gamma", &[inputs], LayerScale)],
            Op::Input
            | Op::InstanceNorm { affine: false, .. }
            | Op::Activation(_)
            | Op::Add
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
            | Op::Dropout { .. }
            | Op::Tokens
            | Op::TokenGrid { .. }
            | Op::SelectToken { .. }
            | Op::Attention { .. } => Vec::new(),
        }
    }

    /// The parameters of all nodes.
    pub fn parameters(&self) -> Vec<Parameter> {
        (0..self.nodes.len()).flat_map(|index| self.parameters_of(index)).collect()
    }

    /// The number of trained values: the size of a network as in papers and model zoos.
    pub fn parameter_count(&self) -> usize {
        let trained = self.parameters().into_iter().filter(|parameter| parameter.role.is_trained());
        trained.map(|parameter| parameter.shape.iter().product::<usize>()).sum()
    }

    /// The convolution into which the batch norm at `index` can be folded: the one it directly follows, if nothing else
    /// reads that convolution's result.
    pub fn foldable_into(&self, index: usize) -> Option<usize> {
        let Op::BatchNorm { .. } = self.nodes[index].op else { return None };
        let conv = self.nodes[index].inputs[0];
        let consumers = self.nodes.iter().flat_map(|node| &node.inputs).filter(|&&input| input == conv).count();
        let tapped = self.taps.iter().any(|tap| tap.node == conv);
        (matches!(self.nodes[conv].op, Op::Conv { .. }) && consumers == 1 && !tapped).then_some(conv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toy() -> Graph {
        let mut g = GraphBuilder::new(3);
        let conv = g.conv(0, "a", 8, ConvOptions::centered(3, 2));
        let norm = g.batch_norm(conv, "b", 1e-5);
        g.tap("one", norm);
        let conv = g.conv(norm, "c", 8, ConvOptions::POINTWISE);
        g.tap("two", conv);
        let norm = g.batch_norm(conv, "d", 1e-5);
        let sum = g.add(norm, conv);
        g.classifier(sum, "fc", 5);
        g.finish().unwrap()
    }

    #[test]
    fn only_a_batch_norm_with_a_convolution_of_its_own_folds() {
        let graph = toy();
        let norms: Vec<_> = (0..graph.nodes().len())
            .filter(|&index| matches!(graph.nodes()[index].op, Op::BatchNorm { .. }))
            .map(|index| graph.foldable_into(index))
            .collect();
        assert_eq!(norms, [Some(1), None]);
    }

    #[test]
    fn a_part_of_a_network_is_a_network() {
        let graph = toy();
        let [one, two, logits] = [0, 1, 2].map(|tap| graph.taps()[tap].node);
        let part = graph.between(one, two).unwrap();
        assert_eq!((part.nodes().len(), part.nodes()[0].channels, part.nodes()[0].op.clone()), (2, 8, Op::Input));
        assert_eq!(
            part.taps().iter().map(|tap| (tap.name.as_str(), tap.node)).collect::<Vec<_>>(),
            [("one", 0), ("two", 1)]
        );
        let part = graph.between(two, logits).unwrap();
        // The sum reads the input twice, through the batch norm and directly.
        assert_eq!(part.nodes()[2].inputs, [1, 0]);
        assert_eq!(graph.between(0, logits).unwrap(), graph);
        assert_eq!(graph.between(one, one).unwrap().nodes().len(), 1);
        // The sum does not read only the batch norm `d`, and there is no path from a later node to an earlier one.
        assert_eq!(graph.between(two + 1, logits), None);
        assert_eq!(graph.between(logits, two), None);
    }

    #[test]
    fn a_shallow_target_needs_nothing_below_it() {
        let graph = toy();
        let needed = graph.needed(&[graph.taps()[0].node]);
        assert_eq!(needed.iter().filter(|&&yes| yes).count(), 3);
        assert_eq!(graph.nodes()[graph.taps()[1].node].stride, Some(2));
        // 8·3·9 + 2·8 + 8·8 + 2·8 + 5·8 + 5
        assert_eq!(graph.parameter_count(), 216 + 16 + 64 + 16 + 45);
    }
}
