//! Images as they are, with a patch, and with a scar.

use nomaly_backbones::{OutputLayout, TapRequest};
use nomaly_transforms::augment::CutPasteClass;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::DetectorError;
use crate::training::classifier::{AT_A_TIME, TrainedNetwork, log_softmax};
use crate::training::images::PixelStore;
use crate::training::{Batch, Learner, Objective, Validation, shuffled};

/// Held-out examples that are classified after each epoch, at most.
const MOST_VALIDATED: usize = 768;
/// Classes, each of which every view is an example of.
pub(super) const CLASSES: usize = CutPasteClass::ALL.len();
/// The farthest that an image is shifted, as a share of its side.
const SHIFT: usize = 32;
/// How far brightness and contrast are changed.
const JITTER: f32 = 0.1;

/// Images, and what is done to them.
pub(super) struct ThreeWay<'a> {
    pub(super) images: &'a PixelStore,
    /// Views that are trained on.
    pub(super) train: &'a [usize],
    /// Views that the network is tried on.
    pub(super) held_out: &'a [usize],
    pub(super) network: &'a str,
    pub(super) seed: u64,
    /// Inputs and labels of a step, kept from one to the next.
    pub(super) inputs: Vec<f32>,
    pub(super) labels: Vec<u32>,
}

/// Brings planes in [0, 1] to what the network sees, [−1, 1].
pub(super) fn normalise(planes: &mut [f32]) {
    planes.iter_mut().for_each(|value| *value = 2.0 * *value - 1.0);
}

impl ThreeWay<'_> {
    /// Makes the inputs of `examples`, a view and a class each, with a generator for each.
    fn fill(
        &self,
        inputs: &mut [f32],
        augment: bool,
        examples: impl IndexedParallelIterator<Item = (usize, usize, ChaCha8Rng)>,
    ) -> Result<(), DetectorError> {
        let (each, size) = (self.images.each(), self.images.size());
        inputs.par_chunks_exact_mut(each).zip(examples).try_for_each_init(
            || [vec![0.0; each], vec![0.0; each]],
            |[planes, augmented], (input, (view, class, mut random))| {
                self.images.unpack(view, planes);
                if augment {
                    vary(planes, size, &mut random, augmented);
                    std::mem::swap(planes, augmented);
                }
                CutPasteClass::ALL[class].apply(planes, size, &mut random, input)?;
                normalise(input);
                Ok(())
            },
        )
    }
}

/// Shifts an image by up to a [`SHIFT`]th of its side, its edges repeated, and changes brightness and contrast by up to
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

impl Objective for ThreeWay<'_> {
    fn examples(&self) -> usize {
        self.train.len() * CLASSES
    }

    fn step(&mut self, learners: &mut [Learner], batch: &Batch<'_>) -> Result<f64, DetectorError> {
        let examples = self.examples() as u64;
        let (mut inputs, mut labels) = (std::mem::take(&mut self.inputs), std::mem::take(&mut self.labels));
        inputs.resize(batch.examples.len() * self.images.each(), 0.0);
        labels.clear();
        labels.extend(batch.examples.iter().map(|example| example % CLASSES as u32));
        let drawn = batch.examples.par_iter().map(|example| {
            // For each example of each epoch another stream.
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(batch.epoch as u64 * examples + u64::from(*example));
            (self.train[*example as usize / CLASSES], *example as usize % CLASSES, random)
        });
        self.fill(&mut inputs, true, drawn)?;
        let [learner] = learners else { unreachable!("a classifier is one network") };
        let loss = learner.network.classify(&inputs, &labels)?;
        learner.step()?;
        (self.inputs, self.labels) = (inputs, labels);
        Ok(f64::from(loss))
    }

    fn validate(&mut self, learners: &mut [Learner], _epoch: usize) -> Result<Option<Validation>, DetectorError> {
        let mut examples = shuffled(self.held_out.len() * CLASSES, self.seed, 0);
        examples.truncate(MOST_VALIDATED);
        let [learner] = learners else { unreachable!("a classifier is one network") };
        let logits = [TapRequest::new("logits", OutputLayout::Rows)];
        let network = TrainedNetwork::new(self.network, learner.network.weights(), self.images.size(), &logits)?;
        let (mut loss, mut right) = (0.0, 0);
        let mut log_p = [0.0; CLASSES];
        let mut inputs = vec![0.0; AT_A_TIME * self.images.each()];
        for some in examples.chunks(AT_A_TIME) {
            let inputs = &mut inputs[..some.len() * self.images.each()];
            let drawn = some.par_iter().map(|example| {
                // The same in every epoch, and no stream of the training.
                let mut random = ChaCha8Rng::seed_from_u64(!self.seed);
                random.set_stream(u64::from(*example));
                (self.held_out[*example as usize / CLASSES], *example as usize % CLASSES, random)
            });
            self.fill(inputs, false, drawn)?;
            network.run(inputs, |outputs| {
                for (logits, example) in outputs[0].chunks_exact(CLASSES).zip(some) {
                    log_softmax(logits, &mut log_p);
                    let label = *example as usize % CLASSES;
                    loss -= log_p[label];
                    right += usize::from(log_p.iter().all(|other| *other <= log_p[label]));
                }
            })?;
        }
        let count = examples.len() as f64;
        Ok(Some(Validation { loss: loss / count, accuracy: Some(right as f64 / count) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_shifted_and_their_levels_changed_a_little() {
        let size = [64, 32];
        let planes: Vec<f32> = (0..3 * 64 * 32).map(|i| ((i * 7919) % 256) as f32 / 255.0).collect();
        let mut out = vec![0.0; planes.len()];
        let mut shifts = std::collections::BTreeSet::new();
        // That one of the 15 never comes up in so many draws has a chance of one in 60 000.
        for seed in 0..200 {
            vary(&planes, size, &mut ChaCha8Rng::seed_from_u64(seed), &mut out);
            // The shift whose values change in order: a level that was greater is greater after it.
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
