//! Nearest neighbours: pairwise distances and the `k` smallest of each query, fused.
//!
//! The problem: memory-bank methods compare each of about a thousand patches of an image with a bank of up to a hundred
//! thousand rows. The matrix of all distances would not fit into memory, and the sum of squared differences, taken
//! directly, runs at the speed of loads rather than of multiplications.
//!
//! The design: `‖q - b‖² = ‖q‖² + ‖b‖² - 2 q·b` turns it into a matrix product, which is computed block
//! by block in registers (see the `tile` module) and never stored as a whole. That form cancels badly for near
//! neighbours, so it only rules rows out: with a bound on its rounding error, every row that might be among the `k`
//! nearest is measured again by the direct sum `Σ (q - b)²`, and only those distances are compared and returned. The
//! result is therefore exactly the `k` smallest direct distances: the distance of a row to itself is 0, and neither
//! blocks nor threads change a bit of it.
//!
//! Where the processor multiplies bytes, rows are ruled out by the products of rows rounded to bytes, with a bound on
//! how far rounding moved them (the `filter` module); pairs that this cannot decide are handled as above. The result is
//! the same to the bit.
//!
//! Few queries (a single image with one pooled feature vector) are measured directly without the product, at the speed
//! of memory, because packing the bank would cost more than it saves.
//!
//! [`InvertedIndex`] searches only a part of the rows, for banks where even that takes too long.
//!
//! Besides the rows, a [`Bank`] holds their lengths, computed once, and the rounded rows, a quarter of their size, from
//! the first search that uses them. For the product in f32 it is packed block by block while it is searched, because a
//! packed copy would double the memory of the largest thing in a model, and transposing a block in the cache takes
//! little time compared with its product.
//!
//! ```
//! use nomaly_kernels::isa::Isa;
//! use nomaly_kernels::neighbours::{Bank, Metric};
//!
//! let bank = Bank::new(vec![0.0, 0.0, 3.0, 4.0, 1.0, 0.0], 2, Metric::SquaredL2, Isa::best()?)?; // 3 rows of 2
//! let found = bank.top_k(&[0.0, 0.0], 2)?;
//! assert_eq!(found.indices, [0, 2]);
//! assert_eq!(found.distances, [0.0, 1.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bank;
mod filter;
mod inverted;
mod nearest;
mod quantized;
mod rows;
mod search;
#[cfg(test)]
mod tests;
pub(crate) mod tile;

use crate::isa::{Isa, IsaError};

pub use bank::Bank;
pub use inverted::{InvertedIndex, InvertedOptions, InvertedParts};

use nearest::Near;

/// The distance of two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Metric {
    /// `Σ (q - b)²`.
    SquaredL2,
    /// `1 - cos(q, b)`, computed as half the squared distance of the two rows scaled to length 1. A row of length 0
    /// (below `f32::MIN_POSITIVE`) counts as orthogonal to every other row (distance 1) and equal to another such row
    /// (distance 0).
    Cosine,
}

/// The nearest rows of the bank for each query.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbours {
    /// Neighbours of each query.
    pub k: usize,
    /// Rows of the bank, `[queries, k]` row-major, nearest first; of equally distant rows the lower index comes first.
    pub indices: Vec<u32>,
    /// Their distances in the same order.
    pub distances: Vec<f32>,
}

impl Neighbours {
    /// One list for each query.
    fn from_lists(k: usize, lists: impl IntoIterator<Item = Vec<Near>>) -> Self {
        let (indices, distances) = lists.into_iter().flatten().map(|near| (near.index, near.distance)).unzip();
        Self { k, indices, distances }
    }
}

/// The share of the exact neighbours that an approximate search found, in 0 … 1, the mean over the queries.
///
/// A neighbour counts as found when it is no farther than the farthest exact one, so that it does not matter which of
/// equally distant rows was returned (Aumüller, Bernhardsson and Faithfull, *ANN-Benchmarks*, 2020, section 2.1). Both
/// searches must have the same queries; neighbours missing from `found` count as not found. 1 without queries.
pub fn recall(exact: &Neighbours, found: &Neighbours) -> f64 {
    if exact.distances.is_empty() {
        return 1.0;
    }
    let lists = exact.distances.chunks(exact.k.max(1)).zip(found.distances.chunks(found.k.max(1)));
    let near = |(exact, found): (&[f32], &[f32])| {
        let farthest = exact.last().copied().unwrap_or(f32::NEG_INFINITY);
        found.iter().take(exact.len()).filter(|distance| **distance <= farthest).count()
    };
    lists.map(near).sum::<usize>() as f64 / exact.distances.len() as f64
}

/// Why a search fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NeighboursError {
    /// The instruction set is not available.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// Rows without columns.
    #[error("rows of dimension 0 have no distance")]
    NoColumns,
    /// The values do not form whole rows.
    #[error("the {side} has {len} numbers, which is not a multiple of the dimension {dim}")]
    Ragged {
        /// Which input.
        side: Side,
        /// Its length.
        len: usize,
        /// The dimension.
        dim: usize,
    },
    /// More neighbours than rows, or none at all.
    #[error("{k} neighbours cannot be found among {rows} rows")]
    Count {
        /// The neighbours asked for.
        k: usize,
        /// The rows of the bank.
        rows: usize,
    },
    /// No rows, no cells, or fewer rows than cells.
    #[error("{rows} rows cannot be grouped into {cells} cells")]
    Cells {
        /// The cells asked for.
        cells: usize,
        /// The rows given.
        rows: usize,
    },
    /// A search with zero probes.
    #[error("a search must look into one cell at least")]
    NoProbes,
    /// The parts of an index contradict each other.
    #[error("the parts of an index do not belong together: {what}")]
    Parts {
        /// What they should be.
        what: &'static str,
    },
    /// Rows are numbered by `u32`.
    #[error("a bank of {rows} rows is too large, the limit is 2^32 - 1")]
    BankTooLarge {
        /// The rows of the bank.
        rows: usize,
    },
    /// A value is NaN or infinite, or the squared length of a row leaves the range of `f32`.
    #[error("row {row} of the {side} has values that are not finite or too large to square")]
    NotFinite {
        /// Which input.
        side: Side,
        /// The row, from 0.
        row: usize,
    },
}

/// One of the two inputs of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The rows whose neighbours are searched.
    Queries,
    /// The rows that are searched.
    Bank,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::Queries => "query block",
            Side::Bank => "bank",
        })
    }
}

/// The `k` nearest rows of `bank` `[rows, dim]` for each row of `queries` `[queries, dim]`: a [`Bank`] for one search.
///
/// # Errors
/// As [`Bank::new`] and [`Bank::top_k`].
pub fn top_k(
    queries: &[f32],
    bank: &[f32],
    dim: usize,
    k: usize,
    metric: Metric,
    isa: Isa,
) -> Result<Neighbours, NeighboursError> {
    Bank::new(bank, dim, metric, isa)?.top_k(queries, k)
}
