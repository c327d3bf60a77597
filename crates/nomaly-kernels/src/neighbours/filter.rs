//! The search through rows rounded to bytes.
//!
//! The problem: the product in f32 that rules rows out takes nearly all of the time of a search, and nearly all of its
//! precision is wasted.
//!
//! The design: where the processor multiplies bytes, four times as many per cycle, rows rounded to bytes are multiplied
//! instead ([`Quantized`]). The distance by which rounding moved a query and a row is known, so the triangle inequality
//! bounds their true distance: rows beyond the nearest so far are ruled out, the others are measured by the direct sum.
//! The result is the same, bit for bit.
//!
//! A thread takes some tiles of queries and compares them with the whole bank, block by block, so that the neighbours
//! found in one block rule out rows of the next. A block consists of panels from all over the bank, so that the first
//! block represents the others. The scores of the first block are kept, and the best ones are measured first.
//!
//! Eligible are searches for few neighbours of many queries in many rows, see [`is_worthwhile`]. Where rounding is too
//! coarse for the distances at hand, too many rows would be measured: such queries fall back to the product in f32, see
//! [`is_hopeless`].

#[cfg(test)]
mod tests;

use std::sync::atomic::{self, AtomicUsize};

use rayon::prelude::*;

use super::Metric;
use super::nearest::{Near, Nearest};
use super::quantized::{MAX_DIM, Marks, Panels, Quantized, QuantizedQueries, Reach, Scores};
use super::rows::Rows;
use super::search::Search;
use super::tile::tile_rows;
use crate::simd::{ByteToken, Kernel, Simd};

/// Rows of a block.
const BLOCK: usize = 1024;

/// The most tiles of queries that a thread takes at a time: they stay in the first-level cache with a panel of the
/// bank.
const TILES: usize = 8;

/// The fewest rows of a bank: at least a tenth of the first block is measured.
const MIN_ROWS: usize = 2048;

/// The shortest rows: a score takes a few operations besides its product.
const MIN_DIM: usize = 16;

/// The fewest queries for which a bank is rounded; that takes about as long as their product in f32.
const MIN_QUERIES: usize = 256;

/// The most neighbours: the first block must have many times as many rows.
const MAX_NEIGHBOURS: usize = 64;

/// Values represented by their maximum in the search for the best scores.
const SPREAD: usize = 128;

/// One row in this many may be measured directly: the product in f32 with all of them takes about as long.
const MEASURED: usize = 32;

/// Whether a bank is worth being rounded to bytes for a search.
pub(super) fn is_worthwhile(queries: usize, rows: usize, dim: usize, k: usize, is_rounded: bool) -> bool {
    let min_queries = if is_rounded { 1 } else { MIN_QUERIES };
    queries >= min_queries && rows >= MIN_ROWS && (MIN_DIM..=MAX_DIM).contains(&dim) && k <= MAX_NEIGHBOURS
}

/// Whether so many of the compared rows had to be measured that the product in f32 is faster.
fn is_hopeless(measured: usize, queries: usize, compared: usize, k: usize) -> bool {
    // Early on, more rows are measured than later.
    measured > queries * (4 * k + BLOCK / 16 + compared / MEASURED)
}

/// A search through a bank that has been rounded.
pub(super) struct Filter<'a> {
    pub(super) search: &'a Search<'a>,
    pub(super) bank: &'a Quantized,
    pub(super) bytes: ByteToken,
}

/// The workspace of a searching thread.
#[derive(Default)]
struct Workspace {
    queries: QuantizedQueries,
    scores: Vec<f32>,
    marks: Vec<u32>,
    found: Vec<u32>,
}

impl Filter<'_> {
    /// The nearest rows of each query, nearest first. Falls back to the product in f32 for queries that rounded rows
    /// cannot decide.
    pub(super) fn run(&self) -> Vec<Vec<Near>> {
        let mut lists = self.sift_all();
        let left: Vec<u32> = (0u32..).zip(&lists).filter(|(_, list)| list.is_none()).map(|(query, _)| query).collect();
        if !left.is_empty() {
            let mut queries = Rows::default();
            self.search.queries.gather(&left, &mut queries);
            let found = Search { queries: queries.view(), ..*self.search }.multiply();
            left.iter().zip(found).for_each(|(query, list)| lists[*query as usize] = Some(list));
        }
        lists.into_iter().flatten().map(Nearest::into_sorted).collect()
    }

    /// The nearest rows of each query; `None` for those for which the product in f32 is faster.
    fn sift_all(&self) -> Vec<Option<Nearest>> {
        let (count, height) = (self.search.queries.len(), tile_rows(self.bytes.shape().1));
        let (threads, tiles) = (rayon::current_num_threads(), count.div_ceil(height));
        let units = tiles.div_ceil(TILES).next_multiple_of(threads).min(tiles);
        let first = |unit: usize| count.min(unit * tiles / units * height);
        let next = AtomicUsize::new(0);
        let parts = (0..threads.min(units)).into_par_iter().with_max_len(1).map(|_| {
            let mut workspace = Workspace::default();
            let mut done = Vec::new();
            loop {
                let unit = next.fetch_add(1, atomic::Ordering::Relaxed);
                if unit >= units {
                    return done;
                }
                let lists = self.sift(first(unit), first(unit + 1) - first(unit), &mut workspace);
                done.push((first(unit), lists));
            }
        });
        let mut lists = vec![None; count];
        for (first, part) in parts.collect::<Vec<_>>().into_iter().flatten() {
            for (list, found) in lists[first..].iter_mut().zip(part.into_iter().flatten()) {
                *list = Some(found);
            }
        }
        lists
    }

    /// The nearest rows of `count` queries from `first` on, unless that is hopeless.
    fn sift(&self, first: usize, count: usize, workspace: &mut Workspace) -> Option<Vec<Nearest>> {
        let Self { search, bank, bytes } = self;
        let Workspace { queries, scores, marks, found } = workspace;
        found.clear();
        queries.encode(search.queries.slice(first..first + count), bank, search.token, *bytes);
        let mut sieve =
            Sieve { filter: self, first, lists: vec![Nearest::new(search.k); count], measured: 0, compared: 0 };
        let blocks = bank.panels().div_ceil(BLOCK / bank.width());
        for block in 0..blocks {
            let panels = Panels { first: block, step: blocks, count: (bank.panels() - block).div_ceil(blocks) };
            sieve.compared += panels.count * bank.width();
            if block == 0 {
                scores.resize(queries.len() * sieve.compared, 0.0);
                bytes.dispatch(Scores { queries, bank, panels, scores });
                for (query, scores) in scores.chunks_exact(sieve.compared).take(count).enumerate() {
                    let least = search.token.dispatch(BestScores { scores, count: search.k });
                    let select = |reach, below, found: &mut Vec<u32>| {
                        search.token.dispatch(Select { scores, bank, panels, reach, below, found });
                    };
                    select(Reach { reach: 0.0, limit: least }, f32::INFINITY, &mut *found);
                    sieve.measure(query, found, queries)?;
                    select(queries.reach(query), least, &mut *found);
                    sieve.measure(query, found, queries)?;
                }
            } else {
                marks.resize(queries.len() * panels.count, 0);
                bytes.dispatch(Marks { queries, bank, panels, marks });
                for (query, marks) in marks.chunks_exact(panels.count).take(count).enumerate() {
                    bank.collect(panels, marks, found);
                    sieve.measure(query, found, queries)?;
                }
            }
        }
        Some(sieve.lists)
    }

    /// The largest squared distance, in real numbers, whose direct sum may be within the limit of the list.
    fn square_of(&self, list: &Nearest) -> f64 {
        let dim = self.search.queries.dim as f64;
        let limit = f64::from(list.limit()) * if self.search.metric == Metric::Cosine { 2.0 } else { 1.0 };
        // The relative error of the direct sum is at most `(dim + 4) u`, plus the smallest normal number for each
        // product below it.
        (limit + dim * f64::from(f32::MIN_POSITIVE)) * (1.0 + (dim + 16.0) * f64::from(f32::EPSILON))
    }
}

/// Some queries and the neighbours found for them.
struct Sieve<'a> {
    filter: &'a Filter<'a>,
    /// The number of the first query.
    first: usize,
    lists: Vec<Nearest>,
    /// Pairs of a query and a row.
    measured: usize,
    /// Rows.
    compared: usize,
}

impl Sieve<'_> {
    /// Measures the rows found for a query and empties `found`, unless that is hopeless.
    fn measure(&mut self, query: usize, found: &mut Vec<u32>, queries: &mut QuantizedQueries) -> Option<()> {
        let search = self.filter.search;
        self.measured += found.len();
        if is_hopeless(self.measured, self.lists.len(), self.compared, search.k) {
            return None;
        }
        if !found.is_empty() {
            let list = &mut self.lists[query];
            for row in found.drain(..).map(|row| row as usize) {
                list.push(search.near(row, search.distance(self.first + query, row)));
            }
            queries.set_reach(query, self.filter.square_of(list));
        }
        Some(())
    }
}

/// A score that at least `count` rows reach, and few more; `count` must be at most [`MAX_NEIGHBOURS`].
struct BestScores<'a> {
    scores: &'a [f32],
    count: usize,
}

impl Kernel for BestScores<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f32 {
        let mut best = [f32::MIN; SPREAD];
        for scores in self.scores.chunks(SPREAD) {
            for (best, score) in best.iter_mut().zip(scores) {
                *best = if *score > *best { *score } else { *best };
            }
        }
        *best.select_nth_unstable_by(self.count - 1, |a, b| b.total_cmp(a)).1
    }
}

/// Finds the rows whose scores are within reach, and below `below`.
struct Select<'a> {
    scores: &'a [f32],
    bank: &'a Quantized,
    panels: Panels,
    reach: Reach,
    below: f32,
    found: &'a mut Vec<u32>,
}

impl Kernel for Select<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { scores, bank, panels, reach: Reach { reach, limit }, below, found } = self;
        for (index, scores) in scores.chunks_exact(bank.width()).enumerate() {
            let (rows, errors) = bank.panel(panels.panel(index));
            let is_within = |score: f32, error: f32| (score + error * reach >= limit) & (score < below);
            // Without a branch per row, the loop is vectorized.
            if scores.iter().zip(errors).fold(false, |any, (score, error)| any | is_within(*score, *error)) {
                let both = rows.zip(scores.iter().zip(errors));
                found.extend(both.filter(|(_, (score, error))| is_within(**score, **error)).map(|(row, _)| row as u32));
            }
        }
    }
}
