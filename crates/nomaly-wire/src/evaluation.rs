//! Evaluations on labeled items.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ordered::Ordered;
use crate::score::Skipped;

/// Figures of one evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evaluation {
    /// The data set.
    pub dataset: String,
    /// The method.
    pub method: String,
    /// The backbone; `None` for rows of numbers.
    pub backbone: Option<String>,
    /// The seed of the fit.
    pub seed: u64,
    /// Training images that were used.
    pub n_train: usize,
    /// Test images that were scored.
    pub n_test: TestCounts,
    /// How many independent groups the test images form, where some depend on each other; intervals count groups then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub independent: Option<TestCounts>,
    /// Figures over whole images; `None` where no test image is labeled anomalous.
    pub image: Option<ImageFigures>,
    /// Figures over pixels; `None` for methods without anomaly maps and sets without masks.
    ///
    /// They compare maps and masks at the size of the frame, as the papers do.
    /// Anomalous images without a mask do not take part.
    pub pixel: Option<PixelFigures>,
    /// AUROC of each kind of anomaly against all normal images; empty where there is none.
    pub by_kind: BTreeMap<String, Ranking>,
    /// AUROC of each part of the score (of each level, say), in the method's order; empty where no test image is
    /// labeled anomalous.
    pub by_part: Ordered<Ranking>,
    /// By how much the AUROC over whole images changes when a term of the score is left out (of a transformation, say),
    /// in the method's order: below 0 for a term that is of use. Empty for scores that are no sum.
    #[serde(default, skip_serializing_if = "Ordered::is_empty")]
    pub sensitivity: Ordered<f64>,
    /// The decision.
    pub threshold: ThresholdFigures,
    /// How often normal test images get small p-values: at most as often as the p-value says, where the model keeps its
    /// promise.
    pub p_values: Vec<PValueShare>,
    /// What a classifier gets that sees the labels of the test set, where it was asked for; for comparison only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervised_reference: Option<SupervisedReference>,
    /// What another detector and this one get together, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hybrid: Option<HybridFigures>,
    /// How long it took.
    pub timing: Timing,
    /// The most memory the process has held, in MiB; `None` where the system does not say.
    pub peak_rss_mib: Option<f64>,
    /// Images that could not be used.
    pub skipped: Vec<Skipped>,
}

/// How many test images there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestCounts {
    /// Labeled normal.
    pub normal: usize,
    /// Labeled anomalous.
    pub anomalous: usize,
}

/// The lower and the upper end of a 95 % confidence interval.
pub type Ends = [f64; 2];

/// Figures over whole images, each in [0, 1], with 95 % confidence intervals: DeLong's for AUROC, stratified bootstrap
/// for the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageFigures {
    /// Area under the ROC curve.
    pub auroc: f64,
    /// Its interval; `None` where there is a single normal or a single anomalous image.
    pub auroc_ci: Option<Ends>,
    /// Average precision.
    pub ap: f64,
    /// Its interval.
    pub ap_ci: Ends,
    /// The largest F1 over all thresholds (it looks at the labels: an upper bound, not a result of the decision rule).
    pub f1_max: f64,
    /// Its interval.
    pub f1_max_ci: Ends,
    /// The equal error rate.
    pub eer: f64,
    /// Its interval.
    pub eer_ci: Ends,
}

/// Figures over pixels, each in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PixelFigures {
    /// Area under the pixel ROC curve.
    pub auroc: f64,
    /// Area under the per-region overlap curve up to a false-positive rate of 0.3.
    pub aupro: f64,
    /// The largest pixel F1 over all thresholds.
    pub f1_max: f64,
    /// Images that took part.
    pub images: usize,
    /// Defective regions in their masks.
    pub regions: u64,
}

/// How well one group of scores ranks anomalies above normal images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ranking {
    /// Area under the ROC curve, in [0, 1].
    pub auroc: f64,
}

/// How long fit and prediction took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// Seconds of the fit, loading included; `None` for a model that was fitted earlier.
    pub fit_s: Option<f64>,
    /// The median over batches of the time from one batch to the next, divided by the images in it, in milliseconds.
    pub predict_ms_per_image_median: f64,
    /// Images a second over the whole test set, loading included.
    pub images_per_s: f64,
}

/// What the decision rule does on the test images: figures in [0, 1] with 95 % confidence intervals, Wilson's for
/// shares of images, stratified bootstrap for accuracy and F1. Images that depend on each other count as one in them.
///
/// No decision is made without a threshold: all figures are `None` then. Figures that need anomalous images are `None`
/// where there are none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ThresholdFigures {
    /// Scores above it are anomalous; `None` where the held-out images do not support the rule.
    pub value: Option<f64>,
    /// How far other held-out images might move it: its bootstrap interval; `None` for a threshold set by hand.
    pub value_ci: Option<Ends>,
    /// The rule in words.
    pub rule: String,
    /// The share of normal test images called anomalous: false alarms.
    pub fpr: Option<f64>,
    /// Its interval.
    pub fpr_ci: Option<Ends>,
    /// The share of anomalous test images called anomalous: recall.
    pub tpr: Option<f64>,
    /// Its interval.
    pub tpr_ci: Option<Ends>,
    /// The share of anomalous test images that are missed.
    pub fnr: Option<f64>,
    /// The share of normal test images that pass.
    pub tnr: Option<f64>,
    /// The share of the images called anomalous that are; `None` where none is called so, too.
    pub precision: Option<f64>,
    /// Its interval.
    pub precision_ci: Option<Ends>,
    /// Another name of the true-positive rate.
    pub recall: Option<f64>,
    /// The share of test images that are decided rightly.
    pub accuracy: Option<f64>,
    /// Its interval.
    pub accuracy_ci: Option<Ends>,
    /// The harmonic mean of precision and recall.
    pub f1: Option<f64>,
    /// Its interval.
    pub f1_ci: Option<Ends>,
}

/// How many normal items have a small p-value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PValueShare {
    /// What small means, in (0, 1): also the share that is expected, or less.
    pub at_most: f64,
    /// The share of normal items with a p-value of at most that, in [0, 1].
    pub share: f64,
    /// Its 95 % interval, Wilson's.
    pub share_ci: Option<Ends>,
}

/// Figures of detectors together, each in [0, 1], with 95 % intervals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HybridFigures {
    /// The detectors.
    pub of: Vec<String>,
    /// Images that all of them could use.
    pub images: usize,
    /// AUROC of the combined p-values; `None` where no image is labeled anomalous.
    pub auroc: Option<f64>,
    /// Its interval by DeLong's method.
    pub auroc_ci: Option<Ends>,
    /// AUROC of each detector alone on the same images; empty where no image is labeled anomalous.
    pub alone: Vec<f64>,
    /// The rate of false alarms that was asked for.
    pub max_fpr: f64,
    /// The share of normal images whose combined p-value is at most that; `None` where there are none.
    pub fpr: Option<f64>,
    /// Its interval by Wilson's method.
    pub fpr_ci: Option<Ends>,
    /// The share of anomalous images whose combined p-value is at most that; `None` where there are none.
    pub tpr: Option<f64>,
    /// Its interval.
    pub tpr_ci: Option<Ends>,
}

/// What a classifier that sees labels gets, out of fold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SupervisedReference {
    /// What it is, for whoever reads the figures alone.
    pub method: String,
    /// The features it looks at.
    pub features: String,
    /// Columns of the features.
    pub dim: usize,
    /// Folds: five, or as many as there are items of the rarer label.
    pub folds: usize,
    /// Area under the ROC curve of the out-of-fold log-odds of all items, in [0, 1].
    pub auroc: f64,
    /// Its 95 % interval, DeLong's.
    pub auroc_ci: Option<Ends>,
}
