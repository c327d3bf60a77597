//! What decoding a file will take, before it is decoded.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use image::{ColorType, ImageDecoder, ImageReader};

use super::sniff::{self, Format};

/// What [`sniff`](sniff::sniff) looks at.
const HEAD: u64 = 256;
/// Headers of more bytes are not read for their size alone.
const MAX_HEADER: u64 = 16 << 20;

/// Bytes of memory that decoding an image file takes, by its header: the file, and its pixels as they are stored and as
/// 8-bit RGB. 0 where there is no image, or none whose header can be read: decoding it ends early.
///
/// Only the header is read, so that the size of many images can be asked for before any of them is decoded.
pub fn announced_bytes(path: &Path) -> u64 {
    announced(path).unwrap_or(0)
}

fn announced(path: &Path) -> Option<u64> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head).ok()?;
    file.rewind().ok()?;
    let mut reader = BufReader::new(file);
    let pixels = match sniff::sniff(&head).ok()? {
        Format::Jpeg => jpeg_bytes(&mut reader)?,
        Format::Other { format, .. } => {
            let mut reader = ImageReader::with_format(reader, format);
            let mut limits = image::Limits::no_limits();
            limits.max_alloc = Some(MAX_HEADER);
            reader.limits(limits);
            let decoder = reader.into_decoder().ok()?;
            let (width, height) = decoder.dimensions();
            let copy = if decoder.color_type() == ColorType::Rgb8 { 0 } else { rgb(width, height) };
            decoder.total_bytes().saturating_add(copy)
        }
    };
    Some(length.saturating_add(pixels))
}

/// Bytes of 8-bit RGB pixels.
fn rgb(width: u32, height: u32) -> u64 {
    3 * u64::from(width) * u64::from(height)
}

/// Walks the markers to the frame header, which says the size and whether coefficients are kept.
fn jpeg_bytes(reader: &mut (impl Read + Seek)) -> Option<u64> {
    let mut bytes = [0; 2];
    reader.read_exact(&mut bytes).ok()?;
    loop {
        reader.read_exact(&mut bytes).ok()?;
        // Fill bytes may stand before a marker.
        while bytes == [0xff, 0xff] {
            reader.read_exact(&mut bytes[1..]).ok()?;
        }
        let [0xff, marker] = bytes else { return None };
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            continue;
        }
        reader.read_exact(&mut bytes).ok()?;
        let length = i64::from(u16::from_be_bytes(bytes));
        // Start of frame, but for the codes of tables and arithmetic conditioning.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let mut frame = [0; 6];
            reader.read_exact(&mut frame).ok()?;
            let [_, height_high, height_low, width_high, width_low, components] = frame;
            let height = u16::from_be_bytes([height_high, height_low]);
            let width = u16::from_be_bytes([width_high, width_low]);
            let pixels = u64::from(height) * u64::from(width);
            let coefficients = if marker == 0xc2 { 2 * u64::from(components) * pixels } else { 0 };
            return Some(3 * pixels + coefficients);
        }
        if marker == 0xda || length < 2 {
            return None;
        }
        reader.seek(SeekFrom::Current(length - 2)).ok()?;
    }
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, ImageFormat};

    use super::*;

    #[test]
    fn headers_tell_what_decoding_takes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let pixels = 30 * 20;
        for (image, format, expected) in [
            (DynamicImage::new_rgb8(30, 20), ImageFormat::Jpeg, 3 * pixels),
            (DynamicImage::new_rgb8(30, 20), ImageFormat::Png, 3 * pixels),
            (DynamicImage::new_rgb8(30, 20), ImageFormat::Bmp, 3 * pixels),
            (DynamicImage::new_rgb8(30, 20), ImageFormat::Tiff, 3 * pixels),
            (DynamicImage::new_rgb8(30, 20), ImageFormat::WebP, 3 * pixels),
            (DynamicImage::new_luma8(30, 20), ImageFormat::Png, (1 + 3) * pixels),
            (DynamicImage::new_rgba16(30, 20), ImageFormat::Png, (8 + 3) * pixels),
        ] {
            image.save_with_format(&path, format).unwrap();
            let file = fs::metadata(&path).unwrap().len();
            assert_eq!(announced_bytes(&path), file + expected, "{format:?} {:?}", image.color());
        }
    }

    #[test]
    fn a_progressive_jpeg_keeps_its_coefficients() {
        // Start, a comment, a fill byte, and a progressive frame of 3 x 5 pixels with three components.
        let bytes = [0xff, 0xd8, 0xff, 0xfe, 0, 4, 7, 7, 0xff, 0xff, 0xc2, 0, 17, 8, 0, 3, 0, 5, 3];
        assert_eq!(jpeg_bytes(&mut std::io::Cursor::new(bytes)), Some((3 + 6) * 15));
        for length in 0..bytes.len() {
            assert_eq!(jpeg_bytes(&mut std::io::Cursor::new(&bytes[..length])), None, "{length} bytes");
        }
    }

    #[test]
    fn what_is_no_image_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, "no image").unwrap();
        assert_eq!(
            [announced_bytes(&path), announced_bytes(folder.path()), announced_bytes(Path::new("absent"))],
            [0; 3]
        );
        assert_eq!(announced_bytes(Path::new("/dev/zero")), 0);
    }
}
