//! Evaluation of a fitted detector on labelled rows.

use std::time::Instant;

use nomaly_data::tables::Table;
use nomaly_detectors::rows::{FittedRows, RowOutcome, RowPredictOptions};
use nomaly_methods::{Groups, Skipped};
use nomaly_store::Progress;

use crate::clock::peak_rss_mib;
use crate::decisions::{ScoredItems, p_value_shares};
use crate::error::EvaluationError;
use crate::intervals::independent;
use nomaly_wire::{Evaluation, Ordered, TestCounts, Timing};

/// Labels of normal rows, in lower case.
const NORMAL: &[&str] = &["0", "normal", "good", "ok", "inlier", "false", "no", "negative"];
const ANOMALOUS: &[&str] =
    &["1", "anomalous", "anomaly", "abnormal", "bad", "defect", "outlier", "true", "yes", "positive"];

/// Whether a label means an anomaly; `None` for one that means neither.
pub fn is_anomalous_label(label: &str) -> Option<bool> {
    let known = |words: &[&str]| words.iter().any(|word| label.eq_ignore_ascii_case(word));
    if known(ANOMALOUS) { Some(true) } else { known(NORMAL).then_some(false) }
}

/// Scores the rows of `table` and compares with `labels`, true where a row is anomalous.
///
/// `fit_s` is copied to the figures.
///
/// # Errors
/// No normal rows, and errors of [`predict`](FittedRows::predict). Without anomalous rows, only the figures of false
/// alarms are computed.
pub fn evaluate_rows(
    detector: &FittedRows,
    table: &Table,
    labels: &[bool],
    fit_s: Option<f64>,
    options: &RowPredictOptions,
    progress: &dyn Progress,
) -> Result<Evaluation, EvaluationError> {
    let began = Instant::now();
    let outcomes = detector.predict(table, options, progress)?;
    let seconds = began.elapsed().as_secs_f64();
    let (mut scores, mut p_values, mut kept, mut skipped) = (Vec::new(), Vec::new(), Vec::new(), Vec::<Skipped>::new());
    let mut rows = Vec::new();
    for (RowOutcome { row, result }, label) in outcomes.into_iter().zip(labels) {
        match result {
            Ok(prediction) => {
                rows.push(row - 1);
                scores.push(prediction.score);
                p_values.push(prediction.p_value);
                kept.push(*label);
            }
            Err(reason) => skipped.push(reason),
        }
    }
    let anomalous = kept.iter().filter(|label| **label).count();
    let normal = kept.len() - anomalous;
    if normal == 0 {
        return Err(EvaluationError::CannotEvaluate {
            dataset: table.name.clone(),
            reason: format!("it has {anomalous} anomalous usable rows to test with and no normal one"),
        });
    }
    let decider = detector.decider_under(options.rule)?;
    let calibration = decider.calibration();
    let groups = match &table.groups {
        None => Groups::singletons(kept.len()),
        Some(names) => Groups::of_keys(rows.iter().map(|&row| names[row].as_str())),
    };
    let decided = ScoredItems::new(calibration, &scores, &kept, &groups)?;
    let info = detector.info();
    Ok(Evaluation {
        dataset: table.name.clone(),
        method: info.scorer.clone(),
        backbone: None,
        seed: info.training.seed,
        n_train: info.training.rows,
        n_test: TestCounts { normal, anomalous },
        independent: independent(&groups, &kept),
        image: decided.image()?,
        pixel: None,
        by_kind: std::collections::BTreeMap::new(),
        by_part: Ordered::default(),
        sensitivity: Ordered::default(),
        threshold: decided.threshold()?,
        p_values: p_value_shares(&p_values, &kept, &groups)?,
        supervised_reference: None,
        hybrid: None,
        timing: Timing {
            fit_s,
            predict_ms_per_image_median: seconds * 1e3 / labels.len() as f64,
            images_per_s: labels.len() as f64 / seconds,
        },
        peak_rss_mib: peak_rss_mib(),
        skipped,
    })
}
