//! The self-labelled set: every transformation of every image, made when it is needed.

use nomaly_backbones::{OutputLayout, TapRequest};
use nomaly_transforms::transformations::TransformationSet;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::DetectorError;
use crate::training::classifier::{AT_A_TIME, TrainedNetwork, log_softmax};
use crate::training::images::PixelStore;
use crate::training::{Batch, Learner, Objective, Validation, shuffled};

/// Held-out examples that are classified after each epoch, at most.
const MOST_VALIDATED: usize = 2048;

/// Images, and what is done to them.
pub(super) struct SelfLabelled<'a> {
    pub(super) images: &'a PixelStore,
    pub(super) set: &'a TransformationSet,
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

/// Where the random parts of transformations draw from: for each purpose and number another stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Draws {
    /// In training: anew for every example of every epoch.
    Training(u64),
    /// In scoring and validation: the same for every image, so that equal images get equal scores.
    Scoring(u64),
}

impl Draws {
    fn random(self, seed: u64) -> ChaCha8Rng {
        let (seed, stream) = match self {
            Self::Training(number) => (seed, number),
            Self::Scoring(transformation) => (!seed, transformation),
        };
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(stream);
        random
    }
}

/// Transforms planes in [0, 1] and brings them to what the network sees, [−1, 1].
pub(super) fn transform(
    set: &TransformationSet,
    which: usize,
    planes: &[f32],
    size: [usize; 2],
    (seed, draws): (u64, Draws),
    input: &mut [f32],
) -> Result<(), DetectorError> {
    let transformation = set.get(which).expect("the number is below the size of the set");
    transformation.apply(planes, size, &mut draws.random(seed), input)?;
    input.iter_mut().for_each(|value| *value = 2.0 * *value - 1.0);
    Ok(())
}

impl SelfLabelled<'_> {
    /// Makes the inputs of `examples`: a view of an image, a transformation, and where to draw from.
    fn fill(
        &self,
        inputs: &mut [f32],
        examples: impl IndexedParallelIterator<Item = (usize, usize, Draws)>,
    ) -> Result<(), DetectorError> {
        let (each, size) = (self.images.each(), self.images.size());
        inputs.par_chunks_exact_mut(each).zip(examples).try_for_each_init(
            || vec![0.0; each],
            |planes, (input, (view, which, draws))| {
                self.images.unpack(view, planes);
                transform(self.set, which, planes, size, (self.seed, draws), input)
            },
        )
    }
}

impl Objective for SelfLabelled<'_> {
    fn examples(&self) -> usize {
        self.train.len() * self.set.len()
    }

    fn step(&mut self, learners: &mut [Learner], batch: &Batch<'_>) -> Result<f64, DetectorError> {
        let k = self.set.len();
        let examples = self.examples() as u64;
        let (mut inputs, mut labels) = (std::mem::take(&mut self.inputs), std::mem::take(&mut self.labels));
        inputs.resize(batch.examples.len() * self.images.each(), 0.0);
        labels.clear();
        labels.extend(batch.examples.iter().map(|example| example % k as u32));
        let drawn = batch.examples.par_iter().map(|example| {
            let number = batch.epoch as u64 * examples + u64::from(*example);
            (self.train[*example as usize / k], *example as usize % k, Draws::Training(number))
        });
        self.fill(&mut inputs, drawn)?;
        let [learner] = learners else { unreachable!("a classifier is one network") };
        // Masks of the step alone: a training that was interrupted draws the same.
        learner.network.seed_dropout(self.seed ^ !batch.step);
        let loss = learner.network.classify(&inputs, &labels)?;
        learner.step()?;
        (self.inputs, self.labels) = (inputs, labels);
        Ok(f64::from(loss))
    }

    fn validate(&mut self, learners: &mut [Learner], _epoch: usize) -> Result<Option<Validation>, DetectorError> {
        let k = self.set.len();
        let mut examples = shuffled(self.held_out.len() * k, self.seed, 0);
        examples.truncate(MOST_VALIDATED);
        let [learner] = learners else { unreachable!("a classifier is one network") };
        let logits = [TapRequest::new("logits", OutputLayout::Rows)];
        let network = TrainedNetwork::new(self.network, learner.network.weights(), self.images.size(), &logits)?;
        let (mut loss, mut right) = (0.0, 0);
        let mut log_p = vec![0.0; k];
        let mut inputs = vec![0.0; AT_A_TIME * self.images.each()];
        for some in examples.chunks(AT_A_TIME) {
            let inputs = &mut inputs[..some.len() * self.images.each()];
            let drawn = some.par_iter().map(|example| {
                let (view, which) = (*example as usize / k, *example as usize % k);
                (self.held_out[view], which, Draws::Scoring(which as u64))
            });
            self.fill(inputs, drawn)?;
            network.run(inputs, |outputs| {
                for (logits, example) in outputs[0].chunks_exact(k).zip(some) {
                    log_softmax(logits, &mut log_p);
                    let label = *example as usize % k;
                    loss -= log_p[label];
                    right += usize::from(log_p.iter().all(|other| *other <= log_p[label]));
                }
            })?;
        }
        let count = examples.len() as f64;
        Ok(Some(Validation { loss: loss / count, accuracy: Some(right as f64 / count) }))
    }
}
