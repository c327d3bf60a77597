//! [`Simd`] with Advanced SIMD (NEON) of AArch64: 4 lanes, 32 registers.

// NEON belongs to the baseline of most AArch64 targets, and there the intrinsics are safe to call.
#![allow(unused_unsafe)]

use std::arch::aarch64::*;

use super::{Kernel, Simd};

/// The proof that the processor has NEON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

impl Neon {
    /// `Some` if the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

/// # Safety
/// The processor must have NEON.
#[target_feature(enable = "neon")]
unsafe fn enter<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
    kernel.run(simd)
}

impl Simd for Neon {
    type V = float32x4_t;
    const LANES: usize = 4;
    // 14 columns x 2 blocks are 28 accumulators; with 2 weights and 1 input that is 31 of 32 registers.
    const COLUMNS: usize = 14;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { enter(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { vdupq_n_f32(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> float32x4_t {
        // SAFETY: as above; the caller promises 4 readable values.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: float32x4_t) {
        // SAFETY: as above; the caller promises 4 writable values.
        unsafe { vst1q_f32(to, value) }
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { vdivq_f32(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { vmaxq_f32(a, b) }
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { vminq_f32(a, b) }
    }

    #[inline(always)]
    fn pow2(self, exponent: float32x4_t) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe {
            let biased = vaddq_s32(vcvtnq_s32_f32(exponent), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        }
    }

    #[inline(always)]
    fn sqrt(self, value: float32x4_t) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { vsqrtq_f32(value) }
    }

    #[inline(always)]
    fn where_positive(self, test: float32x4_t, value: float32x4_t) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { vreinterpretq_f32_u32(vandq_u32(vcgtzq_f32(test), vreinterpretq_u32_f32(value))) }
    }

    #[inline(always)]
    fn select(self, test: float32x4_t, positive: float32x4_t, otherwise: float32x4_t) -> float32x4_t {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { vbslq_f32(vcgtzq_f32(test), positive, otherwise) }
    }

    #[inline(always)]
    fn deinterleave(self, a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { [vuzp1q_f32(a, b), vuzp2q_f32(a, b)] }
    }

    #[inline(always)]
    fn interleave(self, even: float32x4_t, odd: float32x4_t) -> [float32x4_t; 2] {
        // SAFETY: `self` exists only where the processor has NEON.
        unsafe { [vzip1q_f32(even, odd), vzip2q_f32(even, odd)] }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: `self` exists only where the processor has NEON; the caller promises rows and columns.
        unsafe {
            let r = [0, 1, 2, 3].map(|i| vld1q_f32(from.add(i * from_step)));
            // Pairs of rows first, then pairs of pairs as 64-bit lanes.
            let (a, b) = (vtrn1q_f32(r[0], r[1]), vtrn2q_f32(r[0], r[1]));
            let (c, d) = (vtrn1q_f32(r[2], r[3]), vtrn2q_f32(r[2], r[3]));
            let [a, b, c, d] = [a, b, c, d].map(|v| vreinterpretq_f64_f32(v));
            let columns = [vtrn1q_f64(a, c), vtrn1q_f64(b, d), vtrn2q_f64(a, c), vtrn2q_f64(b, d)];
            for (j, column) in columns.into_iter().enumerate() {
                vst1q_f32(to.add(j * to_step), vreinterpretq_f32_f64(column));
            }
        }
    }
}
