//! Anomaly maps and masks as files for other programs.
//!
//! | function | file | values | for |
//! |---|---|---|---|
//! | [`npy`] | NumPy array | exact | Python |
//! | [`tiff_f32`] | TIFF, 32-bit floating point | exact | image analysis: OpenCV, Pillow, tifffile |
//! | [`png16`] | PNG, 16-bit grey | 65536 levels of a range | programs without floating point |
//! | [`png`] | PNG, 8-bit colour | – | viewing |
//! | [`mask_png`] | PNG, 8-bit grey | 0 and 255 | masks of data sets |
//!
//! Every function returns the bytes of a whole file, the same bytes for the same values. Maps are row-major, `[height,
//! width]`.

use image::codecs::png::PngEncoder;
use image::{GrayImage, ImageBuffer, ImageEncoder, Luma, RgbImage};

use crate::ReportError;
use crate::overlay::{ValueRange, check, check_size};

/// NumPy's magic bytes and version 1.0 of its format.
const NPY_MAGIC: [u8; 8] = *b"\x93NUMPY\x01\x00";

/// The data of a NumPy file begin at a multiple of this.
const NPY_ALIGNMENT: usize = 64;

/// Byte order, TIFF's number, and the offset of the directory: after these eight bytes.
const TIFF_HEADER: [u8; 8] = *b"II\x2a\0\x08\0\0\0";

/// Number of fields of the directory of a TIFF file.
const TIFF_FIELDS: usize = 13;

/// Types of fields: two bytes, four bytes, two times four bytes.
const SHORT: u16 = 3;
const LONG: u16 = 4;
const RATIONAL: u16 = 5;

/// Bytes of a strip of a TIFF file: as many rows as fit, at least one. Readers hold one strip at a time.
const STRIP_BYTES: usize = 1 << 18;

/// A map as a NumPy file, which `numpy.load` reads as an array of `float32` with the shape `(height, width)`.
///
/// Version 1.0 of the format: magic bytes, the length of the header in two bytes, the header (a Python dictionary with
/// type `<f4`, C order and shape, padded with spaces), then the values, four little-endian bytes each, row by row.
/// Infinite values and NaN are kept.
///
/// ```
/// use nomaly_report::files::npy;
///
/// let file = npy(&[0.25, 0.5, 0.75, 1.0, 1.25, 1.5], 3, 2)?;
/// assert!(file.starts_with(b"\x93NUMPY\x01\x00"));
/// assert!(file.windows(17).any(|bytes| bytes == b"'shape': (2, 3), "));
/// # Ok::<(), nomaly_report::ReportError>(())
/// ```
///
/// Reference: NumPy documentation, `numpy.lib.format`.
///
/// # Errors
/// A map that is not `width * height` long.
pub fn npy(map: &[f32], width: u32, height: u32) -> Result<Vec<u8>, ReportError> {
    check_size(map, width, height)?;
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({height}, {width}), }}");
    let length_bytes = size_of::<u16>();
    // A line feed ends the header. With two numbers of ten digits, its length still fits into two bytes.
    let start = (NPY_MAGIC.len() + length_bytes + header.len() + 1).next_multiple_of(NPY_ALIGNMENT);
    let header_length = start - NPY_MAGIC.len() - length_bytes;
    let mut bytes = Vec::with_capacity(start + size_of_val(map));
    bytes.extend(NPY_MAGIC);
    bytes.extend((header_length as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.resize(start - 1, b' ');
    bytes.push(b'\n');
    bytes.extend(map.iter().flat_map(|value| value.to_le_bytes()));
    Ok(bytes)
}

/// A map as a little-endian baseline TIFF file of one channel of 32-bit floating-point values (`SampleFormat` 3),
/// uncompressed, in strips.
///
/// Infinite values and NaN are kept.
///
/// Reference: "TIFF, Revision 6.0", Adobe 1992, sections 2, 4 and 19.
///
/// # Errors
/// A map that is not `width * height` long or has no pixels, or one that exceeds TIFF's limit of 4 GiB.
pub fn tiff_f32(map: &[f32], width: u32, height: u32) -> Result<Vec<u8>, ReportError> {
    check_size(map, width, height)?;
    check_pixels(width, height)?;
    let row_bytes = width as usize * size_of::<f32>();
    let strip_rows = (STRIP_BYTES / row_bytes).clamp(1, height as usize);
    let strips = (height as usize).div_ceil(strip_rows);

    // The file: a header, the directory, the values that do not fit into its fields, the strips.
    let details = TIFF_HEADER.len() + 2 + 12 * TIFF_FIELDS + 4;
    let (resolution, offsets) = (details, details + 8);
    let counts = offsets + 4 * strips;
    let pixels = counts + 4 * strips;
    let end = row_bytes.checked_mul(height as usize).and_then(|bytes| bytes.checked_add(pixels));
    if end.is_none_or(|end| u32::try_from(end).is_err()) {
        return Err(ReportError::TiffSize { width, height });
    }
    let rows_before = |strip: usize| (strip * strip_rows).min(height as usize);
    let strip_starts: Vec<usize> = (0..strips).map(|strip| pixels + row_bytes * rows_before(strip)).collect();
    let strip_lengths: Vec<usize> =
        (0..strips).map(|strip| row_bytes * (rows_before(strip + 1) - rows_before(strip))).collect();
    // A field stores a single value, or the offset of several.
    let list = |values: &[usize], place: usize| if let [value] = *values { value } else { place };
    let fields: [(u16, u16, usize, usize); TIFF_FIELDS] = [
        (256, LONG, 1, width as usize),                    // ImageWidth
        (257, LONG, 1, height as usize),                   // ImageLength
        (258, SHORT, 1, 32),                               // BitsPerSample
        (259, SHORT, 1, 1),                                // Compression: none
        (262, SHORT, 1, 1),                                // PhotometricInterpretation: black is zero
        (273, LONG, strips, list(&strip_starts, offsets)), // StripOffsets
        (277, SHORT, 1, 1),                                // SamplesPerPixel
        (278, LONG, 1, strip_rows),                        // RowsPerStrip
        (279, LONG, strips, list(&strip_lengths, counts)), // StripByteCounts
        (282, RATIONAL, 1, resolution),                    // XResolution
        (283, RATIONAL, 1, resolution),                    // YResolution
        (296, SHORT, 1, 1),                                // ResolutionUnit: none
        (339, SHORT, 1, 3),                                // SampleFormat: floating point
    ];

    // Every number below fits into 32 bits, because the end of the file does.
    let long = |number: usize| (number as u32).to_le_bytes();
    let mut bytes = Vec::with_capacity(pixels + size_of_val(map));
    bytes.extend(TIFF_HEADER);
    bytes.extend((TIFF_FIELDS as u16).to_le_bytes());
    for (tag, kind, count, value) in fields {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(long(count));
        // In little-endian order, a short value comes first in its four bytes, as required.
        bytes.extend(long(value));
    }
    bytes.extend(long(0)); // no further directory
    bytes.extend([1, 1].iter().chain(&strip_starts).chain(&strip_lengths).copied().flat_map(long));
    bytes.extend(map.iter().flat_map(|value| value.to_le_bytes()));
    Ok(bytes)
}

/// A map as a PNG file of 16-bit grey levels.
///
/// `range` is mapped to 0..=65535, linearly, rounded to the nearest level; values beyond are clamped. A level `p`
/// stands for the value `low + (high - low) * p / 65535`.
///
/// # Errors
/// A map that is not `width * height` long, has no pixels, or has a NaN.
pub fn png16(map: &[f32], width: u32, height: u32, range: ValueRange) -> Result<Vec<u8>, ReportError> {
    check(map, width, height)?;
    check_pixels(width, height)?;
    // In 64 bits, differences of finite values do not overflow, and no level is lost to rounding.
    let (low, high) = (f64::from(range.low()), f64::from(range.high()));
    let level = |value: f32| {
        let position = (f64::from(value) - low) / (high - low);
        (position.clamp(0.0, 1.0) * f64::from(u16::MAX)).round() as u16
    };
    let image = ImageBuffer::<Luma<u16>, Vec<u16>>::from_fn(width, height, |x, y| {
        Luma([level(map[y as usize * width as usize + x as usize])])
    });
    let mut bytes = Vec::new();
    image.write_with_encoder(PngEncoder::new(&mut bytes))?;
    Ok(bytes)
}

/// An image as a PNG file of 8-bit colours, compressed for speed rather than size.
///
/// # Errors
/// An image without pixels.
pub fn png(image: &RgbImage) -> Result<Vec<u8>, ReportError> {
    check_pixels(image.width(), image.height())?;
    let mut bytes = Vec::new();
    image.write_with_encoder(PngEncoder::new(&mut bytes))?;
    Ok(bytes)
}

/// A mask as a PNG file of 8-bit grey levels: 0, and 255 for every pixel that is not zero.
///
/// # Errors
/// A mask without pixels.
pub fn mask_png(mask: &GrayImage) -> Result<Vec<u8>, ReportError> {
    let (width, height) = mask.dimensions();
    check_pixels(width, height)?;
    let levels: Vec<u8> = mask.iter().map(|&value| if value == 0 { 0 } else { u8::MAX }).collect();
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(&levels, width, height, image::ExtendedColorType::L8)?;
    Ok(bytes)
}

fn check_pixels(width: u32, height: u32) -> Result<(), ReportError> {
    if width == 0 || height == 0 { Err(ReportError::EmptyPicture { width, height }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use tiff::decoder::{Decoder, DecodingResult};
    use tiff::tags::Tag;

    const WIDTH: u32 = 7;
    const HEIGHT: u32 = 5;

    /// The map of the fixtures, as in their script.
    fn map() -> Vec<f32> {
        let mut map: Vec<f32> = (0..35u16).map(|i| f32::from(37 * i % 101) / 8.0 - 3.0).collect();
        map[31..].copy_from_slice(&[f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(1), -0.0]);
        map
    }

    fn bits(map: &[f32]) -> Vec<u32> {
        map.iter().map(|value| value.to_bits()).collect()
    }

    fn read_tiff(bytes: &[u8]) -> (u32, u32, Vec<f32>) {
        let mut decoder = Decoder::new(Cursor::new(bytes)).unwrap();
        let (width, height) = decoder.dimensions().unwrap();
        assert_eq!(decoder.get_tag_u32_vec(Tag::SampleFormat).unwrap(), [3]);
        assert_eq!(decoder.get_tag_u32_vec(Tag::BitsPerSample).unwrap(), [32]);
        assert_eq!(decoder.get_tag_u32(Tag::Compression).unwrap(), 1);
        match decoder.read_image().unwrap() {
            DecodingResult::F32(map) => (width, height, map),
            _ => panic!("not 32-bit floating point"),
        }
    }

    #[test]
    fn numpy_writes_the_same_bytes() {
        assert_eq!(npy(&map(), WIDTH, HEIGHT).unwrap(), include_bytes!("../tests/fixtures/map.npy"));
    }

    #[test]
    fn numpy_data_are_aligned_whatever_the_shape() {
        for (width, height) in [(0, 0), (1, 1), (100_000, 0), (0, u32::MAX), (1, 1_000)] {
            let map = vec![f32::NAN; (width * height) as usize];
            let bytes = npy(&map, width, height).unwrap();
            let start = bytes.len() - 4 * map.len();
            assert_eq!((start % NPY_ALIGNMENT, bytes[start - 1]), (0, b'\n'));
            assert_eq!(usize::from(u16::from_le_bytes([bytes[8], bytes[9]])), start - 10);
        }
    }

    #[test]
    fn tiff_keeps_every_bit() {
        let (width, height, expected) = read_tiff(include_bytes!("../tests/fixtures/map.tiff"));
        assert_eq!((width, height, bits(&expected)), (WIDTH, HEIGHT, bits(&map())));
        let (width, height, found) = read_tiff(&tiff_f32(&map(), WIDTH, HEIGHT).unwrap());
        assert_eq!((width, height, bits(&found)), (WIDTH, HEIGHT, bits(&map())));
        // A map with several strips, the last one shorter; and one with a row longer than a strip.
        for (width, height, strips) in [(1000, 70, 2), (100_000, 2, 2)] {
            let map: Vec<f32> = (0..width * height).map(|i| (i as f32).sqrt()).collect();
            let bytes = tiff_f32(&map, width, height).unwrap();
            let mut decoder = Decoder::new(Cursor::new(&bytes)).unwrap();
            assert_eq!(decoder.strip_count().unwrap(), strips);
            assert_eq!(read_tiff(&bytes), (width, height, map));
        }
    }

    #[test]
    fn grey_levels_span_the_range() {
        let range = ValueRange::new(-1.0, 7.0).unwrap();
        let levels = |bytes: &[u8]| image::load_from_memory(bytes).unwrap();
        let found = levels(&png16(&map(), WIDTH, HEIGHT, range).unwrap());
        assert_eq!(found.color(), image::ColorType::L16);
        assert_eq!(found.to_luma16(), levels(include_bytes!("../tests/fixtures/map16.png")).to_luma16());

        let whole = ValueRange::new(-f32::MAX, f32::MAX).unwrap();
        let ends = levels(&png16(&[f32::NEG_INFINITY, -f32::MAX, f32::MAX], 3, 1, whole).unwrap());
        assert_eq!(ends.to_luma16().into_raw(), [0, 0, u16::MAX]);
    }

    #[test]
    fn pictures_come_back_as_they_were() {
        let image = RgbImage::from_fn(300, 20, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
        assert_eq!(image::load_from_memory(&png(&image).unwrap()).unwrap().into_rgb8(), image);
        let mask = GrayImage::from_vec(3, 1, vec![0, 1, 255]).unwrap();
        let found = image::load_from_memory(&mask_png(&mask).unwrap()).unwrap();
        assert_eq!((found.color(), found.into_luma8().into_raw()), (image::ColorType::L8, vec![0, 255, 255]));
    }

    #[test]
    fn bad_input_is_named() {
        let range = ValueRange::new(0.0, 1.0).unwrap();
        let size = "an anomaly map has 3 values, but 2×2 needs 4";
        assert_eq!(npy(&[0.0; 3], 2, 2).unwrap_err().to_string(), size);
        assert_eq!(tiff_f32(&[0.0; 3], 2, 2).unwrap_err().to_string(), size);
        assert_eq!(png16(&[0.0; 3], 2, 2, range).unwrap_err().to_string(), size);
        assert!(matches!(png16(&[f32::NAN], 1, 1, range), Err(ReportError::NanPixel { x: 0, y: 0 })));
        assert!(matches!(tiff_f32(&[], 0, 2), Err(ReportError::EmptyPicture { width: 0, height: 2 })));
        assert!(matches!(png16(&[], 2, 0, range), Err(ReportError::EmptyPicture { .. })));
        assert!(png(&RgbImage::new(0, 1)).is_err() && mask_png(&GrayImage::new(1, 0)).is_err());
    }
}
