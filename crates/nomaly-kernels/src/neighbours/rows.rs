//! Rows that have been checked, with their lengths.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::{Metric, NeighboursError, Side};
use crate::squares::{is_measurable, sum_of_squares};

/// Rows with the scale and squared length that the metric gives them.
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
