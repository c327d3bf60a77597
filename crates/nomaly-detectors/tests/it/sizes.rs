//! Several sizes, and kept aspect ratios.

use std::path::Path;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use nomaly_data::{ImageSource, Label, Sample};
use nomaly_detectors::fusion::Fusion;
use nomaly_detectors::{
    Detector, DetectorError, FitOptions, FitResult, FittedDetector, PredictOptions, Prediction, StreamOptions,
};
use nomaly_methods::{AnomalyMap, GroupBy, METHODS};
use nomaly_settings::Assignments;
use nomaly_store::Silent;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::hostile_models::{sealed, with_facts};
use crate::images::{backbone, dataset, detector, fit, good};

/// Two small sizes.
fn two() -> Assignments {
    Assignments::new().with("sizes", "64,96")
}

/// Methods that support several sizes.
fn sized() -> impl Iterator<Item = &'static str> {
    METHODS.iter().filter(|entry| !entry.trains && !entry.classes).map(|entry| entry.name)
}

fn predict(detector: &FittedDetector, samples: &[Sample]) -> Vec<Prediction> {
    let mut all = Vec::new();
    let collect = |outcome: nomaly_detectors::Outcome<'_>| {
        all.push(outcome.result.unwrap());
        Ok(())
    };
    detector.predict(samples, &PredictOptions::default(), &Silent, collect).unwrap();
    all
}

fn saved(detector: &FittedDetector, path: &Path) -> Vec<u8> {
    detector.save(path).unwrap();
    std::fs::read(path).unwrap()
}

/// The model with the fusion of another one.
fn with_fusion(detector: &FittedDetector, fusion: &Fusion) -> FittedDetector {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.nomaly");
    let bytes = saved(detector, &path);
    let edited = with_facts(&bytes, |facts| facts["model"]["fusion"] = serde_json::to_value(fusion).unwrap());
    std::fs::write(&path, edited).unwrap();
    FittedDetector::load(&path).unwrap()
}

#[test]
fn every_method_that_does_not_train_sees_several_sizes() {
    let data = dataset();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.nomaly");
    for method in sized() {
        let FitResult { detector, held_out, .. } = fit(method, &two(), &data.train);
        assert_eq!(held_out.len(), 24, "{method}");
        assert_eq!(detector.part_names(), ["64×64", "96×96"], "{method}");
        assert_eq!(detector.info().input_in_words(), "64×64 and 96×96 pixels");
        let found = predict(&detector, &data.test);
        for prediction in &found {
            assert_eq!(prediction.parts.len(), 2, "{method}");
            match &prediction.map {
                // A blot stands out at both sizes, so that the maximum of the sum is about the sum of the maxima.
                Some(map) => {
                    assert_eq!([map.height, map.width], [64, 64], "{method}");
                    assert_eq!(map.max(), prediction.score, "{method}");
                    assert!(prediction.score <= prediction.parts.iter().sum::<f64>() + 1e-5, "{method}");
                }
                None => assert_eq!(prediction.score, prediction.parts.iter().sum::<f64>(), "{method}"),
            }
        }
        let mean = |label: Label| {
            let of_label = found.iter().zip(&data.test).filter(|(_, sample)| sample.label == label);
            let scores: Vec<f64> = of_label.map(|(prediction, _)| prediction.score).collect();
            scores.iter().sum::<f64>() / scores.len() as f64
        };
        assert!(mean(Label::Anomalous) > mean(Label::Normal) + 1.0, "{method}");
        detector.save(&path).unwrap();
        let loaded = FittedDetector::load(&path).unwrap();
        assert_eq!(predict(&loaded, &data.test), found, "{method}");
        assert_eq!(loaded.info(), detector.info(), "{method}");
    }
}

#[test]
fn held_out_scores_are_those_of_fits_without_the_image() {
    let samples = good(16);
    let patchcore = two().with("coreset", 1);
    // In standard deviations of held-out scores. PaDiM downdates covariances in single precision.
    for (method, settings, tolerance) in [("padim", two(), 4e-2), ("patchcore", patchcore, 1e-6)] {
        let full = fit(method, &settings, &samples);
        // The held-out score of each image at each size, standardized by the other images.
        let alone: Vec<(Fusion, Vec<f64>)> = (0..samples.len())
            .map(|image| {
                let mut others = samples.clone();
                let own = others.remove(image);
                let without = fit(method, &settings, &others).detector;
                let parts = predict(&without, &[own]).remove(0).parts;
                (without.info().fusion.clone().unwrap(), parts)
            })
            .collect();
        let largest = |image: usize, size: usize| {
            let (fusion, parts) = &alone[image];
            parts[size] * fusion.sizes[size].deviation + fusion.sizes[size].mean
        };
        for image in [0, 5, 15] {
            // Mean and deviation of the others' largest values.
            let mut fusion = full.detector.info().fusion.clone().unwrap();
            for (size, fused) in fusion.sizes.iter_mut().enumerate() {
                let values: Vec<f64> =
                    (0..samples.len()).filter(|other| *other != image).map(|other| largest(other, size)).collect();
                fused.mean = values.iter().sum::<f64>() / values.len() as f64;
                let squares: f64 = values.iter().map(|value| (value - fused.mean).powi(2)).sum();
                fused.deviation = (squares / (values.len() - 1) as f64).sqrt();
            }
            let mut others = samples.clone();
            let own = others.remove(image);
            let without = with_fusion(&fit(method, &settings, &others).detector, &fusion);
            let expected = predict(&without, &[own]).remove(0).score;
            let found = full.held_out[image].score;
            assert!((found - expected).abs() <= tolerance, "{method}: {found}, {expected}");
        }
    }
}

#[test]
fn what_is_learned_later_is_learned_at_every_size() {
    let all = good(24);
    let settings = two().with("coreset", 1).with("reweighting", "off");
    let first = fit("patchcore", &settings, &all[..16]).detector;
    let fusion = first.info().fusion.clone().unwrap();
    let expected: Vec<f64> = predict(&first, &all[16..]).iter().map(|prediction| prediction.score).collect();
    let refitted = with_fusion(&fit("patchcore", &settings, &all).detector, &fusion);
    let FitResult { detector, held_out, .. } =
        first.extend(&all[16..], &GroupBy::None, StreamOptions::default(), &Silent).unwrap();
    assert_eq!(held_out.iter().map(|image| image.score).collect::<Vec<_>>(), expected);
    assert_eq!(detector.info().fusion, Some(fusion));
    assert_eq!(detector.calibration().held_out().len(), 24);
    let scores = |detector: &FittedDetector| -> Vec<(f64, Option<AnomalyMap>)> {
        let found = predict(detector, &dataset().test);
        found.into_iter().map(|prediction| (prediction.score, prediction.map)).collect()
    };
    assert_eq!(scores(&detector), scores(&refitted));
}

#[test]
fn threads_batches_and_kept_frames_do_not_change_a_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.nomaly");
    let bytes = |method: &str, threads: usize, batch: usize, memory: &str| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let stream = StreamOptions { batch, ..StreamOptions::default() };
            let settings = two().with("aspect", "keep").with("max_memory", memory);
            let settings = match method {
                "patchcore" => settings.with("bank", 500).with("candidates", 800).with("coreset", 1),
                _ => settings,
            };
            let options = FitOptions { stream, ..FitOptions::default() };
            let fitted = detector(method, &settings).fit("strips", &strips(300, 110, 13), &options, &Silent).unwrap();
            let bytes = saved(&fitted.detector, &path);
            // The file stores the limit.
            with_facts(&bytes, |facts| facts["model"]["method"]["settings"]["max_memory"] = json!("any"))
        })
    };
    for method in ["padim", "patchcore"] {
        let one = bytes(method, 1, 8, "2GiB");
        assert!(one == bytes(method, 2, 8, "2GiB"), "{method}: two threads give another file");
        assert!(one == bytes(method, 2, 3, "2GiB"), "{method}: batches of three give another file");
        assert!(one == bytes(method, 2, 3, "513MiB"), "{method}: less memory gives another file");
    }
}

/// Good images of a noisy ramp.
fn strips(width: u32, height: u32, count: u64) -> Vec<Sample> {
    (0..count).map(|seed| strip(width, height, seed, None)).collect()
}

/// A noisy ramp, with a dot around a place.
fn strip(width: u32, height: u32, seed: u64, dot: Option<(u32, u32)>) -> Sample {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut image = RgbImage::from_fn(width, height, |x, y| {
        let value = (80 + 60 * x / width + 30 * y / height + random.random_range(0..20)) as u8;
        Rgb([value, value, value])
    });
    if let Some((left, top)) = dot {
        for (x, y) in (0..DOT).flat_map(|x| (0..DOT).map(move |y| (left + x, top + y))) {
            image.put_pixel(x, y, Rgb([250, 20, 20]));
        }
    }
    let id = format!("{width}x{height}/{seed}");
    Sample {
        id,
        source: ImageSource::Memory(Arc::new(image)),
        label: Label::Normal,
        kind: "good".to_owned(),
        mask: None,
    }
}

/// Side of a dot in pixels.
const DOT: u32 = 14;

#[test]
fn a_dot_in_each_corner_is_found_there_whatever_the_shape() {
    for (width, height, sizes) in
        [(320, 100, ["32×128", "64×224"]), (96, 320, ["128×32", "224×64"]), (160, 160, ["64×64", "128×128"])]
    {
        let corners = [(3, 3), (width - DOT - 3, 3), (3, height - DOT - 3), (width - DOT - 3, height - DOT - 3)];
        let dotted: Vec<Sample> = corners.iter().map(|corner| strip(width, height, 77, Some(*corner))).collect();
        let one = Assignments::new().with("input_size", 128);
        for settings in [one.clone(), one.with("flips", "both"), Assignments::new().with("sizes", "64,128")] {
            let settings = settings.with("aspect", "keep");
            for method in ["padim", "patchcore", "spade"] {
                let FitResult { detector, notes, .. } = fit(method, &settings, &strips(width, height, 12));
                if settings.get("sizes").is_some() {
                    assert_eq!(detector.part_names(), sizes, "{method}");
                    assert!(notes[0].contains(&sizes.join(" and ")), "{notes:?}");
                } else {
                    assert!(notes[0].contains(sizes[1]), "{notes:?}");
                }
                for ((left, top), prediction) in corners.iter().zip(predict(&detector, &dotted)) {
                    let map = prediction.map.unwrap();
                    assert_eq!([map.height, map.width], detector.pipeline().frame_size());
                    let on_image = detector.map_on_image(&map, (width, height)).unwrap();
                    assert_eq!((on_image.width, on_image.height), (width as usize, height as usize));
                    let values = &on_image.values;
                    let peak = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap() as u32;
                    let near =
                        |at: u32, from: u32| (from..from + DOT).contains(&at) || at.abs_diff(from + DOT / 2) < 20;
                    let (x, y) = (peak % width, peak / width);
                    assert!(
                        near(x, *left) && near(y, *top),
                        "{method} {settings:?} {width}x{height}: peak at {x}, {y}, dot at {left}, {top}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_region_of_interest_counts_at_every_size_and_a_new_decision_is_one_of_all_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roi.png");
    // The left half of a wide image.
    image::GrayImage::from_fn(32, 10, |x, _| image::Luma([if x < 16 { 255 } else { 0 }])).save(&path).unwrap();
    let settings = Assignments::new().with("sizes", "64,128").with("aspect", "keep").with("roi", path.display());
    for method in ["padim", "patchcore", "spade"] {
        let detector = fit(method, &settings, &strips(320, 100, 12)).detector;
        let dotted = [strip(320, 100, 77, Some((60, 40))), strip(320, 100, 78, Some((250, 40)))];
        let found = predict(&detector, &dotted);
        assert!(found[0].score > found[1].score + 3.0, "{method}: {} {}", found[0].score, found[1].score);
        for prediction in &found {
            let map = prediction.map.as_ref().unwrap();
            let least = map.values.iter().copied().fold(f32::INFINITY, f32::min);
            let right = map.values.chunks(map.width).flat_map(|row| &row[map.width / 2 + 1..]);
            assert!(right.into_iter().all(|value| *value == least), "{method}");
        }
        let others = strips(320, 100, 40).split_off(12);
        let scores: Vec<f64> = predict(&detector, &others).iter().map(|prediction| prediction.score).collect();
        let rule = nomaly_detectors::DecisionRule::MaxFpr(0.1);
        let stream = StreamOptions::default();
        let (calibrated, _) = detector.calibrate("others", &others, &GroupBy::None, rule, stream, &Silent).unwrap();
        assert_eq!(calibrated.calibration().in_order(), scores, "{method}");
        let mut sorted = scores.clone();
        sorted.sort_by(f64::total_cmp);
        assert_eq!(calibrated.calibration().map_maxima().unwrap(), sorted, "{method}");
    }
}

#[test]
fn few_groups_are_told_and_one_image_is_too_few() {
    let options = FitOptions { group_by: "folder".parse().unwrap(), ..FitOptions::default() };
    let fitted = detector("padim", &two()).fit("stripes", &good(12), &options, &Silent).unwrap();
    assert!(fitted.notes.iter().any(|note| note.contains("learned from one group of images")), "{:?}", fitted.notes);
    let one = two().with("held_out", 1);
    let fitted = fit("patchcore", &one, &good(12));
    assert_eq!(fitted.held_out.len(), 1);
}

#[test]
fn methods_that_turn_images_refuse_other_shapes_before_they_train() {
    for method in ["geotrans", "adacl"] {
        let settings = crate::images::quick(method).with("aspect", "keep");
        let failed = detector(method, &settings).fit("strips", &strips(96, 32, 8), &FitOptions::default(), &Silent);
        let message = failed.err().unwrap().to_string();
        assert!(message.contains("square"), "{method}: {message}");
    }
}

#[test]
fn the_shape_is_the_median_of_the_training_images() {
    let mut samples = strips(200, 100, 9);
    samples.extend(strips(100, 200, 4));
    samples.push(crate::images::missing("absent"));
    let settings = Assignments::new().with("input_size", 64).with("aspect", "keep");
    let FitResult { detector, notes, skipped, .. } = fit("mvg", &settings, &samples);
    // 64 / √2 and 64 · √2, in steps of 32.
    assert_eq!((detector.pipeline().output_size(), skipped.len()), ([32, 96], 1));
    assert!(notes[0].contains("32×96") && notes[0].contains("2.00 : 1"), "{notes:?}");
    assert!(notes[1].starts_with("4 of 13 images have another shape"), "{notes:?}");
    // Sides stay within bounds, however long an image is.
    let ribbon = fit("mvg", &settings.clone().with("input_size", 1024), &strips(1000, 4, 8)).detector;
    assert_eq!(ribbon.pipeline().output_size(), [64, 2048]);
    let notes = fit("mvg", &settings, &strips(4, 1000, 8)).notes;
    assert!(notes[0].contains("1 : 250.00") && notes[1].contains("as near to their shape"), "{notes:?}");
}

#[test]
fn tiles_keep_the_shape_of_the_whole() {
    let settings = Assignments::new().with("input_size", 64).with("aspect", "keep").with("tiles", "1x3");
    let detector = fit("padim", &settings, &strips(300, 100, 8)).detector;
    let [height, width] = detector.pipeline().frame_size();
    let ratio = width as f64 / height as f64;
    assert!((2.4..3.75).contains(&ratio), "{height} x {width}");
}

#[test]
fn settings_of_sizes_are_checked() {
    let message = |method: &str, pairs: &[(&str, &str)]| {
        let settings = pairs.iter().fold(Assignments::new(), |settings, (key, value)| settings.with(key, value));
        Detector::new(method, backbone(method), &settings).err().unwrap().to_string()
    };
    for sizes in ["", "64,", "64,32", "64,64", "64;96", "32,64,96,128,160", "16,64", "64,4096", "-64"] {
        assert!(message("padim", &[("sizes", sizes)]).contains("sizes"), "{sizes}");
    }
    assert!(message("padim", &[("sizes", "64,96"), ("input_size", "64")]).contains("input_size"));
    assert!(message("padim", &[("sizes", "64,70"), ("aspect", "keep")]).contains("after rounding"));
    assert!(
        message("patchcore", &[("sizes", "64,96"), ("reweighting", "on")]).contains("`off` where there are several")
    );
    assert!(message("patchcore", &[("sizes", "64,96"), ("neighbours", "3")]).contains("neighbours"));
    assert!(message("spade", &[("sizes", "64,96"), ("score", "image")]).contains("`map` where there are several"));
    assert!(message("open-set", &[("sizes", "64,96")]).contains("tells classes apart"));
    assert!(
        message("padim", &[("sizes", "64,96"), ("tiles", "2x2")]).contains("`1x1` where there are several `sizes`")
    );
    assert!(message("padim", &[("sizes", "64,96"), ("view", "pad")]).contains("`whole` where there are several"));
    assert!(message("padim", &[("aspect", "crop")]).contains("`squash` or `keep`"));
    assert!(message("padim", &[("aspect", "keep"), ("view", "center")]).contains("`whole` or `pad`"));
    assert!(message("geotrans", &[("sizes", "32,64")]).contains("trains a network"));
}

#[test]
fn sizes_that_no_fit_writes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.nomaly");
    let bytes = saved(&fit("padim", &two(), &good(8)).detector, &path);
    let refusal = |edit: &dyn Fn(&mut Value)| {
        std::fs::write(&path, with_facts(&bytes, |facts| edit(&mut facts["model"]))).unwrap();
        match FittedDetector::load(&path).err().expect("the file is refused") {
            DetectorError::ModelFile { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(refusal(&|model| model["fusion"][1]["deviation"] = json!(0.0)).contains("deviation"));
    assert!(refusal(&|model| drop(model["fusion"].as_array_mut().unwrap().pop())).contains("1 sizes"));
    assert!(refusal(&|model| model["pipeline"] = model["fusion"][1]["pipeline"].clone()).contains("first size"));
    assert!(refusal(&|model| model["fusion"] = Value::Null).contains("`padim` is missing"));
    let other = json!({"mean": [0.5, 0.5, 0.5], "std": [1.0, 1.0, 1.0]});
    assert!(refusal(&|model| model["fusion"][1]["pipeline"]["normalize"] = other.clone()).contains("prepared alike"));
    assert!(
        refusal(&|model| model["fusion"][1]["pipeline"] = model["fusion"][0]["pipeline"].clone())
            .contains("not ascend")
    );
    for name in ["2:padim", "00:padim", "padim", "+1:padim"] {
        std::fs::write(&path, with_facts(&bytes, |facts| facts["states"][1]["name"] = json!(name))).unwrap();
        assert!(FittedDetector::load(&path).is_err(), "{name}");
    }
    let large = json!({"exact": {"height": 8192, "width": 8192}});
    assert!(refusal(&|model| model["fusion"][1]["pipeline"]["resize"]["mode"] = large.clone()).contains("8192"));
    let flipped = json!({"tiling": null, "flips": "both"});
    assert!(refusal(&|model| model["fusion"][1]["pipeline"]["views"] = flipped.clone()).contains("whole image once"));
    assert!(FittedDetector::load(&path).is_err());
    std::fs::write(&path, sealed(bytes)).unwrap();
    assert!(FittedDetector::load(&path).is_ok());
}
