use std::time::Duration;

use nomaly_detectors::auto::{AutoChoice, SIZES, choose_method};
use nomaly_detectors::{
    DecisionRule, Detector, DetectorError, FitOptions, FittedDetector, PredictOptions, Prediction, StreamOptions,
};
use nomaly_methods::{METHODS, MethodError};
use nomaly_nn::runtime::Executor;
use nomaly_settings::{Assignments, SettingError};
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
    assert!(matches!(strict, Err(DetectorError::Method(MethodError::BadImage { .. }))));
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
    assert!(matches!(stopped, Err(DetectorError::Method(MethodError::Cancelled))));
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
    // 24 images cannot support a rate of 1 %: there is no decision, and p-values are unchanged.
    let strict = PredictOptions { rule: Some(DecisionRule::MaxFpr(0.01)), ..PredictOptions::default() };
    for prediction in predictions(&fitted, &strict) {
        assert!(prediction.anomalous.is_none() && prediction.p_value >= 0.04, "{prediction:?}");
    }
    let too_small = PredictOptions { rule: Some(DecisionRule::MaxFpr(1e-300)), ..PredictOptions::default() };
    let refused = fitted.predict(&dataset().test, &too_small, &Silent, |_| Ok(()));
    assert!(
        matches!(&refused, Err(DetectorError::Method(MethodError::Setting(SettingError::Value { name, .. }))) if name == "max_fpr"),
        "{refused:?}"
    );
}

#[test]
fn names_and_settings_are_checked_before_any_work() {
    let message = |method: &str, backbone: &str, settings: Assignments| {
        Detector::new(method, backbone, &settings).err().unwrap().to_string()
    };
    assert!(message("mvgg", "efficientnet-lite0", Assignments::new()).contains("did you mean `mvg`"));
    assert!(message("mvg", "efficientnet-lite", Assignments::new()).contains("did you mean `efficientnet-lite0`"));
    let with = |key: &str, value: &str| message("mvg", "efficientnet-lite0", Assignments::new().with(key, value));
    let pixels = message("features", "pixels", Assignments::new());
    assert!(pixels.contains("`pixels` is no backbone: the methods adacl, cutpaste, geotrans and patches"), "{pixels}");
    assert!(message("adacl", "adacl-cnn", Assignments::new()).contains("leave adacl-cnn out"));
    assert!(message("mvg", "adacl-cnn", Assignments::new()).contains("the network of the method adacl"));
    assert!(with("level", "all").contains("did you mean `levels`"));
    assert!(with("levels", "stage9").contains("stage"));
    assert!(with("levels", "stem,stem").contains("once"));
    assert!(with("input_size", "5").contains("from 32 to 2048"));
    assert!(with("view", "left").contains("`whole`, `center` or `pad`"));
    assert!(with("weights", "/nonexistent/w.safetensors").contains("/nonexistent/w.safetensors"));
    assert!(with("median", "3").contains("a method with maps"));
    let patches = |key: &str, value: &str| message("patches", "pixels", Assignments::new().with(key, value));
    assert!(patches("median", "4").contains("an odd number"));
    assert!(patches("weights", "w.safetensors").contains("it takes `auto` for patches, which sees pixels"));
    assert!(patches("scorer", "gausian").contains("did you mean `gaussian`"));
    // `k` is a parameter of the scorer `neighbours`, not of the default one.
    assert!(patches("k", "3").contains("unknown setting `k`"));
    let elsewhere = message("patches", "efficientnet-lite0", Assignments::new());
    assert!(
        elsewhere.contains("method patches sees pixels and takes no backbone: leave efficientnet-lite0 out"),
        "{elsewhere}"
    );
}

#[test]
fn auto_chooses_by_groups_settings_and_time() {
    let grouped = |images: usize, group_by: &str, extra: &[(&str, &str)], seconds: Option<f64>| {
        let settings = extra.iter().fold(Assignments::new(), |settings, (key, value)| settings.with(key, value));
        let budget = seconds.map(Duration::from_secs_f64);
        let options = FitOptions { group_by: group_by.parse().unwrap(), ..FitOptions::default() };
        choose_method(&good(images), "efficientnet-lite0", &settings, &options, budget, &Executor::cpu().unwrap())
    };
    let choose = |images, extra: &[(&str, &str)], seconds| grouped(images, "none", extra, seconds);
    let setting = |choice: &AutoChoice, key: &str| choice.settings.text(key);
    let usual = choose(20, &[], None).unwrap();
    assert_eq!((usual.method, setting(&usual, "sizes").as_deref()), ("patchcore", Some(SIZES)));
    assert_eq!(setting(&usual, "aspect").as_deref(), Some("keep"));
    assert!(
        usual.fit_seconds > 0.0 && usual.reason.contains("at the sizes 256,448 for 20 images, the most accurate"),
        "{usual:?}"
    );
    // All images of `train/` form one group, so that the standardization of sizes cannot be estimated.
    let scene = grouped(20, "folder", &[], None).unwrap();
    assert_eq!((setting(&scene, "sizes"), setting(&scene, "input_size").as_deref()), (None, Some("256")));
    assert!(scene.reason.contains("at the size 256 for 20 images in one group: it takes more"), "{scene:?}");
    // Given settings are kept.
    for (key, value, aspect) in
        [("input_size", "64", Some("keep")), ("tiles", "2x2", Some("keep")), ("view", "center", None)]
    {
        let given = choose(20, &[(key, value)], None).unwrap();
        let found = [setting(&given, "sizes"), setting(&given, "aspect"), setting(&given, key)];
        assert_eq!((given.method, found), ("patchcore", [None, aspect.map(str::to_owned), Some(value.to_owned())]));
        assert!(!given.reason.contains("more groups") && !given.reason.contains("most accurate"), "{given:?}");
    }
    // Neutral values of size settings change nothing.
    for (key, value) in [("view", "whole"), ("tiles", "1x1")] {
        assert_eq!(setting(&choose(20, &[(key, value)], None).unwrap(), "sizes").as_deref(), Some(SIZES));
    }
    for aspect in ["keep", "squash"] {
        let given = choose(20, &[("aspect", aspect)], None).unwrap();
        assert_eq!(
            (setting(&given, "sizes").as_deref(), setting(&given, "aspect").as_deref()),
            (Some(SIZES), Some(aspect))
        );
    }
    let listed = grouped(20, "folder", &[("sizes", "64,96")], Some(1e6)).unwrap();
    assert!(
        listed.reason.starts_with("auto chose patchcore at the sizes 64,96 for 20 images in one group;"),
        "{listed:?}"
    );
    let (few, many) =
        (choose(20, &[("bank", "10")], None).unwrap(), choose(20, &[("candidates", "none")], None).unwrap());
    assert!(few.fit_seconds < many.fit_seconds, "{few:?} {many:?}");
    let given = choose(20, &[("bank", "500")], None).unwrap();
    assert_eq!(setting(&given, "bank").as_deref(), Some("500"));
    assert_eq!(choose(20, &[("features", "10")], None).unwrap().method, "padim");
    let generous = choose(20, &[], Some(1e6)).unwrap();
    assert!(generous.method == "patchcore" && generous.reason.contains("1000000 s allowed"), "{generous:?}");
    let hasty = choose(20, &[], Some(1e-6)).unwrap_err();
    assert!(matches!(hasty, DetectorError::Method(MethodError::Limit { .. })), "{hasty}");
    for what in ["sizes 256,448 would", "the size 256 would", "padim would", "mvg would"] {
        assert!(hasty.to_string().contains(what), "{hasty}");
    }
    assert!(choose(20, &[("corset", "0.5")], None).unwrap_err().to_string().contains("corset"));
    assert!(matches!(choose(2, &[], None), Err(DetectorError::Method(MethodError::TooFew { .. }))));
}
