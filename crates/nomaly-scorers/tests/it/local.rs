//! LOF, clustering, CBLOF and random projections: against scikit-learn, PyOD and NumPy (`fixtures/gen_local.py`), and
//! on difficult rows.

use ndarray::{Array2, Axis, array, concatenate};
use nomaly_scorers::random_projections::{RandomProjections, WeightedColumns};
use nomaly_scorers::{SCORERS, Scorer, ScorerError, State, TensorData, Watch, restore};
use nomaly_settings::{Assignments, Auto};
use serde_json::Value;

use crate::determinism::check_determinism;
use crate::hostile::check_tampering;
use crate::support::{assert_close, queries_outwards, refused_setting, rows};

/// Distances are sums of up to a dozen squares in `f32` here, each rounded by 6e-8 of itself, in `f64` there; a factor
/// is a ratio of two means of them. The neighbours are the same unless two are equally far to that precision.
const SINGLE: f64 = 2e-6;

/// Cosine distances are half the squares of differences of unit vectors: rows of these sets are about 0.01 apart, and
/// the components of a unit vector are rounded by 6e-8, which makes some 1e-5 of the distance.
const COSINE: f64 = 1e-4;

/// Both sides compute in `f64`. Here squares of distances come from products of rows less the mean of the centers; rows
/// some 20 long lose 400 ε of a square, which is 1e-13 of one of a distance of 1.
const DOUBLE: f64 = 1e-9;

fn fixture() -> Value {
    serde_json::from_str(include_str!("../fixtures/local.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn scores(name: &str, params: &Assignments, train: &Array2<f32>, test: &Array2<f32>) -> Vec<f64> {
    SCORERS.get(name).unwrap().fit(params, train.view()).unwrap().score(test.view()).unwrap()
}

#[track_caller]
fn assert_row(rows: &Array2<f32>, row: usize, want: &Value) {
    let found: Vec<f64> = rows.row(row).iter().copied().map(f64::from).collect();
    assert_close(&found, &numbers(want), 1e-15, "rows of the generator");
}

#[test]
fn lof_agrees_with_scikit_learn() {
    let fixture = fixture();
    let (train, mut test) = (rows(1, 120, 5), queries_outwards(101, 25, 5));
    assert_row(&train, 0, &fixture["first_row"]);
    assert_row(&test, 24, &fixture["last_query"]);
    test.row_mut(0).assign(&train.row(0));
    let first = train.select(Axis(0), &[0; 7]);
    let copies = concatenate![Axis(0), train, first];
    for (key, train) in [("lof", &train), ("lof_copies", &copies)] {
        for case in fixture[key].as_array().unwrap() {
            let distance = case["distance"].as_str().unwrap();
            let params = Assignments::new().with("k", &case["k"]).with("distance", distance);
            let tolerance = if distance == "cosine" { COSINE } else { SINGLE };
            let found = scores("lof", &params, train, &test);
            assert_close(&found, &numbers(&case["scores"]), tolerance, &format!("{key} {params:?}"));
        }
    }
}

/// Rows of well separated groups, as `grouped` of the fixture's script.
fn grouped(seed: u64, sizes: &[usize], dim: usize) -> Array2<f32> {
    let mut rows = rows(seed, sizes.iter().sum(), dim);
    let mut first = 0;
    for (group, size) in sizes.iter().enumerate() {
        for row in first..first + size {
            rows[[row, group]] = (f64::from(rows[[row, group]]) + 20.0) as f32;
        }
        first += size;
    }
    rows
}

fn group_queries() -> Array2<f32> {
    let mut test = queries_outwards(102, 40, 6);
    for row in 0..40 {
        for (column, stands) in [(0, row % 2 == 0), (2, row % 4 == 1)] {
            if stands {
                test[[row, column]] = (f64::from(test[[row, column]]) + 20.0) as f32;
            }
        }
    }
    test
}

#[test]
fn groups_agree_with_scikit_learn_and_pyod() {
    let fixture = &fixture()["groups"];
    let sizes: Vec<usize> = numbers(&fixture["sizes"]).iter().map(|size| *size as usize).collect();
    let (train, test) = (grouped(2, &sizes, 6), group_queries());
    assert_row(&train, 0, &fixture["first_row"]);
    assert_row(&test, 39, &fixture["last_query"]);
    for distance in ["plain", "relative"] {
        let params = Assignments::new().with("clusters", 4).with("distance", distance);
        let found = scores("clustering", &params, &train, &test);
        assert_close(&found, &numbers(&fixture[distance]), DOUBLE, distance);
    }
    for case in fixture["cblof"].as_array().unwrap() {
        let params: Assignments =
            ["clusters", "alpha", "beta", "use_weights"].into_iter().map(|name| (name, &case[name])).collect();
        let found = scores("cblof", &params, &train, &test);
        assert_close(&found, &numbers(&case["scores"]), DOUBLE, &format!("{params:?}"));
    }
}

fn projections(case: &Value) -> Vec<WeightedColumns> {
    let sparse = |direction: &Value| {
        let direction = numbers(direction);
        let columns: Vec<u32> =
            (0..direction.len() as u32).filter(|column| direction[*column as usize] != 0.0).collect();
        WeightedColumns { weights: columns.iter().map(|column| direction[*column as usize]).collect(), columns }
    };
    case["projections"].as_array().unwrap().iter().map(sparse).collect()
}

#[test]
fn histograms_are_those_of_pyod_and_scores_those_of_numpy() {
    let (train, test) = (rows(3, 150, 9), queries_outwards(103, 60, 9));
    for case in fixture()["loda"].as_array().unwrap() {
        let bins = case["bins"].as_u64().unwrap() as usize;
        let fitted =
            RandomProjections::fit_along(train.view(), projections(case), Auto::Value(bins), Watch::none()).unwrap();
        let state = fitted.state();
        let TensorData::U32(counts) = &state.tensors["counts"].data else { panic!() };
        for (counts, shares) in counts.chunks_exact(bins).zip(case["shares"].as_array().unwrap()) {
            let found: Vec<f64> = counts.iter().map(|count| f64::from(*count) / 150.0).collect();
            assert_close(&found, &numbers(shares), DOUBLE, "shares");
        }
        let TensorData::F64(borders) = &state.tensors["borders"].data else { panic!() };
        for (borders, limits) in borders.chunks_exact(2).zip(case["limits"].as_array().unwrap()) {
            assert_close(borders, &numbers(limits), DOUBLE, "limits");
        }
        assert_close(&fitted.score(test.view()).unwrap(), &numbers(&case["scores"]), DOUBLE, "scores");
    }
}

/// The share of pairs of a normal and an anomalous score in the right order.
fn auroc(normal: &[f64], anomalous: &[f64]) -> f64 {
    let right = |anomalous: &f64| {
        let of_one =
            |normal: &f64| f64::from(u8::from(normal < anomalous)) + 0.5 * f64::from(u8::from(normal == anomalous));
        normal.iter().map(of_one).sum::<f64>()
    };
    anomalous.iter().map(right).sum::<f64>() / (normal.len() * anomalous.len()) as f64
}

#[test]
fn random_projections_rank_as_well_as_pyod() {
    let train = rows(3, 150, 9);
    let normal = rows(104, 200, 9);
    let anomalous = queries_outwards(105, 200, 9);
    let anomalous = anomalous.slice(ndarray::s![100.., ..]).to_owned();
    let want = fixture()["loda_auroc"].as_f64().unwrap();
    for bins in ["10", "auto"] {
        let mean = (0..10).map(|seed| {
            let params = Assignments::new().with("seed", seed).with("bins", bins);
            let scorer = SCORERS.get("random-projections").unwrap().fit(&params, train.view()).unwrap();
            auroc(&scorer.score(normal.view()).unwrap(), &scorer.score(anomalous.view()).unwrap())
        });
        let mean = mean.sum::<f64>() / 10.0;
        assert!(mean > want - 0.01, "bins {bins}: {mean}, PyOD has {want}");
    }
}

#[test]
fn neither_threads_nor_company_change_a_bit() {
    let with = |name, value: &str| Assignments::new().with(name, value);
    let small = |params: Assignments| params.with("clusters", 5);
    for (name, params) in [
        ("lof", with("k", "4")),
        ("lof", with("distance", "cosine")),
        ("clustering", small(with("distance", "plain"))),
        ("clustering", small(with("distance", "relative"))),
        ("cblof", small(with("alpha", "0.6"))),
        ("cblof", small(with("use_weights", "true"))),
        ("random-projections", with("projections", "7")),
        ("random-projections", with("projections", "7").with("bins", "4")),
    ] {
        check_determinism(name, &params, &rows(1, 120, 10), &queries_outwards(2, 70, 10));
        check_tampering(name, &params, &rows(3, 40, 5));
    }
}

#[test]
fn stored_relations_are_checked() {
    let train = rows(4, 60, 4);
    let refused = |name: &str, tensor: &str, change: &dyn Fn(&mut State)| {
        let mut state = SCORERS.get(name).unwrap().fit(&Assignments::new(), train.view()).unwrap().state();
        change(&mut state);
        let error = restore(&state).err().unwrap_or_else(|| panic!("{name} {tensor}")).to_string();
        assert!(error.contains(tensor), "{error}");
    };
    let whole = |name: &str, tensor: &'static str, value: u32| {
        refused(name, tensor, &move |state| match &mut state.tensors.get_mut(tensor).unwrap().data {
            TensorData::U32(data) => data[0] = value,
            _ => panic!("{tensor}"),
        });
    };
    let real = |name: &str, tensor: &'static str, value: f64| {
        refused(name, tensor, &move |state| match &mut state.tensors.get_mut(tensor).unwrap().data {
            TensorData::F64(data) => data[0] = value,
            _ => panic!("{tensor}"),
        });
    };
    real("lof", "density", 0.0);
    real("lof", "density", -1.0);
    real("lof", "reach", -1.0);
    refused("lof", "60 neighbours", &|state| state.config["k"] = 60.into());
    for name in ["clustering", "cblof"] {
        whole(name, "sizes", 0);
        real(name, "squares", -1.0);
        real(name, "centres", 1e300);
    }
    for (key, value) in [("alpha", 0.0), ("alpha", 1.0), ("beta", 1.0)] {
        refused("cblof", key, &|state| state.config[key] = value.into());
    }
    whole("random-projections", "columns", 4);
    whole("random-projections", "bins", 0);
    whole("random-projections", "counts", 61);
    real("random-projections", "weights", 1e200);
    refused("random-projections", "counts", &|state| {
        let TensorData::F64(borders) = &mut state.tensors.get_mut("borders").unwrap().data else { panic!() };
        borders.swap(0, 1);
    });
}

#[test]
fn hard_rows() {
    let names = ["lof", "clustering", "cblof", "random-projections"];
    let fit = |name: &str, rows: &Array2<f32>| {
        let clusters = if name == "lof" || name == "random-projections" {
            Assignments::new()
        } else {
            Assignments::new().with("clusters", 2)
        };
        SCORERS.get(name).unwrap().fit(&clusters, rows.view())
    };
    for name in names {
        let one = fit(name, &rows(1, 1, 3)).unwrap_err();
        assert!(matches!(one, ScorerError::TooFewRows { needed: 2, got: 1, .. }), "{name}: {one}");
        // Equal rows: a copy of them is normal, everything else anomalous.
        let scores = fit(name, &Array2::from_elem((30, 2), 0.1)).unwrap();
        let scores = scores.score(array![[0.1f32, 0.1], [0.1, 0.3], [5.0, -7.0]].view()).unwrap();
        assert!(scores.iter().all(|score| score.is_finite()), "{name}: {scores:?}");
        assert!(scores[0] <= scores[1] && scores[0] < scores[2], "{name}: {scores:?}");
        // Fewer rows than columns, a constant column, and values far from zero.
        let mut wide = rows(5, 12, 20).mapv(|value| value + 1000.0);
        wide.column_mut(3).fill(7.0);
        let scores =
            fit(name, &wide).unwrap().score(concatenate![Axis(0), wide, Array2::zeros((1, 20))].view()).unwrap();
        assert!(scores.iter().all(|score| score.is_finite()), "{name}: {scores:?}");
        assert!(scores[..12].iter().all(|score| *score < scores[12]), "{name}: {scores:?}");
    }
}

#[test]
fn a_group_of_equal_rows_takes_the_spread_of_all() {
    // Ten rows in a cross of spread 1 around (0, 0), ten copies of (100, 0).
    let cross = [[1.0f32, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]];
    let train = Array2::from_shape_fn((16, 2), |(i, j)| if i < 8 { cross[i % 4][j] } else { [100.0, 0.0][j] });
    let params = Assignments::new().with("clusters", 2).with("distance", "relative");
    let found = scores("clustering", &params, &train, &array![[0.0, 3.0], [100.0, 3.0]]);
    // Half of the rows are at distance 1 and half at 0 from their centers: the whole spread is √½.
    assert_close(&found, &[3.0, 3.0 * 2f64.sqrt()], 1e-6, "relative distances");
}

#[test]
fn settings_are_checked_and_fits_can_be_stopped() {
    let train = rows(1, 60, 4);
    for (name, setting, value) in [
        ("lof", "k", "0"),
        ("lof", "distance", "squared-l2"),
        ("clustering", "clusters", "0"),
        ("cblof", "alpha", "1"),
        ("cblof", "alpha", "NaN"),
        ("cblof", "beta", "1"),
        ("cblof", "beta", "inf"),
        ("cblof", "use_weights", "1"),
        ("random-projections", "bins", "0"),
        ("random-projections", "bins", "65537"),
        ("random-projections", "projections", "0"),
    ] {
        let fit = SCORERS.get(name).unwrap().fit(&Assignments::new().with(setting, value), train.view());
        assert_eq!(refused_setting(fit), setting, "{name} {value}");
    }
    let too_many =
        SCORERS.get("clustering").unwrap().fit(&Assignments::new().with("clusters", 61), train.view()).unwrap_err();
    assert!(matches!(too_many, ScorerError::TooFewRows { needed: 61, got: 60, .. }));
    for name in ["lof", "clustering", "cblof", "random-projections"] {
        let stopped = SCORERS.get(name).unwrap().fit_watched(&Assignments::new(), train.view(), Watch::new(&|| true));
        assert!(matches!(stopped, Err(ScorerError::Cancelled)), "{name}");
    }
    for projection in [
        WeightedColumns { columns: vec![4], weights: vec![1.0] },
        WeightedColumns { columns: vec![1], weights: vec![] },
        WeightedColumns { columns: vec![1], weights: vec![f64::NAN] },
        WeightedColumns { columns: vec![], weights: vec![] },
    ] {
        let fit = RandomProjections::fit_along(train.view(), vec![projection], Auto::Auto, Watch::none());
        assert_eq!(refused_setting(fit), "projections");
    }
}
