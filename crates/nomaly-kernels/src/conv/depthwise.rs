//! Depthwise (groups = channels) convolution.
//!
//! **The problem.** Each output channel sees one input channel, so nothing is reused between channels and the
//! arithmetic is limited by loads: one input vector for each multiply-add.
//!
//! **The design.** In the blocked layout the lanes of a vector are the channels, so the convolution is vertical: up to
//!   14 neighbouring output columns share each weight vector, and inputs come as memory operands of the multiply-add.
//!   Strides 1 and 2 have instantiations of their own; others are computed with the distance from a register.
//!
//! **Eligible** is every convolution with groups = input channels = output channels.

use crate::blocked::{Arena, Region, View};
use crate::buffer::AlignedBuf;
use crate::epilogue::Epilogue;
use crate::simd::{Kernel, Simd, Token};
use crate::team::Team;
use crate::window::Window;

/// Weights `[C / b][kh][kw][b]` and bias `[C / b][b]`.
#[derive(Debug)]
pub(crate) struct DepthwiseWeights {
    data: AlignedBuf,
    bias: AlignedBuf,
    /// Positions of the kernel.
    taps: usize,
}

impl DepthwiseWeights {
    /// Packs `[C, 1, kh, kw]` weights whose lengths have been checked.
    pub(crate) fn pack(
        weight: &[f32],
        bias: Option<&[f32]>,
        channels: usize,
        kernel: [usize; 2],
        lanes: usize,
    ) -> Self {
        let padded = channels.next_multiple_of(lanes);
        let taps = kernel[0] * kernel[1];
        let mut data = AlignedBuf::zeroed(padded * taps);
        for channel in 0..channels {
            let (block, lane) = (channel / lanes, channel % lanes);
            for tap in 0..taps {
                data[(block * taps + tap) * lanes + lane] = weight[channel * taps + tap];
            }
        }
        let mut padded_bias = AlignedBuf::zeroed(padded);
        if let Some(bias) = bias {
            padded_bias[..channels].copy_from_slice(bias);
        }
        Self { data, bias: padded_bias, taps }
    }

    /// Weights and bias of one block.
    pub(super) fn block<S: Simd>(&self, block: usize) -> (*const f32, *const f32) {
        let (data, bias) = (&self.data[block * self.taps * S::LANES..], &self.bias[block * S::LANES..]);
        (data.as_ptr(), bias.as_ptr())
    }
}

/// A depthwise convolution with resolved addresses.
#[derive(Debug)]
pub(crate) struct Depthwise {
    pub(crate) weights: DepthwiseWeights,
    pub(crate) window: Window,
    pub(crate) epilogue: Epilogue,
    pub(crate) src: View,
    pub(crate) dst: View,
    pub(crate) residual: Option<View>,
    /// Destination of the sums over the columns, `[C, H, 1]`, for a mean of the result.
    pub(crate) sums: Option<View>,
}

impl Depthwise {
    /// Kernel size and channels, for descriptions.
    pub(crate) fn describe(&self) -> String {
        let ([kh, kw], View { channels, height, width, .. }) = (self.window.kernel, self.dst);
        format!("depthwise {kh}x{kw} {channels} at {height}x{width}")
    }

    /// Runs for `images` images, shared among the threads of the current pool.
    ///
    /// # Safety
    /// The arena must hold this plan's tensors for that many images, and nobody else may use them during the run.
    pub(crate) unsafe fn run(&self, token: Token, arena: Arena, images: usize, team: &Team) {
        let cost = self.window.kernel[0] * self.window.kernel[1];
        team.for_each_region(&self.dst, images, cost, |region| {
            token.dispatch(RegionKernel { plan: self, arena, region });
            // SAFETY: the caller's promise, and regions do not overlap.
            unsafe { arena.clear_halo(&self.dst, region) };
        });
    }
}

/// Destination of the rows of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// Column 0 of the first row.
    pub(super) first: *mut f32,
    /// Distance of rows.
    pub(super) row: usize,
}

struct RegionKernel<'a> {
    plan: &'a Depthwise,
    arena: Arena,
    region: Region,
}

impl Kernel for RegionKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { plan, arena, region } = self;
        // SAFETY: the caller of `Depthwise::run` promises the arena; the region lies inside its tensor.
        unsafe {
            let first = arena.block(&plan.dst, region.image, region.block).add(plan.dst.at(region.y0, 0));
            plan.rows(s, arena, region, Target { first, row: plan.dst.row });
        }
    }
}

impl Depthwise {
    /// Computes the rows of a region.
    ///
    /// # Safety
    /// As for [`run`](Self::run), with a region inside the tensor and a target that holds its rows.
    #[inline(always)]
    pub(super) unsafe fn rows<S: Simd>(&self, s: S, arena: Arena, region: Region, target: Target) {
        let Depthwise { weights, window, epilogue, src, dst, residual, sums } = self;
        let Region { image, block, y0, y1 } = region;
        let corner = src.origin - window.padding.top * src.row - window.padding.left * src.pixel;
        // SAFETY: output positions lie inside the target and `residual`, which has its shape; the window of each lies
        // inside `src`, whose halo is at least as wide as the padding. The caller promises the arena.
        unsafe {
            let (taps, bias) = weights.block::<S>(block);
            let input = arena.block(src, image, block).add(corner);
            let rows = Rows {
                count: y1 - y0,
                input: input.add(y0 * window.stride[0] * src.row),
                input_row: src.row,
                ring: Ring::NONE,
                taps,
                bias,
                kernel: window.kernel,
                stride: window.stride,
                epilogue,
                residual: residual
                    .map_or(std::ptr::null(), |view| arena.block(&view, image, block).add(view.at(y0, 0)).cast_const()),
                residual_row: residual.map_or(0, |view| view.row),
                target,
                width: dst.width,
                sums: sums.map_or(std::ptr::null_mut(), |view| arena.block(&view, image, block).add(view.at(y0, 0))),
                sums_row: sums.map_or(0, |view| view.row),
            };
            rows.run(s);
        }
    }
}

/// The order of input rows in memory: in a ring or consecutive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    /// Rows of the ring; `usize::MAX` where there is none.
    pub(super) height: usize,
    /// Position in the ring of the first row of the first window.
    pub(super) place: usize,
}

impl Ring {
    /// Consecutive rows.
    pub(super) const NONE: Self = Self { height: usize::MAX, place: 0 };
}

/// Some rows of the output of one block.
pub(super) struct Rows<'a> {
    /// Number of rows.
    pub(super) count: usize,
    /// Start of the first column's window in the first row of the ring.
    pub(super) input: *const f32,
    /// Distance of input rows.
    pub(super) input_row: usize,
    pub(super) ring: Ring,
    /// Weights `[kh][kw][b]`.
    pub(super) taps: *const f32,
    /// Bias `[b]`.
    pub(super) bias: *const f32,
    pub(super) kernel: [usize; 2],
    /// Rows and columns between neighbouring windows.
    pub(super) stride: [usize; 2],
    pub(super) epilogue: &'a Epilogue,
    /// Tensor added before the activation, or null, and the distance of its rows.
    pub(super) residual: *const f32,
    pub(super) residual_row: usize,
    pub(super) target: Target,
    /// Output columns.
    pub(super) width: usize,
    /// Destination of the sums over the columns, or null, and the distance of their rows.
    pub(super) sums: *mut f32,
    pub(super) sums_row: usize,
}

impl Rows<'_> {
    /// Computes the rows.
    ///
    /// # Safety
    /// The addresses must be valid for the window of every position.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, s: S) {
        match (self.stride[1], self.sums.is_null()) {
            (1, true) => s.vectorize(RowsKernel::<1, false>(self)),
            (1, false) => s.vectorize(RowsKernel::<1, true>(self)),
            (2, true) => s.vectorize(RowsKernel::<2, false>(self)),
            (2, false) => s.vectorize(RowsKernel::<2, true>(self)),
            (_, true) => s.vectorize(RowsKernel::<0, false>(self)),
            (_, false) => s.vectorize(RowsKernel::<0, true>(self)),
        }
    }
}

/// Rows with their stride (0: dynamic) and whether to compute their sums.
struct RowsKernel<'a, const STRIDE: usize, const SUM: bool>(&'a Rows<'a>);

impl<const STRIDE: usize, const SUM: bool> Kernel for RowsKernel<'_, STRIDE, SUM> {
    type Output = ();

    /// Cuts each row into groups of nearly equal width: a narrow group would stall on the latency of its sums.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let rows = self.0;
        let most = if STRIDE == 0 { DYNAMIC_COLUMNS } else { columns_of::<S>() };
        let groups = rows.width.div_ceil(most);
        let (shortest, longer) = (rows.width / groups, rows.width % groups);
        let Ring { height, mut place } = rows.ring;
        for y in 0..rows.count {
            let mut row = Row {
                rows,
                input: rows.input.wrapping_add(place * rows.input_row),
                before: height - place,
                output: rows.target.first.wrapping_add(y * rows.target.row),
                residual: rows.residual,
            };
            if !rows.residual.is_null() {
                row.residual = rows.residual.wrapping_add(y * rows.residual_row);
            }
            let mut sum = s.splat(0.0);
            let mut x = 0;
            for group in 0..groups {
                let columns = if group < longer { shortest + 1 } else { shortest };
                macro_rules! widths {
                    ($($n:literal)*) => {
                        match columns {
                            $($n if $n <= columns_of::<S>() && (STRIDE != 0 || $n <= DYNAMIC_COLUMNS) => {
                                // SAFETY: whoever calls `Rows::run` promises the addresses.
                                unsafe { row.columns::<S, $n, STRIDE, SUM>(s, x, &mut sum) };
                            })*
                            _ => unreachable!("groups are cut for the register file of the instruction set"),
                        }
                    };
                }
                widths!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                x += columns;
            }
            if SUM {
                // SAFETY: as above.
                unsafe { s.store(rows.sums.add(y * rows.sums_row), sum) };
            }
            place += rows.stride[0];
            if place >= height {
                place %= height;
            }
        }
    }
}

/// Columns of the widest group: its sums take half of the registers or slightly fewer (`Portable` uses two each).
const fn columns_of<S: Simd>() -> usize {
    if S::COLUMNS < 4 {
        4
    } else if S::COLUMNS < 14 {
        8
    } else {
        14
    }
}

/// Columns of the widest group with a dynamic stride.
const DYNAMIC_COLUMNS: usize = 4;

/// One row of the output.
struct Row<'a> {
    rows: &'a Rows<'a>,
    /// The first value that the window of the first column reads.
    input: *const f32,
    /// Rows of the window before the one at the start of the ring.
    before: usize,
    output: *mut f32,
    residual: *const f32,
}

impl Row<'_> {
    /// Computes `N` columns from column `x` on and adds them to `sum`.
    ///
    /// # Safety
    /// As for [`Rows::run`].
    #[inline(always)]
    unsafe fn columns<S: Simd, const N: usize, const STRIDE: usize, const SUM: bool>(
        &self,
        s: S,
        x: usize,
        sum: &mut S::V,
    ) {
        let Rows { input_row, ring, kernel: [kh, kw], epilogue, .. } = *self.rows;
        let stride = if STRIDE == 0 { self.rows.stride[1] } else { STRIDE };
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [s.load(self.rows.bias); N];
            let input = self.input.add(x * stride * S::LANES);
            let mut taps = self.rows.taps;
            for ky in 0..kh {
                let back = if ky < self.before { 0 } else { ring.height * input_row };
                let mut from = input.wrapping_add(ky * input_row).wrapping_sub(back);
                for _ in 0..kw {
                    let w = s.load(taps);
                    for j in 0..N {
                        sums[j] = s.fma(s.load(from.add(j * stride * S::LANES)), w, sums[j]);
                    }
                    taps = taps.add(S::LANES);
                    from = from.wrapping_add(S::LANES);
                }
            }
            if !self.residual.is_null() {
                for j in 0..N {
                    sums[j] = s.add(sums[j], s.load(self.residual.add((x + j) * S::LANES)));
                }
            }
            let (low, high) = (s.splat(epilogue.low), s.splat(epilogue.high));
            for j in 0..N {
                let value = s.min(high, s.max(low, sums[j]));
                s.store(self.output.add((x + j) * S::LANES), value);
                if SUM && epilogue.curve.is_none() {
                    *sum = s.add(*sum, value);
                }
            }
            // A separate loop that the compiler does not unroll; otherwise the sums above would not stay in registers.
            if let Some(curve) = epilogue.curve {
                for j in 0..N {
                    let output = self.output.add((x + j) * S::LANES);
                    let value = curve.apply(s, s.load(output));
                    s.store(output, value);
                    if SUM {
                        *sum = s.add(*sum, value);
                    }
                }
            }
        }
    }
}
