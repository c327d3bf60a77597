//! Logistic regression against scikit-learn, and at its limits.

use ndarray::{Array2, Axis};
use nomaly_scorers::logistic::{ClassWeight, LogisticOptions, LogisticRegression};
use nomaly_scorers::{ScorerError, Watch};
use rayon::ThreadPoolBuilder;
use serde_json::Value;

use crate::support::{Lcg, assert_close, rows};

/// Both sides stop where Newton's steps are at rounding; with `C = 100` the objective is flat along some directions, in
/// which that leaves about six digits.
const CONVERGED: f64 = 1e-6;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/logistic.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The labels of the fixture.
fn labels(seed: u64, rows: &Array2<f32>) -> Vec<bool> {
    let mut lcg = Lcg(seed + 300);
    let label = |row: ndarray::ArrayView1<'_, f32>| {
        f64::from(row[0]) + f64::from(row[1]) - 6.0 + 2.0 * (lcg.uniform() - 0.5) > 0.8
    };
    rows.outer_iter().map(label).collect()
}

fn fit(rows: &Array2<f32>, labels: &[bool], options: LogisticOptions) -> Result<LogisticRegression, ScorerError> {
    LogisticRegression::fit(rows.view(), labels, options, Watch::none())
}

#[test]
fn log_odds_and_probabilities_agree_with_scikit_learn() {
    for case in fixture()["cases"].as_array().unwrap() {
        let whole = |name: &str| case[name].as_u64().unwrap();
        let (seed, n, dim) = (whole("seed"), whole("rows") as usize, whole("dim") as usize);
        let (train, queries) = (rows(seed, n, dim), rows(seed + 100, 7, dim));
        let labels = labels(seed, &train);
        assert_eq!(labels.iter().filter(|label| **label).count() as u64, whole("anomalies"));
        let options = LogisticOptions {
            c: case["c"].as_f64().unwrap(),
            class_weight: serde_json::from_value(case["class_weight"].clone()).unwrap(),
            standardize: case["standardise"].as_bool().unwrap(),
        };
        let model = fit(&train, &labels, options).unwrap();
        let what = format!("{n} rows, {options:?}");
        let decision = model.decision(queries.view()).unwrap();
        assert_close(&decision, &numbers(&case["decision"]), CONVERGED, &what);
        let probability = model.probability(queries.view()).unwrap();
        assert_close(&probability, &numbers(&case["probability"]), CONVERGED, &what);
        let by_hand = |row: ndarray::ArrayView1<'_, f32>| {
            model.intercept() + row.iter().zip(model.coefficients()).map(|(x, w)| f64::from(*x) * w).sum::<f64>()
        };
        assert_close(&queries.outer_iter().map(by_hand).collect::<Vec<_>>(), &decision, 1e-9, &what);
    }
}

#[test]
fn neither_threads_nor_company_change_a_bit() {
    let train = rows(1, 4500, 20);
    let labels = labels(1, &train);
    let on_threads = |threads| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| fit(&train, &labels, LogisticOptions::default()).unwrap())
    };
    let model = on_threads(1);
    assert_eq!(on_threads(2), model);
    assert_eq!(on_threads(5), model);
    let test = rows(2, 150, 20);
    let together = model.decision(test.view()).unwrap();
    for (at, decision) in together.iter().enumerate() {
        let alone = test.slice_axis(Axis(0), (at..at + 1).into());
        assert_eq!(model.decision(alone).unwrap(), [*decision]);
    }
}

#[test]
fn labels_and_settings_that_do_not_fit_are_refused() {
    let train = rows(1, 12, 3);
    let mut labels = vec![false; 12];
    let message = |labels: &[bool], options| fit(&train, labels, options).unwrap_err().to_string();
    let options = LogisticOptions::default();
    assert_eq!(message(&labels, options), "setting `labels` is `0 anomalies`; it takes rows of both classes among 12");
    assert!(message(&[true; 12], options).contains("`12 anomalies`"));
    labels[3] = true;
    assert_eq!(message(&labels[..5], options), "setting `labels` is `5`; it takes a label for each of 12 rows");
    for c in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(message(&labels, LogisticOptions { c, ..options }).starts_with("setting `c` is"));
    }
    let mut bad = train.clone();
    bad[[7, 2]] = f32::NAN;
    assert!(matches!(fit(&bad, &labels, options), Err(ScorerError::NonFiniteFeature { row: 7, column: 2 })));
    let stop = || true;
    let cancelled = LogisticRegression::fit(train.view(), &labels, options, Watch::new(&stop));
    assert!(matches!(cancelled, Err(ScorerError::Cancelled)));
    let model = fit(&train, &labels, options).unwrap();
    assert!(matches!(model.decision(rows(1, 2, 4).view()), Err(ScorerError::Dimension { expected: 3, got: 4 })));
    assert!(matches!(model.decision(bad.view()), Err(ScorerError::NonFiniteFeature { row: 7, column: 2 })));
}

#[test]
fn degenerate_rows_have_right_answers() {
    // Constant rows are uninformative: the odds are those of the classes.
    let constant = Array2::from_elem((8, 2), 0.1f32);
    let labels: Vec<bool> = (0..8).map(|at| at < 2).collect();
    for (class_weight, odds) in [(ClassWeight::Equal, (2.0f64 / 6.0).ln()), (ClassWeight::Balanced, 0.0)] {
        let options = LogisticOptions { class_weight, ..LogisticOptions::default() };
        let model = fit(&constant, &labels, options).unwrap();
        assert!((model.decision(constant.view()).unwrap()[0] - odds).abs() < 1e-6, "{class_weight}");
    }
    // Separable rows have a finite solution for any penalty.
    let separable = Array2::from_shape_fn((20, 1), |(i, _)| i as f32);
    let labels: Vec<bool> = (0..20).map(|at| at >= 10).collect();
    for c in [1e-6, 1.0, 1e6, 1e12] {
        let model = fit(&separable, &labels, LogisticOptions { c, ..LogisticOptions::default() }).unwrap();
        let decision = model.decision(separable.view()).unwrap();
        assert!(decision.iter().zip(&labels).all(|(odds, label)| odds.is_finite() && (*odds > 0.0) == *label), "{c}");
    }
}
