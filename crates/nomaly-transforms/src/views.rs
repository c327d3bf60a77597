//! Views of an image: overlapping tiles and flips, each a separate input.
//!
//! # What it computes
//! The *frame* is the image after resize and crop. Its *views* are the inputs of the network: the whole frame, or a
//! grid of overlapping tiles of one size, and flips of these. The anomaly maps of the views are combined into one map
//! of the frame: flips are undone and averaged, and overlapping tiles are blended. The weight of a tile falls linearly
//! towards each of its borders that lies inside the frame, down to half a pixel's worth, because a network's features
//! are worst where padding replaces pixels beyond the border; the weights at a pixel add up to 1.
//!
//! # When to use
//! Tiles where defects are small compared with the image, so that a resize to the network's input would blur them.
//! Flips for a more stable score at twice or four times the cost, where a mirrored part is as normal as the part
//! itself.
//!
//! # Parameters
//! [`Tiling`] (rows, columns, height and width of a tile) and [`Flips`]; both are checked against the frame when a
//! pipeline is created or read.
//!
//! # Reference
//! Huang, Reichman, Collins, Bradbury, Malof, *Tiling and stitching segmentation output for remote sensing: basic
//! challenges and recommendations*, arXiv 1805.12219, 2018, on the degradation of outputs towards the borders of tiles.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use nomaly_registry::UnknownName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::TransformError;
use crate::limits::{MAX_SIDE, MAX_TILES};

/// The most pixels that the views of one image have together: four flips of the largest frame.
pub const MAX_VIEW_PIXELS: u64 = 1 << 28;

/// The views of a frame; by default a single view of the whole frame.
///
/// Views are numbered flip by flip, within a flip by rows and within a row by columns of tiles. A flip mirrors every
/// tile in place: the first tile of every flip shows the frame's top left corner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Views {
    /// The tiles that the frame is cut into; `None` for the whole frame.
    pub tiling: Option<Tiling>,
    /// The additional flips.
    pub flips: Flips,
}

/// A grid of tiles of one size.
///
/// The first tile starts at the start of the frame, the last ends at its end, and those between are evenly spaced,
/// rounded to whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiling {
    /// Tiles one below the other, 1..=[`MAX_TILES`].
    pub rows: u32,
    /// Tiles side by side, 1..=[`MAX_TILES`].
    pub columns: u32,
    /// Height of a tile in pixels, at most the frame's.
    pub height: u32,
    /// Width of a tile in pixels, at most the frame's.
    pub width: u32,
}

/// The flips of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Flips {
    /// The unflipped frame; 1 view.
    #[default]
    None,
    /// Unflipped, and left and right swapped; 2 views.
    Horizontal,
    /// Unflipped, and top and bottom swapped; 2 views.
    Vertical,
    /// Unflipped, left and right swapped, top and bottom swapped, both swapped; 4 views.
    Both,
}

/// One flip, or the unflipped image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flip {
    /// Left and right are swapped.
    horizontal: bool,
    /// Top and bottom are swapped.
    vertical: bool,
}

impl Flips {
    /// All of them, in listing order.
    pub const ALL: [Self; 4] = [Self::None, Self::Horizontal, Self::Vertical, Self::Both];

    /// The name users type.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Horizontal => "horizontal",
            Self::Vertical => "vertical",
            Self::Both => "both",
        }
    }

    /// The number of flips: 1, 2 or 4.
    pub const fn count(self) -> usize {
        self.list().len()
    }

    const fn list(self) -> &'static [Flip] {
        const AS_IS: Flip = Flip { horizontal: false, vertical: false };
        const HORIZONTAL: Flip = Flip { horizontal: true, vertical: false };
        const VERTICAL: Flip = Flip { horizontal: false, vertical: true };
        const BOTH: Flip = Flip { horizontal: true, vertical: true };
        match self {
            Self::None => &[AS_IS],
            Self::Horizontal => &[AS_IS, HORIZONTAL],
            Self::Vertical => &[AS_IS, VERTICAL],
            Self::Both => &[AS_IS, HORIZONTAL, VERTICAL, BOTH],
        }
    }
}

impl fmt::Display for Flips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Flips {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL
            .into_iter()
            .find(|flips| flips.name() == name)
            .ok_or_else(|| UnknownName::new("flips", name, Self::ALL.map(Self::name)))
    }
}

impl Tiling {
    /// The grid of `rows` × `columns` tiles of `tile` = \[height, width\] in which neighbours share the part `overlap`
    /// of their side, and the frame \[height, width\] that it needs, rounded to whole pixels.
    ///
    /// ```
    /// use nomaly_transforms::Tiling;
    ///
    /// let (tiling, frame) = Tiling::with_overlap(2, 3, [224, 224], 0.25)?;
    /// assert_eq!(frame, [224 + 168, 224 + 2 * 168]);
    /// assert_eq!(tiling, Tiling { rows: 2, columns: 3, height: 224, width: 224 });
    /// # Ok::<(), nomaly_transforms::TransformError>(())
    /// ```
    ///
    /// # Errors
    /// [`TransformError::Overlap`] unless 0 ≤ `overlap` < 0.9, [`TransformError::Tiles`] for a number of rows or
    /// columns outside 1..=[`MAX_TILES`], [`TransformError::Side`] for a tile or a frame with a side outside
    /// 1..=[`MAX_SIDE`].
    pub fn with_overlap(
        rows: u32,
        columns: u32,
        tile: [usize; 2],
        overlap: f64,
    ) -> Result<(Self, [usize; 2]), TransformError> {
        if !(0.0..0.9).contains(&overlap) {
            return Err(TransformError::Overlap { value: overlap });
        }
        let [height, width] = tile.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
        let tiling = Self { rows, columns, height, width };
        tiling.validate()?;
        // The factor is at least 1 and at most the count, so that the tiles fit the frame and cover it.
        let side = |what, tile: u32, count: u32| {
            let side = f64::from(tile) * (1.0 + f64::from(count - 1) * (1.0 - overlap));
            check_side(what, side.round() as u32).map(|side| side as usize)
        };
        Ok((tiling, [side("frame height", height, rows)?, side("frame width", width, columns)?]))
    }

    /// Checks what can be checked without the frame.
    fn validate(&self) -> Result<(), TransformError> {
        for (what, value) in [("rows", self.rows), ("columns", self.columns)] {
            if !(1..=MAX_TILES).contains(&value) {
                return Err(TransformError::Tiles { what, value });
            }
        }
        check_side("tile height", self.height)?;
        check_side("tile width", self.width)?;
        Ok(())
    }
}

/// A side length within 1..=[`MAX_SIDE`].
pub(crate) fn check_side(what: &'static str, value: u32) -> Result<u32, TransformError> {
    if (1..=MAX_SIDE).contains(&value) { Ok(value) } else { Err(TransformError::Side { what, value }) }
}

impl Views {
    /// Whether there is a single view of the whole frame, which is not stored.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the parameters against a frame \[height, width\].
    pub(crate) fn validate(&self, frame: [usize; 2]) -> Result<(), TransformError> {
        if let Some(tiling) = self.tiling {
            tiling.validate()?;
            let axes = [("height", tiling.rows, tiling.height), ("width", tiling.columns, tiling.width)];
            for ((what, count, tile), frame) in axes.into_iter().zip(frame) {
                if tile as usize > frame {
                    return Err(TransformError::TileTooLarge { what, tile, frame });
                }
                if count as usize * (tile as usize) < frame {
                    return Err(TransformError::TilesTooFew { what, count, tile, frame });
                }
            }
        }
        let [height, width] = self.size(frame);
        let pixels = self.count() as u64 * height as u64 * width as u64;
        if pixels > MAX_VIEW_PIXELS {
            return Err(TransformError::ViewsTooLarge { views: self.count(), height, width, limit: MAX_VIEW_PIXELS });
        }
        Ok(())
    }

    /// The number of views of a frame.
    pub fn count(&self) -> usize {
        self.flips.count() * self.tiling.map_or(1, |tiling| tiling.rows as usize * tiling.columns as usize)
    }

    /// Height and width of each view of a frame \[height, width\].
    pub(crate) fn size(&self, frame: [usize; 2]) -> [usize; 2] {
        self.tiling.map_or(frame, |tiling| [tiling.height as usize, tiling.width as usize])
    }

    /// The positions of tiles along the two axes of a frame.
    fn axes(&self, [height, width]: [usize; 2]) -> [Axis; 2] {
        let [tile_height, tile_width] = self.size([height, width]);
        let (rows, columns) = self.tiling.map_or((1, 1), |tiling| (tiling.rows as usize, tiling.columns as usize));
        [Axis::new(rows, tile_height, height), Axis::new(columns, tile_width, width)]
    }

    /// The views of a frame in order: for each, its flip, top row and left column.
    fn places(&self, frame: [usize; 2]) -> Vec<(Flip, usize, usize)> {
        let [rows, columns] = self.axes(frame);
        let mut places = Vec::with_capacity(self.count());
        for &flip in self.flips.list() {
            for &top in &rows.starts {
                places.extend(columns.starts.iter().map(|&left| (flip, top, left)));
            }
        }
        places
    }

    /// Writes the views of a frame, from view number `first` on.
    ///
    /// `frame` holds planes `[P, height, width]` of the `size` \[height, width\], `out` takes the views
    /// `[views − first, P, H, W]`.
    pub(crate) fn cut<T: Copy>(&self, frame: &[T], size: [usize; 2], first: usize, out: &mut [T]) {
        let [height, width] = self.size(size);
        let plane = size[0] * size[1];
        let views = out.chunks_exact_mut(frame.len() / plane * height * width);
        for ((flip, top, left), view) in self.places(size).into_iter().skip(first).zip(views) {
            for (from, to) in frame.chunks_exact(plane).zip(view.chunks_exact_mut(height * width)) {
                for (row, target) in to.chunks_exact_mut(width).enumerate() {
                    let row = if flip.vertical { height - 1 - row } else { row };
                    let start = (top + row) * size[1] + left;
                    let source = &from[start..start + width];
                    if flip.horizontal {
                        for (value, &mirrored) in target.iter_mut().zip(source.iter().rev()) {
                            *value = mirrored;
                        }
                    } else {
                        target.copy_from_slice(source);
                    }
                }
            }
        }
    }

    /// One map of the frame from the maps of its views, `[views, H, W]`.
    ///
    /// The weights are products of a row weight and a column weight, so it suffices that those of each axis sum to 1.
    /// Sums are in `f64`, one row of the frame at a time, which preserves equal values.
    pub(crate) fn assemble(&self, maps: &[f32], frame: [usize; 2]) -> Vec<f32> {
        if self.count() == 1 {
            return maps.to_vec();
        }
        let [height, width] = self.size(frame);
        let [rows, columns] = self.axes(frame);
        let (row_weights, column_weights) = (rows.weights(), columns.weights());
        let flips = self.flips.list();
        let share = 1.0 / flips.len() as f64;
        let tiles = rows.starts.len() * columns.starts.len();
        let mut out = Vec::with_capacity(frame[0] * frame[1]);
        let mut sums = vec![0.0f64; frame[1]];
        for y in 0..frame[0] {
            sums.fill(0.0);
            for (number, flip) in flips.iter().enumerate() {
                for (row, weights) in row_weights.iter().enumerate() {
                    if !rows.range(row).contains(&y) {
                        continue;
                    }
                    let inner = y - rows.starts[row];
                    let weight = share * weights[inner];
                    let inner = if flip.vertical { height - 1 - inner } else { inner };
                    for (column, weights) in column_weights.iter().enumerate() {
                        let view = number * tiles + row * columns.starts.len() + column;
                        let start = (view * height + inner) * width;
                        let values = &maps[start..start + width];
                        let sums = sums[columns.range(column)].iter_mut().zip(weights);
                        if flip.horizontal {
                            sums.zip(values.iter().rev()).for_each(|((s, w), &v)| *s += weight * w * f64::from(v));
                        } else {
                            sums.zip(values).for_each(|((s, w), &v)| *s += weight * w * f64::from(v));
                        }
                    }
                }
            }
            out.extend(sums.iter().map(|&sum| sum as f32));
        }
        out
    }
}

/// The tiles along one axis of a frame.
struct Axis {
    /// First pixel of each tile.
    starts: Vec<usize>,
    /// Pixels of a tile.
    tile: usize,
    /// Pixels of the frame.
    frame: usize,
}

impl Axis {
    fn new(count: usize, tile: usize, frame: usize) -> Self {
        let (slack, gaps) = (frame - tile, (count - 1).max(1));
        // round(i · slack / gaps), halves upwards, in integers.
        let starts = (0..count).map(|i| (2 * i * slack + gaps) / (2 * gaps)).collect();
        Self { starts, tile, frame }
    }

    fn range(&self, number: usize) -> Range<usize> {
        self.starts[number]..self.starts[number] + self.tile
    }

    /// For each tile, the weight of each of its pixels: the distance from the pixel's centre to the nearest border
    /// inside the frame, divided by the sum over the tiles that contain the pixel.
    fn weights(&self) -> Vec<Vec<f64>> {
        let distances = |&start: &usize| -> Vec<f64> {
            let (inside_before, inside_after) = (start > 0, start + self.tile < self.frame);
            let distance = |i: usize| {
                let before = if inside_before { i as f64 + 0.5 } else { f64::INFINITY };
                let after = if inside_after { (self.tile - i) as f64 - 0.5 } else { f64::INFINITY };
                // A tile as long as the frame has no border inside it.
                before.min(after).min(self.frame as f64)
            };
            (0..self.tile).map(distance).collect()
        };
        let mut weights: Vec<Vec<f64>> = self.starts.iter().map(distances).collect();
        let mut sums = vec![0.0; self.frame];
        for (number, weights) in weights.iter().enumerate() {
            sums[self.range(number)].iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
        }
        for (number, weights) in weights.iter_mut().enumerate() {
            weights.iter_mut().zip(&sums[self.range(number)]).for_each(|(weight, sum)| *weight /= sum);
        }
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flat(tiling: Tiling) -> Views {
        Views { tiling: Some(tiling), flips: Flips::None }
    }

    #[test]
    fn tiles_start_and_end_with_the_frame_and_are_evenly_spaced() {
        let starts = |count, tile, frame| Axis::new(count, tile, frame).starts;
        assert_eq!(starts(1, 7, 7), [0]);
        assert_eq!(starts(3, 4, 12), [0, 4, 8]);
        assert_eq!(starts(3, 4, 9), [0, 3, 5]); // 2.5 is rounded up
        assert_eq!(starts(4, 5, 15), [0, 3, 7, 10]);
        assert_eq!(starts(3, 5, 5), [0, 0, 0]);
    }

    #[test]
    fn weights_fall_towards_borders_inside_the_frame_only() {
        // Two tiles of 4 in a frame of 6: they share pixels 2 and 3.
        let weights = Axis::new(2, 4, 6).weights();
        assert_eq!(weights, [[1.0, 1.0, 0.75, 0.25], [0.25, 0.75, 1.0, 1.0]]);
    }

    #[test]
    fn names_go_there_and_back() {
        for flips in Flips::ALL {
            assert_eq!(flips.to_string().parse::<Flips>(), Ok(flips));
            assert_eq!(serde_json::to_string(&flips).unwrap(), format!("\"{flips}\""));
        }
        let error = "horizontl".parse::<Flips>().unwrap_err();
        assert_eq!(error.to_string(), "unknown flips `horizontl`; did you mean `horizontal`?");
    }

    #[test]
    fn tilings_that_do_not_fit_are_refused() {
        let tiling = |rows, columns, height, width| flat(Tiling { rows, columns, height, width });
        let cases = [
            (tiling(0, 1, 4, 4), "0 rows of tiles, expected 1 to 64"),
            (tiling(1, 65, 4, 4), "65 columns of tiles, expected 1 to 64"),
            (tiling(1, 1, 0, 4), "tile height is 0, expected 1 to 8192"),
            (tiling(2, 2, 11, 4), "the tile's height of 11 is larger than the frame's, which is 10"),
            (tiling(1, 2, 10, 9), "2 tiles of width 9 do not cover the frame's width of 20"),
        ];
        for (views, message) in cases {
            assert_eq!(views.validate([10, 20]).unwrap_err().to_string(), message);
        }
        let large = Views { flips: Flips::Both, ..tiling(2, 2, 8192, 8192) };
        assert_eq!(
            large.validate([8192, 8192]).unwrap_err().to_string(),
            "16 views of 8192×8192 pixels are more than the 268435456 pixels that the views of one image may have"
        );
        let whole = Views { tiling: None, flips: Flips::Both };
        assert_eq!(whole.validate([8192, 8192]), Ok(()), "four flips of the largest frame");
    }

    #[test]
    fn overlaps_outside_their_range_are_refused() {
        for overlap in [-0.1, 0.9, 1.0, f64::NAN, f64::INFINITY] {
            let error = Tiling::with_overlap(2, 2, [8, 8], overlap).unwrap_err();
            assert!(matches!(error, TransformError::Overlap { .. }), "{overlap}");
        }
        assert!(matches!(Tiling::with_overlap(2, 0, [8, 8], 0.5), Err(TransformError::Tiles { value: 0, .. })));
        assert!(matches!(Tiling::with_overlap(2, 2, [0, 8], 0.5), Err(TransformError::Side { value: 0, .. })));
        assert!(matches!(Tiling::with_overlap(2, 2, [usize::MAX, 8], 0.5), Err(TransformError::Side { .. })));
        let large = Tiling::with_overlap(3, 1, [4096, 8], 0.0).unwrap_err();
        assert_eq!(large, TransformError::Side { what: "frame height", value: 12288 });
    }

    proptest! {
        #[test]
        fn tiles_cover_the_frame_and_weights_add_up_to_one(
            count in 1usize..9,
            tile in 1usize..20,
            part in 0.0..=1.0f64,
        ) {
            let frame = tile + ((count - 1) as f64 * tile as f64 * part) as usize;
            let axis = Axis::new(count, tile, frame);
            prop_assert_eq!(axis.starts[0], 0);
            prop_assert_eq!(axis.range(count - 1).end, frame);
            let mut sums = vec![0.0; frame];
            for (number, weights) in axis.weights().iter().enumerate() {
                for (sum, weight) in sums[axis.range(number)].iter_mut().zip(weights) {
                    prop_assert!(*weight > 0.0 && *weight <= 1.0);
                    *sum += weight;
                }
            }
            // At most eight roundings of numbers up to 1; a pixel that no tile holds has the sum 0.
            prop_assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-14), "{:?}", sums);
        }

        #[test]
        fn neighbours_overlap_by_the_share_that_was_asked_for(
            (rows, columns) in (1u32..9, 1u32..9),
            (height, width) in (1usize..300, 1usize..300),
            overlap in 0.0..0.9f64,
        ) {
            let (tiling, frame) = Tiling::with_overlap(rows, columns, [height, width], overlap).unwrap();
            let views = flat(tiling);
            prop_assert_eq!(views.validate(frame), Ok(()));
            for axis in views.axes(frame) {
                for pair in axis.starts.windows(2) {
                    let shared = axis.tile as f64 - (pair[1] - pair[0]) as f64;
                    // Half a pixel for the frame, half a pixel for each of the two starts.
                    prop_assert!((shared - overlap * axis.tile as f64).abs() <= 1.5, "{} of {}", shared, axis.tile);
                }
            }
        }
    }
}
