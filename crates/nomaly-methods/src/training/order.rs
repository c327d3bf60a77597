//! The order of the examples of an epoch.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The numbers below `count` in an order that depends only on `seed` and `epoch`.
pub fn shuffled(count: usize, seed: u64, epoch: usize) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch as u64);
    let mut order: Vec<u32> = (0..u32::try_from(count).unwrap_or(u32::MAX)).collect();
    order.shuffle(&mut random);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_comes_once_in_an_order_of_the_epoch() {
        let order = shuffled(1000, 3, 0);
        assert_eq!(order, shuffled(1000, 3, 0));
        assert_ne!(order, shuffled(1000, 3, 1));
        assert_ne!(order, shuffled(1000, 4, 0));
        let mut sorted = order;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
    }
}
