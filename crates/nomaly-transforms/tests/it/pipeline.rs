//! Pipelines against torchvision, and as stored in model files.

use image::{GrayImage, Rgb, RgbImage};
use nomaly_transforms::{
    CenterCrop, Filter, Flips, Normalize, Pipeline, Resize, ResizeMode, Tiling, TransformError, Views, resize,
};
use proptest::prelude::*;
use serde::Deserialize;

use crate::{fixture, reference};

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
    /// Bits of the normalised values of a 16 × 16 ramp of all 256 levels, `[3, 16, 16]`.
    ramp_bits: Vec<u32>,
}

#[derive(Deserialize)]
struct Case {
    short_side: u32,
    crop: [u32; 2],
    view: Vec<u8>,
    mask: Vec<u8>,
}

fn torchvision() -> Reference {
    serde_json::from_str(&std::fs::read_to_string(fixture("pipeline.json")).unwrap()).unwrap()
}

fn exact(height: u32, width: u32) -> Resize {
    Resize { mode: ResizeMode::Exact { height, width }, filter: Filter::Bilinear }
}

#[test]
fn short_side_and_centre_crop_equal_torchvision() {
    let source = reference("resize/source.png");
    let mask = image::open(fixture("resize/mask.png")).unwrap().into_luma8();
    for case in torchvision().cases {
        let [height, width] = case.crop;
        let name = format!("short side {}, crop {height}×{width}", case.short_side);
        let resize = Resize { mode: ResizeMode::ShortSide(case.short_side), filter: Filter::Bilinear };
        let pipeline = Pipeline::new(resize, Some(CenterCrop { height, width }), Normalize::IMAGENET).unwrap();

        let view = pipeline.view(&source).unwrap();
        assert_eq!(view.dimensions(), (width, height), "{name}");
        // The resize may differ by one level from Pillow's; a shift by one pixel would differ by dozens.
        let difference = view.as_raw().iter().zip(&case.view).map(|(&a, &b)| a.abs_diff(b)).max().unwrap();
        assert!(difference <= 1, "{name}: off by {difference}");
        assert_eq!(pipeline.apply_mask(&mask).unwrap().into_raw(), case.mask, "{name}");
    }
}

#[test]
fn normalisation_equals_torchvision_bit_for_bit() {
    let ramp = RgbImage::from_fn(16, 16, |x, y| Rgb([(16 * y + x) as u8; 3]));
    let pipeline = Pipeline::new(exact(16, 16), None, Normalize::IMAGENET).unwrap();
    let bits: Vec<u32> = pipeline.apply(&ramp).unwrap().iter().map(|value| value.to_bits()).collect();
    assert_eq!(bits, torchvision().ramp_bits);
}

#[test]
fn efficientnet_lite_sees_values_less_127_over_128() {
    let ramp = RgbImage::from_fn(16, 16, |x, y| Rgb([(16 * y + x) as u8; 3]));
    let pipeline = Pipeline::new(exact(16, 16), None, Normalize::EFFICIENTNET_LITE).unwrap();
    for (value, out) in pipeline.apply(&ramp).unwrap().into_iter().enumerate() {
        let expected = ((value % 256) as f32 - 127.0) / 128.0;
        // Mean and deviation are rounded to f32: two units in the last place of 1.
        assert!((out - expected).abs() <= 2.0 * f32::EPSILON, "{value}: {out}, expected {expected}");
    }
}

#[test]
fn stored_pipelines_come_back_equal_and_are_checked() {
    let resize = Resize { mode: ResizeMode::ShortSide(256), filter: Filter::Bicubic };
    let crop = CenterCrop { height: 224, width: 200 };
    let pipeline = Pipeline::new(resize, Some(crop), Normalize::IMAGENET).unwrap();
    let json = serde_json::to_string(&pipeline).unwrap();
    assert_eq!(
        json,
        r#"{"resize":{"mode":{"short_side":256},"filter":"bicubic"},"crop":{"height":224,"width":200},"normalize":{"mean":[0.485,0.456,0.406],"std":[0.229,0.224,0.225]}}"#
    );
    assert_eq!(serde_json::from_str::<Pipeline>(&json).unwrap(), pipeline);

    let rejected = [
        (json.replace("256", "0"), "resize short side is 0, expected 1 to 8192"),
        (json.replace("\"height\":224", "\"height\":8193"), "crop height is 8193, expected 1 to 8192"),
        (json.replace("0.224", "0.0"), "normalisation std of channel 1 is 0, expected a finite number above zero"),
        (json.replace("0.406", "1e39"), "number out of range"),
        (json.replace(r#"{"height":224,"width":200}"#, "null"), "resizing the short side to 256 needs a centre crop"),
        (json.replace("\"crop\"", "\"extra\":1,\"crop\""), "unknown field `extra`"),
        (json.replace("\"filter\"", "\"antialias\":true,\"filter\""), "unknown field `antialias`"),
    ];
    let infinite = Normalize { mean: [0.0, 0.0, f32::INFINITY], std: [1.0; 3] };
    assert_eq!(
        Pipeline::new(exact(4, 4), None, infinite).unwrap_err().to_string(),
        "normalisation mean of channel 2 is inf, expected a finite number"
    );
    for (text, message) in rejected {
        let error = serde_json::from_str::<Pipeline>(&text).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_frame_that_was_kept_gives_the_same_values() {
    let views = |pipeline: Pipeline| {
        let tiling = Some(Tiling { rows: 2, columns: 1, height: 8, width: 12 });
        let tiled = Views { tiling, flips: Flips::None };
        let flipped = Views { tiling: None, flips: Flips::Both };
        [pipeline, pipeline.with_views(tiled).unwrap(), pipeline.with_views(flipped).unwrap()]
    };
    let crop = Some(CenterCrop { height: 12, width: 12 });
    let modes = [
        (ResizeMode::Exact { height: 12, width: 12 }, None),
        (ResizeMode::AtMost { height: 12, width: 12 }, crop),
        (ResizeMode::ShortSide(14), crop),
    ];
    for (mode, crop) in modes {
        let resize = Resize { mode, filter: Filter::Bilinear };
        for pipeline in views(Pipeline::new(resize, crop, Normalize::IMAGENET).unwrap()) {
            // Smaller than the frame, larger, and equal.
            for (width, height) in [(7, 9), (40, 25), (12, 12)] {
                let image = RgbImage::from_fn(width, height, |x, y| Rgb([(x * 9) as u8, (y * 7) as u8, (x * y) as u8]));
                let frame = pipeline.view(&image).unwrap();
                let mut found = vec![f32::NAN; pipeline.output_len()];
                pipeline.apply_frame_into(&frame, &mut found).unwrap();
                assert_eq!(found, pipeline.apply(&image).unwrap(), "{mode:?} {width}x{height}");
            }
            let mut out = vec![0.0; pipeline.output_len()];
            let refused = pipeline.apply_frame_into(&RgbImage::new(11, 12), &mut out).unwrap_err();
            assert!(matches!(refused, TransformError::FrameSize { width: 11, frame_width: 12, .. }), "{refused}");
            let short = pipeline.apply_frame_into(&RgbImage::new(12, 12), &mut out[1..]).unwrap_err();
            assert!(matches!(short, TransformError::OutputLength { .. }), "{short}");
        }
    }
}

#[test]
fn wrong_buffers_and_images_are_errors() {
    let pipeline = Pipeline::new(exact(4, 5), None, Normalize::IMAGENET).unwrap();
    let image = RgbImage::new(9, 9);
    assert_eq!(
        pipeline.apply_into(&image, &mut [0.0; 59]).unwrap_err(),
        TransformError::OutputLength { expected: 60, actual: 59 }
    );
    assert_eq!(pipeline.apply(&RgbImage::new(0, 9)).unwrap_err(), TransformError::EmptyImage { width: 0, height: 9 });
    assert!(pipeline.apply_mask(&GrayImage::new(0, 9)).is_err());

    // A line of 100 000 pixels resized to 8192 high would be 800 million wide.
    let resize = Resize { mode: ResizeMode::ShortSide(8192), filter: Filter::Bilinear };
    let crop = Some(CenterCrop { height: 8, width: 8 });
    let pipeline = Pipeline::new(resize, crop, Normalize::IMAGENET).unwrap();
    assert!(matches!(pipeline.apply(&RgbImage::new(100_000, 1)), Err(TransformError::ResizedTooLarge { .. })));
}

/// A slow reference pipeline: index by index, with a padding check at every pixel.
fn slow(pipeline: &Pipeline, image: &RgbImage) -> Vec<f32> {
    let resized = match pipeline.resize.mode {
        ResizeMode::Exact { height, width } => resize(image, width, height, pipeline.resize.filter).unwrap(),
        ResizeMode::ShortSide(_) | ResizeMode::AtMost { .. } => {
            unreachable!("the property test resizes to exact sizes")
        }
    };
    let [height, width] = pipeline.output_size();
    // Python's round(margin / 2), half to even; for negative margins torchvision's padding.
    let offset = |image: i64, crop: i64| {
        let margin = image - crop;
        if margin >= 0 { (margin as f64 / 2.0).round_ties_even() as i64 } else { -(-margin / 2) }
    };
    let top = offset(i64::from(resized.height()), height as i64);
    let left = offset(i64::from(resized.width()), width as i64);
    let mut out = Vec::new();
    for c in 0..3 {
        for y in 0..height as i64 {
            for x in 0..width as i64 {
                let (sx, sy) = (x + left, y + top);
                let inside =
                    (0..i64::from(resized.width())).contains(&sx) && (0..i64::from(resized.height())).contains(&sy);
                let value = if inside { resized.get_pixel(sx as u32, sy as u32).0[c] } else { 0 };
                out.push((f32::from(value) / 255.0 - pipeline.normalize.mean[c]) / pipeline.normalize.std[c]);
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn equals_the_slow_pipeline(
        (width, height) in (1u32..12, 1u32..12),
        (resized_width, resized_height) in (1u32..12, 1u32..12),
        (crop_width, crop_height) in (1u32..16, 1u32..16),
        pixels in prop::collection::vec(any::<u8>(), 3 * 12 * 12),
    ) {
        let image = RgbImage::from_fn(width, height, |x, y| {
            let at = 3 * (12 * y + x) as usize;
            Rgb([pixels[at], pixels[at + 1], pixels[at + 2]])
        });
        let crop = Some(CenterCrop { height: crop_height, width: crop_width });
        let pipeline = Pipeline::new(exact(resized_height, resized_width), crop, Normalize::IMAGENET).unwrap();
        prop_assert_eq!(pipeline.apply(&image).unwrap(), slow(&pipeline, &image));
    }
}

#[test]
fn an_image_that_fits_is_set_on_black_and_a_larger_one_is_resized() {
    let resize = Resize { mode: ResizeMode::AtMost { height: 6, width: 6 }, filter: Filter::Bilinear };
    let crop = Some(CenterCrop { height: 6, width: 6 });
    let plain = Normalize { mean: [0.0; 3], std: [1.0; 3] };
    let pipeline = Pipeline::new(resize, crop, plain).unwrap();
    let small = RgbImage::from_pixel(4, 2, Rgb([255, 0, 255]));
    let red = pipeline.apply(&small).unwrap()[..36].to_vec();
    let lit = |row: usize, column: usize| (2..4).contains(&row) && (1..5).contains(&column);
    assert!((0..36).all(|at| red[at] == if lit(at / 6, at % 6) { 1.0 } else { 0.0 }), "{red:?}");
    let footprint = pipeline.footprint((4, 2)).unwrap();
    assert_eq!([footprint.x, footprint.y, footprint.width, footprint.height], [-1.0, -2.0, 6.0, 6.0]);

    let large = RgbImage::from_fn(12, 5, |x, y| Rgb([(x * 20) as u8, (y * 40) as u8, 7]));
    let exact = Resize { mode: ResizeMode::Exact { height: 6, width: 6 }, filter: Filter::Bilinear };
    assert_eq!(pipeline.apply(&large).unwrap(), Pipeline::new(exact, None, plain).unwrap().apply(&large).unwrap());

    assert!(Pipeline::new(resize, None, plain).is_err());
    assert!(Pipeline::new(resize, Some(CenterCrop { height: 5, width: 6 }), plain).is_err());
}
