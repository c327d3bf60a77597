//! Every format and kind of pixel against Pillow; hostile files.

use std::fs;
use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use nomaly_transforms::{Fault, Limits, decode_bytes, decode_file};
use proptest::prelude::*;

use crate::{fixture, max_difference, reference};

/// Lossless data must be exact.
const EXACT: u8 = 0;
/// Inverse cosine transforms and colour conversions in integers differ in rounding between decoders.
const ROUNDING: u8 = 3;
/// Chroma at half resolution: decoders also differ in how they interpolate it.
const UPSAMPLING: u8 = 8;

const FILES: [(&str, u8); 35] = [
    ("rgb.png", EXACT),
    ("rgba.png", EXACT),
    ("grey.png", EXACT),
    ("grey_alpha.png", EXACT),
    ("palette.png", EXACT),
    ("palette_transparent.png", EXACT),
    ("one_bit.png", EXACT),
    ("rgb16.png", EXACT),
    ("grey16.png", EXACT),
    ("animated.png", EXACT),
    ("bmp_rgb.bmp", EXACT),
    ("bmp_palette.bmp", EXACT),
    ("bmp_one_bit.bmp", EXACT),
    ("bmp_grey.bmp", EXACT),
    ("tiff_raw.tif", EXACT),
    ("tiff_lzw.tif", EXACT),
    ("tiff_deflate.tif", EXACT),
    ("tiff_packbits.tif", EXACT),
    ("tiff_one_bit.tif", EXACT),
    ("tiff_cmyk.tif", ROUNDING),
    ("tiff_pages.tif", EXACT),
    ("tiff_rgb16.tif", EXACT),
    ("tiff_grey16.tif", EXACT),
    ("tiff_float.tif", EXACT),
    ("webp_lossless.webp", EXACT),
    ("webp_alpha.webp", EXACT),
    ("webp_lossy.webp", ROUNDING),
    ("webp_animated.webp", EXACT),
    ("jpeg_444.jpg", ROUNDING),
    ("jpeg_420.jpg", UPSAMPLING),
    ("jpeg_progressive.jpg", ROUNDING),
    ("jpeg_restart.jpg", ROUNDING),
    ("jpeg_grey.jpg", ROUNDING),
    ("jpeg_cmyk.jpg", ROUNDING),
    ("jpeg_cmyk_unmarked.jpg", ROUNDING),
];

const ORIENTED: [(&str, u8); 11] = [
    ("orientation_1.jpg", ROUNDING),
    ("orientation_2.jpg", ROUNDING),
    ("orientation_3.jpg", ROUNDING),
    ("orientation_4.jpg", ROUNDING),
    ("orientation_5.jpg", ROUNDING),
    ("orientation_6.jpg", ROUNDING),
    ("orientation_7.jpg", ROUNDING),
    ("orientation_8.jpg", ROUNDING),
    ("orientation_png.png", EXACT),
    ("orientation_webp.webp", EXACT),
    ("orientation_tiff.tif", EXACT),
];

fn bytes(name: &str) -> Vec<u8> {
    fs::read(fixture(&format!("decode/{name}"))).unwrap()
}

fn fault(bytes: &[u8]) -> Fault {
    match decode_bytes(bytes, &Limits::default()) {
        Ok(image) => panic!("decoded to {:?}", image.dimensions()),
        Err(error) => error.fault,
    }
}

fn check(files: &[(&str, u8)]) {
    let mut wrong = Vec::new();
    for &(name, tolerance) in files {
        let stem = name.split_once('.').unwrap().0;
        let expected = reference(&format!("decode/expected/{stem}.png"));
        match decode_file(&fixture(&format!("decode/{name}")), &Limits::default()) {
            Ok(image) if image.dimensions() == expected.dimensions() => {
                let difference = max_difference(&image, &expected);
                if difference > tolerance {
                    wrong.push(format!("{name}: off by {difference}, tolerance {tolerance}"));
                }
            }
            Ok(image) => wrong.push(format!("{name}: {:?}, expected {:?}", image.dimensions(), expected.dimensions())),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_format_decodes_as_the_reference_does() {
    check(&FILES);
    check(&[("jpeg_ycck.jpg", ROUNDING)]);
}

#[test]
fn every_orientation_is_applied() {
    check(&ORIENTED);
}

#[test]
fn sixteen_bits_are_rescaled_and_rounded() {
    let values: Vec<u16> = (0..=u16::MAX).collect();
    let wide = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(256, 256, values).unwrap();
    let mut png = Cursor::new(Vec::new());
    wide.write_to(&mut png, ImageFormat::Png).unwrap();
    let image = decode_bytes(png.get_ref(), &Limits::default()).unwrap();
    for (value, pixel) in image.pixels().enumerate() {
        let expected = (value as f64 / 257.0).round() as u8;
        assert_eq!(pixel.0, [expected; 3], "{value}");
    }
}

#[test]
fn the_content_decides_not_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really_a.png");
    fs::write(&path, bytes("jpeg_444.jpg")).unwrap();
    assert_eq!(decode_file(&path, &Limits::default()).unwrap().dimensions(), (25, 18));
}

#[test]
fn every_truncated_file_is_an_error() {
    let mut wrong = Vec::new();
    for (name, _) in FILES.iter().chain(&ORIENTED) {
        // Only the unused second frame is truncated.
        if name.contains("animated") || name.contains("pages") {
            continue;
        }
        let whole = bytes(name);
        for share in [0.03, 0.2, 0.5, 0.8, 0.95] {
            let length = (whole.len() as f64 * share) as usize;
            match decode_bytes(&whole[..length], &Limits::default()) {
                Ok(_) => wrong.push(format!("{name} at {share}: accepted")),
                Err(error) if share >= 0.5 && !matches!(error.fault, Fault::Truncated { .. }) => {
                    wrong.push(format!("{name} at {share}: {error}"));
                }
                Err(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_jpeg_cut_anywhere_is_an_error() {
    let image = RgbImage::from_fn(96, 96, |x, y| Rgb([(x * y) as u8, (x * 7) as u8, (y * 5) as u8]));
    let mut whole = Vec::new();
    image.write_with_encoder(image::codecs::jpeg::JpegEncoder::new_with_quality(&mut whole, 90)).unwrap();
    assert!(decode_bytes(&whole, &Limits::default()).is_ok());
    for cut in 1..64 {
        assert!(matches!(fault(&whole[..whole.len() - cut]), Fault::Truncated { .. }), "{cut} bytes short");
    }
}

/// A bare PNG header with a size.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&chunk);
    png.extend(crc32(&chunk).to_be_bytes());
    png.extend(b"\0\0\x10\0IDAT\x78\x9c");
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn a_header_bomb_is_refused_before_memory_is_taken() {
    match fault(&png_header(20_000, 20_000)) {
        Fault::TooManyPixels { width: 20_000, height: 20_000, limit } => {
            assert_eq!(limit, Limits::default().max_pixels);
        }
        other => panic!("{other}"),
    }
    let limits = Limits { max_pixels: 24 * 18, ..Limits::default() };
    for name in ["rgb.png", "jpeg_444.jpg", "bmp_rgb.bmp", "tiff_raw.tif", "webp_lossless.webp"] {
        let error = decode_bytes(&bytes(name), &limits).unwrap_err();
        assert_eq!(error.to_string(), "too large: 25×18 is 450 pixels, the limit is 432", "{name}");
    }
}

#[test]
fn memory_is_limited() {
    let limits = Limits { max_bytes: 2_000, ..Limits::default() };
    // 900 bytes of 16-bit samples and 1350 of 8-bit RGB.
    match decode_bytes(&bytes("grey16.png"), &limits).unwrap_err().fault {
        Fault::TooManyBytes { what: "decoding", needed: 2250, limit: 2_000 } => {}
        other => panic!("{other}"),
    }
    // The same size as baseline fits, as progressive it needs its coefficients too.
    assert!(decode_bytes(&bytes("jpeg_444.jpg"), &limits).is_ok());
    assert_eq!(decode_bytes(&bytes("jpeg_progressive.jpg"), &limits).unwrap_err().kind(), "too-large");
    let error = decode_file(&fixture("decode/tiff_float.tif"), &limits).unwrap_err();
    assert!(error.to_string().ends_with("too large: the file takes 5688 bytes, the limit is 2000"), "{error}");
}

#[test]
fn an_image_without_pixels_is_refused() {
    for (width, height) in [(0, 5), (5, 0)] {
        assert_eq!(fault(&png_header(width, height)).kind(), "zero-size");
    }
    let mut bmp = bytes("bmp_rgb.bmp");
    bmp[18..22].fill(0);
    assert_eq!(fault(&bmp).kind(), "zero-size");
    let mut jpeg = bytes("jpeg_444.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 7..frame + 9].fill(0);
    assert_eq!(fault(&jpeg).kind(), "zero-size");
}

#[test]
fn errors_name_the_file_and_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits::default();
    let message = |name: &str, content: Option<&[u8]>| {
        let path = folder.path().join(name);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let error = decode_file(&path, &limits).unwrap_err();
        assert_eq!(error.path.as_deref(), Some(path.as_path()));
        let text = error.to_string();
        text.strip_prefix(&format!("{}: ", path.display())).expect("the message begins with the path").to_owned()
    };
    assert_eq!(message("missing.png", None), "file not found");
    assert_eq!(message("empty.png", Some(b"")), "the file is empty");
    assert_eq!(message("notes.png", Some(b"not a picture")), "not an image: it seems to be a text file");
    assert_eq!(message("a.gif", Some(b"GIF89a...")), "GIF images are not supported; use JPEG, PNG, BMP, TIFF or WebP");
    assert_eq!(
        message("half.jpg", Some(&bytes("jpeg_444.jpg")[..600])),
        "truncated JPEG: the file ends before the image does"
    );
    let error = decode_file(folder.path(), &limits).unwrap_err();
    assert!(matches!(error.fault, Fault::NotAFile), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Damaged files give an image or an error, never a panic.
    #[test]
    fn damaged_files_do_not_panic(
        file in 0..FILES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut data = bytes(FILES[file].0);
        for (at, value) in damage {
            let at = at.index(data.len());
            data[at] = value;
        }
        let limits = Limits { max_pixels: 1 << 16, max_bytes: 1 << 20 };
        let _ = decode_bytes(&data, &limits);
    }
}
