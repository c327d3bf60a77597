//! The gradient of a convolution's weights.
//!
//! **The problem.** Each weight's gradient is a sum over all positions of all images. If threads split the images, they
//! add into the same gradient, in random order; if they split the weights, each needs all images.
//!
//! **The design.** The register tile has some input channels × two vectors of output channels as accumulators, and
//! runs over positions: a step loads two vectors of the output's gradient and broadcasts the inputs. A unit of work is
//! a fixed part of the positions (a *chunk*) with a group of output channels whose sums fit the second-level cache; it
//! packs both tensors into its cache, piece by piece, and keeps its own sums. Wide layers have enough groups and one
//! chunk; narrow ones have several chunks, whose sums are added in the order of the chunks. Packing an input once for
//! each group costs little, since a group multiplies it with thousands of weights. The chunks depend on the shapes
//! alone, so the result is the same for any number of threads.

use std::ops::Range;

use rayon::prelude::*;

use crate::geometry::Padding;
use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token};

use super::correlation::part;
use super::layout::{Canvas, pack};
use super::memory::{Shared, threads_for, with_scratch};

/// Bytes of sums that a unit of work keeps.
const SUMS: usize = 320 << 10;

/// Bytes of packed tensors that a unit of work keeps.
const PIECE: usize = 384 << 10;

/// Bytes of packed tensors that one input block and one pair of output blocks use at a time.
const NEAR: usize = 24 << 10;

/// Units of work that even the narrowest layer is split into.
const UNITS: usize = 16;

/// A planned weight gradient.
#[derive(Debug)]
pub(super) struct WeightGradient {
    token: Token,
    lanes: usize,
    groups: usize,
    /// The shapes of one group.
    input: [usize; 3],
    output: [usize; 3],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: Padding,
    /// Columns of the packed input.
    columns: usize,
    /// Pairs of output blocks in a group.
    group: usize,
    /// Images, or bands of rows of an image, in a piece.
    images: usize,
    bands: usize,
}

impl WeightGradient {
    /// Plans for one geometry, whose sizes have been checked.
    pub(super) fn new(
        token: Token,
        lanes: usize,
        groups: usize,
        [input, output]: [[usize; 3]; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: Padding,
    ) -> Self {
        let reached = (output[2] - 1) * stride[1] + kernel[1];
        let columns = reached.max(padding.left + input[2]);
        let sums = input[0].next_multiple_of(lanes) * kernel[0] * kernel[1] * 2 * lanes * size_of::<f32>();
        let group = (SUMS / sums).clamp(1, output[0].div_ceil(2 * lanes));
        let mut plan =
            Self { token, lanes, groups, input, output, kernel, stride, padding, columns, group, images: 1, bands: 1 };
        let rows = 0..output[1];
        let image = (plan.canvas_in(1, &rows).len() + plan.canvas_out(1, &rows, group).len()) * size_of::<f32>();
        plan.images = (PIECE / image).max(1);
        plan.bands = image.div_ceil(PIECE).min(output[1]);
        plan
    }

    fn canvas_in(&self, images: usize, rows: &Range<usize>) -> Canvas {
        let [channels, height, width] = self.input;
        Canvas {
            channels,
            size: [height, width],
            images,
            rows: (rows.len() - 1) * self.stride[0] + self.kernel[0],
            columns: self.columns,
            top: (rows.start * self.stride[0]) as isize - self.padding.top as isize,
            left: self.padding.left,
            lanes: self.lanes,
        }
    }

    fn canvas_out(&self, images: usize, rows: &Range<usize>, pairs: usize) -> Canvas {
        let [channels, height, width] = self.output;
        Canvas {
            channels: channels.min(pairs * 2 * self.lanes),
            size: [height, width],
            images,
            rows: rows.len(),
            columns: width,
            top: rows.start as isize,
            left: 0,
            lanes: self.lanes,
        }
    }

    /// Sums of one pair of output blocks: `[I / b][kh][kw][b][2b]`.
    fn pair_len(&self) -> usize {
        self.input[0].next_multiple_of(self.lanes) * self.kernel[0] * self.kernel[1] * 2 * self.lanes
    }

    /// Computes `gradient` `[G · O, I, kh, kw]` from the input and the gradient of the output, whose lengths have been
    /// checked.
    pub(super) fn run(&self, images: usize, input: &[f32], output_gradient: &[f32], gradient: &mut [f32]) {
        if images == 0 {
            gradient.fill(0.0);
            return;
        }
        let [image_in, image_out] = [self.input, self.output].map(|shape| shape.iter().product::<usize>());
        let per_group = gradient.len() / self.groups;
        for (group, gradient) in gradient.chunks_exact_mut(per_group).enumerate() {
            let (input, output_gradient) = (&input[group * image_in..], &output_gradient[group * image_out..]);
            self.run_group(images, input, output_gradient, gradient);
        }
    }

    /// Computes the gradient of one group, with which both tensors begin.
    fn run_group(&self, images: usize, input: &[f32], output_gradient: &[f32], gradient: &mut [f32]) {
        let pairs = self.output[0].div_ceil(2 * self.lanes);
        let (groups, pieces) = (pairs.div_ceil(self.group), images.div_ceil(self.images) * self.bands);
        let chunks = UNITS.div_ceil(groups).min(pieces);
        let per_chunk = pairs * self.pair_len();
        let taps = self.kernel[0] * self.kernel[1];
        let flops = 2 * images * self.output.iter().product::<usize>() * self.input[0] * taps;
        let threads = threads_for(flops);
        with_scratch(chunks * per_chunk, |sums| {
            let shared = Shared::new(sums);
            for_each(chunks * groups, threads, |unit| {
                let (chunk, group) = (unit / groups, unit % groups);
                let pairs = group * self.group..((group + 1) * self.group).min(pairs);
                let start = chunk * per_chunk + pairs.start * self.pair_len();
                let len = pairs.len() * self.pair_len();
                // SAFETY: each unit has sums of its own, and the scratch outlives the units.
                let sums = unsafe { std::slice::from_raw_parts_mut(shared.at(start, len), len) };
                sums.fill(0.0);
                for piece in part(pieces, chunks, chunk) {
                    let first = piece / self.bands * self.images;
                    let images = first..(first + self.images).min(images);
                    let rows = part(self.output[1], self.bands, piece % self.bands);
                    self.piece(input, output_gradient, images, rows, pairs.clone(), sums);
                }
            });
            self.combine(sums, chunks, per_chunk, gradient, threads);
        });
    }

    /// Adds one piece to the sums of some pairs.
    fn piece(
        &self,
        input: &[f32],
        output_gradient: &[f32],
        images: Range<usize>,
        rows: Range<usize>,
        pairs: Range<usize>,
        sums: &mut [f32],
    ) {
        let canvas_in = self.canvas_in(images.len(), &rows);
        let mut canvas_out = self.canvas_out(images.len(), &rows, pairs.len());
        let first = pairs.start * 2 * self.lanes;
        canvas_out.channels = canvas_out.channels.min(self.output[0] - first);
        with_scratch(canvas_in.len() + canvas_out.len(), |scratch| {
            let (packed_in, packed_out) = scratch.split_at_mut(canvas_in.len());
            self.token.dispatch(PieceKernel {
                plan: self,
                canvases: [canvas_in, canvas_out],
                input: &input[images.start * self.groups * self.input.iter().product::<usize>()..],
                output_gradient: &output_gradient[images.start * self.groups * self.output.iter().product::<usize>()..],
                first,
                packed_in,
                packed_out,
                sums,
            });
        });
    }

    /// Adds the chunks in order and rearranges the sums into the order of the weights.
    fn combine(&self, sums: &mut [f32], chunks: usize, per_chunk: usize, gradient: &mut [f32], threads: usize) {
        let (lanes, inputs) = (self.lanes, self.input[0]);
        let taps = self.kernel[0] * self.kernel[1];
        let region = taps * lanes * 2 * lanes;
        let (total, others) = sums.split_at_mut(per_chunk);
        let outputs = gradient.len() / (inputs * taps);
        let gradient = Shared::new(gradient);
        // A region holds the sums of one input block and one pair of output blocks.
        let combine = |index: usize, total: &mut [f32]| {
            for chunk in 0..chunks - 1 {
                let other = &others[chunk * per_chunk + index * region..][..region];
                total.iter_mut().zip(other).for_each(|(total, other)| *total += other);
            }
            let (pair, block) = (index / inputs.div_ceil(lanes), index % inputs.div_ceil(lanes));
            let inner = lanes.min(inputs - block * lanes);
            for o in 0..(2 * lanes).min(outputs - pair * 2 * lanes) {
                let start = ((pair * 2 * lanes + o) * inputs + block * lanes) * taps;
                // SAFETY: these weights belong to this region alone.
                let to = unsafe { std::slice::from_raw_parts_mut(gradient.at(start, inner * taps), inner * taps) };
                for (i, to) in to.chunks_exact_mut(taps).enumerate() {
                    for (tap, to) in to.iter_mut().enumerate() {
                        *to = total[(tap * lanes + i) * 2 * lanes + o];
                    }
                }
            }
        };
        if threads > 1 {
            total.par_chunks_mut(region).enumerate().for_each(|(index, total)| combine(index, total));
        } else {
            total.chunks_mut(region).enumerate().for_each(|(index, total)| combine(index, total));
        }
    }
}

struct PieceKernel<'a> {
    plan: &'a WeightGradient,
    canvases: [Canvas; 2],
    /// The tensors from the group of the first image of the piece on.
    input: &'a [f32],
    output_gradient: &'a [f32],
    /// The first output channel.
    first: usize,
    packed_in: &'a mut [f32],
    packed_out: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Kernel for PieceKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (plan, [canvas_in, canvas_out]) = (self.plan, self.canvases);
        let [image_in, image_out] = [plan.input, plan.output].map(|shape| shape.iter().product::<usize>());
        let images = canvas_in.images;
        let [step_in, step_out] = [image_in, image_out].map(|image| plan.groups * image);
        let input = &self.input[..(images - 1) * step_in + image_in];
        let gradient = &self.output_gradient[..(images - 1) * step_out + image_out];
        // SAFETY: both tensors hold this group of these images, and the scratch is as long as the canvases.
        unsafe {
            pack(s, &canvas_in, input.as_ptr(), step_in, self.packed_in.as_mut_ptr());
            let channel = self.first * plan.output[1] * plan.output[2];
            let from = gradient[channel..].as_ptr();
            pack(s, &canvas_out, from, step_out, self.packed_out.as_mut_ptr());
        }

        let [sy, sx] = plan.stride;
        let [kh, kw] = plan.kernel;
        let height = match S::LANES {
            16 => 8,
            _ if S::COLUMNS < 4 => 2,
            _ => 4,
        };
        // Without zeros in between and without a step, all positions follow each other: one long row.
        let flat = plan.kernel == [1, 1] && plan.stride == [1, 1] && canvas_in.columns == canvas_out.columns;
        let (groups, rows, columns) = if flat {
            (1, 1, images * canvas_out.rows * canvas_out.columns)
        } else {
            (images, canvas_out.rows, canvas_out.columns)
        };
        let position = (2 + sx * sy) * S::LANES * size_of::<f32>();
        let near_columns = if flat { (NEAR / position).min(columns) } else { columns };
        let near_rows = if flat { 1 } else { (NEAR / (position * columns)).clamp(1, rows) };
        let blocks_out = canvas_out.blocks();
        for (pair, sums) in self.sums.chunks_exact_mut(plan.pair_len()).enumerate() {
            let blocks = (blocks_out - 2 * pair).min(2);
            for (block, sums) in sums.chunks_exact_mut(kh * kw * S::LANES * 2 * S::LANES).enumerate() {
                let channels = S::LANES.min(canvas_in.channels - block * S::LANES);
                for group in 0..groups {
                    for row in (0..rows).step_by(near_rows) {
                        for column in (0..columns).step_by(near_columns) {
                            let count = [near_rows.min(rows - row), near_columns.min(columns - column)];
                            let at_in = block * canvas_in.plane()
                                + group * canvas_in.image()
                                + row * sy * canvas_in.row()
                                + column * sx * S::LANES;
                            let at_out = 2 * pair * canvas_out.plane()
                                + group * canvas_out.image()
                                + row * canvas_out.row()
                                + column * S::LANES;
                            for tap in 0..kh * kw {
                                let at_in = at_in + tap / kw * canvas_in.row() + tap % kw * S::LANES;
                                for lane in (0..channels).step_by(height) {
                                    let tile = SumTile {
                                        input: self.packed_in[at_in + lane..].as_ptr(),
                                        input_row: sy * canvas_in.row(),
                                        input_step: sx * S::LANES,
                                        gradient: self.packed_out[at_out..].as_ptr(),
                                        gradient_row: canvas_out.row(),
                                        gradient_plane: canvas_out.plane(),
                                        count,
                                        sums: sums[(tap * S::LANES + lane) * 2 * S::LANES..].as_mut_ptr(),
                                    };
                                    tile.run(s, height, blocks);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The accumulators of some input channels × one or two vectors of output channels, summed over positions.
struct SumTile {
    input: *const f32,
    input_row: usize,
    input_step: usize,
    gradient: *const f32,
    gradient_row: usize,
    gradient_plane: usize,
    /// Rows and columns.
    count: [usize; 2],
    /// `[channels][2b]`.
    sums: *mut f32,
}

impl SumTile {
    #[inline(always)]
    fn run<S: Simd>(&self, s: S, height: usize, blocks: usize) {
        match (height, blocks) {
            (8, 1) => s.vectorize(SumKernel::<8, 1>(self)),
            (8, _) => s.vectorize(SumKernel::<8, 2>(self)),
            (4, 1) => s.vectorize(SumKernel::<4, 1>(self)),
            (4, _) => s.vectorize(SumKernel::<4, 2>(self)),
            (_, 1) => s.vectorize(SumKernel::<2, 1>(self)),
            _ => s.vectorize(SumKernel::<2, 2>(self)),
        }
    }
}

struct SumKernel<'a, const N: usize, const B: usize>(&'a SumTile);

impl<const N: usize, const B: usize> Kernel for SumKernel<'_, N, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = self.0;
        let step = t.input_step;
        // SAFETY: tiles are made by `PieceKernel` alone, for positions that lie on both canvases; a block of the sums
        // has room for all lanes, a multiple of `N`.
        unsafe {
            let mut sums = [[s.splat(0.0); B]; N];
            for i in 0..N {
                for b in 0..B {
                    sums[i][b] = s.load(t.sums.add((2 * i + b) * S::LANES));
                }
            }
            for row in 0..t.count[0] {
                let mut input = t.input.add(row * t.input_row);
                let mut gradient = t.gradient.add(row * t.gradient_row);
                for _ in 0..t.count[1] {
                    let mut g = [s.splat(0.0); B];
                    for b in 0..B {
                        g[b] = s.load(gradient.add(b * t.gradient_plane));
                    }
                    for i in 0..N {
                        let x = s.splat(*input.add(i));
                        for b in 0..B {
                            sums[i][b] = s.fma(x, g[b], sums[i][b]);
                        }
                    }
                    input = input.wrapping_add(step);
                    gradient = gradient.wrapping_add(S::LANES);
                }
            }
            for i in 0..N {
                for b in 0..B {
                    s.store(t.sums.add((2 * i + b) * S::LANES), sums[i][b]);
                }
            }
        }
    }
}
