use std::time::Duration;

use nomaly_detectors::auto::{Choice, MANY, choose_method};
use nomaly_detectors::{
    DecisionRule, Detector, DetectorError, FitOptions, FittedDetector, METHODS, PredictOptions, Prediction, Settings,
    StreamOptions,
};
use nomaly_store::{Progress, Silent};

use crate::images::{dataset, detector, fit, good, missing, quick, settings};

fn predictions(detector: &FittedDetector, options: &PredictOptions) -> Vec<Prediction> {
    let mut all = Vec::new();
    detector
        .predict(&dataset().test, options, &Silent, |outcome| {
            all.push(outcome.result.unwrap());
            Ok(())
        })
        .unwrap();
    all
}

#[test]
fn every_method_scores_the_same_after_a_round_trip_through_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let patches = |feature: &str| ("patches", settings().with("feature", feature).with("max_patches", 1000));
    let geotrans = |score: &str| ("geotrans", quick("geotrans").with("normality", score));
    let (method, unsure) = geotrans("mc-dropout");
    let others = [patches("pca"), patches("sparse"), geotrans("two-step"), (method, unsure.with("passes", 3))];
    for (method, settings) in METHODS.names().map(|method| (method, quick(method))).chain(others) {
        let fitted = fit(method, &settings, &dataset().train).detector;
        let path = folder.path().join(method);
        fitted.save(&path).unwrap();
        let loaded = FittedDetector::load(&path).unwrap();
        assert_eq!(loaded.info(), fitted.info());
        let options = PredictOptions::default();
        assert_eq!(predictions(&loaded, &options), predictions(&fitted, &options), "{method}");
    }
}

#[test]
fn blots_score_higher_than_good_images() {
    for (method, extra) in [
        ("mvg", None),
        ("mvg", Some(("reduction", "npca"))),
        ("mvg", Some(("distance", "sed"))),
        ("dn2", None),
        ("features", None),
        ("features", Some(("scorer", "neighbours"))),
        ("patches", None),
        ("patches", Some(("feature", "expert"))),
        ("patches", Some(("feature", "sparse"))),
        ("patches", Some(("scorer", "neighbours"))),
    ] {
        let mut settings = extra.iter().fold(settings(), |settings, (key, value)| settings.with(key, value));
        if extra == Some(("feature", "sparse")) {
            settings = settings.with("max_patches", 1000);
        }
        let fitted = fit(method, &settings, &dataset().train).detector;
        let scored = predictions(&fitted, &PredictOptions::default());
        let of = |blot: usize| scored.iter().skip(blot).step_by(2).map(|prediction| prediction.score);
        let (lowest_blot, highest_good) = (of(1).fold(f64::MAX, f64::min), of(0).fold(f64::MIN, f64::max));
        assert!(lowest_blot > highest_good, "{method} {extra:?}: {lowest_blot} against {highest_good}");
    }
}

#[test]
fn threads_batches_and_neighbours_do_not_change_a_bit() {
    let bytes = |threads: usize, batch: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let stream = StreamOptions { batch, ..StreamOptions::default() };
            let fit = Detector::new("mvg", "efficientnet-lite0", &settings())
                .unwrap()
                .fit("stripes", &good(13), &FitOptions { stream, ..FitOptions::default() }, &Silent)
                .unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("model");
            fit.detector.save(&path).unwrap();
            std::fs::read(path).unwrap()
        })
    };
    let one = bytes(1, 8);
    assert!(one == bytes(2, 8), "two threads give another file");
    assert!(one == bytes(2, 3), "batches of three give another file");
}

#[test]
fn bad_images_are_left_out_and_named_unless_strict() {
    let mut samples = good(12);
    samples.insert(3, missing("lost"));
    let fit = fit("mvg", &settings(), &samples);
    assert_eq!(fit.detector.info().training.images, 12);
    assert_eq!(fit.skipped.len(), 1);
    assert!(fit.skipped[0].message.contains("lost"), "{:?}", fit.skipped);

    let stream = StreamOptions { strict: true, ..StreamOptions::default() };
    let strict = Detector::new("mvg", "efficientnet-lite0", &settings()).unwrap().fit(
        "stripes",
        &samples,
        &FitOptions { stream, ..FitOptions::default() },
        &Silent,
    );
    assert!(matches!(strict, Err(DetectorError::BadImage { .. })));
}

#[test]
fn too_few_images_are_an_error_that_says_how_many_are_needed() {
    for method in METHODS.iter() {
        let samples = good(method.min_images - 1);
        let result =
            detector(method.name, &quick(method.name)).fit("stripes", &samples, &FitOptions::default(), &Silent);
        let message = result.err().unwrap().to_string();
        assert!(message.contains(&format!("at least {}", method.min_images)), "{message}");
        fit(method.name, &quick(method.name), &good(method.min_images));
    }
}

#[test]
fn a_run_can_be_stopped() {
    struct Stop;
    impl Progress for Stop {
        fn start(&self, _what: &str, _total: Option<u64>) {}
        fn advance(&self, _amount: u64) {}
        fn finish(&self) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let detector = Detector::new("mvg", "efficientnet-lite0", &settings()).unwrap();
    let stopped = detector.fit("stripes", &good(30), &FitOptions::default(), &Stop);
    assert!(matches!(stopped, Err(DetectorError::Cancelled)));
}

#[test]
fn the_decision_rule_can_be_replaced_when_scoring() {
    let fitted = fit("dn2", &settings(), &dataset().train).detector;
    let flagged = |rule| {
        let options = PredictOptions { rule, ..PredictOptions::default() };
        predictions(&fitted, &options).iter().filter(|prediction| prediction.anomalous == Some(true)).count()
    };
    assert_eq!(flagged(Some(DecisionRule::Threshold(f64::INFINITY))), 0);
    assert_eq!(flagged(Some(DecisionRule::Threshold(-1.0))), 16);
    assert!(flagged(Some(DecisionRule::MaxFpr(0.5))) >= flagged(None));
    // 24 images cannot promise 1 %: nothing is decided, and the p-values stay.
    let strict = PredictOptions { rule: Some(DecisionRule::MaxFpr(0.01)), ..PredictOptions::default() };
    for prediction in predictions(&fitted, &strict) {
        assert!(prediction.anomalous.is_none() && prediction.p_value >= 0.04, "{prediction:?}");
    }
    let too_small = PredictOptions { rule: Some(DecisionRule::MaxFpr(1e-300)), ..PredictOptions::default() };
    let refused = fitted.predict(&dataset().test, &too_small, &Silent, |_| Ok(()));
    assert!(matches!(&refused, Err(DetectorError::SettingValue { name, .. }) if name == "max_fpr"), "{refused:?}");
}

#[test]
fn names_and_settings_are_checked_before_any_work() {
    let message = |method: &str, backbone: &str, settings: Settings| {
        Detector::new(method, backbone, &settings).err().unwrap().to_string()
    };
    assert!(message("mvgg", "efficientnet-lite0", Settings::default()).contains("did you mean `mvg`"));
    assert!(message("mvg", "efficientnet-lite", Settings::default()).contains("did you mean `efficientnet-lite0`"));
    let with = |key: &str, value: &str| message("mvg", "efficientnet-lite0", Settings::default().with(key, value));
    assert!(with("level", "all").contains("did you mean `levels`"));
    assert!(with("levels", "stage9").contains("stage"));
    assert!(with("levels", "stem,stem").contains("once"));
    assert!(with("input_size", "5").contains("from 32 to 2048"));
    assert!(with("view", "left").contains("`whole`, `center` or `pad`"));
    assert!(with("weights", "/nonexistent/w.safetensors").contains("/nonexistent/w.safetensors"));
    assert!(with("median", "3").contains("a method with maps"));
    let patches = |key: &str, value: &str| message("patches", "pixels", Settings::default().with(key, value));
    assert!(patches("median", "4").contains("an odd number"));
    assert!(patches("weights", "w.safetensors").contains("has no weights"));
    assert!(patches("scorer", "gausian").contains("did you mean `gaussian`"));
    // `k` is a parameter of the scorer `neighbours`, not of the default one.
    assert!(patches("k", "3").contains("unknown setting `k`"));
    let elsewhere = message("patches", "efficientnet-lite0", Settings::default());
    assert!(elsewhere.contains("stands on the backbone pixels only"), "{elsewhere}");
}

#[test]
fn auto_chooses_by_images_settings_and_time() {
    let choose = |images: usize, extra: Option<(&str, &str)>, seconds: Option<f64>| {
        let settings = extra.iter().fold(settings(), |settings, (key, value)| settings.with(key, value));
        let budget = seconds.map(Duration::from_secs_f64);
        choose_method(&good(images), "efficientnet-lite0", &settings, budget, StreamOptions::default())
    };
    let method = |choice: Result<Choice, DetectorError>| choice.unwrap().method;
    assert_eq!(method(choose(20, None, None)), "patchcore");
    assert_eq!(method(choose(MANY, None, None)), "padim");
    assert_eq!(method(choose(MANY, Some(("coreset", "0.5")), None)), "patchcore");
    assert_eq!(method(choose(20, Some(("features", "10")), None)), "padim");
    let generous = choose(20, None, Some(1e6)).unwrap();
    assert!(generous.method == "patchcore" && generous.reason.contains("1000000 s allowed"), "{generous:?}");
    let hasty = choose(20, None, Some(1e-6)).unwrap_err();
    assert!(matches!(hasty, DetectorError::TimeBudget { .. }), "{hasty}");
    assert!(hasty.to_string().contains("mvg would take"), "{hasty}");
    assert!(choose(20, Some(("corset", "0.5")), None).unwrap_err().to_string().contains("corset"));
    assert!(matches!(choose(2, None, None), Err(DetectorError::TooFewImages { .. })));
}
