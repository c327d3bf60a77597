//! Training examples, made of views on demand.

use nomaly_nn::runtime::TrainableNetwork;
use nomaly_nn::trainable::Pass;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::classifier::INPUTS_PER_RUN;
use super::images::PixelStore;
use super::set::TrainingSet;
use crate::MethodError;
use crate::training::{Batch, shuffled};

/// Makes examples of views.
pub(crate) trait ExampleMaker: Sync {
    /// The target output of an example.
    type Target: Send;

    /// The number of kinds of examples. Each view gives one example of each kind.
    fn kinds(&self) -> usize;

    /// Makes an example of `kind` of a view of `size`, given as planes in [0, 1], and writes it to `input`.
    fn create(
        &self,
        planes: &[f32],
        size: [usize; 2],
        kind: usize,
        draw: &mut Draw,
        input: &mut [f32],
    ) -> Result<Self::Target, MethodError>;
}

/// The random numbers of an example.
pub(crate) struct Draw {
    /// Whether this is a training example, which differs in each epoch. Held-out examples are always the same.
    pub(crate) training: bool,
    pub(crate) random: ChaCha8Rng,
}

impl Draw {
    /// A stream per example number, separate for training and held-out examples.
    fn new(seed: u64, training: bool, number: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(if training { seed } else { !seed });
        random.set_stream(number);
        Self { training, random }
    }
}

/// The examples of a training, with reusable memory for the inputs of a batch.
pub(crate) struct Examples<'a, M: ExampleMaker> {
    pub(crate) maker: M,
    pub(crate) seed: u64,
    images: &'a PixelStore,
    train: &'a [usize],
    held_out: &'a [usize],
    inputs: Vec<f32>,
}

impl<'a, M: ExampleMaker> Examples<'a, M> {
    /// # Errors
    /// A set of features.
    pub(crate) fn new(maker: M, set: &'a TrainingSet<'_>) -> Result<Self, MethodError> {
        let TrainingSet { data, train, held_out, context, .. } = set;
        Ok(Self { maker, seed: context.seed, images: data.pixels()?, train, held_out, inputs: Vec::new() })
    }

    /// The number of examples per epoch.
    pub(crate) fn count(&self) -> usize {
        self.train.len() * self.maker.kinds()
    }

    /// Height and width of an input.
    pub(crate) fn size(&self) -> [usize; 2] {
        self.images.size()
    }

    /// The inputs and targets of a batch. Return the inputs with [`give_back`](Self::give_back) to reuse their memory.
    pub(crate) fn batch(&mut self, batch: &Batch<'_>) -> Result<(Vec<f32>, Vec<M::Target>), MethodError> {
        let mut inputs = std::mem::take(&mut self.inputs);
        inputs.resize(batch.examples.len() * self.images.view_len(), 0.0);
        // A stream per example and epoch.
        let first = batch.epoch as u64 * self.count() as u64;
        let draw = |example: u32| Draw::new(self.seed, true, first + u64::from(example));
        let targets = self.fill(self.train, batch.examples, draw, &mut inputs)?;
        Ok((inputs, targets))
    }

    /// Takes back the inputs of a batch, to reuse their memory.
    pub(crate) fn give_back(&mut self, inputs: Vec<f32>) {
        self.inputs = inputs;
    }

    /// The examples of all kinds of at most `most` held-out views; the same on each call.
    pub(crate) fn choose_held_out_views(&self, most: usize) -> Vec<u32> {
        let kinds = self.maker.kinds() as u32;
        let views = shuffled(self.held_out.len(), self.seed, 0);
        views.iter().take(most).flat_map(|view| view * kinds..(view + 1) * kinds).collect()
    }

    /// At most `most` examples of held-out views; the same on each call.
    pub(crate) fn choose_held_out(&self, most: usize) -> Vec<u32> {
        let mut examples = shuffled(self.held_out.len() * self.maker.kinds(), self.seed, 0);
        examples.truncate(most);
        examples
    }

    /// Evaluates `network` on examples of held-out views and calls `visit` with the first tap's output and the target
    /// of each.
    pub(crate) fn evaluate(
        &self,
        network: &mut dyn TrainableNetwork,
        examples: &[u32],
        mut visit: impl FnMut(&[f32], &M::Target),
    ) -> Result<(), MethodError> {
        let values_per_view = self.images.view_len();
        let mut inputs = vec![0.0; INPUTS_PER_RUN * values_per_view];
        for chunk in examples.chunks(INPUTS_PER_RUN) {
            let inputs = &mut inputs[..chunk.len() * values_per_view];
            let draw = |example: u32| Draw::new(self.seed, false, u64::from(example));
            let targets = self.fill(self.held_out, chunk, draw, inputs)?;
            network.run(&[inputs], Pass::Evaluate)?;
            let outputs = network.output(0);
            outputs
                .chunks_exact(outputs.len() / chunk.len())
                .zip(&targets)
                .for_each(|(output, target)| visit(output, target));
        }
        Ok(())
    }

    fn fill(
        &self,
        views: &[usize],
        examples: &[u32],
        draw: impl Fn(u32) -> Draw + Sync,
        inputs: &mut [f32],
    ) -> Result<Vec<M::Target>, MethodError> {
        let (values_per_view, kinds) = (self.images.view_len(), self.maker.kinds());
        let made = inputs.par_chunks_exact_mut(values_per_view).zip(examples).map_init(
            || vec![0.0; values_per_view],
            |planes, (input, example)| {
                let (view, kind) = (views[*example as usize / kinds], *example as usize % kinds);
                self.images.unpack(view, planes);
                self.maker.create(planes, self.size(), kind, &mut draw(*example), input)
            },
        );
        made.collect()
    }
}
