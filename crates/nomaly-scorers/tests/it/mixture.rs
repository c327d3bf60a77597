//! Mixtures of Gaussians, against scikit-learn on the numbers of `fixtures/gen_density.py`, and at their limits.

use ndarray::{Array1, Array2, Array3};
use nomaly_scorers::mixture::{Covariances, Mixture, MixtureCovariance, MixtureOptions, MixtureStart};
use nomaly_scorers::{SCORERS, Scorer, ScorerError, Watch};
use nomaly_settings::{Assignments, Auto};
use serde_json::Value;

use crate::support::{Lcg, assert_close, groups, queries, refused_setting, rows};

/// Both sides take the same steps in f64. Sums are added up in another order here, and covariances are taken about the
/// means of the step before, which costs some digits where means move far.
const STEPS: f64 = 1e-8;

fn fixture() -> Value {
    let all: Value = serde_json::from_str(include_str!("../fixtures/density.json")).unwrap();
    all["mixtures"].clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn flat(covariances: &Covariances) -> Vec<f64> {
    match covariances {
        Covariances::Full(all) => all.iter().copied().collect(),
        Covariances::Diagonal(all) | Covariances::Tied(all) => all.iter().copied().collect(),
        Covariances::Spherical(all) => all.to_vec(),
    }
}

/// A start of three components at the first rows.
fn start(covariance: MixtureCovariance, rows: &Array2<f32>) -> Mixture {
    let dim = rows.ncols();
    let scale = [0.5, 1.0, 1.5];
    let covariances = match covariance {
        MixtureCovariance::Full => {
            Covariances::Full(Array3::from_shape_fn(
                (3, dim, dim),
                |(component, i, j)| {
                    if i == j { scale[component] } else { 0.0 }
                },
            ))
        }
        MixtureCovariance::Diagonal => Covariances::Diagonal(Array2::from_shape_fn((3, dim), |at| scale[at.0])),
        MixtureCovariance::Tied => Covariances::Tied(Array2::eye(dim)),
        MixtureCovariance::Spherical => Covariances::Spherical(Array1::from(scale.to_vec())),
    };
    let means = Array2::from_shape_fn((3, dim), |at| f64::from(rows[at]));
    Mixture::from_parameters(vec![0.5, 0.3, 0.2], means, covariances).unwrap()
}

fn check(mixture: &Mixture, want: &Value, rows: &Array2<f32>, queries: &Array2<f32>, what: &str) {
    assert_eq!(mixture.iterations(), want["iterations"].as_u64().unwrap(), "{what}");
    assert_close(mixture.weights(), &numbers(&want["weights"]), STEPS, &format!("{what}: weights"));
    let means: Vec<f64> = mixture.means().iter().copied().collect();
    assert_close(&means, &numbers(&want["means"]), STEPS, &format!("{what}: means"));
    assert_close(&flat(mixture.covariances()), &numbers(&want["covariances"]), STEPS, &format!("{what}: covariances"));
    let log_likelihood = mixture.log_likelihood(queries.view()).unwrap();
    assert_close(&log_likelihood, &numbers(&want["log_likelihood"]), STEPS, &format!("{what}: log-likelihood"));
    let scores = mixture.score(queries.view()).unwrap();
    assert!(scores.iter().zip(&log_likelihood).all(|(score, log)| *score == -log), "{what}");
    let shares: Vec<f64> = mixture.responsibilities(queries.view()).unwrap().iter().copied().collect();
    assert_close(&shares, &numbers(&want["responsibilities"]), STEPS, &format!("{what}: responsibilities"));
    let criteria = [mixture.bic(rows.view()).unwrap(), mixture.aic(rows.view()).unwrap()];
    let wanted = ["bic", "aic"].map(|name| want[name].as_f64().unwrap());
    assert_close(&criteria, &wanted, STEPS, &format!("{what}: criteria"));
}

#[test]
fn steps_agree_with_scikit_learn() {
    let fixture = fixture();
    let whole = |name: &str| fixture[name].as_u64().unwrap();
    let (seed, n, dim, k) =
        (whole("seed"), whole("rows") as usize, whole("dim") as usize, whole("components") as usize);
    let (rows, queries) = (groups(rows(seed, n, dim), k), groups(queries(seed, dim), k));
    let first: Vec<f64> = queries.row(0).iter().copied().map(f64::from).collect();
    assert_close(&first, &numbers(&fixture["queries_first_row"]), 1e-15, "queries of the generator");
    let mut lcg = Lcg(77);
    let mut shares = Array2::from_shape_simple_fn((n, k), || lcg.uniform() + 0.1);
    shares.outer_iter_mut().for_each(|mut row| row /= row.sum());

    for case in fixture["cases"].as_array().unwrap() {
        let name = case["covariance"].as_str().unwrap();
        let covariance: MixtureCovariance = serde_json::from_value(name.into()).unwrap();
        let options = MixtureOptions {
            covariance,
            floor: fixture["floor"].as_f64().unwrap(),
            max_iterations: 200,
            tolerance: 1e-4,
            ..MixtureOptions::default()
        };
        let begin = start(covariance, &rows);
        let settled = Mixture::fit_from(rows.view(), MixtureStart::Mixture(&begin), options, Watch::none()).unwrap();
        assert!(settled.converged());
        check(&settled, &case["from_parameters"], &rows, &queries, name);

        let four = MixtureOptions { max_iterations: 4, tolerance: 0.0, ..options };
        let begin = MixtureStart::Responsibilities(shares.view());
        let shared = Mixture::fit_from(rows.view(), begin, four, Watch::none()).unwrap();
        assert!(!shared.converged());
        check(&shared, &case["from_responsibilities"], &rows, &queries, name);

        // Random starts differ; the best of several is as likely as the best of scikit-learn's to a hundredth of a nat.
        let options = MixtureOptions { components: Auto::Value(k), starts: 5, tolerance: 1e-3, ..options };
        let free = Mixture::fit(rows.view(), options, Watch::none()).unwrap();
        let want = case["free"].as_f64().unwrap();
        assert!(free.mean_log_likelihood() > want - 0.01, "{name}: {} for {want}", free.mean_log_likelihood());
    }
}

#[test]
fn bic_finds_the_number_of_groups() {
    // Groups far apart, each almost round.
    let mut lcg = Lcg(3);
    let rows = Array2::from_shape_fn((600, 3), |(i, j)| {
        let noise: f64 = (0..6).map(|_| lcg.uniform()).sum();
        (noise + if i % 4 == j + 1 { 20.0 } else { 0.0 }) as f32
    });
    for covariance in [MixtureCovariance::Full, MixtureCovariance::Diagonal, MixtureCovariance::Tied] {
        let options = MixtureOptions { covariance, ..MixtureOptions::default() };
        let mixture = Mixture::fit(rows.view(), options, Watch::none()).unwrap();
        assert_eq!(mixture.components(), 4, "{covariance}");
        assert!(mixture.weights().iter().all(|weight| (weight - 0.25).abs() < 1e-3), "{:?}", mixture.weights());
    }
}

#[test]
fn units_do_not_matter() {
    let train = groups(rows(8, 200, 4), 2);
    let fit = |scale: f32| {
        let scaled = train.mapv(|value| value * scale);
        let params = Assignments::new().with("components", 2).with("floor", 0.01);
        SCORERS.get("gmm").unwrap().fit(&params, scaled.view()).unwrap().score(scaled.view()).unwrap()
    };
    // A power of two scales without rounding, and moves every log-density of 4 dimensions by 4 ln scale.
    let (one, large) = (fit(1.0), fit(1024.0));
    let moved: Vec<f64> = one.iter().map(|score| score + 4.0 * 1024f64.ln()).collect();
    assert_close(&large, &moved, 1e-9, "scores");
}

#[test]
fn neither_threads_nor_company_matter_and_states_are_checked() {
    for covariance in ["full", "diagonal", "tied", "spherical"] {
        for components in if covariance == "full" { &["auto", "3"][..] } else { &["3"] } {
            let params = Assignments::new().with("covariance", covariance).with("components", components);
            let (train, test) = (groups(rows(1, 300, 35), 3), groups(rows(2, 70, 35), 3));
            crate::determinism::check_determinism("gmm", &params, &train, &test);
            crate::hostile::check_tampering("gmm", &params, &groups(rows(7, 60, 4), 3));
        }
    }
}

#[test]
fn few_rows_and_copies_are_scored() {
    for covariance in ["full", "diagonal", "tied", "spherical"] {
        let params = Assignments::new().with("covariance", covariance);
        for (n, dim, components) in [(2, 5, "auto"), (7, 40, "3"), (7, 40, "auto"), (30, 3, "30")] {
            let params = params.clone().with("components", components);
            let train = rows(4, n, dim);
            let scorer = SCORERS.get("gmm").unwrap().fit(&params, train.view()).unwrap();
            let far = train.mapv(|value| value * 1e30);
            for rows in [&train, &far] {
                assert!(scorer.score(rows.view()).unwrap().iter().all(|score| score.is_finite()), "{params:?}");
            }
        }
        // Three distinct rows, and a constant column.
        let copies = Array2::from_shape_fn((40, 3), |(i, j)| if j == 2 { 0.1 } else { (i % 3 * (j + 2)) as f32 });
        let scorer = SCORERS.get("gmm").unwrap().fit(&params.with("components", 5), copies.view()).unwrap();
        assert_eq!(scorer.state().tensors["weights"].shape, [3]);
        assert!(scorer.score(copies.view()).unwrap().iter().all(|score| score.is_finite()));
    }
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    let train = rows(4, 12, 3);
    let fit = |options: MixtureOptions| Mixture::fit(train.view(), options, Watch::none());
    let default = MixtureOptions::default();
    for (name, options) in [
        ("components", MixtureOptions { components: Auto::Value(0), ..default }),
        ("floor", MixtureOptions { floor: f64::NAN, ..default }),
        ("floor", MixtureOptions { floor: -1.0, ..default }),
        ("max_iterations", MixtureOptions { max_iterations: 0, ..default }),
        ("starts", MixtureOptions { starts: 0, ..default }),
        ("tolerance", MixtureOptions { tolerance: f64::INFINITY, ..default }),
    ] {
        assert_eq!(refused_setting(fit(options)), name, "{options:?}");
    }
    let many = fit(MixtureOptions { components: Auto::Value(13), ..default }).unwrap_err();
    assert_eq!(many.to_string(), "a mixture of so many components needs at least 13 rows, but there are 12");
    let singular = MixtureOptions { components: Auto::Value(6), floor: 0.0, ..default };
    let singular = fit(singular).unwrap_err();
    assert!(singular.to_string().contains("raise `floor`"), "{singular}");
    let same = Array2::from_elem((9, 4), 0.1f32);
    let same = Mixture::fit(same.view(), default, Watch::none());
    assert!(matches!(same, Err(ScorerError::ConstantRows { rows: 9 })));
    let stopped = Mixture::fit(train.view(), default, Watch::new(&|| true));
    assert!(matches!(stopped, Err(ScorerError::Cancelled)));

    let mixture = Mixture::fit(train.view(), default, Watch::none()).unwrap();
    let other = rows(4, 12, 4);
    let wrong = Mixture::fit_from(other.view(), MixtureStart::Mixture(&mixture), default, Watch::none());
    assert!(matches!(wrong, Err(ScorerError::Dimension { expected: 3, got: 4 })));
    for shares in [Array2::zeros((12, 2)), Array2::from_elem((11, 2), 0.5), Array2::from_elem((12, 2), f64::NAN)] {
        let start = MixtureStart::Responsibilities(shares.view());
        let fit = Mixture::fit_from(train.view(), start, default, Watch::none());
        assert_eq!(refused_setting(fit), "responsibilities");
    }
    for weights in [vec![], vec![0.5, 0.6], vec![1.0], vec![1.5, -0.5], vec![f64::NAN, 1.0]] {
        let means = Array2::zeros((2, 2));
        let built = Mixture::from_parameters(weights.clone(), means, Covariances::Tied(Array2::eye(2)));
        assert_eq!(refused_setting(built), "weights", "{weights:?}");
    }
}
