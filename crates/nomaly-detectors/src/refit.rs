//! Fits that leave out training images that do not look like the others.

use nomaly_data::Sample;
use nomaly_store::Progress;

use crate::detector::{Detector, FitOptions, FitResult};
use crate::error::DetectorError;
use crate::suspicion::{Suspicious, suspicious};

/// How often images are left out and the others fitted again.
const ROUNDS: usize = 3;
/// The most images that are left out, as a share of all.
pub const MOST_DROPPED: f64 = 0.25;

/// Fits on `samples` without those that are suspicious at `level`, in (0, 1): fits, leaves them out and fits again, up
/// to three times and up to a quarter of the images. `detector` makes the same detector anew for each fit.
///
/// Gives the last fit, whose held-out images are numbered among all `samples`, with what was [left
/// out](FitResult::dropped).
///
/// # Errors
/// A level out of range, and everything that making and fitting the detector fail with.
pub fn fit_without_suspicious(
    detector: &dyn Fn() -> Result<Detector, DetectorError>,
    dataset: &str,
    samples: &[Sample],
    options: &FitOptions,
    level: f64,
    progress: &dyn Progress,
) -> Result<FitResult, DetectorError> {
    if !(level > 0.0 && level < 1.0) {
        let allowed = "a level between 0 and 1, both excluded";
        return Err(DetectorError::setting("drop_suspicious", &level.to_string(), allowed));
    }
    let most = (MOST_DROPPED * samples.len() as f64) as usize;
    let mut kept: Vec<usize> = (0..samples.len()).collect();
    let mut dropped: Vec<Suspicious> = Vec::new();
    let mut fit = detector()?.fit(dataset, samples, options, progress)?;
    for _ in 0..ROUNDS {
        let mut found = suspicious(&fit.held_out, level);
        found.truncate(most - dropped.len());
        if found.is_empty() {
            break;
        }
        kept.retain(|sample| found.iter().all(|image| image.sample != *sample));
        dropped.append(&mut found);
        let rest: Vec<Sample> = kept.iter().map(|&sample| samples[sample].clone()).collect();
        let skipped = fit.skipped;
        fit = detector()?.fit(dataset, &rest, options, progress)?;
        fit.held_out.iter_mut().for_each(|image| image.sample = kept[image.sample]);
        fit.skipped = skipped;
    }
    fit.detector.dropped(dropped.len());
    fit.dropped = dropped;
    Ok(fit)
}
