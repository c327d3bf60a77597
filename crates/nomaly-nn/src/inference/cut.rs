//! Division of a graph into parts that run as one blocked plan each, and the nodes between them.

use crate::graph::{Graph, Node, NodeLayout, Op};
use crate::plan::consumers;

use super::tokens::is_patch_embedding;

/// Nodes that one blocked plan computes from the result of one node.
#[derive(Debug)]
pub(super) struct Segment {
    /// The node whose result it reads.
    pub(super) source: usize,
    /// For each node of the graph, whether the segment computes it.
    pub(super) members: Vec<bool>,
}

/// A divided graph.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) segments: Vec<Segment>,
    /// The segment of each node; none for nodes that are computed on planar tensors.
    pub(super) of: Vec<Option<usize>>,
}

/// Whether the blocked plan has a node's operation.
fn is_blocked(graph: &Graph, node: &Node) -> bool {
    if node.layout == NodeLayout::Tokens {
        return false;
    }
    match node.op {
        Op::Conv { groups, .. } => {
            let inputs = graph.nodes()[node.inputs[0]].channels;
            groups == 1 || (groups == inputs && groups == node.channels)
        }
        Op::BatchNorm { .. }
        | Op::Activation(_)
        | Op::Add
        | Op::MaxPool { .. }
        | Op::AvgPool { .. }
        | Op::GlobalAvgPool
        | Op::GlobalMaxPool
        | Op::Dropout { .. }
        | Op::SqueezeExcite { .. }
        | Op::Linear { .. } => true,
        Op::Input
        | Op::ConvTranspose { .. }
        | Op::InstanceNorm { .. }
        | Op::Concat
        | Op::Reshape { .. }
        | Op::Pad { .. }
        | Op::Upsample { .. }
        | Op::Softmax
        | Op::Gate
        | Op::Tokens
        | Op::TokenGrid { .. }
        | Op::SelectToken { .. }
        | Op::InsertTokens { .. }
        | Op::PositionEmbedding { .. }
        | Op::LayerNorm { .. }
        | Op::Attention { .. }
        | Op::LayerScale { .. } => false,
    }
}

/// Whether an operation has enough arithmetic to pay for the conversion of its input to the blocked layout and back.
fn is_worth_converting(op: &Op) -> bool {
    matches!(op, Op::Conv { .. } | Op::Linear { .. } | Op::SqueezeExcite { .. })
}

/// Divides the nodes that `targets` need.
///
/// A node joins the segment of its inputs, where what the segment reads counts as a part of it; a node that reads
/// something else begins a segment, if the blocked plan has it. A segment has one source, so it can run as soon as that
/// is computed.
pub(super) fn cut(graph: &Graph, targets: &[usize]) -> Cut {
    let nodes = graph.nodes();
    let needed = graph.needed(targets);
    let readers = consumers(graph, &needed);
    let mut cut = Cut { segments: Vec::new(), of: vec![None; nodes.len()] };
    for index in (0..nodes.len()).filter(|&index| needed[index]) {
        let node = &nodes[index];
        let becomes_rows = match readers[index][..] {
            [reader] => !targets.contains(&index) && is_patch_embedding(graph, index, reader),
            _ => false,
        };
        if becomes_rows || !is_blocked(graph, node) {
            continue;
        }
        let first = node.inputs[0];
        let home = cut.home(&node.inputs).or_else(|| {
            let alone = readers[first].len() == 1 && !targets.contains(&first);
            let in_place = cut.of[first].is_none() && is_done_in_place(&nodes[first].op, &node.op, alone);
            (!in_place && node.inputs.iter().all(|&input| input == first && cut.of[input].is_none())).then(|| {
                cut.segments.push(Segment { source: first, members: vec![false; nodes.len()] });
                cut.segments.len() - 1
            })
        });
        if let Some(home) = home {
            cut.segments[home].members[index] = true;
            cut.of[index] = Some(home);
        }
    }
    let whole = cut.segments.len() == 1
        && (0..nodes.len()).all(|index| !needed[index] || cut.of[index].is_some() || nodes[index].op == Op::Input);
    if !whole {
        cut.dissolve(nodes);
    }
    cut
}

/// Whether `op` is applied in place to the planar result of `before`, or folded into its weights.
fn is_done_in_place(before: &Op, op: &Op, alone: bool) -> bool {
    match (before, op) {
        (_, Op::Dropout { .. }) => true,
        (Op::Input, _) => false,
        (Op::ConvTranspose { .. } | Op::Conv { .. }, Op::BatchNorm { .. }) => alone,
        (_, Op::Activation(_)) => alone,
        _ => false,
    }
}

impl Cut {
    /// The segment that has or reads all these nodes.
    fn home(&self, inputs: &[usize]) -> Option<usize> {
        let has = |segment: usize, input: usize| {
            self.of[input] == Some(segment) || (self.of[input].is_none() && self.segments[segment].source == input)
        };
        let named = inputs.iter().find_map(|&input| self.of[input]);
        let read = || (0..self.segments.len()).find(|&segment| self.segments[segment].source == inputs[0]);
        named.or_else(read).filter(|&segment| inputs.iter().all(|&input| has(segment, input)))
    }

    /// Gives up segments without a layer that is worth the conversion.
    fn dissolve(&mut self, nodes: &[Node]) {
        let worth: Vec<bool> = self
            .segments
            .iter()
            .map(|segment| nodes.iter().zip(&segment.members).any(|(node, &own)| own && is_worth_converting(&node.op)))
            .collect();
        let mut left = 0;
        let moved: Vec<Option<usize>> = worth
            .iter()
            .map(|&worth| {
                left += usize::from(worth);
                worth.then(|| left - 1)
            })
            .collect();
        let mut worth = worth.into_iter();
        self.segments.retain(|_| worth.next() == Some(true));
        self.of.iter_mut().for_each(|of| *of = of.and_then(|segment| moved[segment]));
    }
}

#[cfg(test)]
mod tests {
    use nomaly_kernels::geometry::Activation;

    use super::*;
    use crate::graph::{ConvOptions, ConvTransposeOptions, GraphBuilder, PaddingRule};

    #[test]
    fn the_skips_of_an_encoder_are_outputs_of_one_segment() {
        let mut g = GraphBuilder::new(3);
        let x = g.conv(GraphBuilder::INPUT, "a", 8, ConvOptions::centered(3, 1));
        let skip = g.activation(x, Activation::Relu);
        let x = g.max_pool(skip, 2, 2, PaddingRule::Symmetric(0));
        let deep = g.conv(x, "b", 16, ConvOptions::centered(3, 1));
        let x = g.conv_transpose(deep, "up", 8, ConvTransposeOptions::new(2, 2, 0));
        let norm = g.batch_norm(x, "bn", 1e-5);
        let act = g.activation(norm, Activation::Relu);
        let both = g.concat(&[skip, act]);
        let x = g.conv(both, "c", 8, ConvOptions::centered(3, 1));
        let last = g.activation(x, Activation::Relu);
        g.tap("image", last);
        let graph = g.finish().unwrap();
        let Cut { segments, of } = cut(&graph, &[last]);
        assert_eq!(segments.iter().map(|segment| segment.source).collect::<Vec<_>>(), [0, both]);
        assert_eq!(
            [skip, deep, norm, act, both, last].map(|node| of[node]),
            [Some(0), Some(0), None, None, None, Some(1)]
        );
    }

    #[test]
    fn a_sum_of_two_segments_belongs_to_neither() {
        let mut g = GraphBuilder::new(3);
        let other = g.input(3);
        let a = g.conv(GraphBuilder::INPUT, "a", 4, ConvOptions::POINTWISE);
        let b = g.conv(other, "b", 4, ConvOptions::POINTWISE);
        let sum = g.add(a, b);
        let act = g.activation(sum, Activation::Relu);
        let c = g.conv(act, "c", 4, ConvOptions::POINTWISE);
        // Reads the segment's source beside its result.
        let residual = g.add(c, act);
        g.tap("sum", residual);
        let graph = g.finish().unwrap();
        let Cut { segments, of } = cut(&graph, &[residual]);
        assert_eq!(segments.len(), 3);
        assert_eq!(
            [a, b, sum, act, c, residual].map(|node| of[node]),
            [Some(0), Some(1), None, None, Some(2), Some(2)]
        );
    }
}
