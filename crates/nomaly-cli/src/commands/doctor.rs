//! `nomaly doctor`: whether images suit a model, what a model expects, and properties of images.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;

use nomaly::methods::MethodError;
use nomaly::shift::{Finding, InputProfile, Look, RunShift, RunWatch, ShiftKind, Statistic};
use nomaly::store::Progress;
use nomaly::transforms::ImageStatistics;
use nomaly::{DetectorError, FittedDetector, Sample, Skipped};
use rayon::prelude::*;
use serde::Serialize;

use super::{Status, tell_skipped};
use crate::args::{DoctorArgs, Format};
use crate::console::Console;
use crate::failure::Failure;
use crate::output::{Align, Table, counted, print_facts, print_json, significant, stdout};
use crate::progress::{Bars, Unit};

/// The most duplicates in a table.
const DUPLICATES_SHOWN: usize = 10;
/// The most sizes in a table.
const SIZES_SHOWN: usize = 5;

pub(crate) fn run(args: &DoctorArgs, console: &Console) -> anyhow::Result<Status> {
    let samples = if args.images.is_empty() { Vec::new() } else { nomaly::data::images_under(&args.images)? };
    match &args.model {
        None => survey(&samples, args, console),
        Some(path) => {
            let detector = FittedDetector::load(path)?;
            let Some(profile) = detector.input_profile() else {
                let message = format!("{} keeps nothing of how its training images looked", path.display());
                return Err(Failure::new(message, "fit the model again with this version of nomaly").into());
            };
            if samples.is_empty() {
                expectation(profile, args.format)
            } else {
                compare(&detector, profile, &samples, args, console)
            }
        }
    }
}

/// A statistic of a set of images.
#[derive(Serialize)]
struct Spread {
    statistic: Statistic,
    low: f64,
    median: f64,
    high: f64,
}

fn spreads(profile: &InputProfile) -> Vec<Spread> {
    let spread = |statistic: Statistic| {
        let distribution = profile.distribution(statistic)?;
        let [low, high] = distribution.range().map(|value| statistic.display_value(value));
        Some(Spread { statistic, low, median: statistic.display_value(distribution.median()), high })
    };
    Statistic::ALL.into_iter().filter_map(spread).collect()
}

/// Properties of the training images of a model, or of other images, for programs.
#[derive(Serialize)]
struct Described {
    facts: Vec<(&'static str, String)>,
    statistics: Vec<Spread>,
}

impl Described {
    fn of(profile: &InputProfile) -> Self {
        Self { facts: profile.facts_in_words(), statistics: spreads(profile) }
    }

    fn print(&self) -> anyhow::Result<()> {
        let mut out = stdout();
        print_facts(&mut out, &self.facts)?;
        writeln!(out)?;
        let mut table = Table::new(&[
            ("statistic", Align::Left),
            ("lowest", Align::Right),
            ("median", Align::Right),
            ("highest", Align::Right),
        ]);
        for Spread { statistic, low, median, high } in &self.statistics {
            let [low, median, high] = [low, median, high].map(|value| significant(*value, 3));
            table.row([statistic.to_string(), low, median, high]);
        }
        Ok(table.print(&mut out)?)
    }
}

/// What a model expects.
fn expectation(profile: &InputProfile, format: Format) -> anyhow::Result<Status> {
    let expected = Described::of(profile);
    match format {
        Format::Json => print_json(&expected)?,
        Format::Table => expected.print()?,
    }
    Ok(Status::Done)
}

/// A comparison of images with the training images, for programs.
#[derive(Serialize)]
struct Comparison {
    /// Whether the images as a whole are shifted, or more single images than by chance.
    shifted: bool,
    run: RunShift,
    /// The images that are shifted individually.
    images: Vec<ShiftedImage>,
    expected: Described,
    found: Described,
    unreadable: Vec<Skipped>,
}

#[derive(Serialize)]
struct ShiftedImage {
    path: String,
    kinds: Vec<ShiftKind>,
    p_value: f64,
    message: String,
}

fn compare(
    detector: &FittedDetector,
    profile: &InputProfile,
    samples: &[Sample],
    args: &DoctorArgs,
    console: &Console,
) -> anyhow::Result<Status> {
    let (mut looks, mut unreadable, mut images) = (Vec::new(), Vec::new(), Vec::new());
    let mut watch = profile.watch();
    let bars = Bars::new(console, Unit::Images);
    detector
        .look_at(samples, args.reading.options(None), &bars, |sample, look| {
            match look {
                Ok(look) => {
                    let shift = profile.shift(&look);
                    watch.add(&look, shift.as_ref());
                    images.extend(shift.map(|shift| ShiftedImage {
                        path: sample.id.clone(),
                        kinds: shift.kinds,
                        p_value: shift.p_value,
                        message: shift.message,
                    }));
                    looks.push(look);
                }
                Err(skipped) => unreadable.push(skipped),
            }
            Ok(())
        })
        .map_err(interrupted)?;
    tell_skipped(&unreadable, "image", console);
    let run = watch.verdict();
    let Some(found) = InputProfile::of(&looks, None) else {
        return Err(nothing_readable(samples.len()));
    };
    let shifted = run.is_shifted() || run.has_odd_images();
    let (expected, found) = (Described::of(profile), Described::of(&found));
    let comparison = Comparison { shifted, run, images, expected, found, unreadable };
    match args.format {
        Format::Json => print_json(&comparison)?,
        Format::Table => comparison.print(profile, &watch)?,
    }
    Ok(if args.fail_on_shift && shifted { Status::ShiftFound } else { Status::Done })
}

impl Comparison {
    fn print(&self, profile: &InputProfile, watch: &RunWatch<'_>) -> anyhow::Result<()> {
        let mut out = stdout();
        let mut facts = Table::new(&[("", Align::Left), ("model", Align::Left), ("images", Align::Left)]);
        for ((name, expected), (_, found)) in self.expected.facts.iter().zip(&self.found.facts) {
            facts.row([(*name).to_owned(), expected.clone(), found.clone()]);
        }
        facts.print(&mut out)?;
        writeln!(out)?;
        let mut table = Table::new(&[
            ("statistic", Align::Left),
            ("training range", Align::Right),
            ("median", Align::Right),
            ("images", Align::Right),
            ("", Align::Left),
        ]);
        for statistic in Statistic::ALL {
            let (Some(training), Some(median)) = (profile.distribution(statistic), watch.median(statistic)) else {
                continue;
            };
            let shown = |value: f64| significant(statistic.display_value(value), 3);
            let [low, high] = training.range().map(shown);
            let moved = self.run.findings.iter().any(|finding| finding.kind == statistic.kind());
            table.row([
                statistic.to_string(),
                format!("{low} to {high}"),
                shown(training.median()),
                shown(median),
                if moved { "shifted" } else { "" }.to_owned(),
            ]);
        }
        table.print(&mut out)?;
        writeln!(out)?;
        for Finding { p_value, message, .. } in &self.run.findings {
            writeln!(out, "{message} (p = {})", significant(*p_value, 2))?;
        }
        for (kind, count) in &self.run.by_kind {
            writeln!(out, "{count} of {}, each alone, {}", counted(self.run.images, "image"), kind.describe())?;
        }
        if self.run.shifted == 0 && !self.shifted {
            writeln!(out, "nothing sets the {} apart from the training images", counted(self.run.images, "image"))?;
        }
        Ok(())
    }
}

/// Properties of images, for programs.
#[derive(Serialize)]
struct Survey {
    images: usize,
    /// Sizes in pixels with the number of images, the most frequent first.
    sizes: Vec<Size>,
    described: Described,
    /// Groups of images with equal pixels.
    duplicates: Vec<Vec<String>>,
    unreadable: Vec<Skipped>,
}

#[derive(Serialize)]
struct Size {
    width: u32,
    height: u32,
    images: usize,
}

fn survey(samples: &[Sample], args: &DoctorArgs, console: &Console) -> anyhow::Result<Status> {
    let options = args.reading.options(None);
    let bars = Bars::new(console, Unit::Images);
    bars.start("looking at images", Some(samples.len() as u64));
    let look_at = |sample: &Sample| {
        if bars.cancelled() {
            return Err(MethodError::Cancelled.into());
        }
        let loaded = sample.source.load_with_facts(&options.limits);
        bars.advance(1);
        Ok(loaded.map(|(image, file)| {
            let statistics = ImageStatistics::of(&image);
            let look = Look { size: image.dimensions(), file, statistics, features: None };
            (look, content(image.dimensions(), image.as_raw()))
        }))
    };
    let looked: Result<Vec<_>, DetectorError> = samples.par_iter().map(look_at).collect();
    bars.finish();
    let (mut looks, mut unreadable) = (Vec::new(), Vec::new());
    let mut same: HashMap<[u64; 2], Vec<String>> = HashMap::new();
    let mut sizes: HashMap<(u32, u32), usize> = HashMap::new();
    for (sample, looked) in samples.iter().zip(looked.map_err(interrupted)?) {
        match looked {
            Ok((look, content)) => {
                same.entry(content).or_default().push(sample.id.clone());
                *sizes.entry(look.size).or_default() += 1;
                looks.push(look);
            }
            Err(error) => unreadable.push(Skipped {
                id: sample.id.clone(),
                kind: error.kind().to_owned(),
                message: error.to_string(),
            }),
        }
    }
    tell_skipped(&unreadable, "image", console);
    let Some(profile) = InputProfile::of(&looks, None) else {
        return Err(nothing_readable(samples.len()));
    };
    let mut duplicates: Vec<Vec<String>> = same.into_values().filter(|paths| paths.len() > 1).collect();
    duplicates.sort();
    let mut sizes: Vec<Size> =
        sizes.into_iter().map(|((width, height), images)| Size { width, height, images }).collect();
    sizes.sort_by_key(|size| (std::cmp::Reverse(size.images), size.width, size.height));
    let survey = Survey { images: looks.len(), sizes, described: Described::of(&profile), duplicates, unreadable };
    match args.format {
        Format::Json => print_json(&survey)?,
        Format::Table => survey.print()?,
    }
    Ok(Status::Done)
}

impl Survey {
    fn print(&self) -> anyhow::Result<()> {
        self.described.print()?;
        let mut out = stdout();
        writeln!(out)?;
        let sizes = self.sizes.iter().take(SIZES_SHOWN);
        let mut sizes: Vec<String> =
            sizes.map(|size| format!("{}×{} ({})", size.width, size.height, size.images)).collect();
        if self.sizes.len() > SIZES_SHOWN {
            sizes.push(format!("{} more", self.sizes.len() - SIZES_SHOWN));
        }
        let twice: usize = self.duplicates.iter().map(|paths| paths.len() - 1).sum();
        print_facts(
            &mut out,
            &[
                ("sizes", sizes.join(", ")),
                ("duplicates", if twice == 0 { "none".to_owned() } else { counted(twice, "image") }),
                ("unreadable", counted(self.unreadable.len(), "image")),
            ],
        )?;
        for paths in self.duplicates.iter().take(DUPLICATES_SHOWN) {
            writeln!(out, "the same pixels: {}", paths.join(", "))?;
        }
        if self.duplicates.len() > DUPLICATES_SHOWN {
            writeln!(out, "and {} more", self.duplicates.len() - DUPLICATES_SHOWN)?;
        }
        Ok(())
    }
}

/// A hash of the pixels of an image, with a collision probability of 2⁻¹²⁸.
fn content(size: (u32, u32), pixels: &[u8]) -> [u64; 2] {
    [0u8, 1].map(|salt| {
        let mut hasher = DefaultHasher::new();
        (salt, size, pixels).hash(&mut hasher);
        hasher.finish()
    })
}

fn interrupted(error: DetectorError) -> anyhow::Error {
    Failure::if_cancelled(error, "interrupted while looking at the images", "nothing was written")
}

fn nothing_readable(images: usize) -> anyhow::Error {
    let message = format!("none of the {} could be read", counted(images, "image"));
    Failure::new(message, "the warnings above say why").into()
}
