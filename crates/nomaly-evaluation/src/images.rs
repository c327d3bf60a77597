//! Evaluation of a fitted detector on labelled images.

use std::collections::BTreeMap;

use nomaly_data::{Dataset, Label, Sample};
use nomaly_detectors::{FittedDetector, Outcome, PredictOptions, Prediction};
use nomaly_methods::{AnomalyMap, GroupBy, Groups};
use nomaly_metrics::{CurvePoints, PixelMetrics, ProCurve, RocCurve, auroc};
use nomaly_store::Progress;
use nomaly_transforms::{Limits, Pipeline};
use serde::Serialize;

use crate::clock::{BatchClock, peak_rss_mib};
use crate::decisions::{ScoredItems, p_value_shares};
use crate::error::EvaluationError;
use crate::intervals::independent;
use nomaly_wire::{Evaluation, Ordered, PixelFigures, Ranking, TestCounts, Timing};

/// One scored test image with its label.
#[derive(Clone, Debug, Serialize)]
pub struct LabelledPrediction {
    /// The image's name in the data set.
    pub id: String,
    /// Its kind: `good`, or the kind of defect.
    pub kind: String,
    /// Whether it is labelled anomalous.
    pub anomalous_label: bool,
    /// The detector's prediction.
    #[serde(flatten)]
    pub prediction: Prediction,
}

/// An evaluation with its predictions and curves.
pub struct Evaluated {
    /// The figures.
    pub figures: Evaluation,
    /// The scored images in the order of the test set, without their maps.
    pub predictions: Vec<LabelledPrediction>,
    /// The curves over pixels, if there are [figures](Evaluation::pixel).
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
/// `fit_s` is copied to the figures. `on_outcome` is called with every outcome, for reports and tables.
///
/// # Errors
/// A test set without normal images, and errors of [`predict`](FittedDetector::predict). Without anomalous images, only
/// the figures of false alarms are computed.
pub fn evaluate(
    detector: &FittedDetector,
    dataset: &Dataset,
    fit_s: Option<f64>,
    options: &PredictOptions,
    progress: &dyn Progress,
    on_outcome: impl FnMut(&Outcome<'_>) + Send,
) -> Result<Evaluated, EvaluationError> {
    evaluate_grouped(detector, dataset, fit_s, &GroupBy::None, options, progress, on_outcome)
}

/// As [`evaluate`], with test images that depend on each other by `group_by`: a group counts as one in every interval
/// of figures over whole images.
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
    mut on_outcome: impl FnMut(&Outcome<'_>) + Send,
) -> Result<Evaluated, EvaluationError> {
    let cannot = |reason: String| EvaluationError::CannotEvaluate { dataset: dataset.name.clone(), reason };
    if dataset.test.is_empty() {
        return Err(cannot("it has no test images (a folder with `test/good` and `test/<kind>` has)".to_owned()));
    }
    let mut predictions = Vec::with_capacity(dataset.test.len());
    let mut skipped = Vec::new();
    let mut pixels = dataset.has_masks().then(PixelMetrics::new);
    let mut clock = BatchClock::start();
    let mut scored = Vec::with_capacity(dataset.test.len());
    let streamed = detector.predict_grouped(
        &dataset.test,
        group_by,
        options,
        progress,
        |mut outcome| -> Result<(), EvaluationError> {
            clock.record(outcome.batch);
            on_outcome(&outcome);
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
        },
    )?;
    let (ms_per_image, images_per_s) = clock.stop();
    // A readable image may have no finite score.
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
    let decider = detector.decider_under(options.rule)?;
    let calibration = decider.calibration();
    let decided = ScoredItems::new(calibration, &scores, &labels, &groups)?;
    let (by_part, sensitivity) = if anomalous == 0 {
        (Ordered::default(), Ordered::default())
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

/// Adds an image whose defective pixels are known.
fn add_pixels(
    pixels: &mut PixelMetrics,
    map: &AnomalyMap,
    sample: &Sample,
    pipeline: &Pipeline,
    limits: &Limits,
) -> Result<(), EvaluationError> {
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

/// The resolution of curves over pixels: a point whenever a rate has moved by one part in this many.
const CURVE_STEPS: usize = 256;
/// The false-positive rate up to which the per-region overlap is integrated, as in Bergmann et al. (2021).
pub const PRO_LIMIT: f64 = 0.3;

fn pixel_figures(mut pixels: PixelMetrics) -> Result<(PixelFigures, PixelCurves), EvaluationError> {
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

fn by_kind(predictions: &[LabelledPrediction]) -> Result<BTreeMap<String, Ranking>, EvaluationError> {
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
) -> Result<Ordered<Ranking>, EvaluationError> {
    names
        .iter()
        .enumerate()
        .map(|(part, name)| {
            let scores: Vec<f64> = predictions.iter().map(|image| image.prediction.parts[part]).collect();
            Ok((name.clone(), Ranking { auroc: auroc(&scores, labels)? }))
        })
        .collect()
}

/// The change of the AUROC without each term of the scores, from the computed terms: nothing is refitted.
fn sensitivity(
    terms: &[String],
    predictions: &[LabelledPrediction],
    labels: &[bool],
) -> Result<Ordered<f64>, EvaluationError> {
    let without = |left_out: Option<usize>| {
        let score = |image: &LabelledPrediction| {
            let terms = &image.prediction.terms;
            terms.iter().sum::<f64>() - left_out.map_or(0.0, |left_out| terms[left_out])
        };
        auroc(&predictions.iter().map(score).collect::<Vec<_>>(), labels)
    };
    if terms.len() < 2 {
        return Ok(Ordered::default());
    }
    let all = without(None)?;
    terms.iter().enumerate().map(|(term, name)| Ok((name.clone(), without(Some(term))? - all))).collect()
}
