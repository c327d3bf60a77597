//! The method `auto`: chooses a method and settings by the images and the time budget.
//!
//! The order of preference follows the accuracy on the data sets of `docs/methods.md`: PatchCore at two sizes with the
//! aspect ratio kept, then at one, then PaDiM, then Gaussians of pooled features. Banks have at most [`BANK`] patches,
//! so that the time to fit grows linearly with the number of images and the time to score is bounded.
//!
//! A few images are run through the backbone to estimate the time of a fit on this machine; candidates that exceed the
//! time budget are skipped, as are those that lack one of the given settings or need more images. With fewer than
//! [`FEW_GROUPS`] groups of images one size is chosen, because the standardization of two sizes is estimated from
//! held-out groups.

use std::time::{Duration, Instant};

use nomaly_data::Sample;
use nomaly_kernels::Isa;
use nomaly_kernels::coreset::KCentreGreedy;
use nomaly_kernels::neighbours::{Bank, Metric};
use nomaly_methods::methods::patchcore::PatchCoreParams;
use nomaly_methods::{InputParams, METHODS, MethodError};
use nomaly_nn::runtime::Executor;
use nomaly_settings::{Assignments, SettingsTable};
use nomaly_store::Silent;
use rayon::prelude::*;

pub use crate::fusion::FEW_GROUPS;
use crate::images::StreamOptions;
use crate::{Detector, DetectorError, FitOptions};

/// The default sizes, unless settings, time or groups require a single one.
pub const SIZES: &str = "256,448";
/// The most patches of a memory bank.
pub const BANK: usize = 10_000;

/// The number of timed images.
const TIMED_IMAGES: usize = 8;

/// The choice of `auto`.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoChoice {
    /// The method's name.
    pub method: &'static str,
    /// The given settings with those of the choice.
    pub settings: Assignments,
    /// The reason, in one line.
    pub reason: String,
    /// The estimated seconds of the fit on this machine.
    pub fit_seconds: f64,
}

/// A candidate of `auto`.
struct Candidate {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    /// The fewest groups of images.
    groups: usize,
    /// Estimates the seconds of a fit with these settings.
    seconds: fn(&Timing, images: usize, settings: &Assignments) -> Result<f64, DetectorError>,
}

/// The settings of PatchCore.
const PATCHES: [(&str, &str); 8] = [
    ("aspect", "keep"),
    ("coreset", "1"),
    ("bank", "10000"),
    ("candidates", "350000"),
    ("precision", "half"),
    ("projection", "64"),
    ("reweighting", "off"),
    ("grid", "auto"),
];

const fn with<const N: usize>(size: (&'static str, &'static str)) -> [(&'static str, &'static str); N] {
    let mut settings = [size; N];
    let mut at = 0;
    while at < PATCHES.len() {
        settings[at] = PATCHES[at];
        at += 1;
    }
    settings
}

const TWO_SIZES: Candidate = Candidate {
    name: "patchcore",
    settings: &with::<9>(("sizes", SIZES)),
    groups: FEW_GROUPS,
    seconds: Timing::patchcore,
};
const ONE_SIZE: Candidate =
    Candidate { name: "patchcore", settings: &with::<9>(("input_size", "256")), groups: 1, seconds: Timing::patchcore };
const PADIM: Candidate = Candidate {
    name: "padim",
    settings: &[("aspect", "keep")],
    groups: 1,
    seconds: |timing, images, _| Ok(timing.passes(2.5, images)),
};
const MVG: Candidate = Candidate {
    name: "mvg",
    settings: &[("aspect", "keep")],
    groups: 1,
    seconds: |timing, images, _| Ok(timing.passes(1.5, images)),
};

/// Settings that fix the input size, with their neutral values.
const SIZE_SETTINGS: [(&str, &str); 4] = [("sizes", ""), ("input_size", ""), ("tiles", "1x1"), ("view", "whole")];

/// Whether the settings fix the input size.
fn fixes_size(settings: &Assignments) -> bool {
    SIZE_SETTINGS.iter().any(|(key, nothing)| settings.text(key).is_some_and(|value| value != *nothing))
}

impl Candidate {
    /// Merges the settings of a choice into the given ones: without sizes if a size was given, and without the aspect
    /// ratio if a view was.
    fn settings(&self, given: &Assignments) -> Assignments {
        let sized = fixes_size(given);
        let viewed = given.text("view").is_some_and(|view| view != "whole");
        let left_out =
            |key: &str| (sized && SIZE_SETTINGS.iter().any(|(own, _)| *own == key)) || (viewed && key == "aspect");
        let own: Assignments = self.settings.iter().filter(|(key, _)| !left_out(key)).copied().collect();
        given.clone().or(&own)
    }
}

/// `0.8 s`, `12 s`.
fn in_seconds(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}

/// `patchcore at the sizes 256,448`.
fn in_words(method: &str, settings: &Assignments) -> String {
    match (settings.text("sizes"), settings.text("input_size")) {
        (Some(sizes), _) if sizes.contains(',') => format!("{method} at the sizes {sizes}"),
        (Some(size), _) | (None, Some(size)) => format!("{method} at the size {size}"),
        (None, None) => method.to_owned(),
    }
}

/// Chooses a method for fitting on `samples` with `options` on `executor`. The choice depends on the speed of the
/// machine only with a `time_budget`.
///
/// Groups found in features are not known yet; every image then counts as one.
///
/// # Errors
/// Settings that no candidate accepts, a backbone that cannot be opened, too few images for any candidate, and images
/// that cannot be grouped as requested.
pub fn choose_method(
    samples: &[Sample],
    backbone: &str,
    settings: &Assignments,
    options: &FitOptions,
    time_budget: Option<Duration>,
    executor: &Executor,
) -> Result<AutoChoice, DetectorError> {
    let images = samples.len();
    let all: Vec<&Sample> = samples.iter().collect();
    let groups = options.group_by.by_name(&all)?.map_or(images, |(groups, _)| groups.count());
    let counted = match groups {
        1 if images > 1 => format!("{images} images in one group"),
        _ if groups < images => format!("{images} images in {groups} groups"),
        _ => format!("{images} images"),
    };
    let own_settings = !settings.is_empty();
    let mut why = if own_settings { "" } else { ", the most accurate choice where it was measured" };
    // Changed copies are training images too.
    let learned = images * (1 + options.changes.0.len());
    let mut refused = None;
    let mut estimates = Vec::new();
    for candidate in [TWO_SIZES, ONE_SIZE, PADIM, MVG] {
        let name = candidate.name;
        let own = candidate.settings(settings);
        // A given size rules out two sizes.
        if candidate.groups > 1 && fixes_size(settings) {
            why = "";
            continue;
        }
        if groups < candidate.groups {
            why = ": it takes more groups to weigh sizes against each other";
            continue;
        }
        let what = in_words(name, &own);
        let detector =
            match Detector::new_on(name, backbone, &own, executor).and_then(|detector| detector.shaped_for(samples)) {
                Ok(detector) => detector,
                Err(error) => {
                    refused.get_or_insert(error);
                    continue;
                }
            };
        let needed = METHODS.get(name)?.min_images;
        if images < needed {
            let found = images;
            refused.get_or_insert(DetectorError::from(MethodError::TooFew {
                of: name.to_owned(),
                items: "training images",
                needed,
                found,
            }));
            continue;
        }
        let timing = Timing::of(&detector, samples, options.stream, executor)?;
        let seconds = (candidate.seconds)(&timing, learned, &own)?;
        let budget = time_budget.map(|budget| budget.as_secs_f64());
        if budget.is_none_or(|budget| seconds <= budget) {
            let allowed = budget.map_or_else(String::new, |budget| format!(" of {} allowed", in_seconds(budget)));
            if !estimates.is_empty() || refused.is_some() {
                why = "";
            }
            let passed_over = estimates.concat();
            let reason = format!(
                "auto chose {what} for {counted}{why}; about {} to fit{allowed}{passed_over}",
                in_seconds(seconds)
            );
            return Ok(AutoChoice { method: name, settings: own, reason, fit_seconds: seconds });
        }
        estimates.push(format!("; {what} would take about {}", in_seconds(seconds)));
    }
    match (time_budget, refused) {
        (Some(budget), _) if !estimates.is_empty() => {
            let (seconds, estimates) = (budget.as_secs_f64(), estimates.concat());
            let estimates = estimates.trim_start_matches("; ");
            let reason = format!("no method learns from {images} images in {seconds} s: {estimates}");
            Err(DetectorError::from(MethodError::Limit { reason }))
        }
        (_, Some(error)) => Err(error),
        (_, None) => Err(DetectorError::from(MethodError::TooFew {
            of: "auto".to_owned(),
            items: "training images",
            needed: 1,
            found: images,
        })),
    }
}

/// Timings on this machine.
struct Timing {
    /// Seconds from an image's file to its features at all sizes.
    image: f64,
    /// Patches per image and values per patch, at each size.
    patches: Vec<(usize, usize)>,
    /// Seconds per value and comparison of a candidate with a selected patch of a coreset.
    coreset: f64,
    /// Seconds per value and comparison of a patch with a patch of a bank.
    search: f64,
}

impl Timing {
    fn of(
        detector: &Detector,
        samples: &[Sample],
        stream: StreamOptions,
        executor: &Executor,
    ) -> Result<Self, DetectorError> {
        let timed = &samples[..samples.len().min(TIMED_IMAGES)];
        let began = Instant::now();
        detector.stream(timed, stream).run(&Silent, "timing", &mut |_| Ok::<(), DetectorError>(()))?;
        let image = began.elapsed().as_secs_f64() / timed.len().max(1) as f64;
        let patches = detector.patches();
        let (coreset, search) = kernels(executor.isa())?;
        Ok(Self { image, patches, coreset, search })
    }

    /// Seconds of this many passes of all images through the network.
    fn passes(&self, passes: f64, images: usize) -> f64 {
        passes * images as f64 * self.image
    }

    fn patchcore(&self, images: usize, settings: &Assignments) -> Result<f64, DetectorError> {
        let (_, own) = settings.split(&SettingsTable::of::<InputParams>());
        let params: PatchCoreParams = own.read()?;
        let held_out = images.min(params.held_out);
        let of_size = |&(patches, dim): &(usize, usize)| {
            let all = images * patches;
            let candidates = params.candidates.map_or(all, |most| most.min(all));
            let share = (params.coreset * all as f64) as usize;
            let bank = share.min(params.bank.unwrap_or(usize::MAX)).min(candidates);
            let numbers = params.projection.map_or(dim, |components| components.min(dim));
            let compared = candidates as f64 * bank as f64 * numbers as f64;
            let chosen = if candidates > bank { compared * self.coreset } else { 0.0 };
            chosen + (held_out * patches) as f64 * (bank * dim) as f64 * self.search
        };
        Ok(self.passes(1.0, images) + self.passes(1.0, held_out) + self.patches.iter().map(of_size).sum::<f64>())
    }
}

/// Seconds per value of a coreset selection and of a search, measured on synthetic rows: smooth curves in many
/// dimensions, for which the coreset's bounds skip about as many comparisons as for patches.
fn kernels(isa: Isa) -> Result<(f64, f64), DetectorError> {
    let rows = |count: usize, dim: usize| -> Vec<f32> {
        let number = |at: usize| ((at / dim) as f32 * 0.618 * (1.0 + (at % dim % 7) as f32) + (at % dim) as f32).sin();
        (0..count * dim).into_par_iter().map(number).collect()
    };
    let [count, dim, picks] = [24_000, 64, 800];
    let candidates = rows(count, dim);
    let began = Instant::now();
    KCentreGreedy::default().select(&candidates, dim, picks, isa)?;
    let coreset = began.elapsed().as_secs_f64() / (count * dim * picks) as f64;
    let [banked, queries, dim] = [6000, 768, 152];
    let patches = rows(banked + queries, dim);
    let began = Instant::now();
    // A bank is built for each held-out image.
    let bank = Bank::new(&patches[..banked * dim], dim, Metric::SquaredL2, isa)?;
    bank.top_k(&patches[banked * dim..], 1)?;
    Ok((coreset, began.elapsed().as_secs_f64() / (banked * queries * dim) as f64))
}
