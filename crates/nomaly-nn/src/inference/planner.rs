//! Planning: the steps of a graph, and a place for each of their results.

use std::collections::HashMap;

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Activation, OutputLayout};
use nomaly_kernels::network::CompiledNetwork;

use crate::error::CompileError;
use crate::graph::{Graph, NodeLayout, Op};
use crate::parameters::Parameters;
use crate::plan::{Part, consumers};
use crate::weights::Weights;

use super::cut::{Cut, cut};
use super::planar::{Kind, kind, name_of, own_activation};
use super::tokens::{self, Bias, Epilogue, TokenKind, is_patch_embedding, packed};
use super::transposed::phases;

/// Where a value is during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// An input of the caller.
    Input(usize),
    /// A buffer of the workspace.
    Buffer(usize),
    /// An output of the caller.
    Output(usize),
}

/// What a step computes.
#[derive(Debug)]
pub(super) enum Work {
    /// A blocked plan, with its number among the plans.
    Segment { plan: Box<CompiledNetwork>, number: usize },
    /// A planar kernel and an activation in place.
    Planar { kind: Box<Kind>, activation: Activation },
}

/// One step of a run.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) work: Work,
    pub(super) name: String,
    /// Values of one image of its first result.
    pub(super) len: usize,
    pub(super) inputs: Vec<Place>,
    pub(super) outputs: Vec<Place>,
}

/// Steps, and the values of one image of each buffer.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) buffers: Vec<usize>,
}

/// A result of a step, or an input.
struct Value {
    /// Values of one image.
    len: usize,
    place: Option<Place>,
}

/// A step on values that have no place yet.
struct Draft {
    work: Work,
    name: String,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

struct Planner<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    outputs: &'a [(usize, OutputLayout)],
    isa: Isa,
    shapes: &'a [[usize; 3]],
    cut: Cut,
    readers: Vec<Vec<usize>>,
    values: Vec<Value>,
    /// The value of each node's result.
    value_of: Vec<Option<usize>>,
    drafts: Vec<Draft>,
    segments: usize,
}

/// Plans the steps that compute `outputs` from inputs whose results have `shapes`.
pub(super) fn plan(
    graph: &Graph,
    weights: &Weights,
    outputs: &[(usize, OutputLayout)],
    shapes: &[[usize; 3]],
    isa: Isa,
) -> Result<Plan, CompileError> {
    let targets: Vec<usize> = outputs.iter().map(|&(node, _)| node).collect();
    let needed = graph.needed(&targets);
    let mut planner = Planner {
        graph,
        weights,
        outputs,
        isa,
        shapes,
        cut: cut(graph, &targets),
        readers: consumers(graph, &needed),
        values: Vec::new(),
        value_of: vec![None; graph.nodes().len()],
        drafts: Vec::new(),
        segments: 0,
    };
    for (place, node) in graph.inputs().enumerate() {
        planner.value_of[node] = Some(planner.value(node, Some(Place::Input(place))));
    }
    let mut compiled = vec![false; planner.cut.segments.len()];
    for index in (0..needed.len()).filter(|&index| needed[index]) {
        match planner.cut.of[index] {
            Some(segment) if compiled[segment] => {}
            Some(segment) => {
                compiled[segment] = true;
                planner.segment(segment)?;
            }
            None if planner.value_of[index].is_none() => planner.planar(index)?,
            None => {}
        }
    }
    planner.emit()?;
    Ok(place(planner.drafts, planner.values))
}

impl Planner<'_> {
    fn value(&mut self, node: usize, place: Option<Place>) -> usize {
        self.values.push(Value { len: self.shapes[node].iter().product(), place });
        self.values.len() - 1
    }

    /// The value of an earlier node, which exists by topological order.
    fn value_at(&self, node: usize) -> usize {
        self.value_of[node].expect("nodes are planned in topological order")
    }

    /// The only node that reads `node`, if its result is not an output.
    fn only_reader(&self, node: usize) -> Option<usize> {
        match self.readers[node][..] {
            [reader] if self.outputs.iter().all(|&(output, _)| output != node) => Some(reader),
            _ => None,
        }
    }

    /// Adds the step of a segment, which writes outputs of the network where they are wanted.
    fn segment(&mut self, segment: usize) -> Result<(), CompileError> {
        let (mut emitted, mut values) = (Vec::new(), Vec::new());
        let members = self.cut.segments[segment].members.clone();
        for node in (0..members.len()).filter(|&node| members[node]) {
            let outputs = self.outputs.iter().enumerate().filter(|(_, (target, _))| *target == node);
            for (output, &(_, layout)) in outputs {
                let value = self.value(node, Some(Place::Output(output)));
                emitted.push((node, layout));
                values.push(value);
                if layout == OutputLayout::Nchw {
                    self.value_of[node] = Some(value);
                }
            }
            let is_read = self.readers[node].iter().any(|&reader| self.cut.of[reader] != Some(segment));
            if is_read && self.value_of[node].is_none() {
                let value = self.value(node, None);
                emitted.push((node, OutputLayout::Nchw));
                values.push(value);
                self.value_of[node] = Some(value);
            }
        }
        let source = self.cut.segments[segment].source;
        let part = Part { graph: self.graph, source, shape: self.shapes[source], members: &members };
        let plan = part.compile(self.weights, &emitted, self.isa)?;
        self.push_plan(plan, self.value_at(source), values);
        Ok(())
    }

    fn push_plan(&mut self, plan: CompiledNetwork, input: usize, outputs: Vec<usize>) {
        let work = Work::Segment { plan: Box::new(plan), number: self.segments };
        self.segments += 1;
        self.drafts.push(Draft { work, name: "a plan".to_owned(), inputs: vec![input], outputs });
    }

    /// Replaces the step of a transposed convolution by a plan of its phases and their interleaving, where that serves
    /// better. `value` is its result; returns whether it has a step.
    fn transposed(
        &mut self,
        kind: &Kind,
        activation: Activation,
        input: usize,
        value: usize,
    ) -> Result<bool, CompileError> {
        let Kind::ConvTranspose { plan, weight, bias } = kind else { return Ok(false) };
        let (shape, output) = (plan.shape(), plan.output());
        let Some(phases) = phases(shape, output, weight, bias.as_deref(), activation, self.isa) else {
            return Ok(false);
        };
        let phases = phases?;
        if phases.output_count() == 1 {
            self.push_plan(phases, input, vec![value]);
            return Ok(true);
        }
        let first = self.values.len();
        let lens = (0..phases.output_count()).map(|output| Value { len: phases.output_len(output), place: None });
        self.values.extend(lens);
        let parts: Vec<usize> = (first..self.values.len()).collect();
        self.push_plan(phases, input, parts.clone());
        let kind = Box::new(Kind::Interleave { stride: shape.stride[0], width: output[1] });
        let work = Work::Planar { kind, activation: Activation::Identity };
        self.drafts.push(Draft { work, name: "interleaving".to_owned(), inputs: parts, outputs: vec![value] });
        Ok(true)
    }

    /// Adds the step of a node, with the batch norm and the activation that follow it alone.
    fn planar(&mut self, index: usize) -> Result<(), CompileError> {
        let node = &self.graph.nodes()[index];
        let inputs: Vec<usize> = node.inputs.iter().map(|&input| self.value_at(input)).collect();
        if let Op::Reshape { .. } | Op::Dropout { .. } = node.op {
            self.value_of[index] = Some(inputs[0]);
            return Ok(());
        }
        if node.layout == NodeLayout::Tokens && matches!(node.op, Op::Linear { .. }) {
            return self.linear(index);
        }
        if let Some(reader) = self.only_reader(index).filter(|&reader| is_patch_embedding(self.graph, index, reader)) {
            return self.patches(index, reader);
        }
        if let Op::TokenGrid { .. } = node.op
            && self.readers[index].is_empty()
            && self.outputs.iter().all(|&(output, layout)| output != index || layout != OutputLayout::Nchw)
        {
            // The outputs are written from the tokens.
            return Ok(());
        }
        let parameters = Parameters(self.weights);
        let folds = matches!(node.op, Op::Conv { .. } | Op::ConvTranspose { .. });
        let (mut norm, mut activation) = (None, own_activation(&node.op));
        let mut chain = vec![index];
        let mut last = index;
        while let Some(next) = self.only_reader(last).filter(|&next| self.cut.of[next].is_none()) {
            match &self.graph.nodes()[next].op {
                Op::BatchNorm { name, epsilon, affine }
                    if folds && norm.is_none() && activation == Activation::Identity =>
                {
                    // One that the weights do not have was folded before the file was written.
                    if parameters.has_norm(name) {
                        norm = Some(parameters.norm(name, *epsilon, *affine)?);
                    }
                }
                Op::Activation(next) if activation == Activation::Identity => activation = *next,
                Op::Dropout { .. } => {}
                _ => break,
            }
            chain.push(next);
            last = next;
        }
        let from: Vec<[usize; 3]> = node.inputs.iter().map(|&input| self.shapes[input]).collect();
        let on_tokens = self.graph.nodes()[node.inputs[0]].layout == NodeLayout::Tokens
            && !matches!(node.op, Op::Activation(_) | Op::Add);
        let kind = match on_tokens {
            true => Kind::Tokens(tokens::kind(self.graph, index, self.shapes, &parameters, self.isa)?),
            false => kind(node, norm.as_ref(), &from, self.shapes[index], &parameters, self.isa)?,
        };
        let value = self.value(last, None);
        chain.into_iter().for_each(|node| self.value_of[node] = Some(value));
        if self.transposed(&kind, activation, inputs[0], value)? {
            return Ok(());
        }
        let work = Work::Planar { kind: Box::new(kind), activation };
        self.drafts.push(Draft { work, name: name_of(&node.op), inputs, outputs: vec![value] });
        Ok(())
    }

    /// Adds the step of a linear layer on tokens, with the LayerScale, the residual sum and the activation that follow
    /// it alone.
    fn linear(&mut self, index: usize) -> Result<(), CompileError> {
        let node = &self.graph.nodes()[index];
        let Op::Linear { name, bias } = &node.op else { unreachable!("called for linear layers only") };
        let bias = if *bias { Bias::Required } else { Bias::None };
        let parameters = Parameters(self.weights);
        let mut epilogue = Epilogue { scale: None, activation: Activation::Identity };
        let mut residual = None;
        let (mut chain, mut last) = (vec![index], index);
        while let Some(next) = self.only_reader(last) {
            let reader = &self.graph.nodes()[next];
            let is_linear = epilogue.activation == Activation::Identity;
            match &reader.op {
                Op::LayerScale { name } if is_linear && epilogue.scale.is_none() && residual.is_none() => {
                    epilogue.scale = Some(parameters.values(name, "gamma")?);
                }
                Op::Add if is_linear && residual.is_none() => {
                    let other = reader.inputs.iter().find(|&&input| input != last);
                    match other.and_then(|&other| self.value_of[other]) {
                        Some(value) => residual = Some(value),
                        None => break,
                    }
                }
                Op::Activation(activation) if is_linear => epilogue.activation = *activation,
                Op::Dropout { .. } => {}
                _ => break,
            }
            chain.push(next);
            last = next;
        }
        let [channels, ..] = self.shapes[node.inputs[0]];
        let plan = packed(&parameters, name, [channels, node.channels], bias, &epilogue, self.isa)?;
        let x = self.value_at(node.inputs[0]);
        let value = self.value(last, None);
        chain.into_iter().for_each(|node| self.value_of[node] = Some(value));
        match residual {
            Some(residual) => self.push_tokens(TokenKind::LinearOnto(plan), name, vec![residual, x], value),
            None => self.push_tokens(TokenKind::Linear(plan), name, vec![x], value),
        }
        Ok(())
    }

    /// Adds the steps of the convolution `index`, whose windows do not overlap and become the tokens of `reader`: a
    /// linear layer on the values of each window.
    fn patches(&mut self, index: usize, reader: usize) -> Result<(), CompileError> {
        let node = &self.graph.nodes()[index];
        let Op::Conv { name, kernel, bias, .. } = &node.op else { unreachable!("called for convolutions only") };
        let bias = if *bias { Bias::Required } else { Bias::IfPresent };
        let [channels, height, width] = self.shapes[node.inputs[0]];
        let inputs = channels * kernel * kernel;
        let epilogue = Epilogue { scale: None, activation: Activation::Identity };
        let plan = packed(&Parameters(self.weights), name, [inputs, node.channels], bias, &epilogue, self.isa)?;
        let [_, rows, columns] = self.shapes[index];
        self.values.push(Value { len: rows * columns * inputs, place: None });
        let patches = self.values.len() - 1;
        let kind = TokenKind::Patches { channels, input: [height, width], kernel: *kernel };
        self.push_tokens(kind, name, vec![self.value_at(node.inputs[0])], patches);
        let value = self.value(reader, None);
        (self.value_of[index], self.value_of[reader]) = (Some(value), Some(value));
        self.push_tokens(TokenKind::Linear(plan), name, vec![patches], value);
        Ok(())
    }

    fn push_tokens(&mut self, kind: TokenKind, name: &str, inputs: Vec<usize>, output: usize) {
        let work = Work::Planar { kind: Box::new(Kind::Tokens(kind)), activation: Activation::Identity };
        self.drafts.push(Draft { work, name: format!("`{name}`"), inputs, outputs: vec![output] });
    }

    /// Adds the steps that write outputs which no segment has written, unless their values can be computed there.
    fn emit(&mut self) -> Result<(), CompileError> {
        for (output, &(node, layout)) in self.outputs.iter().enumerate() {
            if self.cut.of[node].is_some() {
                continue;
            }
            // The value, and the prefix of the tokens that it consists of.
            let (value, prefix) = match (self.value_of[node], &self.graph.nodes()[node]) {
                (None, grid) => match grid.op {
                    Op::TokenGrid { prefix } => (self.value_at(grid.inputs[0]), Some(prefix)),
                    _ => (self.value_at(node), None),
                },
                (Some(value), of) => (value, (of.layout == NodeLayout::Tokens).then_some(0)),
            };
            let own = if prefix.is_some() { OutputLayout::Rows } else { OutputLayout::Nchw };
            if layout == own && self.value_of[node].is_some() && self.values[value].place.is_none() {
                self.values[value].place = Some(Place::Output(output));
                continue;
            }
            let [channels, height, width] = self.shapes[node];
            let plane = height * width;
            let kind = match (layout, prefix) {
                (OutputLayout::Nchw, None) => Kind::Copy,
                (OutputLayout::Rows, None) => Kind::Rows { channels, plane },
                (OutputLayout::Mean, None) => Kind::GlobalAverage { plane },
                (layout, Some(prefix)) => {
                    let tokens = plane + prefix;
                    Kind::Tokens(match layout {
                        OutputLayout::Nchw => TokenKind::Image { channels, tokens, prefix },
                        OutputLayout::Rows => TokenKind::Rest { channels, tokens, prefix },
                        OutputLayout::Mean => TokenKind::Mean { channels, tokens, prefix },
                    })
                }
            };
            let target = self.value(node, Some(Place::Output(output)));
            if layout == OutputLayout::Mean {
                self.values[target].len = channels;
            }
            let work = Work::Planar { kind: Box::new(kind), activation: Activation::Identity };
            self.drafts.push(Draft { work, name: "an output".to_owned(), inputs: vec![value], outputs: vec![target] });
        }
        Ok(())
    }
}

/// Gives each value a place: a buffer is used again for values of the same length once its last reader has run, by that
/// reader itself where it works in place.
fn place(drafts: Vec<Draft>, mut values: Vec<Value>) -> Plan {
    let mut last_use = vec![0; values.len()];
    for (index, draft) in drafts.iter().enumerate() {
        draft.inputs.iter().for_each(|&value| last_use[value] = index);
    }
    let mut plan = Plan { steps: Vec::with_capacity(drafts.len()), buffers: Vec::new() };
    let mut free: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, mut draft) in drafts.into_iter().enumerate() {
        let dies = |value: usize, values: &[Value]| {
            last_use[value] == index && matches!(values[value].place, Some(Place::Buffer(_)))
        };
        let mut taken = None;
        if let Work::Planar { kind, .. } = &draft.work
            && kind.is_in_place()
            && values[draft.outputs[0]].place.is_none()
        {
            if let (Kind::Add, [a, b]) = (&**kind, &draft.inputs[..])
                && !dies(*a, &values)
                && dies(*b, &values)
            {
                draft.inputs.swap(0, 1);
            }
            let first = draft.inputs[0];
            if dies(first, &values) && draft.inputs[1..].iter().all(|&other| other != first) {
                values[draft.outputs[0]].place = values[first].place;
                taken = Some(first);
            }
        }
        for &output in &draft.outputs {
            if values[output].place.is_none() {
                let len = values[output].len;
                let buffer = free.entry(len).or_default().pop().unwrap_or_else(|| {
                    plan.buffers.push(len);
                    plan.buffers.len() - 1
                });
                values[output].place = Some(Place::Buffer(buffer));
            }
        }
        let mut read = draft.inputs.clone();
        read.sort_unstable();
        read.dedup();
        for value in read {
            if let Some(Place::Buffer(buffer)) = values[value].place
                && last_use[value] == index
                && taken != Some(value)
            {
                free.entry(values[value].len).or_default().push(buffer);
            }
        }
        let placed = |of: &[usize]| -> Vec<Place> {
            of.iter().map(|&value| values[value].place.expect("a value is placed before it is read")).collect()
        };
        plan.steps.push(Step {
            len: values[draft.outputs[0]].len,
            inputs: placed(&draft.inputs),
            outputs: placed(&draft.outputs),
            work: draft.work,
            name: draft.name,
        });
    }
    plan
}
