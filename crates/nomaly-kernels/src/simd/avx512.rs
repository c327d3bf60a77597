//! [`Simd`] with AVX-512F: 16 lanes, 32 registers.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// The proof that the processor has AVX-512F.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// `Some` if the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

/// # Safety
/// The processor must have AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn enter<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
    kernel.run(simd)
}

impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    // 14 columns x 2 blocks are 28 accumulators; with 2 weights and 1 input that is 31 of 32 registers.
    const COLUMNS: usize = 14;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { enter(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: as above; the caller promises 16 readable values.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: __m512) {
        // SAFETY: as above; the caller promises 16 writable values.
        unsafe { _mm512_storeu_ps(to, value) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn reciprocal(self, a: __m512) -> __m512 {
        // A division keeps its unit for 16 cycles; an estimate of 14 bits and a Newton step are three multiply-adds.
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe {
            let estimate = _mm512_rcp14_ps(a);
            let error = _mm512_fnmadd_ps(a, estimate, _mm512_set1_ps(1.0));
            _mm512_fmadd_ps(estimate, error, estimate)
        }
    }

    #[inline(always)]
    fn scale(self, a: __m512, exponent: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { _mm512_scalef_ps(a, exponent) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn pow2(self, exponent: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(exponent), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn sqrt(self, value: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { _mm512_sqrt_ps(value) }
    }

    #[inline(always)]
    fn where_positive(self, test: __m512, value: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(test, _mm512_setzero_ps()), value) }
    }

    #[inline(always)]
    fn select(self, test: __m512, positive: __m512, otherwise: __m512) -> __m512 {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe {
            let greater = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(test, _mm512_setzero_ps());
            _mm512_mask_blend_ps(greater, otherwise, positive)
        }
    }

    #[inline(always)]
    fn deinterleave(self, a: __m512, b: __m512) -> [__m512; 2] {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            [_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b)]
        }
    }

    #[inline(always)]
    fn interleave(self, even: __m512, odd: __m512) -> [__m512; 2] {
        // SAFETY: `self` exists only where the processor has AVX-512F.
        unsafe {
            let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let second = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            [_mm512_permutex2var_ps(even, first, odd), _mm512_permutex2var_ps(even, second, odd)]
        }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        // SAFETY: `self` exists only where the processor has AVX-512F; the caller promises rows and columns.
        unsafe {
            let mut r = [_mm512_setzero_ps(); 16];
            for i in 0..16 {
                r[i] = _mm512_loadu_ps(from.add(i * from_step));
            }
            // Within quarters of a vector: r[4k + c] becomes column c of each quarter, rows 4k to 4k + 3.
            for k in (0..16).step_by(4) {
                let (a, b) = (_mm512_unpacklo_ps(r[k], r[k + 1]), _mm512_unpackhi_ps(r[k], r[k + 1]));
                let (c, d) = (_mm512_unpacklo_ps(r[k + 2], r[k + 3]), _mm512_unpackhi_ps(r[k + 2], r[k + 3]));
                let (a, b, c, d) = (_mm512_castps_pd(a), _mm512_castps_pd(b), _mm512_castps_pd(c), _mm512_castps_pd(d));
                r[k] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
                r[k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
                r[k + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
                r[k + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
            }
            // Then whole quarters: even ones (0x88) and odd ones (0xdd) of two vectors.
            for c in 0..4 {
                let even = _mm512_shuffle_f32x4::<0x88>(r[c], r[4 + c]);
                let odd = _mm512_shuffle_f32x4::<0xdd>(r[c], r[4 + c]);
                let even_below = _mm512_shuffle_f32x4::<0x88>(r[8 + c], r[12 + c]);
                let odd_below = _mm512_shuffle_f32x4::<0xdd>(r[8 + c], r[12 + c]);
                _mm512_storeu_ps(to.add(c * to_step), _mm512_shuffle_f32x4::<0x88>(even, even_below));
                _mm512_storeu_ps(to.add((4 + c) * to_step), _mm512_shuffle_f32x4::<0x88>(odd, odd_below));
                _mm512_storeu_ps(to.add((8 + c) * to_step), _mm512_shuffle_f32x4::<0xdd>(even, even_below));
                _mm512_storeu_ps(to.add((12 + c) * to_step), _mm512_shuffle_f32x4::<0xdd>(odd, odd_below));
            }
        }
    }

    #[inline(always)]
    fn prefetch(self, line: *const f32) {
        // SAFETY: a hint that never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) }
    }
}
