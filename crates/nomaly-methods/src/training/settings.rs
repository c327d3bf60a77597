//! Settings of all methods that train a network.

use nomaly_backbones::trainable::Rule;
use nomaly_settings::{Auto, word_or_value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plan::TrainingPlan;
use super::schedule::Schedule;
use crate::groups::{Groups, Split};

/// How parameters follow the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Adam with PyTorch's constants.
    Adam,
    /// Stochastic gradient descent with momentum 0.9.
    Sgd,
}

/// The momentum of SGD.
const MOMENTUM: f64 = 0.9;

impl Optimizer {
    /// The default learning rate: Adam's usual one, and for SGD that of CutPaste's authors.
    fn default_rate(self) -> f64 {
        match self {
            Self::Adam => 0.001,
            Self::Sgd => 0.03,
        }
    }
}

/// The number of images that `epochs=auto` trains on, for methods without a rule of their own: four passes over 6000
/// images, the size of a class of MNIST or Fashion-MNIST. Training takes as long for few images as for thousands.
const SHOWN: usize = 24_000;

word_or_value! {
    /// The number of epochs without a smaller validation loss after which training stops.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Patience {
        /// No early stopping; the last network is kept.
        None = "none",
        /// Half of all epochs.
        Auto = "auto",
        ;
        /// This number.
        Epochs(usize) { "minimum": 1 },
    }
}

/// How a network is trained. Its defaults belong to the method.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainingParams {
    /// Passes over all training examples; `auto` is the rule of the method.
    #[schemars(extend("minimum" = 1, "maximum" = 100_000))]
    pub epochs: Auto<usize>,
    /// Examples per step of the optimizer.
    #[schemars(extend("minimum" = 2, "maximum" = 4096))]
    pub batch_size: usize,
    /// How parameters follow the gradient; `sgd` has momentum 0.9.
    #[schemars(extend("x-formerly" = ["optimiser"]))]
    pub optimizer: Optimizer,
    /// Learning rate; `auto` is 0.001 for Adam and 0.03 for SGD.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 10))]
    pub rate: Auto<f64>,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// Weight of the sum of all squared parameters in the loss.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub l2: f64,
    /// Epochs without a smaller loss of held-out images after which training stops, and the best network is kept;
    /// `auto` is half of all epochs.
    pub patience: Patience,
    /// Share of the images that is not trained on, and calibrates the decision; `auto` is a tenth, but 20 images where
    /// that is at most a fifth.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 0.9))]
    pub holdout: Auto<f64>,
}

impl TrainingParams {
    /// The plan of a training with this seed on `images` images.
    pub(crate) fn plan(&self, seed: u64, images: usize) -> TrainingPlan {
        let Self { batch_size, schedule, patience, .. } = *self;
        let epochs = self.epochs.unwrap_or(SHOWN.div_ceil(images.max(1)).clamp(4, 200));
        let patience = match patience {
            Patience::None => None,
            Patience::Auto => Some(epochs.div_ceil(2)),
            Patience::Epochs(count) => Some(count),
        };
        TrainingPlan { epochs, batch: batch_size, schedule, patience, seed }
    }

    /// The update rule, with the gradient of the penalty `l2 · Σ w²`.
    pub(crate) fn rule(&self) -> Rule {
        let Self { l2, optimizer, .. } = *self;
        let rate = self.rate.unwrap_or(optimizer.default_rate());
        let rule = match optimizer {
            Optimizer::Adam => Rule::adam(rate),
            Optimizer::Sgd => Rule::sgd(rate, MOMENTUM),
        };
        rule.with_weight_decay(2.0 * l2)
    }

    /// Divides images into a training and a held-out part at random, both ascending and not empty.
    pub(crate) fn divide(&self, groups: &Groups, seed: u64) -> Division {
        let images = groups.items();
        let share = match self.holdout {
            Auto::Value(share) => images as f64 * share,
            Auto::Auto => (images as f64 / 10.0).max(20.0).min(images as f64 / 5.0),
        };
        let held_out = (share.round() as usize).clamp(1, images.saturating_sub(1).max(1));
        let held_out = groups.leaving(images.div_ceil(2)).hold_out(held_out, seed);
        let Split { train, test } = Split::holding_out(held_out, images);
        Division { train, held_out: test }
    }
}

/// Numbers of images, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) train: Vec<usize>,
    pub(crate) held_out: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use nomaly_backbones::trainable::WeightDecay;
    use nomaly_settings::{Assignments, SettingError, Settings};

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Params {
        #[serde(flatten)]
        training: TrainingParams,
    }

    impl Default for Params {
        fn default() -> Self {
            let training = TrainingParams {
                epochs: Auto::Value(3),
                batch_size: 128,
                optimizer: Optimizer::Adam,
                rate: Auto::Auto,
                schedule: Schedule::Constant,
                l2: 0.0,
                patience: Patience::None,
                holdout: Auto::Auto,
            };
            Self { training }
        }
    }

    impl Settings for Params {}

    fn read(given: &[&str]) -> Result<TrainingParams, SettingError> {
        Ok(Assignments::parse(given)?.read::<Params>()?.training)
    }

    #[test]
    fn settings_in_full_bring_the_same_back() {
        let given = read(&["epochs=7", "rate=0.01", "schedule=cosine", "patience=2", "holdout=0.25"]).unwrap();
        let expected = (Auto::Value(7), Patience::Epochs(2), Auto::Value(0.25));
        assert_eq!((given.epochs, given.patience, given.holdout), expected);
        let stored = Assignments::of(&Params { training: given });
        assert_eq!(stored.read::<Params>().unwrap().training, given);
    }

    #[test]
    fn an_optimizer_has_a_rate_of_its_own() {
        assert_eq!(
            read(&["l2=0.5"]).unwrap().rule(),
            Rule::Adam {
                rate: 0.001,
                betas: [0.9, 0.999],
                epsilon: 1e-8,
                weight_decay: 1.0,
                decay: WeightDecay::Gradient,
                amsgrad: false,
            }
        );
        assert_eq!(read(&["optimizer=sgd"]).unwrap().rule(), Rule::sgd(0.03, 0.9));
        assert_eq!(read(&["optimizer=sgd", "rate=0.5"]).unwrap().rule(), Rule::sgd(0.5, 0.9));
        let error = read(&["optimiser=sgd"]).unwrap_err().to_string();
        assert_eq!(error, "setting `optimiser` is now called `optimizer`");
    }

    #[test]
    fn few_images_are_shown_more_often() {
        let automatic = read(&["epochs=auto", "patience=auto"]).unwrap();
        for (images, epochs) in [(0, 200usize), (20, 200), (800, 30), (6000, 4), (60_000, 4)] {
            let plan = automatic.plan(1, images);
            assert_eq!((plan.epochs, plan.patience), (epochs, Some(epochs.div_ceil(2))), "{images}");
        }
        let plan = read(&["epochs=7", "patience=none"]).unwrap().plan(1, 6000);
        assert_eq!((plan.epochs, plan.patience), (7, None));
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
            "optimizer=adamw",
        ] {
            let name = given.split('=').next().unwrap();
            assert!(matches!(read(&[given]), Err(SettingError::Value { name: at, .. }) if at == name), "{given}");
        }
    }

    #[test]
    fn some_images_are_held_out_and_some_are_not() {
        let training = Params::default().training;
        for (images, held_out) in [(2, 1), (3, 1), (5, 1), (40, 8), (100, 20), (300, 30), (6000, 600)] {
            let division = training.divide(&Groups::singletons(images), 1);
            assert_eq!((division.held_out.len(), division.train.len()), (held_out, images - held_out), "{images}");
            let mut all = [division.train, division.held_out].concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..images));
        }
    }
}
