//! The memory budget for reading a weight file.

use super::WeightsError;

/// The minimum budget of any file.
const FLOOR: usize = 16 << 20;
/// The budget per byte of the file. Files are plain or lightly compressed, and their tensors rarely share a storage.
const PER_BYTE: usize = 48;

/// Bytes of memory left for the contents of one file.
///
/// One budget covers the whole reading: pickles, storages, names and tensors draw on it *before* they are allocated, so
/// that no combination exceeds it.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    limit: usize,
}

impl Budget {
    /// For a file of `length` bytes.
    pub(super) fn of_file(length: usize) -> Self {
        let limit = length.saturating_mul(PER_BYTE).saturating_add(FLOOR);
        Self { left: limit, limit }
    }

    /// Takes `bytes` off.
    ///
    /// # Errors
    /// [`WeightsError::Memory`] if fewer are left.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), WeightsError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(WeightsError::Memory { limit: self.limit }),
        }
    }

    /// [`Budget::spend`] for `count` things of `size` bytes each.
    pub(super) fn spend_each(&mut self, count: usize, size: usize) -> Result<(), WeightsError> {
        self.spend(count.saturating_mul(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_runs_out_once_and_for_all() {
        let mut budget = Budget::of_file(1000);
        budget.spend(FLOOR).unwrap();
        budget.spend_each(1000, 47).unwrap();
        assert_eq!(budget.left, 1000);
        assert!(matches!(budget.spend(1001), Err(WeightsError::Memory { limit }) if limit == FLOOR + 48_000));
        assert!(matches!(budget.spend_each(usize::MAX, 2), Err(WeightsError::Memory { .. })));
        budget.spend(1000).unwrap();
        assert!(budget.spend(1).is_err());
    }
}
