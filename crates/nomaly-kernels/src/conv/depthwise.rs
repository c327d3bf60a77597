//! Depthwise (groups = channels) convolution.
//!
//! **The problem.** Each output channel sees one input channel, so nothing is reused between channels and the
//! arithmetic is limited by loads: one input vector for each multiply-add.
//!
//! **The design.** In the blocked layout the lanes of a vector are the channels, so the convolution is vertical: up to
//! eight neighbouring output columns share each weight vector, and inputs come as memory operands of the multiply-add.
//! Strides 1 and 2 have instantiations of their own; others are computed with the distance from a register.
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

struct RegionKernel<'a> {
    plan: &'a Depthwise,
    arena: Arena,
    region: Region,
}

impl Kernel for RegionKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Depthwise { weights, window, epilogue, src, dst, residual, sums } = self.plan;
        let Region { image, block, y0, y1 } = self.region;
        let corner = src.origin - window.padding.top * src.row - window.padding.left * src.pixel;
        // SAFETY: output positions lie inside `dst` and `residual`, which has its shape; the window of each lies inside
        // `src`, whose halo is at least as wide as the padding. The caller of `Depthwise::run` promises the arena.
        unsafe {
            let (taps, bias) = weights.block::<S>(block);
            let input = self.arena.block(src, image, block).add(corner);
            let output = self.arena.block(dst, image, block);
            for y in y0..y1 {
                let residual =
                    residual.map(|view| self.arena.block(&view, image, block).add(view.at(y, 0)).cast_const());
                let row = Row {
                    input: input.add(y * window.stride[0] * src.row),
                    input_row: src.row,
                    taps,
                    bias,
                    kernel: window.kernel,
                    stride: window.stride[1],
                    epilogue,
                    residual: residual.unwrap_or(std::ptr::null()),
                    output: output.add(dst.at(y, 0)),
                    width: dst.width,
                };
                let sum = row.run(s, Sums(sums.is_some()));
                if let Some(view) = sums {
                    s.store(self.arena.block(view, image, block).add(view.at(y, 0)), sum);
                }
            }
        }
    }
}

/// Whether the sum of a row is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums(pub(super) bool);

/// One row of the output of one block.
pub(super) struct Row<'a> {
    /// The first value that the window of the first column reads.
    pub(super) input: *const f32,
    /// Distance of input rows.
    pub(super) input_row: usize,
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
}

impl Row<'_> {
    /// Computes the row; returns the sum of its columns if it is wanted, or zero.
    ///
    /// # Safety
    /// All windows, the residual and the output must be valid.
    #[inline(always)]
    pub(super) unsafe fn run<S: Simd>(&self, s: S, sums: Sums) -> S::V {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.stride, sums.0) {
                (1, false) => self.groups::<S, 1, false>(s),
                (1, true) => self.groups::<S, 1, true>(s),
                (2, false) => self.groups::<S, 2, false>(s),
                (2, true) => self.groups::<S, 2, true>(s),
                _ => self.groups::<S, 0, true>(s),
            }
        }
    }

    /// # Safety
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn groups<S: Simd, const STRIDE: usize, const SUM: bool>(&self, s: S) -> S::V {
        let mut sum = s.splat(0.0);
        let mut x = 0;
        // SAFETY: the caller's promise.
        unsafe {
            x = self.columns::<S, 8, STRIDE, SUM>(s, x, &mut sum);
            x = self.columns::<S, 4, STRIDE, SUM>(s, x, &mut sum);
            x = self.columns::<S, 2, STRIDE, SUM>(s, x, &mut sum);
            self.columns::<S, 1, STRIDE, SUM>(s, x, &mut sum);
        }
        sum
    }

    /// Computes as many groups of `N` columns from column `x` on as fit; returns the first column left.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn columns<S: Simd, const N: usize, const STRIDE: usize, const SUM: bool>(
        &self,
        s: S,
        mut x: usize,
        sum: &mut S::V,
    ) -> usize {
        let stride = if STRIDE == 0 { self.stride } else { STRIDE };
        let [kh, kw] = self.kernel;
        // SAFETY: the caller's promise.
        unsafe {
            let bias = s.load(self.bias);
            while x + N <= self.width {
                let mut sums = [bias; N];
                let input = self.input.add(x * stride * S::LANES);
                for ky in 0..kh {
                    for kx in 0..kw {
                        let w = s.load(self.taps.add((ky * kw + kx) * S::LANES));
                        let from = input.add(ky * self.input_row + kx * S::LANES);
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
                for j in 0..N {
                    let value = self.epilogue.apply(s, sums[j]);
                    s.store(self.output.add((x + j) * S::LANES), value);
                    if SUM {
                        *sum = s.add(*sum, value);
                    }
                }
                x += N;
            }
        }
        x
    }
}
