//! Small images that are fast to score: noisy stripes, with and without a blot.

use std::path::PathBuf;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use nomaly_data::{Dataset, ImageSource, Label, Sample};
use nomaly_detectors::{Detector, FitOptions, FitResult};
use nomaly_methods::{METHODS, Sees};
use nomaly_settings::Assignments;
use nomaly_store::Silent;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIDE: u32 = 48;

/// Side of a blot.
const BLOT: u32 = 14;

fn stripes(seed: u64, blot: bool) -> (RgbImage, [u32; 3]) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let phase = rng.random_range(0..8);
    let mut image = RgbImage::from_fn(SIDE, SIDE, |x, _| {
        let stripe = if (x + phase) % 8 < 4 { 90 } else { 160 };
        let value = (stripe + rng.random_range(0..30)) as u8;
        Rgb([value, value, value.saturating_add(10)])
    });
    let mut place = [0; 3];
    if blot {
        let (left, top) = (rng.random_range(4..SIDE - 20), rng.random_range(4..SIDE - 20));
        for (x, y) in (0..BLOT).flat_map(|x| (0..BLOT).map(move |y| (x, y))) {
            image.put_pixel(left + x, top + y, Rgb([230, 30, 20]));
        }
        place = [left, top, BLOT];
    }
    (image, place)
}

fn sample(id: String, seed: u64, blot: bool) -> Sample {
    let (label, kind) = if blot { (Label::Anomalous, "blot") } else { (Label::Normal, "good") };
    Sample {
        id,
        source: ImageSource::Memory(Arc::new(stripes(seed, blot).0)),
        label,
        kind: kind.to_owned(),
        mask: None,
    }
}

/// An image with a blot, and the blot's left, top and side in pixels.
pub(crate) fn blot(seed: u64) -> (Sample, [u32; 3]) {
    let seed = 5000 + seed;
    (sample(format!("test/blot{seed}"), seed, true), stripes(seed, true).1)
}

/// `n` good images.
pub(crate) fn good(n: usize) -> Vec<Sample> {
    (0..n).map(|i| sample(format!("train/{i}"), i as u64, false)).collect()
}

/// A sample whose file does not exist.
pub(crate) fn missing(id: &str) -> Sample {
    let source = ImageSource::File(PathBuf::from(format!("/nonexistent/{id}.png")));
    Sample { id: id.to_owned(), source, label: Label::Normal, kind: "good".to_owned(), mask: None }
}

/// 24 good images to train on, 8 good and 8 blotted ones to test on.
pub(crate) fn dataset() -> Dataset {
    let test = (0..16).map(|i| sample(format!("test/{i}"), 1000 + i, i % 2 == 1)).collect();
    Dataset { name: "stripes".to_owned(), train: good(24), test, ..Dataset::default() }
}

pub(crate) fn settings() -> Assignments {
    Assignments::new().with("input_size", 64)
}

/// Settings for a fast fit of any method.
pub(crate) fn quick(method: &str) -> Assignments {
    match method {
        "geotrans" => {
            Assignments::new().with("network", "wrn-10-1").with("transformations", "rotations").with("epochs", 1)
        }
        "adacl" => Assignments::new().with("epochs", 1),
        "cutpaste" => Assignments::new().with("network", "wrn-10-1").with("input_size", 32).with("epochs", 1),
        _ => settings(),
    }
}

/// A method on the smallest backbone, or on none if it sees pixels.
pub(crate) fn detector(method: &str, settings: &Assignments) -> Detector {
    Detector::new(method, backbone(method), settings).unwrap()
}

/// The name of the smallest backbone of a method, `pixels` for none.
pub(crate) fn backbone(method: &str) -> &'static str {
    match METHODS.get(method).unwrap().sees {
        Sees::Pixels => "pixels",
        Sees::Taps => "efficientnet-lite0",
    }
}

pub(crate) fn fit(method: &str, settings: &Assignments, samples: &[Sample]) -> FitResult {
    detector(method, settings).fit("stripes", samples, &FitOptions::default(), &Silent).unwrap()
}
