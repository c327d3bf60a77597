//! Decoding of image files and bytes to 8-bit RGB.
//!
//! # What it computes
//! JPEG, PNG, BMP, TIFF and WebP, recognized by their content and never by the file name, become an [`RgbImage`]:
//!
//! * **Grey, palette, 1-bit** are expanded to RGB.
//! * **Alpha is dropped**, not composited: the colour stored under it is kept, as Pillow's `convert("RGB")` does, so
//!   that features equal those of the usual Python reference.
//! * **16 bits** become `round(v / 257)`, the exact rescaling of 0..=65535 to 0..=255. (Pillow keeps the high byte of
//!   RGB and clips grey `I;16` at 255.) The full range is assumed: 10- or 12-bit samples stored unscaled come out dark.
//! * **Float TIFF** (RGB, 32 bits) maps \[0, 1\] to 0..=255, rounded; values outside are clamped, NaN becomes 0.
//! * **CMYK and YCCK JPEG** are converted with `R = (255 − C)(255 − K) / 255`, with the Adobe convention of
//!   inverted samples, as Pillow does.
//! * **EXIF orientation** (JPEG, PNG, WebP) and the TIFF orientation tag are applied.
//! * **Animations and multi-page files** give their first frame or page.
//! * Colour profiles and gamma are ignored, as in the reference pipelines.
//!
//! # When to use
//! For every external image: the size announced in the header is checked against [`Limits`] before memory for pixels is
//! allocated, and a file that ends early is an error, never a half-grey picture.
//!
//! # Parameters
//! [`Limits`].
//!
//! # Reference
//! ITU-T T.81 (JPEG); W3C PNG, third edition; TIFF 6.0; CIPA DC-008 (EXIF) for the orientations.

mod announced;
mod container;
mod facts;
mod jpeg;
mod quality;
mod segments;
mod sniff;

use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::path::Path;

use image::error::ImageError;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageReader, RgbImage};

pub use self::facts::{FileFacts, FormatFamily};
pub use self::quality::jpeg_scale;
use crate::error::{DecodeError, Fault};
pub use announced::{Announced, announced};

/// Limits on the cost of one image; checked against the header before memory for pixels is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most pixels, width times height.
    pub max_pixels: u64,
    /// The most bytes: of the file, and of the memory that decoding takes.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// 2²⁸ pixels (16384 × 16384; the largest inspection cameras have 151 million) and 2 GiB, enough for 16-bit RGB
    /// from such a camera.
    fn default() -> Self {
        Self { max_pixels: 1 << 28, max_bytes: 1 << 31 }
    }
}

impl Limits {
    /// Checks the size that a header announces.
    fn check_size(&self, width: u32, height: u32) -> Result<u64, Fault> {
        if width == 0 || height == 0 {
            return Err(Fault::ZeroSize { width, height });
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > self.max_pixels {
            return Err(Fault::TooManyPixels { width, height, limit: self.max_pixels });
        }
        Ok(pixels)
    }

    fn check_bytes(&self, what: &'static str, needed: u64) -> Result<(), Fault> {
        if needed > self.max_bytes {
            return Err(Fault::TooManyBytes { what, needed, limit: self.max_bytes });
        }
        Ok(())
    }
}

/// Decodes an image file to 8-bit RGB; see the [module](self) for the rules.
///
/// # Errors
/// [`DecodeError`], naming the file.
pub fn decode_file(path: &Path, limits: &Limits) -> Result<RgbImage, DecodeError> {
    read_file(path, limits).and_then(|bytes| decode(&bytes, limits)).map_err(|fault| DecodeError::at(path, fault))
}

/// As [`decode_file`], with the facts in the header, in one read of the file.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_file_with_facts(path: &Path, limits: &Limits) -> Result<(RgbImage, Option<FileFacts>), DecodeError> {
    let with_facts = |bytes: Vec<u8>| Ok((decode(&bytes, limits)?, FileFacts::of(&bytes)));
    read_file(path, limits).and_then(with_facts).map_err(|fault| DecodeError::at(path, fault))
}

/// Decodes an encoded image to 8-bit RGB; see the [module](self) for the rules.
///
/// # Errors
/// [`DecodeError`] without a path.
pub fn decode_bytes(bytes: &[u8], limits: &Limits) -> Result<RgbImage, DecodeError> {
    decode(bytes, limits).map_err(DecodeError::from)
}

/// As [`decode_bytes`], with the facts in the header.
///
/// # Errors
/// As [`decode_bytes`].
pub fn decode_bytes_with_facts(bytes: &[u8], limits: &Limits) -> Result<(RgbImage, Option<FileFacts>), DecodeError> {
    Ok((decode_bytes(bytes, limits)?, FileFacts::of(bytes)))
}

/// The name of the image format that bytes begin with, whether or not it can be decoded here; `None` if they are not an
/// image.
///
/// The first 256 bytes of a file are enough.
pub fn image_format(bytes: &[u8]) -> Option<&'static str> {
    match sniff::sniff(bytes) {
        Ok(sniff::Format::Jpeg) => Some("JPEG"),
        Ok(sniff::Format::Other { name, .. }) => Some(name),
        Err(Fault::UnsupportedFormat { format }) => Some(format),
        Err(_) => None,
    }
}

/// Reads a whole file. Checks the kind of file first, because opening a pipe would wait for a writer.
fn read_file(path: &Path, limits: &Limits) -> Result<Vec<u8>, Fault> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Fault::NotFound,
        _ => Fault::Unreadable { source },
    };
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Fault::NotAFile);
    }
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    limits.check_bytes("the file", length)?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    // A file that grows while it is read stays within the limit.
    file.take(limits.max_bytes).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, Fault> {
    limits.check_bytes("the file", bytes.len() as u64)?;
    match sniff::sniff(bytes)? {
        sniff::Format::Jpeg => jpeg::decode(bytes, limits),
        sniff::Format::Other { format, name } => decode_with_image(bytes, format, name, limits),
    }
}

fn decode_with_image(
    bytes: &[u8],
    format: image::ImageFormat,
    name: &'static str,
    limits: &Limits,
) -> Result<RgbImage, Fault> {
    let fault = |error| fault_of(error, bytes, format, name, limits);
    // The WebP decoder reads the chunks that exist; the container has the expected length.
    if format == image::ImageFormat::WebP && container::is_cut_short(bytes, format) {
        return Err(Fault::Truncated { format: name });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder_limits = image::Limits::no_limits();
    decoder_limits.max_alloc = Some(limits.max_bytes);
    reader.limits(decoder_limits);
    let mut decoder = reader.into_decoder().map_err(fault)?;

    let (width, height) = decoder.dimensions();
    let pixels = limits.check_size(width, height)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let copy = if decoder.color_type() == ColorType::Rgb8 { 0 } else { 3 * pixels };
    limits.check_bytes("decoding", decoder.total_bytes().saturating_add(copy.max(turn_bytes(orientation, pixels))))?;

    let decoded = DynamicImage::from_decoder(decoder).map_err(fault)?;
    Ok(orient(to_rgb8(decoded), orientation))
}

/// Memory for the copy that a quarter turn makes.
fn turn_bytes(orientation: Orientation, pixels: u64) -> u64 {
    if is_quarter_turn(orientation) { 3 * pixels } else { 0 }
}

/// Whether width and height are swapped.
fn is_quarter_turn(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    )
}

fn orient(image: RgbImage, orientation: Orientation) -> RgbImage {
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    image.into_rgb8()
}

fn to_rgb8(image: DynamicImage) -> RgbImage {
    match image {
        DynamicImage::ImageRgb32F(image) => {
            RgbImage::from_fn(image.width(), image.height(), |x, y| image::Rgb(image.get_pixel(x, y).0.map(unit_to_u8)))
        }
        DynamicImage::ImageRgba32F(image) => RgbImage::from_fn(image.width(), image.height(), |x, y| {
            let [r, g, b, _] = image.get_pixel(x, y).0;
            image::Rgb([r, g, b].map(unit_to_u8))
        }),
        other => other.into_rgb8(),
    }
}

/// \[0, 1\] to 0..=255; the cast saturates and maps NaN to 0.
fn unit_to_u8(value: f32) -> u8 {
    (value * 255.0 + 0.5) as u8
}

fn fault_of(error: ImageError, bytes: &[u8], format: image::ImageFormat, name: &'static str, limits: &Limits) -> Fault {
    if let Some((width, height)) = container::announced_size(bytes, format)
        && (width == 0 || height == 0)
    {
        return Fault::ZeroSize { width, height };
    }
    if is_end_of_data(&error) || container::is_cut_short(bytes, format) {
        return Fault::Truncated { format: name };
    }
    match error {
        ImageError::Unsupported(error) => Fault::Unsupported { format: name, feature: error.to_string() },
        ImageError::Limits(_) => Fault::TooManyBytes {
            what: "decoding",
            needed: limits.max_bytes.saturating_add(1),
            limit: limits.max_bytes,
        },
        ImageError::Decoding(error) => {
            // The outer message only repeats the format.
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Fault::Corrupt { format: name, reason }
        }
        other => Fault::Corrupt { format: name, reason: other.to_string() },
    }
}

/// Whether a decoder asked for more data than there are.
fn is_end_of_data(error: &ImageError) -> bool {
    matches!(error, ImageError::IoError(io) if io.kind() == io::ErrorKind::UnexpectedEof)
}
