//! Sums of products over windows: the forward pass of a convolution, and the gradient of its input.
//!
//! **The problem.** With planar tensors and weights that change in each step, a convolution must reorder both for the
//! register tile every time; and the gradient of a strided convolution's input is, taken literally, a convolution of an
//! image full of inserted zeros.
//!
//! **The design.** Both passes are one computation. Output positions are divided into *phases* by their remainder
//! modulo the output step: a forward pass has one phase, the input gradient of stride 2 has four, each an ordinary
//! convolution of stride 1 with its own subset of the (rotated) kernel, and no product involves an inserted zero. A
//! unit of work packs a band of rows of one image, or several small images, into a [`Canvas`] in its cache and runs all
//! pairs of output blocks over it with the register tile of the inference plans ([`tile`]); results are collected for
//! one pair and transposed out. Weights are packed once per call, in parallel. Reductions whose weights exceed
//! [`WEIGHT_CHUNK`] are cut into chunks of input blocks with partial sums kept in the cache.
//!
//! The split of the work never changes the order of a sum: results do not depend on threads or batch.

use std::ops::Range;

use rayon::prelude::*;

use crate::conv::tile::{self, DYNAMIC_COLUMNS, LINE, Pitch, Reduction, Tile};
use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token};

use super::layout::{Canvas, pack, unpack};
use super::memory::{Shared, threads_for, with_scratch};

/// Bytes of weights of one pair of blocks that are used at a time.
const WEIGHT_CHUNK: usize = 256 << 10;

/// Bytes of packed input of a unit of work: with weights and results it stays in a second-level cache.
const CANVAS: usize = 384 << 10;

/// The outputs with one remainder modulo the output step, and the part of the kernel that applies to them.
#[derive(Clone, Debug)]
pub(super) struct Phase {
    /// The first output position.
    pub(super) first: [usize; 2],
    /// Output rows and columns.
    pub(super) count: [usize; 2],
    /// Rows and columns of the window; zero where no weight belongs to these outputs.
    pub(super) window: [usize; 2],
    /// The input position of the window's first element at the first output; negative in the padding.
    pub(super) start: [isize; 2],
    /// Where in the kernel each element of the window is, row by row.
    pub(super) taps: Vec<usize>,
}

/// What a [`Correlation`] computes.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Input `[C, H, W]`.
    pub(super) input: [usize; 3],
    /// Output `[C, H, W]`.
    pub(super) output: [usize; 3],
    /// How far the window moves over the input from one output of a phase to the next.
    pub(super) in_step: [usize; 2],
    /// How far apart the outputs of a phase are.
    pub(super) out_step: [usize; 2],
    /// Distances in the weight tensor of neighbouring output channels and of neighbouring input channels.
    pub(super) weight_steps: [usize; 2],
}

/// A phase with the tiles of its rows.
#[derive(Debug)]
struct Sweep {
    phase: Phase,
    /// Elements of the windows of all earlier phases.
    before: usize,
    /// Distances of the outputs of a tile within a row, then those of a tile of two rows.
    columns: Vec<u32>,
    /// Whether two rows share a tile.
    paired: bool,
}

/// A planned correlation.
#[derive(Debug)]
pub(super) struct Correlation {
    token: Token,
    lanes: usize,
    groups: usize,
    /// The shape of one group.
    shape: Shape,
    sweeps: Vec<Sweep>,
    /// Rows of the longest phase.
    rows: usize,
    /// Columns of the canvas, and the zero columns before the image.
    columns: usize,
    left: usize,
    /// The input rows that the first output row of any phase reads.
    reach: Range<isize>,
    /// Elements of all windows.
    taps: usize,
    /// Whether positions are split without regard to rows and images.
    flat: bool,
    /// Columns of the widest tile.
    widest: usize,
}

impl Correlation {
    /// Plans `phases`, which together must cover all outputs of a group of `shape`.
    pub(super) fn new(token: Token, lanes: usize, groups: usize, shape: Shape, phases: Vec<Phase>) -> Self {
        let [_, _, width] = shape.input;
        let seeing = || phases.iter().filter(|phase| !phase.taps.is_empty());
        let left = seeing().map(|phase| -phase.start[1]).max().unwrap_or(0).max(0) as usize;
        let right = seeing()
            .map(|phase| ((phase.count[1] - 1) * shape.in_step[1] + phase.window[1]) as isize + phase.start[1])
            .max()
            .unwrap_or(0);
        let columns = left + width.max(right.max(0) as usize);
        let top = seeing().map(|phase| phase.start[0]).min().unwrap_or(0);
        let bottom = seeing().map(|phase| phase.start[0] + phase.window[0] as isize).max().unwrap_or(1);
        let flat = shape.in_step == [1, 1]
            && shape.out_step == [1, 1]
            && shape.input[1..] == shape.output[1..]
            && columns == width
            && phases.iter().all(|phase| phase.window == [1, 1] && phase.start == [0, 0]);

        let dynamic = Pitch::of(shape.in_step[1] * lanes, lanes) == Pitch::DYNAMIC;
        let widest = if dynamic { token.columns().min(DYNAMIC_COLUMNS) } else { token.columns() };
        let rows = phases.iter().map(|phase| phase.count[0]).max().unwrap_or(0);
        let mut taps = 0;
        let sweeps = phases
            .into_iter()
            .map(|phase| {
                let paired = !flat && 2 * phase.count[1] <= widest;
                let mut table: Vec<u32> = (0..widest).map(|j| (j * shape.out_step[1] * lanes) as u32).collect();
                if paired {
                    let second = shape.out_step[0] * shape.output[2] * lanes;
                    let pair = (0..2 * phase.count[1]).map(|j| (j / phase.count[1], j % phase.count[1]));
                    table.extend(pair.map(|(y, x)| (y * second + x * shape.out_step[1] * lanes) as u32));
                }
                let before = taps;
                taps += phase.taps.len();
                Sweep { phase, before, columns: table, paired }
            })
            .collect();
        Self { token, lanes, groups, shape, sweeps, rows, columns, left, reach: top..bottom, taps, flat, widest }
    }

    /// Multiplications and additions for one group of one image.
    fn flops(&self) -> usize {
        let products: usize =
            self.sweeps.iter().map(|s| s.phase.taps.len() * s.phase.count[0] * s.phase.count[1]).sum();
        2 * products * self.shape.input[0] * self.shape.output[0]
    }

    /// Pairs of output blocks.
    fn pairs(&self) -> usize {
        self.shape.output[0].div_ceil(2 * self.lanes)
    }

    /// Packed weights of one pair.
    fn pair_len(&self) -> usize {
        self.taps * self.shape.input[0] * 2 * self.lanes
    }

    /// The canvas of some output rows (counted within a phase) of some images.
    fn canvas(&self, images: usize, rows: &Range<usize>) -> Canvas {
        let [channels, height, width] = self.shape.input;
        let step = self.shape.in_step[0];
        Canvas {
            channels,
            size: [height, width],
            images,
            rows: (rows.len() - 1) * step + (self.reach.end - self.reach.start) as usize,
            columns: self.columns,
            top: (rows.start * step) as isize + self.reach.start,
            left: self.left,
            lanes: self.lanes,
        }
    }

    /// The output rows of some rows of the phases.
    fn output_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let step = self.shape.out_step[0];
        rows.start * step..(rows.end * step).min(self.shape.output[1])
    }

    /// Computes `output` from `input`, whose lengths have been checked, and adds `bias`.
    pub(super) fn run(&self, images: usize, input: &[f32], weight: &[f32], bias: Option<&[f32]>, output: &mut [f32]) {
        if images == 0 {
            return;
        }
        let (pairs, pair_len) = (self.pairs(), self.pair_len());
        let (all, outputs) = (self.groups * pairs, self.shape.output[0]);
        let per_group = weight.len() / self.groups;
        let threads = threads_for(self.flops() * self.groups * images);
        with_scratch(all * (pair_len + 2 * self.lanes), |packed| {
            let (weights, biases) = packed.split_at_mut(all * pair_len);
            biases.fill(0.0);
            if let Some(bias) = bias {
                for (to, bias) in biases.chunks_mut(pairs * 2 * self.lanes).zip(bias.chunks(outputs)) {
                    to[..outputs].copy_from_slice(bias);
                }
            }
            let pack = |(index, to): (usize, &mut [f32])| {
                let group = index / pairs;
                self.pack_pair(&weight[group * per_group..(group + 1) * per_group], index % pairs, to);
            };
            if threads > 1 && all > 1 {
                weights.par_chunks_mut(pair_len).enumerate().for_each(pack);
            } else {
                weights.chunks_mut(pair_len).enumerate().for_each(pack);
            }

            let schedule = self.schedule(images, threads);
            let output = Shared::new(output);
            for_each(self.groups * schedule.units(), threads, |unit| {
                let (group, unit) = (unit / schedule.units(), unit % schedule.units());
                let weights = &weights[group * pairs * pair_len..(group + 1) * pairs * pair_len];
                let biases = &biases[group * pairs * 2 * self.lanes..];
                let (images, rows, pairs) = schedule.unit(unit, [images, self.rows, pairs]);
                let canvas = self.canvas(images.len(), &rows);
                let collected = images.len() * self.output_rows(&rows).len() * self.shape.output[2] * self.lanes;
                with_scratch(canvas.len() + 2 * collected, |scratch| {
                    let (canvas_at, results) = scratch.split_at_mut(canvas.len());
                    let unit = Unit { plan: self, group, canvas, images, rows, pairs, weights, biases, collected };
                    self.token.dispatch(UnitKernel { unit, input, canvas: canvas_at, results, output });
                });
            });
        });
    }

    /// Packs the weights of one pair of output blocks in the order of use: phase, input block, window, input, output.
    fn pack_pair(&self, weight: &[f32], pair: usize, to: &mut [f32]) {
        let [inputs, outputs] = [self.shape.input[0], self.shape.output[0]];
        let first = pair * 2 * self.lanes;
        let filled = (outputs - first).min(2 * self.lanes);
        let width = filled.next_multiple_of(self.lanes);
        if filled < width {
            to.fill(0.0);
        }
        let [out_step, in_step] = self.shape.weight_steps;
        for sweep in &self.sweeps {
            let taps = &sweep.phase.taps;
            for block in (0..inputs).step_by(self.lanes) {
                let inner = (inputs - block).min(self.lanes);
                let to = &mut to[(sweep.before * inputs + block * taps.len()) * width..];
                let mut place = |i: usize, o: usize| {
                    let from = &weight[(first + o) * out_step + (block + i) * in_step..];
                    for (t, tap) in taps.iter().enumerate() {
                        to[(t * inner + i) * width + o] = from[*tap];
                    }
                };
                // In the order of the weight tensor, which comes from memory; the packed block is in the cache.
                if out_step > in_step {
                    (0..filled).for_each(|o| (0..inner).for_each(|i| place(i, o)));
                } else {
                    (0..inner).for_each(|i| (0..filled).for_each(|o| place(i, o)));
                }
            }
        }
    }

    fn schedule(&self, images: usize, threads: usize) -> Schedule {
        let image = self.canvas(1, &(0..self.rows)).len() * size_of::<f32>();
        let wanted = if threads == 1 { 1 } else { (4 * threads).div_ceil(self.groups) };
        let bands = image.div_ceil(CANVAS).clamp(1, self.rows);
        let group = (CANVAS / image).clamp(1, images.div_ceil(wanted));
        let groups = images.div_ceil(group);
        let pairs = wanted.div_ceil(groups * bands).min(self.pairs());
        let bands = bands.max(wanted.div_ceil(groups * pairs)).min(self.rows);
        Schedule { groups, bands, pairs }
    }
}

/// The number of groups into which images, rows and pairs are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schedule {
    groups: usize,
    bands: usize,
    pairs: usize,
}

impl Schedule {
    fn units(&self) -> usize {
        self.groups * self.bands * self.pairs
    }

    /// The part of `[images, rows, pairs]` that belongs to a unit.
    fn unit(&self, unit: usize, [images, rows, pairs]: [usize; 3]) -> (Range<usize>, Range<usize>, Range<usize>) {
        let (group, rest) = (unit / (self.bands * self.pairs), unit % (self.bands * self.pairs));
        (
            part(images, self.groups, group),
            part(rows, self.bands, rest / self.pairs),
            part(pairs, self.pairs, rest % self.pairs),
        )
    }
}

/// Part `index` of `0..total` cut into `parts`.
pub(super) fn part(total: usize, parts: usize, index: usize) -> Range<usize> {
    index * total / parts..(index + 1) * total / parts
}

/// What one unit of work computes.
struct Unit<'a> {
    plan: &'a Correlation,
    group: usize,
    canvas: Canvas,
    images: Range<usize>,
    rows: Range<usize>,
    pairs: Range<usize>,
    weights: &'a [f32],
    biases: &'a [f32],
    /// Results of one block.
    collected: usize,
}

struct UnitKernel<'a> {
    unit: Unit<'a>,
    input: &'a [f32],
    canvas: &'a mut [f32],
    results: &'a mut [f32],
    output: Shared,
}

impl Kernel for UnitKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let unit = &self.unit;
        let plan = unit.plan;
        let image_len: usize = plan.shape.input.iter().product();
        let first = unit.images.start * plan.groups + unit.group;
        let from = &self.input[first * image_len..((unit.images.end - 1) * plan.groups + unit.group + 1) * image_len];
        // SAFETY: the input holds this group of these images; the canvas was made as long as its description says.
        unsafe { pack(s, &unit.canvas, from.as_ptr(), plan.groups * image_len, self.canvas.as_mut_ptr()) };

        let [channels, height, width] = plan.shape.output;
        let (plane, rows) = (height * width, plan.output_rows(&unit.rows));
        let blocks_in = plan.shape.input[0].div_ceil(S::LANES);
        let chunks = (plan.pair_len() * size_of::<f32>()).div_ceil(WEIGHT_CHUNK).min(blocks_in);
        for pair in unit.pairs.clone() {
            let blocks = (channels.div_ceil(S::LANES) - 2 * pair).min(2);
            for chunk in 0..chunks {
                let chunk = part(blocks_in, chunks, chunk);
                for sweep in &plan.sweeps {
                    unit.sweep(s, sweep, pair, blocks, chunk.clone(), self.canvas, self.results);
                }
            }
            for block in 0..blocks {
                let first = (2 * pair + block) * S::LANES;
                let filled = S::LANES.min(channels - first);
                let positions = rows.len() * width;
                for (index, image) in unit.images.clone().enumerate() {
                    let results = &self.results[block * unit.collected + index * positions * S::LANES..];
                    let to = ((image * plan.groups + unit.group) * channels + first) * plane + rows.start * width;
                    // SAFETY: no other unit has these channels and rows of these images; `unpack` writes `positions`
                    // values of each of `filled` planes, the last of which ends there.
                    unsafe {
                        let to = self.output.at(to, (filled - 1) * plane + positions);
                        unpack(s, results[..positions * S::LANES].as_ptr(), positions, filled, to, plane);
                    }
                }
            }
        }
    }
}

impl Unit<'_> {
    /// All tiles of one phase for one pair of output blocks and one chunk of input blocks.
    #[inline(always)]
    fn sweep<S: Simd>(
        &self,
        s: S,
        sweep: &Sweep,
        pair: usize,
        blocks: usize,
        chunk: Range<usize>,
        canvas: &[f32],
        results: &mut [f32],
    ) {
        let (plan, phase) = (self.plan, &sweep.phase);
        let inputs = plan.shape.input[0];
        let taps = phase.taps.len();
        if taps == 0 && chunk.start > 0 || phase.count[0] <= self.rows.start {
            return;
        }
        let (width_out, lanes) = (plan.shape.output[2], S::LANES);
        let [step_y, step_x] = plan.shape.in_step;
        let last = chunk.end == inputs.div_ceil(lanes);
        let reduction = Reduction {
            counts: [chunk.len(), phase.window[0], phase.window[1]],
            strides: [self.canvas.plane(), self.canvas.row(), lanes],
            inner: lanes,
            inner_last: if last { inputs - (chunk.end - 1) * lanes } else { lanes },
        };
        let pitch = step_x * lanes;
        let kind = Pitch::of(pitch, lanes);
        let steps = ((chunk.len() - 1) * lanes + reduction.inner_last) * taps;
        let skipped = pair * plan.pair_len() + (sweep.before * inputs + chunk.start * lanes * taps) * blocks * lanes;
        let weights = self.weights[skipped..skipped + steps * blocks * lanes].as_ptr();
        let following = weights.wrapping_add(steps * blocks * lanes);
        let bias = if chunk.start == 0 { self.biases[pair * 2 * lanes..].as_ptr() } else { std::ptr::null() };
        let (canvas, results) = (canvas[chunk.start * self.canvas.plane()..].as_ptr(), results.as_mut_ptr());
        let mut index = 0;
        // One tile: where its input and output begin, the distance from the first column's input to the middle one's,
        // how many columns it has, and where in the table the distances of its outputs are.
        let mut compute = |input: usize, output: usize, gap: usize, columns: usize, table: usize| {
            // One cache line per step: the first tiles together bring in the weights of the next sweep.
            let ahead = index * steps * LINE;
            let fetches = ahead < steps * blocks * lanes;
            index += 1;
            // SAFETY: the canvas covers every window of these rows by the definition of its reach and columns; results
            // hold every output of these rows; weights and bias were just sliced.
            unsafe {
                let tile = Tile {
                    reduction,
                    input: canvas.add(input),
                    gap,
                    weights,
                    upcoming: if fetches { following.wrapping_add(ahead) } else { weights },
                    bias,
                    output: results.add(output),
                    output_columns: sweep.columns.as_ptr().add(table),
                    output_plane: self.collected,
                    residual: std::ptr::null(),
                    residual_columns: sweep.columns.as_ptr(),
                    residual_plane: 0,
                    pitch,
                    low: f32::NEG_INFINITY,
                    high: f32::INFINITY,
                };
                tile::run(s, kind, blocks, columns, &tile);
            }
        };

        if plan.flat {
            let positions = self.collected / lanes;
            let tiles = positions.div_ceil(plan.widest);
            for tile in 0..tiles {
                let span = part(positions, tiles, tile);
                compute(span.start * lanes, span.start * lanes, span.len() / 2 * lanes, span.len(), 0);
            }
            return;
        }
        let rows = self.rows.end.min(phase.count[0]) - self.rows.start;
        let columns = phase.count[1];
        let image_out = plan.output_rows(&self.rows).len() * width_out * lanes;
        // An empty window may start outside of the canvas, and reads nothing.
        let [y0, x0] = if taps == 0 {
            [0, 0]
        } else {
            [(phase.start[0] - plan.reach.start) as usize, (phase.start[1] + plan.left as isize) as usize]
        };
        let tiles = columns.div_ceil(plan.widest);
        for image in 0..self.images.len() {
            let mut row = 0;
            while row < rows {
                let input = image * self.canvas.image() + (row * step_y + y0) * self.canvas.row() + x0 * lanes;
                let position = (row * plan.shape.out_step[0] + phase.first[0]) * width_out + phase.first[1];
                let output = image * image_out + position * lanes;
                if sweep.paired && row + 1 < rows {
                    compute(input, output, step_y * self.canvas.row(), 2 * columns, plan.widest);
                    row += 2;
                    continue;
                }
                for tile in 0..tiles {
                    let span = part(columns, tiles, tile);
                    let output = output + span.start * plan.shape.out_step[1] * lanes;
                    compute(input + span.start * pitch, output, span.len() / 2 * pitch, span.len(), 0);
                }
                row += 1;
            }
        }
    }
}
