//! Planning of a graph into steps.

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Activation, Padding, Pool2d};
use nomaly_kernels::training::{AfterNorm, BatchNorm, Conv2d, ConvShape, Dropout, Pool, TrainingError, linear};

use crate::graph::{Graph, Op, ParameterRole};
use crate::weights::Weights;

use super::error::{TrainableError, in_layer};

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
    Norm {
        plan: BatchNorm,
        /// Mean and variance of the batch.
        batch: [Vec<f32>; 2],
    },
    Relu,
    Add,
    MaxPool {
        plan: Pool,
        places: Vec<u32>,
    },
    Dropout {
        plan: Dropout,
        /// The key of the last pass's mask.
        key: u64,
    },
    /// Positions of a plane.
    GlobalAverage(usize),
    Linear(Conv2d),
}

impl Kind {
    /// Whether the gradient is computed from the input.
    pub(super) fn keeps_input(&self) -> bool {
        matches!(self, Self::Conv(_) | Self::Norm { .. } | Self::Relu | Self::Linear(_))
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

/// Steps, parameters, and the steps that are outputs.
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) slots: Vec<Slot>,
    pub(super) outputs: Vec<usize>,
}

/// Plans the steps that `targets` (nodes of the graph) need.
pub(super) fn plan(
    graph: &Graph,
    targets: &[usize],
    [height, width]: [usize; 2],
    weights: &Weights,
    isa: Isa,
) -> Result<Plan, TrainableError> {
    let nodes = graph.nodes();
    let needed = graph.needed(targets);
    let consumers = |index: usize| -> Vec<usize> {
        (0..nodes.len()).filter(|&other| needed[other] && nodes[other].inputs.contains(&index)).collect()
    };
    let relu = |index: usize| matches!(nodes[index].op, Op::Activation(Activation::Relu));
    // The step of each node's result.
    let mut step_of = vec![0; nodes.len()];
    let mut plan = Plan { steps: Vec::new(), slots: Vec::new(), outputs: Vec::new() };
    for index in (0..nodes.len()).filter(|&index| needed[index]) {
        let node = &nodes[index];
        let inputs: Vec<usize> = node.inputs.iter().map(|&input| step_of[input]).collect();
        // A ReLU that is the only reader of a batch norm is fused into it.
        if let (true, [input]) = (relu(index), node.inputs.as_slice())
            && fuses(nodes, *input, &consumers(*input), targets)
        {
            step_of[index] = step_of[*input];
            continue;
        }
        let from = inputs.first().map_or([nodes[0].channels, height, width], |&input| plan.steps[input].shape);
        let name = name_of(&node.op);
        let followed = consumers(index);
        let fused = followed.first().is_some_and(|&next| relu(next)) && fuses(nodes, index, &followed, targets);
        let (kind, shape) = kind(&node.op, node.channels, from, fused, isa)?.map_err(in_layer(&name))?;
        let slots = slots(graph, index, weights, &mut plan.slots)?;
        step_of[index] = plan.steps.len();
        plan.steps.push(Step { kind, name, inputs, slots, shape, last_use: 0, kept: false });
    }
    plan.outputs = targets.iter().map(|&target| step_of[target]).collect();
    for index in 0..plan.steps.len() {
        let keeps = plan.steps[index].kind.keeps_input();
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

/// Whether the only reader of a batch norm is fused into it.
fn fuses(nodes: &[crate::graph::Node], norm: usize, consumers: &[usize], targets: &[usize]) -> bool {
    matches!(nodes[norm].op, Op::BatchNorm { .. }) && consumers.len() == 1 && !targets.contains(&norm)
}

/// The name of an operation in messages.
fn name_of(op: &Op) -> String {
    match op {
        Op::Conv { name, .. } | Op::BatchNorm { name, .. } | Op::Linear { name } => name.clone(),
        Op::SqueezeExcite { reduce, .. } => reduce.clone(),
        Op::Input => "input".to_owned(),
        Op::Activation(activation) => format!("{activation:?}"),
        Op::Add => "sum".to_owned(),
        Op::MaxPool { .. } => "max pooling".to_owned(),
        Op::GlobalAvgPool => "global average pooling".to_owned(),
        Op::GlobalMaxPool => "global max pooling".to_owned(),
        Op::Dropout { .. } => "dropout".to_owned(),
    }
}

type Planned = Result<(Kind, [usize; 3]), TrainingError>;

fn kind(op: &Op, channels: usize, from: [usize; 3], fused: bool, isa: Isa) -> Result<Planned, TrainableError> {
    let [_, height, width] = from;
    let unsupported = |operation: String| Err(TrainableError::Unsupported { operation });
    Ok(match op {
        Op::Input => Ok((Kind::Input, from)),
        Op::Conv { name, groups, .. } if *groups != 1 => {
            return unsupported(format!("the grouped convolution `{name}`"));
        }
        Op::Conv { kernel, stride, padding, groups, .. } => {
            let shape = ConvShape {
                in_channels: from[0],
                out_channels: channels,
                input: [height, width],
                kernel: [*kernel; 2],
                stride: [*stride; 2],
                padding: padding.resolve([height, width], *kernel, *stride),
                groups: *groups,
            };
            Conv2d::new(isa, shape).map(|plan| {
                let [height, width] = plan.output();
                (Kind::Conv(plan), [channels, height, width])
            })
        }
        Op::BatchNorm { epsilon, .. } => {
            let after = if fused { AfterNorm::Relu } else { AfterNorm::Nothing };
            let plan = BatchNorm::new(isa, channels, height * width, *epsilon, after);
            plan.map(|plan| (Kind::Norm { plan, batch: [vec![0.0; channels], vec![0.0; channels]] }, from))
        }
        Op::Activation(Activation::Relu) => Ok((Kind::Relu, from)),
        Op::Activation(activation) => return unsupported(format!("the activation {activation:?}")),
        Op::Add => Ok((Kind::Add, from)),
        Op::MaxPool { kernel, stride, padding } => {
            let padding: Padding = padding.resolve([height, width], *kernel, *stride);
            let pool = Pool2d { kernel: [*kernel; 2], stride: [*stride; 2], padding };
            Pool::new([height, width], pool).map(|plan| {
                let [height, width] = plan.output();
                (Kind::MaxPool { plan, places: Vec::new() }, [channels, height, width])
            })
        }
        Op::GlobalAvgPool => Ok((Kind::GlobalAverage(height * width), [channels, 1, 1])),
        Op::GlobalMaxPool => {
            let pool = Pool2d { kernel: [height, width], stride: [1; 2], padding: Padding::default() };
            Pool::new([height, width], pool).map(|plan| (Kind::MaxPool { plan, places: Vec::new() }, [channels, 1, 1]))
        }
        Op::Dropout { rate } => Dropout::new(f64::from(*rate)).map(|plan| (Kind::Dropout { plan, key: 0 }, from)),
        Op::SqueezeExcite { reduce, .. } => return unsupported(format!("the squeeze-and-excitation `{reduce}`")),
        Op::Linear { .. } => {
            linear(isa, from.iter().product(), channels).map(|plan| (Kind::Linear(plan), [channels, 1, 1]))
        }
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

/// Takes the parameters of a node from the weights.
fn slots(graph: &Graph, index: usize, weights: &Weights, slots: &mut Vec<Slot>) -> Result<Slots, TrainableError> {
    let mut indices = Slots::new();
    for parameter in graph.parameters_of(index) {
        let values = values(&parameter.name, &parameter.shape, weights)?;
        let gradient = if parameter.role.is_trained() { vec![0.0; values.len()] } else { Vec::new() };
        indices.push(slots.len());
        slots.push(Slot { name: parameter.name, shape: parameter.shape, role: parameter.role, values, gradient });
    }
    Ok(indices)
}
