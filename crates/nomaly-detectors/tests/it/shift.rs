//! Shifts of single images and of whole runs.

use std::sync::Arc;

use image::{Rgb, RgbImage};
use nomaly_data::{ImageSource, Label, Sample};
use nomaly_detectors::shift::{InputProfile, InputShift, Look, RunShift, ShiftKind, Statistic};
use nomaly_detectors::{DetectorError, FittedDetector, PredictOptions};
use nomaly_store::Silent;
use nomaly_transforms::statistics::ImageStatistics;
use nomaly_transforms::{FileFacts, FormatFamily};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::hostile_models::sealed;
use crate::images::{fit, settings};

/// A noisy surface whose brightness varies by some levels.
fn surface(seed: u64) -> RgbImage {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let level = random.random_range(110..126);
    RgbImage::from_fn(64, 64, |x, y| {
        let value = level + 20 * (x / 4 % 2) as i32 + 10 * (y / 8 % 2) as i32 + random.random_range(-8..=8);
        Rgb([value as u8, value as u8, (value - 20) as u8])
    })
}

fn sample(image: RgbImage, number: u64) -> Sample {
    let (id, source) = (format!("image/{number}"), ImageSource::Memory(Arc::new(image)));
    Sample { id, source, label: Label::Normal, kind: "good".to_owned(), mask: None }
}

fn samples(seeds: std::ops::Range<u64>, change: impl Fn(RgbImage) -> RgbImage) -> Vec<Sample> {
    seeds.map(|seed| sample(change(surface(seed)), seed)).collect()
}

/// The shift of each image, and that of the run.
fn shifts(detector: &FittedDetector, samples: &[Sample]) -> (Vec<Option<InputShift>>, RunShift) {
    let mut watch = detector.input_profile().unwrap().watch();
    let mut found = Vec::new();
    detector
        .predict(samples, &PredictOptions::default(), &Silent, |outcome| {
            let shift = outcome.result.unwrap().input_shift;
            watch.add(&outcome.look.unwrap(), shift.as_ref());
            found.push(shift);
            Ok(())
        })
        .unwrap();
    (found, watch.verdict())
}

fn brighter(by: u8) -> impl Fn(RgbImage) -> RgbImage {
    move |mut image| {
        image.iter_mut().for_each(|value| *value += by);
        image
    }
}

#[test]
fn predictions_say_why_images_are_unlike_the_training_images() {
    let detector = fit("mvg", &settings(), &samples(0..30, |image| image)).detector;
    let (unshifted, run) = shifts(&detector, &samples(1000..1040, |image| image));
    assert_eq!(unshifted.iter().flatten().next(), None);
    assert_eq!((run.images, run.shifted, run.is_shifted()), (40, 0, false));

    let (found, run) = shifts(&detector, &samples(2000..2010, brighter(40)));
    for shift in &found {
        let shift = shift.as_ref().unwrap();
        assert_eq!((shift.worst, shift.kinds[0]), (ShiftKind::Brightness, ShiftKind::Brightness));
        assert!(shift.p_value < 1e-3, "{shift:?}");
        assert!(shift.message.starts_with("brighter than the training images (0.6"), "{}", shift.message);
    }
    assert_eq!((run.shifted, run.by_kind[&ShiftKind::Brightness]), (10, 10));

    // The change is smaller than the spread of the training images: no single image is shifted, but the run is.
    let (found, run) = shifts(&detector, &samples(3000..3020, brighter(9)));
    assert!(found.iter().flatten().all(|shift| shift.worst != ShiftKind::Brightness));
    assert_eq!(run.findings[0].kind, ShiftKind::Brightness);
    assert!(run.findings[0].message.starts_with("the 20 images as a whole are brighter"), "{:?}", run.findings);

    let (found, _) = shifts(&detector, &[sample(image::imageops::rotate90(&surface(1)), 1)]);
    assert_eq!(found[0].as_ref().unwrap().worst, ShiftKind::Orientation);
    let double = |image| image::imageops::resize(&image, 128, 128, image::imageops::FilterType::Triangle);
    let (found, run) = shifts(&detector, &samples(4000..4005, double));
    let shift = found[0].as_ref().unwrap();
    assert_eq!((shift.worst, shift.p_value), (ShiftKind::Size, 1.0 / 31.0));
    assert!(shift.message.starts_with("128×128 pixels, and all 30 training images have 64×64"), "{}", shift.message);
    assert_eq!(run.findings[0].kind, ShiftKind::Size);
}

#[test]
fn the_profile_is_kept_in_the_model_file_and_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nomaly");
    let detector = fit("mvg", &settings(), &samples(0..20, |image| image)).detector;
    detector.save(&path).unwrap();
    let loaded = FittedDetector::load(&path).unwrap();
    let profile = detector.input_profile().unwrap();
    assert_eq!((loaded.input_profile(), profile.images()), (Some(profile), 20));
    assert!(profile.distribution(Statistic::Features).is_some());

    let bytes = std::fs::read(&path).unwrap();
    let place = bytes.windows(10).position(|window| window == b"brightness").unwrap();
    let end = bytes[place..].windows(9).position(|window| window == b"quantiles").unwrap() + place;
    let first = bytes[end..].iter().position(u8::is_ascii_digit).unwrap() + end;
    // 0.4… becomes 9.4…, above all that follow.
    let mut damaged = bytes;
    damaged[first] = b'9';
    std::fs::write(&path, sealed(damaged)).unwrap();
    match FittedDetector::load(&path).err() {
        Some(DetectorError::ModelFile { reason, .. }) => assert!(reason.contains("profile"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_model_that_learns_more_images_widens_its_profile() {
    let detector = fit("spade", &settings(), &samples(0..20, |image| image)).detector;
    let dark = |mut image: RgbImage| {
        image.iter_mut().for_each(|value| *value -= 40);
        image
    };
    let (before, _) = shifts(&detector, &samples(500..503, dark));
    assert!(before.iter().all(|shift| shift.as_ref().unwrap().kinds.contains(&ShiftKind::Brightness)));
    let more = samples(100..120, dark);
    let detector = detector.extend(&more, &Default::default(), Default::default(), &Silent).unwrap().detector;
    assert_eq!(detector.input_profile().unwrap().images(), 40);
    let (after, _) = shifts(&detector, &samples(500..503, dark));
    assert_eq!(after.iter().flatten().next(), None);
}

#[test]
fn facts_count_where_the_training_images_agree() {
    let look = |format: FormatFamily, bits: u8, jpeg_quality: Option<u8>, seed: u64| Look {
        size: (64, 64),
        file: Some(FileFacts { format, bits, jpeg_quality }),
        statistics: ImageStatistics::of(&surface(seed)),
        features: None,
    };
    let png = |seed| look(FormatFamily::Png, 8, None, seed);
    let jpeg = |quality, seed| look(FormatFamily::Jpeg, 8, Some(quality), seed);
    let all_png: Vec<Look> = (0..20).map(png).collect();
    let profile = InputProfile::of(&all_png, None).unwrap();
    assert_eq!(profile.shift(&png(99)), None);
    let shift = profile.shift(&jpeg(75, 99)).unwrap();
    assert_eq!((shift.worst, shift.p_value), (ShiftKind::Format, 1.0 / 21.0));
    assert_eq!(shift.message, "a JPEG file of quality 75, and all 20 training images are PNG");
    let wide = look(FormatFamily::Png, 16, None, 99);
    assert_eq!(profile.shift(&wide).unwrap().kinds, [ShiftKind::BitDepth]);
    let mut grey = png(99);
    grey.statistics.grey = true;
    assert_eq!(profile.shift(&grey).unwrap().kinds, [ShiftKind::Color]);

    let all_jpeg: Vec<Look> = (0..20).map(|seed| jpeg(90, seed)).collect();
    let profile = InputProfile::of(&all_jpeg, None).unwrap();
    assert_eq!(profile.shift(&jpeg(88, 99)), None);
    let shift = profile.shift(&jpeg(50, 99)).unwrap();
    assert_eq!(shift.message, "JPEG quality 50, and all 20 training images have 90");

    let mixed: Vec<Look> = all_png.iter().chain(&all_jpeg).cloned().collect();
    let profile = InputProfile::of(&mixed, None).unwrap();
    assert_eq!(profile.shift(&jpeg(75, 99)), None);
    assert_eq!(InputProfile::of(&[], None), None);
}

#[test]
fn runs_are_seldom_called_shifted_and_small_changes_of_all_are_found() {
    fn normal(random: &mut ChaCha8Rng) -> f32 {
        (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0
    }
    let look = |random: &mut ChaCha8Rng, by: f32| Look {
        size: (64, 64),
        file: None,
        statistics: ImageStatistics {
            brightness: 0.5 + 0.02 * (normal(random) + by),
            contrast: 0.1 + 0.01 * normal(random),
            sharpness: 0.2 * normal(random),
            noise: 0.02 + 0.002 * normal(random),
            saturation: 0.1 + 0.02 * normal(random),
            red_green: 0.02 * normal(random),
            blue_green: 0.02 * normal(random),
            blockiness: 0.1 * normal(random),
            orientation: 0.2 * normal(random),
            grey: false,
        },
        features: None,
    };
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let (mut wrongly, mut odd, mut found) = (0, 0, 0);
    for _ in 0..300 {
        let training: Vec<Look> = (0..30).map(|_| look(&mut random, 0.0)).collect();
        let profile = InputProfile::of(&training, None).unwrap();
        let mut verdict = |by: f32| {
            let mut watch = profile.watch();
            for _ in 0..20 {
                let look = look(&mut random, by);
                watch.add(&look, profile.shift(&look).as_ref());
            }
            watch.verdict()
        };
        let unshifted = verdict(0.0);
        wrongly += usize::from(unshifted.is_shifted());
        odd += unshifted.shifted;
        let shifted = verdict(2.0);
        found += usize::from(shifted.findings.first().is_some_and(|finding| finding.kind == ShiftKind::Brightness));
    }
    assert!(wrongly <= 3, "{wrongly} of 300 unshifted runs are called shifted");
    assert!(odd <= 60, "{odd} of 6000 unshifted images are called shifted");
    assert!(found >= 270, "{found} of 300 runs of brighter images are found");
}
