//! Anomaly maps and regions of interest.
//!
//! [`AnomalyMap::resized`] brings a map to another size, and [`AnomalyMap::placed`] lays it over the original image.

use nomaly_kernels::Isa;
use nomaly_kernels::resample::{Bilinear, Grid};
use nomaly_transforms::Footprint;

use crate::MethodError;

/// A value per pixel, *higher = more anomalous*.
#[derive(Clone, Debug, PartialEq)]
pub struct AnomalyMap {
    /// Rows.
    pub height: usize,
    /// Pixels per row.
    pub width: usize,
    /// `[height, width]`, row by row.
    pub values: Vec<f32>,
}

impl AnomalyMap {
    /// The largest value; minus infinity for a map without pixels.
    pub fn max(&self) -> f64 {
        f64::from(self.values.iter().copied().fold(f32::NEG_INFINITY, f32::max))
    }

    /// The map resized bilinearly, with the outer edges of the corner pixels aligned.
    ///
    /// # Errors
    /// A side of 0.
    pub fn resized(&self, height: usize, width: usize) -> Result<Self, MethodError> {
        if (height, width) == (self.height, self.width) {
            return Ok(self.clone());
        }
        let resize = Bilinear::new([self.height, self.width], [height, width], Grid::default(), Isa::best()?)?;
        Ok(Self { height, width, values: resize.maps(&self.values)? })
    }
}

impl AnomalyMap {
    /// The map laid over `footprint`, a rectangle in pixels of an image of `height` × `width`, bilinear. Pixels
    /// outside get the smallest value of the map.
    ///
    /// # Errors
    /// A rectangle without pixels.
    pub fn placed(&self, footprint: Footprint, height: usize, width: usize) -> Result<Self, MethodError> {
        let whole = Footprint { x: 0.0, y: 0.0, width: width as f64, height: height as f64 };
        if footprint == whole {
            return self.resized(height, width);
        }
        let least = self.values.iter().copied().fold(f32::INFINITY, f32::min);
        let mut placed = Self { height, width, values: vec![least; height * width] };
        // Whole pixels suffice: half a pixel is far below a map's blur.
        let (top, left) = (footprint.y.round() as i64, footprint.x.round() as i64);
        let bottom = ((footprint.y + footprint.height).round() as i64).max(top + 1);
        let right = ((footprint.x + footprint.width).round() as i64).max(left + 1);
        let part = self.resized((bottom - top) as usize, (right - left) as usize)?;
        let (first, last) = (left.max(0), right.min(width as i64));
        for y in top.max(0)..bottom.min(height as i64) {
            if first < last {
                let from = (y - top) as usize * part.width;
                let row = &part.values[from + (first - left) as usize..from + (last - left) as usize];
                placed.values[y as usize * width..][first as usize..last as usize].copy_from_slice(row);
            }
        }
        Ok(placed)
    }
}

/// The region of interest in each view of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionOfInterest {
    /// For each view, a mask `[height, width]` of its map.
    views: Vec<Vec<bool>>,
}

impl RegionOfInterest {
    /// A region from one mask per view.
    pub fn new(views: Vec<Vec<bool>>) -> Self {
        Self { views }
    }

    /// `view` counts through all images of a batch.
    pub(crate) fn pixels(&self, view: usize) -> &[bool] {
        &self.views[view % self.views.len()]
    }

    /// For each position of a grid over a view, whether any of its pixels is in the region.
    pub(crate) fn positions(&self, view: usize, grid: [usize; 2], size: [usize; 2]) -> Vec<bool> {
        let pixels = self.pixels(view);
        let span = |at: usize, cells: usize, side: usize| at * side / cells..((at + 1) * side).div_ceil(cells);
        let mut inside = Vec::with_capacity(grid[0] * grid[1]);
        for y in 0..grid[0] {
            for x in 0..grid[1] {
                let columns = span(x, grid[1], size[1]);
                let mut rows = span(y, grid[0], size[0]);
                inside.push(rows.any(|row| pixels[row * size[1]..][columns.clone()].contains(&true)));
            }
        }
        inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_keeps_its_values_where_its_size_stays() {
        let map = AnomalyMap { height: 2, width: 3, values: vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0] };
        assert_eq!(map.resized(2, 3).unwrap(), map);
        assert_eq!(map.max(), 5.0);
        let large = map.resized(4, 6).unwrap();
        assert_eq!((large.height, large.width, large.values.len()), (4, 6, 24));
        // The corners are beyond the outermost centers, where values repeat.
        assert_eq!((large.values[0], large.values[23]), (0.0, 5.0));
    }

    #[test]
    fn a_map_of_a_crop_lies_where_the_crop_was() {
        let map = AnomalyMap { height: 2, width: 2, values: vec![1.0, 2.0, 3.0, 4.0] };
        let placed = |x, y, side, size: [usize; 2]| {
            map.placed(Footprint { x, y, width: side, height: side }, size[0], size[1]).unwrap().values
        };
        assert_eq!(placed(0.0, 0.0, 2.0, [2, 2]), map.values);
        assert_eq!(placed(1.0, 0.0, 2.0, [2, 4]), [1.0, 1.0, 2.0, 1.0, 1.0, 3.0, 4.0, 1.0]);
        // A crop that was padded reaches beyond the image.
        assert_eq!(placed(-1.0, -1.0, 2.0, [1, 1]), [4.0]);
    }

    #[test]
    fn positions_count_as_inside_where_any_of_their_pixels_does() {
        // 5 × 4 pixels under a grid of 2 × 2: the middle row belongs to both rows of the grid.
        let mut pixels = vec![false; 20];
        pixels[2 * 4 + 3] = true;
        let region = RegionOfInterest::new(vec![pixels, vec![false; 20]]);
        assert_eq!(region.positions(0, [2, 2], [5, 4]), [false, true, false, true]);
        assert_eq!(region.positions(1, [2, 2], [5, 4]), [false; 4]);
        assert_eq!(region.positions(2, [2, 2], [5, 4]), region.positions(0, [2, 2], [5, 4]));
    }
}
