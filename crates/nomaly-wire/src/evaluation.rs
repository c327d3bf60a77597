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
    /// The number of used training images.
    pub n_train: usize,
    /// The numbers of scored test images.
    pub n_test: TestCounts,
    /// The number of independent groups of test images, if there are groups; intervals then count groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub independent: Option<TestCounts>,
    /// Image-level figures; `None` if no test image is labeled anomalous.
    pub image: Option<ImageFigures>,
    /// Pixel-level figures; `None` for methods without anomaly maps and sets without masks.
    ///
    /// They compare maps and masks at the size of the frame, as the papers do, and exclude anomalous images without a
    /// mask.
    pub pixel: Option<PixelFigures>,
    /// AUROC of each kind of anomaly against all normal images; empty without anomalies.
    pub by_kind: BTreeMap<String, Ranking>,
    /// AUROC of each part of the score (such as each level), in the method's order; empty if no test image is labeled
    /// anomalous.
    pub by_part: Ordered<Ranking>,
    /// The change of the image-level AUROC when a term of the score (such as a transformation's) is left out, in the
    /// method's order: below 0 for a useful term. Empty for scores that are not sums.
    #[serde(default, skip_serializing_if = "Ordered::is_empty")]
    pub sensitivity: Ordered<f64>,
    /// The decision.
    pub threshold: ThresholdFigures,
    /// How often normal test images get small p-values: at most at the nominal rate if the p-values are valid.
    pub p_values: Vec<PValueShare>,
    /// A supervised classifier on the labels of the test set, if requested; for comparison only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervised_reference: Option<SupervisedReference>,
    /// The combination with another detector, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hybrid: Option<HybridFigures>,
    /// The time it took.
    pub timing: Timing,
    /// The peak memory of the process in MiB; `None` if the system does not report it.
    pub peak_rss_mib: Option<f64>,
    /// Unusable images.
    pub skipped: Vec<Skipped>,
}

/// The numbers of test images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestCounts {
    /// Labeled normal.
    pub normal: usize,
    /// Labeled anomalous.
    pub anomalous: usize,
}

/// The lower and the upper end of a 95 % confidence interval.
pub type Ends = [f64; 2];

/// Image-level figures, each in [0, 1], with 95 % confidence intervals: DeLong's for AUROC, stratified bootstrap for
/// the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageFigures {
    /// Area under the ROC curve.
    pub auroc: f64,
    /// Its interval; `None` with a single normal or a single anomalous image.
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

/// Pixel-level figures, each in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PixelFigures {
    /// Area under the pixel ROC curve.
    pub auroc: f64,
    /// Area under the per-region overlap curve up to a false-positive rate of 0.3.
    pub aupro: f64,
    /// The largest pixel F1 over all thresholds.
    pub f1_max: f64,
    /// The number of images.
    pub images: usize,
    /// The number of defective regions in their masks.
    pub regions: u64,
}

/// How well one group of scores ranks anomalies above normal images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ranking {
    /// Area under the ROC curve, in [0, 1].
    pub auroc: f64,
}

/// The times of fit and prediction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// Seconds of the fit, loading included; `None` for a model that was fitted earlier.
    pub fit_s: Option<f64>,
    /// The median over batches of the time from one batch to the next, divided by the images in it, in milliseconds.
    pub predict_ms_per_image_median: f64,
    /// Images per second over the whole test set, loading included.
    pub images_per_s: f64,
}

/// The decisions on the test images: figures in [0, 1] with 95 % confidence intervals, Wilson's for shares of images,
/// stratified bootstrap for accuracy and F1. Intervals count dependent images as one.
///
/// Without a threshold there are no decisions, and all figures are `None`. Figures that need anomalous images are
/// `None` without any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ThresholdFigures {
    /// Scores above it are anomalous; `None` if the held-out images do not support the rule.
    pub value: Option<f64>,
    /// Its bootstrap interval over held-out images; `None` for a threshold set by hand.
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
    /// The share of the images called anomalous that are anomalous; also `None` if none is called so.
    pub precision: Option<f64>,
    /// Its interval.
    pub precision_ci: Option<Ends>,
    /// Another name of the true-positive rate.
    pub recall: Option<f64>,
    /// The share of test images with the right decision.
    pub accuracy: Option<f64>,
    /// Its interval.
    pub accuracy_ci: Option<Ends>,
    /// The harmonic mean of precision and recall.
    pub f1: Option<f64>,
    /// Its interval.
    pub f1_ci: Option<Ends>,
}

/// The share of normal items with a small p-value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PValueShare {
    /// The level, in (0, 1), which bounds the expected share.
    pub at_most: f64,
    /// The share of normal items with a p-value of at most that, in [0, 1].
    pub share: f64,
    /// Its 95 % interval, Wilson's.
    pub share_ci: Option<Ends>,
}

/// Figures of combined detectors, each in [0, 1], with 95 % intervals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HybridFigures {
    /// The detectors.
    pub of: Vec<String>,
    /// The number of images usable by all of them.
    pub images: usize,
    /// AUROC of the combined p-values; `None` if no image is labeled anomalous.
    pub auroc: Option<f64>,
    /// Its interval by DeLong's method.
    pub auroc_ci: Option<Ends>,
    /// AUROC of each detector alone on the same images; empty if no image is labeled anomalous.
    pub alone: Vec<f64>,
    /// The requested false-alarm rate.
    pub max_fpr: f64,
    /// The share of normal images whose combined p-value is at most that; `None` without any.
    pub fpr: Option<f64>,
    /// Its interval by Wilson's method.
    pub fpr_ci: Option<Ends>,
    /// The share of anomalous images whose combined p-value is at most that; `None` without any.
    pub tpr: Option<f64>,
    /// Its interval.
    pub tpr_ci: Option<Ends>,
}

/// The out-of-fold result of a supervised classifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SupervisedReference {
    /// The classifier, in words.
    pub method: String,
    /// Its features.
    pub features: String,
    /// The number of columns of the features.
    pub dim: usize,
    /// The number of folds: five, or the number of items of the rarer label if smaller.
    pub folds: usize,
    /// Area under the ROC curve of the out-of-fold log-odds of all items, in [0, 1].
    pub auroc: f64,
    /// Its 95 % interval, DeLong's.
    pub auroc_ci: Option<Ends>,
}
