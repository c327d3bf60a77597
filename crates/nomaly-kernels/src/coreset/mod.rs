//! Coresets: a few rows that lie near all the others, by k-centre greedy selection.
//!
//! The problem: each pick is the row farthest from all rows picked so far. Implemented literally, every pick compares
//! every row with the last centre: a tenth of 100 000 rows of 128 numbers is 10 000 passes over 51 MB, at the speed of
//! memory.
//!
//! The solution: the distance of a row to its nearest centre only falls as centres are added, so a distance that leaves
//! out the latest centres bounds the true one from above. A row is compared with the centres it has not met only when
//! its bound is as large as the largest true distance known, and only until the bound is smaller: then the row cannot
//! be the next pick. Most rows meet one near centre early and are not looked at again for long. When the largest
//! distance has fallen by some percent, all rows that may still be as far meet the centres that they lack, in groups
//! that share each centre while it is in the cache, so arithmetic and not memory is the limit. Every skipped row is
//! provably not the farthest, in the arithmetic used and not just in real numbers: the picks are those of the naive
//! loop, bit for bit, for any number of threads.
//!
//! Memory: 8 bytes per row, and a copy of the centres. There is no matrix of distances.
//!
//! [`RandomProjection`] shortens the rows beforehand, as PatchCore does: select on projected rows, keep the indices.
//!
//! # References
//! Sener and Savarese, *Active learning for convolutional neural networks: a core-set approach* (2018), algorithm 1;
//! Roth et al., *Towards total recall in industrial anomaly detection* (2022), section 3.2. The lazy evaluation is that
//! of Minoux, *Accelerated greedy algorithms for maximizing submodular set functions* (1978).
//!
//! ```
//! use nomaly_kernels::Isa;
//! use nomaly_kernels::coreset::{KCentreGreedy, Start};
//!
//! let rows = [0.0, 1.0, 2.0, 9.0, 10.0]; // 5 rows of 1
//! let coreset = KCentreGreedy { start: Start::Index(0) }.select(&rows, 1, 3, Isa::best()?)?;
//! assert_eq!(coreset.indices, [0, 4, 2]);
//! assert_eq!(coreset.radii, [10.0, 2.0, 1.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod projection;
mod select;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use rayon::prelude::*;

use crate::isa::{Isa, IsaError};
use crate::simd::Token;
use crate::squares::{is_measurable, sum_of_squares};

pub use projection::{Projection, RandomProjection, johnson_lindenstrauss_dim};

/// The first pick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Start {
    /// This row.
    Index(usize),
    /// The row farthest from the mean of all rows; ties go to the first.
    #[default]
    FarthestFromMean,
}

/// Greedy selection of centres: each pick is the row farthest from all earlier picks; ties go to the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KCentreGreedy {
    /// The first pick.
    pub start: Start,
}

/// The rows that were picked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coreset {
    /// In the order in which they were picked.
    pub indices: Vec<u32>,
    /// After each pick, the distance (not squared) of the farthest row from its nearest centre: how well the coreset
    /// covers the rows. Never rises.
    pub radii: Vec<f32>,
}

/// Why a selection or a projection fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CoresetError {
    /// The instruction set is not available.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// Rows without columns, or a projection to none.
    #[error("rows of dimension 0 have no distance")]
    NoColumns,
    /// The values do not form whole rows.
    #[error("{len} numbers are not a whole number of rows of dimension {dim}")]
    Ragged {
        /// The numbers.
        len: usize,
        /// The dimension.
        dim: usize,
    },
    /// There are no rows to pick, or not enough.
    #[error("{count} rows cannot be picked from {rows}")]
    Count {
        /// The rows asked for.
        count: usize,
        /// The rows given.
        rows: usize,
    },
    /// Rows are numbered by `u32`.
    #[error("{rows} rows are too many, the limit is 2^32 - 1")]
    TooManyRows {
        /// The rows given.
        rows: usize,
    },
    /// The first pick is not among the rows.
    #[error("the first pick is row {index}, but there are {rows} rows")]
    Start {
        /// The row asked for.
        index: usize,
        /// The rows given.
        rows: usize,
    },
    /// A value is NaN or infinite, or the squared length of a row leaves the range of `f32`.
    #[error("row {row} has values that are not finite or too large to square")]
    NotFinite {
        /// The row, from 0.
        row: usize,
    },
    /// The share of nonzero weights is not in (0, 1].
    #[error("a density of {density} is not in (0, 1]")]
    Density {
        /// The value given.
        density: f64,
    },
    /// The caller's progress function stopped the selection.
    #[error("interrupted after {done} of {total} picks")]
    Interrupted {
        /// Rows picked.
        done: usize,
        /// Rows asked for.
        total: usize,
    },
}

impl KCentreGreedy {
    /// Picks `count` of `rows` `[rows, dim]`, or fewer if every remaining row equals a picked one.
    ///
    /// Works in parallel on rayon's current pool.
    ///
    /// # Errors
    /// See [`CoresetError`].
    pub fn select(&self, rows: &[f32], dim: usize, count: usize, isa: Isa) -> Result<Coreset, CoresetError> {
        self.select_with(rows, dim, count, isa, &mut |_, _| ControlFlow::Continue(()))
    }

    /// [`select`](Self::select) with a progress function that gets `(done, total)` after each pick and may stop the
    /// selection.
    ///
    /// # Errors
    /// See [`CoresetError`].
    pub fn select_with(
        &self,
        rows: &[f32],
        dim: usize,
        count: usize,
        isa: Isa,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Coreset, CoresetError> {
        let token = Token::new(isa)?;
        let total = check_rows(rows, dim)?;
        if count == 0 || count > total {
            return Err(CoresetError::Count { count, rows: total });
        }
        let mut selection = select::Selection::new(rows, dim, count, token);
        let mut pick = match self.start {
            Start::Index(index) if index < total => index,
            Start::Index(index) => return Err(CoresetError::Start { index, rows: total }),
            Start::FarthestFromMean => selection.farthest_from_mean(),
        };
        let mut coreset = Coreset::default();
        loop {
            selection.add(pick);
            let (square, next) = selection.farthest();
            coreset.indices.push(pick as u32);
            coreset.radii.push(square.sqrt());
            let done = coreset.indices.len();
            if progress(done, count).is_break() {
                return Err(CoresetError::Interrupted { done, total: count });
            }
            if done == count || square == 0.0 {
                return Ok(coreset);
            }
            pick = next;
        }
    }
}

/// The number of rows, after a check that their squared distances stay finite.
fn check_rows(rows: &[f32], dim: usize) -> Result<usize, CoresetError> {
    if dim == 0 {
        return Err(CoresetError::NoColumns);
    }
    if !rows.len().is_multiple_of(dim) {
        return Err(CoresetError::Ragged { len: rows.len(), dim });
    }
    let total = rows.len() / dim;
    if u32::try_from(total).is_err() {
        return Err(CoresetError::TooManyRows { rows: total });
    }
    let rows = rows.par_chunks_exact(dim).with_min_len(64);
    match rows.position_first(|row| !is_measurable(sum_of_squares(row))) {
        Some(row) => Err(CoresetError::NotFinite { row }),
        None => Ok(total),
    }
}
