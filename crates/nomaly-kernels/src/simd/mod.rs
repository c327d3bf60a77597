//! A small vector interface, implemented once per instruction set.
//!
//! A kernel is written once, generic over [`Simd`], with every function `#[inline(always)]`, and is entered through
//! [`Simd::vectorize`], which is compiled with the set's `#[target_feature]`s: the generic body is inlined there and
//! becomes plain vector code. A value of a [`Simd`] type proves that the processor has the instructions, because its
//! constructor checks; that is why the arithmetic methods are safe.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
// Only x86-64 has an implementation outside of tests.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
mod bytes;
mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

pub(crate) use bytes::{ByteKernel, ByteToken, Bytes};
pub(crate) use math::{
    GELU_CUBIC, GELU_LINEAR, exp_of_negative, gelu, gelu_tanh, leaky_relu, ln_1p_of_share, normal, sigmoid, silu, tanh,
};

use crate::isa::{Isa, IsaError};

/// A computation that is generic over the instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// Computes; implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// A vector of f32 of one instruction set; the value itself is the proof that the processor has it.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// The vector.
    type V: Copy;

    /// Values in a vector: the block of the blocked layout.
    const LANES: usize;

    /// Output columns of the widest convolution tile of two channel blocks that the registers hold.
    const COLUMNS: usize;

    /// Runs `kernel` compiled for this instruction set, in a function of its own.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    /// The same value in every lane.
    fn splat(self, value: f32) -> Self::V;

    /// Reads `LANES` values.
    ///
    /// # Safety
    /// `from` must be valid for reading `LANES` values; it need not be aligned.
    unsafe fn load(self, from: *const f32) -> Self::V;

    /// Writes `LANES` values.
    ///
    /// # Safety
    /// `to` must be valid for writing `LANES` values; it need not be aligned.
    unsafe fn store(self, to: *mut f32, value: Self::V);

    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;

    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;

    /// `1 / a` within two units in the last place, for normal `a` whose reciprocal is normal; NaN stays NaN.
    #[inline(always)]
    fn reciprocal(self, a: Self::V) -> Self::V {
        self.div(self.splat(1.0), a)
    }

    /// `a * 2^exponent`, for integers in [-126, 127].
    #[inline(always)]
    fn scale(self, a: Self::V, exponent: Self::V) -> Self::V {
        self.mul(a, self.pow2(exponent))
    }

    /// `a * b + c`, with one rounding where the instruction set has a fused form.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;

    /// The larger; `b` if it is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;

    /// The smaller; `b` if it is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;

    /// 2 to the power of an integer in -126..=127 that is held as a float.
    fn pow2(self, exponent: Self::V) -> Self::V;

    /// The square root.
    fn sqrt(self, value: Self::V) -> Self::V;

    /// `value` where `test` is greater than zero, elsewhere zero.
    fn where_positive(self, test: Self::V, value: Self::V) -> Self::V;

    /// `positive` where `test` is greater than zero, elsewhere `otherwise`.
    fn select(self, test: Self::V, positive: Self::V, otherwise: Self::V) -> Self::V;

    /// Divides 2 · `LANES` values, those of `a` and then those of `b`, into the even and the odd ones.
    fn deinterleave(self, a: Self::V, b: Self::V) -> [Self::V; 2];

    /// The opposite of [`Simd::deinterleave`].
    fn interleave(self, even: Self::V, odd: Self::V) -> [Self::V; 2];

    /// Transposes a square of `LANES` by `LANES` values: row i is read at `from + i * from_step`, column j is written
    /// at `to + j * to_step`.
    ///
    /// # Safety
    /// Each row must be valid for reading and each place of a column for writing `LANES` values, unaligned; the two
    /// squares must not overlap.
    unsafe fn transpose(self, from: *const f32, from_step: usize, to: *mut f32, to_step: usize);

    /// Prefetches a cache line into the second-level cache; any address is allowed, none is accessed.
    #[inline(always)]
    fn prefetch(self, _line: *const f32) {}
}

/// The proof for one instruction set, chosen at run time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    Portable(portable::Portable),
}

impl Token {
    /// The proof that this processor has `isa`.
    pub(crate) fn new(isa: Isa) -> Result<Self, IsaError> {
        let token = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::Avx512::new().map(Token::Avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::Avx2::new().map(Token::Avx2),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::Neon::new().map(Token::Neon),
            Isa::Portable => Some(Token::Portable(portable::Portable)),
            #[allow(unreachable_patterns)] // The list above is complete on no single architecture.
            _ => None,
        };
        token.ok_or_else(|| IsaError::Unsupported { isa, available: Isa::available() })
    }

    /// Runs `kernel` with the instruction set that was chosen.
    pub(crate) fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(simd) => simd.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(simd) => simd.vectorize(kernel),
            Token::Portable(simd) => simd.vectorize(kernel),
        }
    }

    /// Output columns of the widest convolution tile.
    pub(crate) fn columns(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(_) => avx512::Avx512::COLUMNS,
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) => avx2::Avx2::COLUMNS,
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => neon::Neon::COLUMNS,
            Token::Portable(_) => portable::Portable::COLUMNS,
        }
    }

    /// The proof that this processor multiplies bytes too, with vectors of the same length.
    pub(crate) fn bytes(self) -> Option<ByteToken> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(simd) => bytes::Avx512Vnni::new(simd).map(ByteToken::Avx512),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(simd) => bytes::AvxVnni::new(simd).map(ByteToken::Avx2),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => None,
            Token::Portable(_) => None,
        }
    }

    /// Every implementation of byte products that this processor supports, and plain Rust, with their instruction sets.
    #[cfg(test)]
    pub(crate) fn every_bytes() -> Vec<(Isa, ByteToken)> {
        let bytes = |isa| Some((isa, Token::new(isa).ok()?.bytes()?));
        let all = Isa::available().into_iter().filter_map(bytes);
        all.chain([(Isa::Portable, ByteToken::Portable(bytes::PlainBytes))]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each operation on whole vectors: [`max`, `min`, `fma`, `pow2`, `sub`, `div`, `add`, `where_positive`,
    /// `sqrt`, `reciprocal`, `scale`, `select`].
    struct Ops<'a> {
        a: &'a [f32],
        b: &'a [f32],
        integers: &'a [f32],
    }

    impl Kernel for Ops<'_> {
        type Output = Vec<[f32; 12]>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let mut out = vec![[0.0f32; 12]; self.a.len()];
            let mut lane = [0.0f32; 16];
            for start in (0..self.a.len()).step_by(S::LANES) {
                // SAFETY: the slices are multiples of the longest vector (16), and `lane` holds one.
                let (a, b) = unsafe { (s.load(self.a.as_ptr().add(start)), s.load(self.b.as_ptr().add(start))) };
                // SAFETY: as above.
                let n = unsafe { s.load(self.integers.as_ptr().add(start)) };
                let results = [
                    s.max(a, b),
                    s.min(a, b),
                    s.fma(a, b, a),
                    s.pow2(n),
                    s.sub(a, b),
                    s.div(a, b),
                    s.add(a, s.mul(b, s.splat(0.5))),
                    s.where_positive(a, b),
                    s.sqrt(s.mul(a, a)),
                    s.reciprocal(a),
                    s.scale(b, n),
                    s.select(a, b, n),
                ];
                for (which, v) in results.into_iter().enumerate() {
                    // SAFETY: `lane` holds the longest vector.
                    unsafe { s.store(lane.as_mut_ptr(), v) };
                    for i in 0..S::LANES {
                        out[start + i][which] = lane[i];
                    }
                }
            }
            out
        }
    }

    #[test]
    fn every_instruction_set_agrees_with_scalars() {
        let a: Vec<f32> = (0..64).map(|i| (i as f32 - 31.3) * 1.7).collect();
        let b: Vec<f32> = (0..64).map(|i| ((i * 37 % 64) as f32 - 20.5) * 0.9).collect();
        let integers: Vec<f32> = a.iter().map(|a| a.round()).collect();
        for isa in Isa::available() {
            let out = Token::new(isa).expect("available").dispatch(Ops { a: &a, b: &b, integers: &integers });
            for (i, got) in out.iter().enumerate() {
                let (a, b) = (a[i], b[i]);
                let want = [
                    a.max(b),
                    a.min(b),
                    a.mul_add(b, a),
                    2.0f32.powi(a.round() as i32),
                    a - b,
                    a / b,
                    a + b * 0.5,
                    if a > 0.0 { b } else { 0.0 },
                    (a * a).sqrt(),
                    1.0 / a,
                    b * 2.0f32.powi(a.round() as i32),
                    if a > 0.0 { b } else { a.round() },
                ];
                for (which, (got, want)) in got.iter().zip(want).enumerate() {
                    let slack = match which {
                        2 => want.abs().max(a.abs()) * 3e-7,
                        9 => want.abs() * 2.0 * f32::EPSILON,
                        _ => 0.0,
                    };
                    assert!((got - want).abs() <= slack, "{isa} op {which} of {a} and {b}: {got}, expected {want}");
                }
            }
        }
    }

    /// Transposes the first square of a matrix of 20 columns into one of 18.
    struct Square<'a>(&'a [f32]);

    impl Kernel for Square<'_> {
        type Output = (usize, Vec<f32>);

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let mut out = vec![-1.0; 16 * 18];
            // SAFETY: both matrices have 16 rows, longer than the longest vector.
            unsafe { s.transpose(self.0.as_ptr(), 20, out.as_mut_ptr(), 18) };
            (S::LANES, out)
        }
    }

    #[test]
    fn every_instruction_set_transposes() {
        let matrix: Vec<f32> = (0..16 * 20).map(|i| i as f32).collect();
        for isa in Isa::available() {
            let (lanes, out) = Token::new(isa).expect("available").dispatch(Square(&matrix));
            for j in 0..16 {
                for i in 0..18 {
                    let want = if i < lanes && j < lanes { matrix[i * 20 + j] } else { -1.0 };
                    assert_eq!(out[j * 18 + i], want, "{isa} row {i} column {j}");
                }
            }
        }
    }

    /// 32 values divided into even and odd ones, and back.
    struct Alternate<'a>(&'a [f32]);

    impl Kernel for Alternate<'_> {
        type Output = (usize, [[f32; 32]; 2]);

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            assert!(self.0.len() >= 32);
            let mut out = [[0.0; 32]; 2];
            // SAFETY: all hold two of the longest vector.
            unsafe {
                let parts = s.deinterleave(s.load(self.0.as_ptr()), s.load(self.0.as_ptr().add(S::LANES)));
                let whole = s.interleave(parts[0], parts[1]);
                for (out, vectors) in out.iter_mut().zip([parts, whole]) {
                    s.store(out.as_mut_ptr(), vectors[0]);
                    s.store(out.as_mut_ptr().add(S::LANES), vectors[1]);
                }
            }
            (S::LANES, out)
        }
    }

    #[test]
    fn every_instruction_set_divides_into_even_and_odd() {
        let values: Vec<f32> = (0..32).map(|i| i as f32).collect();
        for isa in Isa::available() {
            let (lanes, [parts, whole]) = Token::new(isa).expect("available").dispatch(Alternate(&values));
            for i in 0..lanes {
                assert_eq!((parts[i], parts[lanes + i]), (2.0 * i as f32, 2.0 * i as f32 + 1.0), "{isa}");
            }
            assert_eq!(whole[..2 * lanes], values[..2 * lanes], "{isa}");
        }
    }

    #[test]
    fn a_number_that_is_none_wins_as_second_operand() {
        let (a, b) = (vec![1.0f32; 16], vec![f32::NAN; 16]);
        for isa in Isa::available() {
            for got in Token::new(isa).expect("available").dispatch(Ops { a: &a, b: &b, integers: &b }) {
                assert!(got[0].is_nan() && got[1].is_nan(), "{isa}");
            }
        }
    }
}
