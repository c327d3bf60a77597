//! Training images that do not look like the others.
//!
//! # What it computes
//! A few defective images among the training images have high held-out scores, for fits on the others know little of
//! their kind. A [`RobustTail`] through the middle of all held-out scores, which a minority of such images moves
//! little, gives each a p-value.
//!
//! # When to use
//! Always: [`suspicious`] costs nothing, and naming an image asks no more than a look at it. Leaving images out
//! ([`fit_without_suspicious`]) trades a promise: the false-alarm rate then holds for images like those that were kept,
//! so that up to the level of suspicion of good images may be flagged besides.
//!
//! Defects of one kind that make up much of the training images are near each other, score low, and are not found.

use std::collections::BTreeSet;

use nomaly_data::Sample;
use nomaly_scorers::decision::RobustTail;
use nomaly_store::Progress;

use crate::{Detector, DetectorError, Fit, FitOptions, HeldOutImage};

/// How often images are left out and the others fitted again.
const ROUNDS: usize = 3;
/// The most images that are left out, as a share of all.
pub const MOST_DROPPED: f64 = 0.25;

/// A training image that does not look like the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspicious {
    /// Its place among the samples that were fitted on.
    pub sample: usize,
    /// Its held-out score.
    pub score: f64,
    /// How rare such a score is among the others, in [0, 1].
    pub p_value: f64,
}

/// The level at which about one of ten sets of `images` good images, with an exponential tail, has one that is named.
pub fn naming_level(images: usize) -> f64 {
    0.1 / images.max(1) as f64
}

/// The images whose p-value is at most `level`, the least likely first; none where scores have no tail to speak of:
/// fewer than eight, or half of them equal.
pub fn suspicious(held_out: &[HeldOutImage], level: f64) -> Vec<Suspicious> {
    let scores: Vec<f64> = held_out.iter().map(|image| image.score).collect();
    let Ok(tail) = RobustTail::fit(&scores) else { return Vec::new() };
    let p_values = held_out.iter().map(|image| Suspicious {
        sample: image.sample,
        score: image.score,
        p_value: tail.p_value(image.score),
    });
    let mut found: Vec<Suspicious> = p_values.filter(|image| image.p_value <= level).collect();
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    // Of an image and its changed copies the most suspicious counts.
    let mut seen = BTreeSet::new();
    found.retain(|image| seen.insert(image.sample));
    found
}

/// Fits on `samples` without those that are suspicious at `level`, in (0, 1): fits, leaves them out and fits again, up
/// to three times and up to a quarter of the images. `detector` makes the same detector anew for each fit.
///
/// Gives the last fit, whose held-out images are numbered among all `samples`, with what was [left out](Fit::dropped).
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
) -> Result<Fit, DetectorError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn held_out(scores: impl IntoIterator<Item = f64>) -> Vec<HeldOutImage> {
        let image = |(sample, score): (usize, f64)| HeldOutImage { sample, group: sample as u32, score };
        scores.into_iter().enumerate().map(image).collect()
    }

    #[test]
    fn what_is_far_beyond_the_others_is_named_the_farthest_first() {
        let scores = (0..40).map(|at| {
            if at == 7 {
                30.0
            } else if at == 20 {
                25.0
            } else {
                5.0 + f64::from(at * 17 % 40) / 40.0
            }
        });
        let found = suspicious(&held_out(scores), naming_level(40));
        assert_eq!(found.iter().map(|image| image.sample).collect::<Vec<_>>(), [7, 20]);
        assert!(found[0].p_value < found[1].p_value && found[1].p_value < 1e-6);
    }

    #[test]
    fn scores_alike_name_nobody() {
        assert!(suspicious(&held_out((0..40).map(|at| f64::from(at % 9))), 0.01).is_empty());
        assert!(suspicious(&held_out([1.0; 40]), 0.5).is_empty());
        assert!(suspicious(&held_out([1.0, 2.0, 99.0]), 0.5).is_empty());
    }
}
