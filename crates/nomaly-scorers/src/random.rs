//! Random numbers that depend only on a seed and an index, on any number of threads.

use std::f64::consts::TAU;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The random numbers of one part (a tree, a projection) of an ensemble with this `seed`. Each part has its own stream,
/// so parts can be created in any order and do not depend on their number.
pub(crate) fn stream(seed: u64, part: usize) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(part as u64);
    rng
}

/// `count` numbers from the standard normal distribution, by the Box–Muller transform: two from each pair of uniform
/// ones.
pub(crate) fn normals(rng: &mut ChaCha8Rng, count: usize) -> Vec<f64> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        // `1 - u` is in (0, 1], so that its logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        let angle = TAU * rng.random::<f64>();
        values.extend([radius * angle.cos(), radius * angle.sin()]);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_have_their_moments_and_follow_the_part() {
        let values = normals(&mut stream(3, 5), 20_001);
        let moment = |power: i32| values.iter().map(|value| value.powi(power)).sum::<f64>() / values.len() as f64;
        // Four standard errors of each: 1, √2 and √96 over the root of the count.
        let slack = 4.0 / (values.len() as f64).sqrt();
        assert!(moment(1).abs() < slack, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 2f64.sqrt() * slack, "{}", moment(2));
        assert!((moment(4) - 3.0).abs() < 96f64.sqrt() * slack, "{}", moment(4));
        assert_eq!(values[..7], normals(&mut stream(3, 5), 7));
        assert_ne!(values[..7], normals(&mut stream(3, 6), 7));
        assert_ne!(values[..7], normals(&mut stream(4, 5), 7));
    }
}
