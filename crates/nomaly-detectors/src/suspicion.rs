//! Suspicious training images.
//!
//! # What it computes
//! Defective images among the training images have high held-out scores, as long as few others share the defect. A
//! [`RobustTail`] fitted to the middle of all held-out scores, which a minority of such images hardly affects, gives
//! each image a p-value.
//!
//! # When to use
//! Always: [`suspicious`] costs nothing, and a named image only has to be looked at. Dropping images
//! ([`fit_without_suspicious`](crate::refit::fit_without_suspicious)) weakens the guarantee: the false-alarm rate then
//! holds for images like the kept ones, so that up to the level of suspicion of good images may be flagged in addition.
//!
//! Defects of one kind in a large share of the training images are near each other, score low, and are not found.

use std::collections::BTreeSet;

use nomaly_scorers::decision::RobustTail;

use crate::outcome::HeldOutImage;

/// A suspicious training image.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspicious {
    /// Its index among the samples of the fit.
    pub sample: usize,
    /// Its held-out score.
    pub score: f64,
    /// The p-value of its score among the others, in [0, 1].
    pub p_value: f64,
}

/// The level at which about one of ten sets of `images` good images, with an exponential tail, has a suspicious one.
pub fn naming_level(images: usize) -> f64 {
    0.1 / images.max(1) as f64
}

/// The images whose p-value is at most `level`, the least likely first. Empty if the tail cannot be fitted: fewer than
/// eight scores, or half of them equal.
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
    // Keep the most suspicious of an image and its changed copies.
    let mut seen = BTreeSet::new();
    found.retain(|image| seen.insert(image.sample));
    found
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
