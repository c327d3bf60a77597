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
use crate::network::plan::Window;
use crate::simd::{Kernel, Simd, Token};
use crate::team::Team;

/// Weights `[C / b][kh][kw][b]` and bias `[C / b][b]`.
#[derive(Debug)]
pub(crate) struct DepthwiseWeights {
    data: AlignedBuf,
    bias: AlignedBuf,
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
        Self { data, bias: padded_bias }
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
        match self.plan.window.stride[1] {
            1 => self.rows::<S, 1>(s),
            2 => self.rows::<S, 2>(s),
            _ => self.rows::<S, 0>(s),
        }
    }
}

impl RegionKernel<'_> {
    #[inline(always)]
    fn rows<S: Simd, const STRIDE: usize>(&self, s: S) {
        for y in self.region.y0..self.region.y1 {
            let mut x = self.columns::<S, 8, STRIDE>(s, y, 0);
            x = self.columns::<S, 4, STRIDE>(s, y, x);
            x = self.columns::<S, 2, STRIDE>(s, y, x);
            self.columns::<S, 1, STRIDE>(s, y, x);
        }
    }

    /// Computes as many groups of `N` columns of row `y` from column `x` on as fit; returns the first column left.
    #[inline(always)]
    fn columns<S: Simd, const N: usize, const STRIDE: usize>(&self, s: S, y: usize, mut x: usize) -> usize {
        let Depthwise { weights, window, epilogue, src, dst, residual } = self.plan;
        let Region { image, block, .. } = self.region;
        let [kh, kw] = window.kernel;
        let stride = if STRIDE == 0 { window.stride[1] } else { STRIDE };
        let corner = src.origin - window.padding.top * src.row - window.padding.left * src.pixel;
        // SAFETY: output positions lie inside `dst` and `residual`, which has its shape; the window of each lies inside
        // `src`, whose halo is at least as wide as the padding. The caller of `Depthwise::run` promises the arena.
        unsafe {
            let taps = weights.data.as_ptr().add(block * kh * kw * S::LANES);
            let bias = s.load(weights.bias.as_ptr().add(block * S::LANES));
            let input = self.arena.block(src, image, block).add(corner + y * window.stride[0] * src.row);
            let output = self.arena.block(dst, image, block);
            while x + N <= dst.width {
                let mut sums = [bias; N];
                let input = input.add(x * stride * S::LANES);
                for ky in 0..kh {
                    for kx in 0..kw {
                        let w = s.load(taps.add((ky * kw + kx) * S::LANES));
                        let from = input.add(ky * src.row + kx * S::LANES);
                        for j in 0..N {
                            sums[j] = s.fma(s.load(from.add(j * stride * S::LANES)), w, sums[j]);
                        }
                    }
                }
                if let Some(view) = residual {
                    let from = self.arena.block(view, image, block).add(view.at(y, x));
                    for j in 0..N {
                        sums[j] = s.add(sums[j], s.load(from.add(j * S::LANES)));
                    }
                }
                let to = output.add(dst.at(y, x));
                for j in 0..N {
                    s.store(to.add(j * S::LANES), epilogue.apply(s, sums[j]));
                }
                x += N;
            }
        }
        x
    }
}
