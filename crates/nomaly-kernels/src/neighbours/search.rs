//! Blocking, pruning and the lists of the nearest.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use rayon::prelude::*;

use super::tile::{Candidates, Direct, Dots, QUERY_ROWS, pack, tile_rows};
use super::{Metric, NeighboursError, Side};
use crate::simd::Token;

/// Rows of the bank that are packed and multiplied at a time.
const BANK_BLOCK: usize = 1024;

/// Up to so many queries are measured directly.
const FEW_QUERIES: usize = 4;

/// Rows of the bank that one task measures directly.
const DIRECT_BLOCK: usize = 2048;

/// Squared lengths above this could overflow in a sum of two rows.
const MAX_SQUARE: f64 = f32::MAX as f64 / 16.0;

/// Rows with what the metric makes of them.
pub(super) struct Rows<'a> {
    data: &'a [f32],
    dim: usize,
    /// The factor of each row: 1, or 1 over its length, or 0 for a row of length 0.
    scale: Vec<f32>,
    /// The squared length after scaling, where a row of length 0 counts as a unit vector of its own direction.
    square: Vec<f32>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(data: &'a [f32], dim: usize, metric: Metric, side: Side) -> Result<Self, NeighboursError> {
        if dim == 0 {
            return Err(NeighboursError::NoColumns);
        }
        if !data.len().is_multiple_of(dim) {
            return Err(NeighboursError::Ragged { side, len: data.len(), dim });
        }
        let squares: Vec<f64> = data.par_chunks_exact(dim).with_min_len(64).map(sum_of_squares).collect();
        // A NaN is not contained either.
        if let Some(row) = squares.iter().position(|square| !(0.0..=MAX_SQUARE).contains(square)) {
            return Err(NeighboursError::NotFinite { side, row });
        }
        let (scale, square) = match metric {
            Metric::SquaredL2 => (vec![1.0; squares.len()], squares.iter().map(|square| *square as f32).collect()),
            Metric::Cosine => {
                let scale = squares
                    .iter()
                    .map(|square| square.sqrt())
                    .map(|length| if length < f64::from(f32::MIN_POSITIVE) { 0.0 } else { (1.0 / length) as f32 });
                (scale.collect(), vec![1.0; squares.len()])
            }
        };
        Ok(Self { data, dim, scale, square })
    }

    pub(super) fn len(&self) -> usize {
        self.scale.len()
    }

    fn row(&self, index: usize) -> &'a [f32] {
        &self.data[index * self.dim..(index + 1) * self.dim]
    }

    fn scaled(&self, index: usize) -> (&'a [f32], f32) {
        (self.row(index), self.scale[index])
    }
}

/// In 16 partial sums, so that it runs at the speed of memory.
fn sum_of_squares(row: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>()
}

/// A row of the bank and its direct distance; ordered by distance, then by index.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Near {
    pub(super) distance: f32,
    pub(super) index: u32,
}

impl Eq for Near {}

impl Ord for Near {
    fn cmp(&self, other: &Self) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The nearest rows so far of one query, the farthest of them on top.
#[derive(Clone)]
struct Nearest {
    heap: BinaryHeap<Near>,
    k: usize,
}

impl Nearest {
    fn new(k: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(k + 1), k }
    }

    /// No row beyond this distance is wanted.
    fn limit(&self) -> f32 {
        if self.heap.len() < self.k {
            f32::INFINITY
        } else {
            self.heap.peek().map_or(f32::INFINITY, |far| far.distance)
        }
    }

    fn push(&mut self, near: Near) {
        if self.heap.len() < self.k {
            self.heap.push(near);
        } else if let Some(mut far) = self.heap.peek_mut()
            && near < *far
        {
            *far = near;
        }
    }
}

/// One search, checked.
pub(super) struct Search<'a> {
    pub(super) queries: &'a Rows<'a>,
    pub(super) bank: &'a Rows<'a>,
    pub(super) k: usize,
    pub(super) metric: Metric,
    pub(super) token: Token,
    pub(super) lanes: usize,
}

/// Bank rows of a block, packed for the product.
struct Block<'a> {
    packed: &'a [f32],
    first: usize,
    /// `(1 - slack) ‖b‖² / 2`, padded with infinities to whole panels.
    half_squares: &'a [f32],
}

impl Search<'_> {
    /// The nearest rows of each query, nearest first.
    pub(super) fn run(&self) -> Vec<Vec<Near>> {
        let lists = if self.queries.len() <= FEW_QUERIES { self.measure_all() } else { self.multiply() };
        lists.into_iter().map(|nearest| nearest.heap.into_sorted_vec()).collect()
    }

    /// The squared distance of scaled rows, or half of it for the cosine.
    fn distance(&self, query: usize, row: usize) -> f32 {
        let ((a, scale), (b, other_scale)) = (self.queries.scaled(query), self.bank.scaled(row));
        match self.metric {
            Metric::Cosine if scale == 0.0 || other_scale == 0.0 => {
                if scale == other_scale {
                    0.0
                } else {
                    1.0
                }
            }
            metric => {
                let square = self.token.dispatch(Direct { a, b, scale, other_scale });
                if metric == Metric::Cosine { 0.5 * square } else { square }
            }
        }
    }

    fn measure_all(&self) -> Vec<Nearest> {
        let blocks = self.bank.len().div_ceil(DIRECT_BLOCK);
        let parts = (0..blocks).into_par_iter().map(|block| {
            let mut lists = self.empty_lists();
            for row in block * DIRECT_BLOCK..self.bank.len().min((block + 1) * DIRECT_BLOCK) {
                for (query, list) in lists.iter_mut().enumerate() {
                    list.push(Near { distance: self.distance(query, row), index: row as u32 });
                }
            }
            lists
        });
        parts.reduce(|| self.empty_lists(), merge)
    }

    fn multiply(&self) -> Vec<Nearest> {
        let columns = tile_rows(self.token.columns());
        let threads = rayon::current_num_threads();
        // Blocks of queries small enough to keep all threads busy; should there be too few, the bank is split as well.
        let panels = self.queries.len().div_ceil(columns);
        let block_panels = panels.div_ceil(2 * threads).clamp(1, QUERY_ROWS / columns);
        let block = block_panels * columns;
        let packed = pack(self.queries.len(), columns, self.depth(), |row| self.queries.scaled(row));
        let segments = (threads / panels.div_ceil(block_panels)).max(1);
        let bank_blocks = self.bank.len().div_ceil(BANK_BLOCK);
        let segment_rows = bank_blocks.div_ceil(segments) * BANK_BLOCK;
        let parts = (0..self.bank.len()).into_par_iter().step_by(segment_rows).map(|first| {
            let mut lists = self.empty_lists();
            self.multiply_segment(first..self.bank.len().min(first + segment_rows), &packed, block, &mut lists);
            lists
        });
        parts.reduce(|| self.empty_lists(), merge)
    }

    fn multiply_segment(&self, rows: Range<usize>, packed_queries: &[f32], block: usize, lists: &mut [Nearest]) {
        let width = 2 * self.lanes;
        let depth = self.depth();
        let slack = self.slack();
        for first in rows.clone().step_by(BANK_BLOCK) {
            let count = BANK_BLOCK.min(rows.end - first);
            let packed = pack(count, width, depth, |row| self.bank.scaled(first + row));
            let half = |row: usize| 0.5 * (1.0 - slack) * self.bank.square[first + row];
            let padding = count.next_multiple_of(width) - count;
            let half_squares: Vec<f32> =
                (0..count).map(half).chain(std::iter::repeat_n(f32::INFINITY, padding)).collect();
            let bank_block = Block { packed: &packed, first, half_squares: &half_squares };
            let queries = lists.par_chunks_mut(block).zip(packed_queries.par_chunks(block * depth)).enumerate();
            queries.for_each(|(at, (lists, packed_queries))| {
                self.multiply_block(at * block, packed_queries, &bank_block, lists);
            });
        }
    }

    fn multiply_block(&self, first_query: usize, packed_queries: &[f32], block: &Block<'_>, lists: &mut [Nearest]) {
        let depth = self.depth();
        let slack = self.slack();
        let columns = block.half_squares.len();
        let mut dots = vec![0.0f32; packed_queries.len() / depth * columns];
        self.token.dispatch(Dots { queries: packed_queries, bank: block.packed, depth, columns, dots: &mut dots });
        let mut candidates: Vec<(f32, u32)> = Vec::new();
        let mut upper = Vec::new();
        for (offset, list) in lists.iter_mut().enumerate() {
            let query = first_query + offset;
            let square = self.queries.square[query];
            // `bound <= limit` is necessary for a direct distance within the list's limit.
            let limit = |list: &Nearest| {
                let distance = if self.metric == Metric::Cosine { 2.0 * list.limit() } else { list.limit() };
                0.5 * (distance - (1.0 - slack) * square) + depth as f32 * f32::MIN_POSITIVE
            };
            let dots = &dots[offset * columns..(offset + 1) * columns];
            candidates.clear();
            let half_squares = block.half_squares;
            self.token.dispatch(Candidates { dots, half_squares, limit: limit(list), found: &mut candidates });
            if candidates.len() > 2 * self.k {
                // At least k rows of this block are not beyond the k-th smallest upper bound.
                upper.clear();
                upper.extend(
                    candidates
                        .iter()
                        .map(|(bound, at)| bound + slack * (square + self.bank.square[block.first + *at as usize])),
                );
                let (_, bound, _) = upper.select_nth_unstable_by(self.k - 1, f32::total_cmp);
                let bound = *bound + depth as f32 * f32::MIN_POSITIVE;
                candidates.retain(|(candidate, _)| *candidate <= bound);
            }
            let mut current = limit(list);
            for (bound, at) in &candidates {
                if *bound <= current {
                    let row = block.first + *at as usize;
                    list.push(Near { distance: self.distance(query, row), index: row as u32 });
                    current = limit(list);
                }
            }
        }
    }

    /// Bounds, relative to `‖q‖² + ‖b‖²`, how far the distance by way of the product may lie above the direct one.
    ///
    /// With the unit roundoff `u`: a sum of `dim` products is off by at most `dim u ‖q‖ ‖b‖`, which counts twice, and
    /// `2 ‖q‖ ‖b‖ <= ‖q‖² + ‖b‖²`; the direct sum is off by at most `(dim + 4) u ‖q - b‖²`, where
    /// `‖q - b‖² <= 2 (‖q‖² + ‖b‖²)`; the rest covers the lengths, the scaling and the handful of additions.
    fn slack(&self) -> f32 {
        (3 * self.queries.dim + 48) as f32 * (f32::EPSILON / 2.0)
    }

    /// Columns of the product: the cosine has one more, in which rows of length 0 agree.
    fn depth(&self) -> usize {
        self.queries.dim + usize::from(self.metric == Metric::Cosine)
    }

    fn empty_lists(&self) -> Vec<Nearest> {
        vec![Nearest::new(self.k); self.queries.len()]
    }
}

fn merge(mut lists: Vec<Nearest>, others: Vec<Nearest>) -> Vec<Nearest> {
    for (list, other) in lists.iter_mut().zip(others) {
        other.heap.into_iter().for_each(|near| list.push(near));
    }
    lists
}
