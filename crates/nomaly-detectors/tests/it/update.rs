//! Updates of models.

use nomaly_backbones::Backbone;
use nomaly_data::Sample;
use nomaly_detectors::{
    Detector, DetectorError, FitOptions, FittedDetector, PredictOptions, Prediction, StreamOptions,
};
use nomaly_methods::{GroupBy, METHODS, MethodError, Updates};
use nomaly_settings::Assignments;
use nomaly_store::Silent;

use crate::images::{dataset, detector, fit, good, settings};

/// The relative error of a mean over rows in another order: some hundred roundings of f64, multiplied by the condition
/// of a shrunk covariance.
const ROUNDING: f64 = 1e-9;

fn predictions(detector: &FittedDetector, samples: &[Sample]) -> Vec<Prediction> {
    let mut all = Vec::new();
    detector
        .predict(samples, &PredictOptions::default(), &Silent, |outcome| {
            all.push(outcome.result.unwrap());
            Ok(())
        })
        .unwrap();
    all
}

fn updatable(method: &str, settings: &Assignments, samples: &[Sample]) -> Result<FittedDetector, DetectorError> {
    let options = FitOptions { updatable: true, ..FitOptions::default() };
    detector(method, settings).fit("stripes", samples, &options, &Silent).map(|fit| fit.detector)
}

fn through_a_file(detector: &FittedDetector) -> FittedDetector {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.nomaly");
    detector.save(&path).unwrap();
    FittedDetector::load(&path).unwrap()
}

fn updated(detector: FittedDetector, samples: &[Sample]) -> FittedDetector {
    detector.extend(samples, &GroupBy::None, StreamOptions::default(), &Silent).unwrap().detector
}

/// Updates a model of 17 images twice, and compares it with one of all 41.
#[track_caller]
fn check(method: &str, settings: &Assignments, tolerance: f64) {
    let all = good(41);
    let first = updatable(method, settings, &all[..17]).unwrap();
    let held_out = first.calibration().in_order().len();
    let second = updated(through_a_file(&first), &all[17..22]);
    let unseen: Vec<f64> = predictions(&first, &all[17..22]).iter().map(|prediction| prediction.score).collect();
    assert_eq!(second.calibration().in_order()[held_out..], unseen, "{method}: held-out scores of new images");
    let third = updated(through_a_file(&second), &all[22..]);
    assert_eq!(third.info().training.images, 41, "{method}");
    assert_eq!(third.calibration().in_order().len(), held_out + 24, "{method}");
    let at_once = updatable(method, settings, &all).unwrap();
    for (found, expected) in predictions(&third, &dataset().test).iter().zip(predictions(&at_once, &dataset().test)) {
        let off = (found.score / expected.score - 1.0).abs();
        assert!(off <= tolerance, "{method}: {} and {}", found.score, expected.score);
        assert!(tolerance > 0.0 || found.map == expected.map, "{method}: maps differ");
    }
    // The stored update state does not change scores.
    let plain = fit(method, settings, &all).detector;
    assert_eq!(predictions(&plain, &dataset().test), predictions(&at_once, &dataset().test), "{method}");
}

#[test]
fn an_updated_model_is_one_of_all_images() {
    check("padim", &settings(), 0.0);
    check("padim", &settings().with("tiles", "1x2"), 0.0);
    check("dn2", &settings(), 0.0);
    check("dn2", &settings().with("distance", "cosine"), 0.0);
    check("features", &settings(), 0.0);
    check("features", &settings().with("scorer", "isolation-forest"), 0.0);
    check("mvg", &settings(), ROUNDING);
    check("mvg", &settings().with("flips", "horizontal"), ROUNDING);
    check("mvg", &settings().with("reduction", "npca"), ROUNDING);
}

#[test]
fn a_method_says_whether_its_models_can_be_updated() {
    let all = good(24);
    for entry in METHODS.iter().filter(|entry| !entry.trains && !entry.classes) {
        let given = settings();
        let fitted = fit(entry.name, &given, &all).detector;
        let update = |fitted: FittedDetector| {
            fitted.extend(&good(26)[24..], &GroupBy::None, StreamOptions::default(), &Silent).map(drop)
        };
        let method = (entry.build)(&fitted.info().method.settings, &Backbone::embedded().unwrap()).unwrap();
        match method.updates() {
            Updates::Always => update(fitted).unwrap(),
            Updates::OptIn => {
                let refused = update(fitted).unwrap_err();
                let kept = matches!(refused, DetectorError::Method(MethodError::NotUpdatable { .. }));
                assert!(kept, "{}: {refused}", entry.name);
                update(updatable(entry.name, &given, &all).unwrap()).unwrap();
            }
            Updates::Never => {
                for refused in [update(fitted), updatable(entry.name, &given, &all).map(drop)] {
                    let refused = refused.unwrap_err();
                    let never = matches!(refused, DetectorError::Method(MethodError::NotExtendable { .. }));
                    assert!(never, "{}: {refused}", entry.name);
                }
            }
        }
    }
}

#[test]
fn a_training_that_could_not_be_updated_does_not_begin() {
    let detector = Detector::new("geotrans", "pixels", &Assignments::new()).unwrap();
    let options = FitOptions { updatable: true, ..FitOptions::default() };
    let refused = detector.fit("stripes", &good(24), &options, &Silent).map(drop).unwrap_err();
    assert!(matches!(refused, DetectorError::Method(MethodError::NotExtendable { .. })), "{refused}");
}
