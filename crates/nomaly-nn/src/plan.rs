//! Compilation of a graph and weights to a CPU network.
//!
//! Does everything that can be done before the first image: the graph is cut at the deepest tap, batch norm is folded
//! into the convolution before it (or becomes one affine step), and activations and residual sums are fused into the
//! step that computes their operand.

use nomaly_kernels::Isa;
use nomaly_kernels::network::{
    Activation, CompiledNetwork, ConvLayer, NetworkBuilder, NetworkError, NodeId, OutputLayout, Padding, Pool2d,
    SqueezeExcite,
};

use crate::error::CompileError;
use crate::graph::{Graph, NodeLayout, Op};
use crate::parameters::Parameters;
use crate::weights::Weights;

/// Compiles the part of `graph` that `outputs` (node index, layout) need, for images of `input` = (height, width).
///
/// A batch norm that the weights do not have counts as folded into the convolution before it.
///
/// # Errors
/// For a tensor that is missing or of another size, an input that is too small, an operation that the plan does not
/// have, and an instruction set that this machine lacks.
pub fn compile(
    graph: &Graph,
    weights: &Weights,
    input: [usize; 2],
    outputs: &[(usize, OutputLayout)],
    isa: Isa,
) -> Result<CompiledNetwork, CompileError> {
    let targets: Vec<usize> = outputs.iter().map(|&(node, _)| node).collect();
    let mut members = graph.needed(&targets);
    let inputs: Vec<usize> = graph.inputs().filter(|&input| members[input]).collect();
    let [source] = inputs[..] else {
        return Err(NetworkError::InputCount { found: inputs.len() }.into());
    };
    members[source] = false;
    let shape = [graph.nodes()[source].channels, input[0], input[1]];
    Part { graph, source, shape, members: &members }.compile(weights, outputs, isa)
}

/// A part of a graph that depends on the rest through one node alone.
pub(crate) struct Part<'a> {
    pub(crate) graph: &'a Graph,
    /// The node that it reads.
    pub(crate) source: usize,
    /// Shape `[C, H, W]` of what it reads.
    pub(crate) shape: [usize; 3],
    /// For each node of the graph, whether it is computed in this part; the source is not.
    pub(crate) members: &'a [bool],
}

impl Part<'_> {
    /// Compiles the part with these outputs (node index, layout).
    pub(crate) fn compile(
        &self,
        weights: &Weights,
        outputs: &[(usize, OutputLayout)],
        isa: Isa,
    ) -> Result<CompiledNetwork, CompileError> {
        let nodes = self.graph.nodes();
        let count = nodes.len();
        let reads_or_gives_tokens = |node: usize| nodes[node].layout == NodeLayout::Tokens;
        if (0..count).any(|node| (self.members[node] || node == self.source) && reads_or_gives_tokens(node)) {
            return unsupported("tokens");
        }
        let mut builder = NetworkBuilder::new(isa);
        let [channels, height, width] = self.shape;
        let mut steps = vec![None; count];
        steps[self.source] = Some(builder.input(channels, height, width));
        let mut compiler = Compiler {
            graph: self.graph,
            parameters: Parameters(weights),
            consumers: consumers(self.graph, self.members),
            tapped: (0..count).map(|index| outputs.iter().any(|&(node, _)| node == index)).collect(),
            builder,
            steps,
            fused: vec![false; count],
        };
        for (index, member) in self.members.iter().enumerate() {
            if *member && !compiler.fused[index] {
                compiler.emit(index)?;
            }
        }
        let mut taken = Vec::with_capacity(outputs.len());
        for &(node, layout) in outputs {
            taken.push((compiler.step(node), layout));
        }
        Ok(compiler.builder.finish(&taken)?)
    }
}

/// For each node, the members that read it.
pub(crate) fn consumers(graph: &Graph, members: &[bool]) -> Vec<Vec<usize>> {
    let mut consumers = vec![Vec::new(); graph.nodes().len()];
    for index in (0..members.len()).filter(|&index| members[index]) {
        for &input in &graph.nodes()[index].inputs {
            consumers[input].push(index);
        }
    }
    consumers
}

fn unsupported<T>(operation: &'static str) -> Result<T, CompileError> {
    Err(CompileError::Unsupported { operation })
}

struct Compiler<'a> {
    graph: &'a Graph,
    parameters: Parameters<'a>,
    consumers: Vec<Vec<usize>>,
    tapped: Vec<bool>,
    builder: NetworkBuilder,
    /// The step that computes each node's result, once it exists.
    steps: Vec<Option<NodeId>>,
    /// Nodes that are part of an earlier node's step.
    fused: Vec<bool>,
}

impl Compiler<'_> {
    /// The step of an earlier node, which exists by topological order.
    fn step(&self, node: usize) -> NodeId {
        self.steps[node].expect("nodes are compiled in topological order")
    }

    /// The only node that reads `node`, if its result is not an output.
    fn only_consumer(&self, node: usize) -> Option<usize> {
        match self.consumers[node][..] {
            [consumer] if !self.tapped[node] => Some(consumer),
            _ => None,
        }
    }

    /// Fuses the activation that is the only reader of `node` into its step.
    fn fuse_activation(&mut self, node: usize) -> (usize, Activation) {
        if let Some(next) = self.only_consumer(node)
            && let Op::Activation(activation) = self.graph.nodes()[next].op
        {
            self.fused[next] = true;
            return (next, activation);
        }
        (node, Activation::Identity)
    }

    fn emit(&mut self, index: usize) -> Result<(), CompileError> {
        let node = &self.graph.nodes()[index];
        let (result, step) = match &node.op {
            Op::Input => return unsupported("a second input"),
            Op::Conv { .. } => self.convolution(index)?,
            Op::BatchNorm { name, epsilon, affine } => {
                let (result, activation) = self.fuse_activation(index);
                let norm = self.parameters.norm(name, *epsilon, *affine)?;
                let step = self.builder.affine(self.step(node.inputs[0]), &norm.scale, &norm.shift, activation)?;
                (result, step)
            }
            Op::Activation(activation) => {
                let (ones, zeros) = (vec![1.0; node.channels], vec![0.0; node.channels]);
                (index, self.builder.affine(self.step(node.inputs[0]), &ones, &zeros, *activation)?)
            }
            Op::Add => {
                let (result, activation) = self.fuse_activation(index);
                let [a, b] = [node.inputs[0], node.inputs[1]].map(|input| self.step(input));
                (result, self.builder.add(a, b, activation)?)
            }
            Op::MaxPool { kernel, stride, padding } => {
                let x = self.step(node.inputs[0]);
                let [_, height, width] = self.builder.shape(x);
                let pool = Pool2d {
                    kernel: [*kernel; 2],
                    stride: [*stride; 2],
                    padding: padding.resolve([height, width], *kernel, *stride),
                };
                (index, self.builder.max_pool(x, pool)?)
            }
            Op::GlobalAvgPool => (index, self.builder.global_avg_pool(self.step(node.inputs[0]))?),
            Op::GlobalMaxPool => {
                let x = self.step(node.inputs[0]);
                let [_, height, width] = self.builder.shape(x);
                let pool = Pool2d { kernel: [height, width], stride: [1; 2], padding: Padding::default() };
                (index, self.builder.max_pool(x, pool)?)
            }
            Op::Dropout { .. } => (index, self.step(node.inputs[0])),
            Op::SqueezeExcite { reduce, expand, reduced, activation } => {
                let squeeze = SqueezeExcite {
                    reduced: *reduced,
                    reduce_weight: &self.parameters.values(reduce, "weight")?,
                    reduce_bias: &self.parameters.values(reduce, "bias")?,
                    activation: *activation,
                    expand_weight: &self.parameters.values(expand, "weight")?,
                    expand_bias: &self.parameters.values(expand, "bias")?,
                };
                (index, self.builder.squeeze_excite(self.step(node.inputs[0]), squeeze)?)
            }
            Op::Linear { name, bias } => {
                let weight = self.parameters.values(name, "weight")?;
                let bias = if *bias { Some(self.parameters.values(name, "bias")?) } else { None };
                let x = self.step(node.inputs[0]);
                (index, self.builder.linear(x, node.channels, &weight, bias.as_deref())?)
            }
            Op::AvgPool { kernel, stride, padding, count_padding } => {
                let x = self.step(node.inputs[0]);
                let [_, height, width] = self.builder.shape(x);
                let pool = Pool2d {
                    kernel: [*kernel; 2],
                    stride: [*stride; 2],
                    padding: padding.resolve([height, width], *kernel, *stride),
                };
                (index, self.builder.avg_pool(x, pool, *count_padding)?)
            }
            Op::ConvTranspose { .. } => return unsupported("a transposed convolution"),
            Op::InstanceNorm { .. } => return unsupported("instance norm"),
            Op::Concat => return unsupported("a concatenation"),
            Op::Reshape { .. } => return unsupported("a reshape"),
            Op::Pad { .. } => return unsupported("padding of its own"),
            Op::Upsample { .. } => return unsupported("upsampling"),
            Op::Softmax => return unsupported("softmax"),
            Op::Gate => return unsupported("a gate of its own"),
            Op::Tokens
            | Op::TokenGrid { .. }
            | Op::SelectToken { .. }
            | Op::InsertTokens { .. }
            | Op::PositionEmbedding { .. }
            | Op::LayerNorm { .. }
            | Op::Attention { .. }
            | Op::LayerScale { .. } => return unsupported("tokens"),
        };
        self.steps[result] = Some(step);
        Ok(())
    }

    /// A convolution fused with its followers: batch norm, a residual sum whose other operand already exists, an
    /// activation. Returns the last fused node and the step.
    fn convolution(&mut self, index: usize) -> Result<(usize, NodeId), CompileError> {
        let node = &self.graph.nodes()[index];
        let Op::Conv { name, kernel, stride, padding, groups, .. } = &node.op else {
            unreachable!("called for convolutions only")
        };
        let x = self.step(node.inputs[0]);
        let [_, height, width] = self.builder.shape(x);
        let mut weight = self.parameters.values(name, "weight")?;
        let mut bias = self.parameters.optional(name, "bias")?;

        let mut last = index;
        if let Some(next) = self.only_consumer(last)
            && let Op::BatchNorm { name, epsilon, affine } = &self.graph.nodes()[next].op
        {
            if self.parameters.has_norm(name) {
                let norm = self.parameters.norm(name, *epsilon, *affine)?;
                bias = Some(norm.fold(&mut weight, bias.as_deref()));
            }
            self.fused[next] = true;
            last = next;
        }
        let mut residual = None;
        if let Some(next) = self.only_consumer(last)
            && let Op::Add = self.graph.nodes()[next].op
            && let Some(&other) = self.graph.nodes()[next].inputs.iter().find(|&&input| input != last)
            && let Some(step) = self.steps[other]
        {
            residual = Some(step);
            self.fused[next] = true;
            last = next;
        }
        let (last, activation) = self.fuse_activation(last);

        let conv = ConvLayer {
            out_channels: node.channels,
            kernel: [*kernel; 2],
            stride: [*stride; 2],
            padding: padding.resolve([height, width], *kernel, *stride),
            groups: *groups,
            weight: &weight,
            bias: bias.as_deref(),
            activation,
            residual,
        };
        Ok((last, self.builder.conv2d(x, conv)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{ConvOptions, GraphBuilder};
    use crate::init::he_normal;

    #[test]
    fn dropout_is_nothing_to_a_plan() {
        let isa = Isa::best().unwrap();
        let image: Vec<f32> = (0..3 * 64).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let [plain, dropped] = [0.0, 0.5].map(|rate| {
            let mut builder = GraphBuilder::new(3);
            let x = builder.conv(GraphBuilder::INPUT, "conv1", 16, ConvOptions::centered(3, 1));
            let x = builder.batch_norm(x, "bn", 1e-5);
            let x = builder.activation(x, Activation::Relu);
            let x = builder.dropout(x, rate);
            let x = builder.conv(x, "conv2", 16, ConvOptions::centered(3, 1));
            builder.classifier(x, "fc", 3);
            let graph = builder.finish().unwrap();
            let weights = he_normal(&graph, 4);
            let logits = graph.taps()[0].node;
            let network = compile(&graph, &weights, [8, 8], &[(logits, OutputLayout::Mean)], isa).unwrap();
            let mut outputs = vec![Vec::new()];
            network.run(&image, 1, &mut network.workspace(1), &mut outputs).unwrap();
            outputs
        });
        assert_eq!(plain, dropped);
    }
}
