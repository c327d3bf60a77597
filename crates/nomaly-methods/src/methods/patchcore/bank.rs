//! The memory bank and its search.

use std::borrow::Cow;

use nomaly_kernels::Isa;
use nomaly_kernels::neighbours::{Bank, InvertedIndex, Metric, Neighbours, NeighboursError, recall};

use crate::MethodError;

/// Describes the recall of an inverted index.
pub(super) fn describe_recall(nearest: &Neighbours, found: &Neighbours) -> String {
    let length = |neighbors: &Neighbours| {
        neighbors.distances.iter().map(|&square| f64::from(square).sqrt()).sum::<f64>().max(f64::MIN_POSITIVE)
    };
    format!(
        "the inverted index finds {:.1} % of the nearest patches; distances are {:.2} % too large in the mean",
        100.0 * recall(nearest, found),
        100.0 * (length(found) / length(nearest) - 1.0)
    )
}

/// A part of the bank that is searched as a whole.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// Searched exhaustively.
    Exact(Bank<'a>),
    /// Searched in the nearest cells.
    Inverted {
        index: InvertedIndex,
        /// The number of cells.
        probes: usize,
    },
}

impl Piece<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Exact(bank) => bank.len(),
            Self::Inverted { index, .. } => index.len(),
        }
    }

    fn row(&self, index: usize) -> &[f32] {
        match self {
            Self::Exact(bank) => &bank.rows()[index * bank.dim()..(index + 1) * bank.dim()],
            Self::Inverted { index: rows, .. } => rows.row(index).unwrap_or_default(),
        }
    }

    fn top_k(&self, queries: &[f32], k: usize) -> Result<Neighbours, NeighboursError> {
        let k = k.min(self.len());
        match self {
            Self::Exact(bank) => bank.top_k(queries, k),
            Self::Inverted { index, probes } => index.top_k(queries, k, *probes),
        }
    }

    pub(super) fn append(&mut self, rows: &[f32]) -> Result<(), NeighboursError> {
        match self {
            Self::Exact(bank) => bank.append(rows),
            Self::Inverted { index, .. } => index.append(rows),
        }
    }
}

/// The memory bank: normal patches, in one or more pieces.
#[derive(Debug)]
pub(super) struct MemoryBank<'a> {
    /// Each non-empty.
    pub(super) pieces: Vec<Piece<'a>>,
}

impl<'a> MemoryBank<'a> {
    pub(super) fn exact(pieces: Vec<impl Into<Cow<'a, [f32]>>>, dim: usize) -> Result<Self, MethodError> {
        let isa = Isa::best()?;
        let banks = pieces.into_iter().map(|rows| Bank::new(rows, dim, Metric::SquaredL2, isa));
        let banks = banks.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { pieces: banks.into_iter().filter(|bank| !bank.is_empty()).map(Piece::Exact).collect() })
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.iter().map(Piece::len).sum()
    }

    pub(super) fn row(&self, mut index: usize) -> &[f32] {
        for piece in &self.pieces {
            if index < piece.len() {
                return piece.row(index);
            }
            index -= piece.len();
        }
        &[]
    }

    /// The `k` nearest patches of each query by squared distance, or all if there are fewer.
    pub(super) fn top_k(&self, queries: &[f32], k: usize) -> Result<Neighbours, MethodError> {
        let mut found: Option<Neighbours> = None;
        let mut first = 0;
        for piece in &self.pieces {
            let mut part = piece.top_k(queries, k)?;
            part.indices.iter_mut().for_each(|index| *index += first);
            first += piece.len() as u32;
            found = Some(match found {
                None => part,
                Some(before) => merged(&before, &part, k),
            });
        }
        Ok(found.unwrap_or(Neighbours { k: 0, indices: Vec::new(), distances: Vec::new() }))
    }

    /// The weight of a patch's score: 1 minus the share of `nearest` in the soft maximum of the patch's distances to
    /// the `neighbors` nearest of `nearest`, itself among them.
    pub(super) fn weight(&self, patch: &[f32], nearest: usize, neighbors: usize) -> Result<f64, MethodError> {
        let support = self.top_k(self.row(nearest), neighbors)?;
        let to = |row: &[f32]| {
            let squares = patch.iter().zip(row).map(|(a, b)| f64::from(a - b).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let distances: Vec<f64> = support.indices.iter().map(|&index| to(self.row(index as usize))).collect();
        let largest = distances.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = distances.iter().map(|distance| (distance - largest).exp()).sum();
        Ok(1.0 - (to(self.row(nearest)) - largest).exp() / sum)
    }
}

/// Merges two lists of neighbors per query into the `k` nearest, or all if there are fewer; ties put those of `before`
/// first.
fn merged(before: &Neighbours, after: &Neighbours, k: usize) -> Neighbours {
    let k = k.min(before.k + after.k);
    let mut merged = Neighbours { k, indices: Vec::new(), distances: Vec::new() };
    let list = |found: &Neighbours, query: usize| {
        let own = query * found.k..(query + 1) * found.k;
        let pairs = found.distances[own.clone()].iter().copied().zip(found.indices[own].iter().copied());
        pairs.collect::<Vec<(f32, u32)>>()
    };
    for query in 0..before.indices.len() / before.k {
        let mut both = [list(before, query), list(after, query)].concat();
        both.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (distances, indices): (Vec<f32>, Vec<u32>) = both.into_iter().take(k).unzip();
        merged.distances.extend(distances);
        merged.indices.extend(indices);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bank_in_pieces_gives_what_the_whole_bank_gives() {
        let value = |at: usize| ((at * 7919 + 13) % 101) as f32 / 10.0;
        let rows: Vec<f32> = (0..60 * 4).map(value).collect();
        let queries: Vec<f32> = (0..20 * 4).map(|at| value(at * 3 + 1)).collect();
        let whole = MemoryBank::exact(vec![rows.as_slice()], 4).unwrap();
        for cut in [0, 1, 30, 59] {
            let pieces = MemoryBank::exact(vec![&rows[..cut * 4], &rows[cut * 4..]], 4).unwrap();
            assert_eq!(pieces.len(), 60);
            for k in [1, 5] {
                assert_eq!(pieces.top_k(&queries, k).unwrap(), whole.top_k(&queries, k).unwrap(), "cut {cut}");
            }
            for patch in queries.chunks(4) {
                let nearest = whole.top_k(patch, 1).unwrap().indices[0] as usize;
                assert_eq!(pieces.row(nearest), whole.row(nearest));
                assert_eq!(pieces.weight(patch, nearest, 9).unwrap(), whole.weight(patch, nearest, 9).unwrap());
            }
        }
        assert_eq!(MemoryBank::exact(vec![&rows[..8], &rows[8..12]], 4).unwrap().top_k(&queries, 9).unwrap().k, 3);
    }

    #[test]
    fn the_weight_is_that_of_equation_7() {
        // Distances from the patch: 1 to the nearest, 2 and 3 to its neighbors.
        let bank = MemoryBank::exact(vec![vec![1.0f32, 2.0, 3.0, 50.0]], 1).unwrap();
        let soft = 1.0f64.exp() / (1.0f64.exp() + 2.0f64.exp() + 3.0f64.exp());
        let weight = bank.weight(&[0.0], 0, 3).unwrap();
        assert!((weight - (1.0 - soft)).abs() < 1e-12, "{weight}");
    }
}
