//! The settings that every method with a training has.

use std::fmt::Display;

use nomaly_backbones::trainable::{Rule, WeightDecay};
use nomaly_scorers::Parameter;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Schedule, TrainingPlan};
use crate::{DetectorError, Settings};

/// Passes over the examples.
pub(crate) const fn epochs(default: &'static str) -> Parameter {
    Parameter {
        name: "epochs",
        default,
        values: "a whole number from 1 to 100000",
        summary: "passes over all training examples",
    }
}

/// Examples a step.
pub(crate) const fn batch_size(default: &'static str) -> Parameter {
    Parameter {
        name: "batch_size",
        default,
        values: "a whole number from 2 to 4096",
        summary: "examples a step of the optimiser",
    }
}

/// The learning rate.
pub(crate) const fn rate(default: &'static str) -> Parameter {
    Parameter { name: "rate", default, values: "a number above 0 and at most 10", summary: "learning rate" }
}

/// How the learning rate changes.
pub(crate) const fn schedule(default: &'static str) -> Parameter {
    Parameter { name: "schedule", default, values: Schedule::NAMES, summary: "how the learning rate changes" }
}

/// The weight of the squared parameters in the loss.
pub(crate) const fn l2(default: &'static str) -> Parameter {
    Parameter {
        name: "l2",
        default,
        values: "a number from 0 to 1",
        summary: "weight of the sum of all squared parameters in the loss",
    }
}

/// Early stopping.
pub(crate) const fn patience(default: &'static str) -> Parameter {
    Parameter {
        name: "patience",
        default,
        values: "`none`, or a whole number from 1",
        summary: "epochs without a smaller loss of held-out images after which training stops, and the best network is kept",
    }
}

/// The images that are not trained on.
pub(crate) const fn holdout(default: &'static str) -> Parameter {
    Parameter {
        name: "holdout",
        default,
        values: "`auto`, or a share above 0 and at most 0.9",
        summary: "share of the images that is not trained on, and calibrates the decision; `auto` is a tenth, but 20 images \
                  where that is at most a fifth",
    }
}

/// How a network is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TrainingSettings {
    pub(crate) epochs: usize,
    pub(crate) batch_size: usize,
    pub(crate) rate: f64,
    pub(crate) schedule: Schedule,
    pub(crate) l2: f64,
    pub(crate) patience: Option<usize>,
    /// `None` for `auto`.
    pub(crate) holdout: Option<f64>,
}

impl TrainingSettings {
    /// What `settings` say, and `self` where they say nothing.
    pub(crate) fn updated(self, settings: &Settings) -> Result<Self, DetectorError> {
        let (epochs, batch_size, rate) = (epochs(""), batch_size(""), rate(""));
        let (schedule, l2, patience, holdout) = (schedule(""), l2(""), patience(""), holdout(""));
        Ok(Self {
            epochs: within(settings, &epochs, self.epochs, &(1..=100_000))?,
            batch_size: within(settings, &batch_size, self.batch_size, &(2..=4096))?,
            rate: within(settings, &rate, self.rate, &(f64::MIN_POSITIVE..=10.0))?,
            schedule: settings.value(schedule.name, self.schedule, schedule.values)?,
            l2: within(settings, &l2, self.l2, &(0.0..=1.0))?,
            patience: match settings.get(patience.name) {
                None => self.patience,
                Some("none") => None,
                Some(_) => Some(within(settings, &patience, 1, &(1..=usize::MAX))?),
            },
            holdout: match settings.get(holdout.name) {
                None => self.holdout,
                Some("auto") => None,
                Some(_) => Some(within(settings, &holdout, 0.1, &(f64::MIN_POSITIVE..=0.9))?),
            },
        })
    }

    /// The same as settings.
    pub(crate) fn add_to(&self, settings: Settings) -> Settings {
        let or = |value: Option<&dyn Display>, none: &str| value.map_or_else(|| none.to_owned(), ToString::to_string);
        settings
            .with("epochs", self.epochs)
            .with("batch_size", self.batch_size)
            .with("rate", self.rate)
            .with("schedule", self.schedule)
            .with("l2", self.l2)
            .with("patience", or(self.patience.as_ref().map(|patience| patience as &dyn Display), "none"))
            .with("holdout", or(self.holdout.as_ref().map(|holdout| holdout as &dyn Display), "auto"))
    }

    /// The plan of a training with this seed.
    pub(crate) fn plan(&self, seed: u64) -> TrainingPlan {
        let Self { epochs, batch_size, schedule, patience, .. } = *self;
        TrainingPlan { epochs, batch: batch_size, schedule, patience, seed }
    }

    /// Adam with the penalty in the gradient, that of `l2 · Σ w²`.
    pub(crate) fn adam(&self) -> Rule {
        Rule::Adam {
            rate: self.rate,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            weight_decay: 2.0 * self.l2,
            decay: WeightDecay::Gradient,
        }
    }

    /// Divides `images` into those that are trained on and those that are held out, both ascending and not empty, by the
    /// seed.
    pub(crate) fn divide(&self, images: usize, seed: u64) -> Division {
        let share = match self.holdout {
            Some(share) => images as f64 * share,
            None => (images as f64 / 10.0).max(20.0).min(images as f64 / 5.0),
        };
        let held_out = (share.round() as usize).clamp(1, images.saturating_sub(1).max(1));
        let mut order: Vec<usize> = (0..images).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let mut train = order.split_off(held_out);
        train.sort_unstable();
        order.sort_unstable();
        Division { train, held_out: order }
    }
}

/// Numbers of images, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) train: Vec<usize>,
    pub(crate) held_out: Vec<usize>,
}

/// A setting within bounds.
pub(crate) fn within<T: std::str::FromStr + PartialOrd + Display>(
    settings: &Settings,
    parameter: &Parameter,
    default: T,
    range: &std::ops::RangeInclusive<T>,
) -> Result<T, DetectorError> {
    let value = settings.value(parameter.name, default, parameter.values)?;
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(DetectorError::setting(parameter.name, &value.to_string(), parameter.values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: TrainingSettings = TrainingSettings {
        epochs: 3,
        batch_size: 128,
        rate: 0.001,
        schedule: Schedule::Constant,
        l2: 0.0,
        patience: None,
        holdout: None,
    };

    #[test]
    fn settings_in_full_bring_the_same_back() {
        let given =
            Settings::parse(&["epochs=7", "rate=0.01", "schedule=cosine", "patience=2", "holdout=0.25"]).unwrap();
        let read = DEFAULTS.updated(&given).unwrap();
        assert_eq!((read.epochs, read.patience, read.holdout), (7, Some(2), Some(0.25)));
        assert_eq!(DEFAULTS.updated(&read.add_to(Settings::default())).unwrap(), read);
        assert_eq!(DEFAULTS.updated(&DEFAULTS.add_to(Settings::default())).unwrap(), DEFAULTS);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for given in [
            "epochs=0",
            "batch_size=1",
            "rate=0",
            "rate=-1",
            "rate=NaN",
            "l2=2",
            "patience=0",
            "holdout=1",
            "schedule=x",
        ] {
            let settings = Settings::parse(&[given]).unwrap();
            assert!(DEFAULTS.updated(&settings).is_err(), "{given}");
        }
    }

    #[test]
    fn some_images_are_held_out_and_some_are_not() {
        for (images, held_out) in [(2, 1), (3, 1), (5, 1), (40, 8), (100, 20), (300, 30), (6000, 600)] {
            let division = DEFAULTS.divide(images, 1);
            assert_eq!((division.held_out.len(), division.train.len()), (held_out, images - held_out), "{images}");
            let mut all = [division.train, division.held_out].concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..images));
        }
    }
}
