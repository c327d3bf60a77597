//! Rows, and what is computed of them once.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use super::filter;
use super::quantized::Quantized;
use super::search::{Near, Search};
use super::{Metric, Neighbours, NeighboursError, Side};
use crate::isa::Isa;
use crate::simd::{ByteToken, Token};
use crate::squares::{is_measurable, sum_of_squares};

/// Rows that are ready to be searched: borrowed or owned, with their lengths.
///
/// Beside the rows it takes 8 bytes a row. Where the processor multiplies bytes, the first search for few neighbours of
/// many queries adds a quarter of the rows and 12 bytes a row.
#[derive(Clone, Debug)]
pub struct Bank<'a> {
    rows: Rows<'a>,
    /// Made by the first search that is worth it.
    quantized: OnceLock<Quantized>,
    metric: Metric,
    isa: Isa,
    token: Token,
}

impl<'a> Bank<'a> {
    /// Takes `rows` `[rows, dim]` and measures their lengths.
    ///
    /// # Errors
    /// [`NeighboursError`], save [`Count`](NeighboursError::Count); no rows are no error.
    pub fn new(rows: impl Into<Cow<'a, [f32]>>, dim: usize, metric: Metric, isa: Isa) -> Result<Self, NeighboursError> {
        let token = Token::new(isa)?;
        let rows = Rows::new(rows.into(), dim, metric, Side::Bank)?;
        rows.check_room(0)?;
        Ok(Self { rows, quantized: OnceLock::new(), metric, isa, token })
    }

    /// Adds `rows` `[rows, dim]` behind those that are there.
    ///
    /// # Errors
    /// As [`new`](Bank::new), the rows numbered from the first added one; the bank is then as before.
    pub fn append(&mut self, rows: &[f32]) -> Result<(), NeighboursError> {
        let more = Rows::new(Cow::Borrowed(rows), self.dim(), self.metric, Side::Bank)?;
        self.rows.check_room(more.len())?;
        self.rows.append(&more);
        self.quantized = OnceLock::new();
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

    /// The numbers of a row.
    pub fn dim(&self) -> usize {
        self.rows.dim
    }

    /// How distances are measured.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The instruction set that searches.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The rows, `[rows, dim]`.
    pub fn rows(&self) -> &[f32] {
        &self.rows.data
    }

    /// The `k` nearest rows for each row of `queries` `[queries, dim]`.
    ///
    /// Works in parallel on rayon's current pool; the result does not depend on the number of threads. Beside the
    /// result it takes memory for one copy of the queries and for a block of the bank, whatever the size of the bank.
    ///
    /// # Errors
    /// [`Ragged`](NeighboursError::Ragged) and [`NotFinite`](NeighboursError::NotFinite) for the queries,
    /// [`Count`](NeighboursError::Count); no queries are no error.
    pub fn top_k(&self, queries: &[f32], k: usize) -> Result<Neighbours, NeighboursError> {
        let queries = Rows::new(Cow::Borrowed(queries), self.dim(), self.metric, Side::Queries)?;
        if k == 0 || k > self.len() {
            return Err(NeighboursError::Count { k, rows: self.len() });
        }
        Ok(Neighbours::from_lists(k, self.nearest(queries.view(), k)))
    }

    /// [`top_k`](Self::top_k) of rows that have been checked; `k` must be in 1 … `len`.
    pub(super) fn nearest(&self, queries: View<'_>, k: usize) -> Vec<Vec<Near>> {
        let (metric, token, lanes) = (self.metric, self.token, self.isa.lanes());
        let quantized = self.quantized(queries.len(), k);
        Search { queries, bank: self.rows.view(), numbers: None, k, metric, token, lanes, quantized }.run()
    }

    /// The rows rounded to bytes, where that is worthwhile for a search.
    fn quantized(&self, queries: usize, k: usize) -> Option<(&Quantized, ByteToken)> {
        let (bytes, is_rounded) = (self.token.bytes()?, self.quantized.get().is_some());
        if !filter::is_worthwhile(queries, self.len(), self.dim(), k, is_rounded) {
            return None;
        }
        if !is_rounded {
            // Not inside of `get_or_init`: a thread that waits for the others may begin another search of this bank,
            // which would then wait for itself.
            let quantized = Quantized::new(self.rows.view(), self.token, bytes);
            self.quantized.get_or_init(|| quantized);
        }
        Some((self.quantized.get()?, bytes))
    }
}

/// Rows with what the metric makes of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows<'a> {
    pub(super) data: Cow<'a, [f32]>,
    pub(super) dim: usize,
    /// The factor of each row: 1, or 1 over its length, or 0 for a row of length 0.
    pub(super) scale: Vec<f32>,
    /// The squared length after scaling, where a row of length 0 counts as a unit vector of its own direction.
    pub(super) square: Vec<f32>,
}

/// Some of the rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) data: &'a [f32],
    pub(super) dim: usize,
    pub(super) scale: &'a [f32],
    pub(super) square: &'a [f32],
}

impl<'a> View<'a> {
    pub(super) fn len(&self) -> usize {
        self.scale.len()
    }

    pub(super) fn row(&self, index: usize) -> &'a [f32] {
        &self.data[index * self.dim..(index + 1) * self.dim]
    }

    pub(super) fn scaled(&self, index: usize) -> (&'a [f32], f32) {
        (self.row(index), self.scale[index])
    }

    pub(super) fn slice(&self, rows: Range<usize>) -> Self {
        let data = &self.data[rows.start * self.dim..rows.end * self.dim];
        Self { data, dim: self.dim, scale: &self.scale[rows.clone()], square: &self.square[rows] }
    }

    /// The rows with these numbers, one after the other.
    pub(super) fn gather(&self, numbers: &[u32], into: &mut Rows<'static>) {
        into.dim = self.dim;
        let data = into.data.to_mut();
        data.clear();
        numbers.iter().for_each(|number| data.extend_from_slice(self.row(*number as usize)));
        for (from, into) in [(self.scale, &mut into.scale), (self.square, &mut into.square)] {
            into.clear();
            into.extend(numbers.iter().map(|number| from[*number as usize]));
        }
    }
}

impl<'a> Rows<'a> {
    pub(super) fn new(data: Cow<'a, [f32]>, dim: usize, metric: Metric, side: Side) -> Result<Self, NeighboursError> {
        if dim == 0 {
            return Err(NeighboursError::NoColumns);
        }
        if !data.len().is_multiple_of(dim) {
            return Err(NeighboursError::Ragged { side, len: data.len(), dim });
        }
        let squares: Vec<f64> = data.par_chunks_exact(dim).with_min_len(64).map(sum_of_squares).collect();
        if let Some(row) = squares.iter().position(|square| !is_measurable(*square)) {
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

    /// Rows are numbered by `u32`.
    pub(super) fn check_room(&self, more: usize) -> Result<(), NeighboursError> {
        let rows = self.len().saturating_add(more);
        if u32::try_from(rows).is_err() { Err(NeighboursError::BankTooLarge { rows }) } else { Ok(()) }
    }

    pub(super) fn append(&mut self, more: &Rows<'_>) {
        self.data.to_mut().extend_from_slice(&more.data);
        self.scale.extend_from_slice(&more.scale);
        self.square.extend_from_slice(&more.square);
    }

    pub(super) fn view(&self) -> View<'_> {
        View { data: &self.data, dim: self.dim, scale: &self.scale, square: &self.square }
    }

    /// Puts row `order[i]` into place `i`, for every `i`; `order` must be a permutation. Needs no second copy of the
    /// rows.
    pub(super) fn permute(&mut self, order: &[u32]) {
        let dim = self.dim;
        let (data, scale, square) = (self.data.to_mut(), &mut self.scale, &mut self.square);
        let mut done = vec![false; order.len()];
        let mut first = vec![0.0f32; dim];
        for start in 0..order.len() {
            if done[start] {
                continue;
            }
            first.copy_from_slice(&data[start * dim..(start + 1) * dim]);
            let (first_scale, first_square) = (scale[start], square[start]);
            let mut place = start;
            loop {
                done[place] = true;
                let from = order[place] as usize;
                if from == start {
                    break;
                }
                data.copy_within(from * dim..(from + 1) * dim, place * dim);
                (scale[place], square[place]) = (scale[from], square[from]);
                place = from;
            }
            data[place * dim..(place + 1) * dim].copy_from_slice(&first);
            (scale[place], square[place]) = (first_scale, first_square);
        }
    }
}
