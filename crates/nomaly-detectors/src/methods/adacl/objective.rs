//! Normal images and the anomalies made of them, with their labels.

use nomaly_backbones::{OutputLayout, TapRequest};
use nomaly_transforms::augment::{Adacl, AdaclKind};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::DetectorError;
use crate::training::classifier::{AT_A_TIME, TrainedNetwork};
use crate::training::images::PixelStore;
use crate::training::{Batch, Learner, Objective, Validation, shuffled};

/// Held-out images that the network is tried on after each epoch, at most, and as many anomalies made of them.
const MOST_VALIDATED: usize = 150;
/// Examples made of each view: the view itself, and an anomaly.
pub(super) const EXAMPLES: usize = 2;

/// What the regressor is to say of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Labels {
    /// Drawn anew each time: of normal images from 0 to this width, of anomalies from 1 down to 1 less the width.
    Continuous(f64),
    /// 0 and 1.
    Discrete,
}

impl Labels {
    /// A label, drawn.
    fn draw(self, anomaly: bool, random: &mut ChaCha8Rng) -> f32 {
        let off = match self {
            Self::Continuous(margin) => margin * random.random::<f64>(),
            Self::Discrete => 0.0,
        };
        (if anomaly { 1.0 - off } else { off }) as f32
    }

    /// The mean of all labels that could be drawn.
    fn mean(self, anomaly: bool) -> f64 {
        let off = match self {
            Self::Continuous(margin) => 0.5 * margin,
            Self::Discrete => 0.0,
        };
        if anomaly { 1.0 - off } else { off }
    }
}

/// Images, and what is made of them.
pub(super) struct Created<'a> {
    pub(super) images: &'a PixelStore,
    pub(super) kinds: &'a [AdaclKind],
    pub(super) labels: Labels,
    /// Views that are trained on.
    pub(super) train: &'a [usize],
    /// Views that the network is tried on.
    pub(super) held_out: &'a [usize],
    pub(super) network: &'a str,
    pub(super) seed: u64,
    /// Inputs of a step, kept from one to the next.
    pub(super) inputs: Vec<f32>,
}

impl Created<'_> {
    /// Makes the input of a view, or of an anomaly made of it.
    fn make(
        &self,
        view: usize,
        anomaly: bool,
        random: &mut ChaCha8Rng,
        input: &mut [f32],
    ) -> Result<(), DetectorError> {
        if !anomaly {
            self.images.unpack(view, input);
            return Ok(());
        }
        let mut planes = vec![0.0; self.images.each()];
        self.images.unpack(view, &mut planes);
        let kind = self.kinds[random.random_range(0..self.kinds.len())];
        Ok(Adacl::default().apply_kind(kind, &planes, self.images.size(), random, input)?)
    }
}

impl Objective for Created<'_> {
    fn examples(&self) -> usize {
        self.train.len() * EXAMPLES
    }

    fn step(&mut self, learners: &mut [Learner], batch: &Batch<'_>) -> Result<f64, DetectorError> {
        let (each, examples) = (self.images.each(), self.examples() as u64);
        let mut inputs = std::mem::take(&mut self.inputs);
        inputs.resize(batch.examples.len() * each, 0.0);
        let made = inputs.par_chunks_exact_mut(each).zip(batch.examples).map(|(input, example)| {
            // For each example of each epoch another stream.
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(batch.epoch as u64 * examples + u64::from(*example));
            let (view, anomaly) = (self.train[*example as usize / EXAMPLES], *example as usize % EXAMPLES == 1);
            let label = self.labels.draw(anomaly, &mut random);
            self.make(view, anomaly, &mut random, input)?;
            Ok(label)
        });
        let labels = made.collect::<Result<Vec<f32>, DetectorError>>()?;
        let [learner] = learners else { unreachable!("a regressor is one network") };
        learner.network.forward(&inputs)?;
        let (loss, gradient) = clipped_error(learner.network.output(0), &labels);
        learner.network.backward(&[&gradient])?;
        learner.step()?;
        self.inputs = inputs;
        Ok(loss)
    }

    fn validate(&mut self, learners: &mut [Learner], _epoch: usize) -> Result<Option<Validation>, DetectorError> {
        let [learner] = learners else { unreachable!("a regressor is one network") };
        let network = TrainedNetwork::new(self.network, learner.network.weights(), self.images.size(), &taps())?;
        let mut chosen = shuffled(self.held_out.len(), self.seed, 0);
        chosen.truncate(MOST_VALIDATED);
        let examples: Vec<(u32, bool)> = chosen.iter().flat_map(|view| [(*view, false), (*view, true)]).collect();
        let each = self.images.each();
        let mut inputs = vec![0.0; AT_A_TIME * each];
        let (mut loss, mut right) = (0.0, 0);
        for some in examples.chunks(AT_A_TIME) {
            let inputs = &mut inputs[..some.len() * each];
            inputs.par_chunks_exact_mut(each).zip(some).try_for_each(|(input, (view, anomaly))| {
                // The same in every epoch, and no stream of the training.
                let mut random = ChaCha8Rng::seed_from_u64(!self.seed);
                random.set_stream(u64::from(*view));
                self.make(self.held_out[*view as usize], *anomaly, &mut random, input)
            })?;
            network.run(inputs, |outputs| {
                for (output, (_, anomaly)) in outputs[0].iter().zip(some) {
                    // The mean label stands for all that could be drawn, and leaves their spread out of the loss.
                    let output = f64::from(*output).clamp(0.0, 1.0);
                    loss += (output - self.labels.mean(*anomaly)).powi(2);
                    right += usize::from((output > 0.5) == *anomaly);
                }
            })?;
        }
        let count = examples.len() as f64;
        Ok(Some(Validation { loss: loss / count, accuracy: Some(right as f64 / count) }))
    }
}

/// The only tap of the network.
pub(super) fn taps() -> [TapRequest; 1] {
    [TapRequest::new("logits", OutputLayout::Rows)]
}

/// The mean squared error of outputs clipped to [0, 1], and its gradient by each.
///
/// A clipped output has no gradient of its own, and an image whose output is outside would never be learned from again.
/// All labels are inside, so the error always points back to them: the gradient is that of an output at the bound.
fn clipped_error(outputs: &[f32], labels: &[f32]) -> (f64, Vec<f32>) {
    let n = outputs.len() as f64;
    let mut loss = 0.0;
    let error = |(output, label): (&f32, &f32)| {
        // A number that is none must not become a good one.
        let clipped = if output.is_nan() { *output } else { output.clamp(0.0, 1.0) };
        let error = f64::from(clipped) - f64::from(*label);
        loss += error * error;
        (2.0 * error / n) as f32
    };
    let gradient = outputs.iter().zip(labels).map(error).collect();
    (loss / n, gradient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fill_their_intervals() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        for anomaly in [false, true] {
            let drawn: Vec<f32> = (0..2000).map(|_| Labels::Continuous(0.3).draw(anomaly, &mut random)).collect();
            let (least, greatest) = drawn.iter().fold((1.0f32, 0.0f32), |(low, high), x| (low.min(*x), high.max(*x)));
            let (from, to) = if anomaly { (0.7, 1.0) } else { (0.0, 0.3) };
            assert!(least >= from - 1e-6 && least < from + 0.01, "{least}");
            assert!(greatest <= to + 1e-6 && greatest > to - 0.01, "{greatest}");
            let mean = drawn.iter().map(|x| f64::from(*x)).sum::<f64>() / 2000.0;
            // Five standard errors of the mean of 2000 uniform numbers.
            assert!(
                (mean - Labels::Continuous(0.3).mean(anomaly)).abs() < 5.0 * 0.3 / 12.0f64.sqrt() / 2000.0f64.sqrt()
            );
            assert_eq!(Labels::Discrete.draw(anomaly, &mut random), f32::from(u8::from(anomaly)));
        }
    }

    #[test]
    fn outputs_beyond_the_bounds_are_pulled_back() {
        let (loss, gradient) = clipped_error(&[0.5, 7.0, -7.0, 0.2], &[0.75, 0.75, 0.25, 0.25]);
        let errors = [-0.25, 0.25, -0.25, -0.05];
        assert!((loss - errors.iter().map(|error| error * error).sum::<f64>() / 4.0).abs() < 1e-8);
        for (gradient, error) in gradient.iter().zip(errors) {
            assert!((f64::from(*gradient) - 2.0 * error / 4.0).abs() < 1e-7, "{gradient} {error}");
        }
        assert!(clipped_error(&[f32::NAN], &[0.5]).0.is_nan());
    }
}
