//! Antialiased resizing that equals Pillow's.
//!
//! # What it computes
//! Separable convolution of 8-bit RGB with a triangle ([`Filter::Bilinear`]) or a cubic kernel with a = −½
//! ([`Filter::Bicubic`]), whose support grows with the scale when an image is shrunk, which prevents aliasing. This is
//! what `PIL.Image.resize` and torchvision's `Resize` on PIL images compute; OpenCV's `INTER_LINEAR` does not antialias
//! and gives different features.
//!
//! # When to use
//! Wherever features must equal those of a backbone's own preprocessing.
//!
//! # Parameters
//! The size in pixels and the [`Filter`].
//!
//! # Reference
//! Pillow, `src/libImaging/Resample.c`; Keys, *Cubic convolution interpolation for digital image processing*, IEEE
//! TASSP 29(6), 1981.

use image::{GrayImage, RgbImage};

use crate::error::TransformError;
use crate::resample::{Filter, resample};

/// The most pixels of a resize; only a very long and thin image reaches it.
const MAX_RESIZED_PIXELS: u64 = 1 << 28;

/// Resizes to exactly `width` × `height` pixels.
///
/// # Errors
/// [`TransformError::EmptyImage`] where source or target has no pixels, [`TransformError::ResizedTooLarge`] above
/// 2²⁸ pixels.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> Result<RgbImage, TransformError> {
    check(image.dimensions(), u64::from(width), u64::from(height))?;
    if image.dimensions() == (width, height) {
        return Ok(image.clone());
    }
    let size = |(width, height): (u32, u32)| (width as usize, height as usize);
    let data = resample(image.as_raw(), size(image.dimensions()), size((width, height)), filter);
    Ok(RgbImage::from_raw(width, height, data).expect("the target was made of this size"))
}

/// Resizes a mask to exactly `width` × `height` pixels, each with the value of the source pixel that contains its
/// centre (Pillow's `NEAREST`), so that no new values appear.
///
/// # Errors
/// As [`resize`].
pub fn resize_mask(mask: &GrayImage, width: u32, height: u32) -> Result<GrayImage, TransformError> {
    check(mask.dimensions(), u64::from(width), u64::from(height))?;
    // floor((i + ½) · source / target), in integers.
    let nearest = |i: u32, source: u32, target: u32| {
        ((2 * u64::from(i) + 1) * u64::from(source) / (2 * u64::from(target))) as usize
    };
    let columns: Vec<usize> = (0..width).map(|x| nearest(x, mask.width(), width)).collect();
    let stride = mask.width() as usize;
    let mut out = Vec::with_capacity(width as usize * height as usize);
    for y in 0..height {
        let start = nearest(y, mask.height(), height) * stride;
        let row = &mask.as_raw()[start..start + stride];
        out.extend(columns.iter().map(|&x| row[x]));
    }
    Ok(GrayImage::from_raw(width, height, out).expect("one value was pushed for every pixel"))
}

/// A copy whose longer side has at most `max_side` pixels, for reports; a smaller image is not enlarged.
pub fn scaled_preview(image: &RgbImage, max_side: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let long = width.max(height);
    let max_side = max_side.max(1);
    if long <= max_side {
        return image.clone();
    }
    let scaled = |side: u32| {
        let rounded = (2 * u64::from(side) * u64::from(max_side) + u64::from(long)) / (2 * u64::from(long));
        (rounded as u32).clamp(1, max_side)
    };
    // Only an image with a side of zero cannot be resized here.
    resize(image, scaled(width), scaled(height), Filter::Bilinear).unwrap_or_else(|_| image.clone())
}

/// The rectangle of `width` × `height` pixels with its top left corner at (`x`, `y`), or `None` if it does not lie
/// within the image.
pub fn crop(image: &RgbImage, x: u32, y: u32, width: u32, height: u32) -> Option<RgbImage> {
    if x.checked_add(width)? > image.width() || y.checked_add(height)? > image.height() {
        return None;
    }
    Some(image::imageops::crop_imm(image, x, y, width, height).to_image())
}

/// Width and height after the shorter side became `size`, by torchvision's rule: the longer side is rounded down.
pub(crate) fn short_side_size((width, height): (u32, u32), size: u32) -> Result<(u32, u32), TransformError> {
    check((width, height), 1, 1)?;
    let long = |long: u32, short: u32| u64::from(size) * u64::from(long) / u64::from(short);
    let (new_width, new_height) =
        if width <= height { (u64::from(size), long(height, width)) } else { (long(width, height), u64::from(size)) };
    check((width, height), new_width, new_height)?;
    Ok((new_width as u32, new_height as u32))
}

fn check((width, height): (u32, u32), new_width: u64, new_height: u64) -> Result<(), TransformError> {
    if width == 0 || height == 0 {
        return Err(TransformError::EmptyImage { width, height });
    }
    if new_width == 0 || new_height == 0 {
        return Err(TransformError::EmptyImage { width: new_width as u32, height: new_height as u32 });
    }
    if new_width.saturating_mul(new_height) > MAX_RESIZED_PIXELS {
        let limit = MAX_RESIZED_PIXELS;
        return Err(TransformError::ResizedTooLarge { width, height, new_width, new_height, limit });
    }
    Ok(())
}
