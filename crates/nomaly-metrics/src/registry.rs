//! The metrics by name.

use nomaly_registry::{Entry, Registry};

use crate::{ConfusionMatrix, MetricError, PixelMetrics, auroc, average_precision, eer, f1_max};

/// The false-positive-rate limit of the `aupro` entry.
pub const AUPRO_LIMIT: f64 = 0.3;

/// The function of a metric, by its input.
#[derive(Clone, Copy, Debug)]
pub enum Compute {
    /// From a score and a label per image.
    Image(fn(&[f64], &[bool]) -> Result<f64, MetricError>),
    /// From an anomaly map and a mask per image.
    Pixel(fn(&mut PixelMetrics) -> Result<f64, MetricError>),
    /// From the decisions at a threshold.
    Decision(fn(&ConfusionMatrix) -> Option<f64>),
}

/// The direction in which a metric improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// 1 is perfect.
    Higher,
    /// 0 is perfect.
    Lower,
}

/// A metric. All take values in [0, 1].
#[derive(Debug)]
pub struct MetricEntry {
    name: &'static str,
    summary: &'static str,
    /// The direction in which it improves.
    pub better: Better,
    /// Its function.
    pub compute: Compute,
}

impl MetricEntry {
    /// Its input: "image", "pixel" or "decision".
    pub fn level(&self) -> &'static str {
        match self.compute {
            Compute::Image(_) => "image",
            Compute::Pixel(_) => "pixel",
            Compute::Decision(_) => "decision",
        }
    }
}

impl Entry for MetricEntry {
    fn name(&self) -> &str {
        self.name
    }
    fn summary(&self) -> &str {
        self.summary
    }
}

const fn higher(name: &'static str, summary: &'static str, compute: Compute) -> MetricEntry {
    MetricEntry { name, summary, better: Better::Higher, compute }
}

const fn lower(name: &'static str, summary: &'static str, compute: Compute) -> MetricEntry {
    MetricEntry { name, summary, better: Better::Lower, compute }
}

/// Every metric.
#[rustfmt::skip]
pub static METRICS: Registry<MetricEntry> = Registry::new("metric", &[
    higher("auroc", "area under the ROC curve: chance that an anomalous image outranks a normal one",
        Compute::Image(auroc::<f64>)),
    higher("ap", "average precision: area under the precision-recall curve, as a step sum",
        Compute::Image(average_precision::<f64>)),
    higher("f1-max", "best F1 over all thresholds (chosen on the labels: an upper bound)",
        Compute::Image(|scores, labels| f1_max(scores, labels).map(|best| best.f1))),
    lower("eer", "equal error rate: where false alarms and misses are equally common",
        Compute::Image(|scores, labels| eer(scores, labels).map(|point| point.rate))),
    higher("pixel-auroc", "area under the ROC curve over all pixels",
        Compute::Pixel(PixelMetrics::auroc)),
    higher("pixel-ap", "average precision over all pixels",
        Compute::Pixel(PixelMetrics::average_precision)),
    higher("pixel-f1-max", "best F1 over all thresholds on pixels",
        Compute::Pixel(|pixels| pixels.f1_max().map(|best| best.f1))),
    higher("aupro", "area under the per-region overlap curve to a false-positive rate of 0.3",
        Compute::Pixel(|pixels| pixels.aupro(AUPRO_LIMIT))),
    higher("tpr", "true-positive rate (recall): share of the anomalous images that are flagged",
        Compute::Decision(ConfusionMatrix::tpr)),
    lower("fpr", "false-positive rate: share of the normal images that are flagged",
        Compute::Decision(ConfusionMatrix::fpr)),
    lower("fnr", "false-negative rate: share of the anomalous images that are missed",
        Compute::Decision(ConfusionMatrix::fnr)),
    higher("tnr", "true-negative rate: share of the normal images that pass",
        Compute::Decision(ConfusionMatrix::tnr)),
    higher("precision", "share of the flagged images that are anomalous",
        Compute::Decision(ConfusionMatrix::precision)),
    higher("accuracy", "share of the images decided rightly",
        Compute::Decision(ConfusionMatrix::accuracy)),
    higher("f1", "harmonic mean of precision and recall",
        Compute::Decision(ConfusionMatrix::f1)),
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_best_value_on_a_perfect_detector() {
        let (scores, labels) = ([0.1, 0.2, 0.9], [false, false, true]);
        let decisions = ConfusionMatrix::at(&scores, &labels, 0.5).unwrap();
        let mut pixels = PixelMetrics::new();
        pixels.push(&[0.1, 0.2, 0.9], &[0, 0, 1], 3, 1).unwrap();
        for metric in METRICS.iter() {
            let value = match metric.compute {
                Compute::Image(compute) => compute(&scores, &labels).unwrap(),
                Compute::Pixel(compute) => compute(&mut pixels).unwrap(),
                Compute::Decision(compute) => compute(&decisions).unwrap(),
            };
            let best = if metric.better == Better::Higher { 1.0 } else { 0.0 };
            assert_eq!(value, best, "{}", metric.name());
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        for metric in METRICS.iter() {
            assert!(std::ptr::eq(METRICS.get(metric.name()).unwrap(), metric), "{}", metric.name());
            assert!(!metric.summary().is_empty());
        }
    }
}
