//! Detects shifts of images against the training images: camera, lighting, resolution, storage.
//!
//! The false-alarm rate of a decision holds for images taken like the training images. Another exposure, scale or JPEG
//! quality changes the features as much as a defect does, and every image is flagged for no visible reason. Therefore a
//! model keeps an [`InputProfile`] of its training images, and reports the [`InputShift`] of every scored image.
//!
//! # What it compares
//! * **Facts**: format, bits per sample, color, JPEG quality, and size if all training images share one. A fact only
//!   counts if all training images agree on it.
//! * **Statistics** of the decoded image ([`nomaly_transforms::statistics`]), and size if it varies.
//! * **Features**: the shallowest tap of the method, averaged over positions, by its Mahalanobis distance.
//!
//! # How it decides
//! A statistic of an image is shifted if it exceeds the training images' range by a margin, and its two-sided p-value
//! under Student's t for one further value is below its share of [`LEVEL`] (Bonferroni). The degrees of freedom follow
//! from the training images' kurtosis, the scale from the wider of their two sides. For all images of a run, a
//! [`RunWatch`] compares each distribution with the training images' by the rank-sum test, so that "all images are a
//! little brighter" is detected even if no single image is extreme.
//!
//! # Reference
//! The t-type prediction interval: Hahn and Meeker, *Statistical Intervals*, 1991, section 4.7. The rank-sum test: Mann
//! and Whitney, Annals of Mathematical Statistics 18(1), 1947. The shrinkage of the features' covariance: Chen, Wiesel,
//! Eldar and Hero, *Shrinkage algorithms for MMSE covariance estimation*, IEEE TSP 58(10), 2010 (OAS).

mod distribution;
mod facts;
mod profile;
mod run;
mod shallow;
mod statistic;
mod student;

use nomaly_transforms::FileFacts;
use nomaly_transforms::statistics::ImageStatistics;
use serde::Serialize;

pub use self::distribution::{Distribution, MOST_QUANTILES};
pub use self::profile::InputProfile;
pub use self::run::{Finding, RunShift, RunWatch};
pub(crate) use self::shallow::pooled;
pub use self::shallow::{MOST_CHANNELS, ShallowFeatures};
pub use self::statistic::Statistic;

/// The nominal rate of unshifted images called shifted. It is below the target of 1 %, since real statistics have
/// heavier tails than Student's t.
pub const LEVEL: f64 = 0.002;

/// How an image looks: the data of a profile, and of the comparison with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// How it was stored; `None` for images in memory.
    pub file: Option<FileFacts>,
    /// Statistics of its pixels.
    pub statistics: ImageStatistics,
    /// The shallowest tap of the method, averaged over positions; `None` for methods on pixels.
    pub features: Option<Vec<f32>>,
}

/// The kind of a shift: in what an image differs from the training images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ShiftKind {
    /// Another family of file formats.
    Format,
    /// Another number of bits per sample.
    BitDepth,
    /// Gray in place of color, or color in place of gray.
    Color,
    /// Another size in pixels.
    Size,
    /// Another ratio of width and height.
    Aspect,
    /// Another JPEG quality.
    Compression,
    /// Brighter or darker.
    Brightness,
    /// More or less contrast.
    Contrast,
    /// Sharper or blurrier.
    Sharpness,
    /// More or less noise or fine texture.
    Noise,
    /// More or less saturated colors.
    Saturation,
    /// Another balance of the colors.
    ColorCast,
    /// Other traces of JPEG blocks in the pixels.
    Blockiness,
    /// Structures that run in another direction.
    Orientation,
    /// Features of the network, without another kind that explains them.
    Features,
}

impl ShiftKind {
    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::BitDepth => "bit-depth",
            Self::Color => "color",
            Self::Size => "size",
            Self::Aspect => "aspect",
            Self::Compression => "compression",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::Sharpness => "sharpness",
            Self::Noise => "noise",
            Self::Saturation => "saturation",
            Self::ColorCast => "color-cast",
            Self::Blockiness => "blockiness",
            Self::Orientation => "orientation",
            Self::Features => "features",
        }
    }

    /// A phrase that follows "12 of 20 images": "differ in brightness from the training images".
    pub fn describe(self) -> &'static str {
        match self {
            Self::Format => "are stored in another format than the training images",
            Self::BitDepth => "have other bits per sample than the training images",
            Self::Color => "differ from the training images in having colour or none",
            Self::Size => "are of another size than the training images",
            Self::Aspect => "have another ratio of width and height than the training images",
            Self::Compression => "are stored with another JPEG quality than the training images",
            Self::Brightness => "are brighter or darker than the training images",
            Self::Contrast => "have another contrast than the training images",
            Self::Sharpness => "are sharper or blurrier than the training images",
            Self::Noise => "differ from the training images in noise or fine texture",
            Self::Saturation => "have more or less saturated colours than the training images",
            Self::ColorCast => "have another balance of colours than the training images",
            Self::Blockiness => "differ from the training images in traces of JPEG blocks",
            Self::Orientation => "have structures in other directions than the training images",
            Self::Features => "look unlike the training images to the network",
        }
    }

    /// The order of explanation: facts, then statistics, then features, which name no cause.
    fn tier(self) -> u8 {
        match self {
            Self::Features => 2,
            kind => u8::from(!kind.is_fact()),
        }
    }

    /// Whether it is a fact rather than a measured value. Facts explain measured values and are reported first.
    pub fn is_fact(self) -> bool {
        self <= Self::Compression
    }
}

impl std::fmt::Display for ShiftKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How an image differs from the training images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InputShift {
    /// The kinds of differences: facts, then statistics by their p-values, then features.
    pub kinds: Vec<ShiftKind>,
    /// The first of them.
    pub worst: ShiftKind,
    /// The p-value of the worst, in (0, 1]: how rare it is among images like the training images. For a fact shared by
    /// all n training images it is 1 / (n + 1).
    pub p_value: f64,
    /// In words, with numbers.
    pub message: String,
}

/// The most differences in a message.
const MOST_LISTED: usize = 3;

/// A single difference.
#[derive(Clone, Debug)]
struct Difference {
    kind: ShiftKind,
    p_value: f64,
    message: String,
}

impl InputShift {
    /// Combines differences; `None` without any.
    fn of(mut differences: Vec<Difference>) -> Option<Self> {
        differences.sort_by(|a, b| a.kind.tier().cmp(&b.kind.tier()).then(a.p_value.total_cmp(&b.p_value)));
        // Two statistics may share a kind.
        let mut kinds = Vec::new();
        differences.retain(|difference| {
            let first = !kinds.contains(&difference.kind);
            kinds.extend(first.then_some(difference.kind));
            first
        });
        let worst = differences.first()?;
        let messages: Vec<&str> =
            differences.iter().take(MOST_LISTED).map(|difference| difference.message.as_str()).collect();
        Some(Self { worst: worst.kind, p_value: worst.p_value, message: messages.join("; "), kinds })
    }
}
