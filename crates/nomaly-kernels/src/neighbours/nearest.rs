//! The nearest rows of a query so far.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A row of the bank and its direct distance; ordered by distance, then by index.
#[derive(Clone, Copy, Debug, PartialEq)]
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
#[derive(Clone, Default)]
pub(super) struct Nearest {
    heap: BinaryHeap<Near>,
    k: usize,
}

impl Nearest {
    pub(super) fn new(k: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(k + 1), k }
    }

    /// Nearest first.
    pub(super) fn into_sorted(self) -> Vec<Near> {
        self.heap.into_sorted_vec()
    }

    /// Rows beyond this distance are irrelevant.
    pub(super) fn limit(&self) -> f32 {
        if self.heap.len() < self.k {
            f32::INFINITY
        } else {
            self.heap.peek().map_or(f32::INFINITY, |far| far.distance)
        }
    }

    pub(super) fn push(&mut self, near: Near) {
        if self.heap.len() < self.k {
            self.heap.push(near);
        } else if let Some(mut far) = self.heap.peek_mut()
            && near < *far
        {
            *far = near;
        }
    }
}

/// The nearest rows of both.
pub(super) fn merge(mut lists: Vec<Nearest>, others: Vec<Nearest>) -> Vec<Nearest> {
    for (list, other) in lists.iter_mut().zip(others) {
        other.heap.into_iter().for_each(|near| list.push(near));
    }
    lists
}
