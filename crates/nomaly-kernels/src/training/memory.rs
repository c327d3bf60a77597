//! Working memory of a unit of work, and memory that units share.

use std::cell::RefCell;

use crate::buffer::AlignedBuf;

/// Floating-point operations below which waking another thread costs more than it saves.
const SHARED_FLOPS: usize = 2_000_000;

thread_local! {
    /// Idle buffers of this thread. There are as many as were ever in use at once, because a thread that waits for
    /// others may run a unit of other work in the meantime.
    static FREE: RefCell<Vec<AlignedBuf>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `len` values of working memory with unspecified contents.
///
/// The memory belongs to the thread and is kept, so consecutive units of a thread find it in its cache.
pub(super) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FREE.with_borrow_mut(|free| match free.iter().position(|buffer| buffer.len() >= len) {
        Some(index) => free.swap_remove(index),
        None => {
            // A buffer that is too small is replaced by a larger one.
            free.pop();
            AlignedBuf::zeroed(len)
        }
    });
    let result = work(&mut buffer[..len]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}

/// The number of threads that share work of this size.
pub(super) fn threads_for(flops: usize) -> usize {
    if flops < SHARED_FLOPS { 1 } else { rayon::current_num_threads() }
}

/// A slice whose non-overlapping, non-contiguous parts are written by several threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared {
    base: *mut f32,
    len: usize,
}

// SAFETY: a `Shared` is only an address; every access through it is an unsafe operation of its own, whose caller
// promises that no other thread touches the same values at the same time.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Shares `values`, which must not be accessed otherwise in the meantime.
    pub(super) fn new(values: &mut [f32]) -> Self {
        Self { base: values.as_mut_ptr(), len: values.len() }
    }

    /// The address of `len` values from `start` on.
    ///
    /// # Safety
    /// The slice must be alive, and nothing else may access these values while they are written.
    pub(super) unsafe fn at(self, start: usize, len: usize) -> *mut f32 {
        assert!(start <= self.len && len <= self.len - start, "a unit of work reaches beyond the slice");
        // SAFETY: just checked.
        unsafe { self.base.add(start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reused_even_by_nested_work() {
        let first = with_scratch(100, |outer| {
            let inner = with_scratch(50, |inner| inner.as_ptr() as usize);
            assert_ne!(inner, outer.as_ptr() as usize);
            outer.as_ptr() as usize
        });
        let again = with_scratch(60, |buffer| {
            assert_eq!(buffer.len(), 60);
            buffer.as_ptr() as usize
        });
        assert_eq!(again, first);
    }
}
