//! The memory layout of tensors: blocks of channels, zero borders, and the arena that holds all tensors.
//!
//! Channels come in blocks of one vector: `[C / b][H][W][b]`, so that a vector holds b channels of one position and no
//! kernel ever shuffles lanes. The last block is filled up with lanes that no consumer reads. A tensor that a padded
//! convolution reads carries its padding as a *halo* of zeros. Whoever writes the tensor also writes its halo, so the
//! convolution needs no special case for borders. The planar variant `[C][H][W]` serves first layers with few channels.

use crate::geometry::Padding;

/// The place of one tensor in the arena, and its strides (all in f32 values).
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// Start of the tensor in an arena for one image; an arena for n images multiplies all offsets by n.
    pub(crate) offset: usize,
    /// Values of one image, halo included, a multiple of a cache line.
    pub(crate) len: usize,
    /// Channels that hold data.
    pub(crate) channels: usize,
    /// Blocks of channels (planar: channels).
    pub(crate) blocks: usize,
    /// Rows without halo.
    pub(crate) height: usize,
    /// Columns without halo.
    pub(crate) width: usize,
    /// Distance of neighbours in a row: the lanes of a block (planar: 1).
    pub(crate) pixel: usize,
    /// Distance of rows.
    pub(crate) row: usize,
    /// Distance of blocks.
    pub(crate) plane: usize,
    /// From the start of a block to its position (0, 0).
    pub(crate) origin: usize,
    /// The border of zeros.
    pub(crate) halo: Padding,
}

impl View {
    /// A tensor `[C, H, W]` with `lanes` channels in a block, not yet placed.
    pub(crate) fn new([channels, height, width]: [usize; 3], halo: Padding, lanes: usize) -> Self {
        let blocks = channels.div_ceil(lanes);
        let row = (width + halo.left + halo.right) * lanes;
        let plane = (height + halo.top + halo.bottom) * row;
        let origin = halo.top * row + halo.left * lanes;
        let len = (blocks * plane).next_multiple_of(16);
        Self { offset: 0, len, channels, blocks, height, width, pixel: lanes, row, plane, origin, halo }
    }

    /// Whether all positions of a block follow each other.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.row == self.width * self.pixel
    }

    /// From the start of a block to position (y, x).
    pub(crate) fn at(&self, y: usize, x: usize) -> usize {
        self.origin + y * self.row + x * self.pixel
    }
}

/// A part of a tensor that one thread writes: rows `y0..y1` of one block of one image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) image: usize,
    pub(crate) block: usize,
    pub(crate) y0: usize,
    pub(crate) y1: usize,
}

/// The memory of all tensors, shared by the threads of a run; each thread writes regions that no other touches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arena {
    base: *mut f32,
    images: usize,
}

// SAFETY: an `Arena` is only an address; every access through it is an unsafe operation of its own, whose caller
// promises that no other thread writes the same values at the same time.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

/// Memory that is used only within a step: a part that all threads share, then a slot for each thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scratch {
    base: *mut f32,
    shared: usize,
    slot: usize,
}

// SAFETY: a `Scratch` is only an address, as an `Arena` is.
unsafe impl Send for Scratch {}
// SAFETY: as above.
unsafe impl Sync for Scratch {}

impl Scratch {
    /// The memory at `base`: `shared` values, then `slot` values for each thread of the pool.
    pub(crate) fn new(base: *mut f32, shared: usize, slot: usize) -> Self {
        Self { base, shared, slot }
    }

    /// The part that all threads share.
    pub(crate) fn shared(self) -> *mut f32 {
        self.base
    }

    /// The part of the calling thread. A unit of work never waits for another, so a thread has one user at a time.
    pub(crate) fn slot(self) -> *mut f32 {
        let thread = rayon::current_thread_index().unwrap_or(0);
        self.base.wrapping_add(self.shared + thread * self.slot)
    }
}

impl Arena {
    /// The memory at `base` for `images` images at a time.
    pub(crate) fn new(base: *mut f32, images: usize) -> Self {
        Self { base, images }
    }

    /// The first value (halo included) of block `block` of `image`.
    ///
    /// # Safety
    /// The arena must hold `view` for more than `image` images, and `block` must be one of its blocks.
    pub(crate) unsafe fn block(self, view: &View, image: usize, block: usize) -> *mut f32 {
        // SAFETY: the caller promises that the place lies in the arena.
        unsafe { self.base.add(view.offset * self.images + image * view.len + block * view.plane) }
    }

    /// Writes the zeros of the halo beside the rows of a region, and above and below the first and last row.
    ///
    /// # Safety
    /// As [`block`](Self::block), with rows inside the tensor and no other thread at the halo of these rows.
    pub(crate) unsafe fn clear_halo(self, view: &View, region: Region) {
        let Padding { top, bottom, left, right } = view.halo;
        if region.y0 >= region.y1 {
            return;
        }
        // SAFETY: the caller's promise; every range below lies inside the block by the definition of the strides.
        unsafe {
            let block = self.block(view, region.image, region.block);
            if region.y0 == 0 {
                block.write_bytes(0, top * view.row);
            }
            if left + right > 0 {
                for y in region.y0..region.y1 {
                    let row = block.add((top + y) * view.row);
                    row.write_bytes(0, left * view.pixel);
                    row.add((left + view.width) * view.pixel).write_bytes(0, right * view.pixel);
                }
            }
            if region.y1 == view.height && bottom > 0 {
                block.add((top + view.height) * view.row).write_bytes(0, bottom * view.row);
            }
        }
    }
}
