//! Two combined detectors.
//!
//! # What it computes
//! Each detector's score of an image becomes a [p-value](nomaly_scorers::decision::combine::Tail) by its own held-out
//! scores, and [`cauchy`] combines both. Detectors of any two methods can be combined, because p-values are on one
//! scale.
//!
//! # When to use
//! To combine a network that was trained on the images themselves, such as `geotrans`, with pretrained features: each
//! detects anomalies that the other misses. Neither has to be refitted.

use std::collections::BTreeMap;

use nomaly_detectors::{DetectorError, FittedDetector};
use nomaly_metrics::{auroc, auroc_with_interval, share_interval};
use nomaly_scorers::decision::combine::{Tail, cauchy};

use crate::error::EvaluationError;
use crate::images::Evaluated;
use crate::intervals::{LEVEL, ends};
use nomaly_wire::Ends;
use nomaly_wire::HybridFigures;

/// Combines the scores of several detectors into one p-value.
#[derive(Clone, Debug)]
pub struct Hybrid {
    tails: Vec<Tail>,
}

impl Hybrid {
    /// Combines detectors in this order.
    ///
    /// # Errors
    /// Held-out scores without p-values: fewer than three, or all equal.
    pub fn new<'a>(detectors: impl IntoIterator<Item = &'a FittedDetector>) -> Result<Self, EvaluationError> {
        let tail = |detector: &FittedDetector| Tail::new(detector.calibration().independent_scores());
        let tails = detectors.into_iter().map(tail).collect::<Result<_, _>>().map_err(DetectorError::from)?;
        Ok(Self { tails })
    }

    /// The p-value of an image in (0, 1], given each detector's score.
    ///
    /// # Panics
    /// If the numbers of scores and detectors differ.
    pub fn p_value(&self, scores: &[f64]) -> f64 {
        assert_eq!(scores.len(), self.tails.len(), "a score of each detector");
        let p_values: Vec<f64> = self.tails.iter().zip(scores).map(|(tail, score)| tail.p_value(*score)).collect();
        cauchy(&p_values)
    }
}

/// A detector with its evaluation on the test images.
#[derive(Clone, Copy)]
pub struct Voice<'a> {
    /// The detector.
    pub detector: &'a FittedDetector,
    /// Its evaluation.
    pub evaluated: &'a Evaluated,
}

/// Combines the evaluations of detectors on the same images.
///
/// # Errors
/// Held-out scores without p-values, and no common normal image.
pub fn hybrid(detectors: &[Voice<'_>], max_fpr: f64) -> Result<HybridFigures, EvaluationError> {
    let hybrid = Hybrid::new(detectors.iter().map(|item| item.detector))?;
    // Scores by image, one per detector.
    let mut images: BTreeMap<&str, (bool, Vec<f64>)> = BTreeMap::new();
    for item in detectors {
        for image in &item.evaluated.predictions {
            let (_, scores) = images.entry(&image.id).or_insert((image.anomalous_label, Vec::new()));
            scores.push(image.prediction.score);
        }
    }
    images.retain(|_, (_, scores)| scores.len() == detectors.len());
    let labels: Vec<bool> = images.values().map(|(label, _)| *label).collect();
    let p_values: Vec<f64> = images.values().map(|(_, scores)| hybrid.p_value(scores)).collect();
    // The logarithm is monotonic and keeps small p-values distinct.
    let combined: Vec<f64> = p_values.iter().map(|p| -p.ln()).collect();
    let both = labels.contains(&true);
    let area = both.then(|| auroc_with_interval(&combined, &labels, LEVEL)).transpose()?;
    let alone = (0..detectors.len()).filter(|_| both).map(|detector| {
        let scores: Vec<f64> = images.values().map(|(_, scores)| scores[detector]).collect();
        Ok(auroc(&scores, &labels)?)
    });
    let flagged = |label: bool| -> Result<(Option<f64>, Option<Ends>), EvaluationError> {
        let of_label = p_values.iter().zip(&labels).filter(|(_, anomalous)| **anomalous == label);
        let (count, flagged) = of_label.fold((0, 0), |(n, k), (p, _)| (n + 1, k + u64::from(*p <= max_fpr)));
        let share = (count > 0).then(|| flagged as f64 / count as f64);
        Ok((share, share_interval(flagged, count, LEVEL)?.map(ends)))
    };
    let ((fpr, fpr_ci), (tpr, tpr_ci)) = (flagged(false)?, flagged(true)?);
    Ok(HybridFigures {
        of: detectors.iter().map(|item| item.detector.info().method.name.clone()).collect(),
        images: labels.len(),
        auroc: area.map(|area| area.auroc),
        auroc_ci: area.and_then(|area| area.interval).map(ends),
        alone: alone.collect::<Result<_, EvaluationError>>()?,
        max_fpr,
        fpr,
        fpr_ci,
        tpr,
        tpr_ci,
    })
}
