//! Nearest neighbours in part of the rows: an inverted file.
//!
//! The problem: the exact search compares each query with every row. With a memory bank of a few hundred thousand rows,
//! this takes most of the time per image.
//!
//! The design: rows are grouped into cells around centres, and a query searches only the cells of its nearest centres.
//! It misses near rows that belong to other centres; the number of probed cells is the caller's trade-off between time
//! and recall. Distances are those of the exact search, to the bit: only the choice of rows is approximate, and with as
//! many probes as cells it is exact too.
//!
//! Queries are the patches of one or more images, so they are regrouped by cell: each cell is brought into the cache
//! once for all queries that probe it, and multiplied with them by the same blocked product as in the exact search.
//!
//! # Cells
//! A query is compared with every centre and with the rows of `probes` of `cells` cells: `cells + probes · rows /
//! cells` rows in all, which is minimal at `cells = √(probes · rows)`. The default `4 √rows` is that for [16
//! probes](InvertedIndex::PROBES).
//!
//! # References
//! Jégou, Douze and Schmid, *Product quantization for nearest neighbor search* (2011), section IV (the inverted file
//! without the quantisation of the rows).
//!
//! ```
//! use nomaly_kernels::isa::Isa;
//! use nomaly_kernels::neighbours::{InvertedIndex, InvertedOptions, Metric};
//!
//! let rows: Vec<f32> = (0..1000).flat_map(|row| [row as f32, (row % 7) as f32]).collect(); // 1000 rows of 2
//! let index = InvertedIndex::build(rows, 2, Metric::SquaredL2, InvertedOptions::default(), Isa::best()?)?;
//! let found = index.top_k(&[500.0, 3.0], 1, 4)?;
//! assert_eq!((&*found.indices, &*found.distances), (&[500][..], &[0.0][..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cells;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::bank::Bank;
use super::nearest::{Near, Nearest, merge};
use super::rows::{Rows, View};
use super::search::{BANK_BLOCK, Search, SearchWorkspace};
use super::{Metric, Neighbours, NeighboursError, Side};
use crate::isa::Isa;
use crate::simd::Token;

/// The most queries that are regrouped by cell together.
const QUERIES: usize = 16_384;

/// Approximate limit of the pairs of a query and a cell or neighbour that are held at a time.
const MAX_VISITS: usize = 1 << 24;

/// How rows are grouped into cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct InvertedOptions {
    /// Number of cells, before empty ones are dropped; `None` is `4 √rows`, at most one for every 8 rows.
    pub cells: Option<usize>,
    /// Seed of the random sample: the same seed and rows give the same cells everywhere.
    pub seed: u64,
}

impl InvertedOptions {
    fn cells(&self, rows: usize) -> usize {
        self.cells.unwrap_or_else(|| ((4.0 * (rows as f64).sqrt()) as usize).min(rows / 8).max(1))
    }
}

/// The contents of an [`InvertedIndex`], for serialization.
#[derive(Clone, Debug, PartialEq)]
pub struct InvertedParts {
    /// The rows `[rows, dim]`, cell by cell.
    pub rows: Vec<f32>,
    /// The length of a row.
    pub dim: usize,
    /// How distances are measured.
    pub metric: Metric,
    /// The centres of the cells `[cells, dim]`.
    pub centres: Vec<f32>,
    /// Start of each cell among the rows, followed by the end of the last: `cells + 1` values.
    pub offsets: Vec<u32>,
    /// The number of each of `rows` in the original order.
    pub order: Vec<u32>,
}

/// Rows grouped into cells, for approximate searches.
///
/// Besides the rows it takes 16 bytes per row, and the centres.
#[derive(Clone, Debug)]
pub struct InvertedIndex {
    /// Cell by cell.
    rows: Rows<'static>,
    centres: Bank<'static>,
    offsets: Vec<u32>,
    order: Vec<u32>,
    /// The inverse of `order`: the position of the row with each number.
    places: Vec<u32>,
    token: Token,
}

impl InvertedIndex {
    /// A default number of probes: for patches of an image from ResNet-18 (layers 2 and 3), in banks of 30 000 and 120
    /// 000 rows of other images, it found 94 to 96 % of the nearest neighbours, and distances were 0.1 % too large on
    /// average.
    pub const PROBES: usize = 16;

    /// Groups `rows` `[rows, dim]` into cells.
    ///
    /// Works in parallel on rayon's current pool; the cells do not depend on the number of threads. They may differ
    /// between instruction sets, whose distances are rounded differently. Besides the rows it takes memory for a sample
    /// of 32 rows per cell.
    ///
    /// # Errors
    /// As [`Bank::new`], and [`Cells`](NeighboursError::Cells).
    pub fn build(
        rows: Vec<f32>,
        dim: usize,
        metric: Metric,
        options: InvertedOptions,
        isa: Isa,
    ) -> Result<Self, NeighboursError> {
        let token = Token::new(isa)?;
        let rows = Rows::new(Cow::Owned(rows), dim, metric, Side::Bank)?;
        rows.check_room(0)?;
        let cells = options.cells(rows.len());
        if cells == 0 || cells > rows.len() {
            return Err(NeighboursError::Cells { cells, rows: rows.len() });
        }
        let centres = cells::centres(&rows, cells, options.seed, metric, isa)?;
        let nearest = cells::assign(rows.view(), &Bank::new(&*centres, dim, metric, isa)?);

        let (order, mut offsets) = cells::group(cells, nearest.iter().map(|near| near.index));
        let kept = centres.chunks_exact(dim).zip(offsets.windows(2)).filter(|(_, range)| range[0] < range[1]);
        let centres: Vec<f32> = kept.flat_map(|(centre, _)| centre).copied().collect();
        offsets.dedup();
        let mut index = Self {
            rows,
            centres: Bank::new(centres, dim, metric, isa)?,
            offsets,
            places: inverse(&order),
            order,
            token,
        };
        index.rows.permute(&index.order);
        Ok(index)
    }

    /// Rebuilds an index from the result of [`into_parts`](Self::into_parts).
    ///
    /// # Errors
    /// As [`Bank::new`], for the rows and the centres, and [`Parts`](NeighboursError::Parts).
    pub fn from_parts(parts: InvertedParts, isa: Isa) -> Result<Self, NeighboursError> {
        let token = Token::new(isa)?;
        let InvertedParts { rows, dim, metric, centres, offsets, order } = parts;
        let rows = Rows::new(Cow::Owned(rows), dim, metric, Side::Bank)?;
        rows.check_room(0)?;
        let centres = Bank::new(centres, dim, metric, isa)?;
        let refuse = |what| Err(NeighboursError::Parts { what });
        if centres.is_empty() || offsets.len() != centres.len() + 1 {
            return refuse("there must be a cell, and one offset more than there are cells");
        }
        if offsets[0] != 0 || !offsets.is_sorted() || offsets[centres.len()] as usize != rows.len() {
            return refuse("the offsets of the cells must ascend from 0 to the number of rows");
        }
        let mut seen = vec![false; rows.len()];
        let mut is_next =
            |number: &u32| seen.get_mut(*number as usize).is_some_and(|seen| !std::mem::replace(seen, true));
        if order.len() != rows.len() || !order.iter().all(&mut is_next) {
            return refuse("the order must hold the number of each row once");
        }
        Ok(Self { rows, centres, offsets, places: inverse(&order), order, token })
    }

    /// The contents of the index.
    pub fn into_parts(self) -> InvertedParts {
        InvertedParts {
            dim: self.dim(),
            metric: self.metric(),
            rows: self.rows.data.into_owned(),
            centres: self.centres.rows().to_vec(),
            offsets: self.offsets,
            order: self.order,
        }
    }

    /// Appends `rows` `[rows, dim]` to the cells of their nearest centres; their numbers follow the existing ones.
    ///
    /// The centres stay as they are: if the added rows are distributed differently from the original ones, cells grow
    /// unevenly and searches slow down. Moves rows in memory, so a few large batches are better than many small ones.
    ///
    /// # Errors
    /// As [`Bank::append`]; the index is then unchanged.
    pub fn append(&mut self, rows: &[f32]) -> Result<(), NeighboursError> {
        let more = Rows::new(Cow::Borrowed(rows), self.dim(), self.metric(), Side::Bank)?;
        self.rows.check_room(more.len())?;
        let own = self.offsets.windows(2).zip(0u32..).flat_map(|(range, cell)| (range[0]..range[1]).map(move |_| cell));
        let added = cells::assign(more.view(), &self.centres);
        let cell_of: Vec<u32> = own.chain(added.into_iter().map(|near| near.index)).collect();
        // For each new position, the current position of its row.
        let (moves, offsets) = cells::group(self.cells(), cell_of.iter().copied());
        let numbers: Vec<u32> = (self.len() as u32..).take(more.len()).collect();
        self.rows.append(&more);
        self.rows.permute(&moves);
        self.order.extend(numbers);
        self.order = moves.iter().map(|place| self.order[*place as usize]).collect();
        self.places = inverse(&self.order);
        self.offsets = offsets;
        Ok(())
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The length of a row.
    pub fn dim(&self) -> usize {
        self.rows.dim
    }

    /// The number of cells.
    pub fn cells(&self) -> usize {
        self.centres.len()
    }

    /// How distances are measured.
    pub fn metric(&self) -> Metric {
        self.centres.metric()
    }

    /// The instruction set that searches.
    pub fn isa(&self) -> Isa {
        self.centres.isa()
    }

    /// The row with this number in the original order.
    pub fn row(&self, number: usize) -> Option<&[f32]> {
        self.places.get(number).map(|place| self.rows.view().row(*place as usize))
    }

    /// The rows `[rows, dim]`, cell by cell.
    pub fn rows(&self) -> &[f32] {
        &self.rows.data
    }

    /// The centres of the cells `[cells, dim]`.
    pub fn centres(&self) -> &[f32] {
        self.centres.rows()
    }

    /// Start of each cell among [`rows`](Self::rows), followed by the end of the last: `cells + 1` values.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// The number of each of [`rows`](Self::rows) in the original order.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// The `k` nearest rows for each row of `queries` `[queries, dim]` among those of its `probes` nearest cells, or of
    /// more cells where these have fewer than `k` rows; with more probes than cells, all are searched.
    ///
    /// Rows go by their numbers in the original order. Works in parallel on rayon's current pool; the result depends
    /// neither on the number of threads nor on the other queries.
    ///
    /// # Errors
    /// As [`Bank::top_k`], and [`NoProbes`](NeighboursError::NoProbes).
    pub fn top_k(&self, queries: &[f32], k: usize, probes: usize) -> Result<Neighbours, NeighboursError> {
        let queries = Rows::new(Cow::Borrowed(queries), self.dim(), self.metric(), Side::Queries)?;
        if k == 0 || k > self.len() {
            return Err(NeighboursError::Count { k, rows: self.len() });
        }
        if probes == 0 {
            return Err(NeighboursError::NoProbes);
        }
        let (probes, all) = (probes.min(self.cells()), queries.view());
        let slice = (MAX_VISITS / probes.max(k)).clamp(1, QUERIES);
        let lists = (0..all.len()).step_by(slice).flat_map(|start| {
            let queries = all.slice(start..all.len().min(start + slice));
            self.visit_all(queries, k, &self.visits(queries, k, probes))
        });
        Ok(Neighbours::from_lists(k, lists.map(Nearest::into_sorted)))
    }

    /// The queries that probe each cell.
    fn visits(&self, queries: View<'_>, k: usize, mut probes: usize) -> Visits {
        let size = |cell: &Near| (self.offsets[cell.index as usize + 1] - self.offsets[cell.index as usize]) as usize;
        let mut pairs: Vec<(u32, u32)> = Vec::with_capacity(queries.len() * probes);
        let mut open: Vec<u32> = (0..queries.len() as u32).collect();
        let mut gathered = Rows::default();
        while !open.is_empty() {
            let rows = if open.len() == queries.len() {
                queries
            } else {
                queries.gather(&open, &mut gathered);
                gathered.view()
            };
            let ranked = self.centres.nearest(rows, probes);
            let mut short = Vec::new();
            for (query, cells) in open.into_iter().zip(ranked) {
                if cells.iter().map(size).sum::<usize>() < k {
                    short.push(query);
                } else {
                    pairs.extend(cells.iter().map(|cell| (cell.index, query)));
                }
            }
            // All cells have at least k rows.
            (open, probes) = (short, self.cells().min(2 * probes));
        }
        let (order, starts) = cells::group(self.cells(), pairs.iter().map(|(cell, _)| *cell));
        Visits { queries: order.into_iter().map(|pair| pairs[pair as usize].1).collect(), starts }
    }

    /// Threads take cells from a common counter, most work first; each has its own lists.
    fn visit_all(&self, queries: View<'_>, k: usize, visits: &Visits) -> Vec<Nearest> {
        let mut units = Vec::new();
        for (cell, range) in self.offsets.windows(2).enumerate() {
            let (start, end, numbers) = (range[0] as usize, range[1] as usize, visits.of(cell));
            if !numbers.is_empty() {
                let blocks = (start..end).step_by(BANK_BLOCK).map(|first| first..end.min(first + BANK_BLOCK));
                units.extend(blocks.map(|rows| (rows, numbers)));
            }
        }
        units.sort_by_key(|(rows, numbers)| std::cmp::Reverse(rows.len() * numbers.len()));
        let next = AtomicUsize::new(0);
        let empty = || vec![Nearest::new(k); queries.len()];
        let parts = (0..rayon::current_num_threads()).into_par_iter().with_max_len(1).map(|_| {
            let (mut lists, mut local) = (empty(), Vec::new());
            let (mut gathered, mut memory) = (Rows::default(), SearchWorkspace::default());
            while let Some((rows, numbers)) = units.get(next.fetch_add(1, Ordering::Relaxed)) {
                queries.gather(numbers, &mut gathered);
                local.extend(numbers.iter().map(|query| std::mem::take(&mut lists[*query as usize])));
                let search = Search {
                    queries: gathered.view(),
                    bank: self.rows.view().slice(rows.clone()),
                    numbers: Some(&self.order[rows.clone()]),
                    k,
                    metric: self.metric(),
                    token: self.token,
                    lanes: self.isa().lanes(),
                };
                search.visit(&mut local, &mut memory);
                numbers.iter().zip(local.drain(..)).for_each(|(query, list)| lists[*query as usize] = list);
            }
            lists
        });
        parts.reduce(empty, merge)
    }
}

/// The queries that probe each cell.
struct Visits {
    /// Cell by cell.
    queries: Vec<u32>,
    /// Start of each cell, followed by the end of the last.
    starts: Vec<u32>,
}

impl Visits {
    fn of(&self, cell: usize) -> &[u32] {
        &self.queries[self.starts[cell] as usize..self.starts[cell + 1] as usize]
    }
}

/// The inverse of a permutation.
fn inverse(order: &[u32]) -> Vec<u32> {
    let mut places = vec![0u32; order.len()];
    for (place, number) in (0u32..).zip(order) {
        places[*number as usize] = place;
    }
    places
}
