//! Conversion into and out of the blocked layout.

use crate::blocked::{Arena, Region, View};
use crate::geometry::OutputLayout;
use crate::pool::MeanKernel;
use crate::simd::Token;
use crate::team::Team;

/// Copies images `[N, C, H, W]` into `dst`, blocked or planar.
///
/// # Safety
/// The arena must hold `dst` for `images` images, and nobody else may use it meanwhile.
pub(crate) unsafe fn load(arena: Arena, images: usize, team: &Team, input: &[f32], dst: &View) {
    let plane = dst.height * dst.width;
    team.for_each_region(dst, images, 1, |region| {
        let Region { image, block, y0, y1 } = region;
        let lanes = dst.pixel;
        let channels = lanes.min(dst.channels - block * lanes);
        // SAFETY: the caller's promise; regions do not overlap, and rows and lanes lie inside the block.
        unsafe {
            let to = arena.block(dst, image, block);
            for y in y0..y1 {
                let row = to.add(dst.at(y, 0));
                for lane in 0..lanes {
                    if lane < channels {
                        let start = (image * dst.channels + block * lanes + lane) * plane + y * dst.width;
                        let from = &input[start..start + dst.width];
                        if lanes == 1 {
                            row.copy_from_nonoverlapping(from.as_ptr(), from.len());
                        } else {
                            for (x, value) in from.iter().enumerate() {
                                row.add(x * lanes + lane).write(*value);
                            }
                        }
                    } else {
                        for x in 0..dst.width {
                            row.add(x * lanes + lane).write(0.0);
                        }
                    }
                }
            }
            arena.clear_halo(dst, region);
        }
    });
}

/// The address of an output vector; each of several threads fills its own part.
#[derive(Clone, Copy)]
struct Target(*mut f32);

// SAFETY: a `Target` is only an address; whoever writes through it guarantees that no other thread writes the same
// place.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    fn at(self, index: usize) -> *mut f32 {
        self.0.wrapping_add(index)
    }
}

/// Writes `src` in `layout` to `output`, image after image.
///
/// # Safety
/// The arena must hold `src` for `images` images, and nobody may write it meanwhile. `output` must have room for all
/// images.
pub(crate) unsafe fn emit(
    token: Token,
    arena: Arena,
    images: usize,
    team: &Team,
    src: &View,
    layout: OutputLayout,
    output: &mut [f32],
) {
    let plane = src.height * src.width;
    let per_image = if layout == OutputLayout::Mean { src.channels } else { src.channels * plane };
    assert!(output.len() >= images * per_image, "an output vector is too short");
    let output = Target(output.as_mut_ptr());
    // The mean of a block is one unit of work: a sum is never split.
    let view = if layout == OutputLayout::Mean { View { height: 1, width: 1, ..*src } } else { *src };
    let cost = if layout == OutputLayout::Mean { plane } else { 1 };
    team.for_each_region(&view, images, cost, |region| {
        let Region { image, block, y0, y1 } = region;
        let lanes = src.pixel;
        let first = block * lanes;
        let channels = lanes.min(src.channels - first);
        // SAFETY: the caller's promise and the assertion above; each region writes positions and channels of its own.
        unsafe {
            let from = arena.block(src, image, block).cast_const();
            match layout {
                OutputLayout::Nchw => {
                    for lane in 0..channels {
                        for y in y0..y1 {
                            let row = from.add(src.at(y, 0) + lane);
                            let to = output.at(image * per_image + (first + lane) * plane + y * src.width);
                            for x in 0..src.width {
                                to.add(x).write(*row.add(x * lanes));
                            }
                        }
                    }
                }
                OutputLayout::Rows => {
                    for y in y0..y1 {
                        for x in 0..src.width {
                            let to = output.at(image * per_image + (y * src.width + x) * src.channels + first);
                            to.copy_from_nonoverlapping(from.add(src.at(y, x)), channels);
                        }
                    }
                }
                OutputLayout::Mean => {
                    let mut vector = [0.0f32; 16];
                    token.dispatch(MeanKernel { from, src, to: vector.as_mut_ptr() });
                    output.at(image * per_image + first).copy_from_nonoverlapping(vector.as_ptr(), channels);
                }
            }
        }
    });
}
