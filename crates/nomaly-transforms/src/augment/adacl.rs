//! The created anomalies of ADACL.
//!
//! # What it computes
//! One of four changes of an image's structure that leave its colours: *cut-paste* copies a random patch to a random
//! place, *puzzle* shuffles the four quarters (never back to where they were), *rotation* turns by 90° once or three
//! times, *mix-up* adds an image and its rotation, each multiplied by a coefficient: a·x + (1 − a)·rot(x).
//!
//! # When to use
//! As training anomalies for a regressor, where anomalies change the whole image. Rotations are not anomalies where
//! normal items come in any orientation.
//!
//! # Parameters
//! The sides of the patch, as shares of the image's, and the coefficient a; both are drawn uniformly from a range each
//! time. The thesis gives no numbers for them: patches of a quarter to a half of each side and 0.3 ≤ a ≤ 0.7 are
//! our choice. A patch without effect, such as background pasted on background, is redrawn up to 16 times.
//!
//! # Reference
//! Khazaie, Wong, Mohsenzadeh, *Augment to Detect Anomalies with Continuous Labelling*, arXiv 2207.01112, 2022;
//! Khazaie's thesis, University of Western Ontario, 2022, section 4.3.4.

use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Listed;
use crate::dice::Dice;
use crate::error::TransformError;
use crate::planes::{check_planes, check_size};
use crate::transformations::geometry::Gather;

/// A kind of anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AdaclKind {
    /// A patch copied to another place.
    CutPaste,
    /// The quarters shuffled.
    Puzzle,
    /// Rotated by 90° or 270°.
    Rotation,
    /// Mixed with its own rotation.
    MixUp,
}

impl AdaclKind {
    /// All kinds, in the order in which they are drawn.
    pub const ALL: [Self; 4] = [Self::CutPaste, Self::Puzzle, Self::Rotation, Self::MixUp];

    /// The name that users type: `cut-paste`, `puzzle`, `rotation` or `mix-up`.
    pub fn name(self) -> &'static str {
        match self {
            Self::CutPaste => "cut-paste",
            Self::Puzzle => "puzzle",
            Self::Rotation => "rotation",
            Self::MixUp => "mix-up",
        }
    }
}

pub(crate) const CUT_PASTE: Listed = Listed {
    name: "adacl-cut-paste",
    summary: "a patch of the image copied elsewhere, colours unchanged (ADACL)",
    parameters: "sides of the patch, 0.25 to 0.5 of the image's",
};
pub(crate) const PUZZLE: Listed =
    Listed { name: "adacl-puzzle", summary: "the four quarters of the image shuffled (ADACL)", parameters: "" };
pub(crate) const ROTATION: Listed =
    Listed { name: "adacl-rotation", summary: "turned by 90° once or three times (ADACL)", parameters: "" };
pub(crate) const MIX_UP: Listed = Listed {
    name: "adacl-mix-up",
    summary: "the image and its rotation added: a·x + (1 − a)·rot(x) (ADACL)",
    parameters: "a, 0.3 to 0.7",
};

/// The augmentation of ADACL.
///
/// ```
/// use nomaly_transforms::augment::AdaclAugmentation;
/// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
///
/// let image: Vec<f32> = (0u8..64).map(|value| f32::from(value) / 63.0).collect();
/// let mut anomaly = vec![0.0; 64];
/// let kind = AdaclAugmentation::default().apply(&image, [8, 8], &mut ChaCha8Rng::seed_from_u64(0), &mut anomaly)?;
/// assert!(anomaly != image, "{kind:?}");
/// # Ok::<(), nomaly_transforms::TransformError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaclAugmentation {
    /// The range of the sides of a pasted patch, as shares of the image's; above 0 and up to 1.
    pub patch: [f64; 2],
    /// The range of the image's coefficient in a mix-up, 0 to 1; its rotation has the rest.
    pub mix: [f64; 2],
}

impl Default for AdaclAugmentation {
    fn default() -> Self {
        Self { patch: [0.25, 0.5], mix: [0.3, 0.7] }
    }
}

impl AdaclAugmentation {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`TransformError::Setting`].
    pub fn validate(&self) -> Result<(), TransformError> {
        let check = |name, [low, high]: [f64; 2], good: bool, expected| {
            let value = format!("{low}..{high}");
            if good { Ok(()) } else { Err(TransformError::Setting { name, value, expected }) }
        };
        let [least, greatest] = self.patch;
        let good = least > 0.0 && least <= greatest && greatest <= 1.0;
        check("patch", self.patch, good, "shares of the side, above 0 and up to 1, the lesser first")?;
        let [least, greatest] = self.mix;
        let good = 0.0 <= least && least <= greatest && greatest <= 1.0;
        check("mix", self.mix, good, "coefficients from 0 to 1, the lesser first")
    }

    /// Checks that anomalies can be made of images of this size, height and width in pixels.
    ///
    /// # Errors
    /// [`TransformError::EmptyImage`], [`TransformError::NotSquare`], [`TransformError::TooSmall`] below 2×2 pixels.
    pub fn check(&self, size: [usize; 2]) -> Result<(), TransformError> {
        AdaclKind::ALL.iter().try_for_each(|kind| kind.check(size))
    }

    /// Makes an anomaly of a random kind from planes `[C, H, W]` of values in \[0, 1\], where `size` is `[H, W]`.
    /// Returns the kind.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate) and [`check`](Self::check), [`TransformError::PlanesLength`],
    /// [`TransformError::OutputLength`]. `out` is then unchanged.
    pub fn apply(
        &self,
        planes: &[f32],
        size: [usize; 2],
        random: &mut ChaCha8Rng,
        out: &mut [f32],
    ) -> Result<AdaclKind, TransformError> {
        self.check(size)?;
        check_planes(planes, size, out)?;
        let kind = AdaclKind::ALL[Dice(random).below(AdaclKind::ALL.len() as u32) as usize];
        self.apply_kind(kind, planes, size, random, out)?;
        Ok(kind)
    }

    /// As [`apply`](Self::apply), with a given kind.
    ///
    /// # Errors
    /// As [`apply`](Self::apply); only [`AdaclKind::Rotation`] and [`AdaclKind::MixUp`] need square images.
    pub fn apply_kind(
        &self,
        kind: AdaclKind,
        planes: &[f32],
        size: [usize; 2],
        random: &mut ChaCha8Rng,
        out: &mut [f32],
    ) -> Result<(), TransformError> {
        self.validate()?;
        kind.check(size)?;
        check_planes(planes, size, out)?;
        let mut dice = Dice(random);
        match kind {
            AdaclKind::CutPaste => self.cut_paste(planes, size, &mut dice, out),
            AdaclKind::Puzzle => puzzle(planes, size, &mut dice, out),
            AdaclKind::Rotation => rotate(planes, size, &mut dice, out),
            AdaclKind::MixUp => {
                rotate(planes, size, &mut dice, out);
                let own = dice.between(self.mix[0] as f32, self.mix[1] as f32);
                for (rotated, &value) in out.iter_mut().zip(planes) {
                    *rotated = own * value + (1.0 - own) * *rotated;
                }
            }
        }
        Ok(())
    }

    fn cut_paste(&self, planes: &[f32], [height, width]: [usize; 2], dice: &mut Dice<'_>, out: &mut [f32]) {
        const TRIES: usize = 16;
        out.copy_from_slice(planes);
        for _ in 0..TRIES {
            let patch = [height, width].map(|side| {
                let share = dice.between(self.patch[0] as f32, self.patch[1] as f32);
                ((share * side as f32 + 0.5) as usize).clamp(1, side)
            });
            let mut place = || [(height, patch[0]), (width, patch[1])].map(|(side, patch)| dice.up_to(side - patch));
            let (from, to) = (place(), place());
            for (source, target) in planes.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width)) {
                for row in 0..patch[0] {
                    let source = &source[(from[0] + row) * width + from[1]..][..patch[1]];
                    target[(to[0] + row) * width + to[1]..][..patch[1]].copy_from_slice(source);
                }
            }
            if out != planes {
                return;
            }
        }
    }
}

impl AdaclKind {
    /// Checks that anomalies of this kind can be made of images of this size, height and width in pixels.
    ///
    /// # Errors
    /// As [`AdaclAugmentation::check`].
    pub fn check(self, [height, width]: [usize; 2]) -> Result<(), TransformError> {
        let step = match self {
            Self::CutPaste => CUT_PASTE.name,
            Self::Puzzle => PUZZLE.name,
            Self::Rotation => ROTATION.name,
            Self::MixUp => MIX_UP.name,
        };
        let step = step.to_owned();
        check_size([height, width])?;
        if matches!(self, Self::Rotation | Self::MixUp) && height != width {
            return Err(TransformError::NotSquare { step, height, width });
        }
        if height < 2 || width < 2 {
            return Err(TransformError::TooSmall { step, height, width });
        }
        Ok(())
    }
}

/// Moves the quarters; if a side is odd, its middle row or column stays.
fn puzzle(planes: &[f32], [height, width]: [usize; 2], dice: &mut Dice<'_>, out: &mut [f32]) {
    let mut order = [0, 1, 2, 3];
    while order == [0, 1, 2, 3] {
        // Fisher–Yates shuffle.
        for last in (1..order.len()).rev() {
            order.swap(last, dice.up_to(last));
        }
    }
    out.copy_from_slice(planes);
    let quarter = [height / 2, width / 2];
    let corner = |number: usize| {
        [
            if number < 2 { 0 } else { height - quarter[0] },
            if number.is_multiple_of(2) { 0 } else { width - quarter[1] },
        ]
    };
    for (source, target) in planes.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width)) {
        for (to, &from) in order.iter().enumerate() {
            let (from, to) = (corner(from), corner(to));
            for row in 0..quarter[0] {
                let source = &source[(from[0] + row) * width + from[1]..][..quarter[1]];
                target[(to[0] + row) * width + to[1]..][..quarter[1]].copy_from_slice(source);
            }
        }
    }
}

fn rotate(planes: &[f32], size: [usize; 2], dice: &mut Dice<'_>, out: &mut [f32]) {
    let mut gather = Gather::identity(size);
    gather.turn(if dice.chance(0.5) { 1 } else { 3 });
    gather.copy(planes, size[1], out);
}
