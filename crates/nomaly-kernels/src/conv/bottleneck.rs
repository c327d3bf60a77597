//! A pointwise convolution and the depthwise one behind it, in one step.
//!
//! **The problem.** Inverted bottlenecks (Sandler et al. 2018, MobileNetV2; all EfficientNets) expand the channels six times
//! between two thin tensors. The expanded tensor is by far the largest of a block, 20 MB at 190 x 190, and is written only to
//! be read once: with more than one core, its way to memory and back takes longer than the arithmetic.
//!
//! **The design.** Depthwise channels do not mix, so a pair of blocks of expanded channels can go through both layers
//! alone. A unit of work expands the rows that a band of output rows needs for one pair into scratch memory that fits the
//! cache, zero border included, and convolves it from there. Neighbouring bands compute the `kernel - stride` rows that they
//! share twice.
//!
//! **Eligible** is a 1x1 convolution of stride 1 without padding or residual whose result only a depthwise convolution
//! without residual reads. **Fallback**: the two steps one after the other, which give the same bits.

use super::depthwise::{Row, Sums};
use super::tile::{self, CurveKernel, Pitch, Reduction, Tile};
use super::{DenseWeights, DepthwiseWeights};
use crate::blocked::{Arena, Region, Scratch, View};
use crate::epilogue::Epilogue;
use crate::simd::{Kernel, Simd, Token};
use crate::team::Team;
use crate::window::Window;

/// Bytes of expanded channels of a unit of work.
const UNIT_SCRATCH: usize = 384 << 10;

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
    /// One band of a pair of blocks of expanded channels.
    hidden: View,
    /// Distances of the columns of a tile within a row.
    one_row: Vec<u32>,
    /// Distances of the columns of a tile of two whole rows.
    two_rows: Vec<u32>,
}

impl Bottleneck {
    /// Plans for an expansion with `expand` from `src` and a depthwise convolution with `weights` into `dst`, which also
    /// leaves the sums of its rows in `sums`.
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
            // The halo above and below is part of the band: which of its rows lie outside depends on the band.
            let halo = crate::network::Padding { top: 0, bottom: 0, ..window.padding };
            View::new([2 * lanes, needed(rows), width], halo, lanes)
        };
        let fits = |rows: &usize| hidden(*rows).len * size_of::<f32>() <= UNIT_SCRATCH;
        let most = (1..=dst.height).take_while(fits).last().unwrap_or(1);
        let rows = dst.height.div_ceil(dst.height.div_ceil(most));
        let hidden = hidden(rows);
        let table = |from: usize, count: usize| (0..count).map(move |x| (from + x * lanes) as u32);
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
            hidden,
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
    /// in each slot, and nobody else may use them meanwhile.
    pub(crate) unsafe fn run(&self, token: Token, arena: Arena, scratch: Scratch, images: usize, team: &Team) {
        let bands = self.dst.height.div_ceil(self.rows);
        let pairs = self.dst.blocks.div_ceil(2);
        team.for_each(images * bands * pairs, |unit| {
            let (image, rest) = (unit / (bands * pairs), unit % (bands * pairs));
            let (band, pair) = (rest / pairs, rest % pairs);
            let y0 = band * self.rows;
            let y1 = (y0 + self.rows).min(self.dst.height);
            token.dispatch(UnitKernel { plan: self, arena, hidden: scratch.slot(), image, pair, y0, y1 });
        });
    }
}

/// One band of one pair of blocks.
struct UnitKernel<'a> {
    plan: &'a Bottleneck,
    arena: Arena,
    hidden: *mut f32,
    image: usize,
    pair: usize,
    y0: usize,
    y1: usize,
}

impl Kernel for UnitKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Bottleneck { window, src, dst, hidden, .. } = self.plan;
        let blocks = (dst.blocks - 2 * self.pair).min(2);
        // Rows of the expanded tensor that the band reads, counted from the first; the first `top` rows lie outside.
        let first = self.y0 * window.stride[0];
        let count = (self.y1 - self.y0 - 1) * window.stride[0] + window.kernel[0];
        let top = window.padding.top.saturating_sub(first).min(count);
        let end = (src.height + window.padding.top).saturating_sub(first).min(count).max(top);
        // SAFETY: the caller of `Bottleneck::run` promises arena and scratch; `count` rows of two blocks fit into the
        // scratch memory, because a band has at most `rows` rows.
        unsafe {
            for block in 0..blocks {
                let plane = self.hidden.add(block * hidden.plane);
                plane.write_bytes(0, top * hidden.row);
                plane.add(end * hidden.row).write_bytes(0, (count - end) * hidden.row);
                for row in top..end {
                    let row = plane.add(row * hidden.row);
                    row.write_bytes(0, hidden.origin);
                    let right = hidden.origin + src.width * S::LANES;
                    row.add(right).write_bytes(0, hidden.row - right);
                }
            }
            let paired = 2 * src.width <= self.plan.columns;
            let mut row = top;
            while row < end {
                let y = first + row - window.padding.top;
                let rows = if paired && row + 1 < end { 2 } else { 1 };
                self.expand(s, y, row, rows, blocks);
                row += rows;
            }
            for block in 0..blocks {
                self.convolve(s, block);
            }
        }
    }
}

impl UnitKernel<'_> {
    /// Expands one row `y`, or two that share a tile, into row `to` of the scratch memory.
    ///
    /// # Safety
    /// As for [`Bottleneck::run`], with rows inside the source and the scratch memory.
    #[inline(always)]
    unsafe fn expand<S: Simd>(&self, s: S, y: usize, to: usize, rows: usize, blocks: usize) {
        let plan = self.plan;
        let Bottleneck { expand, expand_epilogue, src, hidden, .. } = plan;
        let (weights, bias) = expand.pair(self.pair);
        let reduction = Reduction {
            counts: [src.blocks, 1, 1],
            strides: [src.plane, 0, 0],
            inner: S::LANES,
            inner_last: src.channels - (src.blocks - 1) * S::LANES,
        };
        let (low, high) = tile::bounds(expand_epilogue, true);
        let tiles = if rows == 2 { 1 } else { src.width.div_ceil(plan.columns) };
        // SAFETY: the caller's promise; a tile's columns lie inside its row, or are two whole rows.
        unsafe {
            let input = self.arena.block(src, self.image, 0).add(src.at(y, 0));
            let output = self.hidden.add(hidden.origin + to * hidden.row);
            for index in 0..tiles {
                let range = super::part(src.width, tiles, index);
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
    }

    /// The depthwise convolution of one block of the scratch memory.
    ///
    /// # Safety
    /// As for [`Bottleneck::run`].
    #[inline(always)]
    unsafe fn convolve<S: Simd>(&self, s: S, block: usize) {
        let Bottleneck { weights, window, epilogue, dst, sums, hidden, .. } = self.plan;
        let channel_block = 2 * self.pair + block;
        // SAFETY: the caller's promise; the scratch memory holds every row and column of the windows of this band.
        unsafe {
            let (taps, bias) = weights.block::<S>(channel_block);
            let input = self.hidden.add(block * hidden.plane);
            let output = self.arena.block(dst, self.image, channel_block);
            for y in self.y0..self.y1 {
                let row = Row {
                    input: input.add((y - self.y0) * window.stride[0] * hidden.row),
                    input_row: hidden.row,
                    taps,
                    bias,
                    kernel: window.kernel,
                    stride: window.stride[1],
                    epilogue,
                    residual: std::ptr::null(),
                    output: output.add(dst.at(y, 0)),
                    width: dst.width,
                };
                let sum = row.run(s, Sums(sums.is_some()));
                if let Some(view) = sums {
                    s.store(self.arena.block(view, self.image, channel_block).add(view.at(y, 0)), sum);
                }
            }
            let region = Region { image: self.image, block: channel_block, y0: self.y0, y1: self.y1 };
            self.arena.clear_halo(dst, region);
        }
    }
}
