//! Evaluations of models of classes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::evaluation::{Ends, Timing};
use crate::score::Skipped;

/// Figures of one evaluation of a model of classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecognitionEvaluation {
    /// The data set.
    pub dataset: String,
    /// The method.
    pub method: String,
    /// The backbone; `None` for rows of numbers.
    pub backbone: Option<String>,
    /// The seed of the fit.
    pub seed: u64,
    /// The classes that the model knows, with the training items of each.
    pub classes: Vec<KnownItems>,
    /// The decision rule in words.
    pub rule: String,
    /// The figures.
    #[serde(flatten)]
    pub figures: RecognitionFigures,
    /// How long it took.
    pub timing: Timing,
    /// The most memory the process has held, in MiB; `None` where the system does not say.
    pub peak_rss_mib: Option<f64>,
    /// Items that could not be used.
    pub skipped: Vec<Skipped>,
}

/// A class that a model knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KnownItems {
    /// Its name.
    pub name: String,
    /// Items that it was learned from.
    pub items: usize,
}

/// How many test items there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KnownCounts {
    /// Of classes that the model knows.
    pub known: usize,
    /// Of others.
    pub unknown: usize,
}

/// Figures in [0, 1], shares with Wilson's 95 % intervals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecognitionFigures {
    /// Test items.
    pub n_test: KnownCounts,
    /// The share of known items whose closest class is theirs, no item being refused.
    pub closed_set_accuracy: f64,
    /// Its interval.
    pub closed_set_accuracy_ci: Option<Ends>,
    /// Test items that nothing was decided on, for the class that they are closest to has no threshold.
    pub undecided: usize,
    /// The share of known items that are called unknown: false alarms; `None` where some of them are undecided.
    pub false_unknown: Option<f64>,
    /// Its interval.
    pub false_unknown_ci: Option<Ends>,
    /// Of the known items that get a class, the share that get theirs; `None` where none gets one.
    pub accuracy_of_accepted: Option<f64>,
    /// Its interval.
    pub accuracy_of_accepted_ci: Option<Ends>,
    /// The share of the other items that are called unknown; `None` where there are no others, or some are undecided.
    pub unknown_found: Option<f64>,
    /// Its interval.
    pub unknown_found_ci: Option<Ends>,
    /// How often an item of none of the classes scores higher than one of them; `None` where there are no others.
    pub auroc: Option<f64>,
    /// Its interval, DeLong's; `None` where there is a single known or a single other item.
    pub auroc_ci: Option<Ends>,
    /// What was taken for what.
    pub confusion: Confusion,
}

/// What items were taken for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confusion {
    /// The classes of the model, then `unknown`, then `undecided` where there are such items.
    pub decisions: Vec<String>,
    /// One row for each kind of test item: known ones in the order of the classes, then the others.
    pub rows: Vec<ConfusionRow>,
}

/// The items of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfusionRow {
    /// What the items are, by their label.
    pub kind: String,
    /// Whether that is a class of the model.
    pub known: bool,
    /// How many got each of the decisions.
    pub counts: Vec<usize>,
}
