//! The three classes of CutPaste.
//!
//! # What it computes
//! An unchanged image, one with a patch of itself pasted elsewhere, or one with a thin rotated strip of itself: the
//! classes that a network learns to tell apart. Patches are those of [`synthetic`](crate::synthetic)'s kinds
//! `cut-paste` and `scar`, on planes; pixels outside the patch keep their values bit for bit.
//!
//! # When to use
//! Where anomalies are defects of a part of the image.
//!
//! # Parameters
//! None: area 2–15 % of the image, aspect ratio 0.3–1 or 1–3.3; scars of 2–16 by 10–25 pixels at 256 pixels
//! (they grow and shrink with the shorter side, down to a quarter), turned by up to 45°; both with brightness,
//! contrast and saturation changed by up to 10 % and the hue by up to a tenth of a turn. Grey images stay grey: a
//! network that recognizes patches by their colour learns nothing about defects. Pasted values are rounded to 8 bits.
//!
//! # Reference
//! Li, Sohn, Yoon, Pfister, *CutPaste: Self-Supervised Learning for Anomaly Detection and Localization*, CVPR 2021,
//! sections 2.2 to 2.4 and appendix A.

use image::{Rgb, RgbImage};
use nomaly_registry::Entry;
use rand_chacha::ChaCha8Rng;

use super::Listed;
use crate::error::TransformError;
use crate::planes::check_planes;
use crate::synthetic;

/// A class of the 3-way classification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CutPasteClass {
    /// The unchanged image.
    Normal,
    /// The image with a patch of itself.
    CutPaste,
    /// The image with a thin rotated strip of itself.
    Scar,
}

pub(crate) const CUT_PASTE_3_WAY: Listed = Listed {
    name: "cutpaste-3-way",
    summary: "the classes normal, cut-paste and scar, to be told apart (CutPaste)",
    parameters: "as cut-paste and scar",
};

impl CutPasteClass {
    /// All classes, in the order of their labels.
    pub const ALL: [Self; 3] = [Self::Normal, Self::CutPaste, Self::Scar];

    /// The label: 0 normal, 1 cut-paste, 2 scar.
    pub fn label(self) -> usize {
        self as usize
    }

    /// Makes an image of this class from planes `[C, H, W]` of values in \[0, 1\], where C is 1 or 3 and `size` is `[H,
    /// W]`.
    ///
    /// `random` determines sizes, positions and colours; [`Normal`](Self::Normal) does not use it.
    ///
    /// ```
    /// use nomaly_transforms::augment::CutPasteClass;
    /// use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
    ///
    /// let image: Vec<f32> = (0u16..1024).map(|value| f32::from(value) / 1023.0).collect();
    /// let mut random = ChaCha8Rng::seed_from_u64(0);
    /// let mut out = vec![0.0; 1024];
    /// CutPasteClass::Scar.apply(&image, [32, 32], &mut random, &mut out)?;
    /// let changed = image.iter().zip(&out).filter(|(before, after)| before != after).count();
    /// assert!((1..100).contains(&changed));
    /// # Ok::<(), nomaly_transforms::TransformError>(())
    /// ```
    ///
    /// # Errors
    /// [`TransformError::EmptyImage`], [`TransformError::PlanesLength`], [`TransformError::OutputLength`],
    /// [`TransformError::Channels`], [`TransformError::TooSmall`] below 8×8 pixels. `out` is then unchanged.
    pub fn apply(
        self,
        planes: &[f32],
        size: [usize; 2],
        random: &mut ChaCha8Rng,
        out: &mut [f32],
    ) -> Result<(), TransformError> {
        /// The smallest side: below it a scar is hardly a pixel.
        const LEAST: usize = 8;
        let pixels = check_planes(planes, size, out)?;
        let channels = planes.len() / pixels;
        if channels != 1 && channels != 3 {
            return Err(TransformError::Channels { actual: channels });
        }
        let kind = match self {
            Self::Normal => {
                out.copy_from_slice(planes);
                return Ok(());
            }
            Self::CutPaste => synthetic::cut_paste::KIND,
            Self::Scar => synthetic::scar::KIND,
        };
        let [height, width] = size;
        let side = |side: usize| u32::try_from(side).ok().filter(|&side| side <= crate::MAX_SIDE);
        let (Some(rows), Some(columns)) = (side(height), side(width)) else {
            return Err(TransformError::PlanesLength { height, width, actual: planes.len() });
        };
        if height < LEAST || width < LEAST {
            return Err(TransformError::TooSmall { step: kind.name().to_owned(), height, width });
        }
        let mut image = RgbImage::new(columns, rows);
        for (at, pixel) in image.pixels_mut().enumerate() {
            // The cast saturates. A grey image has three equal channels.
            let level = |channel: usize| (planes[channel % channels * pixels + at] * 255.0 + 0.5) as u8;
            *pixel = Rgb([level(0), level(1), level(2)]);
        }
        let (pasted, mask) = synthetic::apply(&kind, &image, random);
        out.copy_from_slice(planes);
        for (at, (pixel, mask)) in pasted.pixels().zip(mask.pixels()).enumerate() {
            if mask.0[0] != 0 {
                for channel in 0..channels {
                    out[channel * pixels + at] = f32::from(pixel.0[channel]) / 255.0;
                }
            }
        }
        Ok(())
    }
}
