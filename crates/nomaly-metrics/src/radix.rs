//! Radix sort of unsigned keys.
//!
//! Metrics of pixels sort 10⁸ keys; a least-significant-digit radix sort does so in three passes over 32-bit keys,
//! several times faster than a comparison sort. Passes whose digit is the same in every key are skipped.

/// Digit width: 2¹¹ counters of one pass fit the first-level cache.
const DIGIT_BITS: u32 = 11;
const BUCKETS: usize = 1 << DIGIT_BITS;

/// Below this length a comparison sort is faster than clearing and scanning the counters.
const SMALL: usize = 4096;

/// An unsigned key for the radix sort.
pub trait RadixKey: Copy + Ord + Default + Send + Sync {
    /// Width of the key.
    const BITS: u32;
    /// The digit that starts at bit `shift`.
    fn digit(self, shift: u32) -> usize;
}

impl RadixKey for u32 {
    const BITS: u32 = 32;
    fn digit(self, shift: u32) -> usize {
        (self >> shift) as usize & (BUCKETS - 1)
    }
}

impl RadixKey for u64 {
    const BITS: u32 = 64;
    fn digit(self, shift: u32) -> usize {
        (self >> shift) as usize & (BUCKETS - 1)
    }
}

/// Sorts ascending. Needs scratch space of the size of `keys`.
pub(crate) fn sort<K: RadixKey>(keys: &mut Vec<K>) {
    if keys.len() < SMALL {
        keys.sort_unstable();
        return;
    }
    let passes = K::BITS.div_ceil(DIGIT_BITS) as usize;
    let mut counts = vec![[0usize; BUCKETS]; passes];
    for &key in keys.iter() {
        for (pass, count) in counts.iter_mut().enumerate() {
            count[key.digit(pass as u32 * DIGIT_BITS)] += 1;
        }
    }
    let mut scratch = vec![K::default(); keys.len()];
    for (pass, count) in counts.iter_mut().enumerate() {
        let shift = pass as u32 * DIGIT_BITS;
        if count[keys[0].digit(shift)] == keys.len() {
            continue;
        }
        let mut start = 0;
        for slot in count.iter_mut() {
            start += std::mem::replace(slot, start);
        }
        for &key in keys.iter() {
            let slot = &mut count[key.digit(shift)];
            scratch[*slot] = key;
            *slot += 1;
        }
        std::mem::swap(keys, &mut scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Keys that fill the given number of low bits, from a small generator, so that passes are skipped for narrow ones.
    fn keys(length: usize, bits: u32, seed: u64) -> Vec<u64> {
        let mut state = seed;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.rotate_left(29) & (u64::MAX >> (64 - bits))
        })
        .take(length)
        .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn sorts_as_the_standard_library(length in 0..3 * SMALL, bits in 1u32..=64, seed: u64) {
            let mut wide = keys(length, bits, seed);
            let mut narrow: Vec<u32> = wide.iter().map(|&key| key as u32).collect();
            let (mut wide_expected, mut narrow_expected) = (wide.clone(), narrow.clone());
            wide_expected.sort_unstable();
            narrow_expected.sort_unstable();
            sort(&mut wide);
            sort(&mut narrow);
            prop_assert_eq!(wide, wide_expected);
            prop_assert_eq!(narrow, narrow_expected);
        }
    }
}
