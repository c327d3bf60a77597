//! Sums of products over windows of planes: depthwise convolution, groups of few channels, and the gradients of their
//! inputs.
//!
//! **The problem.** With one input channel for each output channel there is no matrix product: each value that is
//! loaded serves as many multiply-adds as the window has elements, and bringing the planar tensors into the blocked
//! layout of the other kernels and back costs more than the convolution.
//!
//! **The design.** The lanes of a vector are neighbouring columns of one plane. The planes of a group are copied, a
//! band of rows at a time, into a [`Stage`] in the first-level cache, where borders are zeros and strides are gone. The
//! register tile has four output rows × one or two vectors of columns: a column of the kernel is kept in registers,
//! and each vector of inputs that is loaded is used for all output rows that see it. Rows that are no multiple of a
//! vector end with a vector that overlaps the one before; of rows shorter than a vector the surplus is overwritten by
//! the next row. As in [`correlation`](super::correlation), the gradient of a strided convolution's input is divided
//! into phases, whose columns are joined row by row.
//!
//! **Eligible** are groups with fewer channels, in or out, than a vector has lanes. Kernels of 3×3, 5×5 and 7×7 with
//! strides 1 and 2 have instantiations of their own; others take their windows from a table.
//!
//! Each output's sum has one order: results do not depend on threads or batch.

use std::ops::Range;

use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token};

use super::correlation::{Phase, Shape, part};
use super::memory::{Shared, threads_for, with_scratch};
use super::stage::{Stage, join};

/// Output rows of a tile.
const ROWS: usize = 4;

/// Bytes of a stage with one plane, and of one with several.
const STAGES: [usize; 2] = [24 << 10, 192 << 10];

/// Values of a unit of work.
const UNIT: usize = 32 << 10;

/// A planned correlation of the planes within groups.
#[derive(Debug)]
pub(super) struct PlaneCorrelation {
    token: Token,
    lanes: usize,
    groups: usize,
    /// The shape of one group.
    shape: Shape,
    phases: Vec<Phase>,
    /// Elements of the windows of all phases.
    taps: usize,
    /// Rows of the longest phase, and the bands they are divided into.
    rows: usize,
    bands: usize,
    /// Groups that are copied before the first of them is computed: a load soon after a store of another width waits.
    batch: usize,
    /// The input rows that the first output row of any phase reads.
    reach: Range<isize>,
    /// Columns of padding on the left, and those of a part of the stage that windows reach.
    left: usize,
    reached: usize,
}

impl PlaneCorrelation {
    /// Plans `phases`, which together must cover all outputs of a group of `shape`.
    pub(super) fn new(token: Token, lanes: usize, groups: usize, shape: Shape, phases: Vec<Phase>) -> Self {
        let seeing = || phases.iter().filter(|phase| !phase.taps.is_empty());
        let left = seeing().map(|phase| -phase.start[1]).max().unwrap_or(0).max(0) as usize;
        let top = seeing().map(|phase| phase.start[0]).min().unwrap_or(0);
        let bottom = seeing().map(|phase| phase.start[0] + phase.window[0] as isize).max().unwrap_or(top + 1);
        let step = shape.in_step[1];
        let reached = seeing()
            .map(|phase| {
                let last = (phase.start[1] + left as isize) as usize + phase.window[1] - 1;
                last / step + 1 + phase.count[1].next_multiple_of(lanes)
            })
            .max()
            .unwrap_or(lanes);
        let rows = phases.iter().map(|phase| phase.count[0]).max().unwrap_or(0);
        let pitch = Stage::new(shape.input[2], 1, step, left, reached, lanes).pitch;
        let row = shape.input[0] * step * pitch * size_of::<f32>();
        let kept = STAGES[usize::from(shape.input[0] > 1)] / row;
        let fresh = kept.saturating_sub((bottom - top) as usize) / shape.in_step[0];
        let bands = (rows / fresh.max(2 * ROWS)).max(1);
        let taps = phases.iter().map(|phase| phase.taps.len()).sum();
        let mut plan = Self {
            token,
            lanes,
            groups,
            shape,
            phases,
            taps,
            rows,
            bands,
            batch: 1,
            reach: top..bottom,
            left,
            reached,
        };
        if bands == 1 {
            let staged = plan.shape.input[0] * plan.stage(rows).len() * size_of::<f32>();
            plan.batch = (STAGES[0] / staged).clamp(1, 16);
        }
        plan
    }

    /// The stage of some output rows, counted within a phase.
    fn stage(&self, rows: usize) -> Stage {
        let rows = (rows - 1) * self.shape.in_step[0] + (self.reach.end - self.reach.start) as usize;
        Stage::new(self.shape.input[2], rows, self.shape.in_step[1], self.left, self.reached, self.lanes)
    }

    /// Computes `output` `[N, G · O, h, w]` from `input` `[N, G · I, H, W]`, whose lengths have been checked, and
    /// adds `bias`.
    pub(super) fn run(&self, images: usize, input: &[f32], weight: &[f32], bias: Option<&[f32]>, output: &mut [f32]) {
        let [[inputs, height, width], [outputs, rows, columns]] = [self.shape.input, self.shape.output];
        let sizes = [inputs * height * width, outputs * rows * columns];
        let items = images * self.groups;
        let products = self.phases.iter().map(|phase| phase.taps.len() * phase.count[0] * phase.count[1]);
        let flops = 2 * products.sum::<usize>() * inputs * outputs;
        // Copying counts too.
        let threads = threads_for(items * (flops + 8 * (sizes[0] + sizes[1])));
        let per_unit = (UNIT / (sizes[0] + sizes[1])).max(1);
        let most = (0..self.bands).map(|band| part(self.rows, self.bands, band).len()).max().unwrap_or(1);
        let staged = self.batch * inputs * self.stage(most).len();
        let lines = self.shape.out_step[0] * self.shape.out_step[1] * ROWS * columns.next_multiple_of(self.lanes);
        with_scratch(weight.len(), |packed| {
            self.pack(weight, packed);
            let weights = &*packed;
            let output = Shared::new(output);
            for_each(items.div_ceil(per_unit), threads, |unit| {
                let items = unit * per_unit..((unit + 1) * per_unit).min(items);
                with_scratch(staged + lines, |scratch| {
                    let (stage, lines) = scratch.split_at_mut(staged);
                    let input = &input[items.start * sizes[0]..];
                    let len = items.len() * sizes[1];
                    // SAFETY: the items of a unit are its own.
                    let output = unsafe { std::slice::from_raw_parts_mut(output.at(items.start * sizes[1], len), len) };
                    let kernel = UnitKernel { plan: self, items, weights, bias, input, output, stage, lines };
                    self.token.dispatch(kernel);
                });
            });
        });
    }

    /// Brings the weights into the order of use: group, output, phase, input, window.
    fn pack(&self, weight: &[f32], to: &mut [f32]) {
        let [inputs, outputs] = [self.shape.input[0], self.shape.output[0]];
        let [out_step, in_step] = self.shape.weight_steps;
        let per_group = inputs * outputs * self.taps;
        let mut to = to.iter_mut();
        for group in 0..self.groups {
            for o in 0..outputs {
                for phase in &self.phases {
                    for i in 0..inputs {
                        let from = &weight[group * per_group + o * out_step + i * in_step..];
                        phase.taps.iter().zip(&mut to).for_each(|(tap, to)| *to = from[*tap]);
                    }
                }
            }
        }
    }
}

struct UnitKernel<'a> {
    plan: &'a PlaneCorrelation,
    /// Groups, counted through all images.
    items: Range<usize>,
    weights: &'a [f32],
    bias: Option<&'a [f32]>,
    /// The input from the first item on, to the end of the tensor.
    input: &'a [f32],
    /// The output of these items.
    output: &'a mut [f32],
    stage: &'a mut [f32],
    lines: &'a mut [f32],
}

impl Kernel for UnitKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let plan = self.plan;
        let [inputs, height, width] = plan.shape.input;
        let [outputs, rows_out, columns_out] = plan.shape.output;
        let (from_plane, to_plane) = (height * width, rows_out * columns_out);
        let mut offsets: Vec<Vec<usize>> = plan.phases.iter().map(|p| Vec::with_capacity(p.taps.len())).collect();
        let mut before = None;
        for band in 0..plan.bands {
            let rows = part(plan.rows, plan.bands, band);
            let stage = plan.stage(rows.len());
            let staged = inputs * stage.len();
            if before != Some(rows.len()) {
                before = Some(rows.len());
                self.stage[..plan.batch * staged].fill(0.0);
                for (phase, offsets) in plan.phases.iter().zip(&mut offsets) {
                    offsets.clear();
                    offsets.extend((0..phase.taps.len()).map(|tap| {
                        let y = phase.start[0] - plan.reach.start + (tap / phase.window[1]) as isize;
                        y as usize * stage.pitch + stage.column(phase.start[1] + (tap % phase.window[1]) as isize)
                    }));
                }
            }
            let top = (rows.start * plan.shape.in_step[0]) as isize + plan.reach.start;
            for first in (0..self.items.len()).step_by(plan.batch) {
                let batch = first..(first + plan.batch).min(self.items.len());
                for index in batch.start * inputs..batch.end * inputs {
                    let to = &mut self.stage[(index - batch.start * inputs) * stage.len()..][..stage.len()];
                    let from = &self.input[index * from_plane..];
                    // SAFETY: the stage is as long as its description says, and was filled with zeros.
                    unsafe { stage.fill(s, from, top, 0..height, plan.bands > 1, to.as_mut_ptr()) };
                }
                for plane in batch.start * outputs..batch.end * outputs {
                    let (index, o) = (plane / outputs, plane % outputs);
                    let channel = (self.items.start + index) % plan.groups * outputs + o;
                    // What is behind a plane is written later, unless bands come back to it.
                    let end = if plan.bands == 1 { self.output.len() } else { (plane + 1) * to_plane };
                    let pass = Pass {
                        stage,
                        inputs,
                        row_step: plan.shape.in_step[0] * stage.pitch,
                        staged: &self.stage[(index - batch.start) * staged..][..staged],
                        bias: self.bias.map_or(0.0, |bias| bias[channel]),
                        rows: rows.clone(),
                    };
                    let weights = &self.weights[channel * inputs * plan.taps..];
                    let output = &mut self.output[plane * to_plane..end];
                    if plan.phases.len() == 1 {
                        pass.direct(s, &plan.phases[0], plan.shape.in_step, &offsets[0], weights, output);
                    } else {
                        pass.joined(s, plan, &offsets, weights, output, self.lines);
                    }
                }
            }
        }
    }
}

/// One band of one output plane.
struct Pass<'a> {
    stage: Stage,
    inputs: usize,
    /// The distance in the stage of what two neighbouring output rows read.
    row_step: usize,
    staged: &'a [f32],
    bias: f32,
    rows: Range<usize>,
}

impl Pass<'_> {
    /// A pass whose outputs follow each other; `output` begins with the plane, and what is behind it may be
    /// overwritten.
    #[inline(always)]
    fn direct<S: Simd>(
        &self,
        s: S,
        phase: &Phase,
        in_step: [usize; 2],
        offsets: &[usize],
        weights: &[f32],
        output: &mut [f32],
    ) {
        let rows = self.rows.len();
        if rows >= ROWS {
            match (phase.window, in_step) {
                ([3, 3], [1, 1]) => return s.vectorize(Square::<3, 1> { pass: self, phase, offsets, weights, output }),
                ([5, 5], [1, 1]) => return s.vectorize(Square::<5, 1> { pass: self, phase, offsets, weights, output }),
                ([7, 7], [1, 1]) => return s.vectorize(Square::<7, 1> { pass: self, phase, offsets, weights, output }),
                ([3, 3], [2, 2]) => return s.vectorize(Square::<3, 2> { pass: self, phase, offsets, weights, output }),
                ([5, 5], [2, 2]) => return s.vectorize(Square::<5, 2> { pass: self, phase, offsets, weights, output }),
                ([7, 7], [2, 2]) => return s.vectorize(Square::<7, 2> { pass: self, phase, offsets, weights, output }),
                _ => {}
            }
        }
        let width = phase.count[1];
        let mut row = 0;
        loop {
            if rows - row >= ROWS {
                for x in starts(width, S::LANES) {
                    let sums = self.table::<S, ROWS>(s, row, x, offsets, weights);
                    put(s, sums, self.rows.start + row, x, width, output);
                }
                row += ROWS;
            } else if row < rows {
                for x in starts(width, S::LANES) {
                    let sums = self.table::<S, 1>(s, row, x, offsets, weights);
                    put(s, sums, self.rows.start + row, x, width, output);
                }
                row += 1;
            } else {
                return;
            }
        }
    }

    /// A pass of several phases; `output` as for [`Pass::direct`].
    #[inline(always)]
    fn joined<S: Simd>(
        &self,
        s: S,
        plan: &PlaneCorrelation,
        offsets: &[Vec<usize>],
        weights: &[f32],
        output: &mut [f32],
        lines: &mut [f32],
    ) {
        let [step_y, step_x] = plan.shape.out_step;
        let width = plan.shape.output[2];
        let pitch = width.next_multiple_of(S::LANES);
        let across = step_x.min(width);
        // The rows of a phase in this band, and the first of up to four that include `row`.
        let end = |down: usize| self.rows.end.min(plan.phases[down * across].count[0]);
        let base = |down: usize, row: usize| row.min(end(down).saturating_sub(ROWS)).max(self.rows.start);
        for row in self.rows.clone().step_by(ROWS) {
            let mut skipped = 0;
            for (index, phase) in plan.phases.iter().enumerate() {
                let (down, offsets) = (index / across, &offsets[index]);
                let weights = &weights[skipped..];
                skipped += self.inputs * offsets.len();
                let first = base(down, row);
                let rows = ROWS.min(end(down).saturating_sub(first));
                for x in (0..phase.count[1]).step_by(S::LANES) {
                    let at = (down * step_x + phase.first[1]) * ROWS * pitch + x;
                    let lines = &mut lines[at..at + (ROWS - 1) * pitch + S::LANES];
                    let first = first - self.rows.start;
                    // SAFETY: the lines hold a vector of each row, as just sliced.
                    unsafe {
                        if rows == ROWS {
                            let sums = self.table::<S, ROWS>(s, first, x, offsets, weights);
                            for r in 0..ROWS {
                                s.store(lines.as_mut_ptr().add(r * pitch), sums[r]);
                            }
                        } else {
                            for r in 0..rows {
                                let [sum] = self.table::<S, 1>(s, first + r, x, offsets, weights);
                                s.store(lines.as_mut_ptr().add(r * pitch), sum);
                            }
                        }
                    }
                }
            }
            for y in row * step_y..((row + ROWS) * step_y).min(plan.shape.output[1]) {
                let down = y % step_y;
                if y / step_y < end(down) {
                    let line = down * step_x * ROWS + y / step_y - base(down, row);
                    join(s, &lines[line * pitch..], ROWS * pitch, step_x, width, &mut output[y * width..]);
                }
            }
        }
    }

    /// A tile of `R` rows from `row` of the band on, and a vector of columns from `x` on.
    #[inline(always)]
    fn table<S: Simd, const R: usize>(
        &self,
        s: S,
        row: usize,
        x: usize,
        offsets: &[usize],
        weights: &[f32],
    ) -> [S::V; R] {
        let mut sums = [s.splat(self.bias); R];
        let taps = offsets.len();
        for i in 0..self.inputs {
            let weights = &weights[i * taps..(i + 1) * taps];
            let at = i * self.stage.len() + row * self.row_step + x;
            for (weight, offset) in weights.iter().zip(offsets) {
                let weight = s.splat(*weight);
                let from = self.staged[at + offset..].as_ptr();
                for r in 0..R {
                    // SAFETY: the stage holds the windows of these rows, in whole vectors.
                    sums[r] = unsafe { s.fma(weight, s.load(from.add(r * self.row_step)), sums[r]) };
                }
            }
        }
        sums
    }
}

/// Where the vectors of a row begin: the last one overlaps the one before, if there is one.
#[inline(always)]
fn starts(width: usize, lanes: usize) -> impl Iterator<Item = usize> {
    (0..width).step_by(lanes).map(move |x| x.min(width.saturating_sub(lanes)))
}

/// Writes a vector of some rows of a plane from row `y` on.
#[inline(always)]
fn put<S: Simd, const R: usize>(s: S, sums: [S::V; R], y: usize, x: usize, width: usize, output: &mut [f32]) {
    for r in 0..R {
        let at = (y + r) * width + x;
        // SAFETY: `rest` and `lanes` hold a vector.
        unsafe {
            if at + S::LANES <= output.len() {
                s.store(output.as_mut_ptr().add(at), sums[r]);
            } else {
                let mut lanes = [0.0f32; 16];
                s.store(lanes.as_mut_ptr(), sums[r]);
                let rest = &mut output[at..at + (width - x).min(S::LANES)];
                rest.copy_from_slice(&lanes[..rest.len()]);
            }
        }
    }
}

/// A band of at least four rows of one output plane, with a kernel of `K` × `K` and a stride of `STEP`.
struct Square<'a, const K: usize, const STEP: usize> {
    pass: &'a Pass<'a>,
    phase: &'a Phase,
    offsets: &'a [usize],
    weights: &'a [f32],
    output: &'a mut [f32],
}

impl<const K: usize, const STEP: usize> Kernel for Square<'_, K, STEP> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (width, rows) = (self.phase.count[1], self.pass.rows.len());
        for row in (0..rows).step_by(ROWS) {
            let row = row.min(rows - ROWS);
            let y = self.pass.rows.start + row;
            let at = row * self.pass.row_step;
            let mut x = 0;
            while x < width {
                let first = x.min(width.saturating_sub(S::LANES));
                if x + S::LANES < width {
                    let second = (x + S::LANES).min(width - S::LANES);
                    let [a, b] = self.tile::<S, 2>(s, at + first, second - first);
                    put(s, a, y, first, width, self.output);
                    put(s, b, y, second, width, self.output);
                    x += 2 * S::LANES;
                } else {
                    let [a] = self.tile::<S, 1>(s, at + first, 0);
                    put(s, a, y, first, width, self.output);
                    x += S::LANES;
                }
            }
        }
    }
}

impl<const K: usize, const STEP: usize> Square<'_, K, STEP> {
    /// The sums of four rows and `C` vectors, `gap` columns apart, whose windows begin at `at` in the stage.
    #[inline(always)]
    fn tile<S: Simd, const C: usize>(&self, s: S, at: usize, gap: usize) -> [[S::V; ROWS]; C] {
        let stage = &self.pass.stage;
        let pitch = stage.pitch;
        let offsets = &self.offsets[..K];
        let mut sums = [[s.splat(self.pass.bias); ROWS]; C];
        for i in 0..self.pass.inputs {
            let weights = &self.weights[i * K * K..(i + 1) * K * K];
            let from = self.pass.staged[i * stage.len() + at..].as_ptr();
            for kx in 0..K {
                let mut w = [s.splat(0.0); K];
                for ky in 0..K {
                    w[ky] = s.splat(weights[ky * K + kx]);
                }
                // SAFETY: the stage holds the windows of these rows, in whole vectors.
                unsafe {
                    let column = from.add(offsets[kx]);
                    for r in 0..(ROWS - 1) * STEP + K {
                        for c in 0..C {
                            let x = s.load(column.add(r * pitch + c * gap));
                            for ky in 0..K {
                                if r >= ky && (r - ky) % STEP == 0 && (r - ky) / STEP < ROWS {
                                    sums[c][(r - ky) / STEP] = s.fma(w[ky], x, sums[c][(r - ky) / STEP]);
                                }
                            }
                        }
                    }
                }
            }
        }
        sums
    }
}
