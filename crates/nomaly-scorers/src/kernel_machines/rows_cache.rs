//! A cache for rows of a kernel matrix within a fixed amount of memory.

use std::collections::BTreeMap;

use rayon::prelude::*;

/// No slot.
const NONE: u32 = u32::MAX;

/// A row and the time of its last use.
#[derive(Debug)]
struct Slot {
    position: usize,
    stamp: u64,
    row: Vec<f32>,
}

/// The most recently used rows of a square matrix, which can be reduced to a subset of its rows and columns.
#[derive(Debug)]
pub(crate) struct RowsCache {
    bytes: usize,
    /// The slot of each row of the matrix.
    slot_of: Vec<u32>,
    slots: Vec<Slot>,
    /// Slots by the time of their last use.
    order: BTreeMap<u64, u32>,
    clock: u64,
}

impl RowsCache {
    /// An empty cache for a matrix of `size` rows, of about `bytes` bytes, but at least of [`LEAST`](Self::LEAST) rows.
    pub(crate) fn new(size: usize, bytes: usize) -> Self {
        Self { bytes, slot_of: vec![NONE; size], slots: Vec::new(), order: BTreeMap::new(), clock: 0 }
    }

    /// The minimum capacity in rows.
    pub(crate) const LEAST: usize = 16;

    /// The capacity in rows.
    fn capacity(&self) -> usize {
        (self.bytes / (size_of::<f32>() * self.slot_of.len().max(1))).max(Self::LEAST)
    }

    pub(crate) fn contains(&self, position: usize) -> bool {
        self.slot_of[position] != NONE
    }

    /// A cached row; does not count as a use.
    pub(crate) fn row(&self, position: usize) -> &[f32] {
        &self.slots[self.slot_of[position] as usize].row
    }

    /// Marks a cached row as used.
    pub(crate) fn touch(&mut self, position: usize) {
        let slot = self.slot_of[position];
        self.clock += 1;
        self.order.remove(&self.slots[slot as usize].stamp);
        self.order.insert(self.clock, slot);
        self.slots[slot as usize].stamp = self.clock;
    }

    /// Inserts at most [`LEAST`](Self::LEAST) missing rows in place of the least recently used ones, filled by
    /// `compute`; the first counts as the most recently used.
    pub(crate) fn insert<E>(
        &mut self,
        positions: &[usize],
        compute: impl FnOnce(&mut [&mut [f32]]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (size, capacity) = (self.slot_of.len(), self.capacity());
        let mut taken: Vec<u32> = Vec::with_capacity(positions.len());
        for position in positions.iter().rev() {
            let slot = match self.order.first_key_value().map(|(stamp, slot)| (*stamp, *slot)) {
                Some((stamp, slot)) if self.slots.len() >= capacity => {
                    self.order.remove(&stamp);
                    self.slot_of[self.slots[slot as usize].position] = NONE;
                    slot
                }
                _ => {
                    self.slots.push(Slot { position: *position, stamp: 0, row: Vec::new() });
                    (self.slots.len() - 1) as u32
                }
            };
            self.clock += 1;
            self.order.insert(self.clock, slot);
            self.slot_of[*position] = slot;
            let place = &mut self.slots[slot as usize];
            (place.position, place.stamp) = (*position, self.clock);
            place.row.resize(size, 0.0);
            taken.push(slot);
        }
        let mut rows: Vec<Vec<f32>> =
            taken.iter().rev().map(|slot| std::mem::take(&mut self.slots[*slot as usize].row)).collect();
        let result = compute(&mut rows.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
        for (slot, row) in taken.iter().rev().zip(rows) {
            self.slots[*slot as usize].row = row;
        }
        result
    }

    /// Reduces the matrix to the rows and columns `kept`, in ascending order.
    pub(crate) fn keep(&mut self, kept: &[usize]) {
        let mut position_of = vec![NONE; self.slot_of.len()];
        for (position, old) in kept.iter().enumerate() {
            position_of[*old] = position as u32;
        }
        self.slots.retain(|slot| position_of[slot.position] != NONE);
        self.slots.par_iter_mut().for_each(|slot| {
            slot.position = position_of[slot.position] as usize;
            slot.row = kept.iter().map(|old| slot.row[*old]).collect();
        });
        self.slot_of = vec![NONE; kept.len()];
        self.order.clear();
        for (at, slot) in self.slots.iter().enumerate() {
            self.slot_of[slot.position] = at as u32;
            self.order.insert(slot.stamp, at as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &mut RowsCache, positions: &[usize]) {
        let value = |position: usize, column: usize| (100 * position + column) as f32;
        let fill = |rows: &mut [&mut [f32]]| -> Result<(), ()> {
            for (row, position) in rows.iter_mut().zip(positions) {
                row.iter_mut().enumerate().for_each(|(column, target)| *target = value(*position, column));
            }
            Ok(())
        };
        cache.insert(positions, fill).unwrap();
    }

    #[test]
    fn the_rows_used_longest_ago_make_room() {
        let mut cache = RowsCache::new(40, 20 * 40 * 4);
        put(&mut cache, &(0..10).collect::<Vec<_>>());
        put(&mut cache, &(10..20).collect::<Vec<_>>());
        cache.touch(9);
        put(&mut cache, &[30, 31]);
        // The first row of a batch counts as the most recently used, so 9 and 8 were the oldest, and 9 has been used
        // since.
        assert!(cache.contains(9) && !cache.contains(8) && !cache.contains(7) && cache.contains(6));
        assert_eq!(cache.row(31)[39], 3139.0);
        assert_eq!(cache.row(9)[0], 900.0);
    }

    #[test]
    fn what_is_kept_keeps_its_values() {
        let mut cache = RowsCache::new(40, 0);
        put(&mut cache, &[3, 5, 8]);
        cache.keep(&[1, 5, 8, 20]);
        assert!(!cache.contains(0) && cache.contains(1) && cache.contains(2) && !cache.contains(3));
        assert_eq!(cache.row(1), [501.0, 505.0, 508.0, 520.0]);
        assert_eq!(cache.row(2), [801.0, 805.0, 808.0, 820.0]);
        cache.touch(1);
    }
}
