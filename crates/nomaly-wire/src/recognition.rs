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
    /// The known classes, with the training items of each.
    pub classes: Vec<KnownItems>,
    /// The decision rule in words.
    pub rule: String,
    /// The figures.
    #[serde(flatten)]
    pub figures: RecognitionFigures,
    /// How long it took.
    pub timing: Timing,
    /// The peak memory of the process in MiB; `None` if the system does not report it.
    pub peak_rss_mib: Option<f64>,
    /// Unusable items.
    pub skipped: Vec<Skipped>,
}

/// A class of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KnownItems {
    /// Its name.
    pub name: String,
    /// The number of training items.
    pub items: usize,
}

/// The numbers of test items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KnownCounts {
    /// Items of known classes.
    pub known: usize,
    /// Items of other classes.
    pub unknown: usize,
}

/// Figures in [0, 1], shares with Wilson's 95 % intervals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecognitionFigures {
    /// The numbers of test items.
    pub n_test: KnownCounts,
    /// The closed-set accuracy: the share of known items whose closest class is the right one.
    pub closed_set_accuracy: f64,
    /// Its interval.
    pub closed_set_accuracy_ci: Option<Ends>,
    /// The number of test items without a decision, because their closest class has no threshold.
    pub undecided: usize,
    /// The share of known items called unknown: false alarms; `None` if some of them are undecided.
    pub false_unknown: Option<f64>,
    /// Its interval.
    pub false_unknown_ci: Option<Ends>,
    /// Of the known items that are assigned a class, the share with the right one; `None` without any.
    pub accuracy_of_accepted: Option<f64>,
    /// Its interval.
    pub accuracy_of_accepted_ci: Option<Ends>,
    /// The share of the other items called unknown; `None` without others, or if some are undecided.
    pub unknown_found: Option<f64>,
    /// Its interval.
    pub unknown_found_ci: Option<Ends>,
    /// The AUROC of other items against known ones; `None` without others.
    pub auroc: Option<f64>,
    /// Its interval, DeLong's; `None` with a single known or a single other item.
    pub auroc_ci: Option<Ends>,
    /// The confusion matrix.
    pub confusion: Confusion,
}

/// A confusion matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confusion {
    /// The classes of the model, then `unknown`, then `undecided` if there are such items.
    pub decisions: Vec<String>,
    /// One row for each kind of test item: known ones in the order of the classes, then the others.
    pub rows: Vec<ConfusionRow>,
}

/// The items of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfusionRow {
    /// The label of the items.
    pub kind: String,
    /// Whether it is a class of the model.
    pub known: bool,
    /// The number of items with each of the decisions.
    pub counts: Vec<usize>,
}
