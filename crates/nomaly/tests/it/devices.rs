//! Whole fits on candle's processor, which stands for GPUs, against those on the kernels.

use nomaly::devices::{Device, Executor};
use nomaly::{
    Assignments, Dataset, Fit, FitResult, FittedDetector, PredictOptions, Session, SessionOptions, StreamOptions, data,
};

/// Scores agree relative to their spread: the features do to 1e-4 of the greatest.
const CLOSE: f64 = 1e-3;

fn executors() -> [Executor; 2] {
    [Device::Cpu, Device::CandleCpu].map(|device| Executor::on(device).unwrap())
}

/// A few images of the demo.
fn images() -> Dataset {
    let mut images = data::demo("brick", 0).unwrap();
    images.train.truncate(12);
    images.test.truncate(6);
    images
}

fn fit(method: &str, settings: &Assignments, executor: &Executor) -> FitResult {
    let fit = Fit::of_dataset(images()).named(method).settings(settings.clone()).on(executor);
    fit.run().unwrap()
}

fn settings() -> Assignments {
    Assignments::new().with("input_size", 64)
}

/// The scores of the test images.
fn scores(detector: &FittedDetector) -> Vec<f64> {
    let mut scores = Vec::new();
    let options = PredictOptions::default();
    detector
        .predict(&images().test, &options, &nomaly::store::Silent, |outcome| {
            scores.push(outcome.result.unwrap().score);
            Ok(())
        })
        .unwrap();
    scores
}

fn assert_near(what: &str, got: &[f64], want: &[f64], slack: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    let greatest = want.iter().fold(0.0f64, |greatest, value| greatest.max(value.abs()));
    let near = got.iter().zip(want).all(|(got, want)| (got - want).abs() <= slack * greatest);
    assert!(near, "{what}: {got:?}, expected {want:?}");
}

#[test]
fn models_fitted_on_either_device_score_alike_on_both() {
    let folder = tempfile::tempdir().unwrap();
    for method in ["padim", "patchcore", "mvg"] {
        let mut want: Option<Vec<f64>> = None;
        for executor in executors() {
            let fit = fit(method, &settings(), &executor);
            let path = folder.path().join(method);
            fit.save(&path).unwrap();
            for other in executors() {
                let loaded = FittedDetector::load_on(&path, &other).unwrap();
                assert_eq!(loaded.executor().device(), other.device());
                let scores = scores(&loaded);
                let what = format!("{method} of {} on {}", executor.device(), other.device());
                let want = want.get_or_insert_with(|| scores.clone());
                assert_near(&what, &scores, want, CLOSE);
            }
        }
    }
}

#[test]
fn networks_are_trained_alike() {
    let rotations = Assignments::new().with("network", "wrn-10-1").with("transformations", "rotations");
    let cutpaste = Assignments::new().with("network", "wrn-10-1");
    let adacl = Assignments::new();
    let methods = [
        ("geotrans", rotations.clone().with("normality", "mc-dropout").with("dropout", 0.3).with("passes", 3)),
        ("geotrans", rotations),
        ("cutpaste", cutpaste),
        ("adacl", adacl),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (method, settings) in methods {
        let settings = settings.with("input_size", 32).with("epochs", 1).with("batch_size", 16);
        let mut want: Option<Vec<f64>> = None;
        for executor in executors() {
            let path = folder.path().join(method);
            fit(method, &settings, &executor).save(&path).unwrap();
            for other in executors() {
                let scores = scores(&FittedDetector::load_on(&path, &other).unwrap());
                let what = format!("{method} of {} on {}", executor.device(), other.device());
                let want = want.get_or_insert_with(|| scores.clone());
                // Rounding grows from step to step.
                assert_near(&what, &scores, want, 1e-2);
            }
        }
    }
}

#[test]
fn sessions_and_explanations_run_on_the_device() {
    let [cpu, candle] = executors();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    fit("padim", &settings(), &candle).save(&path).unwrap();
    let open = |executor: &Executor| FittedDetector::load_on(&path, executor).unwrap();
    let image = images().test[0].source.load(&nomaly::Limits::default()).unwrap();
    let score = |mut session: Session| session.score(&image).unwrap().score;
    let [want, got] = [&cpu, &candle].map(|executor| score(open(executor).session(SessionOptions::default()).unwrap()));
    assert_near("a session", &[got], &[want], CLOSE);

    let explain = |executor: &Executor| explained(&open(executor));
    let (want, got) = (explain(&cpu), explain(&candle));
    assert!(want.iter().any(|value| *value > 0.0));
    assert_near("an explanation", &got, &want, CLOSE);
}

/// The map of the first test image.
fn explained(detector: &FittedDetector) -> Vec<f64> {
    let mut map = Vec::new();
    let mut explainer = detector.explainer(None, None).unwrap();
    let samples = &images().test[..1];
    explainer
        .run(
            samples,
            StreamOptions::default(),
            &nomaly::store::Silent,
            |explained| -> Result<(), nomaly::DetectorError> {
                map = explained.result.unwrap().map.values.iter().map(|value| f64::from(*value)).collect();
                Ok(())
            },
        )
        .unwrap();
    map
}
