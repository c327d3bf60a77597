//! Preprocessing settings, common to all methods.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use nomaly_kernels::filter::{Border, MedianFilter};
use nomaly_settings::{Auto, SettingError, Settings, written_as_text};
use nomaly_transforms::{Filter, Flips, MAX_TILES};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Valid sides of the network's input in pixels.
pub const INPUT_SIDES: RangeInclusive<usize> = 32..=2048;

/// The most input sizes.
pub const MOST_SIZES: usize = 4;

/// Preprocessing settings: how images become the input of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InputParams {
    /// Weights of the backbone; `auto` is the embedded or the cached file.
    #[schemars(extend("x-values" = "`auto` or the path of a safetensors, .pth or .pt file"))]
    pub weights: Auto<String>,
    /// Height and width of the network's input; with `aspect=keep` the side of a square of the same area; `auto` is the
    /// backbone's own.
    #[schemars(extend("minimum" = 32, "maximum" = 2048, "x-unit" = "pixels"))]
    pub input_size: Auto<u32>,
    /// See images at several sizes and add up what is said of them, standardized by held-out images.
    #[schemars(extend("x-values" = "numbers of pixels as for `input_size`, ascending, joined by commas, up to 4, or `none`"))]
    pub sizes: Option<Vec<u32>>,
    /// Resize images to a square, or to the median aspect ratio of the training images with sides of multiples of 32
    /// (of the patch of a transformer).
    pub aspect: Aspect,
    /// How images are resized, antialiased; bilinear is what the methods' papers use.
    pub interpolation: Filter,
    /// Resize the whole image, or resize its short side and crop the center as the backbone was trained; `pad` is
    /// `whole`, but sets images that are smaller than the input on black as they are.
    pub view: View,
    /// See an image as tiles of the input size, for small defects on large images.
    pub tiles: Tiles,
    /// How far neighboring tiles overlap, as a share of their side; maps are blended over it.
    #[schemars(extend("minimum" = 0, "exclusiveMaximum" = 0.9))]
    pub overlap: f64,
    /// See flipped copies of each image too, when fitting and when scoring, and average what they say.
    pub flips: Flips,
    /// Side of a median filter that removes specks from maps of the network's (smallest) input before they are blurred.
    #[schemars(extend("x-values" = "an odd number of pixels from 3 to 63, or `none`"))]
    pub median: Option<usize>,
    /// Region of interest: an image, white where defects matter, stretched over each image; what lies outside never
    /// counts (methods with maps); `none` is the whole image.
    #[schemars(extend("x-values" = "the path of an image, or `none`"))]
    pub roi: Option<String>,
}

impl Default for InputParams {
    fn default() -> Self {
        Self {
            weights: Auto::Auto,
            input_size: Auto::Auto,
            sizes: None,
            aspect: Aspect::Squash,
            interpolation: Filter::Bilinear,
            view: View::Whole,
            tiles: Tiles::ONE,
            overlap: 0.25,
            flips: Flips::None,
            median: None,
            roi: None,
        }
    }
}

impl InputParams {
    /// The defaults of methods that train on small images: `side` pixels, smaller images padded with black.
    pub fn small(side: u32) -> Self {
        Self { input_size: Auto::Value(side), view: View::Pad, ..Self::default() }
    }

    /// Whether there are several input sizes.
    pub fn has_several_sizes(&self) -> bool {
        self.sizes.as_ref().is_some_and(|sizes| sizes.len() > 1)
    }
}

impl Settings for InputParams {
    fn check(&self) -> Result<(), SettingError> {
        if let Some(sizes) = &self.sizes {
            let text = sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let refuse = |expected: &str| Err(SettingError::value("sizes", &text, expected));
            if sizes.is_empty() || sizes.len() > MOST_SIZES || !sizes.is_sorted_by(|a, b| a < b) {
                return refuse("ascending numbers of pixels, joined by commas, up to 4");
            }
            if !sizes.iter().all(|side| INPUT_SIDES.contains(&(*side as usize))) {
                return refuse("numbers of pixels from 32 to 2048");
            }
        }
        match self.median {
            Some(side) if side < 3 || MedianFilter::new(side, Border::Reflect).is_err() => {
                Err(SettingError::value("median", side, "an odd number of pixels from 3 to 63, or `none`"))
            }
            _ => Ok(()),
        }
    }
}

/// The aspect ratio of the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// A square.
    Squash,
    /// The median aspect ratio of the training images.
    Keep,
}

/// The part of an image that becomes the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// The whole image, resized.
    Whole,
    /// The center crop after resizing the short side, as backbones are trained.
    Center,
    /// The whole image; smaller images are padded with black.
    Pad,
}

/// A grid of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Tiles along the height, from 1 to [`MAX_TILES`].
    pub rows: u32,
    /// Tiles along the width, in the same range.
    pub columns: u32,
}

impl Tiles {
    /// A single tile.
    pub const ONE: Self = Self { rows: 1, columns: 1 };
}

impl fmt::Display for Tiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.rows, self.columns)
    }
}

impl FromStr for Tiles {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (rows, columns) = text.split_once('x').ok_or(())?;
        let count = |text: &str| text.parse().ok().filter(|count| (1..=MAX_TILES).contains(count)).ok_or(());
        Ok(Self { rows: count(rows)?, columns: count(columns)? })
    }
}

written_as_text!(Tiles, "ROWSxCOLUMNS, each from 1 to 64");

#[cfg(test)]
mod tests {
    use nomaly_settings::Assignments;

    use super::*;

    #[test]
    fn settings_of_the_input_are_read_and_refused() {
        let read = |pairs: &[&str]| Assignments::parse(pairs).unwrap().read::<InputParams>();
        assert_eq!(read(&[]).unwrap(), InputParams::default());
        let given = read(&["sizes=256,448", "tiles=2x3", "median=5", "view=pad", "aspect=keep", "roi=a.png"]).unwrap();
        assert_eq!(given.sizes, Some(vec![256, 448]));
        assert_eq!((given.tiles, given.median), (Tiles { rows: 2, columns: 3 }, Some(5)));
        assert_eq!((given.view, given.aspect, given.roi.as_deref()), (View::Pad, Aspect::Keep, Some("a.png")));
        assert_eq!(Assignments::of(&given).read::<InputParams>().unwrap(), given);
        for pair in [
            "input_size=16",
            "input_size=4096",
            "sizes=448,256",
            "sizes=16,256",
            "sizes=32,64,96,128,160",
            "sizes=",
            "aspect=free",
            "tiles=0x1",
            "tiles=65x1",
            "tiles=2",
            "overlap=0.9",
            "overlap=-0.1",
            "median=1",
            "median=4",
            "median=65",
        ] {
            let name = pair.split('=').next().unwrap();
            assert!(matches!(read(&[pair]), Err(SettingError::Value { name: at, .. }) if at == name), "{pair}");
        }
    }
}
