//! Normal images and the anomalies made of them, with their labels.

use nomaly_backbones::{OutputLayout, TapRequest};
use nomaly_nn::trainable::Pass;
use nomaly_transforms::augment::{AdaclAugmentation, AdaclKind};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::MethodError;
use crate::networks::examples::{Draw, ExampleMaker, Examples};
use crate::training::{Batch, Learner, Losses, Objective, Validation};

/// The most held-out images to validate on after each epoch, with an anomaly of each.
const MOST_VALIDATED: usize = 150;
/// Examples made of each view: the view itself, and an anomaly.
pub(super) const EXAMPLES: usize = 2;

/// The labels of the regression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Labels {
    /// Drawn anew each time: from [0, width] for normal images, from [1 − width, 1] for anomalies.
    Continuous(f64),
    /// 0 and 1.
    Discrete,
}

impl Labels {
    /// Draws a label.
    fn draw(self, anomaly: bool, random: &mut ChaCha8Rng) -> f32 {
        let off = match self {
            Self::Continuous(margin) => margin * random.random::<f64>(),
            Self::Discrete => 0.0,
        };
        (if anomaly { 1.0 - off } else { off }) as f32
    }

    /// The mean label.
    fn mean(self, anomaly: bool) -> f64 {
        let off = match self {
            Self::Continuous(margin) => 0.5 * margin,
            Self::Discrete => 0.0,
        };
        if anomaly { 1.0 - off } else { off }
    }
}

/// Makes a normal and an anomalous example of each view.
pub(super) struct NormalOrAnomaly<'a> {
    pub(super) kinds: &'a [AdaclKind],
    pub(super) labels: Labels,
}

/// The target of an example.
#[derive(Clone, Copy, Debug)]
pub(super) struct LabeledExample {
    anomaly: bool,
    label: f32,
}

impl ExampleMaker for NormalOrAnomaly<'_> {
    type Target = LabeledExample;

    fn kinds(&self) -> usize {
        EXAMPLES
    }

    fn create(
        &self,
        planes: &[f32],
        size: [usize; 2],
        kind: usize,
        Draw { random, .. }: &mut Draw,
        input: &mut [f32],
    ) -> Result<LabeledExample, MethodError> {
        let anomaly = kind == 1;
        let label = self.labels.draw(anomaly, random);
        if anomaly {
            let kind = self.kinds[random.random_range(0..self.kinds.len())];
            AdaclAugmentation::default().apply_kind(kind, planes, size, random, input)?;
        } else {
            input.copy_from_slice(planes);
        }
        Ok(LabeledExample { anomaly, label })
    }
}

/// Least-squares regression of labels.
pub(super) struct Regression<'a> {
    pub(super) examples: Examples<'a, NormalOrAnomaly<'a>>,
    pub(super) learner: Learner,
}

impl Objective for Regression<'_> {
    fn examples(&self) -> usize {
        self.examples.count()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("regressor", &mut self.learner)]
    }

    fn step(&mut self, batch: &Batch<'_>) -> Result<Losses, MethodError> {
        let (inputs, labels) = self.examples.batch(batch)?;
        let learner = &mut self.learner;
        learner.network.run(&[&inputs], Pass::Train)?;
        let labels: Vec<f32> = labels.iter().map(|example| example.label).collect();
        let (loss, gradient) = clipped_error(learner.network.output(0), &labels);
        learner.network.backward(&[&gradient])?;
        learner.step()?;
        self.examples.give_back(inputs);
        Ok(loss.into())
    }

    fn validate(&mut self, _epoch: usize) -> Result<Option<Validation>, MethodError> {
        let examples = self.examples.choose_held_out_views(MOST_VALIDATED);
        let labels = self.examples.maker.labels;
        let (mut loss, mut right) = (0.0, 0);
        self.examples.evaluate(
            self.learner.network.as_mut(),
            &examples,
            |outputs, LabeledExample { anomaly, .. }| {
                // The mean label leaves the spread of labels out of the loss.
                let output = f64::from(outputs[0]).clamp(0.0, 1.0);
                loss += (output - labels.mean(*anomaly)).powi(2);
                right += usize::from((output > 0.5) == *anomaly);
            },
        )?;
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
/// A clipped output has gradient zero, so that an image with an output outside would no longer be learned from. All
/// labels are inside, so the gradient of an output at the bound always points inside; it is used instead.
fn clipped_error(outputs: &[f32], labels: &[f32]) -> (f64, Vec<f32>) {
    let n = outputs.len() as f64;
    let mut loss = 0.0;
    let error = |(output, label): (&f32, &f32)| {
        // Propagate NaN.
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
    use rand::SeedableRng;

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
