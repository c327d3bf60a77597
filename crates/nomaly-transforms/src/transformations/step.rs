//! The steps that transformations are composed of.

use std::fmt;

use nomaly_registry::{Entry, Registry};
use rand_chacha::ChaCha8Rng;

use super::geometry::{Gather, Window};
use super::photometry::{Factors, equalize};
use crate::dice::Dice;
use crate::entry::Group;
use crate::error::TransformError;

/// One step. Settings are in range: only [`StepKind::parse`] and the presets create steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// Mirrors left and right.
    Flip,
    /// Takes row `i` from row `i + t`, where `t` is this share of the height.
    ShiftRows(f64),
    /// Takes column `j` from column `j + t`, where `t` is this share of the width.
    ShiftColumns(f64),
    /// Turns counter-clockwise by this many times 90°.
    Turn(u8),
    /// Enlarges this many times about the centre.
    Zoom(f64),
    /// Stretches a window anywhere in the image, of this share of its sides.
    Crop(f64),
    /// Changes brightness, contrast and saturation by factors at most this far from 1.
    Jitter(f64),
    /// Equalises the histogram.
    Equalize,
    /// Equalises the histogram up to this value.
    Quantile(f64),
}

/// The numeric setting of a step, as in `zoom=1.3`.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The default; without one the setting is required.
    default: Option<f64>,
    /// The allowed values, for error messages.
    expected: &'static str,
    valid: fn(f64) -> bool,
}

/// A named kind of step.
#[derive(Debug)]
pub(crate) struct StepKind {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) group: Group,
    pub(crate) parameters: &'static str,
    setting: Option<Setting>,
    make: fn(f64) -> Step,
}

impl Entry for StepKind {
    fn name(&self) -> &str {
        self.name
    }

    fn summary(&self) -> &str {
        self.summary
    }
}

impl StepKind {
    /// Parses the text after the name: nothing, or a number after `=`.
    pub(super) fn parse(&self, setting: Option<&str>) -> Result<Step, TransformError> {
        let wrong = |expected| TransformError::Setting {
            name: self.name,
            value: setting.unwrap_or_default().to_owned(),
            expected,
        };
        match (&self.setting, setting) {
            (None, None) => Ok((self.make)(0.0)),
            (None, Some(_)) => Err(wrong("no setting")),
            (Some(rule), None) => rule.default.map(self.make).ok_or_else(|| wrong(rule.expected)),
            (Some(rule), Some(text)) => number(text, rule.valid).map(self.make).ok_or_else(|| wrong(rule.expected)),
        }
    }
}

/// Parses a number that a rule allows.
pub(super) fn number(text: &str, valid: fn(f64) -> bool) -> Option<f64> {
    text.trim().parse().ok().filter(|&value: &f64| value.is_finite() && valid(value))
}

const SHARE_OF_SIDE: Setting = Setting {
    default: None,
    expected: "a share of the side between -1 and 1 and not 0, as in `tx=-0.25`",
    valid: |share| share != 0.0 && share.abs() < 1.0,
};

const fn turn(name: &'static str, summary: &'static str, make: fn(f64) -> Step) -> StepKind {
    StepKind { name, summary, group: Group::Geometry, parameters: "", setting: None, make }
}

pub(crate) const FLIP: StepKind = turn("flip", "the mirror image, left and right exchanged", |_| Step::Flip);
pub(crate) const TX: StepKind = StepKind {
    name: "tx",
    summary: "rows taken from further down (or up), mirrored at the border",
    group: Group::Geometry,
    parameters: "share of the height, as in tx=-0.25",
    setting: Some(SHARE_OF_SIDE),
    make: Step::ShiftRows,
};
pub(crate) const TY: StepKind = StepKind {
    name: "ty",
    summary: "columns taken from further right (or left), mirrored at the border",
    group: Group::Geometry,
    parameters: "share of the width, as in ty=0.25",
    setting: Some(SHARE_OF_SIDE),
    make: Step::ShiftColumns,
};
pub(crate) const ROT90: StepKind = turn("rot90", "turned by 90° counter-clockwise", |_| Step::Turn(1));
pub(crate) const ROT180: StepKind = turn("rot180", "turned by 180°", |_| Step::Turn(2));
pub(crate) const ROT270: StepKind = turn("rot270", "turned by 270° counter-clockwise", |_| Step::Turn(3));
pub(crate) const ZOOM: StepKind = StepKind {
    name: "zoom",
    summary: "enlarged about the centre, interpolated linearly",
    group: Group::Geometry,
    parameters: "factor, 1.3 by default",
    setting: Some(Setting {
        default: Some(1.3),
        expected: "a factor from 0.25 to 4 and not 1",
        valid: |factor| (0.25..=4.0).contains(&factor) && factor != 1.0,
    }),
    make: Step::Zoom,
};
pub(crate) const CROP: StepKind = StepKind {
    name: "crop",
    summary: "a random window, stretched to the size of the image",
    group: Group::Geometry,
    parameters: "share of the sides, 0.8 by default",
    setting: Some(Setting {
        default: Some(0.8),
        expected: "a share of the sides, at least 0.1 and less than 1",
        valid: |share| (0.1..1.0).contains(&share),
    }),
    make: Step::Crop,
};
pub(crate) const JITTER: StepKind = StepKind {
    name: "jitter",
    summary: "random changes of brightness, contrast and saturation",
    group: Group::Photometry,
    parameters: "greatest change of each factor, 0.4 by default",
    setting: Some(Setting {
        default: Some(0.4),
        expected: "a change above 0 and up to 1",
        valid: |strength| strength > 0.0 && strength <= 1.0,
    }),
    make: Step::Jitter,
};
pub(crate) const EQUALIZE: StepKind = StepKind {
    name: "equalise",
    summary: "histogram equalisation: every value becomes the share of values that are not greater",
    group: Group::Photometry,
    parameters: "",
    setting: None,
    make: |_| Step::Equalize,
};
pub(crate) const QUANTILE: StepKind = StepKind {
    name: "quantile",
    summary: "quantile histogram equalisation: equalised up to the value Q",
    group: Group::Photometry,
    parameters: "Q, 0.7 by default",
    setting: Some(Setting {
        default: Some(0.7),
        expected: "a value above 0 and up to 1",
        valid: |top| top > 0.0 && top <= 1.0,
    }),
    make: Step::Quantile,
};

/// All steps.
pub(super) static STEPS: Registry<StepKind> =
    Registry::new("step", &[FLIP, TX, TY, ROT90, ROT180, ROT270, ZOOM, CROP, JITTER, EQUALIZE, QUANTILE]);

/// The name and the setting, in the parsed form.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flip => f.write_str("flip"),
            Self::ShiftRows(share) => write!(f, "tx={share}"),
            Self::ShiftColumns(share) => write!(f, "ty={share}"),
            Self::Turn(quarters) => write!(f, "rot{}", 90 * u32::from(*quarters)),
            Self::Zoom(factor) => write!(f, "zoom={factor}"),
            Self::Crop(share) => write!(f, "crop={share}"),
            Self::Jitter(strength) => write!(f, "jitter={strength}"),
            Self::Equalize => f.write_str("equalise"),
            Self::Quantile(top) => write!(f, "quantile={top}"),
        }
    }
}

/// A share of a side in whole pixels, rounded half away from 0.
fn pixels(share: f64, side: usize) -> isize {
    (share * side as f64).round() as isize
}

impl Step {
    /// The inverse step, if there is one.
    pub(super) fn inverse(self) -> Option<Self> {
        match self {
            Self::Flip => Some(Self::Flip),
            Self::Turn(quarters) => Some(Self::Turn(4 - quarters)),
            _ => None,
        }
    }

    pub(super) fn is_random(self) -> bool {
        matches!(self, Self::Crop(_) | Self::Jitter(_))
    }

    /// Checks that the step keeps the image's shape and that the image is large enough for it to have an effect.
    pub(super) fn check(self, [height, width]: [usize; 2]) -> Result<(), TransformError> {
        let enough = match self {
            Self::Turn(quarters) if quarters % 2 == 1 && height != width => {
                return Err(TransformError::NotSquare { step: self.to_string(), height, width });
            }
            Self::Flip => width > 1,
            Self::ShiftRows(share) => pixels(share, height) != 0,
            Self::ShiftColumns(share) => pixels(share, width) != 0,
            Self::Turn(_) => height.max(width) > 1,
            Self::Zoom(factor) => (1.0 - 1.0 / factor).abs() * height.min(width) as f64 >= 1.0,
            Self::Crop(share) => (1.0 - share) * height.min(width) as f64 >= 1.0,
            Self::Jitter(_) | Self::Equalize | Self::Quantile(_) => true,
        };
        if enough { Ok(()) } else { Err(TransformError::TooSmall { step: self.to_string(), height, width }) }
    }
}

/// An image to which steps are applied one by one.
pub(super) struct StepBuffer<'a> {
    size: [usize; 2],
    planes: &'a [f32],
    out: &'a mut [f32],
    /// Whether `out` holds the current image, rather than `planes`.
    written: bool,
    /// Pending moves of pixels.
    gather: Option<Gather>,
}

impl<'a> StepBuffer<'a> {
    /// Starts with an image of checked size; `out` must have the same length.
    pub(super) fn new(planes: &'a [f32], size: [usize; 2], out: &'a mut [f32]) -> Self {
        Self { size, planes, out, written: false, gather: None }
    }

    pub(super) fn take(&mut self, step: Step, random: &mut ChaCha8Rng) {
        let [height, width] = self.size;
        let mut dice = Dice(random);
        match step {
            Step::Flip => self.gather().flip(),
            Step::ShiftRows(share) => self.gather().shift_rows(pixels(share, height)),
            Step::ShiftColumns(share) => self.gather().shift_columns(pixels(share, width)),
            Step::Turn(quarters) => self.gather().turn(quarters),
            Step::Zoom(factor) => self.resample(Window { share: 1.0 / factor, place: [0.5; 2] }),
            Step::Crop(share) => {
                let place = [(); 2].map(|()| f64::from(dice.between(0.0, 1.0)));
                self.resample(Window { share, place });
            }
            Step::Jitter(strength) => {
                let strength = strength as f32;
                let [brightness, contrast, saturation] = [(); 3].map(|()| dice.between(1.0 - strength, 1.0 + strength));
                Factors { brightness, contrast, saturation }.apply(self.values(), height * width);
            }
            Step::Equalize => equalize(self.values(), 1.0),
            Step::Quantile(top) => equalize(self.values(), top),
        }
    }

    /// Applies the pending moves.
    pub(super) fn finish(mut self) {
        self.values();
    }

    fn gather(&mut self) -> &mut Gather {
        self.gather.get_or_insert_with(|| Gather::identity(self.size))
    }

    fn resample(&mut self, window: Window) {
        self.move_pixels();
        let size = self.size;
        self.rewrite(|planes, out| window.resample(planes, size, out));
    }

    /// The current image, for changes in place.
    fn values(&mut self) -> &mut [f32] {
        self.move_pixels();
        if !self.written {
            self.rewrite(|planes, out| out.copy_from_slice(planes));
        }
        self.out
    }

    fn move_pixels(&mut self) {
        if let Some(gather) = self.gather.take() {
            let width = self.size[1];
            self.rewrite(|planes, out| gather.copy(planes, width, out));
        }
    }

    fn rewrite(&mut self, write: impl FnOnce(&[f32], &mut [f32])) {
        if self.written {
            let before = self.out.to_vec();
            write(&before, self.out);
        } else {
            write(self.planes, self.out);
            self.written = true;
        }
    }
}
