//! The cost of decoding a file, from its header.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageReader};

use super::sniff::{self, Format};

/// The number of bytes that [`sniff`](sniff::sniff) reads.
const HEAD: u64 = 256;
/// The longest header that is read only for the image size.
const MAX_HEADER: u64 = 16 << 20;
/// The marker of the segment with Exif data.
const APP1: u8 = 0xe1;

/// The information about an image in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Bytes of memory that decoding takes: the file, and its pixels as stored and as 8-bit RGB.
    pub bytes: u64,
    /// Width and height of the decoded image in pixels, after its orientation has been applied.
    pub size: (u32, u32),
}

/// Reads the header of an image file. `None` if there is no image or no readable header; decoding then fails early.
///
/// Only the header is read, so the sizes of many images can be checked before any of them is decoded.
pub fn announced(path: &Path) -> Option<Announced> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut head = Vec::new();
    file.by_ref().take(HEAD).read_to_end(&mut head).ok()?;
    file.rewind().ok()?;
    let mut reader = BufReader::new(file);
    let Announced { bytes, size } = match sniff::sniff(&head).ok()? {
        Format::Jpeg => jpeg(&mut reader)?,
        Format::Other { format, .. } => {
            let mut reader = ImageReader::with_format(reader, format);
            let mut limits = image::Limits::no_limits();
            limits.max_alloc = Some(MAX_HEADER);
            reader.limits(limits);
            let mut decoder = reader.into_decoder().ok()?;
            let (width, height) = decoder.dimensions();
            let copy = if decoder.color_type() == ColorType::Rgb8 { 0 } else { rgb(width, height) };
            let bytes = decoder.total_bytes().saturating_add(copy);
            Announced { bytes, size: turned((width, height), decoder.orientation().ok()) }
        }
    };
    Some(Announced { bytes: length.saturating_add(bytes), size })
}

/// Bytes of 8-bit RGB pixels.
fn rgb(width: u32, height: u32) -> u64 {
    3 * u64::from(width) * u64::from(height)
}

/// The size of a stored image after its orientation is applied.
fn turned((width, height): (u32, u32), orientation: Option<Orientation>) -> (u32, u32) {
    match orientation {
        Some(orientation) if super::is_quarter_turn(orientation) => (height, width),
        _ => (width, height),
    }
}

/// Walks the markers to the frame header, which has the size and the coding process; Exif data come before it.
fn jpeg(reader: &mut (impl Read + Seek)) -> Option<Announced> {
    let mut bytes = [0; 2];
    reader.read_exact(&mut bytes).ok()?;
    let mut orientation = None;
    loop {
        reader.read_exact(&mut bytes).ok()?;
        // Fill bytes may precede a marker.
        while bytes == [0xff, 0xff] {
            reader.read_exact(&mut bytes[1..]).ok()?;
        }
        let [0xff, marker] = bytes else { return None };
        if matches!(marker, 0x01 | 0xd0..=0xd8) {
            continue;
        }
        reader.read_exact(&mut bytes).ok()?;
        let length = i64::from(u16::from_be_bytes(bytes));
        // Start of frame, except the codes of tables and arithmetic conditioning.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let mut frame = [0; 6];
            reader.read_exact(&mut frame).ok()?;
            let [_, height_high, height_low, width_high, width_low, components] = frame;
            let height = u16::from_be_bytes([height_high, height_low]);
            let width = u16::from_be_bytes([width_high, width_low]);
            let pixels = u64::from(height) * u64::from(width);
            let coefficients = if marker == 0xc2 { 2 * u64::from(components) * pixels } else { 0 };
            let size = turned((width.into(), height.into()), orientation);
            return Some(Announced { bytes: 3 * pixels + coefficients, size });
        }
        if marker == 0xda || length < 2 {
            return None;
        }
        if marker == APP1 && orientation.is_none() {
            let mut segment = vec![0; length as usize - 2];
            reader.read_exact(&mut segment).ok()?;
            orientation = segment.strip_prefix(b"Exif\0\0").and_then(Orientation::from_exif_chunk);
        } else {
            reader.seek(SeekFrom::Current(length - 2)).ok()?;
        }
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
            let found = Announced { bytes: file + expected, size: (30, 20) };
            assert_eq!(announced(&path), Some(found), "{format:?} {:?}", image.color());
        }
    }

    #[test]
    fn a_progressive_jpeg_keeps_its_coefficients() {
        // Start, a comment, a fill byte, and a progressive frame of 3 x 5 pixels with three components.
        let bytes = [0xff, 0xd8, 0xff, 0xfe, 0, 4, 7, 7, 0xff, 0xff, 0xc2, 0, 17, 8, 0, 3, 0, 5, 3];
        let found = Announced { bytes: (3 + 6) * 15, size: (5, 3) };
        assert_eq!(jpeg(&mut std::io::Cursor::new(bytes)), Some(found));
        for length in 0..bytes.len() {
            assert_eq!(jpeg(&mut std::io::Cursor::new(&bytes[..length])), None, "{length} bytes");
        }
    }

    #[test]
    fn the_size_is_that_of_the_turned_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("turned.jpg");
        DynamicImage::new_rgb8(30, 20).save(&path).unwrap();
        let plain = fs::read(&path).unwrap();
        for (orientation, size) in [(1, (30, 20)), (3, (30, 20)), (6, (20, 30)), (8, (20, 30))] {
            // One entry of a little-endian directory: the orientation, one short.
            let exif =
                [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(), &[orientation, 0, 0, 0, 0, 0, 0, 0]];
            let segment = [b"Exif\0\0".to_vec(), exif.concat()].concat();
            let length = (segment.len() as u16 + 2).to_be_bytes();
            let app1 = [[0xff, APP1].as_slice(), &length, &segment].concat();
            fs::write(&path, [&plain[..2], &app1, &plain[2..]].concat()).unwrap();
            let decoded = crate::decode_file(&path, &crate::Limits::default()).unwrap();
            assert_eq!((announced(&path).unwrap().size, decoded.dimensions()), (size, size), "{orientation}");
        }
    }

    #[test]
    fn what_is_no_image_takes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        fs::write(&path, "no image").unwrap();
        for path in [&path, folder.path(), Path::new("absent"), Path::new("/dev/zero")] {
            assert_eq!(announced(path), None, "{}", path.display());
        }
    }
}
