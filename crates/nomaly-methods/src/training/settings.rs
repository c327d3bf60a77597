//! The settings that every method with a training has.

use std::fmt::{self, Display};
use std::str::FromStr;

use nomaly_backbones::trainable::Rule;
use nomaly_scorers::Parameter;

use super::plan::TrainingPlan;
use super::schedule::Schedule;
use crate::groups::{Groups, Split};
use crate::{MethodError, Settings};

/// Passes over the examples.
pub(crate) const fn epochs(default: &'static str) -> Parameter {
    Parameter {
        name: "epochs",
        default,
        values: "a whole number from 1 to 100000",
        summary: "passes over all training examples",
    }
}

/// Passes over the examples of a method whose published number belongs to thousands of images.
pub(crate) const EPOCHS_AUTO: Parameter = Parameter {
    name: "epochs",
    default: "auto",
    values: "`auto`, or a whole number from 1 to 100000",
    summary: "passes over all training examples; `auto` is as many as show the network 24 000 images, but 4 to 200",
};

/// Examples a step.
pub(crate) const fn batch_size(default: &'static str) -> Parameter {
    Parameter {
        name: "batch_size",
        default,
        values: "a whole number from 2 to 4096",
        summary: "examples a step of the optimiser",
    }
}

/// The optimiser.
pub(crate) const OPTIMISER: Parameter = Parameter {
    name: "optimiser",
    default: "adam",
    values: Optimiser::NAMES,
    summary: "how parameters follow the gradient; `sgd` has momentum 0.9",
};

/// The learning rate.
pub(crate) const fn rate(default: &'static str) -> Parameter {
    Parameter {
        name: "rate",
        default,
        values: "a number above 0 and at most 10",
        summary: "learning rate; with `optimiser=sgd` it is 0.03 where none is given",
    }
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
        values: "`none`, `auto` for half of all epochs, or a whole number from 1",
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

/// How parameters follow the gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Optimiser {
    /// Adam with PyTorch's constants.
    Adam,
    /// Stochastic gradient descent with momentum.
    Sgd,
}

/// Share of the velocity that SGD keeps.
const MOMENTUM: f64 = 0.9;
/// The learning rate of SGD where none is given: that of CutPaste's authors.
const SGD_RATE: f64 = 0.03;

impl Optimiser {
    const NAMES: &'static str = "`adam` or `sgd`";
}

impl FromStr for Optimiser {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "adam" => Ok(Self::Adam),
            "sgd" => Ok(Self::Sgd),
            _ => Err(()),
        }
    }
}

impl Display for Optimiser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Adam => "adam",
            Self::Sgd => "sgd",
        })
    }
}

/// How many passes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Epochs {
    /// So many.
    Fixed(usize),
    /// As many as show the network [`SHOWN`] images: as long a training for a few images as for thousands.
    Auto,
}

/// What [`Epochs::Auto`] shows a network: four passes over 6000 images, which is a class of MNIST or Fashion-MNIST.
const SHOWN: usize = 24_000;

impl Epochs {
    /// Passes over so many images.
    fn count(self, images: usize) -> usize {
        match self {
            Self::Fixed(count) => count,
            Self::Auto => SHOWN.div_ceil(images.max(1)).clamp(4, 200),
        }
    }
}

impl Display for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(count) => count.fmt(f),
            Self::Auto => f.pad("auto"),
        }
    }
}

/// After how many epochs without a smaller validation loss a training stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It does not, and keeps the last network.
    None,
    /// Half of all epochs.
    Auto,
    /// So many.
    Epochs(usize),
}

impl Display for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Auto => f.pad("auto"),
            Self::Epochs(count) => count.fmt(f),
        }
    }
}

/// How a network is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TrainingSettings {
    pub(crate) epochs: Epochs,
    pub(crate) batch_size: usize,
    pub(crate) optimiser: Optimiser,
    pub(crate) rate: f64,
    pub(crate) schedule: Schedule,
    pub(crate) l2: f64,
    pub(crate) patience: Patience,
    /// `None` for `auto`.
    pub(crate) holdout: Option<f64>,
}

impl TrainingSettings {
    /// What `settings` say, and `self` where they say nothing.
    pub(crate) fn updated(self, settings: &Settings) -> Result<Self, MethodError> {
        let epochs = if self.epochs == Epochs::Auto { EPOCHS_AUTO } else { epochs("") };
        let (batch_size, rate) = (batch_size(""), rate(""));
        let (schedule, l2, patience, holdout) = (schedule(""), l2(""), patience(""), holdout(""));
        let optimiser = settings.value(OPTIMISER.name, self.optimiser, OPTIMISER.values)?;
        // A rate belongs to the optimiser that it was chosen for.
        let default_rate =
            if (self.optimiser, optimiser) == (Optimiser::Adam, Optimiser::Sgd) { SGD_RATE } else { self.rate };
        Ok(Self {
            epochs: match (settings.get(epochs.name), self.epochs) {
                (None, default) => default,
                (Some("auto"), Epochs::Auto) => Epochs::Auto,
                (Some(_), _) => Epochs::Fixed(within(settings, &epochs, 1, &(1..=100_000))?),
            },
            batch_size: within(settings, &batch_size, self.batch_size, &(2..=4096))?,
            optimiser,
            rate: within(settings, &rate, default_rate, &(f64::MIN_POSITIVE..=10.0))?,
            schedule: settings.value(schedule.name, self.schedule, schedule.values)?,
            l2: within(settings, &l2, self.l2, &(0.0..=1.0))?,
            patience: match settings.get(patience.name) {
                None => self.patience,
                Some("none") => Patience::None,
                Some("auto") => Patience::Auto,
                Some(_) => Patience::Epochs(within(settings, &patience, 1, &(1..=usize::MAX))?),
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
        settings
            .with("epochs", self.epochs)
            .with("batch_size", self.batch_size)
            .with(OPTIMISER.name, self.optimiser)
            .with("rate", self.rate)
            .with("schedule", self.schedule)
            .with("l2", self.l2)
            .with("patience", self.patience)
            .with("holdout", self.holdout.map_or_else(|| "auto".to_owned(), |share| share.to_string()))
    }

    /// The plan of a training with this seed on so many images.
    pub(crate) fn plan(&self, seed: u64, images: usize) -> TrainingPlan {
        let Self { batch_size, schedule, patience, .. } = *self;
        let epochs = self.epochs.count(images);
        let patience = match patience {
            Patience::None => None,
            Patience::Auto => Some(epochs.div_ceil(2)),
            Patience::Epochs(count) => Some(count),
        };
        TrainingPlan { epochs, batch: batch_size, schedule, patience, seed }
    }

    /// The optimiser with the penalty in the gradient, that of `l2 · Σ w²`.
    pub(crate) fn rule(&self) -> Rule {
        let Self { rate, l2, .. } = *self;
        let mut rule = match self.optimiser {
            Optimiser::Adam => Rule::adam(rate),
            Optimiser::Sgd => Rule::sgd(rate, MOMENTUM),
        };
        let (Rule::Adam { weight_decay, .. } | Rule::Sgd { weight_decay, .. }) = &mut rule;
        *weight_decay = 2.0 * l2;
        rule
    }

    /// Divides `images` into those that are trained on and those that are held out, both ascending and not empty, by the
    /// seed.
    pub(crate) fn divide(&self, groups: &Groups, seed: u64) -> Division {
        let images = groups.items();
        let share = match self.holdout {
            Some(share) => images as f64 * share,
            None => (images as f64 / 10.0).max(20.0).min(images as f64 / 5.0),
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

/// A setting within bounds.
pub(crate) fn within<T: FromStr + PartialOrd + Display>(
    settings: &Settings,
    parameter: &Parameter,
    default: T,
    range: &std::ops::RangeInclusive<T>,
) -> Result<T, MethodError> {
    let value = settings.value(parameter.name, default, parameter.values)?;
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(MethodError::setting(parameter.name, &value.to_string(), parameter.values))
    }
}

#[cfg(test)]
mod tests {
    use nomaly_backbones::trainable::WeightDecay;

    use super::*;

    const DEFAULTS: TrainingSettings = TrainingSettings {
        epochs: Epochs::Fixed(3),
        batch_size: 128,
        optimiser: Optimiser::Adam,
        rate: 0.001,
        schedule: Schedule::Constant,
        l2: 0.0,
        patience: Patience::None,
        holdout: None,
    };

    #[test]
    fn settings_in_full_bring_the_same_back() {
        let given =
            Settings::parse(&["epochs=7", "rate=0.01", "schedule=cosine", "patience=2", "holdout=0.25"]).unwrap();
        let read = DEFAULTS.updated(&given).unwrap();
        assert_eq!((read.epochs, read.patience, read.holdout), (Epochs::Fixed(7), Patience::Epochs(2), Some(0.25)));
        assert_eq!(DEFAULTS.updated(&read.add_to(Settings::default())).unwrap(), read);
        assert_eq!(DEFAULTS.updated(&DEFAULTS.add_to(Settings::default())).unwrap(), DEFAULTS);
        let automatic = TrainingSettings { epochs: Epochs::Auto, patience: Patience::Auto, ..DEFAULTS };
        assert_eq!(automatic.updated(&automatic.add_to(Settings::default())).unwrap(), automatic);
    }

    #[test]
    fn an_optimiser_has_a_rate_of_its_own() {
        let read = |given: &[&str]| DEFAULTS.updated(&Settings::parse(given).unwrap()).unwrap();
        assert_eq!(
            read(&["l2=0.5"]).rule(),
            Rule::Adam {
                rate: 0.001,
                betas: [0.9, 0.999],
                epsilon: 1e-8,
                weight_decay: 1.0,
                decay: WeightDecay::Gradient,
            }
        );
        assert_eq!(read(&["optimiser=sgd"]).rule(), Rule::sgd(0.03, 0.9));
        let given = read(&["optimiser=sgd", "rate=0.5"]);
        assert_eq!(given.rule(), Rule::sgd(0.5, 0.9));
        assert_eq!(DEFAULTS.updated(&given.add_to(Settings::default())).unwrap(), given);
    }

    #[test]
    fn few_images_are_shown_more_often() {
        let automatic = TrainingSettings { epochs: Epochs::Auto, patience: Patience::Auto, ..DEFAULTS };
        for (images, epochs) in [(0, 200usize), (20, 200), (800, 30), (6000, 4), (60_000, 4)] {
            let plan = automatic.plan(1, images);
            assert_eq!((plan.epochs, plan.patience), (epochs, Some(epochs.div_ceil(2))), "{images}");
        }
        let given = automatic.updated(&Settings::parse(&["epochs=7", "patience=none"]).unwrap()).unwrap();
        let plan = given.plan(1, 6000);
        assert_eq!((plan.epochs, plan.patience), (7, None));
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for given in [
            "epochs=0",
            "epochs=auto",
            "batch_size=1",
            "rate=0",
            "rate=-1",
            "rate=NaN",
            "l2=2",
            "patience=0",
            "holdout=1",
            "schedule=x",
            "optimiser=adamw",
        ] {
            let settings = Settings::parse(&[given]).unwrap();
            assert!(DEFAULTS.updated(&settings).is_err(), "{given}");
        }
    }

    #[test]
    fn some_images_are_held_out_and_some_are_not() {
        for (images, held_out) in [(2, 1), (3, 1), (5, 1), (40, 8), (100, 20), (300, 30), (6000, 600)] {
            let division = DEFAULTS.divide(&Groups::singletons(images), 1);
            assert_eq!((division.held_out.len(), division.train.len()), (held_out, images - held_out), "{images}");
            let mut all = [division.train, division.held_out].concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..images));
        }
    }
}
