//! Memory aligned to cache lines, and in huge pages where the system has them.
//!
//! **The problem.** A network's weights pass through the processor once per run. With pages of 4 KiB, each page costs a
//! page-table walk, and the processor's prefetchers stop at its end.
//!
//! **The design.** A buffer of [`HUGE_PAGE`] bytes or more begins at a multiple of it, and Linux is asked, before the
//! memory is touched, to back it with huge pages (`madvise`). Where the system refuses or has no such call, it is
//! ordinary memory.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes of a huge page on x86-64 and on AArch64 with 4 KiB pages.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes of a cache line.
const LINE: usize = 64;

/// A fixed number of f32 values that begins at a cache line, so that no vector of the blocked layout straddles two.
#[derive(Debug)]
pub(crate) struct AlignedBuf {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: the buffer owns its memory, as a `Vec<f32>` does.
unsafe impl Send for AlignedBuf {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self { start: NonNull::dangling(), len };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout has at least four bytes, and what is written lies inside the allocation.
        unsafe {
            let Some(start) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
            if layout.align() == HUGE_PAGE {
                ask_for_huge_pages(start, layout.size());
            }
            start.write_bytes(0, layout.size());
            Self { start: start.cast(), len }
        }
    }

    /// The first `len` values, with unspecified contents; grows the buffer if it is smaller.
    pub(crate) fn scratch(&mut self, len: usize) -> &mut [f32] {
        if self.len < len {
            *self = Self::zeroed(len);
        }
        &mut self[..len]
    }

    /// The same memory as bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the memory of `len` f32, which have no padding; any byte is a u8.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len * size_of::<f32>()) }
    }

    /// The same memory as bytes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed exclusively; any four bytes are an f32.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len * size_of::<f32>()) }
    }

    fn layout(len: usize) -> Layout {
        let bytes = len.checked_mul(size_of::<f32>());
        let align = if bytes.is_some_and(|bytes| bytes >= HUGE_PAGE) { HUGE_PAGE } else { LINE };
        // As for a `Vec`, a length beyond the address space is a bug in the caller.
        bytes.and_then(|bytes| Layout::from_size_align(bytes, align).ok()).expect("a buffer fits into memory")
    }
}

/// Asks Linux to back memory that has not been touched yet with huge pages.
#[cfg(target_os = "linux")]
fn ask_for_huge_pages(start: NonNull<u8>, bytes: usize) {
    // SAFETY: advice about whole pages of memory that the caller has just allocated; it changes no contents. A refusal
    // leaves ordinary pages, so the result does not matter.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes - bytes % HUGE_PAGE, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages(_: NonNull<u8>, _: usize) {}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated by `zeroed` with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) };
        }
    }
}

impl Default for AlignedBuf {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl Clone for AlignedBuf {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl Deref for AlignedBuf {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised values, or a dangling pointer to none.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_at_a_cache_line_and_has_its_length() {
        for len in [0, 1, 16, 17, 1000, HUGE_PAGE / 4, HUGE_PAGE / 4 + 5] {
            let mut buffer = AlignedBuf::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|value| *value == 0.0));
            assert!(len == 0 || (buffer.as_ptr() as usize).is_multiple_of(LINE));
            assert!(len < HUGE_PAGE / 4 || (buffer.as_ptr() as usize).is_multiple_of(HUGE_PAGE));
            buffer.fill(1.0);
            assert_eq!(buffer.clone().iter().sum::<f32>(), len as f32);
        }
    }
}
