//! Isolation trees: growth, path lengths and storage.
//!
//! A tree is grown on a sample of the rows by splitting it at random until a node holds one row, or equal rows, or lies
//! as deep as a balanced tree would (`ceil(log2 ψ)` for a sample of ψ rows). Nodes are numbered level by level, and
//! the two children of a node stand side by side, so one index refers to both, and the shape of a stored tree can be
//! checked in one pass: each inner node must refer to the next two nodes without a parent.

use ndarray::ArrayView2;
use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::random::stream;
use crate::scorer::{State, Tensor, check_finite};
use crate::{ScorerError, Watch};

/// The most trees of a forest.
pub(super) const MAX_TREES: usize = 100_000;
/// The most rows that a tree is grown on.
pub(super) const MAX_SAMPLES: usize = 1 << 24;

/// Rows that go through a tree before the next tree: as many as stay in the cache with it.
const ROWS: usize = 128;
/// Blocks of rows are padded to a multiple of this number, the rows that are traversed side by side.
pub(super) const LANES: usize = 8;

/// The number of nodes of each tree, the first child of each node and the rows that reached each node.
pub(super) const TENSORS: [&str; 3] = ["nodes", "children", "sizes"];

/// The average length of the path of an unsuccessful search in a binary search tree of `rows` rows, `c(n)`: the
/// remaining depth below a leaf that holds that many rows.
///
/// `2 H(n - 1) - 2 (n - 1) / n` with the harmonic number `H(i) ≈ ln i + γ`, 1 for two rows and 0 for fewer (Liu,
/// Ting and Zhou 2008, equation 1; the value for two rows is the exact one, as in their later paper of 2012).
pub fn average_path_length(rows: u32) -> f64 {
    const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;
    match rows {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let rows = f64::from(rows);
            2.0 * ((rows - 1.0).ln() + EULER_GAMMA) - 2.0 * (rows - 1.0) / rows
        }
    }
}

/// The depth limit of a tree of `samples` rows.
fn height_limit(samples: u32) -> u32 {
    u32::BITS - samples.saturating_sub(1).leading_zeros()
}

/// A rule that sends a row to one of two sides.
pub(super) trait Split: Send {
    /// Whether a row `[dim]` goes to the first side.
    fn is_first(&self, row: &[f32]) -> bool;
}

/// A column and the range of its values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ColumnRange {
    pub(super) column: u32,
    pub(super) low: f32,
    pub(super) high: f32,
}

/// A node to be split, and the random numbers of its tree.
pub(super) struct Node<'a> {
    /// Prepared rows `[samples, width]`.
    rows: &'a [f32],
    width: usize,
    /// The rows that reached the node.
    members: &'a [u32],
    /// All columns, in any order.
    order: &'a mut [u32],
    pub(super) rng: &'a mut ChaCha8Rng,
}

impl Node<'_> {
    /// `count` random columns with their ranges among the rows of the node. Constant columns are drawn only if too few
    /// columns vary; none are drawn if no column varies.
    pub(super) fn draw_columns(&mut self, count: usize) -> Vec<ColumnRange> {
        let (mut varying, mut constant) = (Vec::with_capacity(count), Vec::new());
        for at in 0..self.order.len() {
            let other = self.rng.random_range(at..self.order.len());
            self.order.swap(at, other);
            let drawn = self.range(self.order[at]);
            if drawn.low < drawn.high {
                varying.push(drawn);
                if varying.len() == count {
                    break;
                }
            } else {
                constant.push(drawn);
            }
        }
        if !varying.is_empty() {
            let missing = count - varying.len();
            varying.extend(constant.into_iter().take(missing));
        }
        varying
    }

    fn range(&self, column: u32) -> ColumnRange {
        let values = self.members.iter().map(|member| self.rows[*member as usize * self.width + column as usize]);
        let (low, high) =
            values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        ColumnRange { column, low, high }
    }
}

/// A newly grown forest.
pub(super) struct GrownForest<S> {
    pub(super) shape: Shape,
    /// The rules of the inner nodes, in the order of the nodes.
    pub(super) splits: Vec<S>,
}

/// Options for growing a forest.
pub(super) struct Growth {
    /// The number of trees.
    pub(super) trees: usize,
    /// The rows that each tree is grown on; all rows where there are fewer.
    pub(super) samples: usize,
    /// The random seed.
    pub(super) seed: u64,
    /// The length of a prepared row, at least the number of columns.
    pub(super) width: usize,
}

/// Grows trees, each on a random sample without replacement of at least two `rows` `[n, dim]`. `prepare` converts a row
/// to the form that splits use; `split` creates a rule, or none if the rows of the node are all equal.
pub(super) fn grow<S: Split>(
    rows: ArrayView2<'_, f32>,
    growth: Growth,
    prepare: impl Fn(ndarray::ArrayView1<'_, f32>, &mut [f32]) + Sync,
    split: impl Fn(&mut Node<'_>) -> Option<S> + Sync,
    watch: Watch<'_>,
) -> Result<GrownForest<S>, ScorerError> {
    let Growth { trees, samples, seed, width } = growth;
    let samples = samples.min(rows.nrows());
    let grow_one = |tree: usize| {
        watch.check()?;
        let mut rng = stream(seed, tree);
        let mut sample = vec![0.0f32; samples * width];
        let numbers = index::sample(&mut rng, rows.nrows(), samples);
        for (number, target) in numbers.into_iter().zip(sample.chunks_exact_mut(width)) {
            prepare(rows.row(number), target);
        }
        grow_tree(&sample, width, rows.ncols(), &mut rng, &split, watch)
    };
    let grown: Vec<Tree<S>> = (0..trees).into_par_iter().map(grow_one).collect::<Result<_, ScorerError>>()?;
    let mut shape = Shape { samples: samples as u32, nodes: Vec::new(), children: Vec::new(), sizes: Vec::new() };
    let mut splits = Vec::new();
    for tree in grown {
        shape.nodes.push(tree.children.len() as u32);
        shape.children.extend(tree.children);
        shape.sizes.extend(tree.sizes);
        splits.extend(tree.splits);
    }
    Ok(GrownForest { shape, splits })
}

struct Tree<S> {
    children: Vec<u32>,
    sizes: Vec<u32>,
    splits: Vec<S>,
}

fn grow_tree<S: Split>(
    rows: &[f32],
    width: usize,
    columns: usize,
    rng: &mut ChaCha8Rng,
    split: &impl Fn(&mut Node<'_>) -> Option<S>,
    watch: Watch<'_>,
) -> Result<Tree<S>, ScorerError> {
    let count = rows.len() / width;
    let limit = height_limit(count as u32);
    let mut members: Vec<u32> = (0..count as u32).collect();
    let mut order: Vec<u32> = (0..columns as u32).collect();
    let mut tree = Tree { children: Vec::new(), sizes: Vec::new(), splits: Vec::new() };
    // Pending nodes: the range of their rows in `members`, and their depth.
    let mut waiting = std::collections::VecDeque::from([(0..count, 0)]);
    let mut named = 1;
    while let Some((range, depth)) = waiting.pop_front() {
        let members = &mut members[range.clone()];
        tree.sizes.push(members.len() as u32);
        // Only large samples take noticeable time per node.
        if members.len() > 1 << 12 {
            watch.check()?;
        }
        let rule = if members.len() < 2 || depth == limit {
            None
        } else {
            split(&mut Node { rows, width, members, order: &mut order, rng: &mut *rng })
        };
        let Some(rule) = rule else {
            tree.children.push(0);
            continue;
        };
        let mut border = 0;
        for at in 0..members.len() {
            let member = members[at] as usize;
            if rule.is_first(&rows[member * width..(member + 1) * width]) {
                members.swap(at, border);
                border += 1;
            }
        }
        tree.splits.push(rule);
        tree.children.push(named);
        named += 2;
        waiting.push_back((range.start..range.start + border, depth + 1));
        waiting.push_back((range.start + border..range.end, depth + 1));
    }
    Ok(tree)
}

/// The shape of the trees of a forest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    /// The rows that each tree was grown on, 2 at least.
    samples: u32,
    /// The number of nodes of each tree.
    nodes: Vec<u32>,
    /// For each node the first of its two children, counted from the root of its tree; 0 for a leaf.
    children: Vec<u32>,
    /// For each node the rows that reached it.
    sizes: Vec<u32>,
}

/// A node for traversal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TraversalNode {
    /// The first child, or the node itself for a leaf; counted from the root.
    pub(super) next: u32,
    /// The index of the node's rule in the forest; none for a leaf.
    pub(super) rule: Option<usize>,
    /// The length of the path that ends here, plus the expected depth below a leaf that holds several rows.
    pub(super) path: f64,
}

/// A tree for traversal.
pub(super) struct TraversalTree {
    /// The nodes, the root first.
    pub(super) places: Vec<TraversalNode>,
    /// The depth of the deepest leaf.
    pub(super) height: u32,
}

impl Shape {
    /// The number of trees.
    pub(super) fn trees(&self) -> usize {
        self.nodes.len()
    }

    /// The rows that each tree was grown on.
    pub(super) fn samples(&self) -> u32 {
        self.samples
    }

    /// The number of inner nodes of all trees.
    pub(super) fn inner(&self) -> usize {
        self.children.iter().filter(|child| **child != 0).count()
    }

    /// The divisor `c(ψ)` of the mean path length.
    fn normalizer(&self) -> f64 {
        average_path_length(self.samples)
    }

    /// The trees for traversal.
    pub(super) fn traversal_trees(&self) -> Vec<TraversalTree> {
        let (mut first, mut rule) = (0, 0);
        let walk_of = |nodes: &u32| {
            let range = first..first + *nodes as usize;
            first = range.end;
            let (children, sizes) = (&self.children[range.clone()], &self.sizes[range]);
            let mut depths = vec![0u32; children.len()];
            let mut height = 0;
            let mut places = Vec::with_capacity(children.len());
            for (node, (child, size)) in children.iter().zip(sizes).enumerate() {
                let depth = depths[node];
                if *child == 0 {
                    height = height.max(depth);
                    let path = f64::from(depth) + average_path_length(*size);
                    places.push(TraversalNode { next: node as u32, rule: None, path });
                } else {
                    let at = *child as usize;
                    depths[at..at + 2].fill(depth + 1);
                    places.push(TraversalNode { next: *child, rule: Some(rule), path: f64::from(depth) });
                    rule += 1;
                }
            }
            TraversalTree { places, height }
        };
        self.nodes.iter().map(walk_of).collect()
    }

    /// Scores of rows: `prepare` converts a row to the form of the splits, and `paths` adds, for a block of prepared
    /// rows `[multiple of LANES, width]`, the path of each row in each tree to its sum, tree by tree in order.
    pub(super) fn score(
        &self,
        rows: ArrayView2<'_, f32>,
        width: usize,
        prepare: impl Fn(ndarray::ArrayView1<'_, f32>, &mut [f32]) + Sync,
        paths: impl Fn(&[f32], &mut [f64]) + Sync,
    ) -> Vec<f64> {
        let divisor = self.trees() as f64 * self.normalizer();
        let mut scores = vec![0.0f64; rows.nrows()];
        scores.par_chunks_mut(ROWS).enumerate().for_each(|(block, scores)| {
            let mut prepared = vec![0.0f32; ROWS.min(scores.len().next_multiple_of(LANES)) * width];
            for (offset, target) in prepared.chunks_exact_mut(width).take(scores.len()).enumerate() {
                prepare(rows.row(block * ROWS + offset), target);
            }
            let mut sums = vec![0.0f64; prepared.len() / width];
            paths(&prepared, &mut sums);
            for (score, sum) in scores.iter_mut().zip(sums) {
                *score = (-sum / divisor).exp2();
            }
        });
        scores
    }

    /// The tensors of a state, by the names of [`TENSORS`].
    pub(super) fn tensors(&self) -> [(&'static str, Tensor); 3] {
        let tensor = |data: &Vec<u32>| Tensor::u32([data.len()], data.clone());
        [(TENSORS[0], tensor(&self.nodes)), (TENSORS[1], tensor(&self.children)), (TENSORS[2], tensor(&self.sizes))]
    }

    /// Reads the tensors of a state whose trees were grown on `samples` rows.
    pub(super) fn from_state(state: &State, samples: u32) -> Result<Self, ScorerError> {
        if samples < 2 || samples as usize > MAX_SAMPLES {
            return Err(state.config_error(format!("trees of {samples} rows, expected 2 to {MAX_SAMPLES}")));
        }
        let [trees] = state.shape(TENSORS[0])?;
        let [total] = state.shape(TENSORS[1])?;
        if trees > MAX_TREES {
            return Err(state.tensor_error(TENSORS[0], format!("{trees} trees, expected {MAX_TREES} at most")));
        }
        let nodes = state.read_u32(TENSORS[0], [trees])?.to_vec();
        let children = state.read_u32(TENSORS[1], [total])?.to_vec();
        let sizes = state.read_u32(TENSORS[2], [total])?.to_vec();
        let counted: u64 = nodes.iter().map(|nodes| u64::from(*nodes)).sum();
        if counted != total as u64 || nodes.contains(&0) {
            return Err(state.tensor_error(TENSORS[0], format!("does not deal out {total} nodes to {trees} trees")));
        }
        let shape = Self { samples, nodes, children, sizes };
        shape.check(state)?;
        Ok(shape)
    }

    /// Checks that every tree is well-formed, with at most the allowed rows and depth.
    fn check(&self, state: &State) -> Result<(), ScorerError> {
        let limit = height_limit(self.samples);
        let mut first = 0;
        for (tree, nodes) in self.nodes.iter().enumerate() {
            let range = first..first + *nodes as usize;
            first = range.end;
            let (children, sizes) = (&self.children[range.clone()], &self.sizes[range]);
            let wrong = |tensor: usize, what: &str| state.tensor_error(TENSORS[tensor], format!("tree {tree}: {what}"));
            if sizes[0] != self.samples {
                return Err(wrong(2, "the root does not hold the rows of a tree"));
            }
            let mut depths = vec![0u32; children.len()];
            let mut named = 1;
            for (node, child) in children.iter().enumerate().filter(|(_, child)| **child != 0) {
                let at = *child as usize;
                if at != named || at + 2 > children.len() || at <= node {
                    return Err(wrong(1, "a node does not name the two nodes that come next"));
                }
                named += 2;
                if depths[node] == limit {
                    return Err(wrong(1, "a path is longer than the height limit"));
                }
                let depth = depths[node] + 1;
                depths[at..at + 2].fill(depth);
                if sizes[at].checked_add(sizes[at + 1]) != Some(sizes[node]) {
                    return Err(wrong(2, "two children do not hold the rows of their parent"));
                }
            }
            if named != children.len() {
                return Err(wrong(1, "there are nodes that no node names"));
            }
        }
        Ok(())
    }
}

/// Checks the rows that a forest is fitted on.
pub(super) fn check_rows(rows: ArrayView2<'_, f32>, what: &'static str) -> Result<(), ScorerError> {
    check_finite(rows)?;
    if rows.nrows() < 2 {
        return Err(ScorerError::TooFewRows { what, needed: 2, got: rows.nrows() });
    }
    let first = rows.row(0);
    if rows.outer_iter().all(|row| row == first) {
        return Err(ScorerError::ConstantRows { rows: rows.nrows() as u64 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_lengths_by_the_formula() {
        let harmonic = |n: u32| (1..n).map(|i| 1.0 / f64::from(i)).sum::<f64>();
        for n in [2u32, 3, 10, 256, 5000] {
            let exact = 2.0 * harmonic(n) - 2.0 * f64::from(n - 1) / f64::from(n);
            // `H(i)` exceeds `ln i + γ` by less than `1 / (2 i)`.
            let slack = if n == 2 { 0.0 } else { 1.0 / f64::from(n - 1) };
            assert!((average_path_length(n) - exact).abs() <= slack, "{n}");
        }
        assert_eq!([0, 1].map(average_path_length), [0.0, 0.0]);
        assert_eq!([2, 3, 4, 255, 256, 257].map(height_limit), [1, 2, 2, 8, 8, 9]);
    }
}
