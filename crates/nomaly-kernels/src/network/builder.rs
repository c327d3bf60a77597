//! The description of a network; every shape is checked here, before anything runs.

use super::node::{DepthwiseLayer, Node, Op};
use super::plan;
use super::{
    Activation, Algorithm, CompiledNetwork, ConvLayer, NetworkError, NodeId, OutputLayout, Pool2d, SqueezeExcite,
};
use crate::conv::{self, DenseWeights, DepthwiseWeights, WinogradWeights, winograd};
use crate::isa::Isa;
use crate::simd::Token;
use crate::window::Window;

/// The most values that one tensor or weight may have, padding included: 8 GiB, and positions fit into 32 bits.
const MAX_VALUES: usize = 1 << 31;

/// Describes a network node by node; [`finish`](Self::finish) makes it runnable.
///
/// Weights are packed for the instruction set when a node is added, so the caller's slices are not kept.
#[derive(Debug)]
pub struct NetworkBuilder {
    isa: Isa,
    algorithm: Algorithm,
    nodes: Vec<Node>,
}

impl NetworkBuilder {
    /// An empty network for one instruction set; [`finish`](Self::finish) fails if this processor does not have it.
    pub fn new(isa: Isa) -> Self {
        Self { isa, algorithm: Algorithm::Auto, nodes: Vec::new() }
    }

    /// Sets the algorithm of convolutions added from now on; those that it cannot compute stay direct.
    pub fn set_algorithm(&mut self, algorithm: Algorithm) {
        self.algorithm = algorithm;
    }

    /// Declares the input: one image `[channels, height, width]`, or a batch of them when run.
    pub fn input(&mut self, channels: usize, height: usize, width: usize) -> NodeId {
        self.push(Op::Input { planar: false }, vec![], [channels, height, width])
    }

    /// Adds a convolution with bias, residual and activation.
    ///
    /// # Errors
    /// On zero sizes, wrong lengths of `weight` or `bias`, a kernel larger than the padded input, padding not smaller
    /// than the kernel, a residual of another shape, or groups that are neither 1 nor depthwise.
    pub fn conv2d(&mut self, x: NodeId, conv: ConvLayer<'_>) -> Result<NodeId, NetworkError> {
        let [channels, height, width] = self.checked_shape(x)?;
        let out = conv.out_channels;
        if out == 0 {
            return Err(NetworkError::ZeroSize { what: "the number of output channels" });
        }
        let depthwise = conv.groups > 1 && conv.groups == channels && out == channels;
        if conv.groups != 1 && !depthwise {
            return Err(NetworkError::Groups { groups: conv.groups, input: channels, output: out });
        }
        let window = Window { kernel: conv.kernel, stride: conv.stride, padding: conv.padding };
        let [out_height, out_width] = window.output([height, width])?;
        let shape = [out, out_height, out_width];
        self.check_volume("the output of the convolution", shape, conv.padding)?;
        self.check_volume("the padded input of the convolution", [channels, height, width], conv.padding)?;

        let taps = product(&[out, channels / conv.groups, conv.kernel[0], conv.kernel[1]], "the convolution weight")?;
        check_length("the convolution weight", taps, conv.weight.len())?;
        if let Some(bias) = conv.bias {
            check_length("the convolution bias", out, bias.len())?;
        }
        let mut inputs = vec![x];
        if let Some(residual) = conv.residual {
            self.same_shape("the residual of the convolution", shape, residual)?;
            inputs.push(residual);
        }
        let lanes = self.isa.lanes();
        let op = if depthwise {
            let weights = DepthwiseWeights::pack(conv.weight, conv.bias, channels, conv.kernel, lanes);
            Op::Depthwise(Box::new(DepthwiseLayer { weights, window, activation: conv.activation, expand: None }))
        } else if let Some(outputs) = self.tiles(&window, [channels, out], [out_height, out_width]) {
            let padding = winograd::padding(outputs, &window, [height, width]);
            self.check_volume("the padded input of the convolution", [channels, height, width], padding)?;
            let weights = WinogradWeights::pack(conv.weight, conv.bias, [out, channels], lanes, outputs);
            Op::Winograd { weights, window, activation: conv.activation }
        } else {
            let planar = matches!(self.nodes[x.0].op, Op::Input { .. }) && conv::reads_planar(channels);
            if planar {
                inputs[0] = self.planar_input(x);
            }
            let weights = DenseWeights::pack(conv.weight, conv.bias, [out, channels], conv.kernel, lanes, planar);
            Op::Dense { weights, window, activation: conv.activation, gated: false }
        };
        Ok(self.push(op, inputs, shape))
    }

    /// Adds `activation(x * scale + shift)` with `scale` and `shift` `[C]`: a batch norm that cannot be folded into a
    /// convolution before it.
    ///
    /// # Errors
    /// When the lengths are not the number of channels.
    pub fn affine(
        &mut self,
        x: NodeId,
        scale: &[f32],
        shift: &[f32],
        activation: Activation,
    ) -> Result<NodeId, NetworkError> {
        let shape = self.checked_shape(x)?;
        check_length("the scale of the affine map", shape[0], scale.len())?;
        check_length("the shift of the affine map", shape[0], shift.len())?;
        let pad = |values: &[f32]| {
            let mut padded = values.to_vec();
            padded.resize(shape[0].next_multiple_of(self.isa.lanes()), 0.0);
            padded
        };
        let op = Op::Affine { scale: pad(scale), shift: pad(shift), activation };
        Ok(self.push(op, vec![x], shape))
    }

    /// Adds `activation(a + b)`.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn add(&mut self, a: NodeId, b: NodeId, activation: Activation) -> Result<NodeId, NetworkError> {
        let shape = self.checked_shape(a)?;
        self.same_shape("the second term of the sum", shape, b)?;
        Ok(self.push(Op::Add { activation }, vec![a, b], shape))
    }

    /// Adds maximum pooling; positions in the padding do not take part.
    ///
    /// # Errors
    /// On zero sizes, a kernel larger than the padded input, or padding not smaller than the kernel.
    pub fn max_pool(&mut self, x: NodeId, pool: Pool2d) -> Result<NodeId, NetworkError> {
        self.pool(x, pool, |window| Op::MaxPool { window })
    }

    /// Adds average pooling. The divisor is the number of positions inside the image, or the whole window with
    /// `count_include_pad`.
    ///
    /// # Errors
    /// As [`max_pool`](Self::max_pool).
    pub fn avg_pool(&mut self, x: NodeId, pool: Pool2d, count_include_pad: bool) -> Result<NodeId, NetworkError> {
        self.pool(x, pool, |window| Op::AvgPool { window, count_include_pad })
    }

    /// Adds the mean over all positions: `[C, H, W]` to `[C, 1, 1]`.
    ///
    /// # Errors
    /// When `x` is not a node of this builder or has no positions.
    pub fn global_avg_pool(&mut self, x: NodeId) -> Result<NodeId, NetworkError> {
        let [channels, ..] = self.checked_shape(x)?;
        Ok(self.push(Op::Mean, vec![x], [channels, 1, 1]))
    }

    /// Adds channel attention.
    ///
    /// # Errors
    /// On a bottleneck of width zero or wrong lengths.
    pub fn squeeze_excite(&mut self, x: NodeId, se: SqueezeExcite<'_>) -> Result<NodeId, NetworkError> {
        let shape = self.checked_shape(x)?;
        let mean = self.global_avg_pool(x)?;
        let reduced = self.dense(mean, se.reduced, se.reduce_weight, Some(se.reduce_bias), se.activation)?;
        let gate = self.dense(reduced, shape[0], se.expand_weight, Some(se.expand_bias), Activation::Sigmoid)?;
        Ok(self.push(Op::Scale, vec![x, gate], shape))
    }

    /// Adds a fully connected layer: `x` is `[C, 1, 1]`, `weight` is `[out_features, C]`.
    ///
    /// # Errors
    /// When `x` has more than one position, or on wrong lengths.
    pub fn linear(
        &mut self,
        x: NodeId,
        out_features: usize,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<NodeId, NetworkError> {
        let shape = self.checked_shape(x)?;
        let expected = [shape[0], 1, 1];
        if shape != expected {
            return Err(NetworkError::Shape { what: "the input of a linear layer", expected, found: shape });
        }
        self.dense(x, out_features, weight, bias, Activation::Identity)
    }

    /// The shape `[C, H, W]` of a node.
    ///
    /// # Panics
    /// When `id` was made by a larger builder.
    pub fn shape(&self, id: NodeId) -> [usize; 3] {
        self.nodes[id.0].shape
    }

    /// Plans the memory and makes the network runnable. Nodes that no output needs are dropped.
    ///
    /// # Errors
    /// When this processor does not have the instruction set, there is no output, an output is not a node of this
    /// builder, or there is not exactly one input.
    pub fn finish(self, outputs: &[(NodeId, OutputLayout)]) -> Result<CompiledNetwork, NetworkError> {
        let token = Token::new(self.isa)?;
        let mut inputs = self.nodes.iter().filter(|node| matches!(node.op, Op::Input { planar: false }));
        let Some(input_shape) = inputs.next().map(|node| node.shape) else {
            return Err(NetworkError::InputCount { found: 0 });
        };
        let further = inputs.count();
        if further > 0 {
            return Err(NetworkError::InputCount { found: 1 + further });
        }
        if outputs.is_empty() {
            return Err(NetworkError::NoOutputs);
        }
        for (node, _) in outputs {
            self.checked_shape(*node)?;
        }
        let plan = plan::plan(self.nodes, outputs, self.isa.lanes(), token.columns());
        Ok(CompiledNetwork::new(token, input_shape, plan))
    }

    fn dense(
        &mut self,
        x: NodeId,
        out_channels: usize,
        weight: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
    ) -> Result<NodeId, NetworkError> {
        let conv = ConvLayer {
            out_channels,
            kernel: [1, 1],
            stride: [1, 1],
            padding: Default::default(),
            groups: 1,
            weight,
            bias,
            activation,
            residual: None,
        };
        self.conv2d(x, conv)
    }

    /// The side of the output tiles of Winograd's algorithm, if it is used.
    fn tiles(&self, window: &Window, channels: [usize; 2], output: [usize; 2]) -> Option<usize> {
        match self.algorithm {
            Algorithm::Auto => winograd::choose(window, channels, output, self.isa.lanes()),
            Algorithm::Direct => None,
            Algorithm::Winograd2 => winograd::is_possible(window).then_some(2),
            Algorithm::Winograd4 => winograd::is_possible(window).then_some(4),
        }
    }

    fn pool(&mut self, x: NodeId, pool: Pool2d, op: impl FnOnce(Window) -> Op) -> Result<NodeId, NetworkError> {
        let [channels, height, width] = self.checked_shape(x)?;
        let window = Window { kernel: pool.kernel, stride: pool.stride, padding: pool.padding };
        let [out_height, out_width] = window.output([height, width])?;
        Ok(self.push(op(window), vec![x], [channels, out_height, out_width]))
    }

    /// A second input node in the caller's layout, for first layers that read it directly.
    fn planar_input(&mut self, x: NodeId) -> NodeId {
        let shape = self.nodes[x.0].shape;
        match self.nodes.iter().position(|node| matches!(node.op, Op::Input { planar: true })) {
            Some(index) => NodeId(index),
            None => self.push(Op::Input { planar: true }, vec![], shape),
        }
    }

    fn push(&mut self, op: Op, inputs: Vec<NodeId>, shape: [usize; 3]) -> NodeId {
        self.nodes.push(Node { op, inputs, shape, sums: None });
        NodeId(self.nodes.len() - 1)
    }

    /// The shape of a node, if it exists and can be computed.
    fn checked_shape(&self, id: NodeId) -> Result<[usize; 3], NetworkError> {
        let count = self.nodes.len();
        let node = self.nodes.get(id.0).ok_or(NetworkError::UnknownNode { node: id.0, count })?;
        if node.shape.contains(&0) {
            return Err(NetworkError::ZeroSize { what: "a size of the network's input" });
        }
        self.check_volume("a tensor", node.shape, Default::default())?;
        Ok(node.shape)
    }

    fn same_shape(&self, what: &'static str, expected: [usize; 3], id: NodeId) -> Result<(), NetworkError> {
        let found = self.checked_shape(id)?;
        if found == expected { Ok(()) } else { Err(NetworkError::Shape { what, expected, found }) }
    }

    fn check_volume(
        &self,
        what: &'static str,
        [channels, height, width]: [usize; 3],
        padding: super::Padding,
    ) -> Result<(), NetworkError> {
        let rows = height.saturating_add(padding.top).saturating_add(padding.bottom);
        let columns = width.saturating_add(padding.left).saturating_add(padding.right);
        let channels = channels.saturating_add(self.isa.lanes());
        product(&[channels, rows, columns], what).map(drop)
    }
}

fn check_length(what: &'static str, expected: usize, found: usize) -> Result<(), NetworkError> {
    if expected == found { Ok(()) } else { Err(NetworkError::Length { what, expected, found }) }
}

/// The product of the sizes, if a tensor of that many values is allowed.
fn product(sizes: &[usize], what: &'static str) -> Result<usize, NetworkError> {
    sizes
        .iter()
        .try_fold(1usize, |all, size| all.checked_mul(*size))
        .filter(|all| *all <= MAX_VALUES)
        .ok_or(NetworkError::TooLarge { what })
}
