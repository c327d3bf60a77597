//! The lazy search for the farthest row.

use rayon::prelude::*;

use crate::buffer::AlignedBuf;
use crate::simd::{Kernel, Simd, Token};

/// Centres that a row is compared with at a time: the longest vector, so that no result depends on the instruction set's.
pub(super) const PANEL: usize = 16;

/// Rows that share one upper bound.
const CHUNK: usize = 128;

/// Rows that are looked at first, largest bounds first, so that the largest true distance is known early.
const SEEDS: usize = 8;

/// A squared distance and the row that has it; the larger one wins, of equal ones that of the lower row.
#[derive(Clone, Copy, PartialEq)]
struct Far {
    square: f32,
    row: usize,
}

impl Far {
    const NONE: Self = Self { square: f32::NEG_INFINITY, row: usize::MAX };

    fn beats(self, other: Self) -> bool {
        self.square > other.square || (self.square == other.square && self.row < other.row)
    }

    fn max(self, other: Self) -> Self {
        if other.beats(self) { other } else { self }
    }
}

/// Rows with the centres picked so far.
pub(super) struct Selection<'a> {
    rows: &'a [f32],
    dim: usize,
    token: Token,
    centres: Centres,
    /// Of each row, the squared distance to the nearest of the centres that it has met ...
    bounds: Vec<f32>,
    /// ... which are the first so many.
    met: Vec<u32>,
    /// The largest bound of each [`CHUNK`] of rows.
    chunk_bounds: Vec<f32>,
}

/// Centres in panels `[panel][dim][PANEL]`.
struct Centres {
    packed: AlignedBuf,
    count: usize,
}

impl Centres {
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
}

impl<'a> Selection<'a> {
    /// `rows` must be whole and finite, for at most `count` centres.
    pub(super) fn new(rows: &'a [f32], dim: usize, count: usize, token: Token) -> Self {
        let total = rows.len() / dim;
        Self {
            rows,
            dim,
            token,
            centres: Centres::new(count, dim),
            bounds: vec![f32::INFINITY; total],
            met: vec![0; total],
            chunk_bounds: vec![f32::INFINITY; total.div_ceil(CHUNK)],
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
        let mut centre = Centres::new(1, self.dim);
        centre.push(&mean);
        let distances = (0..total).into_par_iter().with_min_len(CHUNK).map(|row| {
            let (mut bound, mut met) = (f32::INFINITY, 0);
            let far = Far::NONE;
            let sweep = Meet { row: self.row(row), number: row, centres: &centre, far };
            self.token.dispatch(OneRow { meet: sweep, bound: &mut bound, met: &mut met });
            Far { square: bound, row }
        });
        distances.reduce(|| Far::NONE, Far::max).row
    }

    /// Makes a row the next centre.
    pub(super) fn add(&mut self, row: usize) {
        self.centres.push(self.row(row));
        self.bounds[row] = 0.0;
        self.met[row] = self.centres.count as u32;
    }

    /// The squared distance of the row farthest from its nearest centre, and that row.
    pub(super) fn farthest(&mut self) -> (f32, usize) {
        let mut far = Far::NONE;
        for _ in 0..SEEDS {
            let top = self.top();
            if !top.beats(far) {
                return (far.square, far.row);
            }
            let meet = Meet { row: self.row(top.row), number: top.row, centres: &self.centres, far: Far::NONE };
            let (bound, met) = (&mut self.bounds[top.row], &mut self.met[top.row]);
            self.token.dispatch(OneRow { meet, bound, met });
            far = far.max(Far { square: self.bounds[top.row], row: top.row });
            let chunk = top.row / CHUNK;
            self.chunk_bounds[chunk] =
                largest(&self.bounds[chunk * CHUNK..][..CHUNK.min(self.bounds.len() - chunk * CHUNK)]);
        }
        let Self { rows, dim, token, centres, bounds, met, chunk_bounds } = self;
        let chunks = bounds.par_chunks_mut(CHUNK).zip(met.par_chunks_mut(CHUNK)).zip(rows.par_chunks(CHUNK * *dim));
        let chunks = chunks.zip(chunk_bounds.par_iter_mut()).enumerate().with_min_len(32);
        let sweep = |far: Far,
                     (chunk, (((bounds, met), rows), chunk_bound)): (
            usize,
            (((&mut [f32], &mut [u32]), &[f32]), &mut f32),
        )| {
            if *chunk_bound < far.square {
                return far;
            }
            let far = token.dispatch(Sweep { rows, first: chunk * CHUNK, dim: *dim, centres, bounds, met, far });
            *chunk_bound = largest(bounds);
            far
        };
        let far = chunks.fold(|| far, sweep).reduce(|| far, Far::max);
        (far.square, far.row)
    }

    /// The row with the largest bound.
    fn top(&self) -> Far {
        let bound = largest(&self.chunk_bounds);
        let chunk = self.chunk_bounds.iter().position(|other| *other == bound).unwrap_or(0);
        let row = self.bounds[chunk * CHUNK..].iter().position(|other| *other == bound).unwrap_or(0);
        Far { square: bound, row: chunk * CHUNK + row }
    }
}

/// In 16 lanes, so that it is vectorised; there is no NaN among the values.
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

/// A row that is to meet centres until it is no farther than `far`.
struct Meet<'a> {
    row: &'a [f32],
    number: usize,
    centres: &'a Centres,
    far: Far,
}

impl Meet<'_> {
    /// Brings the bound of the row up to date, or below `far`.
    #[inline(always)]
    fn run<S: Simd>(&self, simd: S, bound: &mut f32, met: &mut u32) {
        let Self { row, number, centres, far } = self;
        let size = PANEL * row.len();
        while (*met as usize) < centres.count && (Far { square: *bound, row: *number }).beats(*far) {
            let panel = *met as usize / PANEL;
            let squares = squares(simd, row, &centres.packed[panel * size..(panel + 1) * size]);
            let end = centres.count.min((panel + 1) * PANEL);
            for square in &squares[..end - panel * PANEL] {
                *bound = if *square < *bound { *square } else { *bound };
            }
            *met = end as u32;
        }
    }
}

/// One [`Meet`].
struct OneRow<'a> {
    meet: Meet<'a>,
    bound: &'a mut f32,
    met: &'a mut u32,
}

impl Kernel for OneRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.meet.run(simd, self.bound, self.met);
    }
}

/// Looks at those rows of a chunk that might be farther than `far`; returns the farthest.
struct Sweep<'a> {
    rows: &'a [f32],
    /// The number of the chunk's first row.
    first: usize,
    dim: usize,
    centres: &'a Centres,
    bounds: &'a mut [f32],
    met: &'a mut [u32],
    far: Far,
}

impl Kernel for Sweep<'_> {
    type Output = Far;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Far {
        let Self { rows, first, dim, centres, bounds, met, mut far } = self;
        for (offset, (bound, met)) in bounds.iter_mut().zip(met).enumerate() {
            let number = first + offset;
            if !(Far { square: *bound, row: number }).beats(far) {
                continue;
            }
            let row = &rows[offset * dim..(offset + 1) * dim];
            Meet { row, number, centres, far }.run(simd, bound, met);
            // What still beats `far` has met every centre.
            far = far.max(Far { square: *bound, row: number });
        }
        far
    }
}

/// The squared distances of a row to the centres of a panel: four sums over every fourth position, added in pairs.
#[inline(always)]
fn squares<S: Simd>(simd: S, row: &[f32], panel: &[f32]) -> [f32; PANEL] {
    const SUMS: usize = 4;
    assert!(panel.len() == PANEL * row.len() && PANEL.is_multiple_of(S::LANES));
    let mut squares = [0.0; PANEL];
    for lane in (0..PANEL).step_by(S::LANES) {
        let mut sums = [simd.splat(0.0); SUMS];
        let add = |sum: S::V, position: usize| {
            // SAFETY: callers keep `position < row.len()`, and a panel has PANEL values for each position.
            let (value, centres) =
                unsafe { (*row.get_unchecked(position), simd.load(panel.as_ptr().add(position * PANEL + lane))) };
            let difference = simd.sub(centres, simd.splat(value));
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
