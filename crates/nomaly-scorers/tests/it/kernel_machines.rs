//! Kernel machines against scikit-learn and an interior-point solver, and on difficult rows.

use ndarray::{Array2, Axis, concatenate};
use nomaly_scorers::kernel_machines::{
    Boundary, Gamma, KernelKind, KernelOptions, SupportVectorMachine, SupportVectorOptions,
};
use nomaly_scorers::{SCORERS, Scorer, ScorerError, Watch};
use nomaly_settings::Assignments;
use serde_json::Value;

use crate::determinism::check_determinism;
use crate::hostile::check_tampering;
use crate::support::{assert_close, queries, refused_setting, rows};

/// Relative to the size of a score: kernel values are rounded to `f32` on both sides, and an error in one of them moves
/// all coefficients.
const SINGLE: f64 = 2e-5;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/kernel_machines.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The rows and queries of a set, checked against the first of each in the fixture.
fn data(set: &Value) -> (Array2<f32>, Array2<f32>) {
    let whole = |name: &str| set[name].as_u64().unwrap();
    let (seed, n, dim) = (whole("seed"), whole("rows") as usize, whole("dim") as usize);
    let (rows, queries) = (rows(seed, n, dim), queries(seed, dim));
    let first = |of: &Array2<f32>| of.row(0).iter().copied().map(f64::from).collect::<Vec<_>>();
    assert_close(&first(&rows), &numbers(&set["first_row"]), 1e-15, "rows of the generator");
    assert_close(&first(&queries), &numbers(&set["queries_first_row"]), 1e-15, "queries of the generator");
    (rows, queries)
}

/// The numbers and names of a case as parameters.
fn params(case: &Value, names: &[&str]) -> Assignments {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    names.iter().filter_map(|name| case.get(name).map(|value| (*name, text(value)))).collect()
}

fn scores(name: &str, params: &Assignments, rows: &Array2<f32>, queries: &Array2<f32>) -> Vec<f64> {
    SCORERS.get(name).unwrap().fit(params, rows.view()).unwrap().score(queries.view()).unwrap()
}

/// Asserts that two lists agree to a share of `scale`.
#[track_caller]
fn assert_near(got: &[f64], want: &[f64], scale: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= SINGLE * scale, "{what}: number {at} is {got}, expected {want}");
    }
}

const SETTINGS: [&str; 5] = ["kernel", "gamma", "degree", "coef0", "nu"];

#[test]
fn one_class_svm_agrees_with_scikit_learn() {
    for set in fixture()["sets"].as_array().unwrap() {
        let (rows, queries) = data(set);
        for case in set["one_class_svm"].as_array().unwrap() {
            let params = params(case, &SETTINGS).with("tolerance", 1e-7);
            let found = scores("one-class-svm", &params, &rows, &queries);
            let offset = case["offset"].as_f64().unwrap();
            assert_near(&found, &numbers(&case["scores"]), offset, &format!("{params:?}"));
        }
    }
}

#[test]
fn svdd_agrees_with_an_interior_point_solver() {
    for set in fixture()["sets"].as_array().unwrap() {
        let (rows, queries) = data(set);
        for case in set["svdd"].as_array().unwrap() {
            let params = params(case, &SETTINGS).with("tolerance", 1e-7);
            let found = scores("svdd", &params, &rows, &queries);
            let want = numbers(&case["scores"]);
            let largest = want.iter().fold(case["radius"].as_f64().unwrap(), |all, score| all.max(score.abs()));
            assert_near(&found, &want, largest, &format!("{params:?}"));
        }
    }
}

fn fit_machine(rows: &Array2<f32>, boundary: Boundary, options: SupportVectorOptions) -> SupportVectorMachine {
    SupportVectorMachine::fit(rows.view(), boundary, options, Watch::none()).unwrap()
}

#[test]
fn the_ball_and_the_hyperplane_are_one_where_all_rows_have_length_one() {
    let (train, test) = (rows(31, 200, 6), queries(31, 6));
    let options = SupportVectorOptions { nu: 0.13, tolerance: 1e-7, ..SupportVectorOptions::default() };
    let plane = fit_machine(&train, Boundary::Hyperplane, options);
    let ball = fit_machine(&train, Boundary::Ball, options);
    let scale = 2.0 / (0.13 * 200.0);
    let scaled: Vec<f64> = plane.score(test.view()).unwrap().iter().map(|score| scale * score).collect();
    assert_near(&ball.score(test.view()).unwrap(), &scaled, scale * plane.offset(), "rbf");

    let linear = KernelOptions { kernel: KernelKind::Linear, ..KernelOptions::default() };
    let options = SupportVectorOptions { kernel: linear, ..options };
    let plane = fit_machine(&train, Boundary::Hyperplane, options).score(test.view()).unwrap();
    let ball = fit_machine(&train, Boundary::Ball, options).score(test.view()).unwrap();
    let gap = plane.iter().zip(&ball).map(|(plane, ball)| (scale * plane - ball).abs()).fold(0.0, f64::max);
    assert!(gap > 0.1, "linear: {gap}");
}

#[test]
fn a_share_of_at_most_nu_lies_outside() {
    let train = rows(32, 1500, 8);
    for nu in [0.02, 0.1, 0.6] {
        let options = SupportVectorOptions { nu, ..SupportVectorOptions::default() };
        let machine = fit_machine(&train, Boundary::Hyperplane, options);
        // Rows on the boundary count as inside; the solver's tolerance is absolute.
        let outside = machine.score(train.view()).unwrap().iter().filter(|score| **score > 2e-3).count();
        assert!(outside as f64 <= nu * 1500.0, "{nu}: {outside} outside");
        assert!(machine.support_vectors() as f64 >= nu * 1500.0 - 1e-9, "{nu}: {}", machine.support_vectors());
        assert!(outside as f64 > 0.2 * nu * 1500.0, "{nu}: {outside} outside");
    }
}

/// More rows than one task scans, a cache of a few rows, and more steps than between two shrinkings.
#[test]
fn neither_the_cache_nor_shrinking_changes_the_minimum() {
    let (train, test) = (rows(33, 2500, 3), queries(33, 3));
    let fit = |cache: usize, tolerance: f64| {
        let kernel = KernelOptions { gamma: Gamma::Value(5.0), ..KernelOptions::default() };
        let options = SupportVectorOptions { kernel, nu: 0.4, tolerance, cache };
        fit_machine(&train, Boundary::Hyperplane, options)
    };
    let (large, small) = (fit(200, 1e-5), fit(0, 1e-5));
    assert_eq!(large.state(), small.state());
    // Optimality by definition: inside, on the boundary or outside, depending on the coefficient.
    let state = large.state();
    let coefficients = match &state.tensors["coefficients"].data {
        nomaly_scorers::TensorData::F64(data) => data.clone(),
        other => panic!("{other:?}"),
    };
    let support = match &state.tensors["vectors"].data {
        nomaly_scorers::TensorData::F32(data) => Array2::from_shape_vec((coefficients.len(), 3), data.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    assert!((coefficients.iter().sum::<f64>() - 1000.0).abs() < 1e-6);
    // The sum over a thousand vectors is in f32 by parts.
    let slack = 1e-5 + SINGLE * large.offset();
    for (score, coefficient) in large.score(support.view()).unwrap().iter().zip(&coefficients) {
        assert!(*score >= -slack, "a support vector inside: {score}");
        assert!(*coefficient == 1.0 || *score <= slack, "{coefficient} outside: {score}");
    }
    let inside = large.score(train.view()).unwrap().iter().filter(|score| **score <= slack).count();
    assert!(inside >= 1500, "{inside}");
    let coarse = fit(200, 1e-3);
    assert_near(&coarse.score(test.view()).unwrap(), &large.score(test.view()).unwrap(), 1e-2 / SINGLE, "tolerance");
}

#[test]
fn determinism_and_tampering() {
    let (train, test) = (rows(34, 150, 7), rows(35, 23, 7));
    for name in ["one-class-svm", "svdd"] {
        let plain = Assignments::new();
        let far = Assignments::new().with("gamma", 1e5);
        let linear = Assignments::new().with("kernel", "linear");
        let polynomial = Assignments::new().with("kernel", "polynomial").with("coef0", 0.5).with("nu", 0.3);
        for params in [plain, far, linear, polynomial] {
            check_determinism(name, &params, &train, &test);
            check_tampering(name, &params, &rows(36, 30, 3));
        }
    }
    // Enough rows for several tasks in each step.
    let params = Assignments::new().with("nu", 0.002).with("tolerance", 0.1);
    check_determinism("one-class-svm", &params, &rows(37, 33_000, 2), &rows(38, 5, 2));
}

#[test]
fn rows_without_spread_and_rows_that_repeat() {
    for name in ["one-class-svm", "svdd"] {
        let fit = |params: &Assignments, rows: &Array2<f32>| SCORERS.get(name).unwrap().fit(params, rows.view());
        for kernel in ["rbf", "linear", "polynomial"] {
            for nu in ["1e-9", "0.05", "1"] {
                let params = Assignments::new().with("kernel", kernel).with("nu", nu);
                for train in [
                    Array2::from_elem((20, 3), 0.1f32),
                    Array2::zeros((20, 3)),
                    rows(40, 1, 3),
                    concatenate![Axis(0), rows(41, 10, 3), rows(41, 10, 3), rows(41, 10, 3)],
                ] {
                    let scorer = fit(&params, &train).unwrap();
                    let mut test = concatenate![Axis(0), train, rows(42, 4, 3)];
                    test[[0, 0]] = f32::MAX;
                    let found = scorer.score(test.view()).unwrap();
                    assert!(found.iter().all(|score| score.is_finite()), "{name} {params:?}: {found:?}");
                }
            }
        }
        for bad in ["0", "1.5", "-0.1", "NaN"] {
            let error = fit(&Assignments::new().with("nu", bad), &rows(43, 5, 2)).unwrap_err();
            assert_eq!(error.to_string(), format!("setting `nu` is `{bad}`; it takes a number above 0 and at most 1"));
        }
        for (setting, bad) in [("gamma", "0"), ("gamma", "inf"), ("tolerance", "0"), ("degree", "17"), ("coef0", "-1")]
        {
            let refused = refused_setting(fit(&Assignments::new().with(setting, bad), &rows(43, 5, 2)));
            assert_eq!(refused, setting, "{name} {bad}");
        }
        let params = Assignments::new().with("kernel", "polynomial").with("gamma", 1);
        let error = fit(&params, &Array2::from_elem((3, 2), 1e20)).unwrap_err();
        assert!(matches!(error, ScorerError::Numerical { .. }), "{error}");
    }
    // Tripling every row changes only the scale of the scores.
    let once = rows(41, 60, 3);
    let thrice = concatenate![Axis(0), once, once, once];
    let params = Assignments::new().with("nu", 0.31).with("tolerance", 1e-7).with("gamma", 0.4);
    let test = queries(41, 3);
    let scaled: Vec<f64> = scores("one-class-svm", &params, &once, &test).iter().map(|score| 3.0 * score).collect();
    assert_near(&scores("one-class-svm", &params, &thrice, &test), &scaled, 60.0, "three times");
}

#[test]
fn a_far_outlier_and_a_large_gamma() {
    let mut train = rows(44, 200, 4);
    train.row_mut(17).fill(1e8);
    let found = scores("one-class-svm", &Assignments::new().with("gamma", 0.5), &train, &train);
    assert!(found.iter().all(|score| score.is_finite()));
    let largest = found.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    assert!(found[17] == largest, "{} of {largest}", found[17]);
    // If all rows are orthogonal in the feature space, all rows of the fit score the same, and any other row scores
    // higher.
    let train = rows(45, 50, 4);
    let params = Assignments::new().with("gamma", 1e12).with("nu", 0.5).with("tolerance", 1e-9);
    let found = scores("one-class-svm", &params, &train, &concatenate![Axis(0), train, rows(46, 1, 4)]);
    assert!(found[..50].iter().all(|score| score.abs() < 1e-6), "{found:?}");
    assert!((found[50] - 0.5).abs() < 1e-6, "{}", found[50]);
}

#[test]
fn a_fit_can_be_ended() {
    let train = rows(47, 300, 3);
    for name in ["one-class-svm", "svdd"] {
        let entry = SCORERS.get(name).unwrap();
        let result = entry.fit_watched(&Assignments::new(), train.view(), Watch::new(&|| true));
        assert!(matches!(result, Err(ScorerError::Cancelled)), "{name}");
    }
}

#[test]
fn kernel_pca_agrees_with_scikit_learn() {
    for set in fixture()["sets"].as_array().unwrap() {
        let (rows, queries) = data(set);
        for case in set["kernel_pca"].as_array().unwrap() {
            let params = params(case, &["components", "gamma"]);
            let found = scores("kernel-pca", &params, &rows, &queries);
            assert_near(&found, &numbers(&case["scores"]), 1.0, &format!("{params:?}"));
        }
    }
}

#[test]
fn kernel_pca_chooses_rows_by_the_seed_and_components_by_their_share() {
    let (train, test) = (rows(51, 300, 3), queries(51, 3));
    let fit = |params: Assignments| SCORERS.get("kernel-pca").unwrap().fit(&params, train.view()).unwrap();
    let with_seed = |seed: u64| fit(Assignments::new().with("max_rows", 60).with("seed", seed));
    assert_eq!(with_seed(1).state(), with_seed(1).state());
    assert_ne!(with_seed(1).state(), with_seed(2).state());
    assert_eq!(with_seed(1).state().tensors["rows"].shape, [60, 3]);
    let kept = |share: f64| fit(Assignments::new().with("components", share)).state().tensors["components"].shape[0];
    assert!(kept(0.5) < kept(0.9) && kept(0.9) < kept(0.99));
    // More components leave less.
    let (few, many) = (fit(Assignments::new().with("components", 3)), fit(Assignments::new().with("components", 9)));
    let (few, many) = (few.score(test.view()).unwrap(), many.score(test.view()).unwrap());
    assert!(few.iter().zip(&many).all(|(few, many)| few >= many) && few != many);
    // With as many chosen rows as there are rows, nothing is random.
    assert_eq!(fit(Assignments::new().with("seed", 1)).state(), fit(Assignments::new().with("seed", 2)).state());
}

#[test]
fn kernel_pca_with_the_linear_kernel_is_the_squared_distance_from_a_plane() {
    // Rows in the plane of the first two columns of three, and two points at known heights above it.
    let mut train = rows(52, 40, 3);
    train.column_mut(2).fill(1.5);
    let params = Assignments::new().with("kernel", "linear").with("components", 2);
    let found = scores("kernel-pca", &params, &train, &ndarray::array![[2.0, 4.0, 1.5], [2.0, 4.0, 3.5]]);
    // The kernel is a difference of squared lengths of about 25 here, in f32.
    assert!(found[0].abs() < 1e-4 && (found[1] - 4.0).abs() < 1e-4, "{found:?}");
}

#[test]
fn kernel_pca_is_deterministic_and_refuses_what_it_cannot_use() {
    let (train, test) = (rows(53, 130, 5), rows(54, 41, 5));
    let name = "kernel-pca";
    let linear = Assignments::new().with("kernel", "linear").with("components", 2);
    let polynomial = Assignments::new().with("kernel", "polynomial").with("coef0", 1).with("gamma", 0.1);
    for params in [Assignments::new(), Assignments::new().with("max_rows", 50), linear, polynomial] {
        check_determinism(name, &params, &train, &test);
        check_tampering(name, &params, &rows(55, 30, 3));
    }
    let fit = |params: &Assignments, rows: &Array2<f32>| SCORERS.get(name).unwrap().fit(params, rows.view());
    for (setting, bad) in [("components", "0"), ("components", "1.5"), ("components", "x"), ("max_rows", "1")] {
        assert_eq!(refused_setting(fit(&Assignments::new().with(setting, bad), &train)), setting, "{bad}");
    }
    let constant = fit(&Assignments::new(), &Array2::from_elem((9, 2), 0.1)).unwrap_err();
    assert!(matches!(constant, ScorerError::ConstantRows { rows: 9 }), "{constant}");
    let one = fit(&Assignments::new(), &rows(56, 1, 2)).unwrap_err();
    assert!(matches!(one, ScorerError::TooFewRows { needed: 2, got: 1, .. }), "{one}");
    // Duplicates, and a row at the end of the number range.
    let twice = concatenate![Axis(0), train, train];
    let mut far = test.clone();
    far.row_mut(0).fill(f32::MAX);
    for kernel in ["rbf", "linear", "polynomial"] {
        let found = scores(name, &Assignments::new().with("kernel", kernel).with("components", 3), &twice, &far);
        assert!(found.iter().all(|score| score.is_finite() && *score >= 0.0), "{kernel}: {found:?}");
    }
}
