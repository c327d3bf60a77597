//! Statistics of images with known statistics, and facts of files from other programs.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, Rgb, RgbImage};
use nomaly_transforms::statistics::{CELL, ImageStatistics, MAX_CELLS};
use nomaly_transforms::{FileFacts, FormatFamily, Limits, decode_bytes, decode_file_with_facts, jpeg_scale};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::fixture;

/// A grey level of `mean` with Gaussian noise: the sum of twelve uniform values.
fn noisy(width: u32, height: u32, mean: f64, sigma: f64, seed: u64) -> RgbImage {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = || f64::from(random.next_u32()) / f64::from(u32::MAX);
    RgbImage::from_fn(width, height, |_, _| {
        let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        Rgb([(mean + sigma * normal).round() as u8; 3])
    })
}

#[track_caller]
fn near(found: f32, expected: f32, tolerance: f32) {
    assert!((found - expected).abs() <= tolerance, "{found}, not {expected}");
}

#[test]
fn white_noise_has_the_statistics_of_theory() {
    for sigma in [3.0, 10.0, 25.0] {
        let found = ImageStatistics::of(&noisy(256, 256, 120.0, sigma, 1));
        near(found.brightness, 120.0 / 255.0, 0.002);
        near(found.contrast, sigma as f32 / 255.0, 0.02 * sigma as f32 / 255.0);
        near(found.noise, sigma as f32 / 255.0, 0.03 * sigma as f32 / 255.0);
        // The Laplacian of white noise has twenty times its variance, both differences together four times.
        near(found.sharpness, 5.0f32.ln(), 0.05);
        near(found.blockiness, 0.0, 0.03);
        near(found.orientation, 0.0, 0.05);
        assert!(found.grey && found.saturation == 0.0);
    }
}

#[test]
fn every_size_has_statistics() {
    for (width, height) in [(0, 0), (1, 1), (1, 40), (2, 2), (3, 3), (31, 33), (70, 3)] {
        let found = ImageStatistics::of(&RgbImage::from_pixel(width, height, Rgb([51, 51, 51])));
        near(found.brightness, if width == 0 { 0.0 } else { 0.2 }, 1e-6);
        for value in [found.contrast, found.noise, found.blockiness, found.orientation, found.sharpness] {
            near(value, 0.0, 0.7);
        }
    }
}

#[test]
fn colors_are_told_by_sign_and_size() {
    let found = ImageStatistics::of(&RgbImage::from_pixel(50, 50, Rgb([100, 49, 151])));
    near(found.red_green, 0.2, 1e-6);
    near(found.blue_green, 0.4, 1e-6);
    near(found.saturation, 0.4, 1e-6);
    assert!(!found.grey);
    assert!(ImageStatistics::of(&RgbImage::from_pixel(50, 50, Rgb([100, 98, 102]))).grey);
}

#[test]
fn a_quarter_turn_changes_the_sign_of_the_orientation() {
    let stripes = RgbImage::from_fn(96, 96, |x, y| Rgb([(100 + 40 * (x / 3 % 2) + 5 * (y / 3 % 2)) as u8; 3]));
    let (upright, turned) = (ImageStatistics::of(&stripes), ImageStatistics::of(&image::imageops::rotate90(&stripes)));
    assert!(upright.orientation > 2.0, "{}", upright.orientation);
    near(turned.orientation, -upright.orientation, 1e-4);
    near(turned.sharpness, upright.sharpness, 1e-4);
}

#[test]
fn traces_of_jpeg_are_seen_in_pixels() {
    let image = noisy(128, 128, 120.0, 12.0, 2);
    let blockiness = |quality: u8| {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&image).unwrap();
        ImageStatistics::of(&decode_bytes(&bytes, &Limits::default()).unwrap()).blockiness
    };
    assert!(blockiness(20) > 0.3, "{}", blockiness(20));
    assert!(blockiness(98) < 0.05, "{}", blockiness(98));
}

#[test]
fn large_images_are_looked_at_in_an_even_grid() {
    // Dark above, bright below: evenly spread cells cover both equally.
    let image = RgbImage::from_fn(1600, 1200, |_, y| Rgb([if y < 600 { 40 } else { 200 }; 3]));
    near(ImageStatistics::of(&image).brightness, 120.0 / 255.0, 0.01);
    let strip = noisy(20 * CELL * MAX_CELLS, 3, 100.0, 5.0, 3);
    near(ImageStatistics::of(&strip).brightness, 100.0 / 255.0, 0.002);
}

#[test]
fn the_facts_of_files_that_pillow_wrote() {
    let facts = |name: &str| decode_file_with_facts(&fixture(&format!("decode/{name}")), &Limits::default()).unwrap().1;
    let cases = [
        ("rgb.png", FormatFamily::Png, 8, None),
        ("rgb16.png", FormatFamily::Png, 16, None),
        ("grey16.png", FormatFamily::Png, 16, None),
        ("one_bit.png", FormatFamily::Png, 1, None),
        ("palette.png", FormatFamily::Png, 8, None),
        ("bmp_rgb.bmp", FormatFamily::Bmp, 8, None),
        ("tiff_raw.tif", FormatFamily::Tiff, 8, None),
        ("tiff_rgb16.tif", FormatFamily::Tiff, 16, None),
        ("tiff_grey16.tif", FormatFamily::Tiff, 16, None),
        ("tiff_one_bit.tif", FormatFamily::Tiff, 1, None),
        ("tiff_float.tif", FormatFamily::Tiff, 32, None),
        ("webp_lossy.webp", FormatFamily::Webp, 8, None),
        ("jpeg_444.jpg", FormatFamily::Jpeg, 8, Some(92)),
        ("jpeg_progressive.jpg", FormatFamily::Jpeg, 8, Some(92)),
        ("jpeg_grey.jpg", FormatFamily::Jpeg, 8, Some(92)),
        ("jpeg_cmyk.jpg", FormatFamily::Jpeg, 8, Some(95)),
    ];
    for (name, format, bits, jpeg_quality) in cases {
        assert_eq!(facts(name), Some(FileFacts { format, bits, jpeg_quality }), "{name}");
    }
}

#[test]
fn every_quality_is_found_again() {
    let image = noisy(16, 16, 120.0, 12.0, 4);
    for quality in 1..=100 {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(&image).unwrap();
        let found = FileFacts::of(&bytes).unwrap().jpeg_quality.unwrap();
        // Tables that are equal after clamping give the better quality.
        assert!(found == quality || quality < 5 && found.abs_diff(quality) < 3, "{found}, not {quality}");
    }
    assert_eq!([1, 50, 75, 95, 100].map(jpeg_scale), [5000, 100, 50, 10, 0]);
}

#[test]
fn a_header_that_is_cut_short_has_no_facts() {
    let mut png = Cursor::new(Vec::new());
    noisy(4, 4, 100.0, 1.0, 5).write_to(&mut png, ImageFormat::Png).unwrap();
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 80).encode_image(&noisy(8, 8, 100.0, 1.0, 6)).unwrap();
    for bytes in [&png.into_inner()[..20], &jpeg[..30], b"II*\0", b"II*\0\xff\xff\xff\xff", b"", b"text"] {
        assert_eq!(FileFacts::of(bytes), None, "{bytes:?}");
    }
}
