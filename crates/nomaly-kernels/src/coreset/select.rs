//! The lazy search for the farthest row.

use rayon::prelude::*;

use crate::buffer::AlignedBuf;
use crate::simd::{Kernel, Simd, Token};

/// Centers that a row is compared with at a time: the longest vector, so that no result depends on the instruction set.
pub(super) const PANEL: usize = 16;

/// Rows that share one upper bound.
const CHUNK: usize = 128;

/// Rows that are brought up to date together: they share each panel of centers while it is in the first-level cache.
const GROUP: usize = 512;

/// When no row is as far as the current level, the level is lowered by this factor: closer to 1 takes more passes over
/// the centers, farther from 1 compares rows needlessly.
const MARGIN: f32 = 0.97;

/// Rows that are updated first, those with the largest bounds, so that the largest true distance is known early.
const SEEDS: usize = 8;

/// A squared distance and its row; the larger distance wins, ties go to the lower row.
#[derive(Clone, Copy, PartialEq)]
struct RowDistance {
    square: f32,
    row: usize,
}

impl RowDistance {
    const NONE: Self = Self { square: f32::NEG_INFINITY, row: usize::MAX };

    fn beats(self, other: Self) -> bool {
        self.square > other.square || (self.square == other.square && self.row < other.row)
    }

    fn max(self, other: Self) -> Self {
        if other.beats(self) { other } else { self }
    }
}

/// Rows with the centers picked so far.
pub(super) struct Selection<'a> {
    rows: &'a [f32],
    dim: usize,
    token: Token,
    centers: Centers,
    /// For each row, the squared distance to the nearest center that it has been compared with ...
    bounds: Vec<f32>,
    /// ... and the number of those centers, which are the first ones.
    met: Vec<u32>,
    /// The largest bound of each [`CHUNK`] of rows.
    chunk_bounds: Vec<f32>,
    /// Rows with larger bounds than this have been updated together, so they lack few centers.
    settled: f32,
}

/// Centers in panels `[panel][dim][PANEL]`.
struct Centers {
    packed: AlignedBuf,
    count: usize,
}

impl Centers {
    fn new(count: usize, dim: usize) -> Self {
        Self { packed: AlignedBuf::zeroed(count.next_multiple_of(PANEL) * dim), count: 0 }
    }

    fn push(&mut self, row: &[f32]) {
        let panel = self.count / PANEL * PANEL * row.len();
        for (position, value) in row.iter().enumerate() {
            self.packed[panel + position * PANEL + self.count % PANEL] = *value;
        }
        self.count += 1;
    }

    /// Compares a row with the centers from `met` on, at most to the end of their panel.
    #[inline(always)]
    fn meet<S: Simd>(&self, simd: S, row: &[f32], bound: &mut f32, met: &mut u32) {
        let (panel, size) = (*met as usize / PANEL, PANEL * row.len());
        let squares = squares(simd, row, &self.packed[panel * size..(panel + 1) * size]);
        let end = self.count.min((panel + 1) * PANEL);
        for square in &squares[..end - panel * PANEL] {
            *bound = if *square < *bound { *square } else { *bound };
        }
        *met = end as u32;
    }
}

impl<'a> Selection<'a> {
    /// `rows` must be whole and finite, for at most `count` centers.
    pub(super) fn new(rows: &'a [f32], dim: usize, count: usize, token: Token) -> Self {
        let total = rows.len() / dim;
        Self {
            rows,
            dim,
            token,
            centers: Centers::new(count, dim),
            bounds: vec![f32::INFINITY; total],
            met: vec![0; total],
            chunk_bounds: vec![f32::INFINITY; total.div_ceil(CHUNK)],
            settled: f32::INFINITY,
        }
    }

    fn row(&self, row: usize) -> &'a [f32] {
        &self.rows[row * self.dim..(row + 1) * self.dim]
    }

    /// The row farthest from the mean of all.
    pub(super) fn farthest_from_mean(&self) -> usize {
        let mut sums = vec![0.0f64; self.dim];
        for row in self.rows.chunks_exact(self.dim) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        let total = self.bounds.len();
        let mean: Vec<f32> = sums.iter().map(|sum| (sum / total as f64) as f32).collect();
        let mut center = Centers::new(1, self.dim);
        center.push(&mean);
        let distances = (0..total).into_par_iter().with_min_len(CHUNK).map(|row| {
            let (mut bound, mut met) = (f32::INFINITY, 0);
            let far = RowDistance::NONE;
            let sweep = CompareRow { row: self.row(row), number: row, centers: &center, far };
            self.token.dispatch(CompareOneRow { meet: sweep, bound: &mut bound, met: &mut met });
            RowDistance { square: bound, row }
        });
        distances.reduce(|| RowDistance::NONE, RowDistance::max).row
    }

    /// Makes a row the next center.
    pub(super) fn add(&mut self, row: usize) {
        self.centers.push(self.row(row));
        self.bounds[row] = 0.0;
        self.met[row] = self.centers.count as u32;
    }

    /// The squared distance of the row farthest from its nearest center, and that row.
    pub(super) fn farthest(&mut self) -> (f32, usize) {
        loop {
            let floor = RowDistance { square: self.settled, row: usize::MAX };
            let seen = self.update_seeds(floor);
            let far = self.sweep(seen);
            if far != floor {
                return (far.square, far.row);
            }
            // No row is that far anymore.
            self.settle((MARGIN * self.settled).min(self.top().square));
        }
    }

    /// Updates the rows with the largest bounds; returns the farthest of them, or `far`.
    fn update_seeds(&mut self, mut far: RowDistance) -> RowDistance {
        for _ in 0..SEEDS {
            let top = self.top();
            if !top.beats(far) {
                break;
            }
            let meet =
                CompareRow { row: self.row(top.row), number: top.row, centers: &self.centers, far: RowDistance::NONE };
            let (bound, met) = (&mut self.bounds[top.row], &mut self.met[top.row]);
            self.token.dispatch(CompareOneRow { meet, bound, met });
            far = far.max(RowDistance { square: self.bounds[top.row], row: top.row });
            let chunk = top.row / CHUNK;
            let end = self.bounds.len().min((chunk + 1) * CHUNK);
            self.chunk_bounds[chunk] = largest(&self.bounds[chunk * CHUNK..end]);
        }
        far
    }

    /// Compares every row that might be farther than `far`; returns the farthest.
    fn sweep(&mut self, far: RowDistance) -> RowDistance {
        let Self { rows, dim, token, centers, bounds, met, chunk_bounds, .. } = self;
        let groups = bounds.par_chunks_mut(GROUP).zip(met.par_chunks_mut(GROUP)).zip(rows.par_chunks(GROUP * *dim));
        let groups = groups.zip(chunk_bounds.par_chunks_mut(GROUP / CHUNK)).enumerate().with_min_len(32);
        let farthest = groups.map(|(group, (((bounds, met), rows), chunk_bounds))| {
            let mut far = far;
            let chunks = bounds.chunks_mut(CHUNK).zip(met.chunks_mut(CHUNK)).zip(rows.chunks(CHUNK * *dim));
            for (chunk, (((bounds, met), rows), chunk_bound)) in chunks.zip(chunk_bounds).enumerate() {
                if *chunk_bound >= far.square {
                    let first = group * GROUP + chunk * CHUNK;
                    far = token.dispatch(Sweep { rows, first, dim: *dim, centers, bounds, met, far });
                    *chunk_bound = largest(bounds);
                }
            }
            far
        });
        farthest.reduce(|| far, RowDistance::max)
    }

    /// Updates every row until it has met all centers or its bound is below `square`.
    fn settle(&mut self, square: f32) {
        self.settled = square;
        let Self { rows, dim, token, centers, bounds, met, chunk_bounds, settled } = self;
        let groups = bounds.par_chunks_mut(GROUP).zip(met.par_chunks_mut(GROUP)).zip(rows.par_chunks(GROUP * *dim));
        groups.zip(chunk_bounds.par_chunks_mut(GROUP / CHUNK)).for_each(|(((bounds, met), rows), chunk_bounds)| {
            if chunk_bounds.iter().any(|bound| *bound >= *settled) {
                token.dispatch(Settle { rows, dim: *dim, centers, bounds, met, settled: *settled });
                for (bound, bounds) in chunk_bounds.iter_mut().zip(bounds.chunks(CHUNK)) {
                    *bound = largest(bounds);
                }
            }
        });
    }

    /// The row with the largest bound.
    fn top(&self) -> RowDistance {
        let bound = largest(&self.chunk_bounds);
        let chunk = self.chunk_bounds.iter().position(|other| *other == bound).unwrap_or(0);
        let row = self.bounds[chunk * CHUNK..].iter().position(|other| *other == bound).unwrap_or(0);
        RowDistance { square: bound, row: chunk * CHUNK + row }
    }
}

/// In 16 lanes, so that it is vectorised; the values contain no NaN.
fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |largest, value| largest.max(*value))
}

/// Compares a row with centers until its bound is at most `far`.
struct CompareRow<'a> {
    row: &'a [f32],
    number: usize,
    centers: &'a Centers,
    far: RowDistance,
}

impl CompareRow<'_> {
    /// Lowers the bound of the row until it is exact or below `far`.
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, bound: &mut f32, met: &mut u32) {
        let Self { row, number, centers, far } = self;
        while (*met as usize) < centers.count && (RowDistance { square: *bound, row: *number }).beats(*far) {
            centers.meet(simd, row, bound, met);
        }
    }
}

/// One [`CompareRow`].
struct CompareOneRow<'a> {
    meet: CompareRow<'a>,
    bound: &'a mut f32,
    met: &'a mut u32,
}

impl Kernel for CompareOneRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.meet.run(simd, self.bound, self.met);
    }
}

/// Compares the rows of a chunk that might be farther than `far`; returns the farthest.
struct Sweep<'a> {
    rows: &'a [f32],
    /// The number of the chunk's first row.
    first: usize,
    dim: usize,
    centers: &'a Centers,
    bounds: &'a mut [f32],
    met: &'a mut [u32],
    far: RowDistance,
}

impl Kernel for Sweep<'_> {
    type Output = RowDistance;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> RowDistance {
        let Self { rows, first, dim, centers, bounds, met, mut far } = self;
        for (offset, (bound, met)) in bounds.iter_mut().zip(met).enumerate() {
            let number = first + offset;
            if !(RowDistance { square: *bound, row: number }).beats(far) {
                continue;
            }
            let row = &rows[offset * dim..(offset + 1) * dim];
            CompareRow { row, number, centers, far }.run(simd, bound, met);
            // A row that still beats `far` has met every center.
            far = far.max(RowDistance { square: *bound, row: number });
        }
        far
    }
}

/// Updates the rows of a group whose bound is above `settled`.
struct Settle<'a> {
    rows: &'a [f32],
    dim: usize,
    centers: &'a Centers,
    bounds: &'a mut [f32],
    met: &'a mut [u32],
    settled: f32,
}

impl Kernel for Settle<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { rows, dim, centers, bounds, met, settled } = self;
        let mut open: Vec<usize> = (0..bounds.len()).filter(|row| bounds[*row] >= settled).collect();
        let first = open.iter().map(|row| met[*row] as usize / PANEL).min().unwrap_or(0);
        for panel in first..centers.count.div_ceil(PANEL) {
            // A loop, because a closure for `retain` would not be compiled for the instruction set.
            let mut kept = 0;
            for at in 0..open.len() {
                let row = open[at];
                if met[row] as usize / PANEL == panel {
                    centers.meet(simd, &rows[row * dim..(row + 1) * dim], &mut bounds[row], &mut met[row]);
                }
                open[kept] = row;
                kept += usize::from(bounds[row] >= settled);
            }
            open.truncate(kept);
        }
    }
}

/// The squared distances of a row to the centers of a panel: four sums over every fourth position, added in pairs.
#[inline(always)]
fn squares<S: Simd>(simd: S, row: &[f32], panel: &[f32]) -> [f32; PANEL] {
    const SUMS: usize = 4;
    assert!(panel.len() == PANEL * row.len() && PANEL.is_multiple_of(S::LANES));
    let mut squares = [0.0; PANEL];
    for lane in (0..PANEL).step_by(S::LANES) {
        let mut sums = [simd.splat(0.0); SUMS];
        let add = |sum: S::V, position: usize| {
            // SAFETY: callers keep `position < row.len()`, and a panel has PANEL values for each position.
            let (value, centers) =
                unsafe { (*row.get_unchecked(position), simd.load(panel.as_ptr().add(position * PANEL + lane))) };
            let difference = simd.sub(centers, simd.splat(value));
            simd.fma(difference, difference, sum)
        };
        let whole = row.len() / SUMS * SUMS;
        for first in (0..whole).step_by(SUMS) {
            for i in 0..SUMS {
                sums[i] = add(sums[i], first + i);
            }
        }
        for position in whole..row.len() {
            sums[position - whole] = add(sums[position - whole], position);
        }
        let total = simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3]));
        // SAFETY: `lane + LANES <= PANEL`.
        unsafe { simd.store(squares.as_mut_ptr().add(lane), total) };
    }
    squares
}
