//! Methods that train a network: their results, and that interruptions do not change them.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use nomaly_detectors::{DetectorError, FitOptions, FitResult, FittedDetector, PredictOptions, Prediction};
use nomaly_methods::{METHODS, MethodError};
use nomaly_settings::Assignments;
use nomaly_store::{Progress, Silent};

use crate::images::{dataset, detector, fit, good, quick};

/// Cancels after a number of queries.
struct StopAfter(AtomicUsize);

impl StopAfter {
    fn new(questions: usize) -> Self {
        Self(AtomicUsize::new(questions))
    }
}

impl Progress for StopAfter {
    fn start(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _amount: u64) {}
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(1))) == Ok(0)
    }
}

fn bytes(detector: &FittedDetector, folder: &Path) -> Vec<u8> {
    let path = folder.join("model.nomaly");
    detector.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

fn trained() -> impl Iterator<Item = &'static str> {
    METHODS.iter().filter(|method| method.trains).map(|method| method.name)
}

fn interrupted(
    method: &str,
    settings: &Assignments,
    folder: &Path,
    progress: &dyn Progress,
) -> Result<FitResult, DetectorError> {
    detector(method, settings).with_checkpoints(folder).fit("stripes", &good(12), &FitOptions::default(), progress)
}

#[test]
fn an_interrupted_training_ends_with_the_same_model() {
    for method in trained() {
        let settings = quick(method).with("epochs", 4).with("batch_size", 4);
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = folder.path().join("checkpoints");
        let whole = bytes(&fit(method, &settings, &good(12)).detector, folder.path());
        for questions in [4, 7] {
            let stopped = interrupted(method, &settings, &checkpoints, &StopAfter::new(questions)).map(drop);
            assert!(matches!(stopped, Err(DetectorError::Method(MethodError::Cancelled))), "{method}: {stopped:?}");
        }
        let model = interrupted(method, &settings, &checkpoints, &Silent).unwrap();
        assert!(model.notes.iter().any(|note| note.contains("went on from step")), "{:?}", model.notes);
        assert!(bytes(&model.detector, folder.path()) == whole, "{method}: the models differ");
        model.save(&folder.path().join("model.nomaly")).unwrap();
        assert_eq!(files_in(&checkpoints), 0, "{method} leaves its checkpoint behind");
    }
}

fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Counts the displayed losses; the first step displays one.
#[derive(Default)]
struct Losses(AtomicUsize);

impl Progress for Losses {
    fn start(&self, _what: &str, _total: Option<u64>) {}
    fn describe(&self, what: &str) {
        self.0.fetch_add(usize::from(what.contains("loss")), Ordering::SeqCst);
    }
    fn advance(&self, _amount: u64) {}
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        false
    }
}

#[test]
fn a_model_that_cannot_be_saved_is_not_trained_again() {
    for (method, patience) in trained().flat_map(|method| [(method, "none"), (method, "1")]) {
        let settings = quick(method).with("epochs", 3).with("batch_size", 4).with("patience", patience);
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = folder.path().join("checkpoints");
        let whole = bytes(&fit(method, &settings, &good(12)).detector, folder.path());
        let losses = Losses::default();
        let model = interrupted(method, &settings, &checkpoints, &losses).unwrap();
        assert!(losses.0.into_inner() > 0, "{method}: nothing was trained");
        let lost = model.save(&folder.path().join("missing/model.nomaly"));
        assert!(matches!(lost, Err(DetectorError::Method(MethodError::Store(_)))), "{method}: {lost:?}");
        assert_eq!(files_in(&checkpoints), 1, "{method}");

        let losses = Losses::default();
        let model = interrupted(method, &settings, &checkpoints, &losses).unwrap();
        assert_eq!(losses.0.into_inner(), 0, "{method}: an epoch was trained again");
        let path = folder.path().join("model.nomaly");
        model.save(&path).unwrap();
        assert!(std::fs::read(&path).unwrap() == whole, "{method}: the models differ");
        assert_eq!(files_in(&checkpoints), 0, "{method} leaves its checkpoint behind");
    }
}

#[test]
fn a_training_does_not_depend_on_the_number_of_threads() {
    for method in trained() {
        let folder = tempfile::tempdir().unwrap();
        let model = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bytes(&fit(method, &quick(method), &good(10)).detector, folder.path()))
        };
        assert!(model(1) == model(3), "{method}");
    }
}

#[test]
fn a_checkpoint_of_another_training_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = quick("geotrans").with("epochs", 2).with("batch_size", 8);
    let stopped = interrupted("geotrans", &settings, folder.path(), &StopAfter::new(4));
    assert!(matches!(stopped.map(drop), Err(DetectorError::Method(MethodError::Cancelled))));
    let other = settings.clone().with("rate", 0.01);
    let fit = interrupted("geotrans", &other, folder.path(), &Silent).unwrap();
    assert!(!fit.notes.iter().any(|note| note.contains("went on")), "{:?}", fit.notes);
    assert_eq!(files_in(folder.path()), 2);
    fit.remove_checkpoint();
    assert_eq!(files_in(folder.path()), 1);

    let damaged = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let content = std::fs::read(&damaged).unwrap();
    std::fs::write(&damaged, &content[..content.len() / 2]).unwrap();
    let error = interrupted("geotrans", &settings, folder.path(), &Silent).map(drop).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn geotrans_scores_what_it_cannot_turn_upright() {
    for score in ["dirichlet", "two-step", "mc-dropout"] {
        let mut settings = quick("geotrans").with("epochs", 4).with("batch_size", 16).with("normality", score);
        if score == "mc-dropout" {
            settings = settings.with("passes", 4);
        }
        let fitted = fit("geotrans", &settings, &good(24)).detector;
        let mut scores: Vec<Prediction> = Vec::new();
        fitted
            .predict(&dataset().test, &PredictOptions::default(), &Silent, |outcome| {
                scores.push(outcome.result.unwrap());
                Ok(())
            })
            .unwrap();
        let mean = |blot: usize| scores.iter().skip(blot).step_by(2).map(|p| p.score).sum::<f64>() / 8.0;
        assert!(mean(1) > mean(0), "{score}: {} {}", mean(1), mean(0));
        for prediction in &scores {
            let terms: f64 = prediction.terms.iter().sum();
            assert_eq!(prediction.terms.len(), if score == "two-step" { 0 } else { 4 });
            assert!(score == "two-step" || (terms - prediction.score).abs() < 1e-9 * prediction.score.abs().max(1.0));
        }
    }
}

#[test]
fn networks_that_meet_created_anomalies_score_blots_higher() {
    let cases = ["labels=continuous", "labels=discrete", "anomalies=cut-paste,puzzle"].map(|given| ("adacl", given));
    for (method, given) in cases.into_iter().chain([("cutpaste", "scorer=gaussian"), ("cutpaste", "scorer=neighbours")])
    {
        let (key, value) = given.split_once('=').unwrap();
        // A network without batch norm takes more steps.
        let epochs = if method == "adacl" { 40 } else { 10 };
        let settings = quick(method).with(key, value).with("epochs", epochs).with("batch_size", 8);
        let fitted = fit(method, &settings, &dataset().train).detector;
        let mut scores: Vec<f64> = Vec::new();
        fitted
            .predict(&dataset().test, &PredictOptions::default(), &Silent, |outcome| {
                scores.push(outcome.result.unwrap().score);
                Ok(())
            })
            .unwrap();
        let of = |blot: usize| scores.iter().skip(blot).step_by(2).copied();
        let mean = |blot: usize| of(blot).sum::<f64>() / 8.0;
        assert!(mean(1) > mean(0), "{settings:?}: {scores:?}");
    }
}
