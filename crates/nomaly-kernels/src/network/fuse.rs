//! Fusion of neighbouring nodes of the graph, so that the tensors between them do not travel through memory.
//!
//! Four patterns, all of them from inverted bottlenecks, with or without channel attention (EfficientNet):
//!
//! * a pointwise convolution that only a depthwise one reads becomes part of it;
//! * a depthwise convolution that only a pointwise one reads becomes part of that, including what was fused into it;
//! * the mean of a depthwise convolution's result is computed from row sums that the convolution writes;
//! * a gate that only a pointwise convolution reads is multiplied into its weights instead of its input, where the
//!   image has more positions than the convolution has output channels.
//!
//! Only the last changes bits of a result, because it rounds products in another order.

use super::NodeId;
use super::node::{Node, Op};
use crate::geometry::OutputLayout;

/// Rewrites the graph; nodes that became part of others are [`Op::Absorbed`] and have no reader.
pub(super) fn fuse(nodes: &mut [Node], outputs: &[(NodeId, OutputLayout)], live: &[bool]) {
    let mut readers = vec![0usize; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        if live[index] {
            node.inputs.iter().for_each(|input| readers[input.0] += 1);
        }
    }
    for (id, _) in outputs {
        readers[id.0] += 1;
    }
    for index in (0..nodes.len()).filter(|index| live[*index]) {
        match nodes[index].op {
            Op::Depthwise(_) => expand(nodes, index, &readers),
            Op::Mean => take_sums(nodes, index),
            Op::Dense { gated: false, .. } => {
                gate(nodes, index, &readers);
                project(nodes, index, &readers);
            }
            _ => {}
        }
    }
}

/// Fuses the pointwise convolution before depthwise convolution `index` into it.
fn expand(nodes: &mut [Node], index: usize, readers: &[usize]) {
    let [input] = nodes[index].inputs[..] else { return };
    if readers[input.0] != 1 || !is_pointwise(nodes, input.0) {
        return;
    }
    let [before] = nodes[input.0].inputs[..] else { return };
    let absorbed = std::mem::replace(&mut nodes[input.0].op, Op::Absorbed);
    nodes[input.0].inputs.clear();
    if let (Op::Dense { weights, activation, .. }, Op::Depthwise(layer)) = (absorbed, &mut nodes[index].op) {
        layer.expand = Some((weights, activation));
        nodes[index].inputs[0] = before;
    }
}

/// Fuses the depthwise convolution before pointwise convolution `index` into it.
fn project(nodes: &mut [Node], index: usize, readers: &[usize]) {
    let wide = nodes[index].inputs[0];
    let node = &nodes[wide.0];
    let alone = readers[wide.0] == 1 && node.sums.is_none() && node.inputs.len() == 1;
    if !alone || !matches!(node.op, Op::Depthwise(_)) || !is_pointwise(nodes, index) {
        return;
    }
    let depthwise = std::mem::replace(&mut nodes[wide.0].op, Op::Wide);
    let before = nodes[wide.0].inputs.remove(0);
    let dense = std::mem::replace(&mut nodes[index].op, Op::Absorbed);
    if let (Op::Depthwise(depthwise), Op::Dense { weights, window, activation, .. }) = (depthwise, dense) {
        nodes[index].op = Op::Inverted { depthwise, weights, window, activation };
        nodes[index].inputs.insert(0, before);
    }
}

/// Makes the depthwise convolution before mean `index` write the sums of its rows.
fn take_sums(nodes: &mut [Node], index: usize) {
    let input = nodes[index].inputs[0].0;
    if let (Op::Depthwise(_), None) = (&nodes[input].op, nodes[input].sums) {
        nodes[input].sums = Some(index);
        nodes[index].op = Op::MeanOfSums;
    }
}

/// Fuses the gate before pointwise convolution `index` into its weights.
fn gate(nodes: &mut [Node], index: usize, readers: &[usize]) {
    let scale = nodes[index].inputs[0].0;
    let [out, height, width] = nodes[index].shape;
    let worth = height * width > out;
    if !worth || !matches!(nodes[scale].op, Op::Scale) || readers[scale] != 1 || !is_pointwise(nodes, index) {
        return;
    }
    let [x, factors] = nodes[scale].inputs[..] else { return };
    nodes[scale].op = Op::Absorbed;
    nodes[scale].inputs.clear();
    if let Op::Dense { gated, .. } = &mut nodes[index].op {
        *gated = true;
        nodes[index].inputs[0] = x;
        nodes[index].inputs.push(factors);
    }
}

/// Whether a node is a 1x1 convolution of stride 1 without padding that reads a blocked tensor.
fn is_pointwise(nodes: &[Node], index: usize) -> bool {
    let Node { op, inputs, shape, .. } = &nodes[index];
    let Some(input) = inputs.first().map(|id| &nodes[id.0]) else { return false };
    let same_size = input.shape[1..] == shape[1..];
    matches!(op, Op::Dense { weights, gated: false, .. } if same_size && weights.is_pointwise(input.shape[0], shape[0]))
}
