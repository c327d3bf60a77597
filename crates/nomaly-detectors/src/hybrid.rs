//! Two detectors deciding together.
//!
//! # What it computes
//! Each detector's score of an image becomes a [p-value](nomaly_scorers::decision::combine::Tail) by its own held-out
//! scores, and [`cauchy`] makes one of both. Detectors of any two methods can be combined, for p-values are on one scale.
//!
//! # When to use
//! A network that was trained on the images themselves, such as `geotrans`, beside pretrained features: each sees what the
//! other overlooks. Neither has to be fitted again.

use std::collections::BTreeMap;

use nomaly_metrics::{Interval, auroc, auroc_with_interval, share_interval};
use nomaly_scorers::decision::combine::{Tail, cauchy};
use serde::Serialize;

use crate::evaluation::{Ends, Evaluated, LEVEL};
use crate::{DetectorError, FittedDetector};

/// A detector with what it said of the test images.
#[derive(Clone, Copy)]
pub struct Voice<'a> {
    /// The detector.
    pub detector: &'a FittedDetector,
    /// What it said.
    pub evaluated: &'a Evaluated,
}

/// Figures of detectors together, each in [0, 1], with 95 % intervals.
#[derive(Clone, Debug, Serialize)]
pub struct HybridFigures {
    /// The detectors.
    pub of: Vec<String>,
    /// Images that all of them could use.
    pub images: usize,
    /// AUROC of the combined p-values.
    pub auroc: f64,
    /// Its interval by DeLong's method.
    pub auroc_ci: Option<Ends>,
    /// AUROC of each detector alone on the same images.
    pub alone: Vec<f64>,
    /// The rate of false alarms that was asked for.
    pub max_fpr: f64,
    /// The share of normal images whose combined p-value is at most that.
    pub fpr: f64,
    /// Its interval by Wilson's method.
    pub fpr_ci: Option<Ends>,
    /// The share of anomalous images whose combined p-value is at most that.
    pub tpr: f64,
    /// Its interval.
    pub tpr_ci: Option<Ends>,
}

/// Combines what detectors said of the same images.
///
/// # Errors
/// Held-out scores that make no p-values, and images in common that are not of both labels.
pub fn hybrid(voices: &[Voice<'_>], max_fpr: f64) -> Result<HybridFigures, DetectorError> {
    let tails =
        voices.iter().map(|voice| Tail::new(voice.detector.calibration().held_out())).collect::<Result<Vec<_>, _>>()?;
    // Scores and p-values by image, one of each detector.
    let mut images: BTreeMap<&str, (bool, Vec<f64>, Vec<f64>)> = BTreeMap::new();
    for (voice, tail) in voices.iter().zip(&tails) {
        for image in &voice.evaluated.predictions {
            let (_, scores, p_values) =
                images.entry(&image.id).or_insert((image.anomalous_label, Vec::new(), Vec::new()));
            scores.push(image.prediction.score);
            p_values.push(tail.p_value(image.prediction.score));
        }
    }
    images.retain(|_, (_, scores, _)| scores.len() == voices.len());
    let labels: Vec<bool> = images.values().map(|(label, ..)| *label).collect();
    let p_values: Vec<f64> = images.values().map(|(_, _, p_values)| cauchy(p_values)).collect();
    // A logarithm keeps small p-values apart, and the order.
    let combined: Vec<f64> = p_values.iter().map(|p| -p.ln()).collect();
    let area = auroc_with_interval(&combined, &labels, LEVEL)?;
    let alone = (0..voices.len()).map(|voice| {
        let scores: Vec<f64> = images.values().map(|(_, scores, _)| scores[voice]).collect();
        Ok(auroc(&scores, &labels)?)
    });
    let ends = |interval: Interval| [interval.low, interval.high];
    let flagged = |label: bool| -> Result<(f64, Option<Ends>), DetectorError> {
        let of_label = p_values.iter().zip(&labels).filter(|(_, anomalous)| **anomalous == label);
        let (count, flagged) = of_label.fold((0, 0), |(n, k), (p, _)| (n + 1, k + u64::from(*p <= max_fpr)));
        Ok((flagged as f64 / count as f64, share_interval(flagged, count, LEVEL)?.map(ends)))
    };
    let ((fpr, fpr_ci), (tpr, tpr_ci)) = (flagged(false)?, flagged(true)?);
    Ok(HybridFigures {
        of: voices.iter().map(|voice| voice.detector.info().method.name.clone()).collect(),
        images: labels.len(),
        auroc: area.auroc,
        auroc_ci: area.interval.map(ends),
        alone: alone.collect::<Result<_, DetectorError>>()?,
        max_fpr,
        fpr,
        fpr_ci,
        tpr,
        tpr_ci,
    })
}
