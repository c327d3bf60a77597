//! Depthwise (groups = channels) convolution.
//!
//! **The problem.** Each output channel sees one input channel, so nothing is reused between channels and the
//! arithmetic is limited by loads: one input vector for each multiply-add.
//!
//! **The design.** In the blocked layout the lanes of a vector are the channels, so the convolution is vertical: up to 14
//! neighbouring output columns share each weight vector, and inputs come as memory operands of the multiply-add.
//! Strides 1 and 2 have instantiations of their own; others are computed with the distance from a register.
//!
//! **Eligible** is every convolution with groups = input channels = output channels.

use crate::blocked::{Arena, Region, View};
use crate::buffer::AlignedBuf;
use crate::epilogue::{Curve, Epilogue};
use crate::simd::{Kernel, Simd, Token, sigmoid, silu};
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
    /// Where the sums over the columns go, `[C, H, 1]`, for a mean that is taken of the result.
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
    /// The arena must hold this plan's tensors for that many images, and nobody else may use them meanwhile.
    pub(crate) unsafe fn run(&self, token: Token, arena: Arena, images: usize, team: &Team) {
        let cost = self.window.kernel[0] * self.window.kernel[1];
        team.for_each_region(&self.dst, images, cost, |region| {
            token.dispatch(RegionKernel { plan: self, arena, region });
            // SAFETY: the caller's promise, and regions do not overlap.
            unsafe { arena.clear_halo(&self.dst, region) };
        });
    }
}

/// Where the rows of one block go.
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
            for y in y0..y1 {
                let residual = residual.map(|view| arena.block(&view, image, block).add(view.at(y, 0)).cast_const());
                let row = Row {
                    input: input.add(y * window.stride[0] * src.row),
                    input_row: src.row,
                    ring: Ring::NONE,
                    taps,
                    bias,
                    kernel: window.kernel,
                    stride: window.stride[1],
                    epilogue,
                    residual: residual.unwrap_or(std::ptr::null()),
                    output: target.first.add((y - y0) * target.row),
                    width: dst.width,
                    sum: sums.map_or(std::ptr::null_mut(), |view| arena.block(&view, image, block).add(view.at(y, 0))),
                };
                row.run(s);
            }
        }
    }
}

/// Rows of input of which each takes the place of the one `rows` before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    /// Values from the first row to behind the last.
    pub(super) length: usize,
    /// Rows of the window before the one that lies at the start.
    pub(super) before: usize,
}

impl Ring {
    /// Rows that simply follow each other.
    pub(super) const NONE: Self = Self { length: 0, before: usize::MAX };
}

/// One row of the output of one block.
pub(super) struct Row<'a> {
    /// The first value that the window of the first column reads.
    pub(super) input: *const f32,
    /// Distance of input rows.
    pub(super) input_row: usize,
    pub(super) ring: Ring,
    /// Weights `[kh][kw][b]`.
    pub(super) taps: *const f32,
    /// Bias `[b]`.
    pub(super) bias: *const f32,
    pub(super) kernel: [usize; 2],
    /// Columns between neighbouring windows.
    pub(super) stride: usize,
    pub(super) epilogue: &'a Epilogue,
    /// The row that is added before the activation, or null.
    pub(super) residual: *const f32,
    pub(super) output: *mut f32,
    /// Output columns.
    pub(super) width: usize,
    /// Where the sum over the columns goes, or null.
    pub(super) sum: *mut f32,
}

impl Row<'_> {
    /// Computes the row.
    ///
    /// # Safety
    /// The addresses must be valid for the window of every column.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, s: S) {
        match (self.stride, self.sum.is_null()) {
            (1, true) => s.vectorize(RowKernel::<1, false>(self)),
            (1, false) => s.vectorize(RowKernel::<1, true>(self)),
            (2, true) => s.vectorize(RowKernel::<2, false>(self)),
            (2, false) => s.vectorize(RowKernel::<2, true>(self)),
            (_, true) => s.vectorize(RowKernel::<0, false>(self)),
            (_, false) => s.vectorize(RowKernel::<0, true>(self)),
        }
    }
}

/// A row with its stride (0: any) and whether its sum is wanted.
struct RowKernel<'a, const STRIDE: usize, const SUM: bool>(&'a Row<'a>);

impl<const STRIDE: usize, const SUM: bool> Kernel for RowKernel<'_, STRIDE, SUM> {
    type Output = ();

    /// Cuts the row into groups of nearly equal width: a short group waits for its own sums.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let row = self.0;
        let most = if STRIDE == 0 { DYNAMIC_COLUMNS } else { columns_of::<S>() };
        let groups = row.width.div_ceil(most);
        let (shortest, longer) = (row.width / groups, row.width % groups);
        let mut sum = s.splat(0.0);
        let mut x = 0;
        for group in 0..groups {
            let columns = if group < longer { shortest + 1 } else { shortest };
            macro_rules! widths {
                ($($n:literal)*) => {
                    match columns {
                        $($n if $n <= columns_of::<S>() && (STRIDE != 0 || $n <= DYNAMIC_COLUMNS) => {
                            // SAFETY: whoever calls `Row::run` promises the addresses.
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
            unsafe { s.store(row.sum, sum) };
        }
    }
}

/// Columns of the widest group: half as many as there are registers, or a little less.
const fn columns_of<S: Simd>() -> usize {
    if S::COLUMNS < 14 { 8 } else { 14 }
}

/// Columns of the widest group with a stride that is not a constant.
const DYNAMIC_COLUMNS: usize = 4;

impl Row<'_> {
    /// Computes `N` columns from column `x` on and adds them to `sum`.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn columns<S: Simd, const N: usize, const STRIDE: usize, const SUM: bool>(
        &self,
        s: S,
        x: usize,
        sum: &mut S::V,
    ) {
        let stride = if STRIDE == 0 { self.stride } else { STRIDE };
        let [kh, kw] = self.kernel;
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [s.load(self.bias); N];
            let input = self.input.add(x * stride * S::LANES);
            for ky in 0..kh {
                let back = if ky < self.ring.before { 0 } else { self.ring.length };
                let from = input.wrapping_add(ky * self.input_row).wrapping_sub(back);
                for kx in 0..kw {
                    let w = s.load(self.taps.add((ky * kw + kx) * S::LANES));
                    let from = from.add(kx * S::LANES);
                    for j in 0..N {
                        sums[j] = s.fma(s.load(from.add(j * stride * S::LANES)), w, sums[j]);
                    }
                }
            }
            if !self.residual.is_null() {
                for j in 0..N {
                    sums[j] = s.add(sums[j], s.load(self.residual.add((x + j) * S::LANES)));
                }
            }
            // A loop for each activation, or the sums leave their registers for the choice in every column.
            match self.epilogue.curve {
                None => {
                    for j in 0..N {
                        sums[j] = self.epilogue.clamp(s, sums[j]);
                    }
                }
                Some(Curve::Silu) => {
                    for j in 0..N {
                        sums[j] = silu(s, sums[j]);
                    }
                }
                Some(Curve::Sigmoid) => {
                    for j in 0..N {
                        sums[j] = sigmoid(s, sums[j]);
                    }
                }
            }
            for j in 0..N {
                s.store(self.output.add((x + j) * S::LANES), sums[j]);
                if SUM {
                    *sum = s.add(*sum, sums[j]);
                }
            }
        }
    }
}
