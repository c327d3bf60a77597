//! Products of bytes, four at a time, for the processors that have them.
//!
//! A kernel of bytes is generic over [`Bytes`] as others are over [`Simd`]; [`Bytes::simd`] gives it the floating-point
//! operations too. [`Token::bytes`](super::Token::bytes) checks what the processor has.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::Simd;
#[cfg(test)]
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// A computation that is generic over the instruction set.
pub(crate) trait ByteKernel {
    /// What it returns.
    type Output;

    /// Computes; implementations are `#[inline(always)]`.
    fn run<B: Bytes>(self, bytes: B) -> Self::Output;
}

/// Vectors of 4 · `LANES` bytes and of `LANES` sums; the value itself is the proof that the processor multiplies them.
pub(crate) trait Bytes: Copy + Send + Sync + 'static {
    /// The instruction set of the vectors of f32.
    type S: Simd;

    /// The vector.
    type I: Copy;

    /// The proof for vectors of f32.
    fn simd(self) -> Self::S;

    /// Runs `kernel` compiled for this instruction set, in a function of its own.
    fn vectorize<K: ByteKernel>(self, kernel: K) -> K::Output;

    /// The same 32 bits in every lane: a sum, or four bytes.
    fn splat(self, value: i32) -> Self::I;

    /// Reads `LANES` times four bytes.
    ///
    /// # Safety
    /// `from` must be valid for reading 4 · `LANES` bytes; it need not be aligned.
    unsafe fn load(self, from: *const u8) -> Self::I;

    /// Adds to each lane of `sums` the four products of its unsigned bytes of `a` with its signed bytes of `b`.
    fn dot(self, sums: Self::I, a: Self::I, b: Self::I) -> Self::I;

    /// The nearest f32 of each sum.
    fn to_f32(self, sums: Self::I) -> <Self::S as Simd>::V;

    /// A bit for each lane, from the lowest on: whether `a >= b`.
    fn at_least(self, a: <Self::S as Simd>::V, b: <Self::S as Simd>::V) -> u32;
}

/// The proof for products of bytes, chosen at run time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ByteToken {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    Avx2(AvxVnni),
    /// Plain Rust, so that tests cover the kernels on every machine; too slow to be worth choosing.
    #[cfg(test)]
    Portable(PlainBytes),
}

impl ByteToken {
    /// Runs `kernel` with the instruction set that was chosen.
    pub(crate) fn dispatch<K: ByteKernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(bytes) => bytes.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(bytes) => bytes.vectorize(kernel),
            #[cfg(test)]
            Self::Portable(bytes) => bytes.vectorize(kernel),
        }
    }

    /// Lanes of a vector, and columns of the widest tile of two vectors.
    pub(crate) fn shape(self) -> (usize, usize) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => (Avx512::LANES, Avx512::COLUMNS),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => (Avx2::LANES, Avx2::COLUMNS),
            #[cfg(test)]
            Self::Portable(_) => (Portable::LANES, Portable::COLUMNS),
        }
    }
}

/// The proof that the processor has AVX-512F, AVX-512BW and AVX-512 VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512Vnni(Avx512);

#[cfg(target_arch = "x86_64")]
impl Avx512Vnni {
    /// `Some` if the processor has the instructions.
    pub(super) fn new(simd: Avx512) -> Option<Self> {
        let found =
            std::arch::is_x86_feature_detected!("avx512bw") && std::arch::is_x86_feature_detected!("avx512vnni");
        found.then_some(Self(simd))
    }
}

/// # Safety
/// The processor must have AVX-512F, AVX-512BW and AVX-512 VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn enter_avx512<K: ByteKernel>(bytes: Avx512Vnni, kernel: K) -> K::Output {
    kernel.run(bytes)
}

#[cfg(target_arch = "x86_64")]
impl Bytes for Avx512Vnni {
    type S = Avx512;
    type I = __m512i;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn vectorize<K: ByteKernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` exists only where the processor has these instructions.
        unsafe { enter_avx512(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: i32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const u8) -> __m512i {
        // SAFETY: as above; the caller promises 64 readable bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpbusd_epi32(sums, a, b) }
    }

    #[inline(always)]
    fn to_f32(self, sums: __m512i) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(sums) }
    }

    #[inline(always)]
    fn at_least(self, a: __m512, b: __m512) -> u32 {
        // SAFETY: as above.
        unsafe { u32::from(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b)) }
    }
}

/// The proof that the processor has AVX2, FMA and AVX-VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct AvxVnni(Avx2);

#[cfg(target_arch = "x86_64")]
impl AvxVnni {
    /// `Some` if the processor has the instructions.
    pub(super) fn new(simd: Avx2) -> Option<Self> {
        std::arch::is_x86_feature_detected!("avxvnni").then_some(Self(simd))
    }
}

/// # Safety
/// The processor must have AVX2, FMA and AVX-VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn enter_avx2<K: ByteKernel>(bytes: AvxVnni, kernel: K) -> K::Output {
    kernel.run(bytes)
}

#[cfg(target_arch = "x86_64")]
impl Bytes for AvxVnni {
    type S = Avx2;
    type I = __m256i;

    #[inline(always)]
    fn simd(self) -> Avx2 {
        self.0
    }

    #[inline(always)]
    fn vectorize<K: ByteKernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` exists only where the processor has these instructions.
        unsafe { enter_avx2(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, value: i32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_set1_epi32(value) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const u8) -> __m256i {
        // SAFETY: as above; the caller promises 32 readable bytes.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    fn dot(self, sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_dpbusd_avx_epi32(sums, a, b) }
    }

    #[inline(always)]
    fn to_f32(self, sums: __m256i) -> __m256 {
        // SAFETY: as above.
        unsafe { _mm256_cvtepi32_ps(sums) }
    }

    #[inline(always)]
    fn at_least(self, a: __m256, b: __m256) -> u32 {
        // SAFETY: as above. The eight lowest bits are those of the lanes, the others 0.
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a, b)) as u32 }
    }
}

/// Requires no special instructions.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainBytes;

#[cfg(test)]
impl Bytes for PlainBytes {
    type S = Portable;
    type I = [i32; 8];

    #[inline(always)]
    fn simd(self) -> Portable {
        Portable
    }

    fn vectorize<K: ByteKernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, value: i32) -> [i32; 8] {
        [value; 8]
    }

    #[inline(always)]
    unsafe fn load(self, from: *const u8) -> [i32; 8] {
        // SAFETY: the caller promises 32 readable bytes; the read asks for no alignment.
        unsafe { from.cast::<[i32; 8]>().read_unaligned() }
    }

    #[inline(always)]
    fn dot(self, sums: [i32; 8], a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        let product = |lane: usize| {
            let pairs = a[lane].to_ne_bytes().into_iter().zip(b[lane].to_ne_bytes());
            pairs.map(|(a, b)| i32::from(a) * i32::from(b.cast_signed())).sum::<i32>()
        };
        std::array::from_fn(|lane| sums[lane] + product(lane))
    }

    #[inline(always)]
    fn to_f32(self, sums: [i32; 8]) -> [f32; 8] {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    fn at_least(self, a: [f32; 8], b: [f32; 8]) -> u32 {
        (0..8).map(|lane| u32::from(a[lane] >= b[lane]) << lane).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::simd::Token;

    /// The products of vectors of bytes, added to `start`, and the lanes whose sum is at least `limit`.
    struct Products<'a> {
        a: &'a [u8],
        b: &'a [i8],
        start: i32,
        limit: f32,
    }

    impl ByteKernel for Products<'_> {
        type Output = (Vec<f32>, u32);

        #[inline(always)]
        fn run<B: Bytes>(self, bytes: B) -> Self::Output {
            assert!(self.a.len() >= 64 && self.b.len() >= 64);
            let simd = bytes.simd();
            let mut sums = [0.0f32; 16];
            // SAFETY: both slices hold the longest vector, and `sums` too.
            unsafe {
                let (a, b) = (bytes.load(self.a.as_ptr()), bytes.load(self.b.as_ptr().cast()));
                let values = bytes.to_f32(bytes.dot(bytes.splat(self.start), a, b));
                simd.store(sums.as_mut_ptr(), values);
                (sums[..B::S::LANES].to_vec(), bytes.at_least(values, simd.splat(self.limit)))
            }
        }
    }

    #[test]
    fn every_instruction_set_multiplies_bytes() {
        let a: Vec<u8> = (0..64u32).map(|i| (i * 37 % 256) as u8).collect();
        // The largest magnitudes of both, whose sums exceed 16 bits.
        for b in [(0..64i32).map(|i| (i * 53 % 255 - 127) as i8).collect::<Vec<_>>(), vec![-128; 64], vec![127; 64]] {
            for a in [&a, &vec![255u8; 64]] {
                let product = |lane: usize| -> i32 {
                    (4 * lane..4 * lane + 4).map(|at| i32::from(a[at]) * i32::from(b[at])).sum::<i32>() - 7
                };
                for (_, token) in Token::every_bytes() {
                    let limit = product(1) as f32;
                    let (sums, at_least) = token.dispatch(Products { a, b: &b, start: -7, limit });
                    assert_eq!(sums.len(), token.shape().0);
                    for (lane, sum) in sums.iter().enumerate() {
                        assert_eq!(*sum, product(lane) as f32, "{token:?} lane {lane}");
                        assert_eq!(at_least >> lane & 1 == 1, *sum >= limit, "{token:?} lane {lane}");
                    }
                    assert_eq!(u64::from(at_least) >> sums.len(), 0, "{token:?}");
                }
            }
        }
    }

    #[test]
    fn plain_rust_is_never_chosen() {
        assert!(Token::new(Isa::Portable).unwrap().bytes().is_none());
    }
}
