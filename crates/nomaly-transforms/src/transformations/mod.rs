//! Sets of image transformations, as data.
//!
//! # What it computes
//! A [`TransformationSet`] is a list of [`Transformation`]s, each a composition of steps on planes of values in \[0,
//! 1\]. A network that learns to recognize the transformation of an image learns what normal images look like; its
//! confidence measures how normal an image is.
//!
//! # When to use
//! With methods that make their own labels. `geotrans` where items have a fixed pose; a smaller set where training must
//! be quick; no rotations or flips where normal items come rotated or flipped, since they could not be distinguished.
//!
//! # Parameters
//! A set is written as one string:
//!
//! ```text
//! set            = term { "/" term }
//! term           = preset { "+" extra } | transformation
//! preset         = "geotrans" [ "=" share ] | "rotations" | "rotations-flips"
//! extra          = "zoom" [ "=" factor ] | "crop" [ "=" share ] | "jitter" [ "=" change ]
//!                | "equalise" | "quantile" [ "=" value ]
//! transformation = "identity" | step { "+" step }
//! step           = "flip" | "tx=" share | "ty=" share | "rot90" | "rot180" | "rot270" | extra
//! ```
//!
//! A preset is a product: `geotrans` is {–, flip} × {–, −tx, +tx} × {–, −ty, +ty} × {–, rot90, rot180,
//! rot270}, 72 transformations, with the last factor changing fastest; shifts are by a quarter of the side, or by the
//! given share. `rotations` are the four turns, `rotations-flips` eight. **Each extra doubles the set**: first come the
//! transformations without it, then the same ones with it. Regardless of their position, extras are applied before the
//! preset's steps, `equalise` or `quantile` first, then `jitter`, `crop` and `zoom` (T = T_old ∘ zoom ∘ crop ∘
//! jitter ∘ equalise). An explicit transformation applies its steps **from left to right**. The names of
//! transformations have the same form, so every set can be written as a list.
//!
//! | step | what it does | setting |
//! |---|---|---|
//! | `flip` | exchanges left and right | |
//! | `tx=t`, `ty=t` | row `i` shows row `i + t`, column `j` column `j + t`; beyond the border lies the mirror image, `dcba\|abcd\|dcba` | share of the side, rounded to whole pixels |
//! | `rot90`, `rot180`, `rot270` | turns counter-clockwise, as `numpy.rot90` | |
//! | `zoom=s` | enlarges about the centre, linearly interpolated | factor 0.25 to 4; 1.3 |
//! | `crop=s` | a window at a random place, stretched to the image's size | share of the sides; 0.8 |
//! | `jitter=a` | brightness, contrast and saturation times random factors in \[1 − a, 1 + a\] | above 0 to 1; 0.4 |
//! | `equalise` | a value becomes the share of values that are not greater; one histogram of 256 levels for all channels | |
//! | `quantile=Q` | the same, times Q | above 0 to 1; 0.7 |
//!
//! # Reference
//! Golan, El-Yaniv, *Deep Anomaly Detection Using Geometric Transformations*, NeurIPS 2018, section 4.1 and its
//! published code, for `geotrans`; shifts, zooms and turns equal those of Keras (`apply_affine_transform` with
//! `order=1` and `fill_mode='reflect'`, which is SciPy's) and NumPy. Braga, *Deep Anomaly Detection Using Geometric
//! Transformations*, presentation, Friedrich-Alexander-Universität Erlangen-Nürnberg, 2025, for the extras. Factors
//! of `jitter` act as in torchvision's `adjust_brightness`, `adjust_contrast` and `adjust_saturation`; `equalise` is
//! scikit-image's `equalize_hist` of 8-bit images, linearly interpolated for values between two levels.
//!
//! ```
//! use nomaly_transforms::transformations::TransformationSet;
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//!
//! let set: TransformationSet = "geotrans+zoom".parse()?;
//! assert_eq!(set.len(), 144);
//! assert_eq!(set.to_string(), "geotrans+zoom=1.3");
//! assert_eq!(set.get(1).unwrap().name(), "rot90");
//! assert_eq!(set.get(77).unwrap().name(), "zoom=1.3+ty=-0.25+rot90");
//!
//! let mine: TransformationSet = "identity/rot90/flip+rot180".parse()?;
//! let mut out = [0.0; 4];
//! mine.get(1).unwrap().apply(&[0.1, 0.2, 0.3, 0.4], [2, 2], &mut ChaCha8Rng::seed_from_u64(0), &mut out)?;
//! assert_eq!(out, [0.2, 0.4, 0.1, 0.3]);
//!
//! let error = "geotrans+zom=1.3".parse::<TransformationSet>().unwrap_err();
//! assert_eq!(error.to_string(), "unknown extra transformation `zom`; did you mean `zoom`?");
//! # Ok::<(), nomaly_transforms::TransformError>(())
//! ```

pub(crate) mod geometry;
mod photometry;
mod set;
pub(crate) mod step;

use std::fmt;
use std::str::FromStr;

use rand_chacha::ChaCha8Rng;

pub(crate) use set::{GEOTRANS, Preset, ROTATIONS, ROTATIONS_FLIPS};
pub use set::{MAX_TRANSFORMATIONS, TransformationSet};
use step::{Step, StepBuffer};

use crate::error::TransformError;
use crate::planes::{check_planes, check_size};

/// The most steps that one [`Transformation`] is composed of.
pub const MAX_STEPS: usize = 16;

/// The name of the transformation without steps.
const IDENTITY: &str = "identity";

/// One transformation of a [`TransformationSet`]: a sequence of steps.
///
/// It is written, and parsed, as its [name](Self::name); the [module documentation](self) lists the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Transformation {
    steps: Vec<Step>,
}

impl Transformation {
    /// The steps in order, such as `zoom=1.3+flip+ty=-0.25+rot90`; `identity` if there are none. Two transformations of
    /// a set never have the same name.
    pub fn name(&self) -> String {
        self.to_string()
    }

    /// The inverse transformation, exact to the bit.
    ///
    /// `None` unless all steps are flips and rotations: the others lose pixels or values.
    pub fn inverse(&self) -> Option<Self> {
        let steps = self.steps.iter().rev().map(|step| step.inverse()).collect::<Option<_>>()?;
        Some(Self { steps })
    }

    /// Whether the result is random: `crop` and `jitter` draw random numbers.
    pub fn is_random(&self) -> bool {
        self.steps.iter().any(|step| step.is_random())
    }

    /// Checks that images of this size, height and width in pixels, can be transformed.
    ///
    /// # Errors
    /// [`TransformError::EmptyImage`], [`TransformError::NotSquare`] for `rot90` and `rot270`,
    /// [`TransformError::TooSmall`] if a step would have no effect or move by less than a pixel.
    pub fn check(&self, size: [usize; 2]) -> Result<(), TransformError> {
        check_size(size)?;
        self.steps.iter().try_for_each(|step| step.check(size))
    }

    /// Transforms planes `[C, H, W]` of values in \[0, 1\], where `size` is `[H, W]`, into as many values in `out`.
    ///
    /// A transformation that [is not random](Self::is_random) does not use `random`. Moves of pixels take any value and
    /// keep it bit for bit; `jitter`, `equalise` and `quantile` read values beyond \[0, 1\] as the nearer end.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), [`TransformError::PlanesLength`], [`TransformError::OutputLength`]. `out` is
    /// then unchanged.
    pub fn apply(
        &self,
        planes: &[f32],
        size: [usize; 2],
        random: &mut ChaCha8Rng,
        out: &mut [f32],
    ) -> Result<(), TransformError> {
        self.check(size)?;
        check_planes(planes, size, out)?;
        let mut buffer = StepBuffer::new(planes, size, out);
        for &step in &self.steps {
            buffer.take(step, random);
        }
        buffer.finish();
        Ok(())
    }
}

impl fmt::Display for Transformation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return f.write_str(IDENTITY);
        }
        for (index, step) in self.steps.iter().enumerate() {
            write!(f, "{}{step}", if index == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

impl FromStr for Transformation {
    type Err = TransformError;

    fn from_str(text: &str) -> Result<Self, TransformError> {
        set::transformation(text)
    }
}
