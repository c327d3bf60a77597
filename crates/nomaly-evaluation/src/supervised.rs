//! The supervised reference: a classifier that sees the labels of the test set, for comparison only.
//!
//! It shows how well labels would do on a detector's features: [logistic regression](nomaly_scorers::logistic),
//! cross-validated over the labelled test items, so that every item is scored by a fit without it. It is not an anomaly
//! detector: it needs labelled anomalies, and recognizes only the kinds it was trained on.

use ndarray::{Array2, ArrayView2, Axis};
use nomaly_data::tables::Table;
use nomaly_data::{Label, Sample};
use nomaly_detectors::rows::FittedRows;
use nomaly_detectors::{FittedDetector, StreamOptions};
use nomaly_methods::groups::Split;
use nomaly_methods::{Groups, Stage};
use nomaly_metrics::auroc_with_interval;
use nomaly_scorers::Watch;
use nomaly_scorers::logistic::{LogisticOptions, LogisticRegression};
use nomaly_store::Progress;

use crate::error::EvaluationError;
use crate::intervals::{LEVEL, ends};
use nomaly_wire::SupervisedReference;

/// The most folds of the cross-validation.
const FOLDS: usize = 5;

/// The figures of a classifier trained on the labels of `samples`. It uses the [deepest
/// level](FittedDetector::pooled_features) of the method's features. `seed` determines the folds.
///
/// # Errors
/// Fewer than two usable images of a label, cancellation, and a bad image if the options are strict.
pub fn reference_of_images(
    detector: &FittedDetector,
    samples: &[Sample],
    seed: u64,
    options: StreamOptions,
    progress: &dyn Progress,
) -> Result<SupervisedReference, EvaluationError> {
    let what = "reading images for the supervised reference";
    let pooled = detector.pooled_features(samples, options, what, progress)?;
    let labels: Vec<bool> = pooled.usable.iter().map(|&image| samples[image].label == Label::Anomalous).collect();
    let features = format!("level `{}` of {}, averaged over positions", pooled.level, detector.info().backbone.name);
    supervised_reference(features, pooled.rows.view(), &labels, seed, progress)
}

/// The figures of a classifier trained on the labels of the rows of `table`, true for anomalous. It uses the columns of
/// the model; unusable rows are skipped. `seed` determines the folds.
///
/// # Errors
/// Columns that are missing or not known, fewer than two usable rows of a label, cancellation.
///
/// # Panics
/// Unless there is one label per row.
pub fn reference_of_rows(
    detector: &FittedRows,
    table: &Table,
    labels: &[bool],
    seed: u64,
    progress: &dyn Progress,
) -> Result<SupervisedReference, EvaluationError> {
    let (rows, usable) = detector.usable_rows(table)?;
    let labels: Vec<bool> = usable.iter().map(|&row| labels[row]).collect();
    supervised_reference("the columns of the table".to_owned(), rows.view(), &labels, seed, progress)
}

/// Cross-validates logistic regression on `rows` `[n, dim]`, of which some are labelled `anomalous`, in up to [`FOLDS`]
/// stratified folds determined by `seed`.
///
/// # Errors
/// Fewer than two items of a label, rows that cannot be fitted, cancellation.
fn supervised_reference(
    features: String,
    rows: ArrayView2<'_, f32>,
    anomalous: &[bool],
    seed: u64,
    progress: &dyn Progress,
) -> Result<SupervisedReference, EvaluationError> {
    let of = |label: bool| (0..anomalous.len()).filter(|&item| anomalous[item] == label).collect::<Vec<_>>();
    let groups = [of(false), of(true)];
    let rarer = groups[0].len().min(groups[1].len());
    let folds = FOLDS.min(rarer);
    if folds < 2 {
        let [normal, anomalous] = groups.map(|items| items.len());
        let reason = format!(
            "the supervised reference learns from two or more test items of each label, and {normal} normal and \
             {anomalous} anomalous ones are usable"
        );
        return Err(EvaluationError::TooFew { reason });
    }
    let mut tests = vec![Vec::new(); folds];
    for members in &groups {
        for (test, fold) in tests.iter_mut().zip(Groups::singletons(members.len()).folds(folds, seed)) {
            test.extend(fold.into_iter().map(|place| members[place]));
        }
    }
    tests.iter_mut().for_each(|test| test.sort_unstable());
    let log_odds = out_of_fold(rows, anomalous, tests, progress)?;
    let area = auroc_with_interval(&log_odds, anomalous, LEVEL)?;
    Ok(SupervisedReference {
        method: "logistic regression on the labels of the test items, cross-validated; not an anomaly detector"
            .to_owned(),
        features,
        dim: rows.ncols(),
        folds,
        auroc: area.auroc,
        auroc_ci: area.interval.map(ends),
    })
}

/// The log-odds of each row to be an anomaly, by a fit on all rows outside its fold in `tests`.
fn out_of_fold(
    rows: ArrayView2<'_, f32>,
    anomalous: &[bool],
    tests: Vec<Vec<usize>>,
    progress: &dyn Progress,
) -> Result<Vec<f64>, EvaluationError> {
    let stage = Stage::start(progress, "cross-validating the supervised reference", Some(tests.len()));
    let stop = || progress.cancelled();
    let mut log_odds = vec![0.0; anomalous.len()];
    for test in tests {
        let Split { train, test } = Split::holding_out(test, anomalous.len());
        let labels: Vec<bool> = train.iter().map(|&item| anomalous[item]).collect();
        let own: Array2<f32> = rows.select(Axis(0), &train);
        let model = LogisticRegression::fit(own.view(), &labels, LogisticOptions::default(), Watch::new(&stop))?;
        let decisions = model.decision(rows.select(Axis(0), &test).view())?;
        test.iter().zip(decisions).for_each(|(&item, decision)| log_odds[item] = decision);
        stage.advance(1);
    }
    Ok(log_odds)
}

#[cfg(test)]
mod tests {
    use nomaly_store::Silent;

    use super::*;

    /// The rows of `tests/fixtures/gen_supervised.py`.
    fn rows() -> (Array2<f32>, Vec<bool>) {
        let mut state = 12_345u64;
        let mut number = || {
            state = (state * 1_103_515_245 + 12_345) % (1 << 31);
            state as f64 / (1u64 << 31) as f64
        };
        let labels: Vec<bool> = (0..60).map(|row| row % 3 == 0).collect();
        let mut cells = Vec::new();
        for label in &labels {
            cells.extend((0..4).map(|column| (number() + if *label && column < 2 { 0.25 } else { 0.0 }) as f32));
        }
        (Array2::from_shape_vec((60, 4), cells).unwrap(), labels)
    }

    #[test]
    fn out_of_fold_log_odds_are_those_of_scikit_learn() {
        let (rows, labels) = rows();
        let tests = (0..5).map(|fold| (fold..60).step_by(5).collect()).collect();
        let log_odds = out_of_fold(rows.view(), &labels, tests, &Silent).unwrap();
        // Both minimise to about eight digits; the rows are the same in single precision.
        const TOLERANCE: f64 = 1e-5;
        let ends = [log_odds[0], log_odds[1], log_odds[58], log_odds[59]];
        for (got, want) in ends.iter().zip(EXPECTED) {
            assert!((got - want).abs() < TOLERANCE, "{got} against {want}");
        }
        let area = auroc_with_interval(&log_odds, &labels, LEVEL).unwrap().auroc;
        assert!((area - EXPECTED_AUROC).abs() < 1e-12, "{area}");
    }

    /// Of the first two and the last two rows.
    const EXPECTED: [f64; 4] =
        [0.856_479_633_720_240_9, -0.578_491_924_634_022_4, -0.847_473_853_425_548_2, 1.360_451_027_733_117];
    const EXPECTED_AUROC: f64 = 0.70875;

    #[test]
    fn few_anomalies_make_few_folds_or_none() {
        let (rows, labels) = rows();
        let with = |anomalies: usize| {
            // Every third row is labelled.
            let kept: Vec<bool> = labels.iter().enumerate().map(|(row, label)| *label && row / 3 < anomalies).collect();
            supervised_reference("rows".to_owned(), rows.view(), &kept, 0, &Silent)
        };
        assert_eq!(with(20).unwrap().folds, 5);
        assert_eq!(with(3).unwrap().folds, 3);
        assert_eq!(with(20).unwrap(), with(20).unwrap());
        let error = with(1).unwrap_err().to_string();
        assert!(error.contains("59 normal and 1 anomalous"), "{error}");
    }
}
