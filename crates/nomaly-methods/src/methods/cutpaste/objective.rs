//! Examples of the three classes: unchanged, with a patch, with a scar.

use nomaly_transforms::augment::CutPasteClass;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::MethodError;
use crate::networks::examples::{Draw, ExampleMaker};

/// The most held-out examples to classify after each epoch.
pub(super) const MOST_VALIDATED: usize = 768;
/// The number of classes; each view gives an example of each.
pub(super) const CLASSES: usize = CutPasteClass::ALL.len();
/// The largest shift of an image, as a divisor of its side.
const SHIFT: usize = 32;
/// The largest relative change of brightness and contrast.
const JITTER: f32 = 0.1;

/// Makes examples of the three classes.
pub(super) struct ThreeWay;

impl ExampleMaker for ThreeWay {
    type Target = u32;

    fn kinds(&self) -> usize {
        CLASSES
    }

    fn create(
        &self,
        planes: &[f32],
        size: [usize; 2],
        kind: usize,
        draw: &mut Draw,
        input: &mut [f32],
    ) -> Result<u32, MethodError> {
        let class = CutPasteClass::ALL[kind];
        if draw.training {
            let mut varied = vec![0.0; planes.len()];
            vary(planes, size, &mut draw.random, &mut varied);
            class.apply(&varied, size, &mut draw.random, input)?;
        } else {
            class.apply(planes, size, &mut draw.random, input)?;
        }
        normalize(input);
        Ok(kind as u32)
    }
}

/// Maps planes from [0, 1] to the network's input range [−1, 1].
pub(super) fn normalize(planes: &mut [f32]) {
    planes.iter_mut().for_each(|value| *value = 2.0 * *value - 1.0);
}

/// Shifts an image by up to 1 / [`SHIFT`] of its side with repeated edges, and changes brightness and contrast by up to
/// [`JITTER`].
fn vary(planes: &[f32], [height, width]: [usize; 2], random: &mut ChaCha8Rng, out: &mut [f32]) {
    let mut shift = |side: usize| {
        let most = (side / SHIFT) as i32;
        random.random_range(-most..=most) as isize
    };
    let (down, right) = (shift(height), shift(width));
    let mut change = || 1.0 + JITTER * (2.0 * random.random::<f32>() - 1.0);
    let (brightness, contrast) = (change(), change());
    let mean = planes.iter().map(|value| f64::from(*value)).sum::<f64>() / planes.len() as f64;
    let mean = brightness * mean as f32;
    for (source, target) in planes.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width)) {
        for (y, row) in target.chunks_exact_mut(width).enumerate() {
            let from = &source[y.saturating_add_signed(-down).min(height - 1) * width..][..width];
            for (x, value) in row.iter_mut().enumerate() {
                let found = brightness * from[x.saturating_add_signed(-right).min(width - 1)];
                *value = (mean + contrast * (found - mean)).clamp(0.0, 1.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn images_are_shifted_and_their_levels_changed_a_little() {
        let size = [64, 32];
        let planes: Vec<f32> = (0..3 * 64 * 32).map(|i| ((i * 7919) % 256) as f32 / 255.0).collect();
        let mut out = vec![0.0; planes.len()];
        let mut shifts = std::collections::BTreeSet::new();
        // The probability that one of the 15 is never drawn is 1 in 60 000.
        for seed in 0..200 {
            vary(&planes, size, &mut ChaCha8Rng::seed_from_u64(seed), &mut out);
            // The shift under which levels keep their order.
            let fits = |down: isize, right: isize| {
                let at = |y: usize, x: usize| planes[y.wrapping_add_signed(-down) * 32 + x.wrapping_add_signed(-right)];
                let mut pairs: Vec<(f32, f32)> = (4..60)
                    .flat_map(|y| (4..28).map(move |x| (y, x)))
                    .map(|(y, x)| (at(y, x), out[y * 32 + x]))
                    .collect();
                pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
                pairs.windows(2).all(|pair| pair[0].1 <= pair[1].1 + 1e-6)
            };
            let found = (-2..=2).flat_map(|down| (-1..=1).map(move |right| (down, right)));
            let found: Vec<(isize, isize)> = found.filter(|&(down, right)| fits(down, right)).collect();
            assert_eq!(found.len(), 1, "{found:?}");
            shifts.extend(found);
            assert!(out.iter().all(|value| (0.0..=1.0).contains(value)));
        }
        assert_eq!(shifts.len(), 15, "every shift comes up: {shifts:?}");
    }
}
