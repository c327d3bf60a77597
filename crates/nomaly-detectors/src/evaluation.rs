//! How good a fitted detector is on labelled images.

mod decisions;

use std::collections::BTreeMap;
use std::time::Instant;

use nomaly_data::{Dataset, Label, Sample};
use nomaly_metrics::{
    CurvePoints, ImageIntervals, Interval, PixelMetrics, ProCurve, RocCurve, auroc, auroc_with_interval,
    average_precision, eer, f1_max,
};
use nomaly_store::Progress;
use nomaly_transforms::{Limits, Pipeline};
use serde::{Deserialize, Serialize};

use crate::groups::{GroupBy, Groups};
use crate::hybrid::HybridFigures;
use crate::maps::AnomalyMap;
use crate::supervised::SupervisedReference;
use crate::{DetectorError, FittedDetector, Outcome, PredictOptions, Prediction, Skipped};

pub(crate) use self::decisions::{Decided, p_value_shares};
pub use self::decisions::{PValueShare, ThresholdFigures};

/// One scored test image with its label.
#[derive(Clone, Debug, Serialize)]
pub struct LabelledPrediction {
    /// The image, as the data set names it.
    pub id: String,
    /// What it shows: `good`, or the kind of defect.
    pub kind: String,
    /// Whether it is labelled anomalous.
    pub anomalous_label: bool,
    /// What the detector says.
    #[serde(flatten)]
    pub prediction: Prediction,
}

/// Figures of one evaluation; its JSON is part of the command line contract.
#[derive(Clone, Debug, Serialize)]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub independent: Option<TestCounts>,
    /// Figures over whole images; `None` where no test image is labelled anomalous.
    pub image: Option<ImageFigures>,
    /// Figures over pixels; `None` for methods without anomaly maps and sets without masks.
    ///
    /// They compare maps and masks at the size of the [frame](nomaly_transforms::Pipeline::frame_size), as the papers do.
    /// Anomalous images without a mask do not take part.
    pub pixel: Option<PixelFigures>,
    /// AUROC of each kind of anomaly against all normal images; empty where there is none.
    pub by_kind: BTreeMap<String, Ranking>,
    /// AUROC of each part of the score (of each level, say), in the method's order; empty where no test image is
    /// labelled anomalous.
    #[serde(serialize_with = "as_map")]
    pub by_part: Vec<(String, Ranking)>,
    /// By how much the AUROC over whole images changes when a term of the score is left out (of a transformation, say), in
    /// the method's order: below 0 for a term that is of use. Empty for scores that are no sum.
    #[serde(serialize_with = "changes_as_map", skip_serializing_if = "Vec::is_empty")]
    pub sensitivity: Vec<(String, f64)>,
    /// The decision.
    pub threshold: ThresholdFigures,
    /// How often normal test images get small p-values: at most as often as the p-value says, where the model keeps its
    /// promise.
    pub p_values: Vec<PValueShare>,
    /// What a classifier gets that sees the labels of the test set, where it was asked for; for comparison only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervised_reference: Option<SupervisedReference>,
    /// What another detector and this one get together, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hybrid: Option<HybridFigures>,
    /// How long it took.
    pub timing: Timing,
    /// The most memory the process has held, in MiB; `None` where the system does not say.
    pub peak_rss_mib: Option<f64>,
    /// Images that could not be used.
    pub skipped: Vec<Skipped>,
}

/// How many test images there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestCounts {
    /// Labelled normal.
    pub normal: usize,
    /// Labelled anomalous.
    pub anomalous: usize,
}

/// The confidence level of every interval.
pub const LEVEL: f64 = 0.95;

/// The lower and the upper end of a 95 % confidence interval.
pub type Ends = [f64; 2];

/// Figures over whole images, each in [0, 1], with 95 % confidence intervals: DeLong's for AUROC, stratified bootstrap for
/// the others.
#[derive(Clone, Copy, Debug, Serialize)]
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
#[derive(Clone, Copy, Debug, Serialize)]
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
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ranking {
    /// Area under the ROC curve, in [0, 1].
    pub auroc: f64,
}

/// How long fit and prediction took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Timing {
    /// Seconds of the fit, loading included; `None` for a model that was fitted earlier.
    pub fit_s: Option<f64>,
    /// The median over batches of the time from one batch to the next, divided by the images in it, in milliseconds.
    pub predict_ms_per_image_median: f64,
    /// Images a second over the whole test set, loading included.
    pub images_per_s: f64,
}

/// An evaluation with what it was computed from.
pub struct Evaluated {
    /// The figures.
    pub figures: Evaluation,
    /// The scored images in the order of the test set, without their maps.
    pub predictions: Vec<LabelledPrediction>,
    /// The curves over pixels, where there are [figures](Evaluation::pixel).
    pub curves: Option<PixelCurves>,
}

/// Curves over all pixels of all images.
#[derive(Clone, Debug)]
pub struct PixelCurves {
    /// The ROC curve.
    pub roc: RocCurve,
    /// The per-region overlap curve.
    pub pro: ProCurve,
}

/// Scores the test images of `dataset` and compares with their labels.
///
/// `fit_s` is passed on to the figures. `see` is shown every outcome as it comes, for reports and tables.
///
/// # Errors
/// A test set without normal images, and everything that [`predict`](FittedDetector::predict) fails with. Without
/// anomalous ones the figures are those that need none: false alarms.
pub fn evaluate(
    detector: &FittedDetector,
    dataset: &Dataset,
    fit_s: Option<f64>,
    options: &PredictOptions,
    progress: &dyn Progress,
    see: impl FnMut(&Outcome<'_>) + Send,
) -> Result<Evaluated, DetectorError> {
    evaluate_grouped(detector, dataset, fit_s, &GroupBy::None, options, progress, see)
}

/// As [`evaluate`], where some test images depend on each other, as `group_by` says: they count as one in every
/// interval of figures over whole images.
///
/// # Errors
/// As [`evaluate`], and images that cannot be grouped.
pub fn evaluate_grouped(
    detector: &FittedDetector,
    dataset: &Dataset,
    fit_s: Option<f64>,
    group_by: &GroupBy,
    options: &PredictOptions,
    progress: &dyn Progress,
    mut see: impl FnMut(&Outcome<'_>) + Send,
) -> Result<Evaluated, DetectorError> {
    let cannot = |reason: String| DetectorError::CannotEvaluate { dataset: dataset.name.clone(), reason };
    if dataset.test.is_empty() {
        return Err(cannot("it has no test images (a folder with `test/good` and `test/<kind>` has)".to_owned()));
    }
    let mut predictions = Vec::with_capacity(dataset.test.len());
    let mut skipped = Vec::new();
    let mut pixels = dataset.has_masks().then(PixelMetrics::new);
    let mut clock = BatchClock::start();
    let mut scored = Vec::with_capacity(dataset.test.len());
    let streamed = detector.predict_grouped(&dataset.test, group_by, options, progress, |mut outcome| {
        clock.saw(outcome.batch);
        see(&outcome);
        let map = outcome.result.as_mut().ok().and_then(|prediction| prediction.map.take());
        if let (Some(pixels), Some(map)) = (&mut pixels, map) {
            add_pixels(pixels, &map, outcome.sample, detector.pipeline(), &options.stream.limits)?;
        }
        scored.push(outcome.result.is_ok());
        match outcome.result {
            Ok(prediction) => predictions.push(LabelledPrediction {
                id: outcome.sample.id.clone(),
                kind: outcome.sample.kind.clone(),
                anomalous_label: outcome.sample.label == Label::Anomalous,
                prediction,
            }),
            Err(reason) => skipped.push(reason),
        }
        Ok(())
    })?;
    let (ms_per_image, images_per_s) = clock.stop();
    // An image that could be read may have had no finite score.
    let judged = streamed.usable.iter().zip(streamed.groups.of()).filter(|(image, _)| scored[**image]);
    let groups = Groups::of_keys(judged.map(|(_, group)| group));

    let labels: Vec<bool> = predictions.iter().map(|image| image.anomalous_label).collect();
    let anomalous = labels.iter().filter(|&&label| label).count();
    let normal = labels.len() - anomalous;
    if normal == 0 {
        return Err(cannot(format!("it has {anomalous} anomalous usable test images and no normal one")));
    }
    let scores: Vec<f64> = predictions.iter().map(|image| image.prediction.score).collect();
    let p_values: Vec<f64> = predictions.iter().map(|image| image.prediction.p_value).collect();
    let calibration = detector.calibration_for(options)?;
    let decided = Decided::new(&calibration, &scores, &labels, &groups)?;
    let (by_part, sensitivity) = if anomalous == 0 {
        (Vec::new(), Vec::new())
    } else {
        let sensitivity = sensitivity(&detector.term_names(), &predictions, &labels)?;
        (by_part(&detector.part_names(), &predictions, &labels)?, sensitivity)
    };
    let (pixel, curves) = match pixels.filter(|pixels| pixels.regions() > 0) {
        Some(pixels) => pixel_figures(pixels).map(|(figures, curves)| (Some(figures), Some(curves)))?,
        None => (None, None),
    };
    let info = detector.info();
    let figures = Evaluation {
        dataset: dataset.name.clone(),
        method: info.method.name.clone(),
        backbone: Some(info.backbone.name.clone()),
        seed: info.training.seed,
        n_train: info.training.images,
        n_test: TestCounts { normal, anomalous },
        independent: independent(&groups, &labels),
        image: decided.image()?,
        pixel,
        by_kind: by_kind(&predictions)?,
        by_part,
        sensitivity,
        threshold: decided.threshold()?,
        p_values: p_value_shares(&p_values, &labels, &groups)?,
        supervised_reference: None,
        hybrid: None,
        timing: Timing { fit_s, predict_ms_per_image_median: ms_per_image, images_per_s },
        peak_rss_mib: peak_rss_mib(),
        skipped,
    };
    Ok(Evaluated { figures, predictions, curves })
}

/// How many groups items of each label form, where some depend on each other.
pub(crate) fn independent(groups: &Groups, labels: &[bool]) -> Option<TestCounts> {
    let of_label = |label: bool| {
        let of = groups.of().iter().zip(labels).filter(|(_, own)| **own == label);
        of.map(|(group, _)| group).collect::<std::collections::BTreeSet<_>>().len()
    };
    (!groups.is_trivial()).then(|| TestCounts { normal: of_label(false), anomalous: of_label(true) })
}

/// Adds an image whose defective pixels are known.
fn add_pixels(
    pixels: &mut PixelMetrics,
    map: &AnomalyMap,
    sample: &Sample,
    pipeline: &Pipeline,
    limits: &Limits,
) -> Result<(), DetectorError> {
    match (&sample.mask, sample.label) {
        (Some(mask), _) => {
            let mask = pipeline.apply_mask(&mask.load(limits)?)?;
            pixels.push(&map.values, mask.as_raw(), map.width, map.height)?;
        }
        (None, Label::Normal) => pixels.push_normal(&map.values, map.width, map.height)?,
        (None, _) => {}
    }
    Ok(())
}

/// Curves over pixels have a point whenever a rate has moved by one part in so many.
const CURVE_STEPS: usize = 256;
/// The false-positive rate up to which the per-region overlap is integrated, as Bergmann et al. (2021) do.
pub const PRO_LIMIT: f64 = 0.3;

fn pixel_figures(mut pixels: PixelMetrics) -> Result<(PixelFigures, PixelCurves), DetectorError> {
    let figures = PixelFigures {
        auroc: pixels.auroc()?,
        aupro: pixels.aupro(PRO_LIMIT)?,
        f1_max: pixels.f1_max()?.f1,
        images: pixels.images(),
        regions: pixels.regions(),
    };
    let curves = PixelCurves {
        roc: pixels.roc_curve(CurvePoints::Thinned(CURVE_STEPS))?,
        pro: pixels.pro_curve_thinned(CURVE_STEPS)?,
    };
    Ok((figures, curves))
}

fn by_kind(predictions: &[LabelledPrediction]) -> Result<BTreeMap<String, Ranking>, DetectorError> {
    let kinds: std::collections::BTreeSet<&str> =
        predictions.iter().filter(|image| image.anomalous_label).map(|image| image.kind.as_str()).collect();
    kinds
        .into_iter()
        .map(|kind| {
            let group = predictions.iter().filter(|image| !image.anomalous_label || image.kind == kind);
            let (scores, labels): (Vec<f64>, Vec<bool>) =
                group.map(|image| (image.prediction.score, image.anomalous_label)).unzip();
            Ok((kind.to_owned(), Ranking { auroc: auroc(&scores, &labels)? }))
        })
        .collect()
}

fn by_part(
    names: &[String],
    predictions: &[LabelledPrediction],
    labels: &[bool],
) -> Result<Vec<(String, Ranking)>, DetectorError> {
    names
        .iter()
        .enumerate()
        .map(|(part, name)| {
            let scores: Vec<f64> = predictions.iter().map(|image| image.prediction.parts[part]).collect();
            Ok((name.clone(), Ranking { auroc: auroc(&scores, labels)? }))
        })
        .collect()
}

fn ends(interval: Interval) -> Ends {
    [interval.low, interval.high]
}

fn image_figures(
    scores: &[f64],
    labels: &[bool],
    groups: &Groups,
    intervals: &ImageIntervals,
) -> Result<ImageFigures, DetectorError> {
    let area = auroc_with_interval(scores, labels, LEVEL)?;
    Ok(ImageFigures {
        auroc: area.auroc,
        // DeLong's takes images for independent.
        auroc_ci: if groups.is_trivial() { area.interval.map(ends) } else { Some(ends(intervals.auroc)) },
        ap: average_precision(scores, labels)?,
        ap_ci: ends(intervals.ap),
        f1_max: f1_max(scores, labels)?.f1,
        f1_max_ci: ends(intervals.f1_max),
        eer: eer(scores, labels)?.rate,
        eer_ci: ends(intervals.eer),
    })
}

/// The most memory this process has held so far, in MiB, where the system says.
pub fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some((kib / 1024.0 * 10.0).round() / 10.0)
}

/// Times batches as they arrive: the time since the batch before belongs to the images of the batch that came.
pub(crate) struct BatchClock {
    began: Instant,
    last: Instant,
    batch: Option<usize>,
    waited_ms: f64,
    in_batch: usize,
    images: usize,
    ms_per_image: Vec<f64>,
}

impl BatchClock {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { began: now, last: now, batch: None, waited_ms: 0.0, in_batch: 0, images: 0, ms_per_image: Vec::new() }
    }

    /// Notes one image of the batch with this number.
    pub(crate) fn saw(&mut self, batch: usize) {
        if self.batch != Some(batch) {
            self.close();
            let now = Instant::now();
            self.waited_ms = (now - self.last).as_secs_f64() * 1e3;
            self.last = now;
            self.batch = Some(batch);
        }
        self.in_batch += 1;
        self.images += 1;
    }

    fn close(&mut self) {
        if self.in_batch > 0 {
            self.ms_per_image.push(self.waited_ms / self.in_batch as f64);
        }
        self.in_batch = 0;
    }

    /// The median of milliseconds an image, and images a second.
    pub(crate) fn stop(mut self) -> (f64, f64) {
        self.close();
        self.ms_per_image.sort_by(f64::total_cmp);
        let median = self.ms_per_image.get(self.ms_per_image.len() / 2).copied().unwrap_or(f64::NAN);
        (median, self.images as f64 / self.began.elapsed().as_secs_f64())
    }
}

fn as_map<S: serde::Serializer>(parts: &[(String, Ranking)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(parts.iter().map(|(name, ranking)| (name, ranking)))
}

fn changes_as_map<S: serde::Serializer>(changes: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(changes.iter().map(|(name, change)| (name, change)))
}

/// The change of the AUROC without each term of the scores, which are there as they were computed: nothing is fitted anew.
fn sensitivity(
    terms: &[String],
    predictions: &[LabelledPrediction],
    labels: &[bool],
) -> Result<Vec<(String, f64)>, DetectorError> {
    let without = |left_out: Option<usize>| {
        let score = |image: &LabelledPrediction| {
            let terms = &image.prediction.terms;
            terms.iter().sum::<f64>() - left_out.map_or(0.0, |left_out| terms[left_out])
        };
        auroc(&predictions.iter().map(score).collect::<Vec<_>>(), labels)
    };
    if terms.len() < 2 {
        return Ok(Vec::new());
    }
    let all = without(None)?;
    terms.iter().enumerate().map(|(term, name)| Ok((name.clone(), without(Some(term))? - all))).collect()
}
