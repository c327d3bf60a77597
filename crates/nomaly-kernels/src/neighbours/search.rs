//! The search by products in f32, and by direct distances: blocking and pruning.

use std::ops::Range;
use std::sync::atomic::{self, AtomicUsize};

use rayon::prelude::*;

use super::Metric;
use super::nearest::{Near, Nearest, merge};
use super::rows::View;
use super::tile::{Candidates, Direct, DirectRows, Dots, QUERY_ROWS, pack, pack_panels, tile_rows};
use crate::buffer::AlignedBuf;
use crate::simd::Token;

/// Rows of the bank that are packed and multiplied at a time.
pub(super) const BANK_BLOCK: usize = 1024;

/// Up to this many queries are measured directly.
pub(super) const FEW_QUERIES: usize = 16;

/// Units of work for each thread, at least, so that none is idle for long at the end.
const UNITS_PER_THREAD: usize = 4;

/// Rows of the bank that one task measures directly.
const DIRECT_BLOCK: usize = 256;

/// The workspace of a searching thread.
#[derive(Default)]
pub(super) struct SearchWorkspace {
    /// The first row of the block of the bank that is packed.
    packed_from: Option<usize>,
    packed: AlignedBuf,
    half_squares: Vec<f32>,
    dots: AlignedBuf,
    /// The queries of [`Search::visit`], packed.
    queries: Vec<f32>,
    /// Squared distances of rows and few queries.
    squares: Vec<f32>,
}

/// Distance between the products of consecutive queries: one vector more than needed, so that those of a tile do not
/// compete for the same sets of the first-level cache.
fn dots_stride(columns: usize, lanes: usize) -> usize {
    columns + lanes
}

/// One search, checked.
pub(super) struct Search<'a> {
    pub(super) queries: View<'a>,
    pub(super) bank: View<'a>,
    /// The number of each row of the bank; its position if absent.
    pub(super) numbers: Option<&'a [u32]>,
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
        lists.into_iter().map(Nearest::into_sorted).collect()
    }

    /// The distance of two rows by the metric, from the direct sum of their scaled squares.
    fn by_metric(&self, query: usize, row: usize, square: impl FnOnce() -> f32) -> f32 {
        match (self.metric, self.queries.scale[query], self.bank.scale[row]) {
            (Metric::SquaredL2, ..) => square(),
            (Metric::Cosine, 0.0, 0.0) => 0.0,
            (Metric::Cosine, 0.0, _) | (Metric::Cosine, _, 0.0) => 1.0,
            (Metric::Cosine, ..) => 0.5 * square(),
        }
    }

    pub(super) fn distance(&self, query: usize, row: usize) -> f32 {
        self.by_metric(query, row, || {
            let ((a, scale), (b, other_scale)) = (self.queries.scaled(query), self.bank.scaled(row));
            self.token.dispatch(Direct { a, b, scale, other_scale })
        })
    }

    pub(super) fn near(&self, row: usize, distance: f32) -> Near {
        Near { distance, index: self.numbers.map_or(row as u32, |numbers| numbers[row]) }
    }

    /// Compares all queries with all rows on this thread and enters the rows into the list of each query.
    pub(super) fn visit(&self, lists: &mut [Nearest], memory: &mut SearchWorkspace) {
        let rows = self.bank.len();
        if self.queries.len() <= FEW_QUERIES {
            for start in (0..rows).step_by(DIRECT_BLOCK) {
                self.measure(start..rows.min(start + DIRECT_BLOCK), lists, &mut memory.squares);
            }
            return;
        }
        let height = tile_rows(self.token.columns());
        let (queries, depth) = (self.queries, self.depth());
        let mut packed = std::mem::take(&mut memory.queries);
        packed.resize(queries.len().next_multiple_of(height) * depth, 0.0);
        pack_panels(self.token, queries.data, queries.scale, queries.dim, depth, height, &mut packed);
        memory.packed_from = None;
        for start in (0..rows).step_by(BANK_BLOCK) {
            let rows = start..rows.min(start + BANK_BLOCK);
            self.multiply_unit(rows, 0, &packed, QUERY_ROWS / height * height, lists, memory);
        }
        memory.queries = packed;
    }

    fn measure_all(&self) -> Vec<Nearest> {
        if self.queries.len() == 0 {
            return Vec::new();
        }
        let rows = self.bank.len();
        let parts = (0..rows.div_ceil(DIRECT_BLOCK)).into_par_iter().fold(
            || (self.empty_lists(), Vec::new()),
            |(mut lists, mut squares), block| {
                let start = block * DIRECT_BLOCK;
                self.measure(start..rows.min(start + DIRECT_BLOCK), &mut lists, &mut squares);
                (lists, squares)
            },
        );
        parts.map(|(lists, _)| lists).reduce(|| self.empty_lists(), merge)
    }

    /// Enters some rows into the lists by their direct distances; `squares` is scratch memory.
    fn measure(&self, rows: Range<usize>, lists: &mut [Nearest], squares: &mut Vec<f32>) {
        let (count, dim, bank) = (self.queries.len(), self.bank.dim, self.bank.slice(rows.clone()));
        squares.resize(rows.len() * count, 0.0);
        self.token.dispatch(DirectRows {
            queries: self.queries.data,
            query_scales: self.queries.scale,
            rows: bank.data,
            row_scales: bank.scale,
            dim,
            squares,
        });
        for (row, squares) in rows.zip(squares.chunks_exact(count)) {
            for (query, (square, list)) in squares.iter().zip(&mut *lists).enumerate() {
                list.push(self.near(row, self.by_metric(query, row, || *square)));
            }
        }
    }

    /// Threads take blocks of the bank from a common counter, pack them and multiply them with all queries, each with
    /// its own lists: no thread waits for another until the end. Where the bank has too few blocks for that, units of
    /// work are pairs of a block and a group of queries.
    pub(super) fn multiply(&self) -> Vec<Nearest> {
        let height = tile_rows(self.token.columns());
        let (queries, bank, depth) = (self.queries, self.bank, self.depth());
        let packed = pack(self.token, queries.data, queries.scale, queries.dim, depth, height);
        let threads = rayon::current_num_threads();
        let block = QUERY_ROWS / height * height;
        let bank_blocks = bank.len().div_ceil(BANK_BLOCK);
        let groups = (UNITS_PER_THREAD * threads).div_ceil(bank_blocks).min(queries.len().div_ceil(block));
        let group = queries.len().div_ceil(block).div_ceil(groups) * block;
        let next = AtomicUsize::new(0);
        let parts = (0..threads).into_par_iter().with_max_len(1).map(|_| {
            let mut lists = self.empty_lists();
            let mut memory = SearchWorkspace::default();
            loop {
                let unit = next.fetch_add(1, atomic::Ordering::Relaxed);
                let (first_row, first_query) = (unit / groups * BANK_BLOCK, unit % groups * group);
                if first_row >= bank.len() {
                    return lists;
                }
                if first_query < queries.len() {
                    let end = queries.len().min(first_query + group);
                    let packed =
                        &packed[first_query * depth..end.next_multiple_of(height).min(packed.len() / depth) * depth];
                    let rows = first_row..bank.len().min(first_row + BANK_BLOCK);
                    self.multiply_unit(rows, first_query, packed, block, &mut lists[first_query..end], &mut memory);
                }
            }
        });
        parts.reduce(|| self.empty_lists(), merge)
    }

    fn multiply_unit(
        &self,
        rows: Range<usize>,
        first_query: usize,
        packed_queries: &[f32],
        block: usize,
        lists: &mut [Nearest],
        memory: &mut SearchWorkspace,
    ) {
        let width = 2 * self.lanes;
        let (dim, depth, slack) = (self.bank.dim, self.depth(), self.slack());
        let columns = rows.len().next_multiple_of(width);
        if memory.packed_from != Some(rows.start) {
            let packed = memory.packed.scratch(columns * depth);
            let data = &self.bank.data[rows.start * dim..rows.end * dim];
            pack_panels(self.token, data, &self.bank.scale[rows.clone()], dim, depth, width, packed);
            memory.half_squares.clear();
            memory
                .half_squares
                .extend(self.bank.square[rows.clone()].iter().map(|square| 0.5 * (1.0 - slack) * square));
            memory.half_squares.resize(columns, f32::INFINITY);
            memory.packed_from = Some(rows.start);
        }
        let packed = &memory.packed[..columns * depth];
        let bank = Block { packed, first: rows.start, half_squares: &memory.half_squares };
        let dots = memory.dots.scratch(block * dots_stride(columns, self.lanes));
        for (at, (lists, queries)) in lists.chunks_mut(block).zip(packed_queries.chunks(block * depth)).enumerate() {
            self.multiply_block(first_query + at * block, queries, &bank, lists, dots);
        }
    }

    /// `dots` is scratch memory for the products.
    fn multiply_block(
        &self,
        first_query: usize,
        packed_queries: &[f32],
        block: &Block<'_>,
        lists: &mut [Nearest],
        dots: &mut [f32],
    ) {
        let depth = self.depth();
        let slack = self.slack();
        let columns = block.half_squares.len();
        let stride = dots_stride(columns, self.lanes);
        let dots = &mut dots[..packed_queries.len() / depth * stride];
        self.token.dispatch(Dots { queries: packed_queries, bank: block.packed, depth, columns, stride, dots });
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
            let dots = &dots[offset * stride..][..columns];
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
                    list.push(self.near(row, self.distance(query, row)));
                    current = limit(list);
                }
            }
        }
    }

    /// Bounds, relative to `‖q‖² + ‖b‖²`, the excess of the distance computed from the product over the
    /// direct one.
    ///
    /// With the unit roundoff `u`: a sum of `dim` products is off by at most `dim u ‖q‖ ‖b‖`, which counts
    /// twice, and `2 ‖q‖ ‖b‖ <= ‖q‖² + ‖b‖²`; the direct sum is off by at most `(dim + 4) u ‖q -
    /// b‖²`, where `‖q - b‖² <= 2 (‖q‖² + ‖b‖²)`; the rest covers the lengths, the scaling and the
    /// handful of additions.
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
