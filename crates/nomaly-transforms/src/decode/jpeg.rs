//! JPEG through `zune-jpeg`, without the leniency that would hide missing pixels.
//!
//! The decoder is lenient about headers (cameras write odd ones) and strict about the coded data: in its lenient mode
//! it fills missing pixels with grey. It checks for missing data once per row of blocks, so data that end within the
//! last row would pass; [`is_complete`] detects those by walking the markers to the end of the image.

use image::RgbImage;
use image::metadata::Orientation;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;

use super::{Limits, orient, turn_bytes};
use crate::error::Fault;

const FORMAT: &str = "JPEG";

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, Fault> {
    let complete = is_complete(bytes);
    let fault = |error| if complete { fault_of(error) } else { Fault::Truncated { format: FORMAT } };

    let options = DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(fault)?;
    let (Some((width, height)), Some(info)) = (decoder.dimensions(), decoder.info()) else {
        return Err(Fault::Corrupt { format: FORMAT, reason: "no frame header".to_owned() });
    };
    let (width, height) = (u32::try_from(width).unwrap_or(u32::MAX), u32::try_from(height).unwrap_or(u32::MAX));
    let pixels = limits.check_size(width, height)?;

    let orientation =
        decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif)).unwrap_or(Orientation::NoTransforms);
    // A progressive image keeps 16-bit coefficients of all components until its last scan.
    let coefficients = if is_progressive(bytes) { 2 * u64::from(info.components) * pixels } else { 0 };
    limits.check_bytes("decoding", 3 * pixels + coefficients.max(turn_bytes(orientation, pixels)))?;
    if !complete {
        return Err(Fault::Truncated { format: FORMAT });
    }

    decoder.set_options(options.set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB));
    let data = decoder.decode().map_err(fault)?;
    let image = RgbImage::from_raw(width, height, data).ok_or_else(|| Fault::Corrupt {
        format: FORMAT,
        reason: "the decoded data do not fill the announced size".to_owned(),
    })?;
    Ok(orient(image, orientation))
}

fn fault_of(error: DecodeErrors) -> Fault {
    match error {
        DecodeErrors::Unsupported(scheme) => Fault::Unsupported { format: FORMAT, feature: format!("{scheme:?}") },
        DecodeErrors::ZeroError => Fault::ZeroSize { width: 0, height: 0 },
        DecodeErrors::FormatStatic(reason) => Fault::Corrupt { format: FORMAT, reason: reason.to_lowercase() },
        DecodeErrors::Format(reason)
        | DecodeErrors::HuffmanDecode(reason)
        | DecodeErrors::MCUError(reason)
        | DecodeErrors::SosError(reason)
        | DecodeErrors::SofError(reason)
        | DecodeErrors::DqtError(reason) => Fault::Corrupt { format: FORMAT, reason: reason.to_lowercase() },
        other => Fault::Corrupt { format: FORMAT, reason: format!("{other:?}").to_lowercase() },
    }
}

/// The markers of the image, in order, up to the end of the image or of the data.
struct Markers<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Iterator for Markers<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        // Anything between two markers is skipped: coded data with its stuffed zeros, fill bytes, junk.
        let (mut at, marker) = {
            let mut at = self.position;
            loop {
                at += self.bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
                match *self.bytes.get(at + 1)? {
                    0x00 => at += 2,
                    0xff => at += 1,
                    marker => break (at + 2, marker),
                }
            }
        };
        // Restarts, start and end of image and TEM stand alone; every other marker starts a segment with a length.
        if !matches!(marker, 0x01 | 0xd0..=0xd9) {
            let length = self.bytes.get(at..at + 2)?;
            at += usize::from(u16::from_be_bytes([length[0], length[1]]));
        }
        self.position = at;
        Some(marker)
    }
}

const END_OF_IMAGE: u8 = 0xd9;

/// Whether the end-of-image marker of the first image is there.
fn is_complete(bytes: &[u8]) -> bool {
    Markers { bytes, position: 2 }.any(|marker| marker == END_OF_IMAGE)
}

fn is_progressive(bytes: &[u8]) -> bool {
    Markers { bytes, position: 2 }.find(|marker| matches!(marker, 0xc0..=0xc2)) == Some(0xc2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_markers_past_segments_stuffing_and_thumbnails() {
        // SOI, APP1 that holds an end-of-image marker (a thumbnail), fill byte, SOS, stuffed data, restart, EOI.
        let bytes = [
            0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd9, 1, 2, 0xff, 0xff, 0xda, 0, 3, 9, 7, 0xff, 0, 8, 0xff, 0xd3, 5,
            0xff, 0xd9,
        ];
        let markers: Vec<u8> = Markers { bytes: &bytes, position: 2 }.collect();
        assert_eq!(markers, [0xe1, 0xda, 0xd3, 0xd9]);
        assert!(is_complete(&bytes));
        assert!(!is_complete(&bytes[..bytes.len() - 1]));
        assert!(!is_complete(&bytes[..8]));
    }
}
