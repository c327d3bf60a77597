//! Settings of all methods that train a network.

use nomaly_nn::runtime::TrainableNetwork;
use nomaly_nn::trainable::{Clip, Rule};
use nomaly_settings::{Auto, SettingError, word_or_value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::objective::Learner;
use super::plan::TrainingPlan;
use super::schedule::{Schedule, Warmup};
use crate::groups::{Groups, Split};

/// How parameters follow the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Adam with PyTorch's constants.
    Adam,
    /// AdamW with PyTorch's betas and epsilon.
    #[serde(rename = "adamw")]
    AdamW,
    /// Adam with Nesterov momentum and PyTorch's constants.
    #[serde(rename = "nadam")]
    NAdam,
    /// RMSProp with PyTorch's constants, without momentum.
    #[serde(rename = "rmsprop")]
    RmsProp,
    /// Stochastic gradient descent with momentum 0.9.
    Sgd,
    /// AdamW with update clipping, betas 0.9 and 0.99.
    #[serde(rename = "stable-adamw")]
    StableAdamW,
}

/// The momentum of SGD.
const MOMENTUM: f64 = 0.9;

impl Optimizer {
    /// The default learning rate: that of PyTorch, and for SGD that of CutPaste's authors.
    fn default_rate(self) -> f64 {
        match self {
            Self::Adam | Self::AdamW | Self::StableAdamW => 0.001,
            Self::NAdam => 0.002,
            Self::RmsProp => 0.01,
            Self::Sgd => 0.03,
        }
    }

    /// Whether it can divide by the largest second moment so far.
    fn has_amsgrad(self) -> bool {
        matches!(self, Self::Adam | Self::AdamW | Self::StableAdamW)
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
    /// Whether `adam`, `adamw` and `stable-adamw` divide by the root of the largest second moment so far, not of the
    /// present one.
    pub amsgrad: bool,
    /// Whether `sgd` has Nesterov momentum.
    pub nesterov: bool,
    /// Learning rate; `auto` is 0.03 for SGD, 0.01 for RMSProp, 0.002 for NAdam and 0.001 for the others.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 10))]
    pub rate: Auto<f64>,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// How long the learning rate rises in equal parts before its schedule begins.
    pub warmup: Warmup,
    /// Weight of the sum of all squared parameters in the loss; with `adamw` and `stable-adamw` each step shrinks them
    /// by twice that, times the learning rate, instead.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub l2: f64,
    /// The largest norm of the gradients of a network together, to which larger ones are shrunk before a step.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip_norm: Option<f64>,
    /// The largest magnitude of a value of the gradients, to which larger ones are cut before a step.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip_value: Option<f64>,
    /// Epochs without a smaller loss of held-out images after which training stops, and the best network is kept;
    /// `auto` is half of all epochs.
    pub patience: Patience,
    /// Share of the images that is not trained on, and calibrates the decision; `auto` is a tenth, but 20 images where
    /// that is at most a fifth.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 0.9))]
    pub holdout: Auto<f64>,
}

impl TrainingParams {
    /// Adam at a constant rate, without penalty and early stopping.
    pub fn new(epochs: Auto<usize>, batch_size: usize) -> Self {
        Self {
            epochs,
            batch_size,
            optimizer: Optimizer::Adam,
            amsgrad: false,
            nesterov: false,
            rate: Auto::Auto,
            schedule: Schedule::Constant,
            warmup: Warmup::None,
            l2: 0.0,
            clip_norm: None,
            clip_value: None,
            patience: Patience::None,
            holdout: Auto::Auto,
        }
    }

    /// The plan of a training with this seed on `images` images.
    pub fn plan(&self, seed: u64, images: usize) -> TrainingPlan {
        let Self { batch_size, schedule, warmup, patience, .. } = *self;
        let epochs = self.epochs.unwrap_or(SHOWN.div_ceil(images.max(1)).clamp(4, 200));
        let patience = match patience {
            Patience::None => None,
            Patience::Auto => Some(epochs.div_ceil(2)),
            Patience::Epochs(count) => Some(count),
        };
        TrainingPlan { epochs, batch: batch_size, schedule, warmup, patience, seed }
    }

    /// Rejects what the optimizer does not have, and two limits of the gradients.
    ///
    /// # Errors
    /// The setting that contradicts another.
    pub fn check(&self) -> Result<(), SettingError> {
        if self.amsgrad && !self.optimizer.has_amsgrad() {
            let expected = "`false` unless `optimizer` is `adam`, `adamw` or `stable-adamw`";
            return Err(SettingError::value("amsgrad", true, expected));
        }
        if let (Some(_), Some(value)) = (self.clip_norm, self.clip_value) {
            return Err(SettingError::value("clip_value", value, "`none` where there is a `clip_norm`"));
        }
        if self.nesterov && self.optimizer != Optimizer::Sgd {
            return Err(SettingError::value("nesterov", true, "`false` unless `optimizer=sgd`"));
        }
        Ok(())
    }

    /// The update rule, with the gradient of the penalty `l2 · Σ w²`, or the weight decay of the same size.
    pub fn rule(&self) -> Rule {
        let Self { l2, optimizer, .. } = *self;
        let rate = self.rate.unwrap_or(optimizer.default_rate());
        let mut rule = match optimizer {
            Optimizer::Adam => Rule::adam(rate),
            Optimizer::AdamW => Rule::adamw(rate),
            Optimizer::NAdam => Rule::nadam(rate),
            Optimizer::RmsProp => Rule::rmsprop(rate),
            Optimizer::Sgd => Rule::sgd(rate, MOMENTUM),
            Optimizer::StableAdamW => Rule::stable_adamw(rate),
        };
        match &mut rule {
            Rule::Adam { amsgrad, .. } | Rule::StableAdamW { amsgrad, .. } => *amsgrad = self.amsgrad,
            Rule::Sgd { nesterov, .. } => *nesterov = self.nesterov,
            Rule::NAdam { .. } | Rule::RmsProp { .. } => {}
        }
        rule.with_weight_decay(2.0 * l2)
    }

    /// How gradients are limited before a step; `None` for not at all.
    pub fn clip(&self) -> Option<Clip> {
        self.clip_norm.map(Clip::Norm).or(self.clip_value.map(Clip::Value))
    }

    /// A learner of `network` with the update rule and the limit of gradients.
    pub fn learner(&self, network: Box<dyn TrainableNetwork>) -> Learner {
        Learner::new(network, self.rule()).with_clip(self.clip())
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
    use nomaly_nn::trainable::WeightDecay;
    use nomaly_settings::{Assignments, Settings};

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Params {
        #[serde(flatten)]
        training: TrainingParams,
    }

    impl Default for Params {
        fn default() -> Self {
            Self { training: TrainingParams::new(Auto::Value(3), 128) }
        }
    }

    impl Settings for Params {
        fn check(&self) -> Result<(), SettingError> {
            self.training.check()
        }
    }

    fn read(given: &[&str]) -> Result<TrainingParams, SettingError> {
        Ok(Assignments::parse(given)?.read::<Params>()?.training)
    }

    #[test]
    fn settings_in_full_bring_the_same_back() {
        let given =
            read(&["epochs=7", "rate=0.01", "schedule=one-cycle", "patience=2", "holdout=0.25", "warmup=5%"]).unwrap();
        let expected = (Auto::Value(7), Patience::Epochs(2), Auto::Value(0.25), Warmup::Percent(5.0));
        assert_eq!((given.epochs, given.patience, given.holdout, given.warmup), expected);
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
        assert_eq!(
            read(&["optimizer=adamw", "amsgrad=true", "l2=0.01"]).unwrap().rule(),
            Rule::Adam {
                rate: 0.001,
                betas: [0.9, 0.999],
                epsilon: 1e-8,
                weight_decay: 0.02,
                decay: WeightDecay::Decoupled,
                amsgrad: true,
            }
        );
        for (name, rule) in [
            ("nadam", Rule::nadam(0.002)),
            ("rmsprop", Rule::rmsprop(0.01)),
            ("stable-adamw", Rule::stable_adamw(0.001).with_weight_decay(0.0)),
        ] {
            assert_eq!(read(&[&format!("optimizer={name}")]).unwrap().rule(), rule);
        }
        match read(&["optimizer=sgd", "nesterov=true"]).unwrap().rule() {
            Rule::Sgd { nesterov: true, momentum: MOMENTUM, .. } => {}
            rule => panic!("{rule:?}"),
        }
        assert_eq!(read(&["optimizer=sgd"]).unwrap().rule(), Rule::sgd(0.03, 0.9));
        assert_eq!(read(&["optimizer=sgd", "rate=0.5"]).unwrap().rule(), Rule::sgd(0.5, 0.9));
        let error = read(&["optimiser=sgd"]).unwrap_err().to_string();
        assert_eq!(error, "setting `optimiser` is now called `optimizer`");
    }

    #[test]
    fn what_an_optimizer_does_not_have_is_refused() {
        for (given, message) in [
            (
                ["optimizer=sgd", "amsgrad=true"],
                "setting `amsgrad` is `true`; it takes `false` unless `optimizer` is `adam`, `adamw` or `stable-adamw`",
            ),
            (
                ["optimizer=nadam", "nesterov=true"],
                "setting `nesterov` is `true`; it takes `false` unless `optimizer=sgd`",
            ),
        ] {
            assert_eq!(read(&given).unwrap_err().to_string(), message);
        }
        assert!(read(&["optimizer=stable-adamw", "amsgrad=true"]).is_ok());
    }

    #[test]
    fn gradients_are_limited_in_one_way() {
        assert_eq!(read(&[]).unwrap().clip(), None);
        assert_eq!(read(&["clip_norm=0.5"]).unwrap().clip(), Some(Clip::Norm(0.5)));
        assert_eq!(read(&["clip_value=2", "clip_norm=none"]).unwrap().clip(), Some(Clip::Value(2.0)));
        let stored = Assignments::of(&Params { training: read(&["clip_norm=0.5"]).unwrap() });
        assert_eq!(stored.text("clip_norm").as_deref(), Some("0.5"));
        let both = read(&["clip_norm=1", "clip_value=2"]).unwrap_err().to_string();
        assert_eq!(both, "setting `clip_value` is `2`; it takes `none` where there is a `clip_norm`");
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
            "clip_norm=0",
            "clip_value=-1",
            "l2=2",
            "patience=0",
            "holdout=1",
            "schedule=x",
            "optimizer=adagrad",
            "warmup=0",
            "warmup=200%",
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
