//! Training images that do not look like the others.
//!
//! # What it computes
//! A few defective images among the training images have high held-out scores, for fits on the others know little of
//! their kind. A [`RobustTail`] through the middle of all held-out scores, which a minority of such images moves
//! little, gives each a p-value.
//!
//! # When to use
//! Always: [`suspicious`] costs nothing, and naming an image asks no more than a look at it. Leaving images out
//! ([`fit_without_suspicious`](crate::refit::fit_without_suspicious)) trades a promise: the false-alarm rate then holds
//! for images like those that were kept, so that up to the level of suspicion of good images may be flagged besides.
//!
//! Defects of one kind that make up much of the training images are near each other, score low, and are not found.

use std::collections::BTreeSet;

use nomaly_scorers::decision::RobustTail;

use crate::outcome::HeldOutImage;

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
