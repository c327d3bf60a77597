//! The gradient of the weights of depthwise convolutions and of groups of few channels.
//!
//! **The problem.** Each weight's gradient is the product of two planes, one of them shifted, summed over all images:
//! nine or more sums over the same values, each of which alone would be limited by loads.
//!
//! **The design.** As in [`depthwise`](super::depthwise), lanes are neighbouring columns, and the planes are copied to
//! [`Stage`]s with zeros around them. The sums of all elements of the kernel, or of some of its columns, are kept in
//! registers as vectors over four rows of the output's gradient: a vector of inputs that is loaded is used for each of
//! the rows that it meets. Over bands, planes and images the vectors of sums are kept; their lanes are added at the
//! end, many sums at a time, by a transposition. Where there are few groups the images are divided into chunks, by the
//! shapes alone, whose sums are added in order: the result is the same for any number of threads.
//!
//! **Eligible** is what is eligible for [`PlaneCorrelation`](super::depthwise::PlaneCorrelation).

use std::ops::Range;

use crate::geometry::Padding;
use crate::parallel::for_each;
use crate::simd::{Kernel, Simd, Token};

use super::correlation::part;
use super::memory::{Shared, threads_for, with_scratch};
use super::stage::Stage;

/// Rows of the output's gradient that are used at a time.
const ROWS: usize = 4;

/// Bytes of the stages of a group with one channel, and with several.
const STAGES: [usize; 2] = [32 << 10, 256 << 10];

/// Values of a unit of work.
const UNIT: usize = 32 << 10;

/// Units of work that even the narrowest layer is split into.
const UNITS: usize = 32;

/// A planned weight gradient.
#[derive(Debug)]
pub(super) struct PlaneWeightGradient {
    token: Token,
    lanes: usize,
    groups: usize,
    /// The shapes of one group.
    input: [usize; 3],
    output: [usize; 3],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: Padding,
    bands: usize,
    /// Images that are copied at a time.
    batch: usize,
    /// Columns of a part of the input's stage that windows reach.
    reached: usize,
}

impl PlaneWeightGradient {
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
        let reached = (kernel[1] - 1) / stride[1] + 1 + output[2].next_multiple_of(lanes);
        let mut plan =
            Self { token, lanes, groups, input, output, kernel, stride, padding, bands: 1, batch: 1, reached };
        let pitches = plan.stages(1).map(|stage| stage.pitch);
        let row = (input[0] * stride[0] * stride[1] * pitches[0] + output[0] * pitches[1]) * size_of::<f32>();
        let kept = STAGES[usize::from(input[0].max(output[0]) > 1)] / row;
        plan.bands = (output[1] / kept.max(2 * ROWS)).max(1);
        if plan.bands == 1 {
            let [stage_in, stage_out] = plan.stages(output[1]);
            let staged = (input[0] * stage_in.len() + output[0] * stage_out.len()) * size_of::<f32>();
            plan.batch = (STAGES[0] / staged).clamp(1, 16);
        }
        plan
    }

    /// The stages of one plane of the input and of the output's gradient, for some output rows.
    fn stages(&self, rows: usize) -> [Stage; 2] {
        let rows = rows.next_multiple_of(ROWS);
        let rows_in = (rows - 1) * self.stride[0] + self.kernel[0];
        let (left, width) = (self.padding.left, self.output[2]);
        [
            Stage::new(self.input[2], rows_in, self.stride[1], left, self.reached, self.lanes),
            Stage::new(width, rows, 1, 0, width.next_multiple_of(self.lanes), self.lanes),
        ]
    }

    /// Weights of one group.
    fn per_group(&self) -> usize {
        self.input[0] * self.output[0] * self.kernel[0] * self.kernel[1]
    }

    /// Computes `gradient` `[G · O, I, kh, kw]` from the input and the gradient of the output, whose lengths have been
    /// checked.
    pub(super) fn run(&self, images: usize, input: &[f32], output_gradient: &[f32], gradient: &mut [f32]) {
        if images == 0 {
            gradient.fill(0.0);
            return;
        }
        let sizes = [self.input, self.output].map(|shape| shape.iter().product::<usize>());
        let chunks = UNITS.div_ceil(self.groups).min(images);
        let values = images.div_ceil(chunks) * (sizes[0] + sizes[1]);
        let per_unit = (UNIT / values).max(1);
        let units = self.groups.div_ceil(per_unit);
        let per_group = self.per_group();
        let flops = 2 * sizes[1] * self.input[0] * self.kernel[0] * self.kernel[1];
        let threads = threads_for(images * self.groups * (flops + 8 * (sizes[0] + sizes[1])));
        let most = (0..self.bands).map(|band| part(self.output[1], self.bands, band).len()).max().unwrap_or(1);
        let [stage_in, stage_out] = self.stages(most);
        let staged = self.batch * (self.input[0] * stage_in.len() + self.output[0] * stage_out.len());
        let sums = per_group.next_multiple_of(self.lanes) * self.lanes;
        with_scratch(chunks * gradient.len(), |totals| {
            let len = gradient.len();
            let shared = Shared::new(totals);
            for_each(chunks * units, threads, |unit| {
                let (chunk, unit) = (unit / units, unit % units);
                let images = part(images, chunks, chunk);
                with_scratch(staged + sums + self.lanes * self.lanes, |scratch| {
                    for group in unit * per_unit..((unit + 1) * per_unit).min(self.groups) {
                        // SAFETY: each group of a chunk has a place of its own.
                        let to = unsafe {
                            let at = shared.at(chunk * len + group * per_group, per_group);
                            std::slice::from_raw_parts_mut(at, per_group)
                        };
                        let images = images.clone();
                        let kernel = GroupKernel { plan: self, group, images, input, output_gradient, scratch, to };
                        self.token.dispatch(kernel);
                    }
                });
            });
            for (at, gradient) in gradient.iter_mut().enumerate() {
                let sum: f64 = (0..chunks).map(|chunk| f64::from(totals[chunk * len + at])).sum();
                *gradient = sum as f32;
            }
        });
    }
}

/// The gradient of one group's weights from some images.
struct GroupKernel<'a> {
    plan: &'a PlaneWeightGradient,
    group: usize,
    images: Range<usize>,
    input: &'a [f32],
    output_gradient: &'a [f32],
    scratch: &'a mut [f32],
    to: &'a mut [f32],
}

impl Kernel for GroupKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let plan = self.plan;
        let [inputs, outputs] = [plan.input[0], plan.output[0]];
        let [plane_in, plane_out] = [plan.input, plan.output].map(|shape| shape[1] * shape[2]);
        let taps = plan.kernel[0] * plan.kernel[1];
        let count = plan.per_group();
        let (sums, rest) = self.scratch.split_at_mut(count.next_multiple_of(S::LANES) * S::LANES);
        let (square, staged) = rest.split_at_mut(S::LANES * S::LANES);
        sums.fill(0.0);
        let mut before = None;
        for band in 0..plan.bands {
            let rows = part(plan.output[1], plan.bands, band);
            let [stage_in, stage_out] = plan.stages(rows.len());
            let (staged_in, staged_out) = staged.split_at_mut(plan.batch * inputs * stage_in.len());
            if before != Some(rows.len()) {
                before = Some(rows.len());
                staged_in.fill(0.0);
                staged_out[..plan.batch * outputs * stage_out.len()].fill(0.0);
            }
            let top = (rows.start * plan.stride[0]) as isize - plan.padding.top as isize;
            for first in self.images.clone().step_by(plan.batch) {
                let images = first..(first + plan.batch).min(self.images.end);
                // Several images are copied before the first is used: a load soon after a store of another width waits.
                for (index, image) in images.clone().enumerate() {
                    let item = image * plan.groups + self.group;
                    // SAFETY: the stages are as long as their descriptions say, and were filled with zeros.
                    unsafe {
                        for i in 0..inputs {
                            let from = &self.input[(item * inputs + i) * plane_in..];
                            let to = staged_in[(index * inputs + i) * stage_in.len()..][..stage_in.len()].as_mut_ptr();
                            stage_in.fill(s, from, top, 0..plan.input[1], plan.bands > 1, to);
                        }
                        for o in 0..outputs {
                            let from = &self.output_gradient[(item * outputs + o) * plane_out..];
                            let to =
                                staged_out[(index * outputs + o) * stage_out.len()..][..stage_out.len()].as_mut_ptr();
                            stage_out.fill(s, from, rows.start as isize, rows.clone(), plan.bands > 1, to);
                        }
                    }
                }
                for index in 0..images.len() {
                    for o in 0..outputs {
                        for i in 0..inputs {
                            let product = Product {
                                stages: [stage_in, stage_out],
                                left: plan.padding.left,
                                vectors: plan.output[2].div_ceil(S::LANES),
                                input: &staged_in[(index * inputs + i) * stage_in.len()..][..stage_in.len()],
                                gradient: &staged_out[(index * outputs + o) * stage_out.len()..][..stage_out.len()],
                                sums: sums[(o * inputs + i) * taps * S::LANES..].as_mut_ptr(),
                            };
                            product.all(s, plan.kernel, plan.stride);
                        }
                    }
                }
            }
        }
        for (index, to) in self.to.chunks_mut(S::LANES).enumerate() {
            // SAFETY: sums and square hold squares of lanes.
            unsafe {
                let from = sums[index * S::LANES * S::LANES..].as_ptr();
                s.transpose(from, S::LANES, square.as_mut_ptr(), S::LANES);
                let mut total = s.load(square.as_ptr());
                for lane in 1..S::LANES {
                    total = s.add(total, s.load(square.as_ptr().add(lane * S::LANES)));
                }
                let mut lanes = [0.0f32; 16];
                s.store(lanes.as_mut_ptr(), total);
                to.copy_from_slice(&lanes[..to.len()]);
            }
        }
    }
}

/// The products of one plane's band with the gradient of one output plane.
struct Product<'a> {
    stages: [Stage; 2],
    /// Columns of padding on the left.
    left: usize,
    /// Vectors of a row.
    vectors: usize,
    input: &'a [f32],
    gradient: &'a [f32],
    /// `[kh][kw][b]`.
    sums: *mut f32,
}

impl Product<'_> {
    #[inline(always)]
    fn all<S: Simd>(&self, s: S, kernel: [usize; 2], stride: [usize; 2]) {
        // 16 lanes come with 32 registers, others with 16 at least.
        let many = S::LANES == 16;
        match (kernel, stride) {
            ([3, 3], [1, 1]) => s.vectorize(Columns::<3, 3, 1>(self, 0)),
            ([3, 3], [2, 2]) => s.vectorize(Columns::<3, 3, 2>(self, 0)),
            ([5, 5], [1, 1]) if many => s.vectorize(Columns::<5, 5, 1>(self, 0)),
            ([5, 5], [2, 2]) if many => s.vectorize(Columns::<5, 5, 2>(self, 0)),
            ([5, 5], [1, 1]) => (0..5).for_each(|kx| s.vectorize(Columns::<5, 1, 1>(self, kx))),
            ([5, 5], [2, 2]) => (0..5).for_each(|kx| s.vectorize(Columns::<5, 1, 2>(self, kx))),
            ([7, 7], [1, 1]) => (0..7).for_each(|kx| s.vectorize(Columns::<7, 1, 1>(self, kx))),
            ([7, 7], [2, 2]) => (0..7).for_each(|kx| s.vectorize(Columns::<7, 1, 2>(self, kx))),
            _ => {
                for tap in 0..kernel[0] * kernel[1] {
                    self.one(s, tap, [tap / kernel[1], tap % kernel[1]], stride);
                }
            }
        }
    }

    /// The sum of one element of the kernel.
    #[inline(always)]
    fn one<S: Simd>(&self, s: S, tap: usize, [ky, kx]: [usize; 2], stride: [usize; 2]) {
        let [stage_in, stage_out] = &self.stages;
        let skipped = ky * stage_in.pitch + stage_in.column(kx as isize - self.left as isize);
        let input = self.input[skipped..].as_ptr();
        // SAFETY: the stages hold whole vectors of all rows that these windows meet; so do the sums.
        unsafe {
            let to = self.sums.add(tap * S::LANES);
            let mut sums = [s.load(to), s.splat(0.0), s.splat(0.0), s.splat(0.0)];
            for row in (0..stage_out.rows).step_by(ROWS) {
                for x in (0..self.vectors * S::LANES).step_by(S::LANES) {
                    for r in 0..ROWS {
                        let g = s.load(self.gradient.as_ptr().add((row + r) * stage_out.pitch + x));
                        let at = (row + r) * stride[0] * stage_in.pitch + x;
                        sums[r] = s.fma(g, s.load(input.add(at)), sums[r]);
                    }
                }
            }
            s.store(to, s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])));
        }
    }
}

/// The sums of `G` columns of a kernel of `K` × `K`, from a given one on, with a stride of `STEP`.
struct Columns<'a, const K: usize, const G: usize, const STEP: usize>(&'a Product<'a>, usize);

impl<const K: usize, const G: usize, const STEP: usize> Kernel for Columns<'_, K, G, STEP> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self(product, first) = self;
        let [stage_in, stage_out] = &product.stages;
        let pitch = stage_in.pitch;
        // SAFETY: the stages hold whole vectors of all rows that these windows meet; so do the sums.
        unsafe {
            let mut sums = [[s.splat(0.0); K]; G];
            let mut columns = [product.input.as_ptr(); G];
            for gx in 0..G {
                let kx = first + gx;
                columns[gx] = columns[gx].add(stage_in.column(kx as isize - product.left as isize));
                for ky in 0..K {
                    sums[gx][ky] = s.load(product.sums.add((ky * K + kx) * S::LANES));
                }
            }
            for row in (0..stage_out.rows).step_by(ROWS) {
                for x in (0..product.vectors * S::LANES).step_by(S::LANES) {
                    let mut g = [s.splat(0.0); ROWS];
                    for j in 0..ROWS {
                        g[j] = s.load(product.gradient.as_ptr().add((row + j) * stage_out.pitch + x));
                    }
                    let at = row * STEP * pitch + x;
                    for gx in 0..G {
                        for r in 0..(ROWS - 1) * STEP + K {
                            let value = s.load(columns[gx].add(at + r * pitch));
                            for ky in 0..K {
                                if r >= ky && (r - ky) % STEP == 0 && (r - ky) / STEP < ROWS {
                                    sums[gx][ky] = s.fma(g[(r - ky) / STEP], value, sums[gx][ky]);
                                }
                            }
                        }
                    }
                }
            }
            for gx in 0..G {
                for ky in 0..K {
                    s.store(product.sums.add((ky * K + first + gx) * S::LANES), sums[gx][ky]);
                }
            }
        }
    }
}
