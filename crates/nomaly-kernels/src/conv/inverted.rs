//! A depthwise convolution and the pointwise one after it, optionally with the expansion before it, in one step.
//!
//! **The problem.** The projection of an inverted bottleneck reads what the depthwise convolution wrote a moment
//! before. Step by step, that tensor goes to the second- or third-level cache and back; and since one step is split by
//! channels and the next by positions, another core has written half of it or more, and a cache line from another core
//! takes longest of all.
//!
//! **The design.** A unit of work is a band of rows of an image through all layers. It goes pair by pair of blocks
//! through the expansion and the depthwise convolution into scratch memory, and multiplies that by the projection's
//! weights. Bands are numbered from the top of the first image to the bottom of the last in every step, so that a
//! thread reads what it has written itself, except for the rows at the borders.
//!
//! **The price** is that the rows that two neighbouring bands read are computed twice. [`cut`] chooses the number of
//! bands.
//!
//! **Eligible** is a 1x1 convolution of stride 1 without padding that is the only reader of a depthwise convolution
//! without residual. ****Fallback**, where there are too many threads for bands to pay off: the steps one after the
//! other, which give the same bits.

use super::bottleneck::{self, Bottleneck};
use super::dense::{Band, Dense};
use super::depthwise::{Depthwise, Target};
use crate::blocked::{Arena, Region, Scratch, View};
use crate::simd::{Kernel, Simd, Token};
use crate::team::Team;

/// Bytes of a band of the tensor that is projected.
const BAND_SCRATCH: usize = 640 << 10;

/// Units of work per thread from which it no longer matters that some threads have one more.
const EVEN: usize = 8;

/// The step that writes the tensor to be projected.
#[derive(Debug)]
pub(crate) enum WideLayer {
    /// A depthwise convolution of the expansion's result.
    Expand(Bottleneck),
    /// A depthwise convolution of the input.
    Plain(Depthwise),
}

/// Two or three layers with resolved addresses.
#[derive(Debug)]
pub(crate) struct Inverted {
    widen: WideLayer,
    project: Dense,
    wide: View,
    /// The most rows of a band.
    rows: usize,
    /// Rows of the input, and the number that neighbouring bands share.
    height: usize,
    shared: usize,
}

impl Inverted {
    /// Plans for `widen` into `wide`, the input of `project`, unless bands go through scratch memory.
    pub(crate) fn new(widen: WideLayer, project: Dense, wide: View) -> Self {
        let row = wide.blocks * wide.width * wide.pixel * size_of::<f32>();
        let (window, height, most) = match &widen {
            WideLayer::Expand(bottleneck) => (bottleneck.window(), bottleneck.height(), bottleneck.rows()),
            WideLayer::Plain(depthwise) => (&depthwise.window, depthwise.src.height, wide.height),
        };
        let rows = (BAND_SCRATCH / row).clamp(1, most);
        let shared = window.kernel[0].saturating_sub(window.stride[0]);
        Self { widen, project, wide, rows, height, shared }
    }

    /// All layers, for descriptions.
    pub(crate) fn describe(&self) -> String {
        let first = match &self.widen {
            WideLayer::Expand(bottleneck) => bottleneck.describe(),
            WideLayer::Plain(depthwise) => depthwise.describe(),
        };
        format!("{first} + {}", self.project.describe())
    }

    /// Values of scratch memory of a thread.
    pub(crate) fn scratch(&self) -> usize {
        self.widen.scratch() + self.wide.blocks * self.rows * self.wide.width * self.wide.pixel
    }

    /// Runs for `images` images, shared among the team.
    ///
    /// # Safety
    /// The arena must hold this plan's tensors for that many images, `scratch` what [`scratch`](Self::scratch) asks for
    /// in each slot, and nobody else may use them during the run.
    pub(crate) unsafe fn run(&self, token: Token, arena: Arena, scratch: Scratch, images: usize, team: &Team) {
        let height = self.wide.height;
        let rows = Rows { output: height, input: self.height, shared: self.shared, most: self.rows };
        match cut(rows, images, team.threads()) {
            Some(bands) => team.for_each(images * bands, |unit| {
                let (image, band) = (unit / bands, super::part(height, bands, unit % bands));
                let (y0, y1) = (band.start, band.end);
                token.dispatch(BandKernel { plan: self, arena, scratch: scratch.slot(), image, y0, y1 });
            }),
            // SAFETY: the caller's promise.
            None => unsafe {
                match &self.widen {
                    WideLayer::Expand(bottleneck) => bottleneck.run(token, arena, scratch, images, team),
                    WideLayer::Plain(depthwise) => depthwise.run(token, arena, images, team),
                }
                self.project.run(token, arena, scratch, images, team);
            },
        }
    }
}

impl WideLayer {
    fn scratch(&self) -> usize {
        match self {
            WideLayer::Expand(bottleneck) => bottleneck.scratch(),
            WideLayer::Plain(_) => 0,
        }
    }
}

/// The rows that are cut into bands.
#[derive(Clone, Copy, Debug)]
struct Rows {
    output: usize,
    input: usize,
    /// Rows of the input that two neighbouring bands read.
    shared: usize,
    /// The most output rows of a band.
    most: usize,
}

/// Bands of an image, or none if the layers are better computed one after the other.
fn cut(rows: Rows, images: usize, threads: usize) -> Option<usize> {
    let least = rows.output.div_ceil(rows.most);
    // Every thread gets the same number of bands, or so many that one more does not matter.
    let even = |bands: &usize| (images * bands).is_multiple_of(threads) || images * bands >= EVEN * threads;
    let cheap = |bands: &usize| 3 * (bands - 1) * rows.shared <= rows.input;
    let bands = (least..=rows.output).take_while(|bands| *bands == least || cheap(bands)).find(even);
    bands.or((images * least >= threads).then_some(least))
}

/// One band of one image.
struct BandKernel<'a> {
    plan: &'a Inverted,
    arena: Arena,
    /// The scratch memory of this thread.
    scratch: *mut f32,
    image: usize,
    y0: usize,
    y1: usize,
}

impl Kernel for BandKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { plan, arena, scratch, image, y0, y1 } = self;
        let wide = &plan.wide;
        let row = wide.width * S::LANES;
        let band = scratch.wrapping_add(plan.widen.scratch());
        let target = |block: usize| Target { first: band.wrapping_add(block * (y1 - y0) * row), row };
        match &plan.widen {
            WideLayer::Expand(bottleneck) => {
                for pair in 0..wide.blocks.div_ceil(2) {
                    let targets = [target(2 * pair), target(2 * pair + 1)];
                    bottleneck::UnitKernel { plan: bottleneck, arena, hidden: scratch, image, pair, y0, y1, targets }
                        .run(s);
                }
            }
            WideLayer::Plain(depthwise) => {
                for block in 0..wide.blocks {
                    // SAFETY: the caller of `Inverted::run` promises arena and scratch, which has room for the band.
                    unsafe { depthwise.rows(s, arena, Region { image, block, y0, y1 }, target(block)) };
                }
            }
        }
        // SAFETY: as above; every block of the band has been written.
        unsafe { plan.project.band(s, arena, Band { input: band, image, y0, y1 }) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_as_few_as_give_every_thread_the_same() {
        let rows = Rows { output: 56, input: 112, shared: 1, most: 24 };
        // As many as fit the scratch memory, rounded up to a number that the threads share evenly.
        assert_eq!(cut(rows, 1, 1), Some(3));
        assert_eq!(cut(rows, 1, 2), Some(4));
        assert_eq!(cut(rows, 4, 2), Some(3));
        assert_eq!(cut(rows, 3, 4), Some(4));
        // A 5x5 window of stride 1 costs four rows per border: two bands of 14 rows are worth it, three are not.
        let rows = Rows { output: 14, input: 14, shared: 4, most: 14 };
        assert_eq!(cut(rows, 1, 2), Some(2));
        assert_eq!(cut(rows, 1, 3), None);
        assert_eq!(cut(rows, 3, 3), Some(1));
        // Images that do not divide evenly are still better processed whole.
        assert_eq!(cut(Rows { output: 7, input: 7, ..rows }, 5, 3), Some(1));
        assert_eq!(cut(Rows { output: 7, input: 7, ..rows }, 1, 2), None);
    }
}
