//! The isolation forest: random splits along one column each.
//!
//! # What it computes
//! Each tree is grown on a random sample of the rows. A node draws one of the columns that vary among its rows and a
//! border between their least and largest value there, uniformly; rows up to the border go to one side. With `E[h]` the
//! mean over the trees of the length of a row's path, plus `c(size)` for a leaf that holds several rows, the score is
//! `2^(-E[h] / c(ψ))`, in (0, 1): about 0.5 in the midst of the rows, towards 1 for rows that are isolated soon.
//!
//! # When to use
//! On raw features of any scale, mixed and with irrelevant columns among them, where there is no time to tune anything:
//! fitting takes the same time for a thousand rows and for a million, and no distance is ever measured. It sees
//! anomalies that stick out in single columns better than those that break a correlation, which is what the extended
//! forest is for. A column that is constant in the rows of the fit is ignored, so a deviation from the constant does
//! not count.
//!
//! # Parameters
//! `trees`, `samples` and `seed`: see [`IsolationForestOptions`].
//!
//! # Reference
//! Liu, Ting and Zhou, *Isolation forest* (2008), algorithms 1 to 3 and equations 1 and 2.

use ndarray::{ArrayView1, ArrayView2};
use nomaly_settings::Settings;
use rand::RngExt;

use super::trees::{self, Growth, LANES, Node, Shape, Split};
use crate::entry::{ScorerParams, check_settings};
use crate::scorer::{Scorer, State, Tensor, check_rows};
use crate::{ScorerError, Watch};

/// The settings of an [`IsolationForest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct IsolationForestOptions {
    /// The number of trees.
    #[schemars(extend("minimum" = 1, "maximum" = trees::MAX_TREES))]
    pub trees: usize,
    /// The rows that each tree is grown on, drawn without replacement; all rows where there are fewer.
    #[schemars(extend("minimum" = 2, "maximum" = trees::MAX_SAMPLES))]
    pub samples: usize,
    /// The random seed.
    pub seed: u64,
}

impl Default for IsolationForestOptions {
    /// The settings of the paper: 100 trees of 256 rows.
    fn default() -> Self {
        Self { trees: 100, samples: 256, seed: 0 }
    }
}

impl Settings for IsolationForestOptions {}

impl ScorerParams for IsolationForestOptions {
    const NAME: &'static str = "isolation-forest";
    const SUMMARY: &'static str = "how few random splits along columns set a row apart";
    type Fitted = IsolationForest;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<IsolationForest, ScorerError> {
        IsolationForest::fit(rows, *self, watch)
    }

    fn restore(state: &State) -> Result<IsolationForest, ScorerError> {
        IsolationForest::from_state(state)
    }
}

/// A fitted isolation forest.
///
/// A tree of ψ rows takes up to `2 ψ` nodes of 20 bytes; a row is scored in `ceil(log2 ψ)` steps per tree.
#[derive(Clone, Debug)]
pub struct IsolationForest {
    dim: usize,
    shape: Shape,
    /// The column and the border of each inner node.
    splits: Vec<AxisSplit>,
    trees: Vec<PackedTree>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct AxisSplit {
    column: u32,
    border: f32,
}

impl Split for AxisSplit {
    fn is_first(&self, row: &[f32]) -> bool {
        row[self.column as usize] <= self.border
    }
}

/// A node during traversal. A leaf is its own child and has an infinite border, so a row that has arrived stays.
#[derive(Clone, Copy, Debug)]
struct PackedNode {
    column: u32,
    border: f32,
    next: u32,
}

#[derive(Clone, Debug)]
struct PackedTree {
    nodes: Vec<PackedNode>,
    paths: Vec<f64>,
    height: u32,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    dim: usize,
    samples: u32,
}

impl IsolationForest {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for settings out of range, [`ScorerError::TooFewRows`] below 2 rows,
    /// [`ScorerError::ConstantRows`], [`ScorerError::NonFiniteFeature`], [`ScorerError::Cancelled`].
    pub fn fit(
        rows: ArrayView2<'_, f32>,
        options: IsolationForestOptions,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        check_settings(&options)?;
        trees::check_rows(rows, "an isolation forest")?;
        let IsolationForestOptions { trees, samples, seed } = options;
        let growth = Growth { trees, samples, seed, width: rows.ncols() };
        let grown = trees::grow(rows, growth, copy, split, watch)?;
        Ok(Self::new(rows.ncols(), grown.shape, grown.splits))
    }

    fn new(dim: usize, shape: Shape, splits: Vec<AxisSplit>) -> Self {
        let pack = |walk: trees::TraversalTree| {
            let node = |place: &trees::TraversalNode| {
                let leaf = AxisSplit { column: 0, border: f32::INFINITY };
                let AxisSplit { column, border } = place.rule.map_or(leaf, |rule| splits[rule]);
                PackedNode { column, border, next: place.next }
            };
            PackedTree {
                nodes: walk.places.iter().map(node).collect(),
                paths: walk.places.iter().map(|place| place.path).collect(),
                height: walk.height,
            }
        };
        let trees = shape.traversal_trees().into_iter().map(pack).collect();
        Self { dim, shape, splits, trees }
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
        let Config { dim, samples } = state.read_config()?;
        let shape = Shape::from_state(state, samples)?;
        let inner = shape.inner();
        if dim == 0 {
            return Err(state.config_error("rows have no columns".to_owned()));
        }
        if inner == 0 {
            state.expect_only(&["children", "nodes", "sizes"])?;
            return Ok(Self::new(dim, shape, Vec::new()));
        }
        state.expect_only(&["borders", "children", "columns", "nodes", "sizes"])?;
        let columns = state.read_u32("columns", [inner])?;
        if let Some(column) = columns.iter().find(|column| **column as usize >= dim) {
            return Err(state.tensor_error("columns", format!("there is no column {column} among {dim}")));
        }
        let borders = state.read_f32("borders", [inner])?;
        let splits = columns.iter().zip(borders).map(|(column, border)| AxisSplit { column: *column, border: *border });
        Ok(Self::new(dim, shape, splits.collect()))
    }
}

impl Scorer for IsolationForest {
    fn dim(&self) -> usize {
        self.dim
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim)?;
        Ok(self.shape.score(rows, self.dim, copy, |block, sums| {
            for tree in &self.trees {
                for (rows, sums) in block.chunks_exact(LANES * self.dim).zip(sums.chunks_exact_mut(LANES)) {
                    tree.add_paths(rows, self.dim, sums);
                }
            }
        }))
    }

    fn state(&self) -> State {
        let mut state = State::new(
            IsolationForestOptions::NAME,
            &Config { dim: self.dim, samples: self.shape.samples() },
            self.shape.tensors(),
        );
        let inner = self.splits.len();
        // If every tree got only equal rows, there is no split.
        if inner > 0 {
            let borders = self.splits.iter().map(|split| split.border).collect();
            let columns = self.splits.iter().map(|split| split.column).collect();
            state.tensors.insert("borders".to_owned(), Tensor::f32([inner], borders));
            state.tensors.insert("columns".to_owned(), Tensor::u32([inner], columns));
        }
        state
    }
}

impl PackedTree {
    /// Adds the paths of `LANES` rows `[LANES, dim]` to their sums. The rows descend side by side, to the depth of the
    /// deepest leaf, without branches, so that their loads overlap.
    fn add_paths(&self, rows: &[f32], dim: usize, sums: &mut [f64]) {
        let mut at = [0u32; LANES];
        for _ in 0..self.height {
            for (lane, at) in at.iter_mut().enumerate() {
                let node = self.nodes[*at as usize];
                let value = rows[lane * dim + node.column as usize];
                *at = node.next + u32::from(value > node.border);
            }
        }
        for (sum, at) in sums.iter_mut().zip(at) {
            *sum += self.paths[at as usize];
        }
    }
}

fn copy(row: ArrayView1<'_, f32>, target: &mut [f32]) {
    for (target, value) in target.iter_mut().zip(row) {
        *target = *value;
    }
}

fn split(node: &mut Node<'_>) -> Option<AxisSplit> {
    let range = *node.draw_columns(1).first()?;
    let (low, high) = (f64::from(range.low), f64::from(range.high));
    let border = (low + node.rng.random::<f64>() * (high - low)) as f32;
    // Rounding may bring the border up to the largest value, which would leave the other side empty.
    Some(AxisSplit { column: range.column, border: if border < range.high { border } else { range.low } })
}
