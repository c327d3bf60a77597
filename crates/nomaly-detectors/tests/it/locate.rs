//! Localization: maps, their position in the image, tiles, flips and regions of interest.

use image::{GrayImage, Luma};
use nomaly_data::Sample;
use nomaly_detectors::{
    Detector, DetectorError, FitOptions, FittedDetector, PredictOptions, Prediction, StreamOptions,
};
use nomaly_methods::{AnomalyMap, GroupBy, METHODS, MethodError};
use nomaly_settings::Assignments;
use nomaly_store::Silent;

use crate::images::{blot, dataset, detector, fit, good, settings};

fn locating() -> impl Iterator<Item = &'static str> {
    METHODS.iter().filter(|entry| entry.maps).map(|entry| entry.name)
}

fn predictions(detector: &FittedDetector, samples: &[Sample]) -> Vec<Prediction> {
    let mut all = Vec::new();
    detector
        .predict(samples, &PredictOptions::default(), &Silent, |outcome| {
            assert_eq!(outcome.size, Some((48, 48)));
            all.push(outcome.result.unwrap());
            Ok(())
        })
        .unwrap();
    all
}

/// Column and row of the largest value.
fn peak(map: &AnomalyMap) -> (usize, usize) {
    let at = (0..map.values.len()).max_by(|&a, &b| map.values[a].total_cmp(&map.values[b])).unwrap();
    (at % map.width, at / map.width)
}

#[test]
fn the_map_is_highest_where_the_blot_is() {
    let blots: Vec<_> = (0..6).map(blot).collect();
    let samples: Vec<Sample> = blots.iter().map(|(sample, _)| sample.clone()).collect();
    for method in locating() {
        let cut = settings().with("tiles", "2x2").with("overlap", 0.5);
        for settings in [settings(), cut.clone(), settings().with("flips", "both"), cut.with("flips", "horizontal")] {
            let fitted = fit(method, &settings, &dataset().train).detector;
            for (prediction, (_, [left, top, side])) in predictions(&fitted, &samples).iter().zip(&blots) {
                let map = prediction.map.as_ref().unwrap();
                assert_eq!([map.height, map.width], fitted.pipeline().frame_size(), "{method}");
                let on_image = fitted.map_on_image(map, (48, 48)).unwrap();
                let (x, y) = peak(&on_image);
                // The receptive field of the finest layer extends beyond the blot.
                let near =
                    |at: usize, from: u32| (from as usize).saturating_sub(4) <= at && at < (from + side) as usize + 4;
                assert!(
                    near(x, *left) && near(y, *top),
                    "{method} {settings:?}: peak at {x}, {y}, blot at {left}, {top}"
                );
            }
        }
    }
}

#[test]
fn what_lies_outside_the_region_of_interest_never_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roi.png");
    let save = |inside: &dyn Fn(u32, u32) -> bool| {
        GrayImage::from_fn(48, 48, |x, y| Luma([if inside(x, y) { 255 } else { 0 }])).save(&path).unwrap();
    };
    let (sample, [left, top, side]) = blot(3);
    let touches = |at: u32, from: u32| at + 8 >= from && at < from + side + 8;
    for method in locating() {
        let settings = settings().with("roi", path.display());
        save(&|x, y| !(touches(x, left) && touches(y, top)));
        let without = fit(method, &settings, &good(24)).detector;
        save(&|x, y| touches(x, left) && touches(y, top));
        let only = fit(method, &settings, &good(24)).detector;
        let predict = |detector: &FittedDetector| predictions(detector, std::slice::from_ref(&sample)).remove(0);
        let (outside, inside) = (predict(&without), predict(&only));
        // The receptive field of the network extends beyond the blot, so that the outside is anomalous too, but less
        // so.
        assert!(outside.score < inside.score, "{method}");
        for (detector, prediction, counts) in [(&without, outside, false), (&only, inside, true)] {
            let map = detector.map_on_image(&prediction.map.unwrap(), (48, 48)).unwrap();
            let at = ((top + side / 2) * 48 + left + side / 2) as usize;
            assert_eq!(map.values[at] > 0.0, counts, "{method}");
            assert!(map.values.contains(&0.0) && map.max() > 0.0, "{method}");
        }

        // The model file stores the region.
        let model = folder.path().join("model.nomaly");
        without.save(&model).unwrap();
        let loaded = FittedDetector::load(&model).unwrap();
        assert_eq!(
            predictions(&loaded, std::slice::from_ref(&sample)),
            predictions(&without, std::slice::from_ref(&sample))
        );
    }
    save(&|_, _| false);
    let nothing = Detector::new("padim", "efficientnet-lite0", &settings().with("roi", path.display())).err().unwrap();
    assert!(matches!(nothing, DetectorError::Method(MethodError::File { .. })), "{nothing}");
    let without_maps =
        Detector::new("mvg", "efficientnet-lite0", &settings().with("roi", path.display())).err().unwrap();
    assert!(without_maps.to_string().contains("a method with maps"), "{without_maps}");
    let missing = Detector::new("padim", "efficientnet-lite0", &settings().with("roi", "/nonexistent/roi.png")).err();
    assert!(missing.unwrap().to_string().contains("/nonexistent/roi.png"));
}

#[test]
fn threads_and_batches_do_not_change_a_bit_of_a_model() {
    let bytes = |method: &str, threads: usize, batch: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let stream = StreamOptions { batch, ..StreamOptions::default() };
            let settings = settings().with("tiles", "1x2");
            let fit = detector(method, &settings)
                .fit("stripes", &good(13), &FitOptions { stream, ..FitOptions::default() }, &Silent)
                .unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("model");
            fit.detector.save(&path).unwrap();
            std::fs::read(path).unwrap()
        })
    };
    for method in locating() {
        let one = bytes(method, 1, 8);
        assert!(one == bytes(method, 2, 8), "{method}: two threads give another file");
        assert!(one == bytes(method, 2, 3), "{method}: batches of three give another file");
    }
}

#[test]
fn a_model_learns_from_further_images_where_its_method_can() {
    let all = good(24);
    let fitted = fit("patchcore", &settings(), &all[..16]).detector;
    let held_out = fitted.calibration().held_out().len();
    let extended = fitted.extend(&all[16..], &GroupBy::None, StreamOptions::default(), &Silent).unwrap().detector;
    assert_eq!(extended.info().training.images, 24);
    assert_eq!(extended.calibration().held_out().len(), held_out + 8);
    assert_eq!(extended.calibration().map_maxima().unwrap().len(), held_out + 8);
}

#[test]
fn settings_of_views_are_checked() {
    let message = |key: &str, value: &str| {
        let settings = Assignments::new().with(key, value);
        Detector::new("padim", "efficientnet-lite0", &settings).err().unwrap().to_string()
    };
    assert!(message("tiles", "2").contains("ROWSxCOLUMNS"));
    assert!(message("tiles", "0x2").contains("each from 1 to 64"));
    assert!(message("overlap", "1").contains('1'));
    assert!(message("flips", "diagonal").contains("horizontal"));
}
