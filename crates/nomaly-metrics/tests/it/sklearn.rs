//! Figures against scikit-learn (`tests/fixtures/gen_sklearn.py`).

use nomaly_metrics::{ConfusionMatrix, CurvePoints, PixelMetrics, auroc, average_precision, eer, f1_max, roc_curve};
use serde_json::Value;

/// Both sides divide counts of at most a few hundred; sums of that many terms differ by a few units in the last place.
const TOLERANCE: f64 = 1e-13;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/sklearn.json")).unwrap()
}

/// Numbers, with infinities as strings.
fn numbers(value: &Value) -> Vec<f64> {
    let number = |v: &Value| v.as_f64().unwrap_or_else(|| v.as_str().unwrap().parse().unwrap());
    value.as_array().unwrap().iter().map(number).collect()
}

fn labels(value: &Value) -> Vec<bool> {
    value.as_array().unwrap().iter().map(|label| label.as_bool().unwrap()).collect()
}

#[track_caller]
fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= TOLERANCE, "{what}: {found} but expected {expected}");
}

#[track_caller]
fn assert_all_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: {found:?} but expected {expected:?}");
    for (&found, &expected) in found.iter().zip(expected) {
        assert_close(found, expected, what);
    }
}

#[test]
fn image_figures_agree() {
    for case in fixture()["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (scores, labels) = (numbers(&case["scores"]), labels(&case["labels"]));
        let expected = |key: &str| case[key].as_f64().unwrap();

        assert_close(auroc(&scores, &labels).unwrap(), expected("auroc"), name);
        assert_close(average_precision(&scores, &labels).unwrap(), expected("average_precision"), name);
        assert_close(eer(&scores, &labels).unwrap().rate, expected("eer"), name);
        let best = f1_max(&scores, &labels).unwrap();
        assert_close(best.f1, expected("f1_max"), name);

        // Rounding to single precision keeps the order and the ties of these scores.
        let single: Vec<f32> = scores.iter().map(|&score| score as f32).collect();
        assert_eq!(auroc(&single, &labels), auroc(&scores, &labels), "{name}");
        assert_eq!(f1_max(&single, &labels).unwrap().f1, best.f1, "{name}");
    }
}

#[test]
fn curves_agree_point_by_point() {
    for case in fixture()["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (scores, labels) = (numbers(&case["scores"]), labels(&case["labels"]));

        let all = roc_curve(&scores, &labels, CurvePoints::All).unwrap();
        assert_all_close(&all.fpr, &numbers(&case["fpr"]), name);
        assert_all_close(&all.tpr, &numbers(&case["tpr"]), name);
        // Thresholds are the highest unflagged score here and the lowest flagged one in scikit-learn: shifted by one
        // point.
        let (last, thresholds) = all.thresholds.split_last().unwrap();
        assert_eq!(thresholds, numbers(&case["lowest_flagged"]), "{name}");
        assert_eq!(*last, f64::NEG_INFINITY, "{name}");
        assert_close(all.area(), auroc(&scores, &labels).unwrap(), name);

        let corners = roc_curve(&scores, &labels, CurvePoints::Corners).unwrap();
        assert_close(corners.area(), all.area(), name);
        // scikit-learn drops a point where counts change alike at both sides; here every collinear point is dropped.
        assert!(corners.fpr.len() <= case["fpr_corners"].as_array().unwrap().len(), "{name}");
    }
}

#[test]
fn thresholds_of_curves_give_the_points_they_stand_for() {
    for case in fixture()["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (scores, labels) = (numbers(&case["scores"]), labels(&case["labels"]));
        let curve = roc_curve(&scores, &labels, CurvePoints::All).unwrap();
        let finite = scores.iter().all(|score| score.is_finite());
        for (i, &threshold) in curve.thresholds.iter().enumerate() {
            // No threshold lies below a score of -∞.
            if finite || i + 1 < curve.thresholds.len() {
                let counts = ConfusionMatrix::at(&scores, &labels, threshold).unwrap();
                assert_eq!((counts.fpr(), counts.tpr()), (Some(curve.fpr[i]), Some(curve.tpr[i])), "{name}");
            }
        }
        let best = f1_max(&scores, &labels).unwrap();
        if finite {
            let counts = ConfusionMatrix::at(&scores, &labels, best.threshold).unwrap();
            assert_eq!(counts.precision(), Some(best.precision), "{name}");
            assert_eq!(counts.recall(), Some(best.recall), "{name}");
            assert_close(counts.f1().unwrap(), best.f1, name);
        }
    }
}

#[test]
fn pixel_figures_agree() {
    let fixture = fixture();
    let pixel = &fixture["pixel"];
    let shape: Vec<usize> = numbers(&pixel["shape"]).into_iter().map(|side| side as usize).collect();
    let mut metrics = PixelMetrics::new();
    for image in 0..shape[0] {
        let map: Vec<f32> = numbers(&pixel["maps"][image]).into_iter().map(|value| value as f32).collect();
        let mask: Vec<u8> = numbers(&pixel["masks"][image]).into_iter().map(|value| value as u8).collect();
        metrics.push(&map, &mask, shape[2], shape[1]).unwrap();
    }
    assert_eq!(metrics.regions(), pixel["regions"].as_u64().unwrap());
    assert_close(metrics.auroc().unwrap(), pixel["auroc"].as_f64().unwrap(), "pixel auroc");
    assert_close(metrics.average_precision().unwrap(), pixel["average_precision"].as_f64().unwrap(), "pixel ap");
    for (limit, expected) in pixel["aupro"].as_object().unwrap() {
        assert_close(metrics.aupro(limit.parse().unwrap()).unwrap(), expected.as_f64().unwrap(), limit);
    }
}
