//! Against scikit-learn and SciPy, on the numbers of `fixtures/gen_scorers.py`.

use ndarray::Array2;
use nomaly_scorers::decision::{quantile, three_sigma};
use nomaly_scorers::gaussian::{Covariance, Gaussian, GaussianStatistics};
use nomaly_scorers::{SCORERS, Scorer};
use nomaly_settings::Assignments;
use serde_json::Value;

use crate::support::{Lcg, assert_close, queries, rows};

/// Both sides compute in f64; what differs is the order of additions and an inverse in place of a triangular solve.
const DOUBLE: f64 = 1e-9;

/// Neighbour distances are f32 here and f64 there.
const SINGLE: f64 = 2e-6;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/scorers.json")).unwrap()
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

fn scores(name: &str, params: &Assignments, rows: &Array2<f32>, queries: &Array2<f32>) -> Vec<f64> {
    SCORERS.get(name).unwrap().fit(params, rows.view()).unwrap().score(queries.view()).unwrap()
}

#[test]
fn gaussians_agree_with_scikit_learn() {
    for set in fixture()["sets"].as_array().unwrap() {
        let (rows, queries) = data(set);
        for (name, key) in [("ledoit-wolf", "ledoit_wolf"), ("empirical", "empirical")] {
            let Some(want) = set.get(key) else { continue };
            let gaussian = Gaussian::fit(rows.view(), serde_json::from_value(name.into()).unwrap()).unwrap();
            assert_close(&[gaussian.shrinkage()], &[want["shrinkage"].as_f64().unwrap()], DOUBLE, name);
            assert_close(&gaussian.score(queries.view()).unwrap(), &numbers(&want["scores"]), DOUBLE, name);

            let statistics = GaussianStatistics::from_rows(rows.view()).unwrap();
            let variance = |j| statistics.scatter(j, j) / rows.nrows() as f64;
            let ridge = gaussian.shrinkage() * (0..rows.ncols()).map(variance).sum::<f64>() / rows.ncols() as f64;
            let row: Vec<f64> = (0..rows.ncols())
                .map(|j| statistics.scatter(0, j) / rows.nrows() as f64 * (1.0 - gaussian.shrinkage()))
                .enumerate()
                .map(|(j, value)| if j == 0 { value + ridge } else { value })
                .collect();
            assert_close(&row, &numbers(&want["covariance_row0"]), DOUBLE, "covariance");
        }
        for name in ["diagonal", "identity"] {
            let found = scores("gaussian", &Assignments::new().with("covariance", name), &rows, &queries);
            assert_close(&found, &numbers(&set[name]), DOUBLE, name);
        }
    }
}

#[test]
fn principal_components_agree_with_scikit_learn() {
    for set in fixture()["sets"].as_array().unwrap() {
        let (rows, queries) = data(set);
        for case in set["pca"].as_array().unwrap() {
            let text = |name: &str| case[name].as_str().unwrap();
            let params = Assignments::new()
                .with("keep", text("keep"))
                .with("variance", &case["variance"])
                .with("covariance", text("covariance"));
            let what = format!("{params:?}");
            let state = SCORERS.get("gaussian-pca").unwrap().fit(&params, rows.view()).unwrap().state();
            assert_eq!(state.tensors["components"].shape[0] as u64, case["kept"].as_u64().unwrap(), "{what}");
            let shrinkage = state.config["shrinkage"].as_f64().unwrap();
            // The shrinkage is a small difference of large sums.
            assert_close(&[shrinkage], &[case["shrinkage"].as_f64().unwrap()], 1e-7, &what);
            let found = scores("gaussian-pca", &params, &rows, &queries);
            assert_close(&found, &numbers(&case["scores"]), 1e-7, &what);
        }
    }
}

#[test]
fn neighbour_distances_agree_with_scikit_learn() {
    for set in fixture()["sets"].as_array().unwrap() {
        let (rows, queries) = data(set);
        for case in set["neighbours"].as_array().unwrap() {
            let names = ["distance", "aggregation"].map(|name| (name, case[name].as_str().unwrap().to_owned()));
            let params = Assignments::from_iter(names).with("k", &case["k"]);
            let found = scores("neighbours", &params, &rows, &queries);
            assert_close(&found, &numbers(&case["scores"]), SINGLE, &format!("{params:?}"));
        }
    }
}

#[test]
fn decision_rules_agree_with_numpy() {
    let fixture = &fixture()["decision"];
    let mut lcg = Lcg(fixture["seed"].as_u64().unwrap());
    let scores: Vec<f64> = (0..fixture["count"].as_u64().unwrap()).map(|_| lcg.uniform() * 5.0).collect();
    assert_close(&[three_sigma(&scores).unwrap()], &[fixture["three_sigma"].as_f64().unwrap()], 1e-12, "three sigma");
    for (fpr, want) in fixture["quantile"].as_object().unwrap() {
        let found = quantile(&scores, fpr.parse().unwrap()).unwrap();
        assert_close(&[found], &[want.as_f64().unwrap()], 1e-12, "quantile");
    }
}

/// Ten rows of six columns, uniform in -1 … 1, the second column leaning on the first; the figures are scikit-learn's
/// `LedoitWolf` on the same numbers in f64, so the rounding of the features to f32 decides the tolerance.
#[test]
fn a_small_ledoit_wolf_by_its_figures() {
    let mut lcg = Lcg(11);
    let mut rows = Array2::from_shape_simple_fn((10, 6), || lcg.uniform() * 2.0 - 1.0);
    for mut row in rows.outer_iter_mut() {
        row[1] += 0.8 * row[0];
    }
    assert_close(&[rows[[0, 0]], rows[[0, 1]]], &[0.746_428_661_633_814, 0.770_131_466_813_044], 1e-14, "rows");
    let rows = rows.mapv(|value| value as f32);
    let gaussian = Gaussian::fit(rows.view(), Covariance::LedoitWolf).unwrap();
    assert_close(&[gaussian.shrinkage()], &[0.708_661_798_416_153_7], 1e-6, "shrinkage");
    assert_close(&gaussian.score(rows.view()).unwrap()[..1], &[2.652_340_110_176_238_5], 1e-6, "distance of row 0");
}
