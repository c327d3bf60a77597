//! The extended isolation forest: random splits along random slopes.
//!
//! # What it computes
//! As the isolation forest, but a node splits its rows by a random plane: a normal vector of standard normal numbers in
//! `extension + 1` of the columns (and zeros in the others), through a point drawn uniformly from the smallest box
//! around the node's rows. Rows with `(x - p) · n ≤ 0` go to one side. A side may stay empty; a row that arrives
//! there later counts as isolated at that depth. `extension = 0` splits along columns.
//!
//! Columns that vary among the rows of a node are drawn first. With all columns (full extension) even a column that is
//! constant in the fit has a weight, so that a deviation from the constant counts.
//!
//! # When to use
//! Where anomalies break a correlation, or normal items form groups: splits along columns leave bands of low scores
//! beside the groups ("ghosts"), random slopes do not. The planes depend on the units, so columns should have similar
//! scales.
//!
//! # Parameters
//! `trees`, `samples`, `extension` and `seed`: see [`ExtendedIsolationForestOptions`].
//!
//! # Reference
//! Hariri, Carrasco Kind and Brunner, *Extended isolation forest* (2019), algorithm 2 and section 3.2 (extension
//! levels).

use ndarray::{ArrayView1, ArrayView2};
use nomaly_settings::{SettingError, Settings, word_or_value};
use rand::RngExt;

use super::IsolationForestOptions;
use super::trees::{self, Growth, Node, Shape, Split, TraversalNode};
use crate::entry::{ScorerParams, check_settings};
use crate::random::normals;
use crate::scorer::{Scorer, State, Tensor, check_rows};
use crate::{ScorerError, Watch};

/// The number of partial sums of the product of a plane and a row, which the processor adds side by side.
const PARTS: usize = 16;

/// Prepared features are clamped to this bound, so that no product with a plane leaves the range of `f32`.
const FARTHEST: f64 = 1e18;

word_or_value! {
    /// How many columns take part in a split.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Extension {
        /// All of them.
        Full = "full",
        ;
        /// So many and one more.
        Columns(usize) {},
    }
}

/// The settings of an [`ExtendedIsolationForest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct ExtendedIsolationForestOptions {
    /// The trees.
    #[serde(flatten)]
    pub forest: IsolationForestOptions,
    /// The columns that take part in a split, less one: below the number of columns, or `full` for all of them.
    pub extension: Extension,
}

impl Default for ExtendedIsolationForestOptions {
    /// 100 trees of 256 rows, fully extended.
    fn default() -> Self {
        Self { forest: IsolationForestOptions::default(), extension: Extension::Full }
    }
}

impl Settings for ExtendedIsolationForestOptions {}

impl ScorerParams for ExtendedIsolationForestOptions {
    const NAME: &'static str = "extended-isolation-forest";
    const SUMMARY: &'static str = "how few random splits along random slopes set a row apart";
    type Fitted = ExtendedIsolationForest;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<ExtendedIsolationForest, ScorerError> {
        ExtendedIsolationForest::fit(rows, *self, watch)
    }

    fn restore(state: &State) -> Result<ExtendedIsolationForest, ScorerError> {
        ExtendedIsolationForest::from_state(state)
    }
}

/// A fitted extended isolation forest.
///
/// A tree of ψ rows takes up to ψ planes of `extension + 1` numbers; a row is compared with `ceil(log2 ψ)` planes of
/// a tree at most.
#[derive(Clone, Debug)]
pub struct ExtendedIsolationForest {
    shape: Shape,
    scale: Scale,
    planes: Planes,
    trees: Vec<Vec<PackedNode>>,
}

/// The affine map of features before they meet planes: it changes no split, keeps `f32` sums accurate for features with
/// a large offset, and keeps the largest features in range.
#[derive(Clone, Debug)]
struct Scale {
    /// The middle of each column's range, `[dim]`.
    center: Vec<f64>,
    /// 1 over half the largest range.
    factor: f64,
}

/// The planes of all inner nodes.
#[derive(Clone, Debug)]
struct Planes {
    /// The columns of each plane, `[planes, width]`; empty where all take part.
    columns: Vec<u32>,
    /// `[planes, width]`; where all columns take part, padded with zeros like prepared rows.
    weights: Vec<f32>,
    /// The weights of a plane.
    width: usize,
    /// `n · p` of each plane.
    borders: Vec<f32>,
}

/// A node during traversal.
#[derive(Clone, Copy, Debug)]
struct PackedNode {
    /// The first child.
    next: u32,
    /// The number of its plane; none for a leaf.
    plane: Option<usize>,
    path: f64,
}

/// A plane of a growing tree.
struct Plane {
    /// Empty where all columns take part.
    columns: Vec<u32>,
    weights: Vec<f32>,
    border: f32,
}

impl Split for Plane {
    fn is_first(&self, row: &[f32]) -> bool {
        is_first(&self.columns, &self.weights, self.border, row)
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    factor: f64,
    samples: u32,
}

impl ExtendedIsolationForest {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for settings out of range, [`ScorerError::TooFewRows`] below 2 rows,
    /// [`ScorerError::ConstantRows`], [`ScorerError::NonFiniteFeature`], [`ScorerError::Cancelled`].
    pub fn fit(
        rows: ArrayView2<'_, f32>,
        options: ExtendedIsolationForestOptions,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        check_settings(&options)?;
        trees::check_rows(rows, "an extended isolation forest")?;
        let dim = rows.ncols();
        let taking_part = match options.extension {
            Extension::Full => dim,
            Extension::Columns(extension) if extension < dim => extension + 1,
            Extension::Columns(extension) => {
                let expected = format!("`full` or a whole number from 0 to {}", dim - 1);
                return Err(SettingError::value("extension", extension, &expected).into());
            }
        };
        let scale = Scale::of(rows);
        let IsolationForestOptions { trees, samples, seed } = options.forest;
        let growth = Growth { trees, samples, seed, width: prepared_width(dim) };
        let grown = trees::grow(
            rows,
            growth,
            |row, target| scale.prepare(row, target),
            |node| plane(node, taking_part, dim),
            watch,
        )?;
        let all = taking_part == dim;
        let planes = Planes {
            columns: grown.splits.iter().flat_map(|plane| plane.columns.iter().copied()).collect(),
            weights: grown.splits.iter().flat_map(|plane| plane.weights.iter().copied()).collect(),
            width: if all { prepared_width(dim) } else { taking_part },
            borders: grown.splits.iter().map(|plane| plane.border).collect(),
        };
        Ok(Self::new(grown.shape, scale, planes))
    }

    fn new(shape: Shape, scale: Scale, planes: Planes) -> Self {
        let pack = |place: TraversalNode| PackedNode { next: place.next, plane: place.rule, path: place.path };
        let trees =
            shape.traversal_trees().into_iter().map(|walk| walk.places.into_iter().map(pack).collect()).collect();
        Self { shape, scale, planes, trees }
    }

    /// The number of trees.
    pub fn trees(&self) -> usize {
        self.shape.trees()
    }

    /// The rows that each tree was grown on.
    pub fn samples(&self) -> u32 {
        self.shape.samples()
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { factor, samples } = state.read_config()?;
        if !(factor.is_finite() && factor > 0.0) {
            return Err(
                state.config_error(format!("the factor of the features is {factor}, expected a positive number"))
            );
        }
        let [dim] = state.shape("centre")?;
        let scale = Scale { center: state.read_f64("centre", [dim])?.to_vec(), factor };
        let shape = Shape::from_state(state, samples)?;
        let inner = shape.inner();
        if inner == 0 {
            state.expect_only(&["centre", "children", "nodes", "sizes"])?;
            let planes =
                Planes { columns: Vec::new(), weights: Vec::new(), width: prepared_width(dim), borders: Vec::new() };
            return Ok(Self::new(shape, scale, planes));
        }
        let borders = state.read_f32("borders", [inner])?.to_vec();
        let [_, width] = state.shape("weights")?;
        let weights = state.read_f32("weights", [inner, width])?;
        if width == dim {
            state.expect_only(&["borders", "centre", "children", "nodes", "sizes", "weights"])?;
            let weights = weights.chunks_exact(dim).flat_map(|weights| padded(weights.iter().copied(), dim)).collect();
            let planes = Planes { columns: Vec::new(), weights, width: prepared_width(dim), borders };
            return Ok(Self::new(shape, scale, planes));
        }
        state.expect_only(&["borders", "centre", "children", "columns", "nodes", "sizes", "weights"])?;
        let columns = state.read_u32("columns", [inner, width])?.to_vec();
        if let Some(column) = columns.iter().find(|column| **column as usize >= dim) {
            return Err(state.tensor_error("columns", format!("there is no column {column} among {dim}")));
        }
        Ok(Self::new(shape, scale, Planes { columns, weights: weights.to_vec(), width, borders }))
    }
}

impl Scorer for ExtendedIsolationForest {
    fn dim(&self) -> usize {
        self.scale.center.len()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        let dim = self.dim();
        check_rows(rows, dim)?;
        let width = prepared_width(dim);
        let prepare = |row: ArrayView1<'_, f32>, target: &mut [f32]| self.scale.prepare(row, target);
        Ok(self.shape.score(rows, width, prepare, |block, sums| {
            for tree in &self.trees {
                for (row, sum) in block.chunks_exact(width).zip(&mut *sums) {
                    *sum += self.planes.path(tree, row);
                }
            }
        }))
    }

    fn state(&self) -> State {
        let dim = self.dim();
        let config = Config { factor: self.scale.factor, samples: self.shape.samples() };
        let mut state = State::new(
            ExtendedIsolationForestOptions::NAME,
            &config,
            [("centre", Tensor::f64([dim], self.scale.center.clone()))],
        );
        let mut tensors = self.shape.tensors().to_vec();
        let Planes { columns, weights, width, borders } = &self.planes;
        let inner = borders.len();
        if inner > 0 {
            tensors.push(("borders", Tensor::f32([inner], borders.clone())));
            if columns.is_empty() {
                let weights = weights.chunks_exact(*width).flat_map(|weights| weights[..dim].iter().copied()).collect();
                tensors.push(("weights", Tensor::f32([inner, dim], weights)));
            } else {
                tensors.push(("columns", Tensor::u32([inner, *width], columns.clone())));
                tensors.push(("weights", Tensor::f32([inner, *width], weights.clone())));
            }
        }
        state.tensors.extend(tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)));
        state
    }
}

impl Planes {
    /// The path of a prepared row in a tree.
    fn path(&self, tree: &[PackedNode], row: &[f32]) -> f64 {
        let mut node = tree[0];
        while let Some(plane) = node.plane {
            let range = plane * self.width..(plane + 1) * self.width;
            let columns = if self.columns.is_empty() { &[] } else { &self.columns[range.clone()] };
            let first = is_first(columns, &self.weights[range], self.borders[plane], row);
            node = tree[node.next as usize + usize::from(!first)];
        }
        node.path
    }
}

impl Scale {
    /// Of rows that are not all equal.
    fn of(rows: ArrayView2<'_, f32>) -> Self {
        let mut ranges = vec![(f64::INFINITY, f64::NEG_INFINITY); rows.ncols()];
        for row in rows.outer_iter() {
            for ((low, high), value) in ranges.iter_mut().zip(row) {
                (*low, *high) = (low.min(f64::from(*value)), high.max(f64::from(*value)));
            }
        }
        let half = ranges.iter().map(|(low, high)| 0.5 * (high - low)).fold(0.0, f64::max);
        Self { center: ranges.iter().map(|(low, high)| 0.5 * (low + high)).collect(), factor: 1.0 / half }
    }

    fn prepare(&self, row: ArrayView1<'_, f32>, target: &mut [f32]) {
        for ((target, value), center) in target.iter_mut().zip(row).zip(&self.center) {
            *target = ((f64::from(*value) - center) * self.factor).clamp(-FARTHEST, FARTHEST) as f32;
        }
    }
}

/// The length of a prepared row.
fn prepared_width(dim: usize) -> usize {
    dim.next_multiple_of(PARTS)
}

/// Weights of all columns, padded with zeros to the length of a prepared row.
fn padded(weights: impl Iterator<Item = f32>, dim: usize) -> impl Iterator<Item = f32> {
    weights.chain(std::iter::repeat_n(0.0, prepared_width(dim) - dim))
}

/// A random plane through the box around the rows of a node.
fn plane(node: &mut Node<'_>, taking_part: usize, dim: usize) -> Option<Plane> {
    let mut ranges = node.draw_columns(taking_part);
    if ranges.is_empty() {
        return None;
    }
    ranges.sort_unstable_by_key(|range| range.column);
    let weights = normals(node.rng, taking_part).into_iter().map(|weight| weight as f32);
    let weights: Vec<f32> = if taking_part == dim { padded(weights, dim).collect() } else { weights.collect() };
    let mut border = 0.0;
    for (range, weight) in ranges.iter().zip(&weights) {
        let (low, high) = (f64::from(range.low), f64::from(range.high));
        border += f64::from(*weight) * (low + node.rng.random::<f64>() * (high - low));
    }
    let columns = if taking_part == dim { Vec::new() } else { ranges.iter().map(|range| range.column).collect() };
    Some(Plane { columns, weights, border: border as f32 })
}

/// Whether `row · n ≤ p · n`, with the same order of additions during growth and traversal.
fn is_first(columns: &[u32], weights: &[f32], border: f32, row: &[f32]) -> bool {
    let product = if columns.is_empty() {
        let mut sums = [0.0f32; PARTS];
        for (weights, values) in weights.chunks_exact(PARTS).zip(row.chunks_exact(PARTS)) {
            for ((sum, weight), value) in sums.iter_mut().zip(weights).zip(values) {
                *sum += weight * value;
            }
        }
        let mut parts = PARTS;
        while parts > 1 {
            parts /= 2;
            for at in 0..parts {
                sums[at] += sums[at + parts];
            }
        }
        sums[0]
    } else {
        columns.iter().zip(weights).map(|(column, weight)| weight * row[*column as usize]).sum()
    };
    product <= border
}
