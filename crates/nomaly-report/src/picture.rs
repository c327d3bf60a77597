//! Small pictures, encoded once and stored as data URIs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::imageops::FilterType;
use image::{GrayImage, ImageEncoder, RgbImage};

use crate::ReportError;

/// Longest side of a picture, in pixels: larger ones are scaled down.
pub const MAX_SIDE: u32 = 200;

/// At this quality a thumbnail takes about 6 KB and shows no blocks.
const JPEG_QUALITY: u8 = 85;

/// An encoded picture of at most [`MAX_SIDE`] pixels per side: a few kilobytes, so that thousands fit in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    uri: String,
    width: u32,
    height: u32,
}

impl Picture {
    /// Encodes a photograph or an overlay as JPEG.
    ///
    /// # Errors
    /// An image without pixels.
    pub fn photo(image: &RgbImage) -> Result<Self, ReportError> {
        let (width, height) = fitted(image.width(), image.height())?;
        let mut bytes = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
        if (width, height) == image.dimensions() {
            encoder.write_image(image, width, height, image::ExtendedColorType::Rgb8)?;
        } else {
            let small = image::imageops::resize(image, width, height, FilterType::Triangle);
            encoder.write_image(&small, width, height, image::ExtendedColorType::Rgb8)?;
        }
        Ok(Self::embed("image/jpeg", &bytes, width, height))
    }

    /// Encodes a mask, in which non-zero pixels are defective, as black-and-white PNG. A defect smaller than a pixel of
    /// the picture stays visible: a pixel is white if any source pixel in it is.
    ///
    /// # Errors
    /// A mask without pixels.
    pub fn mask(mask: &GrayImage) -> Result<Self, ReportError> {
        let small = shrunk(mask)?;
        let (width, height) = small.dimensions();
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(&small, width, height, image::ExtendedColorType::L8)?;
        Ok(Self::embed("image/png", &bytes, width, height))
    }

    fn embed(mime: &str, bytes: &[u8], width: u32, height: u32) -> Self {
        Self { uri: format!("data:{mime};base64,{}", STANDARD.encode(bytes)), width, height }
    }

    /// The picture as a `data:` URI.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Width in pixels, at most [`MAX_SIDE`].
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at most [`MAX_SIDE`].
    pub fn height(&self) -> u32 {
        self.height
    }
}

/// A black-and-white mask of at most [`MAX_SIDE`] pixels per side: a pixel is white if any source pixel in it is
/// nonzero.
pub(crate) fn shrunk(mask: &GrayImage) -> Result<GrayImage, ReportError> {
    let (width, height) = fitted(mask.width(), mask.height())?;
    let mut small = GrayImage::new(width, height);
    let scale = |at: u32, to: u32, from: u32| (u64::from(at) * u64::from(to) / u64::from(from)) as u32;
    for (x, y, _) in mask.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] != 0) {
        small.put_pixel(scale(x, width, mask.width()), scale(y, height, mask.height()), image::Luma([255]));
    }
    Ok(small)
}

/// The size that keeps the proportions and has no side longer than [`MAX_SIDE`].
fn fitted(width: u32, height: u32) -> Result<(u32, u32), ReportError> {
    if width == 0 || height == 0 {
        return Err(ReportError::EmptyPicture { width, height });
    }
    let longest = width.max(height);
    if longest <= MAX_SIDE {
        return Ok((width, height));
    }
    let shrink = |side: u32| {
        let side = (u64::from(side) * u64::from(MAX_SIDE) + u64::from(longest) / 2) / u64::from(longest);
        (side as u32).max(1)
    };
    Ok((shrink(width), shrink(height)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(picture: &Picture) -> image::DynamicImage {
        let (_, data) = picture.uri().split_once("base64,").unwrap();
        image::load_from_memory(&STANDARD.decode(data).unwrap()).unwrap()
    }

    #[test]
    fn large_pictures_shrink_in_proportion_and_small_ones_stay() {
        let size = |width, height| fitted(width, height).unwrap();
        assert_eq!(size(200, 100), (200, 100));
        assert_eq!(size(1024, 768), (200, 150));
        assert_eq!(size(3, 4000), (1, 200));
        assert_eq!(size(u32::MAX, u32::MAX), (200, 200));
        let picture = Picture::photo(&RgbImage::from_pixel(400, 300, image::Rgb([10, 200, 30]))).unwrap();
        let image = decoded(&picture).to_rgb8();
        assert_eq!(image.dimensions(), (picture.width(), picture.height()));
        // JPEG's colour transform rounds a flat colour by a level or two.
        assert!(image.pixels().all(|pixel| pixel.0.iter().zip([10u8, 200, 30]).all(|(a, b)| a.abs_diff(b) <= 2)));
    }

    #[test]
    fn one_defective_pixel_survives_shrinking() {
        let mut mask = GrayImage::new(2000, 1000);
        mask.put_pixel(1999, 999, image::Luma([1]));
        let image = decoded(&Picture::mask(&mask).unwrap()).to_luma8();
        assert_eq!(image.dimensions(), (200, 100));
        assert_eq!(image.pixels().filter(|pixel| pixel.0[0] == 255).count(), 1);
        assert_eq!(image.get_pixel(199, 99).0, [255]);
    }

    #[test]
    fn a_picture_needs_pixels() {
        assert!(matches!(Picture::photo(&RgbImage::new(0, 3)), Err(ReportError::EmptyPicture { width: 0, height: 3 })));
    }
}
