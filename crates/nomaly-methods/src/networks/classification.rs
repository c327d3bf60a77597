//! Training a network to classify kinds of examples.

use super::classifier::log_softmax;
use super::examples::{ExampleMaker, Examples};
use crate::MethodError;
use crate::training::{Batch, Learner, Losses, Objective, Validation};

/// Cross-entropy over the kinds.
pub(crate) struct Classification<'a, M: ExampleMaker<Target = u32>> {
    pub(crate) examples: Examples<'a, M>,
    /// The network, whose tap `logits` has one value per kind.
    pub(crate) learner: Learner,
    /// The most held-out examples to classify after each epoch.
    pub(crate) most_validated: usize,
}

impl<M: ExampleMaker<Target = u32>> Objective for Classification<'_, M> {
    fn examples(&self) -> usize {
        self.examples.count()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("classifier", &mut self.learner)]
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Losses, MethodError> {
        let (inputs, kinds) = self.examples.batch(batch)?;
        let learner = &mut self.learner;
        // Masks depend only on the step, so that a resumed training draws the same ones.
        learner.network.seed_dropout(self.examples.seed ^ !batch.step);
        let loss = learner.network.classify(&inputs, &kinds)?;
        learner.step()?;
        self.examples.give_back(inputs);
        Ok(f64::from(loss).into())
    }

    fn validate(&mut self, _epoch: usize) -> Result<Option<Validation>, MethodError> {
        let examples = self.examples.choose_held_out(self.most_validated);
        let (mut loss, mut right) = (0.0, 0);
        let mut log_p = vec![0.0; self.examples.maker.kinds()];
        self.examples.evaluate(self.learner.network.as_mut(), &examples, |logits, kind| {
            log_softmax(logits, &mut log_p);
            let own = log_p[*kind as usize];
            loss -= own;
            right += usize::from(log_p.iter().all(|other| *other <= own));
        })?;
        let count = examples.len() as f64;
        Ok(Some(Validation { loss: loss / count, accuracy: Some(right as f64 / count) }))
    }
}
