//! Seeded random selections.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// How a subset of images is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The first ones.
    First,
    /// A random selection; the same seed gives the same one on every machine.
    Seeded(u64),
}

/// At most `max` distinct numbers in `0..count`, ascending.
///
/// ```
/// use nomaly_data::subset::{Choice, choose};
///
/// assert_eq!(choose(5, 3, Choice::First), [0, 1, 2]);
/// assert_eq!(choose(5, 9, Choice::Seeded(1)), [0, 1, 2, 3, 4]);
/// assert_eq!(choose(100, 10, Choice::Seeded(1)), choose(100, 10, Choice::Seeded(1)));
/// ```
pub fn choose(count: usize, max: usize, choice: Choice) -> Vec<usize> {
    if max >= count {
        return (0..count).collect();
    }
    match choice {
        Choice::First => (0..max).collect(),
        Choice::Seeded(seed) => {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut numbers: Vec<usize> = (0..count).collect();
            shuffle_front(&mut numbers, max, &mut random);
            numbers.truncate(max);
            numbers.sort_unstable();
            numbers
        }
    }
}

/// Moves a random selection, in random order, to the front: the first `front` steps of a Fisher–Yates shuffle.
pub(crate) fn shuffle_front<T>(items: &mut [T], front: usize, random: &mut ChaCha8Rng) {
    for at in 0..front.min(items.len()) {
        let other = at + below(random, (items.len() - at) as u64) as usize;
        items.swap(at, other);
    }
}

/// A number in `0..bound`, each equally likely. Implemented here, so that selections do not depend on a library's
/// version.
pub(crate) fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    debug_assert!(bound > 0, "an empty range has no number to draw");
    let unbiased = u64::MAX - u64::MAX % bound;
    loop {
        let drawn = random.next_u64();
        if drawn < unbiased {
            return drawn % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_ascending_distinct_and_of_the_size_asked_for() {
        for seed in 0..50 {
            let chosen = choose(40, 13, Choice::Seeded(seed));
            assert_eq!(chosen.len(), 13);
            assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]), "{chosen:?}");
            assert!(chosen.iter().all(|&index| index < 40));
        }
        assert_ne!(choose(40, 13, Choice::Seeded(0)), choose(40, 13, Choice::Seeded(1)));
        assert!(choose(0, 3, Choice::Seeded(0)).is_empty());
    }

    #[test]
    fn every_number_is_chosen_about_equally_often() {
        const DRAWS: u64 = 2000;
        let mut counts = [0_u32; 10];
        for seed in 0..DRAWS {
            choose(10, 3, Choice::Seeded(seed)).into_iter().for_each(|index| counts[index] += 1);
        }
        // 600 expected each, standard deviation √(2000 · 0.3 · 0.7) ≈ 20.5: five of them is 103.
        assert!(counts.iter().all(|&count| (497..=703).contains(&count)), "{counts:?}");
    }

    #[test]
    fn a_seeded_choice_is_pinned() {
        assert_eq!(choose(20, 5, Choice::Seeded(42)), choose_slowly(20, 5, 42));
    }

    /// The whole shuffle, cut off at the end.
    fn choose_slowly(count: usize, max: usize, seed: u64) -> Vec<usize> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut numbers: Vec<usize> = (0..count).collect();
        for at in 0..count - 1 {
            let other = at + below(&mut random, (count - at) as u64) as usize;
            numbers.swap(at, other);
        }
        let mut first = numbers[..max].to_vec();
        first.sort_unstable();
        first
    }
}
