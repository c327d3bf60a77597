//! Changes of good images that a model should tolerate: lighting and compression.
//!
//! # What it computes
//! A [`Change`] of an image: all values multiplied by a factor, rounded and cut off at 255; or the image after a JPEG
//! round trip.
//!
//! # When to use
//! Where future images will be brighter, darker or compressed differently than the training images, without being
//! anomalous: changed copies are added to the training images and to the held-out scores. A model that tolerates a
//! change also misses defects that look like it.

use std::fmt;
use std::str::FromStr;

use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;

use crate::error::{DecodeError, Fault};
use crate::{Limits, decode_bytes};

/// A change of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// All values are multiplied by this factor, above 0.
    Gain(f64),
    /// A round trip through JPEG of this quality, from 1 to 100.
    Jpeg(u8),
}

impl Change {
    /// The changed image.
    ///
    /// # Errors
    /// If a side exceeds JPEG's limit of 65 535 pixels.
    pub fn of(self, image: &RgbImage) -> Result<RgbImage, DecodeError> {
        match self {
            Self::Gain(factor) => {
                let mut changed = image.clone();
                changed.iter_mut().for_each(|value| *value = (f64::from(*value) * factor).round() as u8);
                Ok(changed)
            }
            Self::Jpeg(quality) => {
                let mut bytes = Vec::new();
                JpegEncoder::new_with_quality(&mut bytes, quality)
                    .encode_image(image)
                    .map_err(|error| DecodeError::from(Fault::Corrupt { format: "JPEG", reason: error.to_string() }))?;
                decode_bytes(&bytes, &Limits { max_pixels: u64::MAX, max_bytes: u64::MAX })
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gain(factor) => write!(f, "gain {factor}"),
            Self::Jpeg(quality) => write!(f, "JPEG {quality}"),
        }
    }
}

/// Changes to tolerate, in the form `gain=0.05,jpeg=75`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes(pub Vec<Change>);

impl Changes {
    /// The form that [`from_str`](Self::from_str) takes, in words.
    pub const ALLOWED: &str = "`gain=P` (darker and brighter by a share P, above 0 and below 1), `jpeg=Q` (a quality from 1 to 100), or both \
         joined by a comma";
}

impl FromStr for Changes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut changes = Vec::new();
        for part in text.split(',') {
            let refuse = || format!("`{part}` is not one of {}", Self::ALLOWED);
            match part.split_once('=').ok_or_else(refuse)? {
                ("gain", share) => {
                    let share: f64 = share.parse().map_err(|_| refuse())?;
                    if !(share > 0.0 && share < 1.0) {
                        return Err(refuse());
                    }
                    changes.extend([Change::Gain(1.0 - share), Change::Gain(1.0 + share)]);
                }
                ("jpeg", quality) => match quality.parse() {
                    Ok(quality @ 1..=100) => changes.push(Change::Jpeg(quality)),
                    _ => return Err(refuse()),
                },
                _ => return Err(refuse()),
            }
        }
        Ok(Self(changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_and_refused() {
        let read = |text: &str| text.parse::<Changes>().map(|changes| changes.0);
        assert_eq!(read("gain=0.25,jpeg=75"), Ok(vec![Change::Gain(0.75), Change::Gain(1.25), Change::Jpeg(75)]));
        for text in ["", "gain", "gain=0", "gain=1", "gain=NaN", "jpeg=0", "jpeg=101", "blur=1", "gain=0.1,,jpeg=5"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn light_scales_values_and_jpeg_leaves_traces() {
        let image = RgbImage::from_fn(20, 12, |x, y| image::Rgb([(10 * x) as u8, (20 * y) as u8, 250]));
        let brighter = Change::Gain(1.1).of(&image).unwrap();
        assert_eq!((brighter.get_pixel(10, 5).0, image.get_pixel(10, 5).0), ([110, 110, 255], [100, 100, 250]));
        let stored = Change::Jpeg(30).of(&image).unwrap();
        let far = stored.iter().zip(image.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(stored.dimensions() == image.dimensions() && far > 3, "{far}");
        let near = Change::Jpeg(100).of(&image).unwrap();
        assert!(near.iter().zip(image.iter()).all(|(a, b)| a.abs_diff(*b) < far));
        let wide = Change::Jpeg(75).of(&RgbImage::new(65_536, 1)).unwrap_err();
        assert_eq!(wide.kind(), "corrupt");
    }
}
