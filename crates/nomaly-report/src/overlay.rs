//! Anomaly maps in colour, alone or over their images.
//!
//! The colour map is *inferno*: perceptually uniform, from black through purple, red and orange to light yellow, so
//! that its order is visible in print and to colour-blind readers. The opacity of a map over an image grows with its
//! values, so that normal areas show the image itself.
//!
//! Reference: N. Smith, S. van der Walt, "A better default colormap for matplotlib", SciPy 2015 (colour maps dedicated
//! to the public domain, CC0).

use std::collections::VecDeque;

use image::{GrayImage, Rgb, RgbImage};

use crate::ReportError;

/// Every 15th of inferno's 256 colours. Straight lines between them stay within six levels of the full table.
pub(crate) const INFERNO: [[u8; 3]; 18] = [
    [0, 0, 4],
    [10, 7, 34],
    [30, 12, 69],
    [56, 9, 98],
    [81, 14, 108],
    [105, 22, 110],
    [128, 31, 108],
    [152, 39, 102],
    [176, 49, 91],
    [198, 61, 77],
    [217, 77, 61],
    [233, 97, 43],
    [244, 121, 24],
    [250, 148, 7],
    [252, 176, 20],
    [248, 205, 55],
    [242, 234, 105],
    [252, 255, 164],
];

/// An opacity that keeps the image visible under the highest values.
pub const DEFAULT_OPACITY: f32 = 0.75;

/// A colour for outlines: cyan, which does not occur in inferno. Reports use it for found regions too.
pub const OUTLINE: Rgb<u8> = Rgb([35, 229, 242]);

/// The values at the ends of the colour scale. Values beyond are clamped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueRange {
    low: f32,
    high: f32,
}

impl ValueRange {
    /// A range of values.
    ///
    /// # Errors
    /// If the ends are not finite or not ascending.
    pub fn new(low: f32, high: f32) -> Result<Self, ReportError> {
        if low.is_finite() && high.is_finite() && low < high {
            Ok(Self { low, high })
        } else {
            Err(ReportError::ValueRange { low, high })
        }
    }

    /// The range for a decision: maps of different images are comparable, and colours reflect the decision.
    ///
    /// `threshold` is the map value above which a pixel counts as anomalous. `typical` is a value that the maps of
    /// normal images seldom exceed; the median, over held-out normal images, of the highest value of each map is a good
    /// choice. Both are properties of the model, so compute them once and use one range for all images: a range per
    /// image would make the noise of a good part as bright as a defect.
    ///
    /// * Values up to `typical` are at 0, where overlays are transparent: half of the normal images show no colour, the
    ///   others only where they are close to a false alarm.
    /// * `threshold` is at 0.5, the orange-red middle of the scale, for every model: brighter pixels are found as
    ///   anomalous.
    /// * Values twice as far from `typical` as the threshold are at 1. Defects are often much farther; they all look
    ///   alike, so that values near the decision can be distinguished.
    ///
    /// ```
    /// use nomaly_report::overlay::ValueRange;
    ///
    /// let range = ValueRange::for_threshold(2.0, 3.0)?;
    /// assert_eq!((range.low(), range.high()), (2.0, 4.0));
    /// assert_eq!(range.position(3.0), 0.5);
    /// # Ok::<(), nomaly_report::ReportError>(())
    /// ```
    ///
    /// # Errors
    /// Values that are not finite, or a threshold that is not higher than `typical`: a decision that flags typical
    /// normal images leaves no room for a scale. Callers that accept such thresholds must choose another range.
    pub fn for_threshold(typical: f32, threshold: f32) -> Result<Self, ReportError> {
        let middle = Self::new(typical, threshold)?;
        Self::new(middle.low, threshold + (threshold - typical))
    }

    /// The value of the first colour.
    pub fn low(self) -> f32 {
        self.low
    }

    /// The value of the last colour.
    pub fn high(self) -> f32 {
        self.high
    }

    /// The position of a value in the range: 0 at or below the low end, 1 at or above the high end.
    pub fn position(self, value: f32) -> f32 {
        // Halves first, because the difference of two finite numbers may overflow.
        let part = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        part.clamp(0.0, 1.0)
    }
}

/// The colour at a position in [0, 1]; positions beyond are clamped.
pub fn color(position: f32) -> Rgb<u8> {
    let last = INFERNO.len() - 1;
    let scaled = position.clamp(0.0, 1.0) * last as f32;
    let index = (scaled as usize).min(last - 1);
    let part = scaled - index as f32;
    let channel = |c: usize| {
        let (from, to) = (f32::from(INFERNO[index][c]), f32::from(INFERNO[index + 1][c]));
        (from + (to - from) * part).round() as u8
    };
    Rgb([channel(0), channel(1), channel(2)])
}

/// An anomaly map in colour, pixel for pixel.
///
/// `map` is row-major, `[height, width]`.
///
/// # Errors
/// A map that is not `width * height` long, or has a NaN.
pub fn heat_map(map: &[f32], width: u32, height: u32, range: ValueRange) -> Result<RgbImage, ReportError> {
    check(map, width, height)?;
    Ok(RgbImage::from_fn(width, height, |x, y| color(range.position(map[y as usize * width as usize + x as usize]))))
}

/// An anomaly map in colour over an image.
///
/// `map` is row-major, `[map_height, map_width]`, and is scaled bilinearly to the size of the image. The opacity of a
/// pixel grows in proportion to its value, from 0 at the low end of `range` to `opacity` (in [0, 1]) at the high end.
///
/// ```
/// use image::{GrayImage, Rgb, RgbImage};
/// use nomaly_report::overlay::{DEFAULT_OPACITY, ValueRange, overlay};
///
/// let image = RgbImage::from_pixel(8, 8, Rgb([90, 90, 90]));
/// let map = [0.0, 0.0, 0.0, 4.0]; // 2 × 2: something in the lower right corner
/// let drawn = overlay(&image, &map, 2, 2, ValueRange::new(1.0, 4.0)?, DEFAULT_OPACITY)?;
/// assert_eq!(drawn.get_pixel(0, 0), &Rgb([90, 90, 90]));
/// assert_ne!(drawn.get_pixel(7, 7), &Rgb([90, 90, 90]));
/// # Ok::<(), nomaly_report::ReportError>(())
/// ```
///
/// # Errors
/// A map that is not `map_width * map_height` long, is empty for a nonempty image, or has a NaN.
pub fn overlay(
    image: &RgbImage,
    map: &[f32],
    map_width: u32,
    map_height: u32,
    range: ValueRange,
    opacity: f32,
) -> Result<RgbImage, ReportError> {
    let mut drawn = image.clone();
    draw_overlay(&mut drawn, map, map_width, map_height, range, opacity)?;
    Ok(drawn)
}

/// [`overlay`] on the image itself, for images too large for a copy.
///
/// # Errors
/// As [`overlay`]; the image is then unchanged.
pub fn draw_overlay(
    image: &mut RgbImage,
    map: &[f32],
    map_width: u32,
    map_height: u32,
    range: ValueRange,
    opacity: f32,
) -> Result<(), ReportError> {
    check(map, map_width, map_height)?;
    let (width, height) = image.dimensions();
    if width == 0 || height == 0 {
        return Ok(());
    }
    if map.is_empty() {
        return Err(ReportError::EmptyPicture { width: map_width, height: map_height });
    }
    let opacity = opacity.clamp(0.0, 1.0);
    let columns: Vec<Sample> = (0..width).map(|x| Sample::new(x, width, map_width)).collect();
    for (y, row) in image.rows_mut().enumerate() {
        let rows = Sample::new(y as u32, height, map_height);
        let line = |index: usize| &map[index * map_width as usize..][..map_width as usize];
        let (upper, lower) = (line(rows.first), line(rows.second));
        for (pixel, column) in row.zip(&columns) {
            // Positions are clamped before interpolation, so that infinite values are ordinary ends of the scale.
            let across = |line: &[f32]| {
                let at = |index: usize| range.position(line[index]);
                at(column.first) + (at(column.second) - at(column.first)) * column.part
            };
            let position = across(upper) + (across(lower) - across(upper)) * rows.part;
            let alpha = opacity * position;
            let tint = color(position);
            for (channel, tint) in pixel.0.iter_mut().zip(tint.0) {
                *channel = (f32::from(*channel) * (1.0 - alpha) + f32::from(tint) * alpha).round() as u8;
            }
        }
    }
    Ok(())
}

/// Enlarges a small image by an integer factor without interpolation, until its longer side has at least `side` pixels;
/// other images are unchanged.
pub fn enlarged(image: &RgbImage, side: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let factor = side.div_ceil(width.max(height).max(1)).max(1);
    RgbImage::from_fn(width * factor, height * factor, |x, y| *image.get_pixel(x / factor, y / factor))
}

/// Longest side of an image for which [`outline`] draws lines of one pixel; beyond it, lines are two pixels wide.
const THIN_LINE_SIDE: u32 = 800;

/// The borders of a mask over an image.
///
/// Pixels of `mask` that are not zero belong to regions. The mask is scaled to the size of the image, by nearest
/// neighbour. The line runs *around* the regions without covering them, and inside them only along the edges of the
/// image. It is one pixel wide on images of up to 800 pixels per side, two on larger ones.
///
/// ```
/// use image::{GrayImage, Luma, Rgb, RgbImage};
/// use nomaly_report::overlay::outline;
///
/// let (grey, cyan) = (Rgb([90, 90, 90]), Rgb([0, 230, 240]));
/// let mut mask = GrayImage::new(8, 8);
/// mask.put_pixel(3, 3, Luma([255]));
/// let drawn = outline(&RgbImage::from_pixel(8, 8, grey), &mask, cyan)?;
/// assert_eq!(drawn.get_pixel(3, 3), &grey);
/// assert_eq!(drawn.get_pixel(2, 4), &cyan);
/// # Ok::<(), nomaly_report::ReportError>(())
/// ```
///
/// # Errors
/// A mask without pixels for an image with pixels.
pub fn outline(image: &RgbImage, mask: &GrayImage, color: Rgb<u8>) -> Result<RgbImage, ReportError> {
    let mut drawn = image.clone();
    draw_outline(&mut drawn, mask, color)?;
    Ok(drawn)
}

/// [`outline`] on the image itself, for images too large for a copy.
///
/// # Errors
/// As [`outline`]; the image is then unchanged.
pub fn draw_outline(image: &mut RgbImage, mask: &GrayImage, color: Rgb<u8>) -> Result<(), ReportError> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    if width == 0 || height == 0 {
        return Ok(());
    }
    if mask.width() == 0 || mask.height() == 0 {
        return Err(ReportError::EmptyPicture { width: mask.width(), height: mask.height() });
    }
    let reach = if width.max(height) > THIN_LINE_SIDE as usize { 2 } else { 1 };
    let nearest = |at: usize, to: usize, from: u32| ((2 * at + 1) * from as usize) / (2 * to);
    let columns: Vec<usize> = (0..width).map(|x| nearest(x, width, mask.width())).collect();
    let stride = mask.width() as usize;
    let line = |y: usize| -> Line {
        let row = &mask.as_raw()[nearest(y, height, mask.height()) * stride..][..stride];
        let inside: Vec<bool> = columns.iter().map(|&x| row[x] != 0).collect();
        let grown = |x: usize| inside[x.saturating_sub(reach)..(x + reach + 1).min(width)].contains(&true);
        let wide = (0..width).map(grown).collect();
        Line { inside, wide }
    };
    // Regions are dilated by the width of the line: along the rows within each line, along the columns over nearby
    // lines. The lines from `reach` rows above to `reach` rows below are kept.
    let mut near: VecDeque<Line> = (0..reach.min(height)).map(line).collect();
    let mut first = 0;
    for (y, row) in image.rows_mut().enumerate() {
        if y + reach < height {
            near.push_back(line(y + reach));
        }
        if first + reach < y {
            near.pop_front();
            first += 1;
        }
        let at_edge = |at: usize, size: usize| at < reach || at + reach >= size;
        for (x, pixel) in row.enumerate() {
            let border = if near[y - first].inside[x] {
                at_edge(x, width) || at_edge(y, height)
            } else {
                near.iter().any(|line| line.wide[x])
            };
            if border {
                *pixel = color;
            }
        }
    }
    Ok(())
}

/// A row of a mask at the size of an image.
struct Line {
    /// Whether a pixel belongs to a region.
    inside: Vec<bool>,
    /// Whether a pixel of a region is nearby in this row.
    wide: Vec<bool>,
}

/// The two source pixels of a target pixel and the weight of the second; centres are aligned, edges repeat.
struct Sample {
    first: usize,
    second: usize,
    part: f32,
}

impl Sample {
    fn new(target: u32, target_size: u32, source_size: u32) -> Self {
        let center = (f64::from(target) + 0.5) * f64::from(source_size) / f64::from(target_size) - 0.5;
        let center = center.clamp(0.0, f64::from(source_size - 1));
        let first = center as usize;
        Self { first, second: (first + 1).min(source_size as usize - 1), part: (center - first as f64) as f32 }
    }
}

/// Whether a map has the stated size and no NaN.
pub(crate) fn check(map: &[f32], width: u32, height: u32) -> Result<(), ReportError> {
    check_size(map, width, height)?;
    match map.iter().position(|value| value.is_nan()) {
        Some(index) => Err(ReportError::NanPixel { x: index % width as usize, y: index / width as usize }),
        None => Ok(()),
    }
}

/// Whether a map has the stated size.
pub(crate) fn check_size(map: &[f32], width: u32, height: u32) -> Result<(), ReportError> {
    let (width, height) = (width as usize, height as usize);
    let expected = width.saturating_mul(height);
    if map.len() != expected {
        return Err(ReportError::MapSize { width, height, expected, found: map.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn luminance(color: Rgb<u8>) -> f64 {
        let linear = |channel: u8| (f64::from(channel) / 255.0).powf(2.2);
        0.2126 * linear(color.0[0]) + 0.7152 * linear(color.0[1]) + 0.0722 * linear(color.0[2])
    }

    /// Every pixel by the definition, for any number of kept rows.
    #[test]
    fn an_outline_is_drawn_around_regions_and_along_edges() {
        let (grey, cyan) = (Rgb([90, 90, 90]), Rgb([0, 230, 240]));
        for (width, height) in [(1u32, 1u32), (2, 1), (1, 3), (9, 7), (20, 2), (801, 4), (3, 802)] {
            let mask = GrayImage::from_fn(width, height, |x, y| {
                let set =
                    (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)).wrapping_mul(2_246_822_519) >> 28 < 2;
                image::Luma([u8::from(set)])
            });
            let drawn = outline(&RgbImage::from_pixel(width, height, grey), &mask, cyan).unwrap();
            let reach = if width.max(height) > THIN_LINE_SIDE { 2 } else { 1 };
            let inside = |x: u32, y: u32| mask.get_pixel(x, y).0[0] != 0;
            for (x, y, pixel) in drawn.enumerate_pixels() {
                let edge = x < reach || y < reach || x + reach >= width || y + reach >= height;
                let columns = || x.saturating_sub(reach)..(x + reach + 1).min(width);
                let mut rows = y.saturating_sub(reach)..(y + reach + 1).min(height);
                let near = rows.any(|y| columns().any(|x| inside(x, y)));
                let border = if inside(x, y) { edge } else { near };
                assert_eq!(*pixel, if border { cyan } else { grey }, "{width} x {height}: {x}, {y}");
            }
        }
    }

    #[test]
    fn colours_brighten_all_the_way() {
        let steps: Vec<f64> = (0..=64).map(|i| luminance(color(i as f32 / 64.0))).collect();
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
        assert_eq!(color(-1.0), Rgb(INFERNO[0]));
        assert_eq!(color(2.0), Rgb(INFERNO[17]));
    }

    #[test]
    fn a_threshold_is_the_middle_of_its_range() {
        for (typical, threshold) in [(0.0, 1.0), (-3.5, -1.25), (1e-6, 3e-6), (20.0, 20.5), (-1e30, 1e30)] {
            let range = ValueRange::for_threshold(typical, threshold).unwrap();
            assert_eq!((range.low(), range.position(typical)), (typical, 0.0));
            // The middle is exact to the rounding of the upper end, a few parts in 10⁷ of the values.
            let slack = 4.0 * f32::EPSILON * threshold.abs().max(typical.abs()) / (threshold - typical);
            assert!((range.position(threshold) - 0.5).abs() <= slack.max(f32::EPSILON), "{typical} {threshold}");
            assert_eq!(range.position(f32::INFINITY), 1.0);
        }
        for (typical, threshold) in [(1.0, 1.0), (2.0, 1.0), (f32::NAN, 1.0), (0.0, f32::INFINITY), (-3e38, 3e38)] {
            assert!(ValueRange::for_threshold(typical, threshold).is_err(), "{typical} {threshold}");
        }
        // Normal background keeps the image's own colours.
        let image = RgbImage::from_pixel(2, 1, Rgb([90; 3]));
        let range = ValueRange::for_threshold(2.0, 3.0).unwrap();
        let drawn = overlay(&image, &[2.0, 3.0], 2, 1, range, 1.0).unwrap();
        assert_eq!(drawn.get_pixel(0, 0).0, [90; 3]);
        let halfway = color(0.5).0.map(|tint| ((90.0 + f32::from(tint)) / 2.0).round() as u8);
        assert_eq!(drawn.get_pixel(1, 0).0, halfway);
    }

    #[test]
    fn small_images_grow_by_a_whole_factor() {
        let image = RgbImage::from_fn(3, 2, |x, y| Rgb([x as u8, y as u8, 0]));
        let large = enlarged(&image, 10);
        assert_eq!(large.dimensions(), (12, 8));
        assert_eq!((large.get_pixel(11, 3).0, large.get_pixel(4, 4).0), ([2, 0, 0], [1, 1, 0]));
        assert_eq!(enlarged(&image, 3), image);
        assert_eq!(enlarged(&RgbImage::new(0, 0), 3).dimensions(), (0, 0));
    }

    #[test]
    fn a_flat_map_gives_a_flat_mix() {
        let image = RgbImage::from_pixel(5, 3, Rgb([100, 100, 100]));
        let range = ValueRange::new(0.0, 2.0).unwrap();
        let drawn = overlay(&image, &[1.0; 6], 3, 2, range, 0.5).unwrap();
        let tint = color(0.5).0;
        let mixed = tint.map(|channel| (100.0 * 0.75 + f32::from(channel) * 0.25).round() as u8);
        assert!(drawn.pixels().all(|pixel| pixel.0 == mixed));
        assert!(heat_map(&[1.0; 6], 3, 2, range).unwrap().pixels().all(|pixel| pixel.0 == tint));
    }

    #[test]
    fn infinite_values_are_ends_of_the_scale() {
        let image = RgbImage::from_pixel(2, 1, Rgb([9, 9, 9]));
        let range = ValueRange::new(-f32::MAX, f32::MAX).unwrap();
        let drawn = overlay(&image, &[f32::NEG_INFINITY, f32::INFINITY], 2, 1, range, 1.0).unwrap();
        assert_eq!((drawn.get_pixel(0, 0).0, drawn.get_pixel(1, 0).0), ([9, 9, 9], INFERNO[17]));
    }

    #[test]
    fn bad_input_is_named() {
        let range = ValueRange::new(0.0, 1.0).unwrap();
        let message = |map: &[f32]| heat_map(map, 2, 2, range).unwrap_err().to_string();
        assert_eq!(message(&[0.0; 3]), "an anomaly map has 3 values, but 2×2 needs 4");
        assert_eq!(message(&[0.0, 0.0, f32::NAN, 0.0]), "an anomaly map is not a number at x = 0, y = 1");
        assert!(ValueRange::new(1.0, 1.0).is_err() && ValueRange::new(0.0, f32::INFINITY).is_err());
        assert!(overlay(&RgbImage::new(2, 2), &[], 0, 0, range, 0.5).is_err());
    }

    /// The line by its definition, without regard to speed.
    fn outlined(inside: impl Fn(i64, i64) -> bool, width: i64, height: i64, reach: i64, x: i64, y: i64) -> bool {
        let within = |x: i64, y: i64| (0..width).contains(&x) && (0..height).contains(&y);
        let around = || (-reach..=reach).flat_map(|dy| (-reach..=reach).map(move |dx| (x + dx, y + dy)));
        if inside(x, y) {
            around().any(|(x, y)| !within(x, y))
        } else {
            around().any(|(x, y)| within(x, y) && inside(x, y))
        }
    }

    #[test]
    fn lines_are_two_pixels_wide_on_large_images() {
        let (grey, red) = (Rgb([90; 3]), Rgb([255, 0, 0]));
        let mask = GrayImage::from_fn(5, 1, |x, _| image::Luma([u8::from(x == 2)]));
        let drawn = outline(&RgbImage::from_pixel(1000, 3, grey), &mask, red).unwrap();
        let middle: Vec<bool> = (0..1000).map(|x| drawn.get_pixel(x, 1) == &red).collect();
        // The region is columns 400 to 599 and reaches the upper and the lower edge of a strip of three rows.
        assert!((0..1000).all(|x| middle[x] == (398..602).contains(&x)));
        assert!(outline(&RgbImage::new(3, 3), &GrayImage::new(0, 3), red).is_err());
        assert_eq!(outline(&RgbImage::new(0, 3), &mask, red).unwrap().dimensions(), (0, 3));
    }

    proptest! {
        #[test]
        fn an_outline_follows_its_definition(
            width in 1u32..9, height in 1u32..9, mask_width in 1u32..9, mask_height in 1u32..9,
            bits in prop::collection::vec(any::<bool>(), 64),
        ) {
            let mask = GrayImage::from_fn(mask_width, mask_height, |x, y| {
                image::Luma([u8::from(bits[(y * 8 + x) as usize])])
            });
            let inside = |x: i64, y: i64| {
                let nearest = |at: i64, to: u32, from: u32| {
                    ((at as f64 + 0.5) * f64::from(from) / f64::from(to)).floor() as u32
                };
                mask.get_pixel(nearest(x, width, mask_width), nearest(y, height, mask_height)).0[0] != 0
            };
            let drawn = outline(&RgbImage::new(width, height), &mask, Rgb([7, 8, 9])).unwrap();
            for (x, y, pixel) in drawn.enumerate_pixels() {
                let border = outlined(inside, width.into(), height.into(), 1, x.into(), y.into());
                prop_assert_eq!(pixel.0, if border { [7, 8, 9] } else { [0, 0, 0] }, "at {}, {}", x, y);
            }
        }

        #[test]
        fn an_overlay_stays_between_the_image_and_its_colours(
            width in 1u32..9, height in 1u32..9, map_width in 1u32..5, map_height in 1u32..5,
            values in prop::collection::vec(-1.0f32..2.0, 16), grey: u8,
        ) {
            let image = RgbImage::from_pixel(width, height, Rgb([grey; 3]));
            let map = &values[..(map_width * map_height) as usize];
            let range = ValueRange::new(0.0, 1.0).unwrap();
            prop_assert_eq!(&overlay(&image, map, map_width, map_height, range, 0.0).unwrap(), &image);
            let low = vec![0.0; map.len()];
            prop_assert_eq!(&overlay(&image, &low, map_width, map_height, range, 1.0).unwrap(), &image);
            let drawn = overlay(&image, map, map_width, map_height, range, 1.0).unwrap();
            prop_assert_eq!(drawn.dimensions(), image.dimensions());
        }
    }
}
