//! Measures how often a model names the right reason why images are unlike its training images, and how often it warns
//! falsely.
//!
//! ```console
//! $ shift [FOLDER] [--train N] [--first-seed N] [--seeds N] [--input-size N] [--most N]
//! ```
//!
//! FOLDER holds good images; without one, the tiles of the embedded textures are used, one table each. For each seed, N
//! images (40) are drawn to fit `mvg` on; up to 20 of the others form a run. The run is scored unchanged and with each
//! change of a table. All images are stored as PNG first, so that only the intended property changes.
//!
//! Columns: the share of flagged images (5 % allowed), the share with a detected shift, the share whose main reason is
//! right, the share of runs with a detected shift, and with the right reason. The first row is for unshifted images:
//! every detection there is a false warning.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use nomaly_data::{ImageSource, Label, Sample, demo, images_under};
use nomaly_detectors::shift::ShiftKind;
use nomaly_detectors::{Detector, FitOptions, FittedDetector, PredictOptions};
use nomaly_settings::Assignments;
use nomaly_store::Silent;
use nomaly_transforms::{Limits, decode_bytes, samples::TEXTURES};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let options = Options::read(std::env::args().skip(1))?;
    match &options.folder {
        Some(folder) => {
            let samples = images_under(std::slice::from_ref(folder))?;
            let images = load(&samples)?;
            report(&folder.display().to_string(), &images, &options)
        }
        None => TEXTURES.names().try_for_each(|name| {
            let set = demo::dataset(name, 0)?;
            let good: Vec<Sample> = set
                .train
                .into_iter()
                .chain(set.test.into_iter().filter(|sample| sample.label == Label::Normal))
                .collect();
            report(name, &load(&good)?, &options)
        }),
    }
}

struct Options {
    folder: Option<PathBuf>,
    train: usize,
    first_seed: u64,
    seeds: u64,
    input_size: usize,
    most: usize,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut options = Self { folder: None, train: 40, first_seed: 100, seeds: 20, input_size: 96, most: 400 };
        while let Some(argument) = arguments.next() {
            let Some(name) = argument.strip_prefix("--") else {
                options.folder = Some(argument.into());
                continue;
            };
            let value = arguments.next().ok_or_else(|| format!("--{name} has no value"))?;
            match name {
                "train" => options.train = value.parse()?,
                "first-seed" => options.first_seed = value.parse()?,
                "seeds" => options.seeds = value.parse()?,
                "input-size" => options.input_size = value.parse()?,
                "most" => options.most = value.parse()?,
                other => return Err(format!("unknown option --{other}").into()),
            }
        }
        Ok(options)
    }
}

fn load(samples: &[Sample]) -> Result<Vec<RgbImage>, Failure> {
    samples.iter().map(|sample| Ok(sample.source.load(&Limits::default())?)).collect()
}

/// The most images of a run.
const RUN: usize = 20;

/// A change of images, and the kinds of shift that describe it.
struct Change {
    name: &'static str,
    make: fn(&RgbImage, u64) -> RgbImage,
    /// The quality of the JPEG file, for those that are stored as one.
    jpeg: Option<u8>,
    fitting: &'static [ShiftKind],
}

const JPEG_TRACES: &[ShiftKind] =
    &[ShiftKind::Blockiness, ShiftKind::Noise, ShiftKind::Sharpness, ShiftKind::Compression];
const LIGHT: &[ShiftKind] = &[ShiftKind::Brightness, ShiftKind::Contrast];
const DETAIL: &[ShiftKind] = &[ShiftKind::Sharpness, ShiftKind::Noise];
const COLORS: &[ShiftKind] = &[ShiftKind::Color, ShiftKind::ColorCast, ShiftKind::Saturation];
const TURN: &[ShiftKind] = &[ShiftKind::Orientation, ShiftKind::Aspect];
const SMALL_TURN: &[ShiftKind] = &[ShiftKind::Orientation, ShiftKind::Sharpness, ShiftKind::Noise];
const FILE: &[ShiftKind] = &[ShiftKind::Format];
const SIZE: &[ShiftKind] = &[ShiftKind::Size, ShiftKind::Sharpness, ShiftKind::Noise];

const fn change(name: &'static str, make: fn(&RgbImage, u64) -> RgbImage, fitting: &'static [ShiftKind]) -> Change {
    Change { name, make, jpeg: None, fitting }
}

const fn file(name: &'static str, quality: u8) -> Change {
    Change { name, make: |image, _| image.clone(), jpeg: Some(quality), fitting: FILE }
}

const CHANGES: &[Change] = &[
    change("unshifted", |image, _| image.clone(), &[]),
    file("JPEG 95", 95),
    file("JPEG 75", 75),
    file("JPEG 50", 50),
    change("JPEG 95, as PNG", |image, _| through_jpeg(image, 95), JPEG_TRACES),
    change("JPEG 75, as PNG", |image, _| through_jpeg(image, 75), JPEG_TRACES),
    change("JPEG 50, as PNG", |image, _| through_jpeg(image, 50), JPEG_TRACES),
    change("×2", |image, _| scaled(image, 2.0), SIZE),
    change("×0.5", |image, _| scaled(image, 0.5), SIZE),
    change("×2, cut to size", |image, _| center(&scaled(image, 2.0), image.dimensions()), DETAIL),
    change("gain +5 %", |image, _| gains(image, [1.05; 3]), LIGHT),
    change("gain −5 %", |image, _| gains(image, [0.95; 3]), LIGHT),
    change("gain +10 %", |image, _| gains(image, [1.1; 3]), LIGHT),
    change("gain −10 %", |image, _| gains(image, [0.9; 3]), LIGHT),
    change("blur σ = 1", |image, _| imageops::blur(image, 1.0), DETAIL),
    change("noise σ = 5", |image, seed| noisy(image, 5.0, seed), DETAIL),
    change("red +5 %, blue −5 %", |image, _| gains(image, [1.05, 1.0, 0.95]), COLORS),
    change("turned by 90°", |image, _| imageops::rotate90(image), TURN),
    change("turned by 3°", |image, _| turned(image, 3.0), SMALL_TURN),
];

#[derive(Default)]
struct Counts {
    images: usize,
    flagged: usize,
    named: usize,
    fitting: usize,
    runs: usize,
    runs_named: usize,
    runs_fitting: usize,
    /// How often each kind came first.
    first: BTreeMap<String, usize>,
}

fn report(name: &str, images: &[RgbImage], options: &Options) -> Result<(), Failure> {
    let images = &images[..images.len().min(options.most)];
    let folder = std::env::temp_dir().join(format!("nomaly-shift-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut counts: Vec<Counts> = CHANGES.iter().map(|_| Counts::default()).collect();
    let run = (options.first_seed..options.first_seed + options.seeds)
        .try_for_each(|seed| measure(images, seed, options, &folder, &mut counts));
    std::fs::remove_dir_all(&folder)?;
    run?;
    println!(
        "\n{name}: {} images, {} to fit on, {} seeds from {}\n",
        images.len(),
        options.train,
        options.seeds,
        options.first_seed
    );
    println!(
        "| change | flagged | named | fitting | runs named | fitting | first of all |\n|---|---:|---:|---:|---:|---:|---|"
    );
    for (change, counts) in CHANGES.iter().zip(&counts) {
        let share = |part: usize, all: usize| format!("{:.1} %", 100.0 * part as f64 / all.max(1) as f64);
        let mut first: Vec<(&String, &usize)> = counts.first.iter().collect();
        first.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let first: Vec<String> = first.iter().take(4).map(|(kind, count)| format!("{kind} {count}")).collect();
        println!(
            "| {} | {} | {} of {} ({}) | {} | {} of {} | {} | {} |",
            change.name,
            share(counts.flagged, counts.images),
            counts.named,
            counts.images,
            share(counts.named, counts.images),
            share(counts.fitting, counts.images),
            counts.runs_named,
            counts.runs,
            counts.runs_fitting,
            first.join(", ")
        );
    }
    Ok(())
}

/// Fits on some images, and counts the detections on the others for each change.
fn measure(
    images: &[RgbImage],
    seed: u64,
    options: &Options,
    folder: &Path,
    counts: &mut [Counts],
) -> Result<(), Failure> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..images.len()).collect();
    for place in (1..order.len()).rev() {
        order.swap(place, (random.next_u64() % (place as u64 + 1)) as usize);
    }
    if order.len() <= options.train {
        return Err(format!("{} images are too few to fit on {}", order.len(), options.train).into());
    }
    let (train, held_out) = order.split_at(options.train);
    let detector =
        Detector::new("mvg", "efficientnet-lite0", &Assignments::new().with("input_size", options.input_size))?;
    let samples: Vec<Sample> =
        train.iter().map(|&index| stored(&images[index], None, folder, index)).collect::<Result<_, _>>()?;
    let detector = detector.fit("shift", &samples, &FitOptions { seed, ..FitOptions::default() }, &Silent)?.detector;
    let run = &held_out[..held_out.len().min(RUN)];
    for (change, counts) in CHANGES.iter().zip(counts) {
        let changed = |&index: &usize| {
            stored(&(change.make)(&images[index], seed + index as u64), change.jpeg, folder, images.len() + index)
        };
        // False warnings are rare, so all remaining images are used for them.
        let more = if change.fitting.is_empty() { &held_out[run.len()..] } else { &[] };
        let samples: Vec<Sample> = run.iter().chain(more).map(changed).collect::<Result<_, _>>()?;
        count(&detector, &samples, run.len(), change, counts)?;
    }
    Ok(())
}

fn count(
    detector: &FittedDetector,
    samples: &[Sample],
    run: usize,
    change: &Change,
    counts: &mut Counts,
) -> Result<(), Failure> {
    let profile = detector.input_profile().ok_or("the model keeps no profile")?;
    let mut watch = profile.watch();
    let mut seen = 0;
    detector.predict(samples, &PredictOptions::default(), &Silent, |outcome| {
        if let (Ok(prediction), Some(look)) = (&outcome.result, &outcome.look) {
            let shift = prediction.input_shift.as_ref();
            counts.images += 1;
            counts.flagged += usize::from(prediction.anomalous == Some(true));
            if let Some(shift) = shift {
                counts.named += 1;
                counts.fitting += usize::from(change.fitting.contains(&shift.worst));
                *counts.first.entry(shift.worst.to_string()).or_default() += 1;
            }
            if seen < run {
                watch.add(look, shift);
            }
        }
        seen += 1;
        Ok(())
    })?;
    let verdict = watch.verdict();
    counts.runs += 1;
    counts.runs_named += usize::from(verdict.is_shifted());
    let fits = verdict.findings.iter().take(3).any(|finding| change.fitting.contains(&finding.kind));
    counts.runs_fitting += usize::from(fits);
    if let Some(finding) = verdict.findings.first() {
        *counts.first.entry(format!("run: {}", finding.kind)).or_default() += 1;
    }
    Ok(())
}

/// Writes an image as PNG, or as JPEG of a quality.
fn stored(image: &RgbImage, jpeg: Option<u8>, folder: &Path, index: usize) -> Result<Sample, Failure> {
    let path = folder.join(format!("{index}.{}", if jpeg.is_some() { "jpg" } else { "png" }));
    match jpeg {
        Some(quality) => std::fs::write(&path, encoded(image, quality))?,
        None => image.save(&path)?,
    }
    let (id, source) = (index.to_string(), ImageSource::File(path));
    Ok(Sample { id, source, label: Label::Normal, kind: "good".to_owned(), mask: None })
}

fn encoded(image: &RgbImage, quality: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(image).expect("memory takes every image");
    bytes
}

fn through_jpeg(image: &RgbImage, quality: u8) -> RgbImage {
    decode_bytes(&encoded(image, quality), &Limits::default()).expect("what was just encoded")
}

fn scaled(image: &RgbImage, factor: f64) -> RgbImage {
    let side = |side: u32| ((f64::from(side) * factor).round() as u32).max(1);
    imageops::resize(image, side(image.width()), side(image.height()), FilterType::CatmullRom)
}

fn center(image: &RgbImage, (width, height): (u32, u32)) -> RgbImage {
    let (x, y) = ((image.width() - width) / 2, (image.height() - height) / 2);
    imageops::crop_imm(image, x, y, width, height).to_image()
}

fn gains(image: &RgbImage, gains: [f64; 3]) -> RgbImage {
    let mut image = image.clone();
    for pixel in image.pixels_mut() {
        for (value, gain) in pixel.0.iter_mut().zip(gains) {
            *value = (f64::from(*value) * gain).round() as u8;
        }
    }
    image
}

/// Adds noise that is the same in all channels where the image is grey: each pixel's is drawn once.
fn noisy(image: &RgbImage, sigma: f64, seed: u64) -> RgbImage {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut image = image.clone();
    for pixel in image.pixels_mut() {
        let uniform = (0..12).map(|_| f64::from(random.next_u32()) / f64::from(u32::MAX)).sum::<f64>();
        for value in &mut pixel.0 {
            *value = (f64::from(*value) + sigma * (uniform - 6.0)).round() as u8;
        }
    }
    image
}

/// Rotates about the centre, bilinearly; pixels outside repeat the border.
fn turned(image: &RgbImage, degrees: f64) -> RgbImage {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let [width, height] = [image.width(), image.height()].map(f64::from);
    RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let (dx, dy) = (f64::from(x) - (width - 1.0) / 2.0, f64::from(y) - (height - 1.0) / 2.0);
        let from_x = (cos * dx + sin * dy + (width - 1.0) / 2.0).clamp(0.0, width - 1.0);
        let from_y = (cos * dy - sin * dx + (height - 1.0) / 2.0).clamp(0.0, height - 1.0);
        let (left, top) = (from_x.floor(), from_y.floor());
        let (across, down) = (from_x - left, from_y - top);
        let at = |x: f64, y: f64| image.get_pixel(x.min(width - 1.0) as u32, y.min(height - 1.0) as u32).0;
        let corners = [at(left, top), at(left + 1.0, top), at(left, top + 1.0), at(left + 1.0, top + 1.0)];
        Rgb(std::array::from_fn(|c| {
            let [a, b, d, e] = corners.map(|pixel| f64::from(pixel[c]));
            ((a * (1.0 - across) + b * across) * (1.0 - down) + (d * (1.0 - across) + e * across) * down).round() as u8
        }))
    })
}
