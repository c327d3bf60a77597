//! Random numbers for transforms.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// Random numbers from the generator's words alone, so that they do not depend on a library's distributions.
#[derive(Debug)]
pub(crate) struct Dice<'a>(pub(crate) &'a mut ChaCha8Rng);

impl Dice<'_> {
    /// Uniform in \[low, high).
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        const STEP: f32 = 1.0 / (1 << 24) as f32;
        low + (high - low) * ((self.word() >> 8) as f32 * STEP)
    }

    /// Not inlined: the generator's block function is long, and there are many callers.
    #[inline(never)]
    fn word(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in 0..count; 0 where `count` is 0.
    pub(crate) fn below(&mut self, count: u32) -> u32 {
        ((u64::from(self.word()) * u64::from(count)) >> 32) as u32
    }

    /// Uniform in 0..=last, for indices.
    pub(crate) fn up_to(&mut self, last: usize) -> usize {
        self.below(u32::try_from(last + 1).unwrap_or(u32::MAX)) as usize
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.between(0.0, 1.0) < probability
    }

    /// A unit vector in any direction: a point of the disc, moved to its rim.
    pub(crate) fn direction(&mut self) -> [f32; 2] {
        loop {
            let v = [self.between(-1.0, 1.0), self.between(-1.0, 1.0)];
            let squared = v[0] * v[0] + v[1] * v[1];
            if (0.01..=1.0).contains(&squared) {
                return unit(v);
            }
        }
    }
}

pub(crate) fn unit(v: [f32; 2]) -> [f32; 2] {
    let length = (v[0] * v[0] + v[1] * v[1]).sqrt();
    if length > 0.0 { [v[0] / length, v[1] / length] } else { [1.0, 0.0] }
}
