//! Planning of a graph into steps.

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Activation, Padding, Pool2d};
use nomaly_kernels::training::{
    AfterNorm, AverageOver, BatchNorm, ChannelScale, Concat, Conv2d, ConvShape, ConvTranspose2d, ConvTransposeShape,
    Dropout, GroupNorm, Pad, Pool, Reads, ScalePer, TrainingError, Upsample, linear,
};

use crate::graph::{Graph, Node, Op, Parameter, ParameterRole};
use crate::weights::Weights;

use super::error::{TrainableError, in_layer};
use super::tokens::{self, TokenKind};

/// A trained tensor or a running statistic.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) role: ParameterRole,
    pub(super) values: Vec<f32>,
    /// Empty for a statistic.
    pub(super) gradient: Vec<f32>,
}

/// Indices of a step's parameters, in the order of the graph.
pub(super) type Slots = Vec<usize>;

/// The operation of a step.
#[derive(Debug)]
pub(super) enum Kind {
    Input,
    Conv(Conv2d),
    ConvTranspose(ConvTranspose2d),
    BatchNorm {
        plan: BatchNorm,
        /// Mean and variance of the batch.
        batch: [Vec<f32>; 2],
        affine: bool,
    },
    InstanceNorm(GroupNorm),
    Activation(Activation),
    Add,
    Concat(Concat),
    Reshape,
    Pad(Pad),
    Upsample(Upsample),
    MaxPool {
        plan: Pool,
        places: Vec<u32>,
    },
    AvgPool {
        plan: Pool,
        over: AverageOver,
    },
    Dropout {
        plan: Dropout,
        /// The key of the last pass's mask.
        key: u64,
    },
    /// Positions of a plane.
    GlobalAverage(usize),
    Linear(Conv2d),
    Gate(ChannelScale),
    /// The number of channels.
    Softmax(usize),
    Tokens(TokenKind),
}

impl Kind {
    /// Whether the gradient is computed from the inputs.
    fn keeps_inputs(&self) -> bool {
        match self {
            Self::Conv(_)
            | Self::ConvTranspose(_)
            | Self::BatchNorm { .. }
            | Self::InstanceNorm(_)
            | Self::Linear(_)
            | Self::Gate(_) => true,
            Self::Activation(activation) => activation.gradient_reads() == Reads::Input,
            Self::Tokens(kind) => kind.keeps_inputs(),
            _ => false,
        }
    }

    /// Whether the gradient is computed from the output.
    pub(super) fn keeps_output(&self) -> bool {
        match self {
            Self::Activation(activation) => matches!(activation.gradient_reads(), Reads::Output | Reads::Either),
            Self::Softmax(_) => true,
            _ => false,
        }
    }
}

/// One step of a pass.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) name: String,
    /// Steps whose results it reads.
    pub(super) inputs: Vec<usize>,
    pub(super) slots: Slots,
    /// Result of one image, `[C, H, W]`.
    pub(super) shape: [usize; 3],
    /// The last step that reads the result in the forward pass.
    pub(super) last_use: usize,
    /// Whether the result is needed after that, by a gradient or the caller.
    pub(super) kept: bool,
}

impl Step {
    /// Values of one image.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Steps, parameters, and the steps that are inputs and outputs.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) slots: Vec<Slot>,
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
}

/// Plans the steps that `targets` (nodes of the graph) need, for inputs of these heights and widths.
pub(super) fn plan(
    graph: &Graph,
    targets: &[usize],
    sizes: &[[usize; 2]],
    weights: &Weights,
    isa: Isa,
) -> Result<Plan, TrainableError> {
    let nodes = graph.nodes();
    let shapes = graph.shapes(sizes)?;
    let needed = graph.needed(targets);
    let consumers = |index: usize| -> Vec<usize> {
        (0..nodes.len()).filter(|&other| needed[other] && nodes[other].inputs.contains(&index)).collect()
    };
    // The step of each node's result.
    let mut step_of = vec![0; nodes.len()];
    let mut planner = Planner { plan: Plan::default(), isa };
    for (index, node) in nodes.iter().enumerate() {
        // All inputs are given, whether the targets need them or not.
        if !needed[index] && node.op != Op::Input {
            continue;
        }
        let inputs: Vec<usize> = node.inputs.iter().map(|&input| step_of[input]).collect();
        // An activation that is the only reader of a batch norm is fused into it.
        if let [input] = node.inputs[..]
            && fused(nodes, input, &consumers(input), targets) != AfterNorm::Nothing
        {
            step_of[index] = inputs[0];
            continue;
        }
        let after = fused(nodes, index, &consumers(index), targets);
        let slots = planner.slots(graph, index, weights)?;
        let name = node.op.label();
        if let Some(kind) = tokens::kind(graph, index, &shapes, isa).map_err(in_layer(&name))? {
            step_of[index] = planner.push(Kind::Tokens(kind), &name, inputs, slots, shapes[index]);
            continue;
        }
        step_of[index] = planner.node(node, inputs, slots, shapes[index], after)?;
    }
    let Planner { mut plan, .. } = planner;
    plan.inputs = graph.inputs().map(|input| step_of[input]).collect();
    plan.outputs = targets.iter().map(|&target| step_of[target]).collect();
    for index in 0..plan.steps.len() {
        let keeps = plan.steps[index].kind.keeps_inputs();
        plan.steps[index].kept |= plan.steps[index].kind.keeps_output();
        for input in plan.steps[index].inputs.clone() {
            plan.steps[input].last_use = index;
            plan.steps[input].kept |= keeps;
        }
    }
    for &output in &plan.outputs {
        plan.steps[output].kept = true;
    }
    Ok(plan)
}

/// The activation that is fused into the batch norm at `norm`: that of its only reader.
fn fused(nodes: &[Node], norm: usize, consumers: &[usize], targets: &[usize]) -> AfterNorm {
    match (&nodes[norm].op, consumers) {
        (Op::BatchNorm { .. }, &[reader]) if !targets.contains(&norm) => match nodes[reader].op {
            Op::Activation(Activation::Relu) => AfterNorm::Relu,
            Op::Activation(Activation::LeakyRelu(slope)) => AfterNorm::LeakyRelu(slope),
            _ => AfterNorm::Nothing,
        },
        _ => AfterNorm::Nothing,
    }
}

/// A plan in the making.
struct Planner {
    plan: Plan,
    isa: Isa,
}

impl Planner {
    fn push(&mut self, kind: Kind, name: &str, inputs: Vec<usize>, slots: Slots, shape: [usize; 3]) -> usize {
        self.plan.steps.push(Step { kind, name: name.to_owned(), inputs, slots, shape, last_use: 0, kept: false });
        self.plan.steps.len() - 1
    }

    /// Adds the steps of a node, and returns the one that has its result.
    fn node(
        &mut self,
        node: &Node,
        inputs: Vec<usize>,
        slots: Slots,
        shape: [usize; 3],
        after: AfterNorm,
    ) -> Result<usize, TrainableError> {
        let name = node.op.label();
        let from: Vec<[usize; 3]> = inputs.iter().map(|&input| self.plan.steps[input].shape).collect();
        if let Op::SqueezeExcite { reduced, activation, .. } = node.op {
            return self.squeeze_excite(&name, inputs[0], &slots, reduced, activation).map_err(in_layer(&name));
        }
        let kind = kind(&node.op, &from, shape, after, self.isa).map_err(in_layer(&name))?;
        Ok(self.push(kind, &name, inputs, slots, shape))
    }

    fn squeeze_excite(
        &mut self,
        name: &str,
        x: usize,
        slots: &[usize],
        reduced: usize,
        activation: Activation,
    ) -> Result<usize, TrainingError> {
        let [channels, height, width] = self.plan.steps[x].shape;
        let (reduce, expand) = slots.split_at(2);
        let [wide, narrow] = [[channels, 1, 1], [reduced, 1, 1]];
        let mean = self.push(Kind::GlobalAverage(height * width), name, vec![x], Slots::new(), wide);
        let plan = linear(self.isa, channels, reduced)?;
        let hidden = self.push(Kind::Linear(plan), name, vec![mean], reduce.to_vec(), narrow);
        let hidden = self.push(Kind::Activation(activation), name, vec![hidden], Slots::new(), narrow);
        let plan = linear(self.isa, reduced, channels)?;
        let gate = self.push(Kind::Linear(plan), name, vec![hidden], expand.to_vec(), wide);
        let gate = self.push(Kind::Activation(Activation::Sigmoid), name, vec![gate], Slots::new(), wide);
        let scale = ChannelScale::new(self.isa, ScalePer::Plane, channels, height * width)?;
        Ok(self.push(Kind::Gate(scale), name, vec![x, gate], Slots::new(), [channels, height, width]))
    }

    /// Takes the parameters of a node from the weights.
    fn slots(&mut self, graph: &Graph, index: usize, weights: &Weights) -> Result<Slots, TrainableError> {
        let mut indices = Slots::new();
        for Parameter { name, shape, role } in graph.parameters_of(index) {
            let values = values(&name, &shape, weights)?;
            let gradient = if role.is_trained() { vec![0.0; values.len()] } else { Vec::new() };
            indices.push(self.plan.slots.len());
            self.plan.slots.push(Slot { name, shape, role, values, gradient });
        }
        Ok(indices)
    }
}

/// The step of an operation on inputs of shapes `from`, with a result of shape `to`.
fn kind(op: &Op, from: &[[usize; 3]], to: [usize; 3], after: AfterNorm, isa: Isa) -> Result<Kind, TrainingError> {
    let [in_channels, height, width] = from.first().copied().unwrap_or(to);
    let (input, plane) = ([height, width], height * width);
    let channels = to[0];
    Ok(match op {
        Op::Input => Kind::Input,
        Op::Conv { kernel, stride, padding, groups, .. } => Kind::Conv(Conv2d::new(
            isa,
            ConvShape {
                in_channels,
                out_channels: channels,
                input,
                kernel: [*kernel; 2],
                stride: [*stride; 2],
                padding: padding.resolve(input, *kernel, *stride),
                groups: *groups,
            },
        )?),
        Op::ConvTranspose { kernel, stride, padding, output_padding, .. } => Kind::ConvTranspose(ConvTranspose2d::new(
            isa,
            ConvTransposeShape {
                in_channels,
                out_channels: channels,
                input,
                kernel: [*kernel; 2],
                stride: [*stride; 2],
                padding: Padding::symmetric(*padding),
                output_padding: [*output_padding; 2],
            },
        )?),
        Op::BatchNorm { epsilon, affine, .. } => Kind::BatchNorm {
            plan: BatchNorm::new(isa, channels, plane, *epsilon, after)?,
            batch: [vec![0.0; channels], vec![0.0; channels]],
            affine: *affine,
        },
        Op::InstanceNorm { epsilon, .. } => Kind::InstanceNorm(GroupNorm::instance(isa, channels, plane, *epsilon)?),
        Op::Activation(activation) => Kind::Activation(*activation),
        Op::Add => Kind::Add,
        Op::Concat => {
            let channels: Vec<usize> = from.iter().map(|[channels, ..]| *channels).collect();
            Kind::Concat(Concat::new(&channels, plane)?)
        }
        Op::Reshape { .. } => Kind::Reshape,
        Op::Pad { sides, border } => Kind::Pad(Pad::new(input, *sides, *border)?),
        Op::Upsample { factor, interpolation } => {
            Kind::Upsample(Upsample::by_factor(isa, input, [*factor; 2], *interpolation)?)
        }
        Op::MaxPool { kernel, stride, padding } => {
            let padding = padding.resolve(input, *kernel, *stride);
            let pool = Pool2d { kernel: [*kernel; 2], stride: [*stride; 2], padding };
            Kind::MaxPool { plan: Pool::new(input, pool)?, places: Vec::new() }
        }
        Op::AvgPool { kernel, stride, padding, count_padding } => {
            let padding = padding.resolve(input, *kernel, *stride);
            let pool = Pool2d { kernel: [*kernel; 2], stride: [*stride; 2], padding };
            let over = if *count_padding { AverageOver::Window } else { AverageOver::Inside };
            Kind::AvgPool { plan: Pool::new(input, pool)?, over }
        }
        Op::GlobalAvgPool => Kind::GlobalAverage(plane),
        Op::GlobalMaxPool => {
            let pool = Pool2d { kernel: input, stride: [1; 2], padding: Padding::default() };
            Kind::MaxPool { plan: Pool::new(input, pool)?, places: Vec::new() }
        }
        Op::Dropout { rate } => Kind::Dropout { plan: Dropout::new(f64::from(*rate))?, key: 0 },
        Op::SqueezeExcite { .. } => unreachable!("squeeze and excitation is several steps"),
        Op::Linear { .. } => Kind::Linear(linear(isa, in_channels, channels)?),
        Op::Gate => Kind::Gate(ChannelScale::new(isa, ScalePer::Plane, channels, plane)?),
        Op::Softmax => Kind::Softmax(channels),
        Op::Tokens
        | Op::TokenGrid { .. }
        | Op::SelectToken { .. }
        | Op::InsertTokens { .. }
        | Op::PositionEmbedding { .. }
        | Op::LayerNorm { .. }
        | Op::Attention { .. }
        | Op::LayerScale { .. } => unreachable!("steps on tokens are planned before"),
    })
}

/// The values of one parameter, which the weights must have in that shape.
pub(super) fn values(name: &str, shape: &[usize], weights: &Weights) -> Result<Vec<f32>, TrainableError> {
    let tensor = weights.get(name).ok_or_else(|| TrainableError::MissingTensor { tensor: name.to_owned() })?;
    if tensor.shape != shape {
        let (expected, found) = (shape.to_vec(), tensor.shape.clone());
        return Err(TrainableError::Shape { tensor: name.to_owned(), expected, found });
    }
    Ok(tensor.to_f32()?)
}
