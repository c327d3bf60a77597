//! Figures against counting one pair or one threshold at a time, and their invariances.

use nomaly_metrics::{ConfusionMatrix, CurvePoints, auroc, average_precision, eer, f1_max, roc_curve};
use proptest::prelude::*;

/// The share of pairs of an anomalous and a normal item that are in order, ties counting one half.
fn pairs_in_order(scores: &[f64], labels: &[bool]) -> f64 {
    let (mut twice, mut pairs) = (0, 0);
    for (&anomalous, _) in scores.iter().zip(labels).filter(|(_, label)| **label) {
        for (&normal, _) in scores.iter().zip(labels).filter(|(_, label)| !**label) {
            twice += if anomalous > normal { 2 } else { i32::from(anomalous == normal) };
            pairs += 1;
        }
    }
    f64::from(twice) / f64::from(2 * pairs)
}

/// Scores of few levels (many ties) with labels of both classes.
fn scored() -> impl Strategy<Value = (Vec<f64>, Vec<bool>)> {
    prop::collection::vec((-6i32..6, any::<bool>()), 0..40).prop_map(|items| {
        let mut scores: Vec<f64> = items.iter().map(|(score, _)| f64::from(*score) / 4.0).collect();
        let mut labels: Vec<bool> = items.iter().map(|(_, label)| *label).collect();
        scores.extend([0.25, -0.5]);
        labels.extend([true, false]);
        (scores, labels)
    })
}

proptest! {
    #[test]
    fn auroc_counts_pairs((scores, labels) in scored()) {
        prop_assert_eq!(auroc(&scores, &labels).unwrap(), pairs_in_order(&scores, &labels));
    }

    #[test]
    fn auroc_turns_over_with_the_labels((scores, labels) in scored()) {
        let swapped: Vec<bool> = labels.iter().map(|label| !label).collect();
        let sum = auroc(&scores, &labels).unwrap() + auroc(&scores, &swapped).unwrap();
        prop_assert!((sum - 1.0).abs() < 1e-15, "{}", sum);
    }

    #[test]
    fn only_the_order_of_scores_counts((scores, labels) in scored()) {
        let stretched: Vec<f64> = scores.iter().map(|score| score.exp() * 1e30).collect();
        prop_assert_eq!(auroc(&scores, &labels), auroc(&stretched, &labels));
        prop_assert_eq!(average_precision(&scores, &labels), average_precision(&stretched, &labels));
        prop_assert_eq!(eer(&scores, &labels).unwrap().rate, eer(&stretched, &labels).unwrap().rate);
        prop_assert_eq!(f1_max(&scores, &labels).unwrap().f1, f1_max(&stretched, &labels).unwrap().f1);
    }

    #[test]
    fn the_order_of_items_does_not_count((scores, labels) in scored()) {
        let reversed = |scores: &[f64], labels: &[bool]| -> (Vec<f64>, Vec<bool>) {
            scores.iter().rev().copied().zip(labels.iter().rev().copied()).unzip()
        };
        let (back, back_labels) = reversed(&scores, &labels);
        prop_assert_eq!(
            roc_curve(&scores, &labels, CurvePoints::All),
            roc_curve(&back, &back_labels, CurvePoints::All)
        );
        prop_assert_eq!(average_precision(&scores, &labels), average_precision(&back, &back_labels));
    }

    #[test]
    fn f1_max_is_the_best_of_all_thresholds((scores, labels) in scored()) {
        let best = scores.iter().copied().chain([f64::NEG_INFINITY])
            .filter_map(|threshold| ConfusionMatrix::at(&scores, &labels, threshold).unwrap().f1())
            .fold(0.0, f64::max);
        let found = f1_max(&scores, &labels).unwrap();
        prop_assert!((found.f1 - best).abs() < 1e-15);
        let at = ConfusionMatrix::at(&scores, &labels, found.threshold).unwrap();
        prop_assert!((at.f1().unwrap() - best).abs() < 1e-15);
    }

    #[test]
    fn the_equal_error_rate_lies_between_the_errors_at_its_neighbours((scores, labels) in scored()) {
        let found = eer(&scores, &labels).unwrap();
        let curve = roc_curve(&scores, &labels, CurvePoints::All).unwrap();
        let crossing = (1..curve.fpr.len()).find(|&i| curve.fpr[i] >= 1.0 - curve.tpr[i]).unwrap();
        prop_assert!(curve.fpr[crossing - 1] <= found.rate && found.rate <= curve.fpr[crossing]);
        prop_assert!(1.0 - curve.tpr[crossing] <= found.rate + 1e-15);
        prop_assert!(found.rate <= 1.0 - curve.tpr[crossing - 1] + 1e-15);
        prop_assert!(curve.thresholds[crossing - 1..=crossing].contains(&found.threshold));
    }

    #[test]
    fn corners_leave_no_point_on_a_straight_line((scores, labels) in scored()) {
        let corners = roc_curve(&scores, &labels, CurvePoints::Corners).unwrap();
        let all = roc_curve(&scores, &labels, CurvePoints::All).unwrap();
        for i in 2..corners.fpr.len() {
            let (x, y) = (&corners.fpr[i - 2..=i], &corners.tpr[i - 2..=i]);
            let turn = (x[1] - x[0]) * (y[2] - y[1]) - (y[1] - y[0]) * (x[2] - x[1]);
            prop_assert!(turn.abs() > 1e-9, "{:?} {:?}", x, y);
        }
        for (i, threshold) in corners.thresholds.iter().enumerate() {
            let at = all.thresholds.iter().position(|other| other == threshold).unwrap();
            prop_assert_eq!((corners.fpr[i], corners.tpr[i]), (all.fpr[at], all.tpr[at]));
        }
        prop_assert!((corners.area() - all.area()).abs() < 1e-12);
    }
}
