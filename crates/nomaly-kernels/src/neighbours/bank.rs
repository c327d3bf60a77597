//! Rows that are searched repeatedly, with data that is computed from them once.

use std::borrow::Cow;
use std::sync::OnceLock;

use super::filter::{self, Filter};
use super::nearest::Near;
use super::quantized::Quantized;
use super::rows::{Rows, View};
use super::search::{FEW_QUERIES, Search};
use super::{Metric, Neighbours, NeighboursError, Side};
use crate::isa::Isa;
use crate::simd::{ByteToken, Token};

/// Rows that are ready for searching, borrowed or owned, with their lengths.
///
/// Besides the rows it takes 8 bytes per row. Where the processor multiplies bytes, the first search for few neighbours
/// of many queries adds a quarter of the size of the rows and 12 bytes per row.
#[derive(Clone, Debug)]
pub struct Bank<'a> {
    rows: Rows<'a>,
    /// Built by the first search that is worth it.
    quantized: OnceLock<Quantized>,
    metric: Metric,
    isa: Isa,
    token: Token,
}

impl<'a> Bank<'a> {
    /// Takes `rows` `[rows, dim]` and measures their lengths.
    ///
    /// # Errors
    /// [`NeighboursError`], save [`Count`](NeighboursError::Count); an empty slice is valid.
    pub fn new(rows: impl Into<Cow<'a, [f32]>>, dim: usize, metric: Metric, isa: Isa) -> Result<Self, NeighboursError> {
        let token = Token::new(isa)?;
        let rows = Rows::new(rows.into(), dim, metric, Side::Bank)?;
        rows.check_room(0)?;
        Ok(Self { rows, quantized: OnceLock::new(), metric, isa, token })
    }

    /// Appends `rows` `[rows, dim]`.
    ///
    /// # Errors
    /// As [`new`](Bank::new), with rows numbered from the first added one; the bank is then unchanged.
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

    /// The length of a row.
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
    /// Works in parallel on rayon's current pool; the result does not depend on the number of threads. Besides the
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
        let search = Search { queries, bank: self.rows.view(), numbers: None, k, metric, token, lanes };
        match self.quantized(queries.len(), k) {
            Some((bank, bytes)) if queries.len() > FEW_QUERIES => Filter { search: &search, bank, bytes }.run(),
            _ => search.run(),
        }
    }

    /// The rows rounded to bytes, where that is worthwhile for a search.
    fn quantized(&self, queries: usize, k: usize) -> Option<(&Quantized, ByteToken)> {
        let (bytes, is_rounded) = (self.token.bytes()?, self.quantized.get().is_some());
        if !filter::is_worthwhile(queries, self.len(), self.dim(), k, is_rounded) {
            return None;
        }
        if !is_rounded {
            // Not inside `get_or_init`: a thread that waits for others may start another search of this bank, which
            // would deadlock.
            let quantized = Quantized::new(self.rows.view(), self.token, bytes);
            self.quantized.get_or_init(|| quantized);
        }
        Some((self.quantized.get()?, bytes))
    }
}
