//! What a fit knows of its images beside their features.

use nomaly_methods::{Groups, HeldOut};

use crate::calibration::DecisionRule;
use crate::images::Streamed;
use crate::outcome::HeldOutImage;
use crate::shift::InputProfile;

/// What is known of the images of a fit beside their features.
pub(crate) struct Training {
    /// The name that the model file remembers.
    pub(crate) dataset: String,
    pub(crate) seed: u64,
    pub(crate) rule: DecisionRule,
    /// Changed copies of each image.
    pub(crate) copies: usize,
    /// Which images were usable. An image that was not is named once, not with its copies.
    pub(crate) streamed: Streamed,
    /// How the images looked.
    pub(crate) input: Option<InputProfile>,
    /// What the user should know before what the method says.
    pub(crate) notes: Vec<String>,
}

/// Held-out scores with the places of their samples and their groups.
pub(super) fn held_out_images(held_out: &[HeldOut], usable: &[usize], groups: &Groups) -> Vec<HeldOutImage> {
    let of = |held_out: &HeldOut| HeldOutImage {
        sample: usable[held_out.image],
        group: groups.of()[held_out.image],
        score: held_out.score,
    };
    held_out.iter().map(of).collect()
}
