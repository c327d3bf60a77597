//! Resizing against Pillow.

use image::{GrayImage, Rgb, RgbImage};
use nomaly_transforms::{Filter, TransformError, crop, resize, resize_mask, scaled_preview};

use crate::{fixture, max_difference, reference};

const SIZES: [(u32, u32); 9] = [(12, 9), (25, 9), (7, 5), (24, 17), (50, 36), (61, 20), (1, 1), (2, 31), (13, 18)];
const FILTERS: [(&str, Filter); 2] = [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic)];
/// Both sides use fixed-point weights, and may round them and the intermediate image differently.
const ONE_LEVEL: u8 = 1;

#[test]
fn equals_pillow_up_and_down() {
    let source = reference("resize/source.png");
    for (name, filter) in FILTERS {
        for (width, height) in SIZES {
            let resized = resize(&source, width, height, filter).unwrap();
            let difference = max_difference(&resized, &reference(&format!("resize/{name}_{width}x{height}.png")));
            assert!(difference <= ONE_LEVEL, "{name} to {width}×{height}: off by {difference}");
        }
        let dot = resize(&RgbImage::from_pixel(1, 1, Rgb([200, 17, 99])), 4, 3, filter).unwrap();
        assert_eq!(max_difference(&dot, &reference(&format!("resize/{name}_dot.png"))), 0);
    }
}

#[test]
fn masks_equal_pillows_nearest() {
    let mask = image::open(fixture("resize/mask.png")).unwrap().into_luma8();
    for (width, height) in SIZES {
        let expected = image::open(fixture(&format!("resize/nearest_{width}x{height}.png"))).unwrap().into_luma8();
        assert_eq!(resize_mask(&mask, width, height).unwrap(), expected, "{width}×{height}");
    }
}

#[test]
fn images_without_pixels_and_monstrous_sizes_are_errors() {
    let empty = RgbImage::new(0, 4);
    assert_eq!(resize(&empty, 2, 2, Filter::Bilinear).unwrap_err(), TransformError::EmptyImage { width: 0, height: 4 });
    assert!(resize_mask(&GrayImage::new(4, 0), 2, 2).is_err());
    let one = RgbImage::new(1, 1);
    assert!(matches!(resize(&one, 2, 0, Filter::Bilinear), Err(TransformError::EmptyImage { .. })));
    assert!(matches!(resize(&one, 1 << 20, 1 << 20, Filter::Bilinear), Err(TransformError::ResizedTooLarge { .. })));
}

#[test]
fn previews_fit_and_never_grow() {
    for ((width, height), expected) in [
        ((400, 200), (100, 50)),
        ((200, 401), (50, 100)),
        ((100, 40), (100, 40)),
        ((30, 20), (30, 20)),
        ((1000, 1), (100, 1)),
        ((0, 0), (0, 0)),
        ((0, 300), (0, 300)),
    ] {
        assert_eq!(scaled_preview(&RgbImage::new(width, height), 100).dimensions(), expected);
    }
    assert_eq!(scaled_preview(&RgbImage::new(5, 5), 0).dimensions(), (1, 1));
}

#[test]
fn crops_lie_within_the_image() {
    let image = RgbImage::from_fn(6, 5, |x, y| Rgb([x as u8, y as u8, 0]));
    let cut = crop(&image, 2, 1, 3, 4).unwrap();
    assert_eq!((cut.dimensions(), cut.get_pixel(2, 3)), ((3, 4), &Rgb([4, 4, 0])));
    assert!(crop(&image, 4, 0, 3, 1).is_none());
    assert!(crop(&image, u32::MAX, 0, 2, 1).is_none());
}
