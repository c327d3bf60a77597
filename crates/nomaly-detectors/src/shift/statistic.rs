//! The compared statistics, with their units and descriptions.

use serde::{Deserialize, Serialize};

use super::distribution::{Distribution, Side};
use super::{Look, ShiftKind};

/// A statistic of an image that is compared with the training images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Statistic {
    /// The mean luma.
    Brightness,
    /// The standard deviation of luma.
    Contrast,
    /// The energy of the Laplacian relative to that of the gradient.
    Sharpness,
    /// The standard deviation of noise and fine texture.
    Noise,
    /// The mean difference of the largest and the smallest channel.
    Saturation,
    /// Red minus green.
    RedGreen,
    /// Blue minus green.
    BlueGreen,
    /// Differences across the borders of JPEG blocks relative to those inside.
    Blockiness,
    /// Horizontal relative to vertical differences.
    Orientation,
    /// The square root of width × height.
    Size,
    /// Width over height.
    Aspect,
    /// The distance of the pooled features of the shallowest tap.
    Features,
}

/// A gray level.
const GRAY_LEVEL: f64 = 1.0 / 255.0;

impl Statistic {
    /// All statistics.
    pub const ALL: [Self; 12] = [
        Self::Brightness,
        Self::Contrast,
        Self::Sharpness,
        Self::Noise,
        Self::Saturation,
        Self::RedGreen,
        Self::BlueGreen,
        Self::Blockiness,
        Self::Orientation,
        Self::Size,
        Self::Aspect,
        Self::Features,
    ];

    /// The kind of shift that it shows.
    pub fn kind(self) -> ShiftKind {
        match self {
            Self::Brightness => ShiftKind::Brightness,
            Self::Contrast => ShiftKind::Contrast,
            Self::Sharpness => ShiftKind::Sharpness,
            Self::Noise => ShiftKind::Noise,
            Self::Saturation => ShiftKind::Saturation,
            Self::RedGreen | Self::BlueGreen => ShiftKind::ColorCast,
            Self::Blockiness => ShiftKind::Blockiness,
            Self::Orientation => ShiftKind::Orientation,
            Self::Size => ShiftKind::Size,
            Self::Aspect => ShiftKind::Aspect,
            Self::Features => ShiftKind::Features,
        }
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::Sharpness => "sharpness",
            Self::Noise => "noise (grey levels)",
            Self::Saturation => "saturation",
            Self::RedGreen => "red less green",
            Self::BlueGreen => "blue less green",
            Self::Blockiness => "blockiness",
            Self::Orientation => "orientation",
            Self::Size => "size (pixels)",
            Self::Aspect => "width / height",
            Self::Features => "feature distance",
        }
    }

    /// The compared value, on a scale on which equal differences have equal meaning. `None` for features, which the
    /// profile measures itself.
    pub(super) fn value(self, look: &Look) -> Option<f64> {
        let statistics = &look.statistics;
        let [width, height] = [look.size.0, look.size.1].map(|side| f64::from(side.max(1)));
        Some(match self {
            Self::Brightness => statistics.brightness.into(),
            Self::Contrast => (f64::from(statistics.contrast) + GRAY_LEVEL).ln(),
            Self::Sharpness => statistics.sharpness.into(),
            Self::Noise => (f64::from(statistics.noise) / GRAY_LEVEL + 0.25).ln(),
            Self::Saturation => statistics.saturation.into(),
            Self::RedGreen => statistics.red_green.into(),
            Self::BlueGreen => statistics.blue_green.into(),
            Self::Blockiness => statistics.blockiness.into(),
            Self::Orientation => statistics.orientation.into(),
            Self::Size => (width * height).sqrt().ln(),
            Self::Aspect => (width / height).ln(),
            Self::Features => return None,
        })
    }

    /// Converts a compared value to the displayed unit.
    pub fn display_value(self, value: f64) -> f64 {
        match self {
            Self::Contrast => value.exp() - GRAY_LEVEL,
            Self::Noise => value.exp() - 0.25,
            Self::Sharpness | Self::Blockiness | Self::Orientation | Self::Size | Self::Aspect | Self::Features => {
                value.exp()
            }
            Self::Brightness | Self::Saturation | Self::RedGreen | Self::BlueGreen => value,
        }
    }

    /// The least relevant difference, and the least standard deviation.
    pub(super) fn floor(self) -> f64 {
        match self {
            Self::Brightness | Self::Saturation | Self::RedGreen | Self::BlueGreen => GRAY_LEVEL,
            Self::Contrast | Self::Sharpness | Self::Blockiness | Self::Orientation => 0.02,
            Self::Noise => 0.03,
            Self::Size | Self::Aspect => 0.02,
            Self::Features => 0.05,
        }
    }

    /// Whether values below those of the training images count: a smaller distance of features does not.
    pub(super) fn has_side(self, side: Side) -> bool {
        self != Self::Features || side == Side::Above
    }

    /// "brighter than the training images (0.62; they span 0.41 to 0.55)".
    pub(super) fn message(self, value: f64, side: Side, training: &Distribution) -> String {
        let [low, high] = training.range().map(|end| number(self.display_value(end)));
        let found = number(self.display_value(value));
        format!("{} the training images ({found}; they span {low} to {high})", self.comparison(side))
    }

    /// "brighter than".
    pub(super) fn comparison(self, side: Side) -> &'static str {
        match (self, side) {
            (Self::Brightness, Side::Above) => "brighter than",
            (Self::Brightness, Side::Below) => "darker than",
            (Self::Contrast, Side::Above) => "of more contrast than",
            (Self::Contrast, Side::Below) => "of less contrast than",
            (Self::Sharpness, Side::Above) => "sharper than",
            (Self::Sharpness, Side::Below) => "blurrier than",
            (Self::Noise, Side::Above) => "with more noise or fine texture than",
            (Self::Noise, Side::Below) => "with less noise or fine texture than",
            (Self::Saturation, Side::Above) => "more colourful than",
            (Self::Saturation, Side::Below) => "paler in colour than",
            (Self::RedGreen, Side::Above) => "redder than",
            (Self::RedGreen, Side::Below) => "less red than",
            (Self::BlueGreen, Side::Above) => "bluer than",
            (Self::BlueGreen, Side::Below) => "less blue than",
            (Self::Blockiness, Side::Above) => "with stronger traces of JPEG blocks than",
            (Self::Blockiness, Side::Below) => "with weaker traces of JPEG blocks than",
            (Self::Orientation, Side::Above) => "with structures that run more upright than in",
            (Self::Orientation, Side::Below) => "with structures that run more level than in",
            (Self::Size, Side::Above) => "larger than",
            (Self::Size, Side::Below) => "smaller than",
            (Self::Aspect, Side::Above) => "wider in shape than",
            (Self::Aspect, Side::Below) => "narrower in shape than",
            (Self::Features, _) => {
                "farther, in the network's first features, from the mean of the training images than"
            }
        }
    }
}

impl std::fmt::Display for Statistic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A number with three significant digits, without decimals for large numbers.
pub(super) fn number(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = match magnitude {
        _ if magnitude >= 100.0 => 0,
        _ if magnitude >= 10.0 => 1,
        _ if magnitude >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    // Avoid -0.
    if text.trim_start_matches('-').chars().all(|digit| matches!(digit, '0' | '.')) {
        text.trim_start_matches('-').to_owned()
    } else {
        text
    }
}
