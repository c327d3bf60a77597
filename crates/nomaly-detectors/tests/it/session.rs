//! Sessions give the same results as runs over many images.

use std::sync::Arc;

use image::RgbImage;
use image::codecs::png::PngEncoder;
use nomaly_data::{ImageSource, Sample, demo};
use nomaly_detectors::{
    DecisionRule, FittedDetector, PredictOptions, Prediction, Session, SessionOptions, StreamOptions,
};
use nomaly_methods::{ErrorKind, MethodError};
use nomaly_settings::Assignments;
use nomaly_store::Silent;

use crate::images::{fit, good, settings};

fn run(detector: &FittedDetector, samples: &[Sample]) -> Vec<Prediction> {
    let mut found = Vec::new();
    let options = PredictOptions { stream: StreamOptions { batch: 3, ..StreamOptions::default() }, rule: None };
    let sink = |outcome: nomaly_detectors::Outcome<'_>| {
        found.push(outcome.result.unwrap());
        Ok(())
    };
    detector.predict(samples, &options, &Silent, sink).unwrap();
    found
}

fn images(samples: &[Sample]) -> Vec<RgbImage> {
    samples.iter().map(|sample| sample.source.load(&nomaly_transforms::Limits::default()).unwrap()).collect()
}

#[test]
fn a_session_says_what_a_run_says() {
    let test = &demo::dataset("brick", 0).unwrap().test[20..32];
    let decoded = images(test);
    let sizes = Assignments::new().with("sizes", "64,96");
    for (method, settings) in [
        ("mvg", settings()),
        ("padim", settings().with("features", 20)),
        ("padim", settings().with("features", 20).with("tiles", "2x2").with("flips", "horizontal")),
        ("patchcore", sizes),
    ] {
        let detector = fit(method, &settings, &good(24)).detector;
        let expected = run(&detector, test);
        let mut session = detector.session(SessionOptions::default()).unwrap();
        for (image, expected) in decoded.iter().zip(&expected) {
            let verdict = session.score(image).unwrap();
            assert_eq!(verdict.prediction, *expected, "{method}");
            assert_eq!(verdict.size, image.dimensions());
            assert_eq!(verdict.regions.is_some(), verdict.map.is_some(), "{method}");
        }
        let all: Vec<&RgbImage> = decoded.iter().collect();
        let together = session.score_batch(&all).unwrap();
        assert!(together.into_iter().map(|verdict| verdict.unwrap().prediction).eq(expected), "{method}");
        assert!(session.score_batch(&[]).unwrap().is_empty());
    }
}

#[test]
fn sessions_share_a_detector_and_run_in_threads() {
    let test = &demo::dataset("brick", 0).unwrap().test[..6];
    let decoded = images(test);
    let detector = Arc::new(fit("mvg", &settings(), &good(12)).detector);
    let expected: Vec<f64> = run(&detector, test).iter().map(|prediction| prediction.score).collect();
    let mut sessions: Vec<Session> =
        (0..3).map(|_| Session::new(Arc::clone(&detector), SessionOptions::default()).unwrap()).collect();
    std::thread::scope(|scope| {
        for session in &mut sessions {
            scope.spawn(|| {
                let scores: Vec<f64> = decoded.iter().map(|image| session.score(image).unwrap().score).collect();
                assert_eq!(scores, expected);
            });
        }
    });
}

#[test]
fn encoded_images_and_models_are_taken_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.nomaly");
    fit("mvg", &settings(), &good(24)).detector.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let options = SessionOptions { rule: Some(DecisionRule::MaxFpr(0.2)), ..SessionOptions::default() };
    let mut session = FittedDetector::load_bytes(&bytes).unwrap().session(options).unwrap();
    let image = images(&demo::dataset("brick", 0).unwrap().test[..1]).remove(0);
    let mut png = Vec::new();
    image.write_with_encoder(PngEncoder::new(&mut png)).unwrap();
    let (decoded, encoded) = (session.score(&image).unwrap(), session.score_bytes(&png).unwrap());
    assert_eq!((decoded.score, decoded.p_value), (encoded.score, encoded.p_value));
    // The training images are in memory, so that no format is expected.
    assert!(encoded.anomalous.is_some());

    let error = session.score_bytes(b"no image").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    let error = session.score(&RgbImage::new(0, 4)).unwrap_err();
    assert!(error.to_string().contains("0"), "{error}");
    assert_eq!(session.score(&image).unwrap(), decoded, "a refused image leaves the session as it was");
    let cut = FittedDetector::load_bytes(&bytes[..bytes.len() / 2]).err().unwrap();
    assert!(cut.to_string().starts_with("bytes: is truncated") && cut.kind() == ErrorKind::Model, "{cut}");
    let wrong = SessionOptions { rule: Some(DecisionRule::MaxFpr(2.0)), ..SessionOptions::default() };
    let refused = FittedDetector::load_bytes(&bytes).unwrap().session(wrong).err().unwrap();
    assert!(matches!(refused, nomaly_detectors::DetectorError::Method(MethodError::Setting(_))), "{refused}");
}

#[test]
fn memory_is_kept_for_few_images_after_many() {
    let test = &demo::dataset("brick", 0).unwrap().test[..5];
    let decoded = images(test);
    let detector = fit("mvg", &settings(), &good(12)).detector;
    let mut session = detector.session(SessionOptions { batch: 2, ..SessionOptions::default() }).unwrap();
    let all: Vec<&RgbImage> = decoded.iter().collect();
    let together = session.score_batch(&all).unwrap();
    let alone = session.score(&decoded[4]).unwrap();
    assert_eq!(together[4].as_ref().unwrap(), &alone);
    assert!(matches!(test[0].source, ImageSource::Memory(_)));
}
