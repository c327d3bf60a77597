//! Confidence intervals, and figures at thresholds, against definitions and scikit-learn
//! (`fixtures/gen_confidence.py`).

use nomaly_metrics::{
    Bootstrap, ConfusionMatrix, CurvePoints, Interval, MetricError, auroc_with_interval, confusion_curve, roc_curve,
    share_interval,
};
use serde_json::Value;

/// Both sides add and divide a few hundred numbers; the quantile of the normal distribution is accurate to 1.2e-9.
const TOLERANCE: f64 = 1e-8;

/// The ends of two bootstraps with different random numbers differ: the error of a 2.5 % quantile of 4000 resamples is
/// about a twelfth of a standard deviation of the figure (an interval is four wide), that of 1000 a sixth; this is
/// three times that.
const NOISE: f64 = 0.14;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/confidence.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn data(case: &Value) -> (Vec<f64>, Vec<bool>) {
    let labels = case["labels"].as_array().unwrap().iter().map(|label| label.as_bool().unwrap()).collect();
    (numbers(&case["scores"]), labels)
}

#[track_caller]
fn assert_close(got: f64, want: f64, what: &str) {
    assert!((got - want).abs() <= TOLERANCE * want.abs().max(1e-3), "{what}: {got}, expected {want}");
}

#[test]
fn delong_agrees_with_the_table_of_all_pairs() {
    for case in fixture()["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (scores, labels) = data(case);
        let found = auroc_with_interval(&scores, &labels, 0.95).unwrap();
        assert_close(found.auroc, case["auroc"].as_f64().unwrap(), name);
        assert_close(found.variance.unwrap(), case["variance"].as_f64().unwrap(), name);
        let (interval, want) = (found.interval.unwrap(), numbers(&case["interval"]));
        assert_close(interval.low, want[0], name);
        assert_close(interval.high, want[1], name);
    }
}

#[test]
fn bootstrap_intervals_agree_with_scikit_learn_s_figures_on_resamples() {
    for case in fixture()["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (scores, labels) = data(case);
        let threshold = case["threshold"].as_f64().unwrap();
        let found = Bootstrap::default().intervals(&scores, &labels, threshold).unwrap();
        for (figure, interval) in [
            ("auroc", found.auroc),
            ("ap", found.ap),
            ("f1_max", found.f1_max),
            ("tpr", found.tpr),
            ("fpr", found.fpr),
            ("precision", found.precision.unwrap()),
            ("accuracy", found.accuracy),
            ("f1", found.f1),
        ] {
            let want = numbers(&case["bootstrap"][figure]);
            // Rates move in steps of one item of the smaller class.
            let slack = NOISE * (want[1] - want[0]) + 1.0 / 40.0;
            for (got, want) in [(interval.low, want[0]), (interval.high, want[1])] {
                assert!((got - want).abs() <= slack, "{name}, {figure}: {got}, expected {want} within {slack}");
            }
        }
        // Two ways to compute the same interval.
        let delong = auroc_with_interval(&scores, &labels, 0.95).unwrap().interval.unwrap();
        assert!((delong.low - found.auroc.low).abs() < 0.03 && (delong.high - found.auroc.high).abs() < 0.03, "{name}");
        assert!(0.0 <= found.eer.low && found.eer.low < found.eer.high && found.eer.high <= 1.0);
    }
}

#[test]
fn bootstraps_depend_on_their_seed_and_on_nothing_else() {
    let (scores, labels) = data(&fixture()["cases"][1]);
    let with = |seed| Bootstrap { seed, resamples: 200, ..Bootstrap::default() }.intervals(&scores, &labels, 0.5);
    let once = with(1).unwrap();
    assert_eq!(once, with(1).unwrap());
    assert_ne!(once, with(2).unwrap());
    // The order of the images does not matter.
    let (mut backwards, mut labels_backwards) = (scores.clone(), labels.clone());
    backwards.reverse();
    labels_backwards.reverse();
    let other = Bootstrap { seed: 1, resamples: 200, ..Bootstrap::default() };
    assert_eq!(once, other.intervals(&backwards, &labels_backwards, 0.5).unwrap());
}

#[test]
fn shares_agree_with_scipy() {
    for row in fixture()["wilson"].as_array().unwrap() {
        let row = numbers(row);
        let found = share_interval(row[0] as u64, row[1] as u64, 0.95).unwrap().unwrap();
        assert_close(found.low, row[2], "low");
        assert_close(found.high, row[3], "high");
    }
}

#[test]
fn figures_at_thresholds_agree_with_scikit_learn() {
    for case in fixture()["cases"].as_array().unwrap() {
        let (scores, labels) = data(case);
        for row in case["at"].as_array().unwrap() {
            let row = numbers(row);
            let counts = ConfusionMatrix::at(&scores, &labels, row[0]).unwrap();
            let found = [counts.precision(), counts.recall(), counts.accuracy(), counts.f1()];
            for (got, want) in found.iter().zip(&row[1..]) {
                // scikit-learn calls an undefined precision 0 here.
                assert_close(got.unwrap_or(0.0), *want, "figure");
            }
        }
    }
}

#[test]
fn curves_of_decisions_have_the_points_of_the_roc_curve() {
    for case in fixture()["cases"].as_array().unwrap() {
        let (scores, labels) = data(case);
        for points in [CurvePoints::All, CurvePoints::Corners, CurvePoints::Thinned(10)] {
            let curve = confusion_curve(&scores, &labels, points).unwrap();
            let roc = roc_curve(&scores, &labels, points).unwrap();
            assert_eq!(curve.thresholds, roc.thresholds);
            for (place, counts) in curve.counts.iter().enumerate() {
                assert_eq!((counts.fpr(), counts.tpr()), (Some(roc.fpr[place]), Some(roc.tpr[place])));
                let at = ConfusionMatrix::at(&scores, &labels, curve.thresholds[place]).unwrap();
                assert_eq!(*counts, at, "{points:?}");
            }
        }
    }
}

#[test]
fn perfect_rankings_and_single_items_are_told_apart() {
    let perfect = auroc_with_interval(&[0.0, 1.0, 2.0, 3.0, 4.0], &[false, false, false, true, true], 0.95).unwrap();
    assert_eq!(perfect.variance, Some(0.0));
    // Two pairs without a common item: 0.158² = 0.025.
    let Interval { low, high } = perfect.interval.unwrap();
    assert!((low - 0.025f64.sqrt()).abs() < 1e-12 && high == 1.0, "{low} {high}");
    let wrong = auroc_with_interval(&[1.0, 0.0], &[false, true], 0.9).unwrap();
    assert_eq!((wrong.auroc, wrong.variance), (0.0, None));
    assert!((wrong.interval.unwrap().high - 0.95).abs() < 1e-12);
    let single = auroc_with_interval(&[1.0, 0.0, 2.0], &[true, false, false], 0.95).unwrap();
    assert_eq!((single.variance, single.interval), (None, None));
}

#[test]
fn settings_out_of_range_are_refused() {
    let (scores, labels) = ([0.0, 1.0], [false, true]);
    assert_eq!(auroc_with_interval(&scores, &labels, 1.0), Err(MetricError::Level { level: 1.0 }));
    assert_eq!(share_interval(1, 2, 0.0), Err(MetricError::Level { level: 0.0 }));
    let with = |bootstrap: Bootstrap, threshold: f64| bootstrap.intervals(&scores, &labels, threshold).unwrap_err();
    let few = Bootstrap { resamples: 39, ..Bootstrap::default() };
    assert_eq!(with(few, 0.5), MetricError::Resamples { resamples: 39, needed: 40 });
    assert_eq!(with(Bootstrap::default(), f64::NAN), MetricError::NanThreshold);
    assert!(matches!(with(Bootstrap { level: f64::NAN, ..Bootstrap::default() }, 0.5), MetricError::Level { .. }));
}
