//! Pooling: maximum and average over windows, and the mean over all positions.

use crate::blocked::{Arena, Region, View};
use crate::simd::{Kernel, Simd, Token};
use crate::team::Team;
use crate::window::Window;

/// How a window becomes one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// The largest value inside the image.
    Max,
    /// The sum divided by the number of positions inside the image.
    MeanInside,
    /// The sum divided by the size of the window.
    MeanWindow,
}

/// Pools `src` into `dst`.
///
/// # Safety
/// The arena must hold the tensors for `images` images, and nobody else may use them during the run. `dst` must have
/// the shape that `window` gives for `src`, and every window must have a position inside the image.
pub(crate) unsafe fn run(
    token: Token,
    arena: Arena,
    images: usize,
    team: &Team,
    [src, dst]: [&View; 2],
    window: &Window,
    pooling: Pooling,
) {
    let cost = window.kernel[0] * window.kernel[1];
    team.for_each_region(dst, images, cost, |region| {
        token.dispatch(PoolKernel { arena, region, src, dst, window, pooling });
        // SAFETY: the caller's promise, and regions do not overlap.
        unsafe { arena.clear_halo(dst, region) };
    });
}

/// Writes the mean over all positions of `src` to `dst`, `[C, 1, 1]`.
///
/// # Safety
/// As for [`run`], with the shape `[C, 1, 1]`.
pub(crate) unsafe fn mean(token: Token, arena: Arena, images: usize, team: &Team, [src, dst]: [&View; 2]) {
    team.for_each_region(dst, images, src.height * src.width, |region| {
        let Region { image, block, .. } = region;
        // SAFETY: the caller's promise; the destination of this region is one vector.
        unsafe {
            let to = arena.block(dst, image, block).add(dst.origin);
            token.dispatch(MeanKernel { from: arena.block(src, image, block), src, to });
            arena.clear_halo(dst, region);
        }
    });
}

/// Writes the mean over all positions to `dst`, `[C, 1, 1]`, from the sums of rows `[C, H, 1]` that a convolution
/// wrote.
///
/// # Safety
/// As for [`run`].
pub(crate) unsafe fn mean_of_sums(
    token: Token,
    arena: Arena,
    images: usize,
    team: &Team,
    [sums, dst]: [&View; 2],
    width: usize,
) {
    team.for_each_region(dst, images, sums.height, |region| {
        let Region { image, block, .. } = region;
        // SAFETY: the caller's promise; the destination of this region is one vector.
        unsafe {
            let to = arena.block(dst, image, block).add(dst.origin);
            token.dispatch(SumsKernel { from: arena.block(sums, image, block), sums, width, to });
            arena.clear_halo(dst, region);
        }
    });
}

/// The mean of one block from the sums of its rows, in the same order as [`MeanKernel`].
struct SumsKernel<'a> {
    from: *const f32,
    sums: &'a View,
    width: usize,
    to: *mut f32,
}

impl Kernel for SumsKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut total = s.splat(0.0);
        // SAFETY: `mean_of_sums` gives a whole block and room for a vector.
        unsafe {
            for y in 0..self.sums.height {
                total = s.add(total, s.load(self.from.add(self.sums.at(y, 0))));
            }
            s.store(self.to, s.div(total, s.splat((self.sums.height * self.width) as f32)));
        }
    }
}

struct PoolKernel<'a> {
    arena: Arena,
    region: Region,
    src: &'a View,
    dst: &'a View,
    window: &'a Window,
    pooling: Pooling,
}

/// The part of window number `index` that lies inside `0..size`.
#[inline(always)]
fn inside(index: usize, stride: usize, kernel: usize, padding: usize, size: usize) -> std::ops::Range<usize> {
    let start = index * stride;
    start.saturating_sub(padding)..(start + kernel - padding).min(size)
}

impl Kernel for PoolKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Region { image, block, y0, y1 } = self.region;
        let Window { kernel, stride, padding } = *self.window;
        // SAFETY: the caller of `run` promises that the arena holds the tensors; ranges are clipped to the image.
        unsafe {
            let from = self.arena.block(self.src, image, block);
            let to = self.arena.block(self.dst, image, block);
            for y in y0..y1 {
                let rows = inside(y, stride[0], kernel[0], padding.top, self.src.height);
                for x in 0..self.dst.width {
                    let columns = inside(x, stride[1], kernel[1], padding.left, self.src.width);
                    let first = s.load(from.add(self.src.at(rows.start, columns.start)));
                    let value = if self.pooling == Pooling::Max {
                        let mut largest = first;
                        for iy in rows.clone() {
                            for ix in columns.clone() {
                                largest = s.max(largest, s.load(from.add(self.src.at(iy, ix))));
                            }
                        }
                        largest
                    } else {
                        let mut sum = s.splat(0.0);
                        for iy in rows.clone() {
                            for ix in columns.clone() {
                                sum = s.add(sum, s.load(from.add(self.src.at(iy, ix))));
                            }
                        }
                        let count = match self.pooling {
                            Pooling::MeanWindow => kernel[0] * kernel[1],
                            _ => rows.len() * columns.len(),
                        };
                        s.div(sum, s.splat(count as f32))
                    };
                    s.store(to.add(self.dst.at(y, x)), value);
                }
            }
        }
    }
}

/// The mean over all positions of one block.
pub(crate) struct MeanKernel<'a> {
    /// The block in memory.
    pub(crate) from: *const f32,
    /// Its strides.
    pub(crate) src: &'a View,
    /// Where one vector is written.
    pub(crate) to: *mut f32,
}

impl Kernel for MeanKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut total = s.splat(0.0);
        // SAFETY: whoever makes this kernel gives a whole block and room for a vector.
        unsafe {
            for y in 0..self.src.height {
                // Row sums first: the rounding error then grows with height + width instead of their product.
                let row = self.from.add(self.src.at(y, 0));
                let mut sum = s.splat(0.0);
                for x in 0..self.src.width {
                    sum = s.add(sum, s.load(row.add(x * S::LANES)));
                }
                total = s.add(total, sum);
            }
            s.store(self.to, s.div(total, s.splat((self.src.height * self.src.width) as f32)));
        }
    }
}
