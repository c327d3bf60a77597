//! Principal subspaces against scikit-learn, and at their limits.

use ndarray::{Array2, Axis};
use nomaly_scorers::subspace::{KeptComponents, PcaMonitor, PcaMonitorOptions, PrincipalComponents};
use nomaly_scorers::subspace::{RobustPca, RobustPcaOptions};
use nomaly_scorers::{SCORERS, Scorer, ScorerError, Tensor, Watch, restore};
use nomaly_settings::{Assignments, Auto};
use serde_json::Value;

use crate::determinism::check_determinism;
use crate::hostile::check_tampering;
use crate::support::{assert_close, queries, refused_setting, rows};

/// Both sides compute in f64. Eigenvalues of a scatter matrix and singular values of the rows differ by rounding times
/// the square of the condition, which is below 1e4 here.
const DOUBLE: f64 = 1e-8;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/subspace.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn fit(name: &str, params: &Assignments, rows: &Array2<f32>) -> Result<Box<dyn Scorer>, ScorerError> {
    SCORERS.get(name).unwrap().fit(params, rows.view())
}

fn pca_params(components: &str, score: &str, standardize: &str) -> Assignments {
    Assignments::new().with("components", components).with("score", score).with("standardize", standardize)
}

#[test]
fn principal_subspaces_agree_with_scikit_learn() {
    for set in fixture()["sets"].as_array().unwrap() {
        let whole = |name: &str| set[name].as_u64().unwrap();
        let (seed, n, dim) = (whole("seed"), whole("rows") as usize, whole("dim") as usize);
        let (rows, queries) = (rows(seed, n, dim), queries(seed, dim));
        for case in set["cases"].as_array().unwrap() {
            let text = |name: &str| case[name].as_str().unwrap();
            let params = pca_params(text("components"), text("score"), text("standardise"));
            let scorer = fit("pca", &params, &rows).unwrap();
            assert_eq!(scorer.state().config["kept"], case["kept"], "{params:?}");
            let scores = scorer.score(queries.view()).unwrap();
            assert_close(&scores, &numbers(&case["scores"]), DOUBLE, &format!("{n} rows, {params:?}"));
        }
    }
}

#[test]
fn principal_subspaces_are_deterministic_and_refuse_tampering() {
    let settings = [
        ("0.95", "reconstruction", "false"),
        ("2", "reconstruction", "true"),
        ("0.8", "last-components", "false"),
        ("0.8", "last-components", "true"),
    ];
    for (components, score, standardize) in settings {
        let params = pca_params(components, score, standardize);
        check_determinism("pca", &params, &rows(1, 1500, 20), &rows(2, 70, 20));
        check_determinism("pca", &params, &rows(3, 25, 40), &rows(4, 41, 40));
        check_tampering("pca", &params, &rows(7, 30, 4));
    }
    // Columns beyond the width of a lane's own scatter matrix.
    check_determinism("pca", &pca_params("3", "reconstruction", "false"), &rows(5, 520, 260), &rows(6, 3, 260));
}

#[test]
fn directions_that_are_not_of_length_one_and_counts_that_do_not_fit_are_refused() {
    let good = fit("pca", &Assignments::new(), &rows(7, 30, 4)).unwrap().state();
    let mut longer = good.clone();
    let Tensor { shape, .. } = &good.tensors["directions"];
    longer.tensors.insert("directions".into(), Tensor::f64(shape.clone(), vec![0.6; shape.iter().product()]));
    assert!(restore(&longer).unwrap_err().to_string().contains("has length 1.2, not 1"));
    for kept in [0, 4, 77] {
        let mut other = good.clone();
        other.config["kept"] = kept.into();
        assert!(restore(&other).is_err(), "{kept}");
    }
}

/// Ends of an iteration that stops at a relative 1e-7, reached by other decompositions.
const PURSUIT: f64 = 1e-5;

/// Every 17th entry, counted along the rows, raised by 20.
fn corrupted(mut rows: Array2<f32>) -> Array2<f32> {
    rows.iter_mut().step_by(17).for_each(|value| *value += 20.0);
    rows
}

fn robust_params(components: &str, lambda: &str) -> Assignments {
    Assignments::new().with("components", components).with("lambda", lambda)
}

#[test]
fn robust_subspaces_agree_with_the_algorithm_in_numpy() {
    for set in fixture()["sets"].as_array().unwrap() {
        let whole = |name: &str| set[name].as_u64().unwrap();
        let (seed, n, dim) = (whole("seed"), whole("rows") as usize, whole("dim") as usize);
        let (rows, queries) = (corrupted(rows(seed, n, dim)), queries(seed, dim));
        for case in set["robust"].as_array().unwrap() {
            let text = |name: &str| case[name].as_str().unwrap();
            let scorer = fit("robust-pca", &robust_params(text("components"), text("lambda")), &rows).unwrap();
            for name in ["kept", "rank"] {
                assert_eq!(scorer.state().config[name], case[name], "{name} of {case}");
            }
            let scores = scorer.score(queries.view()).unwrap();
            assert_close(&scores, &numbers(&case["scores"]), PURSUIT, &format!("{n} rows of {dim}, {case}"));
        }
    }
}

/// Rows in a plane of `dim` dimensions.
fn rows_in_a_plane(seed: u64, n: usize, dim: usize) -> Array2<f32> {
    let plane = rows(seed, n, 2);
    let along = |i: usize, j: usize| 3.0 * plane[[i, 0]] * (j as f32).cos() + plane[[i, 1]] * (0.7 * j as f32).sin();
    Array2::from_shape_fn((n, dim), |(i, j)| along(i, j))
}

#[test]
fn gross_errors_do_not_move_a_robust_subspace() {
    // With many rows the plane is recovered; with few the errors leave a trace.
    for (n, dim, most) in [(300, 30, 0.02), (30, 90, 1.0)] {
        let (clean, test) = (rows_in_a_plane(1, n, dim), rows_in_a_plane(2, 20, dim));
        let spoilt = corrupted(clean);
        let worst = |name: &str| {
            let scorer = fit(name, &Assignments::new().with("components", "2"), &spoilt).unwrap();
            scorer.score(test.view()).unwrap().into_iter().fold(0.0, f64::max)
        };
        let (robust, plain) = (worst("robust-pca"), worst("pca"));
        assert!(robust < most && plain > 20.0 * robust, "{n} rows of {dim}: {robust} and {plain}");
    }
}

#[test]
fn robust_subspaces_are_deterministic_and_refuse_tampering() {
    for (components, lambda) in [("0.95", "auto"), ("2", "0.4")] {
        let params = robust_params(components, lambda);
        check_determinism("robust-pca", &params, &corrupted(rows(1, 1500, 20)), &rows(2, 70, 20));
        check_determinism("robust-pca", &params, &corrupted(rows(3, 25, 40)), &rows(4, 41, 40));
        check_tampering("robust-pca", &params, &rows(7, 30, 4));
    }
}

#[test]
fn what_has_no_robust_subspace_is_refused() {
    let fitted = |rows: &Array2<f32>, options| RobustPca::fit(rows.view(), options, Watch::none());
    let default = RobustPcaOptions::default();
    assert!(matches!(fitted(&rows(1, 1, 3), default), Err(ScorerError::TooFewRows { needed: 2, got: 1, .. })));
    assert!(matches!(fitted(&Array2::ones((9, 3)), default), Err(ScorerError::ConstantRows { rows: 9 })));
    for lambda in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let fit = fitted(&rows(1, 9, 3), RobustPcaOptions { lambda: Auto::Value(lambda), ..default });
        assert_eq!(refused_setting(fit), "lambda", "{lambda}");
    }
    let error = fitted(&rows(1, 9, 3), RobustPcaOptions { lambda: Auto::Value(1e-3), ..default }).unwrap_err();
    assert!(error.to_string().contains("use a larger `lambda`"), "{error}");
    // Repeated rows, a constant column, a single column, and numbers near the limits of single precision.
    let odd = [
        Array2::from_shape_fn((40, 3), |(i, j)| if j == 1 { 5.0 } else { (i % 4 * (j + 1)) as f32 }),
        rows(1, 40, 1),
        rows(1, 40, 3) * 1e37,
        rows(1, 40, 3) * 1e-37,
    ];
    for rows in odd {
        let scores = fitted(&rows, default).unwrap().score(rows.view()).unwrap();
        assert!(scores.iter().all(|score| score.is_finite()), "{scores:?}");
    }
}

#[test]
fn projections_agree_with_scikit_learn() {
    for set in fixture()["sets"].as_array().unwrap() {
        let whole = |name: &str| set[name].as_u64().unwrap();
        let (seed, n, dim) = (whole("seed"), whole("rows") as usize, whole("dim") as usize);
        let (rows, queries) = (rows(seed, n, dim), queries(seed, dim));
        for case in set["projections"].as_array().unwrap() {
            let components = serde_json::from_str(case["components"].as_str().unwrap()).unwrap();
            let standardize = case["standardise"].as_bool().unwrap();
            let fitted = PrincipalComponents::fit(rows.view(), components, standardize, Watch::none()).unwrap();
            let found = fitted.project(queries.view()).unwrap();
            for (got, want) in found.outer_iter().zip(case["projections"].as_array().unwrap()) {
                let got: Vec<f64> = got.iter().map(|value| f64::from(*value)).collect();
                // Projections are given in single precision, some of them near zero.
                let (want, size) = (numbers(want), 1e-6 * dim as f64);
                assert_eq!(got.len(), want.len(), "{components}");
                assert!(got.iter().zip(&want).all(|(got, want)| (got - want).abs() < size), "{got:?} {want:?}");
            }
        }
    }
}

#[test]
fn projections_come_back_whole_and_do_not_depend_on_their_company() {
    let (train, test) = (rows(1, 300, 20), rows(2, 70, 20));
    for (components, standardize) in [(KeptComponents::Count(5), true), (KeptComponents::Share(0.9), false)] {
        let fitted = PrincipalComponents::fit(train.view(), components, standardize, Watch::none()).unwrap();
        let all = fitted.project(test.view()).unwrap();
        assert_eq!(all.dim(), (70, fitted.kept()));
        let again = PrincipalComponents::from_state(&fitted.state()).unwrap();
        assert_eq!(again.project(test.view()).unwrap(), all);
        assert_eq!(again.state(), fitted.state());
        for at in [0, 31, 69] {
            let alone = fitted.project(test.slice_axis(Axis(0), (at..at + 1).into())).unwrap();
            assert_eq!(alone.row(0), all.row(at));
        }
        let name = if standardize { "scale" } else { "centre" };
        for tensor in [Tensor::f64([20], vec![f64::NAN; 20]), Tensor::f64([19], vec![1.0; 19])] {
            let mut state = fitted.state();
            state.tensors.insert(name.into(), tensor);
            assert!(PrincipalComponents::from_state(&state).is_err(), "{name}");
        }
        let mut other = fitted.state();
        other.kind = "pca".into();
        assert!(PrincipalComponents::from_state(&other).is_err());
        let mut fewer = fitted.state();
        fewer.config["components"] = serde_json::json!({"count": 1});
        assert!(PrincipalComponents::from_state(&fewer).is_err());
    }
    let fit = |components, rows: &Array2<f32>| PrincipalComponents::fit(rows.view(), components, false, Watch::none());
    assert_eq!(fit(KeptComponents::Count(20), &train).unwrap().kept(), 20);
    assert_eq!(refused_setting(fit(KeptComponents::Count(21), &train)), "components");
    // Three rows span a plane, whatever is asked for.
    assert_eq!(fit(KeptComponents::Count(9), &rows(1, 3, 20)).unwrap().kept(), 2);
    let constant = fit(KeptComponents::Count(1), &Array2::ones((4, 3)));
    assert!(matches!(constant, Err(ScorerError::ConstantRows { rows: 4 })));
    let wrong = fit(KeptComponents::Count(3), &train).unwrap().project(rows(1, 2, 19).view()).unwrap_err();
    assert!(matches!(wrong, ScorerError::Dimension { expected: 20, got: 19 }));
    let stop = || true;
    let cancelled = PrincipalComponents::fit(train.view(), KeptComponents::Count(2), false, Watch::new(&stop));
    assert!(matches!(cancelled, Err(ScorerError::Cancelled)));
}

#[test]
fn components_out_of_range_are_refused() {
    let train = rows(1, 30, 5);
    for components in ["0", "1.0", "-1", "5", "6", "NaN", "inf", "many"] {
        let fit = fit("pca", &Assignments::new().with("components", components), &train);
        assert_eq!(refused_setting(fit), "components", "{components}");
    }
    let options = PcaMonitorOptions { components: KeptComponents::Share(1.0), ..PcaMonitorOptions::default() };
    assert_eq!(refused_setting(PcaMonitor::fit(train.view(), options, Watch::none())), "components");
    let stop = || true;
    let cancelled = PcaMonitor::fit(train.view(), PcaMonitorOptions::default(), Watch::new(&stop));
    assert!(matches!(cancelled, Err(ScorerError::Cancelled)));
}

#[test]
fn degenerate_rows_have_right_answers_or_errors() {
    for n in [9, 3] {
        let constant = fit("pca", &Assignments::new(), &Array2::from_elem((n, 4), 0.1f32)).unwrap_err();
        assert!(matches!(constant, ScorerError::ConstantRows { .. }), "{constant}");
    }
    let one = fit("pca", &Assignments::new(), &rows(1, 1, 4)).unwrap_err();
    assert!(matches!(one, ScorerError::TooFewRows { needed: 2, got: 1, .. }), "{one}");

    // A single column leaves nothing but the distance from the mean.
    let column = fit("pca", &Assignments::new(), &ndarray::array![[1.0f32], [3.0], [5.0]]).unwrap();
    assert_eq!(column.score(ndarray::array![[3.0f32], [10.0]].view()).unwrap(), [0.0, 7.0]);

    // Two rows span a line, whatever the columns.
    let two = fit("pca", &Assignments::new(), &ndarray::array![[0.0f32, 0.0, 1.0], [2.0, 0.0, 1.0]]).unwrap();
    assert_close(&two.score(ndarray::array![[9.0f32, 3.0, 5.0]].view()).unwrap(), &[5.0], 1e-12, "two rows");

    // A change in a constant column counts, standardized or not.
    let mut train = rows(6, 40, 6);
    train.column_mut(2).fill(0.1);
    for standardize in ["true", "false"] {
        let scorer = fit("pca", &pca_params("0.95", "reconstruction", standardize), &train).unwrap();
        let mut test = train.slice_axis(Axis(0), (0..1).into()).to_owned();
        let before = scorer.score(test.view()).unwrap()[0];
        test[[0, 2]] = 2.1;
        let after = scorer.score(test.view()).unwrap()[0];
        assert_close(&[after], &[before.hypot(2.0)], 1e-6, standardize);
        // The last components ignore it, because rows never varied there.
        let last = fit("pca", &pca_params("0.95", "last-components", standardize), &train).unwrap();
        let scores = last.score(train.view()).unwrap();
        assert!(scores.iter().all(|score| *score < 10.0), "{scores:?}");
    }

    // Rows of a line have a single component, which is then the last one.
    let line = Array2::from_shape_fn((8, 3), |(i, j)| (i * (j + 1)) as f32);
    let last = fit("pca", &pca_params("0.5", "last-components", "false"), &line).unwrap();
    assert_eq!(last.state().config["kept"], 0);
    assert_eq!(refused_setting(fit("pca", &pca_params("1", "last-components", "false"), &line)), "components");
}
