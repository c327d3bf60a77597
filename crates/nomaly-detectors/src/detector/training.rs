//! The data of a fit's images besides their features.

use nomaly_methods::{Groups, HeldOut};

use crate::calibration::DecisionRule;
use crate::images::Streamed;
use crate::outcome::HeldOutImage;
use crate::shift::InputProfile;

/// The data of a fit's images besides their features.
pub(crate) struct Training {
    /// The name in the model file.
    pub(crate) dataset: String,
    pub(crate) seed: u64,
    pub(crate) rule: DecisionRule,
    /// Changed copies of each image.
    pub(crate) copies: usize,
    /// The usable and skipped images. A skipped image is listed once, without its copies.
    pub(crate) streamed: Streamed,
    /// The profile of the images.
    pub(crate) input: Option<InputProfile>,
    /// Notes for the user that precede those of the method.
    pub(crate) notes: Vec<String>,
}

/// Held-out scores with their samples and groups.
pub(super) fn held_out_images(held_out: &[HeldOut], usable: &[usize], groups: &Groups) -> Vec<HeldOutImage> {
    let of = |held_out: &HeldOut| HeldOutImage {
        sample: usable[held_out.image],
        group: groups.of()[held_out.image],
        score: held_out.score,
    };
    held_out.iter().map(of).collect()
}
