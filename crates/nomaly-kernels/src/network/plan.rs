//! Planning: from the graph to a list of steps with resolved addresses.
//!
//! Three decisions are made here, each a pure function: which nodes are needed, how wide the zero border of each tensor
//! must be, and where each tensor is placed. Two tensors share memory when the last reader of one comes before the
//! writer of the other; placing the largest first is the usual greedy heuristic for this packing problem.

use super::node::{DepthwiseLayer, Node, Op};
use super::{NodeId, fuse};
use crate::blocked::View;
use crate::conv::{Bottleneck, Dense, Depthwise, Inverted, WideLayer, Winograd, winograd};
use crate::epilogue::Epilogue;
use crate::geometry::{OutputLayout, Padding};
use crate::window::Window;

/// One step of a run.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) kind: StepKind,
    pub(crate) flops: u64,
}

/// The computation of a step with all its parameters.
#[derive(Debug)]
pub(crate) enum StepKind {
    Input { dst: View },
    Dense(Box<Dense>),
    Winograd(Box<Winograd>),
    Depthwise(Box<Depthwise>),
    Bottleneck(Box<Bottleneck>),
    Inverted(Box<Inverted>),
    Affine { src: View, dst: View, scale: Vec<f32>, shift: Vec<f32>, epilogue: Epilogue },
    Add { a: View, b: View, dst: View, epilogue: Epilogue },
    MaxPool { src: View, dst: View, window: Window },
    AvgPool { src: View, dst: View, window: Window, count_include_pad: bool },
    Mean { src: View, dst: View },
    MeanOfSums { sums: View, dst: View, width: usize },
    Scale { src: View, gate: View, dst: View },
    Emit { src: View, output: usize, layout: OutputLayout },
}

/// A whole network, ready to run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Values of the arena for one image.
    pub(crate) arena: usize,
    /// Values of scratch memory that threads share, for one image.
    pub(crate) shared_scratch: usize,
    /// Values of scratch memory of each thread.
    pub(crate) thread_scratch: usize,
    /// Shape of each output for one image.
    pub(crate) outputs: Vec<[usize; 3]>,
}

/// Plans a graph whose shapes have been checked.
pub(crate) fn plan(mut nodes: Vec<Node>, outputs: &[(NodeId, OutputLayout)], lanes: usize, columns: usize) -> Plan {
    let live = live_nodes(&nodes, outputs);
    fuse::fuse(&mut nodes, outputs, &live);
    let live = live_nodes(&nodes, outputs);
    let Places { views, sums, arena } = place_nodes(&nodes, outputs, &live, lanes);

    let mut scratch = [0, 0];
    let mut steps = Vec::new();
    for (index, node) in nodes.into_iter().enumerate() {
        if !live[index] {
            continue;
        }
        let dst = views[index];
        let input = |i: usize| views[node.inputs[i].0];
        let volume = node.shape.iter().product::<usize>() as u64;
        let (kind, flops) = match node.op {
            Op::Input { .. } => (StepKind::Input { dst }, volume),
            Op::Dense { weights, window, activation, gated } => {
                let (gate, rest) = match node.inputs.split_last() {
                    Some((gate, rest)) if gated => (Some(views[gate.0]), rest),
                    _ => (None, &node.inputs[..]),
                };
                let residual = rest.get(1).map(|id| views[id.0]);
                let epilogue = Epilogue::new(activation);
                let dense = Dense::new(weights, window, epilogue, input(0), dst, [residual, gate], columns);
                scratch[0] = scratch[0].max(dense.scratch());
                let flops = dense.flops();
                (StepKind::Dense(Box::new(dense)), flops)
            }
            Op::Winograd { weights, window, activation } => {
                let residual = node.inputs.get(1).map(|id| views[id.0]);
                let epilogue = Epilogue::new(activation);
                let winograd = Winograd::new(weights, window, epilogue, input(0), dst, residual, columns);
                let [shared, thread] = winograd.scratch();
                scratch = [scratch[0].max(shared), scratch[1].max(thread)];
                let flops = winograd.flops();
                (StepKind::Winograd(Box::new(winograd)), flops)
            }
            Op::Depthwise(layer) => {
                let residual = node.inputs.get(1).map(|id| views[id.0]);
                let (widen, flops) = widen(*layer, input(0), dst, residual, sums[index], columns);
                match widen {
                    WideLayer::Expand(bottleneck) => {
                        scratch[1] = scratch[1].max(bottleneck.scratch());
                        (StepKind::Bottleneck(Box::new(bottleneck)), flops)
                    }
                    WideLayer::Plain(depthwise) => (StepKind::Depthwise(Box::new(depthwise)), flops),
                }
            }
            Op::Inverted { depthwise, weights, window, activation } => {
                let wide = input(1);
                let residual = node.inputs.get(2).map(|id| views[id.0]);
                let (widen, flops) = widen(*depthwise, input(0), wide, None, None, columns);
                let epilogue = Epilogue::new(activation);
                let project = Dense::new(weights, window, epilogue, wide, dst, [residual, None], columns);
                let flops = flops + project.flops();
                let inverted = Inverted::new(widen, project, wide);
                scratch[1] = scratch[1].max(inverted.scratch());
                (StepKind::Inverted(Box::new(inverted)), flops)
            }
            Op::Affine { scale, shift, activation } => {
                let epilogue = Epilogue::new(activation);
                (StepKind::Affine { src: input(0), dst, scale, shift, epilogue }, 2 * volume)
            }
            Op::Add { activation } => {
                (StepKind::Add { a: input(0), b: input(1), dst, epilogue: Epilogue::new(activation) }, volume)
            }
            Op::MaxPool { window } => {
                let flops = volume * (window.kernel[0] * window.kernel[1]) as u64;
                (StepKind::MaxPool { src: input(0), dst, window }, flops)
            }
            Op::AvgPool { window, count_include_pad } => {
                let flops = volume * (window.kernel[0] * window.kernel[1]) as u64;
                (StepKind::AvgPool { src: input(0), dst, window, count_include_pad }, flops)
            }
            Op::Mean => {
                let src = input(0);
                (StepKind::Mean { src, dst }, (src.channels * src.height * src.width) as u64)
            }
            Op::MeanOfSums => {
                let source = node.inputs[0].0;
                let width = views[source].width;
                match sums[source] {
                    Some(sums) => (StepKind::MeanOfSums { sums, dst, width }, (sums.channels * sums.height) as u64),
                    None => (StepKind::Mean { src: views[source], dst }, volume),
                }
            }
            Op::Absorbed | Op::Wide => continue,
            Op::Scale => (StepKind::Scale { src: input(0), gate: input(1), dst }, volume),
        };
        steps.push(Step { kind, flops });
        // An output is emitted as soon as it exists, so that its memory is free for later tensors.
        for (output, (id, layout)) in outputs.iter().enumerate() {
            if id.0 == index {
                steps.push(Step { kind: StepKind::Emit { src: dst, output, layout: *layout }, flops: volume });
            }
        }
    }
    let outputs = outputs
        .iter()
        .map(|(id, layout)| {
            let View { channels, height, width, .. } = views[id.0];
            if *layout == OutputLayout::Mean { [channels, 1, 1] } else { [channels, height, width] }
        })
        .collect();
    let [shared_scratch, thread_scratch] = scratch;
    Plan { steps, arena, shared_scratch, thread_scratch, outputs }
}

/// The steps of a depthwise layer, and their operations for one image.
fn widen(
    layer: DepthwiseLayer,
    src: View,
    dst: View,
    residual: Option<View>,
    sums: Option<View>,
    columns: usize,
) -> (WideLayer, u64) {
    let DepthwiseLayer { weights, window, activation, expand } = layer;
    let epilogue = Epilogue::new(activation);
    match expand {
        Some((expand, first)) => {
            let (expand, depthwise) = ((expand, Epilogue::new(first)), (weights, window, epilogue));
            let bottleneck = Bottleneck::new(expand, depthwise, src, dst, sums, columns);
            let flops = bottleneck.flops();
            (WideLayer::Expand(bottleneck), flops)
        }
        None => {
            let taps = window.kernel[0] * window.kernel[1];
            let flops = 2 * (dst.channels * dst.height * dst.width * taps) as u64;
            (WideLayer::Plain(Depthwise { weights, window, epilogue, src, dst, residual, sums }), flops)
        }
    }
}

/// Which nodes the outputs need.
fn live_nodes(nodes: &[Node], outputs: &[(NodeId, OutputLayout)]) -> Vec<bool> {
    let mut live = vec![false; nodes.len()];
    for (id, _) in outputs {
        live[id.0] = true;
    }
    // Nodes are in topological order: a node reads only earlier ones.
    for index in (0..nodes.len()).rev() {
        if live[index] {
            for input in &nodes[index].inputs {
                live[input.0] = true;
            }
        }
    }
    live
}

/// The placement of all tensors.
struct Places {
    /// The tensor of each node; meaningless for nodes that are not live.
    views: Vec<View>,
    /// The sums of rows `[C, H, 1]` of nodes that write them.
    sums: Vec<Option<View>>,
    /// Values of the arena for one image.
    arena: usize,
}

/// Finds a place for the tensors of all live nodes.
fn place_nodes(nodes: &[Node], outputs: &[(NodeId, OutputLayout)], live: &[bool], lanes: usize) -> Places {
    let mut halos = vec![Padding::default(); nodes.len()];
    let mut last_use: Vec<usize> = (0..nodes.len()).collect();
    for (index, node) in nodes.iter().enumerate().filter(|(index, _)| live[*index]) {
        for input in &node.inputs {
            last_use[input.0] = index;
        }
        let padding = match &node.op {
            Op::Depthwise(layer) | Op::Inverted { depthwise: layer, .. } => match layer.expand {
                // The border of what a bottleneck expands is in its scratch memory.
                Some(_) => continue,
                None => layer.window.padding,
            },
            Op::Dense { window, .. } => window.padding,
            Op::Winograd { weights, window, .. } => {
                let [_, height, width] = nodes[node.inputs[0].0].shape;
                winograd::padding(weights.outputs(), window, [height, width])
            }
            _ => continue,
        };
        let source = node.inputs[0].0;
        halos[source] = halos[source].union(padding);
    }
    debug_assert!(outputs.iter().all(|(id, _)| live[id.0]));
    let mut views: Vec<View> = nodes
        .iter()
        .zip(&halos)
        .map(|(node, halo)| {
            let lanes = if matches!(node.op, Op::Input { planar: true }) { 1 } else { lanes };
            View::new(node.shape, *halo, lanes)
        })
        .collect();
    let mut sums: Vec<Option<View>> = nodes
        .iter()
        .map(|node| node.sums.map(|_| View::new([node.shape[0], node.shape[1], 1], Padding::default(), lanes)))
        .collect();
    let mut lifetimes: Vec<Lifetime> = (0..nodes.len())
        .filter(|index| live[*index])
        .map(|index| Lifetime { owner: index, size: views[index].len, first: index, last: last_use[index] })
        .collect();
    let tensors = lifetimes.len();
    for index in (0..nodes.len()).filter(|index| live[*index]) {
        if let (Some(view), Some(reader)) = (&sums[index], nodes[index].sums) {
            lifetimes.push(Lifetime { owner: index, size: view.len, first: index, last: reader });
        }
    }
    let (offsets, arena) = place(&lifetimes);
    for (number, (life, offset)) in lifetimes.iter().zip(offsets).enumerate() {
        match &mut sums[life.owner] {
            Some(view) if number >= tensors => view.offset = offset,
            _ => views[life.owner].offset = offset,
        }
    }
    Places { views, sums, arena }
}

/// The lifetime of a tensor (both ends inclusive) and its size.
#[derive(Clone, Copy, Debug)]
struct Lifetime {
    owner: usize,
    size: usize,
    first: usize,
    last: usize,
}

/// Offsets such that no two tensors alive at the same time overlap; and the total size.
fn place(lifetimes: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..lifetimes.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(lifetimes[*i].size), *i));
    let mut offsets = vec![0; lifetimes.len()];
    let mut placed: Vec<usize> = Vec::new(); // in order of their offsets
    let mut total = 0;
    for i in order {
        let life = lifetimes[i];
        let mut offset = 0;
        for other in placed.iter().copied() {
            let Lifetime { size, first, last, .. } = lifetimes[other];
            let together = first <= life.last && life.first <= last;
            if together && offset + life.size > offsets[other] && offset < offsets[other] + size {
                offset = offsets[other] + size;
            }
        }
        offsets[i] = offset;
        total = total.max(offset + life.size);
        let at = placed.partition_point(|other| offsets[*other] <= offset);
        placed.insert(at, i);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_lives_together_never_overlaps(spec in prop::collection::vec((1usize..50, 0usize..20, 0usize..6), 0..30)) {
            let lifetimes: Vec<Lifetime> = spec
                .iter()
                .enumerate()
                .map(|(owner, (size, first, length))| Lifetime { owner, size: *size, first: *first, last: first + length })
                .collect();
            let (offsets, total) = place(&lifetimes);
            for (a, x) in lifetimes.iter().enumerate() {
                prop_assert!(offsets[a] + x.size <= total);
                for (b, y) in lifetimes.iter().enumerate().skip(a + 1) {
                    let together = x.first <= y.last && y.first <= x.last;
                    let apart = offsets[a] + x.size <= offsets[b] || offsets[b] + y.size <= offsets[a];
                    prop_assert!(!together || apart, "{x:?} at {} and {y:?} at {}", offsets[a], offsets[b]);
                }
            }
        }
    }

    #[test]
    fn a_chain_needs_two_buffers() {
        let lifetimes: Vec<Lifetime> =
            (0..10).map(|i| Lifetime { owner: i, size: 100, first: i, last: i + 1 }).collect();
        assert_eq!(place(&lifetimes).1, 200);
    }
}
