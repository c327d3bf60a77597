//! Tests against Pillow and torchvision, and of the invariants of views and synthetic defects.

mod augment;
mod decode;
mod pipeline;
mod resize;
mod statistics;
mod synthetic;
mod transformations;
mod views;

use std::path::PathBuf;

use image::RgbImage;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Reads an 8-bit reference image with the `image` crate alone.
fn reference(name: &str) -> RgbImage {
    image::open(fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}")).into_rgb8()
}

/// The greatest difference of two images of the same size, in grey levels.
fn max_difference(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.as_raw().iter().zip(b.as_raw()).map(|(&a, &b)| a.abs_diff(b)).max().unwrap_or(0)
}
