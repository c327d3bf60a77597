//! Dependent training images are held out together and count as one.

use std::sync::Arc;

use image::{Rgb, RgbImage};
use nomaly_data::{ImageSource, Label, Sample};
use nomaly_detectors::refit::fit_without_suspicious;
use nomaly_detectors::suspicion::{naming_level, suspicious};
use nomaly_detectors::{DecisionRule, Detector, FitOptions, FitResult, FittedDetector, PredictOptions, StreamOptions};
use nomaly_methods::GroupBy;
use nomaly_store::Silent;
use nomaly_transforms::augment::{Change, Changes};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::images::{blot, good, settings};

/// A frame of a scene: blobs at positions of the scene, with noise of about two gray values per frame.
fn frame(scene: u64, frame: u64) -> RgbImage {
    let mut places = ChaCha8Rng::seed_from_u64(scene);
    let blobs: Vec<[f32; 4]> = (0..6)
        .map(|_| {
            let [x, y] = [places.random_range(0.0..48.0), places.random_range(0.0..48.0)];
            [x, y, places.random_range(3.0..9.0), places.random_range(-60.0..60.0)]
        })
        .collect();
    let mut noise = ChaCha8Rng::seed_from_u64(1000 * scene + frame + 1);
    RgbImage::from_fn(48, 48, |x, y| {
        let at = |[left, top, radius, height]: &[f32; 4]| {
            let square = (x as f32 - left).powi(2) + (y as f32 - top).powi(2);
            height * (-square / (2.0 * radius * radius)).exp()
        };
        let normal: f32 = (0..12).map(|_| noise.random::<f32>()).sum::<f32>() - 6.0;
        Rgb([(128.0 + blobs.iter().map(at).sum::<f32>() + 2.0 * normal) as u8; 3])
    })
}

fn sample(id: String, image: RgbImage) -> Sample {
    let source = ImageSource::Memory(Arc::new(image));
    Sample { id, source, label: Label::Normal, kind: "good".to_owned(), mask: None }
}

/// Fourteen scenes, three frames of each one after another.
fn bursts() -> Vec<Sample> {
    let frames = (0..14).flat_map(|scene| (0..3).map(move |number| (scene, number)));
    frames.map(|(scene, number)| sample(format!("train/{scene:02}/{number}"), frame(scene, number))).collect()
}

fn fit(method: &str, samples: &[Sample], group_by: GroupBy) -> FitResult {
    let options = FitOptions { rule: DecisionRule::MaxFpr(0.1), group_by, ..FitOptions::default() };
    let detector = Detector::new(method, "efficientnet-lite0", &settings()).unwrap();
    detector.fit("scenes", samples, &options, &Silent).unwrap()
}

/// The number of flagged images among 20 good images of new scenes.
fn flagged(detector: &FittedDetector) -> usize {
    let test: Vec<Sample> = (500..520).map(|scene| sample(format!("test/{scene}"), frame(scene, 0))).collect();
    let mut count = 0;
    let count_them = |outcome: nomaly_detectors::Outcome<'_>| {
        count += usize::from(outcome.result.unwrap().anomalous == Some(true));
        Ok(())
    };
    detector.predict(&test, &PredictOptions::default(), &Silent, count_them).unwrap();
    count
}

#[test]
fn bursts_do_not_flag_every_further_scene() {
    let train = bursts();
    for method in ["mvg", "padim", "patchcore"] {
        let apart = fit(method, &train, GroupBy::None);
        assert_eq!(apart.detector.calibration().independent(), 42);
        assert!(flagged(&apart.detector) >= 15, "{method}: {}", flagged(&apart.detector));
        let grouped = fit(method, &train, GroupBy::Auto);
        let groups = &grouped.detector.info().training.groups;
        // A few frames may count as separate scenes.
        assert!((14..=20).contains(&groups.count) && grouped.held_out.len() == 42, "{method}: {groups:?}");
        assert!(groups.how.as_ref().unwrap().contains("near-copies"));
        // More than 6 of 20 have a probability of 0.2 % at a rate of 10 %.
        assert!(flagged(&grouped.detector) <= 6, "{method}: {}", flagged(&grouped.detector));
        let by_folder = fit(method, &train, GroupBy::Folder);
        assert_eq!(by_folder.detector.calibration().independent(), 14);
        assert!(flagged(&by_folder.detector) <= 6, "{method}: {}", flagged(&by_folder.detector));
    }
}

#[test]
fn every_method_leaves_whole_groups_out() {
    let train = bursts();
    for method in ["dn2", "features", "spade"] {
        let grouped = fit(method, &train, "train/(..)/".parse().unwrap());
        assert_eq!(grouped.detector.calibration().independent(), 14);
        let apart = fit(method, &train, GroupBy::None);
        let median = |fit: &FitResult| fit.detector.calibration().held_out()[20];
        // SPADE averages over all other images, few of which are near-copies.
        let least = if method == "spade" { 1.02 } else { 1.2 };
        assert!(median(&grouped) > least * median(&apart), "{method}: {} {}", median(&grouped), median(&apart));
    }
}

#[test]
fn groups_are_kept_in_the_model_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grouped.nomaly");
    let grouped = fit("padim", &bursts(), GroupBy::Auto).detector;
    grouped.save(&path).unwrap();
    let read = FittedDetector::load(&path).unwrap();
    let (a, b) = (grouped.calibration(), read.calibration());
    assert_eq!((a.in_order(), a.groups(), a.threshold()), (b.in_order(), b.groups(), b.threshold()));
    assert_eq!(a.map_threshold(), b.map_threshold());
    assert_eq!(read.info().training.groups, grouped.info().training.groups);
    let strict = PredictOptions { rule: Some(DecisionRule::MaxFpr(0.05)), ..PredictOptions::default() };
    let decider = read.decider_under(strict.rule).unwrap();
    assert!(decider.calibration().unattainable().unwrap().contains("19 independent groups"));
}

#[test]
fn independent_images_stay_independent() {
    for method in ["mvg", "patchcore"] {
        let fitted = fit(method, &good(40), GroupBy::Auto);
        assert_eq!(fitted.detector.info().training.groups.how, None, "{method}");
        assert_eq!(fitted.detector.calibration().groups(), None);
    }
}

#[test]
fn changed_copies_stand_beside_their_image() {
    let changes = Changes(vec![Change::Gain(0.9), Change::Jpeg(60)]);
    let options = FitOptions { changes, ..FitOptions::default() };
    let detector = Detector::new("mvg", "efficientnet-lite0", &settings()).unwrap();
    let fit = detector.fit("stripes", &good(24), &options, &Silent).unwrap();
    let calibration = fit.detector.calibration();
    assert_eq!((calibration.in_order().len(), calibration.independent()), (72, 24));
    assert_eq!(fit.held_out.iter().map(|image| image.sample).max(), Some(23));
}

#[test]
fn a_new_decision_comes_from_new_images_and_keeps_the_old_one() {
    let detector = fit("mvg", &good(30), GroupBy::Auto).detector;
    let before = detector.calibration().threshold();
    let rule = DecisionRule::MaxFpr(0.05);
    let samples: Vec<Sample> = (0..25).map(|scene| sample(format!("{scene}"), frame(scene, 0))).collect();
    let stream = StreamOptions::default();
    let (detector, skipped) = detector.calibrate("scenes", &samples, &GroupBy::Auto, rule, stream, &Silent).unwrap();
    assert!(skipped.is_empty() && detector.calibration().threshold() != before);
    assert_eq!(detector.calibration().in_order().len(), 25);
    let history = detector.info().history.clone();
    assert_eq!((history.calibrated_on.as_deref(), history.past.len()), (Some("scenes"), 1));
    assert_eq!((history.past[0].threshold, history.past[0].held_out), (before, 30));
    let by_hand = detector.with_decision(DecisionRule::Threshold(7.0)).unwrap();
    assert_eq!((by_hand.calibration().threshold(), by_hand.info().history.past.len()), (Some(7.0), 2));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calibrated.nomaly");
    by_hand.save(&path).unwrap();
    assert_eq!(FittedDetector::load(&path).unwrap().info(), by_hand.info());
}

#[test]
fn defects_among_the_training_images_are_named_and_left_out() {
    let mut train = good(36);
    for number in 0..4 {
        train.insert(9 * number as usize, blot(number).0);
    }
    let bad = [0, 9, 18, 27];
    let options = FitOptions::default();
    let make = || Detector::new("patchcore", "efficientnet-lite0", &settings());
    let fit = make().unwrap().fit("spoiled", &train, &options, &Silent).unwrap();
    let mut named: Vec<usize> = suspicious(&fit.held_out, naming_level(40)).iter().map(|image| image.sample).collect();
    named.sort_unstable();
    assert_eq!(named, bad);
    let cleaned = fit_without_suspicious(&make, "spoiled", &train, &options, 0.001, &Silent).unwrap();
    let mut left_out: Vec<usize> = cleaned.dropped.iter().map(|image| image.sample).collect();
    left_out.sort_unstable();
    assert_eq!((left_out.as_slice(), cleaned.detector.info().training.dropped), (&bad[..], 4));
    assert!(cleaned.held_out.iter().all(|image| !bad.contains(&image.sample)));
    assert!(cleaned.detector.calibration().threshold() < fit.detector.calibration().threshold());
}
