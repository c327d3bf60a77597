//! Measures whether the requested false-alarm rate holds, with training images as taken in factories, over many seeds.
//!
//! ```console
//! $ promise [--seeds N] [--first SEED] [--methods mvg,padim] [--scenarios bursts-3] [--input N]
//! ```
//!
//! `--methods auto` is the default of `nomaly fit`, at its own sizes instead of `--input`.
//!
//! Each seed draws scenes: crops of an embedded photograph, rotated and mirrored, with individual lighting. A scenario
//! describes how the training images are taken:
//!
//! | scenario | training images | tested with |
//! |---|---|---|
//! | `independent` | one image of each of 120 scenes | 40 further scenes |
//! | `bursts-2`, `bursts-3`, `bursts-10` | 110, 110, 30 scenes, frames with noise of 2 grey values | 40 more scenes |
//! | `drift` | 150 frames of a window that moves while the light changes | frames of 40 other such walks |
//! | `folders` | 30 parts in a folder each, 4 photographs each: moved up to 6 pixels, 3 % light | 40 further parts |
//!
//! Every method is fitted twice: with independent images (`--group-by none`, as before groups were known) and with
//! groups (`auto`; `folder` for folders). For 1, 5 and 10 % the program prints the share of good test images that are
//! flagged, with a 95 % interval over seeds (a model's test images share its fit, so seeds are the sample), and the
//! recall of one defect in each of 20 further scenes at 5 %. A dash means that the model guarantees nothing.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;

use image::{Rgb, RgbImage, imageops};
use nomaly_data::{ImageSource, Label, Sample};
use nomaly_detectors::auto::choose_method;
use nomaly_detectors::{DecisionRule, Detector, FitOptions, FittedDetector, PredictOptions};
use nomaly_methods::{GroupBy, METHODS, Sees};
use nomaly_nn::runtime::Executor;
use nomaly_settings::Assignments;
use nomaly_store::Silent;
use nomaly_transforms::{samples, synthetic};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Side of an image in pixels.
const SIDE: u32 = 96;
/// Good test images, each of a different scene.
const GOOD: usize = 40;
/// Test images with a defect.
const DEFECTIVE: usize = 20;
const RATES: [f64; 3] = [0.01, 0.05, 0.1];
const SCENARIOS: [&str; 6] = ["independent", "bursts-2", "bursts-3", "bursts-10", "drift", "folders"];

fn main() -> Result<(), Failure> {
    let options = options(std::env::args().skip(1))?;
    let number = |name: &str, default: u64| -> Result<u64, Failure> {
        options.get(name).map_or(Ok(default), |value| value.parse().map_err(|_| format!("--{name} {value}").into()))
    };
    let (first, seeds, input) = (number("first", 100)?, number("seeds", 20)?, number("input", 64)?);
    let list = |name: &str, default: &str| -> Vec<String> {
        options.get(name).map_or(default, String::as_str).split(',').map(str::to_owned).collect()
    };
    let methods = list("methods", "mvg,dn2,features,padim,patchcore,spade,patches");
    let scenarios = list("scenarios", &SCENARIOS.join(","));

    println!("| scenario | method | group by | 1 % | 5 % | 10 % | recall at 5 % | groups |");
    println!("|---|---|---|---|---|---|---|---|");
    for scenario in &scenarios {
        for method in &methods {
            let grouped = if scenario == "folders" { GroupBy::Folder } else { GroupBy::Auto };
            for group_by in [GroupBy::None, grouped] {
                let mut table = Tally::default();
                for seed in first..first + seeds {
                    table.add(&run(scenario, method, &group_by, seed, input)?);
                }
                println!("| {scenario} | `{method}` | {group_by} |{}", table.cells());
            }
        }
    }
    Ok(())
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<HashMap<String, String>, Failure> {
    let mut options = HashMap::new();
    while let Some(name) = arguments.next() {
        let name = name.strip_prefix("--").ok_or_else(|| format!("expected an option, got \"{name}\""))?.to_owned();
        let value = arguments.next().ok_or_else(|| format!("--{name} has no value"))?;
        options.insert(name, value);
    }
    Ok(options)
}

/// The result of one model: for each rate the share of flagged good images, and the recall at 5 %; `None` if it
/// guarantees nothing.
struct Outcome {
    flagged: [Option<f64>; 3],
    recall: Option<f64>,
    groups: usize,
}

fn run(scenario: &str, method: &str, group_by: &GroupBy, seed: u64, input: u64) -> Result<Outcome, Failure> {
    let world = World::new(seed)?;
    let (train, test) = world.images(scenario)?;
    let detector = if method == "auto" {
        let options = FitOptions { group_by: group_by.clone(), ..FitOptions::default() };
        let choice =
            choose_method(&train, "efficientnet-lite0", &Assignments::new(), &options, None, &Executor::cpu()?)?;
        Detector::new(choice.method, "efficientnet-lite0", &choice.settings)?
    } else {
        let backbone = match METHODS.get(method)?.sees {
            Sees::Pixels => "pixels",
            Sees::Taps => "efficientnet-lite0",
        };
        Detector::new(method, backbone, &Assignments::new().with("input_size", input))?
    };
    let options = FitOptions { seed, group_by: group_by.clone(), ..FitOptions::default() };
    let fitted = detector.fit("generated", &train, &options, &Silent)?.detector;
    let (good, bad) = (scores(&fitted, &test)?, scores(&fitted, &world.defective(&test))?);
    let share = |scores: &[f64], rate: f64| -> Result<Option<f64>, Failure> {
        let calibration = fitted.calibration().with_rule(DecisionRule::MaxFpr(rate))?;
        let above = |threshold: f64| scores.iter().filter(|score| **score > threshold).count();
        Ok(calibration.threshold().map(|threshold| above(threshold) as f64 / scores.len() as f64))
    };
    let mut flagged = [None; 3];
    for (flagged, rate) in flagged.iter_mut().zip(RATES) {
        *flagged = share(&good, rate)?;
    }
    Ok(Outcome { flagged, recall: share(&bad, RATES[1])?, groups: fitted.info().training.groups.count })
}

fn scores(fitted: &FittedDetector, samples: &[Sample]) -> Result<Vec<f64>, Failure> {
    let mut scores = Vec::new();
    fitted.predict(samples, &PredictOptions::default(), &Silent, |outcome| {
        scores.push(outcome.result.map_or(f64::NAN, |prediction| prediction.score));
        Ok(())
    })?;
    Ok(scores)
}

/// The photograph that all scenes of a seed are taken of.
struct World {
    photograph: RgbImage,
    seed: u64,
}

/// A position in the photograph, its orientation and the brightness.
#[derive(Clone, Copy)]
struct Scene {
    left: f64,
    top: f64,
    turn: u8,
    gain: f64,
}

impl World {
    fn new(seed: u64) -> Result<Self, Failure> {
        let name = ["brick", "grass", "gravel"][(seed % 3) as usize];
        Ok(Self { photograph: samples::texture(name)?, seed })
    }

    fn random(&self, stream: u64) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(stream);
        random
    }

    /// The scene with this number, reproducibly.
    fn scene(&self, number: u64) -> Scene {
        let mut random = self.random(number);
        let room = f64::from(self.photograph.width() - SIDE);
        Scene {
            left: random.random::<f64>() * room,
            top: random.random::<f64>() * room,
            turn: random.random_range(0..8),
            gain: 1.0 + 0.1 * (random.random::<f64>() - 0.5),
        }
    }

    /// A photograph of a scene, with noise of 2 grey values.
    fn shot(&self, scene: Scene, noise: u64) -> RgbImage {
        let Scene { left, top, turn, gain } = scene;
        let most = self.photograph.width() - SIDE;
        let (left, top) = ((left.max(0.0) as u32).min(most), (top.max(0.0) as u32).min(most));
        let mut image = imageops::crop_imm(&self.photograph, left, top, SIDE, SIDE).to_image();
        if turn & 1 != 0 {
            image = imageops::flip_horizontal(&image);
        }
        if turn & 2 != 0 {
            image = imageops::flip_vertical(&image);
        }
        if turn & 4 != 0 {
            image = imageops::rotate90(&image);
        }
        let mut random = self.random(noise);
        for Rgb(pixel) in image.pixels_mut() {
            let normal: f64 = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
            *pixel = pixel.map(|value| (f64::from(value) * gain + 2.0 * normal).round().clamp(0.0, 255.0) as u8);
        }
        image
    }

    /// Training images and good test images.
    fn images(&self, scenario: &str) -> Result<(Vec<Sample>, Vec<Sample>), Failure> {
        let (scenes, frames) = match scenario {
            "independent" => (120, 1),
            "bursts-2" => (110, 2),
            "bursts-3" => (110, 3),
            "bursts-10" => (30, 10),
            "folders" => (30, 4),
            "drift" => (1, 150),
            other => return Err(format!("unknown scenario \"{other}\": one of {}", SCENARIOS.join(", ")).into()),
        };
        let shots = (0..scenes).flat_map(|scene| (0..frames).map(move |frame| (scene, frame)));
        let train = shots.map(|(scene, frame)| {
            let name = format!("train/good/{scene:03}/{frame:03}");
            sample(name, self.taken(scenario, scene, frame), Label::Normal)
        });
        let test = (0..GOOD as u64).map(|number| {
            // A random frame of a walk, or the first of a burst or part.
            let frame = if scenario == "drift" { self.random(number).random_range(0..150) } else { 0 };
            sample(format!("test/good/{number:03}"), self.taken(scenario, 10_000 + number, frame), Label::Normal)
        });
        Ok((train.collect(), test.collect()))
    }

    /// Frame `frame` of scene `number`.
    fn taken(&self, scenario: &str, number: u64, frame: u64) -> RgbImage {
        let mut scene = self.scene(number);
        let noise = 1_000_000 + number * 1000 + frame;
        match scenario {
            "drift" => {
                // A straight path of 1.2 pixels per frame, and light that changes by 10 % in 300 frames.
                let mut random = self.random(2_000_000 + number);
                let (dx, dy) = (random.random::<f64>() - 0.5, random.random::<f64>() - 0.5);
                let step = 1.2 * frame as f64 / dx.hypot(dy).max(1e-3);
                scene.left = bounced(scene.left + dx * step, f64::from(self.photograph.width() - SIDE));
                scene.top = bounced(scene.top + dy * step, f64::from(self.photograph.height() - SIDE));
                scene.gain += 0.1 / 300.0 * frame as f64 * (random.random::<f64>() - 0.5).signum();
            }
            "folders" => {
                let mut random = self.random(noise);
                scene.left += 12.0 * (random.random::<f64>() - 0.5);
                scene.top += 12.0 * (random.random::<f64>() - 0.5);
                scene.gain *= 1.0 + 0.06 * (random.random::<f64>() - 0.5);
            }
            _ => {}
        }
        self.shot(scene, noise)
    }

    /// Some of the good images with a synthetic defect each, kind after kind.
    fn defective(&self, good: &[Sample]) -> Vec<Sample> {
        let mut random = self.random(3_000_000);
        let kinds = synthetic::KINDS.iter().cycle();
        let images = good.iter().take(DEFECTIVE).zip(kinds).enumerate().filter_map(|(number, (sample_of, kind))| {
            let ImageSource::Memory(image) = &sample_of.source else { return None };
            let (image, _) = synthetic::apply(kind, image, &mut random);
            Some(sample(format!("test/{}/{number:03}", kind.name), image, Label::Anomalous))
        });
        images.collect()
    }
}

/// A position reflected at the edges.
fn bounced(at: f64, room: f64) -> f64 {
    let at = at.rem_euclid(2.0 * room);
    if at > room { 2.0 * room - at } else { at }
}

fn sample(id: String, image: RgbImage, label: Label) -> Sample {
    Sample { id, source: ImageSource::Memory(Arc::new(image)), label, kind: "good".to_owned(), mask: None }
}

/// Outcomes of many seeds.
#[derive(Default)]
struct Tally {
    flagged: [Vec<f64>; 3],
    recall: Vec<f64>,
    groups: Vec<f64>,
    runs: usize,
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        for (list, flagged) in self.flagged.iter_mut().zip(outcome.flagged) {
            list.extend(flagged);
        }
        self.recall.extend(outcome.recall);
        self.groups.push(outcome.groups as f64);
        self.runs += 1;
    }

    fn cells(&self) -> String {
        let percent = |values: &[f64]| {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let error = 1.96 * (squares / (n - 1.0) / n).sqrt();
            let of = if values.len() < self.runs {
                format!(", {} of {} runs", values.len(), self.runs)
            } else {
                String::new()
            };
            match values.len() {
                0 => "–".to_owned(),
                1 => format!("{:.1}{of}", 100.0 * mean),
                _ => format!("{:.1} ± {:.1}{of}", 100.0 * mean, 100.0 * error),
            }
        };
        let cells: Vec<String> = self.flagged.iter().chain([&self.recall]).map(|values| percent(values)).collect();
        let groups = self.groups.iter().sum::<f64>() / self.groups.len() as f64;
        format!(" {} | {groups:.0} |", cells.join(" | "))
    }
}
