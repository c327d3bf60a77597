//! Checks of image containers, for cases that decoders' errors do not distinguish.

use image::ImageFormat;

/// Whether the data end before the container does. TIFF has no end marker.
pub(super) fn is_cut_short(bytes: &[u8], format: ImageFormat) -> bool {
    match format {
        ImageFormat::Png => !png_ends(bytes),
        ImageFormat::WebP => little_endian(bytes, 4).is_none_or(|size| bytes.len() as u64 - 8 < u64::from(size)),
        ImageFormat::Bmp => little_endian(bytes, 2).is_none_or(|size| (bytes.len() as u64) < u64::from(size)),
        _ => false,
    }
}

/// Width and height in the header, for formats whose decoders do not report sizes of zero.
pub(super) fn announced_size(bytes: &[u8], format: ImageFormat) -> Option<(u32, u32)> {
    match format {
        ImageFormat::Png => Some((big_endian(bytes, 16)?, big_endian(bytes, 20)?)),
        ImageFormat::Bmp => Some((little_endian(bytes, 18)?, little_endian(bytes, 22)?)),
        _ => None,
    }
}

/// Walks the chunks (length, type, data, checksum) to the last one.
fn png_ends(bytes: &[u8]) -> bool {
    let mut at = 8;
    while let Some(length) = big_endian(bytes, at) {
        let end = at.saturating_add(12).saturating_add(length as usize);
        if bytes.get(at + 4..at + 8) == Some(b"IEND") {
            return end <= bytes.len();
        }
        at = end;
    }
    false
}

fn big_endian(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn little_endian(bytes: &[u8], at: usize) -> Option<u32> {
    big_endian(bytes, at).map(u32::swap_bytes)
}
