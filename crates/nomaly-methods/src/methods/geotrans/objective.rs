//! The self-labeled set: every transformation of every image, made on demand.

use nomaly_transforms::transformations::TransformationSet;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::MethodError;
use crate::networks::examples::{Draw, ExampleMaker};

/// The most held-out examples to classify after each epoch.
pub(super) const MOST_VALIDATED: usize = 2048;

/// Makes examples of transformations.
pub(super) struct Transformed<'a> {
    pub(super) set: &'a TransformationSet,
    pub(super) seed: u64,
}

impl ExampleMaker for Transformed<'_> {
    type Target = u32;

    fn kinds(&self) -> usize {
        self.set.len()
    }

    fn create(
        &self,
        planes: &[f32],
        size: [usize; 2],
        kind: usize,
        draw: &mut Draw,
        input: &mut [f32],
    ) -> Result<u32, MethodError> {
        if draw.training {
            transform(self.set, kind, planes, size, &mut draw.random, input)?;
        } else {
            transform(self.set, kind, planes, size, &mut scoring(self.seed, kind), input)?;
        }
        Ok(kind as u32)
    }
}

/// The random numbers of a transformation during scoring: the same for every image, so that equal images get equal
/// scores.
pub(super) fn scoring(seed: u64, transformation: usize) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(!seed);
    random.set_stream(transformation as u64);
    random
}

/// Transforms planes in [0, 1] and maps them to the network's input range [−1, 1].
pub(super) fn transform(
    set: &TransformationSet,
    which: usize,
    planes: &[f32],
    size: [usize; 2],
    random: &mut ChaCha8Rng,
    input: &mut [f32],
) -> Result<(), MethodError> {
    let transformation = set.get(which).expect("the number is below the size of the set");
    transformation.apply(planes, size, random, input)?;
    input.iter_mut().for_each(|value| *value = 2.0 * *value - 1.0);
    Ok(())
}
