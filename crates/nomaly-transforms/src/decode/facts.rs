//! How an image was stored, from the header of its file.

use serde::{Deserialize, Serialize};

use super::quality::jpeg_quality;
use super::segments::jpeg_segments;

/// A family of file formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatFamily {
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// TIFF.
    Tiff,
    /// BMP.
    Bmp,
    /// WebP.
    Webp,
}

impl FormatFamily {
    /// The usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
            Self::Webp => "WebP",
        }
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', ..] => Some(Self::Png),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(Self::Tiff),
            [b'B', b'M', ..] => Some(Self::Bmp),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            _ => None,
        }
    }
}

/// How an image was stored, from the header of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// The family of its format.
    pub format: FormatFamily,
    /// Bits per sample of the file: 8 for most, 16 for many measuring cameras. Palettes count as 8.
    pub bits: u8,
    /// The equivalent libjpeg quality from 1 to 100; `None` for formats other than JPEG.
    pub jpeg_quality: Option<u8>,
}

impl FileFacts {
    /// Reads the header of an encoded image; `None` if the format is not supported or the header is truncated.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let format = FormatFamily::of(bytes)?;
        let bits = match format {
            FormatFamily::Jpeg => jpeg_bits(bytes)?,
            FormatFamily::Png => png_bits(bytes)?,
            FormatFamily::Tiff => tiff_bits(bytes)?,
            FormatFamily::Bmp if bytes.get(28..30) == Some(&[16, 0]) => 5,
            FormatFamily::Bmp | FormatFamily::Webp => 8,
        };
        let jpeg_quality = if format == FormatFamily::Jpeg { jpeg_quality(bytes) } else { None };
        Some(Self { format, bits, jpeg_quality })
    }
}

/// The precision in the frame header.
fn jpeg_bits(bytes: &[u8]) -> Option<u8> {
    // Start of frame of any process; 0xc4, 0xc8 and 0xcc are other segments.
    let is_frame = |marker: u8| matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
    jpeg_segments(bytes).find(|(marker, _)| is_frame(*marker))?.1.first().copied()
}

fn png_bits(bytes: &[u8]) -> Option<u8> {
    const PALETTE: u8 = 3;
    let (&depth, &color) = (bytes.get(24)?, bytes.get(25)?);
    Some(if color == PALETTE { 8 } else { depth })
}

/// The first value of the tag `BitsPerSample` of the first page, 1 where it is missing (TIFF 6.0, page 29).
fn tiff_bits(bytes: &[u8]) -> Option<u8> {
    const BITS_PER_SAMPLE: u16 = 258;
    let little = bytes.first() == Some(&b'I');
    let u16_at = |at: usize| {
        let pair: [u8; 2] = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) })
    };
    let u32_at = |at: usize| {
        let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) } as usize)
    };
    let directory = u32_at(4)?;
    let entries = usize::from(u16_at(directory)?);
    for entry in 0..entries {
        let at = directory.checked_add(2 + 12 * entry)?;
        if u16_at(at)? == BITS_PER_SAMPLE {
            // Up to two values of 16 bits are stored in the entry itself, more at its offset.
            let place = if u32_at(at + 4)? <= 2 { at + 8 } else { u32_at(at + 8)? };
            return u8::try_from(u16_at(place)?).ok();
        }
    }
    Some(1)
}
