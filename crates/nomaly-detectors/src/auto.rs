//! The method `auto`: a choice by the number of good images and the time there is.
//!
//! The order of preference is what was measured on the data sets of `docs/methods.md`: PatchCore leads from 20 to 300 images.
//! Its time to fit grows with the square of their number, so from [`MANY`] on PaDiM is preferred. Where there is a time budget, a few of the images are run through
//! the backbone on this machine, and a method that would take longer gives way to a quicker one. Methods that do not know one
//! of the settings, or need more images, are passed over.

use std::time::{Duration, Instant};

use nomaly_data::Sample;
use nomaly_store::Silent;

use crate::features::{FeatureSource, StreamOptions};
use crate::{Detector, DetectorError, METHODS, Settings};

/// From so many images on PaDiM is preferred.
pub const MANY: usize = 500;
/// Images that are timed.
const TIMED: usize = 8;

/// What `auto` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The method's name.
    pub method: &'static str,
    /// Why, in one line.
    pub reason: String,
}

/// A method that `auto` may choose.
struct Candidate {
    name: &'static str,
    /// Roughly how long a fit on this many images takes, in passes of all of them through the backbone.
    passes: fn(usize) -> f64,
}

const PADIM: Candidate = Candidate { name: "padim", passes: |_| 2.5 };
// The coreset and the held-out comparisons grow with the square of the images, up to 200 held-out ones.
const PATCHCORE: Candidate = Candidate { name: "patchcore", passes: |images| 2.0 + images as f64 / 25.0 };
const MVG: Candidate = Candidate { name: "mvg", passes: |_| 1.5 };

/// Chooses a method for fitting on `samples`; the choice depends on this machine's speed only where there is a
/// `time_budget` for the fit.
///
/// # Errors
/// Settings that no candidate takes, and a backbone that cannot be opened; too few images for any candidate.
pub fn choose_method(
    samples: &[Sample],
    backbone: &str,
    settings: &Settings,
    time_budget: Option<Duration>,
    stream: StreamOptions,
) -> Result<Choice, DetectorError> {
    let images = samples.len();
    let order = if images < MANY { [PATCHCORE, PADIM, MVG] } else { [PADIM, PATCHCORE, MVG] };
    let mut refused = None;
    let mut estimates = Vec::new();
    for Candidate { name, passes } in order {
        let detector = match Detector::new(name, backbone, settings) {
            Ok(detector) => detector,
            Err(error) => {
                refused.get_or_insert(error);
                continue;
            }
        };
        let needed = METHODS.get(name)?.min_images;
        if images < needed {
            let found = images;
            refused.get_or_insert(DetectorError::TooFewImages { method: name.to_owned(), needed, found });
            continue;
        }
        let Some(budget) = time_budget else {
            return Ok(Choice { method: name, reason: format!("auto chose {name} for {images} images") });
        };
        let seconds = passes(images) * images as f64 * seconds_an_image(&detector, samples, stream)?;
        if seconds <= budget.as_secs_f64() {
            let passed_over = estimates.concat();
            let reason = format!(
                "auto chose {name} for {images} images: about {seconds:.0} s to fit of {:.0} s allowed{passed_over}",
                budget.as_secs_f64()
            );
            return Ok(Choice { method: name, reason });
        }
        estimates.push(format!("; {name} would take about {seconds:.0} s"));
    }
    match (time_budget, refused) {
        (Some(budget), _) if !estimates.is_empty() => Err(DetectorError::TimeBudget {
            seconds: budget.as_secs_f64(),
            images,
            estimates: estimates.concat().trim_start_matches("; ").to_owned(),
        }),
        (_, Some(error)) => Err(error),
        (_, None) => Err(DetectorError::TooFewImages { method: "auto".to_owned(), needed: 1, found: images }),
    }
}

/// How long an image takes from its file to its features on this machine.
fn seconds_an_image(detector: &Detector, samples: &[Sample], stream: StreamOptions) -> Result<f64, DetectorError> {
    let timed = &samples[..samples.len().min(TIMED)];
    let began = Instant::now();
    let source = detector.source(timed, stream);
    source.visit(&Silent, &mut |_| Ok(()))?;
    Ok(began.elapsed().as_secs_f64() / timed.len().max(1) as f64)
}
