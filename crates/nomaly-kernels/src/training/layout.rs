//! Conversion between planar images and the blocked layout, a cache-sized part at a time.
//!
//! **The problem.** The tensors of a training step are planar, `[N, C, H, W]`, and the register tiles want b channels
//! of a position in one vector. Whole tensors in both layouts would double the memory and its traffic.
//!
//! **The design.** A unit of work keeps a [`Canvas`] in the second-level cache: some rows of some images, blocked, with
//! the zeros of the padding around. Squares of b channels × b positions are transposed in registers on the way in and
//! on the way out.

use crate::simd::Simd;

/// Some rows of some images in the blocked layout: `[C / b][images][rows][columns][b]`.
///
/// Unused lanes of the last block have unspecified contents; no consumer lets them reach a result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Canvas {
    /// Channels.
    pub(super) channels: usize,
    /// Height and width of the planar images.
    pub(super) size: [usize; 2],
    /// Images.
    pub(super) images: usize,
    /// Rows of each image, zeros included.
    pub(super) rows: usize,
    /// Columns of each row, zeros included.
    pub(super) columns: usize,
    /// The row of the image that comes first here; outside the image there are zeros.
    pub(super) top: isize,
    /// Columns of zeros before the first column of the image.
    pub(super) left: usize,
    /// Channels in a block.
    pub(super) lanes: usize,
}

impl Canvas {
    /// Blocks of channels.
    pub(super) fn blocks(&self) -> usize {
        self.channels.div_ceil(self.lanes)
    }

    /// Distance of rows.
    pub(super) fn row(&self) -> usize {
        self.columns * self.lanes
    }

    /// Distance of images.
    pub(super) fn image(&self) -> usize {
        self.rows * self.row()
    }

    /// Distance of blocks.
    pub(super) fn plane(&self) -> usize {
        self.images * self.image()
    }

    /// Values in all.
    pub(super) fn len(&self) -> usize {
        self.blocks() * self.plane()
    }
}

/// Fills a canvas at `to` from planar images; `from` is the first channel of the first image, and images are `step`
/// values apart.
///
/// # Safety
/// The rows of the images that lie on the canvas must be valid for reading, `canvas.len()` values at `to` for writing.
#[inline(always)]
pub(super) unsafe fn pack<S: Simd>(s: S, canvas: &Canvas, from: *const f32, step: usize, to: *mut f32) {
    let [height, width] = canvas.size;
    let row = canvas.row();
    // Rows `first..last` of the canvas lie on the image.
    let first = (-canvas.top).clamp(0, canvas.rows as isize) as usize;
    let last = (height as isize - canvas.top).clamp(first as isize, canvas.rows as isize) as usize;
    let start = (canvas.top + first as isize) as usize * width;
    for block in 0..canvas.blocks() {
        let channels = canvas.lanes.min(canvas.channels - block * canvas.lanes);
        for image in 0..canvas.images {
            // SAFETY: the caller's promise; all places are inside the canvas by the definition of its distances.
            unsafe {
                let to = to.add(block * canvas.plane() + image * canvas.image());
                to.write_bytes(0, first * row);
                to.add(last * row).write_bytes(0, (canvas.rows - last) * row);
                if first < last {
                    let plane = height * width;
                    let from = from.add(image * step + block * canvas.lanes * plane + start);
                    if canvas.columns > width {
                        for y in first..last {
                            let to = to.add(y * row);
                            to.write_bytes(0, canvas.left * S::LANES);
                            let right = canvas.left + width;
                            to.add(right * S::LANES).write_bytes(0, (canvas.columns - right) * S::LANES);
                        }
                    }
                    let to = to.add(first * row + canvas.left * S::LANES);
                    interleave(s, from, plane, (last - first) * width, channels, width, to, row);
                }
            }
        }
    }
}

/// Writes `count` positions of `channels` planes, `plane` values apart, as blocks into rows of `width` positions.
///
/// # Safety
/// As for [`pack`].
#[inline(always)]
unsafe fn interleave<S: Simd>(
    s: S,
    from: *const f32,
    plane: usize,
    count: usize,
    channels: usize,
    width: usize,
    to: *mut f32,
    row: usize,
) {
    let lanes = S::LANES;
    let mut position = 0;
    // SAFETY: the caller's promise; squares are transposed only where all their rows and columns exist.
    unsafe {
        if channels == lanes {
            let (mut y, mut x) = (0, 0);
            let mut square = [0.0f32; 256];
            while position + lanes <= count {
                if x + lanes <= width {
                    s.transpose(from.add(position), plane, to.add(y * row + x * lanes), lanes);
                    x += lanes;
                    if x == width {
                        (y, x) = (y + 1, 0);
                    }
                } else {
                    s.transpose(from.add(position), plane, square.as_mut_ptr(), lanes);
                    for j in 0..lanes {
                        s.store(to.add(y * row + x * lanes), s.load(square.as_ptr().add(j * lanes)));
                        x += 1;
                        if x == width {
                            (y, x) = (y + 1, 0);
                        }
                    }
                }
                position += lanes;
            }
        }
        for position in position..count {
            let to = to.add(position / width * row + position % width * lanes);
            for lane in 0..channels {
                to.add(lane).write(from.add(lane * plane + position).read());
            }
        }
    }
}

/// Writes `count` positions of one block to `channels` planes, `plane` values apart.
///
/// # Safety
/// `count` blocks at `from` must be valid for reading, `count` values of each plane for writing.
#[inline(always)]
pub(super) unsafe fn unpack<S: Simd>(
    s: S,
    from: *const f32,
    count: usize,
    channels: usize,
    to: *mut f32,
    plane: usize,
) {
    let lanes = S::LANES;
    let mut position = 0;
    // SAFETY: the caller's promise; squares are transposed only where all their rows and columns exist.
    unsafe {
        if channels == lanes {
            while position + lanes <= count {
                s.transpose(from.add(position * lanes), lanes, to.add(position), plane);
                position += lanes;
            }
        }
        for lane in 0..channels {
            for position in position..count {
                to.add(lane * plane + position).write(from.add(position * lanes + lane).read());
            }
        }
    }
}
