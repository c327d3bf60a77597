//! Models of classes on items of known and unknown ones.

use nomaly_detectors::rows::RowPredictOptions;
use nomaly_detectors::{DecisionRule, PredictOptions};
use nomaly_evaluation::recognition::{evaluate_classes, evaluate_row_classes};
use nomaly_store::Silent;

use crate::images::{fit, settings};
use crate::kinds::{fit_rows, pictures, table};

#[test]
fn known_rows_are_called_unknown_at_the_rate_asked_for() {
    let model = fit_rows(&table(&["a", "b", "c"], 300, 1));
    let test = table(&["a", "b", "c", "q"], 600, 2);
    for rate in [0.02, 0.05, 0.2] {
        let options = RowPredictOptions { rule: Some(DecisionRule::MaxFpr(rate)), ..RowPredictOptions::default() };
        let figures = evaluate_row_classes(&model, &test, None, &options, &Silent).unwrap().figures;
        assert_eq!((figures.n_test.known, figures.n_test.unknown), (1800, 600));
        // Three standard deviations: those of 1800 test rows, and those of the thresholds from 900 held-out ones.
        let allowed = 3.0 * (rate * (1.0 - rate) * (1.0 / 1800.0 + 1.0 / 900.0)).sqrt();
        let false_unknown = figures.false_unknown.unwrap();
        assert!((false_unknown - rate).abs() < allowed, "{rate}: {false_unknown}");
        assert!(figures.closed_set_accuracy > 0.97, "{}", figures.closed_set_accuracy);
        assert!(figures.auroc.unwrap() > 0.97, "{:?}", figures.auroc);
        assert!(rate < 0.05 || figures.unknown_found.unwrap() > 0.9, "{:?}", figures.unknown_found);
    }
}

#[test]
fn images_get_a_class_or_are_unknown() {
    let fitted = fit("open-set", &settings(), &pictures(&["red", "blue"], 0..24)).detector;
    let test = pictures(&["red", "blue", "yellow"], 100..112);
    let options = PredictOptions::default();
    let figures = evaluate_classes(&fitted, "pictures", &test, None, &options, &Silent).unwrap().figures;
    assert_eq!((figures.closed_set_accuracy, figures.auroc, figures.unknown_found), (1.0, Some(1.0), Some(1.0)));
    // One in twenty is allowed: more than five of 24 are very unlikely.
    assert!(figures.false_unknown.unwrap() < 0.25, "{:?}", figures.false_unknown);
    let strangers = pictures(&["yellow"], 0..3);
    let error = evaluate_classes(&fitted, "pictures", &strangers, None, &options, &Silent).err().unwrap();
    assert!(error.to_string().contains("blue, red"), "{error}");
}
