//! Bad rows, bad settings and forged states.

use ndarray::{Array2, array};
use nomaly_scorers::gaussian::{Covariance, Gaussian, GaussianStatistics, PcaGaussian, PcaOptions};
use nomaly_scorers::{SCORERS, Scorer, ScorerError, State, Tensor, TensorData, restore};
use nomaly_settings::Assignments;

use crate::support::{refused_setting, rows};

fn fit(name: &str, params: &Assignments, rows: &Array2<f32>) -> Result<Box<dyn Scorer>, ScorerError> {
    SCORERS.get(name).unwrap().fit(params, rows.view())
}

#[test]
fn rows_that_cannot_be_fitted_or_scored_are_refused() {
    for entry in SCORERS.iter() {
        let fit = |rows: &Array2<f32>| entry.fit(&Assignments::new(), rows.view());
        let mut train = rows(1, 12, 5);
        let scorer = fit(&train).unwrap();
        let wrong = scorer.score(rows(1, 2, 4).view());
        assert!(matches!(wrong, Err(ScorerError::Dimension { expected: 5, got: 4 })), "{}", entry.name);
        assert!(fit(&Array2::zeros((0, 5))).is_err(), "{}", entry.name);
        assert!(matches!(fit(&Array2::zeros((5, 0))), Err(ScorerError::NoColumns)), "{}", entry.name);
        for bad in [f32::NAN, f32::INFINITY] {
            train[[7, 3]] = bad;
            let place = |error| matches!(error, ScorerError::NonFiniteFeature { row: 7, column: 3 });
            assert!(fit(&train).is_err_and(place), "{}", entry.name);
            assert!(scorer.score(train.view()).is_err_and(place), "{}", entry.name);
        }
    }
}

#[test]
fn settings_are_checked() {
    let train = rows(2, 12, 5);
    let message = |name: &str, params: Assignments| fit(name, &params, &train).unwrap_err().to_string();
    assert_eq!(
        message("gaussian", Assignments::new().with("covarianec", "empirical")),
        "unknown setting `covarianec`; did you mean `covariance`?"
    );
    assert_eq!(
        message("gaussian", Assignments::new().with("covariance", "wolf")),
        "setting `covariance` is `wolf`; it takes `ledoit-wolf`, `empirical`, `diagonal` or `identity`"
    );
    assert_eq!(
        message("neighbours", Assignments::new().with("k", 13)),
        "the memory bank needs at least 13 rows, but there are 12"
    );
    for variance in ["0", "1", "NaN", "-0.5", "x"] {
        let text = fit("gaussian-pca", &Assignments::new().with("variance", variance), &train);
        assert_eq!(refused_setting(text), "variance", "{variance}");
        let options = PcaOptions { variance: variance.parse().unwrap_or(2.0), ..PcaOptions::default() };
        assert_eq!(refused_setting(PcaGaussian::fit(train.view(), options)), "variance", "{variance}");
    }
    assert_eq!(refused_setting(fit("neighbours", &Assignments::new().with("k", 0), &train)), "k");
}

#[test]
fn singular_and_constant_rows() {
    let empirical = |rows: &Array2<f32>| Gaussian::fit(rows.view(), Covariance::Empirical);
    let too_few = empirical(&rows(3, 5, 5)).unwrap_err();
    assert!(too_few.to_string().contains("use covariance `ledoit-wolf`"), "{too_few}");
    // The third column is exactly the sum of the others, which are multiples of 1/64.
    let mut dependent = rows(4, 50, 3);
    dependent.mapv_inplace(|value| (value * 64.0).round() / 64.0);
    dependent.outer_iter_mut().for_each(|mut row| row[2] = row[0] + row[1]);
    assert!(matches!(
        empirical(&dependent),
        Err(ScorerError::SingularCovariance { estimate: "empirical", rows: 50, dim: 3, .. })
    ));
    assert!(Gaussian::fit(dependent.view(), Covariance::LedoitWolf).is_ok());

    let constant = Array2::from_elem((9, 4), 0.1f32);
    for covariance in [Covariance::LedoitWolf, Covariance::Empirical, Covariance::Diagonal] {
        let error = Gaussian::fit(constant.view(), covariance).unwrap_err();
        assert!(matches!(error, ScorerError::ConstantRows { rows: 9 }), "{covariance}: {error}");
    }
    assert!(matches!(PcaGaussian::fit(constant.view(), PcaOptions::default()), Err(ScorerError::ConstantRows { .. })));
    let from_mean = Gaussian::fit(constant.view(), Covariance::Identity).unwrap();
    assert!((from_mean.score(array![[0.1f32, 0.1, 0.1, 3.1]].view()).unwrap()[0] - 3.0).abs() < 1e-6);

    // Two rows give no estimate of the error of their covariance.
    let two = Gaussian::fit(rows(5, 2, 3).view(), Covariance::LedoitWolf).unwrap_err();
    assert!(matches!(two, ScorerError::SingularCovariance { estimate: "Ledoit-Wolf", rows: 2, dim: 3, .. }), "{two}");
    let one = Gaussian::fit(rows(5, 1, 3).view(), Covariance::LedoitWolf).unwrap_err();
    assert!(matches!(one, ScorerError::TooFewRows { needed: 2, got: 1, .. }), "{one}");
}

#[test]
fn a_constant_column_counts_when_it_is_left() {
    let mut train = rows(6, 40, 6);
    train.column_mut(2).fill(0.1);
    let mut test = rows(6, 2, 6);
    test.column_mut(2).assign(&array![0.1, 0.2]);
    let copy = test.row(0).to_owned();
    test.row_mut(1).assign(&copy);
    test[[1, 2]] = 0.2;
    for covariance in [Covariance::LedoitWolf, Covariance::Diagonal] {
        let scores = Gaussian::fit(train.view(), covariance).unwrap().score(test.view()).unwrap();
        assert!(scores.iter().all(|score| score.is_finite()) && scores[1] > scores[0], "{covariance}: {scores:?}");
    }
    assert!(Gaussian::fit(train.view(), Covariance::Empirical).is_err());
}

#[test]
fn tampered_states_are_refused() {
    let params = [
        ("gaussian", Assignments::new()),
        ("gaussian", Assignments::new().with("covariance", "diagonal")),
        ("gaussian", Assignments::new().with("covariance", "identity")),
        ("gaussian-pca", Assignments::new()),
        ("neighbours", Assignments::new()),
    ];
    for (name, params) in params {
        check_tampering(name, &params, &rows(7, 30, 4));
    }
}

/// Changes one thing at a time in the state of a scorer fitted on `train`; each must be refused, and none may panic.
#[track_caller]
pub(crate) fn check_tampering(name: &str, params: &Assignments, train: &Array2<f32>) {
    let good = fit(name, params, train).unwrap().state();
    let refused = |what: &str, change: &dyn Fn(&mut State)| {
        let mut state = good.clone();
        change(&mut state);
        assert!(restore(&state).is_err(), "{name} {params:?}: {what}");
    };
    refused("another kind", &|state| state.kind = "gaussain".to_owned());
    refused("no configuration", &|state| state.config = serde_json::Value::Null);
    refused("an unknown key", &|state| state.config["surprise"] = 1.into());
    refused("one tensor more", &|state| drop(state.tensors.insert("x".into(), Tensor::f64([1], vec![0.0]))));
    for key in good.config.as_object().unwrap().keys() {
        refused(key, &|state| drop(state.config.as_object_mut().unwrap().remove(key)));
        refused(key, &|state| state.config[key] = serde_json::json!([]));
        if good.config[key].is_number() {
            refused(key, &|state| state.config[key] = (-1.5).into());
        }
    }
    for tensor in good.tensors.keys() {
        let with = |change: &dyn Fn(&mut Tensor)| {
            refused(tensor, &|state| change(state.tensors.get_mut(tensor).unwrap()));
        };
        refused(tensor, &|state| drop(state.tensors.remove(tensor)));
        with(&|tensor| tensor.shape.push(1));
        with(&|tensor| tensor.shape = vec![]);
        with(&|tensor| tensor.shape = vec![0; tensor.shape.len()]);
        with(&|tensor| tensor.shape[0] += 1);
        with(&|tensor| tensor.shape[0] = usize::MAX);
        with(&|tensor| tensor.shape = vec![usize::MAX; tensor.shape.len()]);
        for bad in [f64::NAN, f64::INFINITY] {
            with(&|tensor| match &mut tensor.data {
                TensorData::F32(data) => *data.last_mut().unwrap() = bad as f32,
                TensorData::F64(data) => *data.last_mut().unwrap() = bad,
                // A state with only whole numbers cannot hold NaN: use another type instead.
                _ => tensor.data = TensorData::F64(vec![bad]),
            });
        }
        with(&|tensor| match &mut tensor.data {
            TensorData::F32(data) => drop(data.pop()),
            TensorData::F64(data) => drop(data.pop()),
            TensorData::U32(data) => drop(data.pop()),
            _ => unreachable!("every type is listed"),
        });
        with(&|tensor| {
            tensor.data = match &tensor.data {
                TensorData::F32(data) => TensorData::F64(data.iter().copied().map(f64::from).collect()),
                TensorData::F64(data) => TensorData::F32(data.iter().map(|value| *value as f32).collect()),
                TensorData::U32(data) => TensorData::F32(data.iter().map(|value| *value as f32).collect()),
                _ => unreachable!("every type is listed"),
            };
        });
        if tensor == "factor" || tensor == "variance" {
            for bad in [0.0, -1.0] {
                with(&|tensor| {
                    tensor.data = match &tensor.data {
                        TensorData::F64(data) => TensorData::F64([&[bad], &data[1..]].concat()),
                        other => other.clone(),
                    }
                });
            }
        }
    }
}

#[test]
fn tampered_statistics_are_refused() {
    let good = GaussianStatistics::from_rows(rows(8, 10, 3).view()).unwrap().state();
    for tensor in good.tensors.keys() {
        for change in [
            |tensor: &mut Tensor| tensor.shape[0] += 1,
            |tensor: &mut Tensor| {
                if let TensorData::F64(data) = &mut tensor.data {
                    data[0] = f64::NAN;
                }
            },
        ] {
            let mut state = good.clone();
            change(state.tensors.get_mut(tensor).unwrap());
            assert!(GaussianStatistics::from_state(&state).is_err(), "{tensor}");
        }
    }
    let mut state = good.clone();
    state.tensors.insert("fourth".into(), Tensor::f64([1], vec![-1.0]));
    assert!(GaussianStatistics::from_state(&state).is_err());
    let state = State { kind: "gaussian".to_owned(), ..good };
    assert!(GaussianStatistics::from_state(&state).is_err());
}
