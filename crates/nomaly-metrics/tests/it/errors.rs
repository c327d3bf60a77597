//! Errors name bad input and leave an accumulator unchanged.

use nomaly_metrics::{ConfusionMatrix, MetricError, PixelMetrics, auroc, average_precision, eer, f1_max};

#[track_caller]
fn check<T: std::fmt::Debug>(result: Result<T, MetricError>, message: &str) {
    assert_eq!(result.unwrap_err().to_string(), message);
}

#[test]
fn scores_and_labels() {
    check(auroc(&[0.1, 0.2], &[true]), "2 scores but 1 labels");
    check(auroc::<f64>(&[], &[]), "no scores");
    check(eer(&[0.1, f64::NAN, f64::NAN], &[true, false, true]), "score 1 is not a number");
    check(
        f1_max(&[0.1f32, 0.2], &[true, true]),
        "all 2 labels are anomalous; the metric needs normal and anomalous ones",
    );
    check(average_precision(&[0.1], &[false]), "all 1 labels are normal; the metric needs normal and anomalous ones");
    check(ConfusionMatrix::at(&[0.1], &[true], f64::NAN), "the threshold is not a number");
    check(ConfusionMatrix::at(&[f32::NAN], &[true], 0.0), "score 0 is not a number");
}

#[test]
fn maps_and_masks() {
    let mut metrics = PixelMetrics::new();
    check(metrics.auroc(), "no scores");
    metrics.push(&[0.1, 0.9], &[0, 1], 2, 1).unwrap();
    let before = metrics.aupro(0.3);

    check(metrics.push(&[0.1; 5], &[0; 5], 2, 3), "anomaly map 1 has 5 values, but 2×3 needs 6");
    check(metrics.push(&[0.1; 6], &[0; 5], 2, 3), "mask 1 has 5 pixels, but its 2×3 anomaly map has 6");
    check(
        metrics.push_normal(&[0.1, 0.1, 0.1, 0.1, f32::NAN, 0.1], 2, 3),
        "anomaly map 1 is not a number at x = 0, y = 2",
    );
    check(
        metrics.push_normal(&[], usize::MAX, 2),
        &format!("a {}×2 image is too large; at most 4294967295 pixels are supported", usize::MAX),
    );
    assert_eq!(metrics.images(), 1);
    assert_eq!(metrics.aupro(0.3), before);

    for limit in [0.0, -0.1, 1.5, f64::NAN] {
        check(metrics.aupro(limit), &format!("the false-positive-rate limit {limit} is outside (0, 1]"));
    }
}

#[test]
fn pixels_of_one_class() {
    let mut normal = PixelMetrics::new();
    normal.push_normal(&[0.1; 4], 2, 2).unwrap();
    check(normal.aupro(0.3), "all 4 labels are normal; the metric needs normal and anomalous ones");
    let mut defective = PixelMetrics::new();
    defective.push(&[0.1; 4], &[1; 4], 2, 2).unwrap();
    check(defective.pro_curve(), "all 4 labels are anomalous; the metric needs normal and anomalous ones");
}
