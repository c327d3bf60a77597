//! The description of a graph, node by node.

use std::collections::BTreeSet;

use nomaly_kernels::geometry::{Activation, Padding};
use nomaly_kernels::training::{Border, UpsampleMode};

use super::error::GraphError;
use super::tokens::NodeLayout;
use super::{Graph, Node, Op, PaddingRule, Tap};

/// Builds a [`Graph`]: each method appends a node and returns its index, which later nodes take as an input.
///
/// A description that contradicts itself is reported by [`finish`](Self::finish), so that networks can be written down
/// without a `?` on every line.
///
/// ```
/// use nomaly_kernels::geometry::Activation;
/// use nomaly_nn::graph::{ConvOptions, GraphBuilder};
///
/// let mut builder = GraphBuilder::new(1);
/// let x = builder.conv_with_bias(GraphBuilder::INPUT, "conv", 8, ConvOptions::centered(3, 2));
/// let x = builder.activation(x, Activation::Relu);
/// builder.tap("features", x);
/// let graph = builder.finish()?;
/// assert_eq!(graph.parameter_count(), 8 * 9 + 8);
/// assert_eq!(graph.shapes(&[[28, 28]])?[x], [8, 14, 14]);
/// # Ok::<(), nomaly_nn::graph::GraphError>(())
/// ```
#[derive(Clone, Debug)]
pub struct GraphBuilder {
    graph: Graph,
    error: Option<GraphError>,
}

/// The window of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions {
    /// Side of the square kernel.
    pub kernel: usize,
    /// Step in both axes.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: PaddingRule,
    /// Number of channel groups; equal to the channels for a depthwise convolution.
    pub groups: usize,
}

impl ConvOptions {
    /// A 1×1 convolution.
    pub const POINTWISE: Self = Self { kernel: 1, stride: 1, padding: PaddingRule::Symmetric(0), groups: 1 };

    /// A dense convolution that keeps the size at stride 1 if `kernel` is odd.
    pub const fn centered(kernel: usize, stride: usize) -> Self {
        Self { kernel, stride, padding: PaddingRule::Symmetric(kernel / 2), groups: 1 }
    }

    /// A dense convolution with this many zeros on each side.
    pub const fn padded(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel, stride, padding: PaddingRule::Symmetric(padding), groups: 1 }
    }
}

/// The window of a transposed convolution, which enlarges an image by about its stride.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTransposeOptions {
    /// Side of the square kernel.
    pub kernel: usize,
    /// Distance of neighbouring inputs in the output.
    pub stride: usize,
    /// Rows and columns cut from each side of the output.
    pub padding: usize,
    /// Rows and columns added below and to the right; less than the stride.
    pub output_padding: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl ConvTransposeOptions {
    /// A window without output padding and bias.
    pub const fn new(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel, stride, padding, output_padding: 0, bias: false }
    }

    /// The same window with a bias.
    #[must_use]
    pub const fn with_bias(mut self) -> Self {
        self.bias = true;
        self
    }
}

impl GraphBuilder {
    /// The index of the first input.
    pub const INPUT: usize = 0;

    /// A graph with one input of this many channels, [`INPUT`](Self::INPUT).
    pub fn new(channels: usize) -> Self {
        let mut builder = Self { graph: Graph { nodes: Vec::new(), taps: Vec::new() }, error: None };
        builder.input(channels);
        builder
    }

    /// A further input of this many channels. Inputs are given in the order of their nodes.
    pub fn input(&mut self, channels: usize) -> usize {
        self.push(Op::Input, &[], channels, Some(1))
    }

    /// The channels of a node's result.
    pub fn channels(&self, index: usize) -> usize {
        self.graph.nodes.get(index).map_or(0, |node| node.channels)
    }

    /// Whether a node's result is an image or tokens.
    pub fn layout(&self, index: usize) -> NodeLayout {
        self.graph.nodes.get(index).map_or(NodeLayout::Image, |node| node.layout)
    }

    pub(super) fn fail(&mut self, error: GraphError) {
        self.error.get_or_insert(error);
    }

    /// The number of nodes, which is the index of the next one.
    pub(super) fn count(&self) -> usize {
        self.graph.nodes.len()
    }

    pub(super) fn push(&mut self, op: Op, inputs: &[usize], channels: usize, stride: Option<usize>) -> usize {
        let index = self.graph.nodes.len();
        if inputs.is_empty() && op != Op::Input {
            self.fail(GraphError::NoInputs { node: index });
        }
        if let Some(&input) = inputs.iter().find(|&&input| input >= index) {
            self.fail(GraphError::UnknownNode { node: index, input });
        }
        if channels == 0 {
            self.fail(GraphError::NoChannels { node: index });
        }
        let layout = self.layout_of(&op, inputs);
        self.graph.nodes.push(Node { op, inputs: inputs.to_vec(), channels, layout, stride });
        index
    }

    pub(super) fn strided(&self, x: usize, stride: usize) -> Option<usize> {
        self.graph.nodes.get(x)?.stride?.checked_mul(stride)
    }

    /// The stride after an enlargement.
    fn finer(&self, x: usize, factor: usize) -> Option<usize> {
        let stride = self.graph.nodes.get(x)?.stride?;
        (factor > 0 && stride.is_multiple_of(factor)).then(|| stride / factor)
    }

    /// A convolution without bias, as before batch norm.
    pub fn conv(&mut self, x: usize, name: impl Into<String>, channels: usize, options: ConvOptions) -> usize {
        self.convolution(x, name.into(), channels, options, false)
    }

    /// A convolution with bias.
    pub fn conv_with_bias(
        &mut self,
        x: usize,
        name: impl Into<String>,
        channels: usize,
        options: ConvOptions,
    ) -> usize {
        self.convolution(x, name.into(), channels, options, true)
    }

    fn convolution(&mut self, x: usize, name: String, channels: usize, options: ConvOptions, bias: bool) -> usize {
        let ConvOptions { kernel, stride, padding, groups } = options;
        let inputs = self.channels(x);
        if kernel == 0 || stride == 0 {
            self.fail(GraphError::Window { layer: name.clone() });
        }
        if groups == 0 || !inputs.is_multiple_of(groups) || !channels.is_multiple_of(groups) {
            self.fail(GraphError::Groups { layer: name.clone(), groups, inputs, outputs: channels });
        }
        let op = Op::Conv { name, kernel, stride, padding, groups, bias };
        self.push(op, &[x], channels, self.strided(x, stride))
    }

    /// A transposed convolution with or without bias.
    pub fn conv_transpose(
        &mut self,
        x: usize,
        name: impl Into<String>,
        channels: usize,
        options: ConvTransposeOptions,
    ) -> usize {
        let ConvTransposeOptions { kernel, stride, padding, output_padding, bias } = options;
        let name = name.into();
        if kernel == 0 || stride == 0 || output_padding >= stride.max(1) {
            self.fail(GraphError::Window { layer: name.clone() });
        }
        let finer = self.finer(x, stride);
        let op = Op::ConvTranspose { name, kernel, stride, padding, output_padding, bias };
        self.push(op, &[x], channels, finer)
    }

    /// Batch norm of the channels of `x`, with weight and bias.
    pub fn batch_norm(&mut self, x: usize, name: impl Into<String>, epsilon: f64) -> usize {
        let op = Op::BatchNorm { name: name.into(), epsilon, affine: true };
        self.push(op, &[x], self.channels(x), self.strided(x, 1))
    }

    /// Batch norm of the channels of `x`, without weight and bias.
    pub fn batch_norm_without_affine(&mut self, x: usize, name: impl Into<String>, epsilon: f64) -> usize {
        let op = Op::BatchNorm { name: name.into(), epsilon, affine: false };
        self.push(op, &[x], self.channels(x), self.strided(x, 1))
    }

    /// Instance norm of `x`, with weight and bias if `affine`.
    pub fn instance_norm(&mut self, x: usize, name: impl Into<String>, epsilon: f64, affine: bool) -> usize {
        let op = Op::InstanceNorm { name: name.into(), epsilon, affine };
        self.push(op, &[x], self.channels(x), self.strided(x, 1))
    }

    /// An element-wise function of `x`.
    pub fn activation(&mut self, x: usize, activation: Activation) -> usize {
        self.push(Op::Activation(activation), &[x], self.channels(x), self.strided(x, 1))
    }

    /// The sum of two results of one shape.
    pub fn add(&mut self, a: usize, b: usize) -> usize {
        let [first, second] = [a, b].map(|x| self.channels(x));
        if first != second {
            self.fail(GraphError::Channels { node: self.graph.nodes.len(), expected: first, found: second });
        }
        self.push(Op::Add, &[a, b], first, self.strided(a, 1))
    }

    /// The channels of `parts`, which have one height and width, one after another.
    pub fn concat(&mut self, parts: &[usize]) -> usize {
        let channels = parts.iter().map(|&part| self.channels(part)).sum();
        let stride = parts.first().and_then(|&part| self.strided(part, 1));
        self.push(Op::Concat, parts, channels, stride)
    }

    /// The values of `x` as another shape `[C, H, W]`: `[C H W, 1, 1]` before a linear layer, for example.
    pub fn reshape(&mut self, x: usize, shape: [usize; 3]) -> usize {
        self.push(Op::Reshape { shape }, &[x], shape[0], None)
    }

    /// `x` with zeros or its reflection around it.
    pub fn pad(&mut self, x: usize, sides: Padding, border: Border) -> usize {
        self.push(Op::Pad { sides, border }, &[x], self.channels(x), self.strided(x, 1))
    }

    /// `x` enlarged by a whole factor.
    pub fn upsample(&mut self, x: usize, factor: usize, interpolation: UpsampleMode) -> usize {
        if factor == 0 {
            self.fail(GraphError::Window { layer: "upsampling".to_owned() });
        }
        let finer = self.finer(x, factor);
        self.push(Op::Upsample { factor, interpolation }, &[x], self.channels(x), finer)
    }

    /// The softmax over the channels of `x`, `[N, C, 1, 1]`.
    pub fn softmax(&mut self, x: usize) -> usize {
        self.push(Op::Softmax, &[x], self.channels(x), None)
    }

    /// `x` times `gate`, `[C, 1, 1]`.
    pub fn gate(&mut self, x: usize, gate: usize) -> usize {
        let [first, second] = [x, gate].map(|x| self.channels(x));
        if first != second {
            self.fail(GraphError::Channels { node: self.graph.nodes.len(), expected: first, found: second });
        }
        self.push(Op::Gate, &[x, gate], first, self.strided(x, 1))
    }

    /// The mean over square windows; `count_padding` counts padding in the divisor, as is PyTorch's default.
    pub fn avg_pool(
        &mut self,
        x: usize,
        kernel: usize,
        stride: usize,
        padding: PaddingRule,
        count_padding: bool,
    ) -> usize {
        if kernel == 0 || stride == 0 {
            self.fail(GraphError::Window { layer: "average pooling".to_owned() });
        }
        let op = Op::AvgPool { kernel, stride, padding, count_padding };
        self.push(op, &[x], self.channels(x), self.strided(x, stride))
    }

    /// The maximum over square windows.
    pub fn max_pool(&mut self, x: usize, kernel: usize, stride: usize, padding: PaddingRule) -> usize {
        if kernel == 0 || stride == 0 {
            self.fail(GraphError::Window { layer: "max pooling".to_owned() });
        }
        let op = Op::MaxPool { kernel, stride, padding };
        self.push(op, &[x], self.channels(x), self.strided(x, stride))
    }

    /// Squeeze and excitation, with `reduced` channels between its two convolutions.
    pub fn squeeze_excite(
        &mut self,
        x: usize,
        [reduce, expand]: [String; 2],
        reduced: usize,
        activation: Activation,
    ) -> usize {
        let op = Op::SqueezeExcite { reduce, expand, reduced, activation };
        self.push(op, &[x], self.channels(x), self.strided(x, 1))
    }

    /// The mean of each channel.
    pub fn global_avg_pool(&mut self, x: usize) -> usize {
        self.push(Op::GlobalAvgPool, &[x], self.channels(x), None)
    }

    /// The maximum of each channel.
    pub fn global_max_pool(&mut self, x: usize) -> usize {
        self.push(Op::GlobalMaxPool, &[x], self.channels(x), None)
    }

    /// Dropout of this share of the values, in [0, 1).
    pub fn dropout(&mut self, x: usize, rate: f32) -> usize {
        self.push(Op::Dropout { rate }, &[x], self.channels(x), self.strided(x, 1))
    }

    /// A fully connected layer with bias on `[N, C, 1, 1]`, or on each token.
    pub fn linear(&mut self, x: usize, name: impl Into<String>, outputs: usize) -> usize {
        let stride = self.strided(x, 1).filter(|_| self.layout(x) == NodeLayout::Tokens);
        self.push(Op::Linear { name: name.into(), bias: true }, &[x], outputs, stride)
    }

    /// A fully connected layer without bias on `[N, C, 1, 1]`, or on each token.
    pub fn linear_without_bias(&mut self, x: usize, name: impl Into<String>, outputs: usize) -> usize {
        let stride = self.strided(x, 1).filter(|_| self.layout(x) == NodeLayout::Tokens);
        self.push(Op::Linear { name: name.into(), bias: false }, &[x], outputs, stride)
    }

    /// Global average pooling and a linear layer: the tap `logits`.
    pub fn classifier(&mut self, x: usize, name: impl Into<String>, classes: usize) {
        let pooled = self.global_avg_pool(x);
        let logits = self.linear(pooled, name, classes);
        self.tap("logits", logits);
    }

    /// Names a node's result, so that it can be taken as an output.
    pub fn tap(&mut self, name: impl Into<String>, node: usize) {
        let name = name.into();
        if node >= self.graph.nodes.len() {
            self.fail(GraphError::UnknownNode { node: self.graph.nodes.len(), input: node });
        }
        if self.graph.taps.iter().any(|tap| tap.name == name) {
            self.fail(GraphError::Duplicate { what: "tap", name: name.clone() });
        }
        self.graph.taps.push(Tap { name, node });
    }

    /// The graph.
    ///
    /// # Errors
    /// The first contradiction in the description, and two parameters of one name.
    pub fn finish(self) -> Result<Graph, GraphError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut names = BTreeSet::new();
        for parameter in self.graph.parameters() {
            if !names.insert(parameter.name.clone()) {
                return Err(GraphError::Duplicate { what: "parameter", name: parameter.name });
            }
        }
        Ok(self.graph)
    }
}
