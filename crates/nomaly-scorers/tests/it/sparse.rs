//! Sparse coding against scikit-learn, and on difficult rows.

use ndarray::{Array2, Axis, concatenate};
use nomaly_scorers::sparse::{BasisPursuit, SparseCoding, SparseOptions};
use nomaly_scorers::{SCORERS, Scorer, ScorerError, State, Tensor, Watch, restore};
use nomaly_settings::{Assignments, Auto};
use serde_json::Value;

use crate::determinism::check_determinism;
use crate::hostile::check_tampering;
use crate::support::{Lcg, assert_close, groups, refused_setting, rows};

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/sparse.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The atoms of `gen_sparse.py`: uniform numbers, scaled to unit length.
fn atoms(seed: u64, count: usize, dim: usize) -> Array2<f64> {
    let mut lcg = Lcg(seed);
    let mut atoms = Array2::from_shape_simple_fn((count, dim), || lcg.uniform() * 2.0 - 1.0);
    for mut atom in atoms.outer_iter_mut() {
        let norm = atom.dot(&atom).sqrt();
        atom.mapv_inplace(|value| value / norm);
    }
    atoms
}

#[test]
fn codes_are_those_of_the_lasso() {
    for case in fixture()["coding"].as_array().unwrap() {
        let whole = |name: &str| case[name].as_u64().unwrap();
        let (seed, n, dim) = (whole("seed"), whole("rows") as usize, whole("dim") as usize);
        let lambda = case["lambda"].as_f64().unwrap();
        let rows = rows(seed, n, dim).mapv(|value| f64::from(value) - 3.0);
        let atoms = atoms(seed + 100, whole("atoms") as usize, dim);
        let objectives = |codes: &Array2<f64>| -> Vec<f64> {
            let residuals = codes.dot(&atoms) - &rows;
            let squares = residuals.map_axis(Axis(1), |row| row.dot(&row));
            let sums = codes.map_axis(Axis(1), |code| code.mapv(f64::abs).sum());
            (0.5 * squares + lambda * sums).to_vec()
        };
        let want = numbers(&case["codes"]);

        // Scikit-learn's two solvers agree to 1e-6 between themselves.
        let exact = BasisPursuit::new(atoms.view(), lambda, 1e-9).unwrap().codes(rows.view(), Watch::none()).unwrap();
        assert_close(&objectives(&exact), &numbers(&case["objectives"]), 1e-8, "the least objectives");
        for (at, (got, want)) in exact.iter().zip(&want).enumerate() {
            assert!((got - want).abs() < 1e-5, "coefficient {at} of seed {seed} is {got}, expected {want}");
            assert!(*want != 0.0 || got.abs() < 1e-6, "coefficient {at} of seed {seed} is {got}, expected 0");
        }
        assert!(
            exact.iter().filter(|code| **code == 0.0).count() >= want.iter().filter(|code| **code == 0.0).count() / 2
        );

        // The objective is flat at its minimum, so an error in the code counts by its square.
        let scored = BasisPursuit::new(atoms.view(), lambda, 1e-4).unwrap().codes(rows.view(), Watch::none()).unwrap();
        assert_close(&objectives(&scored), &numbers(&case["objectives"]), 1e-4, "objectives at the scorer's tolerance");
    }
}

#[test]
fn dictionaries_are_as_good_as_those_of_scikit_learn() {
    for case in fixture()["learning"].as_array().unwrap() {
        let whole = |name: &str| case[name].as_u64().unwrap();
        let rows = rows(whole("seed"), whole("rows") as usize, whole("dim") as usize);
        let best = numbers(&case["mean_objectives"]).into_iter().fold(f64::INFINITY, f64::min);
        for seed in 0..3 {
            let options = SparseOptions {
                atoms: Auto::Value(whole("atoms") as usize),
                held_out: 0.01,
                lambda: case["lambda"].as_f64().unwrap(),
                seed,
                ..SparseOptions::default()
            };
            let fitted = SparseCoding::fit(rows.view(), options, Watch::none()).unwrap();
            let features = fitted.features(rows.view()).unwrap().mapv(f64::from);
            let objective = (0.5 * &features.column(0) + fitted.lambda() * &features.column(1)).mean().unwrap();
            // Another local minimum may be a little worse; three of the rows are not learned from.
            assert!(objective < 1.03 * best, "seed {seed}: {objective}, scikit-learn's is {best}");
            assert!(objective > 0.9 * best, "seed {seed}: {objective} is too good to be true");
        }
    }
}

#[test]
fn features_are_those_of_the_codes() {
    let train = groups(rows(51, 200, 6), 4);
    let test = rows(52, 40, 6);
    let fitted = SparseCoding::fit(train.view(), SparseOptions::default(), Watch::none()).unwrap();
    assert_eq!(fitted.atoms().dim(), (12, 6));
    let (codes, features) = (fitted.codes(test.view()).unwrap(), fitted.features(test.view()).unwrap());
    assert_eq!((codes.dim(), features.dim()), ((40, 12), (40, 2)));
    for ((row, code), features) in test.outer_iter().zip(codes.outer_iter()).zip(features.outer_iter()) {
        let restored = code.mapv(f64::from).dot(&fitted.atoms());
        let error: f64 = (0..6).map(|j| (f64::from(row[j]) - fitted.center()[j] - restored[j]).powi(2)).sum();
        let sparsity: f64 = code.iter().map(|value| f64::from(value.abs())).sum();
        // Codes and features are rounded to f32.
        assert_close(&[f64::from(features[0]), f64::from(features[1])], &[error, sparsity], 1e-4, "features");
    }
}

#[test]
fn the_score_is_the_gaussian_of_the_features_of_held_out_rows() {
    let (train, test) = (groups(rows(51, 200, 6), 4), rows(52, 40, 6));
    let options = SparseOptions { seed: 3, ..SparseOptions::default() };
    let fitted = SparseCoding::fit(train.view(), options, Watch::none()).unwrap();
    let held_out = SparseCoding::held_out_rows(&options, 200).unwrap();
    assert_eq!(held_out.len(), 60);
    assert!(held_out.is_sorted_by(|low, high| low < high));
    let learned_from = fitted.log_features(train.select(Axis(0), &held_out).view()).unwrap();
    let density = SCORERS.get("gaussian").unwrap().fit(&Assignments::new(), learned_from.view()).unwrap();
    let scores = density.score(fitted.log_features(test.view()).unwrap().view()).unwrap();
    assert_eq!(scores, fitted.score(test.view()).unwrap());
    assert!(SparseCoding::held_out_rows(&options, 4).is_err());
}

#[test]
fn rows_off_the_subspaces_of_normal_rows_stand_out() {
    // Normal rows are multiples of one of four directions and a little noise; the others have the same length.
    let mut lcg = Lcg(5);
    let directions = atoms(7, 8, 16);
    let mut stack = |n: usize, first: usize| {
        let mut rows = Array2::zeros((n, 16));
        for mut row in rows.outer_iter_mut() {
            let direction = directions.row(first + (lcg.uniform() * 4.0) as usize);
            let length = (1.0 + lcg.uniform()) * if lcg.uniform() < 0.5 { -4.0 } else { 4.0 };
            for (value, along) in row.iter_mut().zip(direction) {
                *value = (length * along + 0.1 * (lcg.uniform() - 0.5)) as f32;
            }
        }
        rows
    };
    let (train, normal, other) = (stack(400, 0), stack(100, 0), stack(100, 4));
    let scorer = SCORERS.get("sparse-coding").unwrap().fit(&Assignments::new().with("atoms", 6), train.view()).unwrap();
    let (normal, other) = (scorer.score(normal.view()).unwrap(), scorer.score(other.view()).unwrap());
    let wins: usize = other.iter().map(|high| normal.iter().filter(|low| *low < high).count()).sum();
    assert!(wins >= 9900, "auroc {}", wins as f64 / 1e4);
}

#[test]
fn neither_threads_nor_company_nor_tampering() {
    let train = groups(rows(61, 700, 6), 3);
    let test = rows(62, 45, 6);
    // Fewer atoms than twice the columns, more atoms, and rows in neither part.
    let settings = [
        Assignments::new(),
        Assignments::new().with("atoms", 17).with("lambda", 0.3).with("iterations", 4),
        Assignments::new().with("atoms", 3).with("max_rows", 100).with("seed", 9).with("held_out", 0.5),
    ];
    for params in settings {
        check_determinism("sparse-coding", &params, &train, &test);
        check_tampering("sparse-coding", &params, &train);
    }
}

#[test]
fn states_that_nobody_fitted_are_refused() {
    let scorer = SCORERS.get("sparse-coding").unwrap().fit(&Assignments::new(), rows(71, 60, 4).view()).unwrap();
    let refused = |tensor: &str, data: Vec<f64>| {
        let mut state: State = scorer.state();
        let shape = state.tensors[tensor].shape.clone();
        state.tensors.insert(tensor.to_owned(), Tensor::f64(shape, data));
        assert!(restore(&state).is_err(), "{tensor}");
    };
    refused("atoms", vec![0.9; 32]);
    refused("atoms", vec![1e300; 32]);
    refused("centre", vec![1e39; 4]);
    refused("units", vec![1.0, 0.0]);
    refused("units", vec![-1.0, 1.0]);
    for lambda in [0.0, -1.0] {
        let mut state = scorer.state();
        state.config["lambda"] = lambda.into();
        assert!(restore(&state).is_err());
    }
    let mut state = scorer.state();
    state.config["density"]["covariance"] = "identity".into();
    assert!(restore(&state).is_err());
}

#[test]
fn hard_rows_give_numbers_or_errors() {
    let fit = |rows: &Array2<f32>, options| SparseCoding::fit(rows.view(), options, Watch::none());
    let usual = SparseOptions::default();
    assert!(matches!(fit(&Array2::from_elem((20, 3), 0.1), usual), Err(ScorerError::ConstantRows { .. })));
    assert!(matches!(fit(&rows(81, 4, 3), usual), Err(ScorerError::TooFewRows { needed: 5, got: 4, .. })));
    let many = SparseOptions { atoms: Auto::Value(30), ..usual };
    assert!(matches!(fit(&rows(81, 40, 3), many), Err(ScorerError::TooFewRows { needed: 30, got: 28, .. })));
    for (name, bad) in [
        ("atoms", SparseOptions { atoms: Auto::Value(0), ..usual }),
        ("held_out", SparseOptions { held_out: 1.0, ..usual }),
        ("held_out", SparseOptions { held_out: f64::NAN, ..usual }),
        ("iterations", SparseOptions { iterations: 0, ..usual }),
        ("lambda", SparseOptions { lambda: 0.0, ..usual }),
        ("lambda", SparseOptions { lambda: f64::INFINITY, ..usual }),
        ("max_rows", SparseOptions { max_rows: 2, ..usual }),
    ] {
        assert_eq!(refused_setting(fit(&rows(81, 40, 3), bad)), name, "{bad:?}");
    }
    let stop = || true;
    let cancelled = SparseCoding::fit(rows(81, 40, 3).view(), usual, Watch::new(&stop));
    assert!(matches!(cancelled, Err(ScorerError::Cancelled)));

    let mut constant_column = rows(82, 60, 4);
    constant_column.column_mut(1).fill(0.1);
    let few = rows(83, 9, 4);
    let duplicates = concatenate(Axis(0), &vec![few.view(); 12]).unwrap();
    let wide = rows(84, 30, 90);
    for train in [constant_column, duplicates, few, rows(85, 50, 1), wide] {
        let scorer = fit(&train, usual).unwrap();
        let mut far = train.clone();
        far.row_mut(0).fill(f32::MAX);
        far.row_mut(1).fill(-1e20);
        let scores = scorer.score(far.view()).unwrap();
        assert!(scores.iter().all(|score| score.is_finite()), "{:?}: {scores:?}", train.dim());
        assert!(scores[0] > scores[1] && scores[2..].iter().all(|score| *score < scores[1]), "{scores:?}");
        assert!(scorer.features(far.view()).unwrap().iter().all(|feature| feature.is_finite()));
    }
    // With so large a weight all codes are empty, and the error alone is left.
    let empty = fit(&rows(86, 100, 4), SparseOptions { lambda: 1e6, ..usual }).unwrap();
    assert!(empty.codes(rows(87, 5, 4).view()).unwrap().iter().all(|code| *code == 0.0));
    assert!(empty.score(rows(87, 5, 4).view()).unwrap().iter().all(|score| score.is_finite()));
}
