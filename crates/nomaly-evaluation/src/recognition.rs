//! Evaluation of a model of classes: recognition of its classes and rejection of unknown items.

use std::collections::BTreeMap;
use std::time::Instant;

use nomaly_data::Sample;
use nomaly_data::tables::Table;
use nomaly_detectors::classes::{Classes, Recognition};
use nomaly_detectors::rows::{FittedRows, RowOutcome, RowPredictOptions};
use nomaly_detectors::{DetectorError, FittedDetector, PredictOptions};
use nomaly_methods::GroupBy;
use nomaly_methods::recognition::{KnownClass, UNDECIDED, UNKNOWN};
use nomaly_metrics::{auroc_with_interval, share_interval};
use nomaly_store::Progress;

use crate::clock::{BatchClock, peak_rss_mib};
use crate::error::EvaluationError;
use crate::intervals::{LEVEL, ends};
use nomaly_wire::{
    Confusion, ConfusionRow, Ends, KnownCounts, KnownItems, RecognitionEvaluation, RecognitionFigures, Timing,
};

/// The known classes of a model, in the form of a record.
fn known_items(classes: &[KnownClass]) -> Vec<KnownItems> {
    classes.iter().map(|class| KnownItems { name: class.name.clone(), items: class.items }).collect()
}

/// Compares recognised classes with the labels of the items.
///
/// # Errors
/// No item of a known class.
pub fn recognition_figures<S: AsRef<str>>(
    classes: &Classes,
    items: &[(S, Recognition)],
) -> Result<RecognitionFigures, EvaluationError> {
    let place = |kind: &str| classes.known().binary_search_by(|class| class.name.as_str().cmp(kind)).ok();
    let truth: Vec<Option<usize>> = items.iter().map(|(kind, _)| place(kind.as_ref())).collect();
    let of = |wanted: &dyn Fn(Option<usize>, &Recognition) -> bool| {
        truth.iter().zip(items).filter(|(truth, (_, found))| wanted(**truth, found)).count()
    };
    let known = of(&|truth, _| truth.is_some());
    let unknown = items.len() - known;
    if known == 0 {
        let names: Vec<&str> = classes.known().iter().map(|class| class.name.as_str()).collect();
        let reason = format!("no usable test item is of a class that the model knows: {}", names.join(", "));
        return Err(EvaluationError::TooFew { reason });
    }
    let share = |part: usize, all: usize| -> Result<(Option<f64>, Option<Ends>), EvaluationError> {
        let interval = share_interval(part as u64, all as u64, LEVEL)?.map(ends);
        Ok(((all > 0).then(|| part as f64 / all as f64), interval))
    };
    let (closed, closed_ci) = share(of(&|truth, found| truth == Some(found.closest)), known)?;
    // A share of decisions is meaningless if some were not made.
    let share_unknown = |of_known: bool, all: usize| {
        let with = |unknown| of(&move |truth, found| truth.is_some() == of_known && found.unknown == unknown);
        if with(None) > 0 { Ok((None, None)) } else { share(with(Some(true)), all) }
    };
    let (false_unknown, false_unknown_ci) = share_unknown(true, known)?;
    let (unknown_found, unknown_found_ci) = share_unknown(false, unknown)?;
    let accepted = of(&|truth, found| truth.is_some() && found.class().is_some());
    let (accuracy_of_accepted, accuracy_of_accepted_ci) =
        share(of(&|truth, found| truth.is_some() && truth == found.class()), accepted)?;
    let area = if unknown == 0 {
        None
    } else {
        let scores: Vec<f64> = items.iter().map(|(_, found)| found.score).collect();
        let strange: Vec<bool> = truth.iter().map(Option::is_none).collect();
        Some(auroc_with_interval(&scores, &strange, LEVEL)?)
    };
    Ok(RecognitionFigures {
        n_test: KnownCounts { known, unknown },
        closed_set_accuracy: closed.unwrap_or_default(),
        closed_set_accuracy_ci: closed_ci,
        undecided: of(&|_, found| found.unknown.is_none()),
        false_unknown,
        false_unknown_ci,
        accuracy_of_accepted,
        accuracy_of_accepted_ci,
        unknown_found,
        unknown_found_ci,
        auroc: area.map(|area| area.auroc),
        auroc_ci: area.and_then(|area| area.interval).map(ends),
        confusion: confusion(classes, items, &truth),
    })
}

fn confusion<S: AsRef<str>>(classes: &Classes, items: &[(S, Recognition)], truth: &[Option<usize>]) -> Confusion {
    let mut decisions: Vec<String> = classes.known().iter().map(|class| class.name.clone()).collect();
    let unknown = decisions.len();
    decisions.push(UNKNOWN.to_owned());
    if items.iter().any(|(_, found)| found.unknown.is_none()) {
        decisions.push(UNDECIDED.to_owned());
    }
    let mut rows: BTreeMap<(bool, &str), Vec<usize>> = BTreeMap::new();
    for ((kind, found), truth) in items.iter().zip(truth) {
        let counts = rows.entry((truth.is_none(), kind.as_ref())).or_insert_with(|| vec![0; decisions.len()]);
        let decision = match found.unknown {
            Some(false) => found.closest,
            Some(true) => unknown,
            None => unknown + 1,
        };
        counts[decision] += 1;
    }
    let row = |((strange, kind), counts): ((bool, &str), Vec<usize>)| ConfusionRow {
        kind: kind.to_owned(),
        known: !strange,
        counts,
    };
    Confusion { rows: rows.into_iter().map(row).collect(), decisions }
}

/// Recognises `samples`, whose kinds are the names of their classes, and compares.
///
/// `dataset` and `fit_s` are passed on to the figures.
///
/// # Errors
/// A model without classes, no image of a known class, and errors of [`predict`](FittedDetector::predict).
pub fn evaluate_classes(
    detector: &FittedDetector,
    dataset: &str,
    samples: &[Sample],
    fit_s: Option<f64>,
    options: &PredictOptions,
    progress: &dyn Progress,
) -> Result<RecognitionEvaluation, EvaluationError> {
    let decider = detector.decider_under(options.rule)?;
    let classes = decider.classes().ok_or_else(DetectorError::no_classes)?;
    let (mut items, mut skipped) = (Vec::with_capacity(samples.len()), Vec::new());
    let mut clock = BatchClock::start();
    detector.predict_grouped(samples, &GroupBy::None, options, progress, |outcome| -> Result<(), EvaluationError> {
        clock.record(outcome.batch);
        match outcome.result {
            Ok(prediction) => {
                let recognition = prediction.recognition.ok_or_else(DetectorError::no_classes)?;
                items.push((outcome.sample.kind.clone(), recognition));
            }
            Err(reason) => skipped.push(reason),
        }
        Ok(())
    })?;
    let (ms_per_image, images_per_s) = clock.stop();
    let info = detector.info();
    Ok(RecognitionEvaluation {
        dataset: dataset.to_owned(),
        method: info.method.name.clone(),
        backbone: Some(info.backbone.name.clone()),
        seed: info.training.seed,
        classes: known_items(classes.known()),
        rule: classes.describe(),
        figures: recognition_figures(classes, &items)?,
        timing: Timing { fit_s, predict_ms_per_image_median: ms_per_image, images_per_s },
        peak_rss_mib: peak_rss_mib(),
        skipped,
    })
}

/// Recognises the rows of `table`, whose labels are the names of their classes, and compares.
///
/// # Errors
/// As [`evaluate_classes`], and a table without labels.
pub fn evaluate_row_classes(
    detector: &FittedRows,
    table: &Table,
    fit_s: Option<f64>,
    options: &RowPredictOptions,
    progress: &dyn Progress,
) -> Result<RecognitionEvaluation, EvaluationError> {
    let decider = detector.decider_under(options.rule)?;
    let classes = decider.classes().ok_or_else(DetectorError::no_classes)?;
    let labels = table.labels.as_ref().ok_or_else(|| EvaluationError::CannotEvaluate {
        dataset: table.name.clone(),
        reason: "its rows have no labels".to_owned(),
    })?;
    let began = Instant::now();
    let outcomes = detector.predict(table, options, progress)?;
    let seconds = began.elapsed().as_secs_f64();
    let (mut items, mut skipped) = (Vec::with_capacity(labels.len()), Vec::new());
    for (RowOutcome { result, .. }, label) in outcomes.into_iter().zip(labels) {
        match result {
            Ok(prediction) => items.push((label, prediction.recognition.ok_or_else(DetectorError::no_classes)?)),
            Err(reason) => skipped.push(reason),
        }
    }
    let info = detector.info();
    Ok(RecognitionEvaluation {
        dataset: table.name.clone(),
        method: info.scorer.clone(),
        backbone: None,
        seed: info.training.seed,
        classes: known_items(classes.known()),
        rule: classes.describe(),
        figures: recognition_figures(classes, &items)?,
        timing: Timing {
            fit_s,
            predict_ms_per_image_median: seconds * 1e3 / labels.len() as f64,
            images_per_s: labels.len() as f64 / seconds,
        },
        peak_rss_mib: peak_rss_mib(),
        skipped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nomaly_detectors::DecisionRule;
    use nomaly_methods::recognition::HeldOutClass;

    #[test]
    fn figures_count_what_was_taken_for_what() {
        let class = |name: &str| HeldOutClass {
            class: KnownClass { name: name.to_owned(), items: 9 },
            scores: vec![0.0],
            groups: None,
        };
        let classes = Classes::new(vec![class("a"), class("b")], DecisionRule::Threshold(5.0)).unwrap();
        let item = |kind, scores: [f64; 2]| (kind, classes.recognize(&scores));
        let items = [
            item("a", [1.0, 9.0]),
            item("a", [3.0, 2.0]),
            item("b", [8.0, 6.0]),
            item("b", [9.0, 0.0]),
            item("z", [7.0, 8.0]),
            item("c", [4.0, 8.0]),
        ];
        let figures = recognition_figures(&classes, &items).unwrap();
        assert_eq!(figures.n_test, KnownCounts { known: 4, unknown: 2 });
        assert_eq!((figures.closed_set_accuracy, figures.false_unknown, figures.undecided), (0.75, Some(0.25), 0));
        assert_eq!((figures.accuracy_of_accepted, figures.unknown_found), (Some(2.0 / 3.0), Some(0.5)));
        // 7 is above 1, 2, 6 and 0; 4 is above all of them except 6.
        assert_eq!(figures.auroc, Some(7.0 / 8.0));
        assert_eq!(figures.confusion.decisions, ["a", "b", "unknown"]);
        let rows: Vec<_> =
            figures.confusion.rows.iter().map(|row| (row.kind.as_str(), row.known, &row.counts[..])).collect();
        assert_eq!(
            rows,
            [("a", true, &[1, 1, 0][..]), ("b", true, &[0, 1, 1]), ("c", false, &[1, 0, 0]), ("z", false, &[0, 0, 1])]
        );
        let closed = recognition_figures(&classes, &items[..4]).unwrap();
        assert_eq!((closed.auroc, closed.unknown_found), (None, None));
        assert!(recognition_figures(&classes, &items[4..]).unwrap_err().to_string().contains("a, b"));
    }

    #[test]
    fn figures_of_decisions_are_left_out_where_none_were_made() {
        let class = |name: &str, n: u32| HeldOutClass {
            class: KnownClass { name: name.to_owned(), items: 9 },
            scores: (0..n).map(f64::from).collect(),
            groups: None,
        };
        // Nine held-out scores allow a rate of 10 %; three do not.
        let classes = Classes::new(vec![class("a", 9), class("b", 3)], DecisionRule::MaxFpr(0.1)).unwrap();
        let item = |kind, scores: [f64; 2]| (kind, classes.recognize(&scores));
        let items = [item("a", [1.0, 9.0]), item("a", [8.5, 9.0]), item("b", [9.0, 2.0]), item("z", [9.0, 99.0])];
        let figures = recognition_figures(&classes, &items).unwrap();
        assert_eq!((figures.undecided, figures.false_unknown, figures.false_unknown_ci), (1, None, None));
        assert_eq!((figures.closed_set_accuracy, figures.accuracy_of_accepted), (1.0, Some(1.0)));
        assert_eq!(figures.unknown_found, Some(1.0));
        assert_eq!(figures.confusion.decisions, ["a", "b", "unknown", "undecided"]);
        let counts: Vec<&[usize]> = figures.confusion.rows.iter().map(|row| &row.counts[..]).collect();
        assert_eq!(counts, [&[1, 0, 1, 0][..], &[0, 0, 0, 1], &[0, 0, 1, 0]]);
        // The share of known items is 1 without the undecided item.
        let decided = recognition_figures(&classes, &items[..2]).unwrap();
        assert_eq!((decided.undecided, decided.false_unknown), (0, Some(0.5)));
    }
}
