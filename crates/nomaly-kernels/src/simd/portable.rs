//! [`Simd`] in plain Rust: eight lanes in an array, which the compiler maps to the target's baseline instructions.
//!
//! `fma` is a product and a sum: without the instruction a fused multiply-add is a slow library call.

use super::{Kernel, Simd};

/// Requires no special instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

#[inline(always)]
fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
    let mut out = a;
    for i in 0..8 {
        out[i] = f(a[i], b[i]);
    }
    out
}

#[inline(never)]
fn enter<K: Kernel>(simd: Portable, kernel: K) -> K::Output {
    kernel.run(simd)
}

impl Simd for Portable {
    type V = [f32; 8];
    const LANES: usize = 8;
    // With the 4-lane registers of the x86-64 baseline, 2 columns x 2 blocks are 8 of 16 registers.
    const COLUMNS: usize = 2;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        enter(self, kernel)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; 8] {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> [f32; 8] {
        // SAFETY: the caller promises 8 readable values; the read asks for no alignment.
        unsafe { from.cast::<[f32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, value: [f32; 8]) {
        // SAFETY: the caller promises 8 writable values; the write asks for no alignment.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(value) }
    }

    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn max(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn pow2(self, exponent: [f32; 8]) -> [f32; 8] {
        zip(exponent, exponent, |e, _| f32::from_bits(((e as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn sqrt(self, value: [f32; 8]) -> [f32; 8] {
        zip(value, value, |v, _| v.sqrt())
    }

    #[inline(always)]
    fn where_positive(self, test: [f32; 8], value: [f32; 8]) -> [f32; 8] {
        zip(test, value, |t, v| if t > 0.0 { v } else { 0.0 })
    }

    #[inline(always)]
    fn select(self, test: [f32; 8], positive: [f32; 8], otherwise: [f32; 8]) -> [f32; 8] {
        let mut out = otherwise;
        for i in 0..8 {
            out[i] = if test[i] > 0.0 { positive[i] } else { otherwise[i] };
        }
        out
    }

    #[inline(always)]
    fn deinterleave(self, a: [f32; 8], b: [f32; 8]) -> [[f32; 8]; 2] {
        let at = |i: usize| if i < 8 { a[i] } else { b[i - 8] };
        [0, 1].map(|first| std::array::from_fn(|i| at(2 * i + first)))
    }

    #[inline(always)]
    fn interleave(self, even: [f32; 8], odd: [f32; 8]) -> [[f32; 8]; 2] {
        [0, 4].map(|first| std::array::from_fn(|i| [even, odd][i % 2][first + i / 2]))
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize) {
        for i in 0..8 {
            for j in 0..8 {
                // SAFETY: the caller promises the rows and the columns.
                unsafe { to.add(j * to_step + i).write(from.add(i * from_step + j).read()) };
            }
        }
    }
}
