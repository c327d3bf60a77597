//! Kernel densities, histograms and the likelihoods of Gaussians, against SciPy, scikit-learn and PyOD on the numbers
//! of `fixtures/gen_density.py`, and at their limits.

use ndarray::{Array2, array};
use nomaly_scorers::histogram::{HistogramOptions, Histograms};
use nomaly_scorers::kde::{Bandwidth, KdeOptions, KernelDensity};
use nomaly_scorers::{SCORERS, Scorer, ScorerError};
use nomaly_settings::{Assignments, Auto};
use serde_json::Value;

use crate::determinism::check_determinism;
use crate::hostile::check_tampering;
use crate::support::{assert_close, queries, refused_setting, rows};

/// Both sides compute in f64; what differs is the order of additions.
const DOUBLE: f64 = 1e-9;

/// Exponentials of kernels are summed in single precision; scikit-learn's KernelDensity stops at a relative 1e-8.
const SUMMED: f64 = 1e-6;

fn fixture(part: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../fixtures/density.json")).unwrap();
    all[part].clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn size(part: &Value) -> (u64, usize, usize) {
    let whole = |name: &str| part[name].as_u64().unwrap();
    (whole("seed"), whole("rows") as usize, whole("dim") as usize)
}

fn fit(name: &str, params: &Assignments, rows: &Array2<f32>) -> Result<Box<dyn Scorer>, ScorerError> {
    SCORERS.get(name).unwrap().fit(params, rows.view())
}

fn log_likelihood(name: &str, params: &Assignments, rows: &Array2<f32>, queries: &Array2<f32>) -> Vec<f64> {
    fit(name, params, rows).unwrap().log_likelihood(queries.view()).unwrap()
}

#[test]
fn kernel_densities_agree_with_scipy_and_scikit_learn() {
    let fixture = fixture("kernels");
    let (seed, n, dim) = size(&fixture);
    let (rows, mut queries) = (rows(seed, n, dim), queries(seed, dim));
    queries.row_mut(6).mapv_inplace(|value| value + 30.0);
    for bandwidth in ["scott", "silverman", "0.35"] {
        for (shape, want) in fixture[bandwidth].as_object().unwrap() {
            let params = Assignments::new().with("bandwidth", bandwidth).with("shape", shape);
            let found = log_likelihood("kde", &params, &rows, &queries);
            assert_close(&found, &numbers(want), SUMMED, &format!("{params:?}"));
            let scores = fit("kde", &params, &rows).unwrap().score(queries.view()).unwrap();
            assert!(scores.iter().zip(&found).all(|(score, log)| *score == -log));
        }
    }
}

#[test]
fn histograms_agree_with_pyod() {
    let fixture = fixture("histograms");
    let (seed, n, dim) = size(&fixture);
    let rows = rows(seed, n, dim);
    for case in fixture["cases"].as_array().unwrap() {
        let params = Assignments::new().with("bins", &case["bins"]).with("alpha", &case["alpha"]);
        let queries: Vec<f32> = numbers(&case["queries"]).into_iter().map(|value| value as f32).collect();
        let queries = Array2::from_shape_vec((queries.len() / dim, dim), queries).unwrap();
        let found = fit("histogram", &params, &rows).unwrap().score(queries.view()).unwrap();
        assert_close(&found, &numbers(&case["scores"]), DOUBLE, &format!("{params:?}"));
    }
    let auto = Histograms::fit(rows.view(), HistogramOptions::default()).unwrap();
    let want: Vec<usize> = numbers(&fixture["auto"]).into_iter().map(|bins| bins as usize).collect();
    assert_eq!(auto.bins(), want);
}

#[test]
fn likelihoods_of_gaussians_agree_with_scipy() {
    let fixture = fixture("gaussians");
    let (seed, n, dim) = size(&fixture);
    let (rows, queries) = (rows(seed, n, dim), queries(seed, dim));
    for (covariance, want) in fixture["full"].as_object().unwrap() {
        let found = log_likelihood("gaussian", &Assignments::new().with("covariance", covariance), &rows, &queries);
        assert_close(&found, &numbers(want), DOUBLE, covariance);
    }
    let params = Assignments::new().with("keep", "leading").with("variance", 0.9).with("covariance", "empirical");
    let found = log_likelihood("gaussian-pca", &params, &rows, &queries);
    // The variances are squares of singular values here and a covariance there.
    assert_close(&found, &numbers(&fixture["leading"]), 1e-7, "gaussian-pca");
}

#[test]
fn neither_threads_nor_company_matter_and_states_are_checked() {
    let (train, test) = (rows(1, 290, 35), rows(2, 70, 35));
    for (bandwidth, shape) in [("scott", "full"), ("silverman", "diagonal"), ("0.5", "full")] {
        let params = Assignments::new().with("bandwidth", bandwidth).with("shape", shape);
        check_determinism("kde", &params, &train, &test);
        check_tampering("kde", &params, &rows(7, 30, 4));
    }
    for bins in ["auto", "7"] {
        let params = Assignments::new().with("bins", bins);
        check_determinism("histogram", &params, &train, &test);
        check_tampering("histogram", &params, &rows(7, 30, 4));
    }
}

#[test]
fn kernel_densities_at_their_limits() {
    let few = rows(3, 5, 5);
    let singular = fit("kde", &Assignments::new(), &few).unwrap_err();
    assert!(singular.to_string().contains("use shape `diagonal`"), "{singular}");
    let mut constant = rows(3, 30, 4);
    constant.column_mut(1).fill(0.1);
    assert!(matches!(fit("kde", &Assignments::new(), &constant), Err(ScorerError::Numerical { .. })));
    for shape in ["diagonal", "isotropic"] {
        let params = Assignments::new().with("shape", shape);
        for train in [&few, &constant] {
            let scorer = fit("kde", &params, train).unwrap();
            let far = train.mapv(|value| value * 1e30);
            for rows in [train, &far] {
                assert!(scorer.score(rows.view()).unwrap().iter().all(|score| score.is_finite()), "{shape}");
            }
        }
        let same = fit("kde", &params, &Array2::from_elem((9, 3), 0.1));
        assert!(matches!(same, Err(ScorerError::ConstantRows { rows: 9 })));
        assert!(matches!(fit("kde", &params, &rows(3, 1, 4)), Err(ScorerError::TooFewRows { needed: 2, .. })));
    }
    // One row and a known width: the Gaussian itself.
    let one = KernelDensity::fit(
        array![[1.0f32, 2.0]].view(),
        KdeOptions { bandwidth: Bandwidth::Absolute(2.0), ..KdeOptions::default() },
    );
    let found = one.unwrap().log_likelihood(array![[1.0f32, 6.0]].view()).unwrap();
    assert_close(&found, &[-(2.0 * std::f64::consts::PI * 4.0).ln() - 2.0], 1e-12, "one row");
    for bandwidth in ["0", "-1", "NaN", "inf", "scot"] {
        let fit = fit("kde", &Assignments::new().with("bandwidth", bandwidth), &few);
        assert_eq!(refused_setting(fit), "bandwidth", "{bandwidth}");
    }
}

#[test]
fn histograms_at_their_limits() {
    // Two bins of 3 and 1 values over 0 … 1, and a constant column.
    let train = array![[0.0f32, 5.0], [0.1, 5.0], [0.2, 5.0], [1.0, 5.0]];
    let options = HistogramOptions { alpha: 0.5, bins: Auto::Value(2), tolerance: 0.5 };
    let scorer = Histograms::fit(train.view(), options).unwrap();
    let score = |first: f32, second: f32| scorer.score(array![[first, second]].view()).unwrap()[0];
    let of_density = |density: f64| -((density + 0.5) / 1.5).ln();
    for (first, second, want) in [
        (0.3, 5.0, of_density(1.5)),
        (0.7, 5.0, of_density(0.5)),
        // Within half of a bin of the range, and beyond.
        (-0.2, 5.0, of_density(1.5)),
        (1.2, 5.0, of_density(0.5)),
        (-0.3, 5.0, of_density(0.0)),
        (1.3, 5.0, of_density(0.0)),
        (-3e38, 5.0, of_density(0.0)),
        (0.3, 5.001, of_density(1.5) + of_density(0.0)),
    ] {
        assert!((score(first, second) - want).abs() < 1e-6, "{first} {second}: {} for {want}", score(first, second));
    }
    assert!(matches!(scorer.log_likelihood(train.view()), Err(ScorerError::NoDensity { .. })));
    assert_eq!(
        fit("histogram", &Assignments::new(), &rows(3, 1, 4)).unwrap().score(rows(3, 1, 4).view()).unwrap(),
        [0.0]
    );
    for (name, value) in [("alpha", "0"), ("alpha", "NaN"), ("bins", "0"), ("bins", "1000001"), ("tolerance", "1.5")] {
        assert_eq!(refused_setting(fit("histogram", &Assignments::new().with(name, value), &train)), name, "{value}");
    }
    for (name, options) in [
        ("alpha", HistogramOptions { alpha: 0.0, ..options }),
        ("bins", HistogramOptions { bins: Auto::Value(0), ..options }),
        ("tolerance", HistogramOptions { tolerance: f64::NAN, ..options }),
    ] {
        assert_eq!(refused_setting(Histograms::fit(train.view(), options)), name, "{options:?}");
    }
}
