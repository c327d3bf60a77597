//! A pool of buffers for intermediate results, kept from step to step.
//!
//! Fresh memory from the system is cleared and mapped page by page on first access; reused memory is not.

use std::collections::HashMap;
use std::sync::Arc;

use nomaly_kernels::training::add_assign;

/// Idle buffers by length.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: HashMap<usize, Vec<Vec<f32>>>,
}

impl Buffers {
    /// A buffer of `len` values with unspecified contents.
    pub(super) fn take(&mut self, len: usize) -> Vec<f32> {
        self.free.get_mut(&len).and_then(Vec::pop).unwrap_or_else(|| vec![0.0; len])
    }

    /// Takes a buffer back.
    pub(super) fn give(&mut self, buffer: Vec<f32>) {
        self.free.entry(buffer.len()).or_default().push(buffer);
    }

    /// Takes a buffer back if nothing else holds it.
    pub(super) fn give_shared(&mut self, buffer: Arc<Vec<f32>>) {
        if let Ok(buffer) = Arc::try_unwrap(buffer) {
            self.give(buffer);
        }
    }

    /// Frees all buffers: the next ones will have other lengths.
    pub(super) fn clear(&mut self) {
        self.free.clear();
    }

    /// The buffer for writing; a copy if it is shared.
    pub(super) fn make_unique(&mut self, shared: Arc<Vec<f32>>) -> Vec<f32> {
        Arc::try_unwrap(shared).unwrap_or_else(|shared| {
            let mut copy = self.take(shared.len());
            copy.copy_from_slice(&shared);
            copy
        })
    }

    /// Adds a gradient to the sum at a node; `gradient` may be shared and is not modified.
    pub(super) fn accumulate(&mut self, place: &mut Option<Arc<Vec<f32>>>, gradient: Arc<Vec<f32>>) {
        *place = Some(match place.take() {
            None => gradient,
            Some(present) => {
                let mut sum = self.make_unique(present);
                add_assign(&mut sum, &gradient).expect("gradients of one node have one length");
                self.give_shared(gradient);
                Arc::new(sum)
            }
        });
    }
}
