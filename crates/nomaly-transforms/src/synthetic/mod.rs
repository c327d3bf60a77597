//! Seeded synthetic defects with exact masks.
//!
//! # What it computes
//! A defect of a [`Kind`] drawn into a good image, and a mask of the same size that is 255 where the defect is and 0
//! elsewhere: every pixel outside the mask is the input's, bit for bit.
//!
//! # When to use
//! For demonstrations, for choosing settings when no real defects have been collected, and for tests. Scores on
//! synthetic defects say little about the detection of real ones. Defects may fall on the background of an object.
//!
//! # Parameters
//! The kind and a seeded generator. Sizes follow the image's shorter side; strengths are drawn from ranges in which the
//! defect is obvious on a plain surface (thin ones hide in busy textures, as real ones do). The same seed gives the
//! same bytes on every platform: only operations that IEEE 754 defines exactly are used (no sines, exponentials or
//! fused operations).
//!
//! # Reference
//! Li, Sohn, Yoon, Pfister, *CutPaste: Self-Supervised Learning for Anomaly Detection and Localization*, CVPR 2021, for
//! `cut-paste` and `scar`; the other kinds imitate the defect classes of the MVTec AD data set (Bergmann et al., CVPR
//! 2019).
//!
//! ```
//! use nomaly_transforms::{samples, synthetic};
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//!
//! let good = samples::texture("brick")?;
//! let mut rng = ChaCha8Rng::seed_from_u64(7);
//! let (bad, mask) = synthetic::apply(synthetic::KINDS.get("crack")?, &good, &mut rng);
//! let changed = good.pixels().zip(bad.pixels()).filter(|(a, b)| a != b).count();
//! assert!(changed > 0 && changed <= mask.pixels().filter(|m| m.0[0] == 255).count());
//! # Ok::<(), nomaly_registry::UnknownName>(())
//! ```

pub(crate) mod blur;
mod canvas;
pub(crate) mod crack;
pub(crate) mod cut_paste;
pub(crate) mod missing;
pub(crate) mod scar;
pub(crate) mod scratch;
pub(crate) mod spot;
pub(crate) mod stain;

use image::{GrayImage, RgbImage};
use nomaly_registry::{Entry, Registry};
use rand_chacha::ChaCha8Rng;

/// A kind of synthetic defect.
#[derive(Debug)]
pub struct Kind {
    /// The name users type.
    pub name: &'static str,
    /// One line: what the defect looks like.
    pub summary: &'static str,
    draw: fn(&RgbImage, &mut canvas::Dice<'_>) -> (RgbImage, GrayImage),
}

impl Entry for Kind {
    fn name(&self) -> &str {
        self.name
    }

    fn summary(&self) -> &str {
        self.summary
    }
}

/// All kinds of synthetic defect.
pub static KINDS: Registry<Kind> = Registry::new(
    "synthetic defect",
    &[crack::KIND, scratch::KIND, stain::KIND, spot::KIND, blur::KIND, missing::KIND, cut_paste::KIND, scar::KIND],
);

/// Draws one defect into a copy of an image. Returns the copy and the mask, 255 on the defect and 0 elsewhere.
///
/// An image without pixels is returned unchanged.
pub fn apply(kind: &Kind, image: &RgbImage, rng: &mut ChaCha8Rng) -> (RgbImage, GrayImage) {
    if image.width() == 0 || image.height() == 0 {
        return (image.clone(), GrayImage::new(image.width(), image.height()));
    }
    (kind.draw)(image, &mut canvas::Dice(rng))
}
