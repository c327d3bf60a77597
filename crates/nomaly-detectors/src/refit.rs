//! Fits without suspicious training images.

use nomaly_data::Sample;
use nomaly_store::Progress;

use crate::detector::{Detector, FitOptions, FitResult};
use crate::error::DetectorError;
use crate::suspicion::{Suspicious, suspicious};

/// The most refits.
const ROUNDS: usize = 3;
/// The most dropped images, as a share of all.
pub const MOST_DROPPED: f64 = 0.25;

/// Fits on `samples` without those suspicious at `level`, in (0, 1): fits, drops suspicious images and refits, up to
/// three times and up to a quarter of the images. `detector` builds the detector for each fit.
///
/// Returns the last fit with the [dropped](FitResult::dropped) images. Its held-out images are numbered among all
/// `samples`.
///
/// # Errors
/// A level out of range, and errors of building and fitting the detector.
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
