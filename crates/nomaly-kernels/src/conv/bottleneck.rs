//! A pointwise convolution and the depthwise one after it, in one step.
//!
//! **The problem.** Inverted bottlenecks (Sandler et al. 2018, MobileNetV2; all EfficientNets) expand the channels six
//! times between two thin tensors. The expanded tensor is by far the largest of a block, 20 MB at 190 x 190, and is
//! written only to be read once: with more than one core, moving it to memory and back takes longer than the
//! arithmetic.
//!
//! **The design.** Depthwise channels do not mix, so a pair of blocks of expanded channels can go through both layers
//! alone. A unit of work takes one pair through a band of output rows, a few rows at a time: it expands the missing
//! input rows into a ring buffer that fits the first-level cache, zero border included, and convolves them from there.
//! The `kernel - stride` rows that neighbouring bands share are computed twice.
//!
//! **Eligible** is a 1x1 convolution of stride 1 without padding or residual whose result only a depthwise convolution
//! without residual reads. **Fallback**: the two steps one after the other, which give the same bits.

use super::depthwise::{Ring, Rows, Target};
use super::tile::{self, CurveKernel, Pitch, Reduction, Tile};
use super::{DenseWeights, DepthwiseWeights};
use crate::blocked::{Arena, Region, Scratch, View};
use crate::epilogue::Epilogue;
use crate::simd::{Kernel, Simd, Token};
use crate::team::Team;
use crate::window::Window;

/// Bytes of expanded channels of a unit of work.
const UNIT_BYTES: usize = 384 << 10;

/// Bytes of the ring of rows: most of a first-level cache.
const RING_BYTES: usize = 32 << 10;

/// A pointwise and a depthwise convolution with resolved addresses.
#[derive(Debug)]
pub(crate) struct Bottleneck {
    expand: DenseWeights,
    expand_epilogue: Epilogue,
    weights: DepthwiseWeights,
    window: Window,
    epilogue: Epilogue,
    src: View,
    dst: View,
    sums: Option<View>,
    /// The widest register tile.
    columns: usize,
    /// Output rows of a band.
    rows: usize,
    /// Output rows that are convolved at a time.
    step: usize,
    /// The ring of rows of a pair of blocks of expanded channels.
    hidden: View,
    /// Where the tiles of a row begin, and where the last one ends.
    cuts: Vec<u32>,
    /// Distances of the columns of a tile within a row.
    one_row: Vec<u32>,
    /// Distances of the columns of a tile of two whole rows.
    two_rows: Vec<u32>,
}

impl Bottleneck {
    /// Plans for an expansion with `expand` from `src` and a depthwise convolution with `weights` into `dst`, which
    /// also leaves the sums of its rows in `sums`.
    pub(crate) fn new(
        (expand, expand_epilogue): (DenseWeights, Epilogue),
        (weights, window, epilogue): (DepthwiseWeights, Window, Epilogue),
        src: View,
        dst: View,
        sums: Option<View>,
        columns: usize,
    ) -> Self {
        let lanes = src.pixel;
        let (height, width) = (src.height, src.width);
        let needed = |rows: usize| (rows - 1) * window.stride[0] + window.kernel[0];
        let hidden = |rows: usize| {
            // The halo above and below is part of the ring: which of its rows lie outside depends on the band.
            let halo = crate::geometry::Padding { top: 0, bottom: 0, ..window.padding };
            View::new([2 * lanes, needed(rows), width], halo, lanes)
        };
        let most = |bytes: usize| {
            let fits = |rows: &usize| hidden(*rows).len * size_of::<f32>() <= bytes;
            (1..=dst.height).take_while(fits).last().unwrap_or(1)
        };
        let rows = dst.height.div_ceil(dst.height.div_ceil(most(UNIT_BYTES)));
        let step = most(RING_BYTES).min(rows);
        let hidden = hidden(step);
        let table = |from: usize, count: usize| (0..count).map(move |x| (from + x * lanes) as u32);
        let tiles = width.div_ceil(columns);
        let cuts = (0..=tiles).map(|tile| (tile * width / tiles) as u32).collect();
        let one_row = table(0, columns).collect();
        let two_rows = table(0, width.min(columns)).chain(table(hidden.row, width.min(columns))).collect();
        let plan = Self {
            expand,
            expand_epilogue,
            weights,
            window,
            epilogue,
            src,
            dst,
            sums,
            columns,
            rows,
            step,
            hidden,
            cuts,
            one_row,
            two_rows,
        };
        assert!(plan.expand.is_pointwise(src.channels, dst.channels), "the layers do not fit together");
        assert_eq!(plan.window.output([height, width]), Ok([dst.height, dst.width]));
        plan
    }

    /// Multiplications and additions for one image.
    pub(crate) fn flops(&self) -> u64 {
        let hidden = 2 * (self.src.channels * self.dst.channels * self.src.height * self.src.width) as u64;
        let taps = self.window.kernel[0] * self.window.kernel[1];
        hidden + 2 * (taps * self.dst.channels * self.dst.height * self.dst.width) as u64
    }

    /// Both layers, for descriptions.
    pub(crate) fn describe(&self) -> String {
        let View { channels, height, width, .. } = self.dst;
        let [kh, kw] = self.window.kernel;
        format!("conv 1x1 {}->{channels} + depthwise {kh}x{kw} at {height}x{width}", self.src.channels)
    }

    /// Values of scratch memory of a thread.
    pub(crate) fn scratch(&self) -> usize {
        self.hidden.len
    }

    /// Runs for `images` images, shared among the team.
    ///
    /// # Safety
    /// The arena must hold this plan's tensors for that many images, `scratch` what [`scratch`](Self::scratch) asks for
    /// in each slot, and nobody else may use them during the run.
    pub(crate) unsafe fn run(&self, token: Token, arena: Arena, scratch: Scratch, images: usize, team: &Team) {
        let bands = self.dst.height.div_ceil(self.rows);
        let pairs = self.dst.blocks.div_ceil(2);
        team.for_each(images * bands * pairs, |unit| {
            let (image, rest) = (unit / (bands * pairs), unit % (bands * pairs));
            let (band, pair) = (rest / pairs, rest % pairs);
            let y0 = band * self.rows;
            let y1 = (y0 + self.rows).min(self.dst.height);
            // SAFETY: the caller's promise; the band lies inside the tensor.
            unsafe {
                let first = arena.block(&self.dst, image, 2 * pair).add(self.dst.at(y0, 0));
                let targets =
                    [0, 1].map(|block| Target { first: first.wrapping_add(block * self.dst.plane), row: self.dst.row });
                let hidden = scratch.slot();
                token.dispatch(UnitKernel { plan: self, arena, hidden, image, pair, y0, y1, targets });
                for block in 2 * pair..(2 * pair + 2).min(self.dst.blocks) {
                    arena.clear_halo(&self.dst, Region { image, block, y0, y1 });
                }
            }
        });
    }

    /// The window of the depthwise convolution.
    pub(super) fn window(&self) -> &Window {
        &self.window
    }

    /// Rows of the input.
    pub(super) fn height(&self) -> usize {
        self.src.height
    }

    /// The most output rows of a band.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }
}

/// One band of one pair of blocks.
pub(super) struct UnitKernel<'a> {
    pub(super) plan: &'a Bottleneck,
    pub(super) arena: Arena,
    /// The scratch memory of this thread.
    pub(super) hidden: *mut f32,
    pub(super) image: usize,
    pub(super) pair: usize,
    /// The output rows, at most as many as the plan says.
    pub(super) y0: usize,
    pub(super) y1: usize,
    /// Destination of the rows of each block.
    pub(super) targets: [Target; 2],
}

impl Kernel for UnitKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Bottleneck { window, src, dst, hidden, step, .. } = self.plan;
        let blocks = (dst.blocks - 2 * self.pair).min(2);
        let ring = hidden.height;
        // SAFETY: the creator of the unit guarantees arena, scratch and targets; the ring holds the rows that `step`
        // rows of output need.
        unsafe {
            for row in 0..blocks * ring {
                let row = self.hidden.add(row / ring * hidden.plane + row % ring * hidden.row);
                row.write_bytes(0, hidden.origin);
                let right = hidden.origin + src.width * S::LANES;
                row.add(right).write_bytes(0, hidden.row - right);
            }
            // Rows are counted from the first that the band reads.
            let mut there = 0;
            for y in (self.y0..self.y1).step_by(*step) {
                let end = (y + step).min(self.y1);
                let needed = (end - 1 - self.y0) * window.stride[0] + window.kernel[0];
                // A stride larger than the kernel skips rows.
                there = there.max((y - self.y0) * window.stride[0]);
                while there < needed {
                    there += self.expand(s, there, needed, blocks);
                }
                for block in 0..blocks {
                    self.convolve(s, block, y..end);
                }
            }
        }
    }
}

impl UnitKernel<'_> {
    /// Puts row `row` of the band, or two rows that share a tile, into the ring; returns how many.
    ///
    /// # Safety
    /// As for [`Bottleneck::run`]; the row must be one that the band reads.
    #[inline(always)]
    unsafe fn expand<S: Simd>(&self, s: S, row: usize, end: usize, blocks: usize) -> usize {
        let plan = self.plan;
        let Bottleneck { expand, expand_epilogue, src, hidden, window, .. } = plan;
        let (place, y) = (row % hidden.height, self.y0 * window.stride[0] + row);
        let inside = |y: usize| (window.padding.top..window.padding.top + src.height).contains(&y);
        if !inside(y) {
            for block in 0..blocks {
                // SAFETY: the row lies in the ring.
                unsafe {
                    self.hidden.add(block * hidden.plane + place * hidden.row).write_bytes(0, hidden.row);
                }
            }
            return 1;
        }
        let paired = 2 * src.width <= plan.columns && row + 1 < end && place + 1 < hidden.height && inside(y + 1);
        let rows = if paired { 2 } else { 1 };
        let y = y - window.padding.top;
        let (weights, bias) = expand.pair(self.pair);
        let reduction = Reduction {
            counts: [src.blocks, 1, 1],
            strides: [src.plane, 0, 0],
            inner: S::LANES,
            inner_last: src.channels - (src.blocks - 1) * S::LANES,
        };
        let (low, high) = tile::bounds(expand_epilogue, true);
        let row = [0, src.width as u32];
        let cuts = if rows == 2 { &row[..] } else { &plan.cuts };
        // SAFETY: the caller's promise; a tile's columns lie inside its row, or are two whole rows.
        unsafe {
            let input = self.arena.block(src, self.image, 0).add(src.at(y, 0));
            let output = self.hidden.add(hidden.origin + place * hidden.row);
            for cut in cuts.windows(2) {
                let range = cut[0] as usize..cut[1] as usize;
                let (columns, gap, table) = if rows == 2 {
                    (2 * src.width, src.row, &plan.two_rows)
                } else {
                    (range.len(), range.len() / 2 * S::LANES, &plan.one_row)
                };
                let work = Tile {
                    reduction,
                    input: input.add(range.start * S::LANES),
                    gap,
                    weights,
                    upcoming: weights,
                    bias,
                    output: output.add(range.start * S::LANES),
                    output_columns: table.as_ptr(),
                    output_plane: hidden.plane,
                    residual: std::ptr::null(),
                    residual_columns: table.as_ptr(),
                    residual_plane: 0,
                    pitch: S::LANES,
                    low,
                    high,
                };
                tile::run(s, Pitch::BLOCK, blocks, columns, &work);
                if let Some(curve) = expand_epilogue.curve {
                    s.vectorize(CurveKernel { tile: &work, columns, blocks, curve });
                }
            }
        }
        rows
    }

    /// Rows of the depthwise convolution of one block of the ring.
    ///
    /// # Safety
    /// As for [`Bottleneck::run`], and the ring must hold what the rows need.
    #[inline(always)]
    unsafe fn convolve<S: Simd>(&self, s: S, block: usize, rows: std::ops::Range<usize>) {
        let Bottleneck { weights, window, epilogue, dst, sums, hidden, .. } = self.plan;
        let channel_block = 2 * self.pair + block;
        let y = rows.start;
        // SAFETY: the caller's promise.
        unsafe {
            let (taps, bias) = weights.block::<S>(channel_block);
            let Target { first, row } = self.targets[block];
            let rows = Rows {
                count: rows.len(),
                input: self.hidden.add(block * hidden.plane),
                input_row: hidden.row,
                ring: Ring { height: hidden.height, place: (y - self.y0) * window.stride[0] % hidden.height },
                taps,
                bias,
                kernel: window.kernel,
                stride: window.stride,
                epilogue,
                residual: std::ptr::null(),
                residual_row: 0,
                target: Target { first: first.add((y - self.y0) * row), row },
                width: dst.width,
                sums: sums.map_or(std::ptr::null_mut(), |view| {
                    self.arena.block(&view, self.image, channel_block).add(view.at(y, 0))
                }),
                sums_row: sums.map_or(0, |view| view.row),
            };
            rows.run(s);
        }
    }
}
