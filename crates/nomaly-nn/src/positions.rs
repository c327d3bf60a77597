//! What positions add to tokens: learned embeddings that are resized to a grid, and the angles of rotary embedding.

use std::f64::consts::TAU;

use crate::graph::{AxialRotary, PositionResize};

/// A linear map from the rows of one grid to those of another: for each new one the first old one that it reads, and
/// the weights from there on.
#[derive(Debug)]
struct Axis(Vec<(usize, Vec<f32>)>);

impl Axis {
    fn new(from: usize, to: usize, how: PositionResize) -> Self {
        let row = |index: usize| match how {
            PositionResize::Scaled { offset } => scaled(from, from as f64 / (to as f64 + offset), index),
            PositionResize::Antialiased => antialiased(from, from as f64 / to as f64, index),
        };
        Self((0..to).map(row).collect())
    }
}

/// Keys's cubic kernel.
fn cubic(a: f64, x: f64) -> f64 {
    match x.abs() {
        x if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((x - 5.0) * x + 8.0) * x * a - 4.0 * a,
        _ => 0.0,
    }
}

/// The four neighbours of a position; those beyond the border count as the outermost.
fn scaled(len: usize, scale: f64, index: usize) -> (usize, Vec<f32>) {
    let at = (index as f64 + 0.5) * scale - 0.5;
    let floor = at.floor();
    let place = |tap: f64| (floor + tap).clamp(0.0, len as f64 - 1.0) as usize;
    let first = place(-1.0);
    let mut weights = vec![0.0f64; place(2.0) - first + 1];
    for tap in [-1.0, 0.0, 1.0, 2.0] {
        weights[place(tap) - first] += cubic(-0.75, at - floor - tap);
    }
    (first, weights.into_iter().map(|weight| weight as f32).collect())
}

/// All positions under a kernel as wide as the scale, whose weights add up to one.
fn antialiased(len: usize, scale: f64, index: usize) -> (usize, Vec<f32>) {
    let (stretch, center) = (scale.max(1.0), scale * (index as f64 + 0.5));
    let support = 2.0 * stretch;
    let first = (center - support + 0.5).max(0.0) as usize;
    let end = ((center + support + 0.5) as usize).min(len);
    let weight = |at: usize| cubic(-0.5, (at as f64 - center + 0.5) / stretch);
    let sum: f64 = (first..end).map(weight).sum();
    (first, (first..end).map(|at| (weight(at) / sum) as f32).collect())
}

/// The resizing of a grid of rows of features.
#[derive(Debug)]
pub(crate) struct GridResize {
    from: [usize; 2],
    to: [usize; 2],
    /// Rows and columns; none for a grid that keeps its size.
    axes: Option<[Axis; 2]>,
}

impl GridResize {
    pub(crate) fn new(from: [usize; 2], to: [usize; 2], how: PositionResize) -> Self {
        let axes = (from != to).then(|| [0, 1].map(|axis| Axis::new(from[axis], to[axis], how)));
        Self { from, to, axes }
    }

    /// Positions of the learned grid.
    pub(crate) fn learned(&self) -> usize {
        self.from[0] * self.from[1]
    }

    /// The weights of each axis as matrices `[new, old]`; none for a grid that keeps its size.
    #[cfg(feature = "candle")]
    pub(crate) fn matrices(&self) -> Option<[Vec<f32>; 2]> {
        let axes = self.axes.as_ref()?;
        Some([0, 1].map(|axis| {
            let mut matrix = vec![0.0; self.to[axis] * self.from[axis]];
            for (row, (first, weights)) in matrix.chunks_exact_mut(self.from[axis]).zip(&axes[axis].0) {
                row[*first..first + weights.len()].copy_from_slice(weights);
            }
            matrix
        }))
    }

    /// Writes the grid `[rows, columns, dim]` in the other size.
    pub(crate) fn apply(&self, grid: &[f32], dim: usize, to: &mut [f32]) {
        let Some([rows, columns]) = &self.axes else { return to.copy_from_slice(grid) };
        let line = self.from[1] * dim;
        let mut between = vec![0.0f32; line];
        for ((first, weights), to) in rows.0.iter().zip(to.chunks_exact_mut(self.to[1] * dim)) {
            between.fill(0.0);
            for (weight, from) in weights.iter().zip(grid[first * line..].chunks_exact(line)) {
                add_scaled(&mut between, *weight, from);
            }
            for ((first, weights), to) in columns.0.iter().zip(to.chunks_exact_mut(dim)) {
                to.fill(0.0);
                for (weight, from) in weights.iter().zip(between[first * dim..].chunks_exact(dim)) {
                    add_scaled(to, *weight, from);
                }
            }
        }
    }

    /// Adds the gradient of the learned grid to `to`, from that of the resized one.
    pub(crate) fn add_gradient(&self, gradient: &[f32], dim: usize, to: &mut [f32]) {
        let Some([rows, columns]) = &self.axes else { return add_scaled(to, 1.0, gradient) };
        let line = self.from[1] * dim;
        let mut between = vec![0.0f32; line];
        for ((first, weights), gradient) in rows.0.iter().zip(gradient.chunks_exact(self.to[1] * dim)) {
            between.fill(0.0);
            for ((first, weights), gradient) in columns.0.iter().zip(gradient.chunks_exact(dim)) {
                for (weight, to) in weights.iter().zip(between[first * dim..].chunks_exact_mut(dim)) {
                    add_scaled(to, *weight, gradient);
                }
            }
            for (weight, to) in weights.iter().zip(to[first * line..].chunks_exact_mut(line)) {
                add_scaled(to, *weight, &between);
            }
        }
    }
}

fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += factor * from);
}

/// Cosines and sines `[prefix + positions, head_dim / 2]` of the angles of a grid's tokens; the prefix has angles of 0.
pub(crate) fn rotary_tables(rotary: &AxialRotary, grid: [usize; 2], head_dim: usize) -> [Vec<f32>; 2] {
    let quarter = head_dim / 4;
    let len = (rotary.prefix + grid[0] * grid[1]) * 2 * quarter;
    let mut tables = [Vec::with_capacity(len), Vec::with_capacity(len)];
    tables[0].resize(rotary.prefix * 2 * quarter, 1.0);
    tables[1].resize(rotary.prefix * 2 * quarter, 0.0);
    let center = |index: usize, count: usize| 2.0 * (index as f64 + 0.5) / count as f64 - 1.0;
    for row in 0..grid[0] {
        for column in 0..grid[1] {
            for place in [center(row, grid[0]), center(column, grid[1])] {
                for step in 0..quarter {
                    let period = rotary.base.powf(step as f64 / quarter as f64);
                    let angle = TAU * place / period;
                    tables[0].push(angle.cos() as f32);
                    tables[1].push(angle.sin() as f32);
                }
            }
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_and_the_same_size_are_kept_and_the_gradient_is_the_transpose() {
        for how in [PositionResize::Scaled { offset: 0.1 }, PositionResize::Antialiased] {
            for (from, to) in [([7, 5], [3, 4]), ([3, 4], [8, 4]), ([1, 1], [2, 3]), ([4, 6], [4, 6])] {
                let resize = GridResize::new(from, to, how);
                let (old, new) = (from[0] * from[1], to[0] * to[1]);
                let mut result = vec![f32::NAN; 2 * new];
                resize.apply(&vec![3.0; 2 * old], 2, &mut result);
                assert!(result.iter().all(|value| (value - 3.0).abs() < 1e-5), "{how:?} {from:?} {to:?}: {result:?}");
                // <A x, y> = <x, Aᵀ y>
                let x: Vec<f32> = (0..2 * old).map(|i| ((i * 37 + 5) % 11) as f32 - 5.0).collect();
                let y: Vec<f32> = (0..2 * new).map(|i| ((i * 29 + 3) % 13) as f32 - 6.0).collect();
                resize.apply(&x, 2, &mut result);
                let mut back = vec![0.0; 2 * old];
                resize.add_gradient(&y, 2, &mut back);
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
                assert!((dot(&result, &y) - dot(&x, &back)).abs() < 1e-2, "{how:?} {from:?} {to:?}");
                if from == to {
                    assert_eq!(result, x);
                }
            }
        }
    }

    #[test]
    fn rotary_tables_are_those_of_pytorch() {
        let want: serde_json::Value =
            serde_json::from_str(include_str!("../tests/fixtures/positions.json")).expect("a fixture");
        let tables = rotary_tables(&AxialRotary { prefix: 2, base: 100.0 }, [3, 5], 16);
        for (name, table, own) in [("cos", &tables[0], 1.0), ("sin", &tables[1], 0.0)] {
            let want = want[name].as_array().expect("a list");
            assert_eq!(table.len(), 2 * 8 + want.len());
            assert!(table[..2 * 8].iter().all(|value| *value == own), "{name}");
            for (got, want) in table[2 * 8..].iter().zip(want) {
                assert!((f64::from(*got) - want.as_f64().expect("a number")).abs() < 1e-6, "{name}");
            }
        }
    }
}
