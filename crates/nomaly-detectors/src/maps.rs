//! Anomaly maps: from distances on a grid of positions to a value for each pixel.
//!
//! Methods measure how anomalous each position of a feature map is. `MapMaker` turns that into a map of the network's
//! input, the way the papers do: bilinear enlargement, then a Gaussian blur. Where images are seen at several sizes,
//! all maps are of the smallest. [`AnomalyMap::resized`] brings a map to another size,
//! [`FittedDetector::map_on_image`](crate::FittedDetector::map_on_image) to that of the original image.

use nomaly_kernels::Isa;
use nomaly_kernels::filter::{Border, GaussianBlur, MedianFilter};
use nomaly_kernels::resample::{Bilinear, Grid};
use nomaly_transforms::Footprint;

use crate::DetectorError;
use crate::features::FeatureBatch;

/// Standard deviation of the blur of anomaly maps, in pixels of the network's input; SPADE, PaDiM and PatchCore all use it.
pub const DEFAULT_SIGMA: f64 = 4.0;
/// Where the blur is cut off, in standard deviations: scipy's default, which the authors' programs rely on.
const TRUNCATE: f64 = 4.0;

/// A value for each pixel, *higher = more anomalous*.
#[derive(Clone, Debug, PartialEq)]
pub struct AnomalyMap {
    /// Rows.
    pub height: usize,
    /// Pixels a row.
    pub width: usize,
    /// `[height, width]`, row by row.
    pub values: Vec<f32>,
}

impl AnomalyMap {
    /// The largest value; minus infinity for a map without pixels.
    pub fn max(&self) -> f64 {
        f64::from(self.values.iter().copied().fold(f32::NEG_INFINITY, f32::max))
    }

    /// The map at another size, bilinear, with the outer edges of the corner pixels in place.
    ///
    /// # Errors
    /// A side of 0.
    pub fn resized(&self, height: usize, width: usize) -> Result<Self, DetectorError> {
        if (height, width) == (self.height, self.width) {
            return Ok(self.clone());
        }
        let resize = Bilinear::new([self.height, self.width], [height, width], Grid::default(), Isa::best()?)?;
        Ok(Self { height, width, values: resize.maps(&self.values)? })
    }
}

impl AnomalyMap {
    /// The map laid over `footprint`, a rectangle in pixels of an image of `height` × `width`, bilinear. Pixels outside get
    /// the smallest value of the map.
    pub(crate) fn placed(&self, footprint: Footprint, height: usize, width: usize) -> Result<Self, DetectorError> {
        let whole = Footprint { x: 0.0, y: 0.0, width: width as f64, height: height as f64 };
        if footprint == whole {
            return self.resized(height, width);
        }
        let least = self.values.iter().copied().fold(f32::INFINITY, f32::min);
        let mut placed = Self { height, width, values: vec![least; height * width] };
        // Whole pixels of the image: half a pixel is nothing beside a map's blur.
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

/// Brings values on a grid to the size of a map: bilinear along sides that grow, and along sides that shrink the mean
/// of all that a pixel covers, so that nothing is passed over.
#[derive(Debug)]
struct Resizer {
    grid: [usize; 2],
    /// The grid after averaging, no side larger than the map's.
    averaged: [usize; 2],
    enlarge: Bilinear,
}

impl Resizer {
    fn new(grid: [usize; 2], size: [usize; 2]) -> Result<Self, DetectorError> {
        let averaged = [grid[0].min(size[0]), grid[1].min(size[1])];
        Ok(Self { grid, averaged, enlarge: Bilinear::new(averaged, size, Grid::default(), Isa::best()?)? })
    }

    /// Maps `[views, size]` of values `[views, grid]`.
    fn maps(&self, values: &[f32]) -> Result<Vec<f32>, DetectorError> {
        if self.averaged == self.grid {
            return Ok(self.enlarge.maps(values)?);
        }
        let span = |at: usize, axis: usize| {
            let (count, cells) = (self.grid[axis], self.averaged[axis]);
            at * count / cells..((at + 1) * count).div_ceil(cells)
        };
        let width = self.grid[1];
        let mut means = Vec::with_capacity(values.len());
        for view in values.chunks_exact(self.grid[0] * width) {
            for y in 0..self.averaged[0] {
                for x in 0..self.averaged[1] {
                    let (rows, columns) = (span(y, 0), span(x, 1));
                    let count = (rows.len() * columns.len()) as f32;
                    let sum: f32 = rows.map(|row| view[row * width..][columns.clone()].iter().sum::<f32>()).sum();
                    means.push(sum / count);
                }
            }
        }
        Ok(self.enlarge.maps(&means)?)
    }
}

/// Makes maps from distances at the positions of a feature grid.
#[derive(Debug)]
pub(crate) struct MapMaker<'a> {
    grid: [usize; 2],
    size: [usize; 2],
    resize: Resizer,
    finish: Finish<'a>,
}

/// What becomes of values for each pixel of a map.
#[derive(Debug)]
struct Finish<'a> {
    size: [usize; 2],
    median: Option<MedianFilter>,
    blur: Option<GaussianBlur>,
    region: Option<&'a RegionOfInterest>,
}

impl<'a> Finish<'a> {
    fn new(batch: &FeatureBatch<'a>, sigma: f64) -> Result<Self, DetectorError> {
        let isa = Isa::best()?;
        let blur = if sigma > 0.0 { Some(GaussianBlur::new(sigma, TRUNCATE, Border::Reflect, isa)?) } else { None };
        let median = if batch.median > 1 { Some(MedianFilter::new(batch.median, Border::Reflect)?) } else { None };
        Ok(Self { size: batch.map, median, blur, region: batch.region })
    }

    /// One map a view of `values` `[views, height, width]`: median filter and blur, and outside the region of interest 0, or
    /// the smallest value of the map where that is negative, so that nothing there is the largest.
    fn maps(&self, mut values: Vec<f32>) -> Result<Vec<AnomalyMap>, DetectorError> {
        let [height, width] = self.size;
        if let Some(median) = &self.median {
            values = median.apply(&values, height, width)?;
        }
        if let Some(blur) = &self.blur {
            values = blur.apply(&values, height, width)?;
        }
        let maps = values.chunks_exact(height * width).enumerate().map(|(view, values)| {
            let mut values = values.to_vec();
            if let Some(region) = self.region {
                let inside = region.pixels(view);
                let least = values.iter().copied().fold(0.0, f32::min);
                values.iter_mut().zip(inside).filter(|(_, inside)| !**inside).for_each(|(value, _)| *value = least);
            }
            AnomalyMap { height, width, values }
        });
        Ok(maps.collect())
    }
}

/// One map a view of `values` `[views, height, width]`, a value for each pixel of the network's input: median filter and
/// blur (`sigma` in pixels of the map, 0 for none) as the batch asks for.
pub(crate) fn finish_maps(
    batch: &FeatureBatch<'_>,
    values: Vec<f32>,
    sigma: f64,
) -> Result<Vec<AnomalyMap>, DetectorError> {
    let values = if batch.map == batch.input { values } else { Resizer::new(batch.input, batch.map)?.maps(&values)? };
    Finish::new(batch, sigma)?.maps(values)
}

impl<'a> MapMaker<'a> {
    /// For features of `grid` = height × width positions, as they come in `batch`; `sigma` in pixels of the map, 0 for
    /// no blur.
    pub(crate) fn new(batch: &FeatureBatch<'a>, grid: [usize; 2], sigma: f64) -> Result<Self, DetectorError> {
        let resize = Resizer::new(grid, batch.map)?;
        Ok(Self { grid, size: batch.map, resize, finish: Finish::new(batch, sigma)? })
    }

    /// Sets the distances of positions outside the region of interest to 0, in `distances` `[views, grid]`.
    pub(crate) fn restrict(&self, distances: &mut [f32]) {
        let Some(region) = self.finish.region else { return };
        for (view, distances) in distances.chunks_exact_mut(self.grid[0] * self.grid[1]).enumerate() {
            let inside = region.positions(view, self.grid, self.size);
            distances.iter_mut().zip(inside).filter(|(_, inside)| !inside).for_each(|(distance, _)| *distance = 0.0);
        }
    }

    /// One map a view from `distances` `[views, grid]`; pixels outside the region of interest are 0.
    pub(crate) fn maps(&self, distances: &[f32]) -> Result<Vec<AnomalyMap>, DetectorError> {
        self.finish.maps(self.resize.maps(distances)?)
    }
}

/// The pixels that matter, as each view of an image sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionOfInterest {
    /// For each view, `[height, width]` of its map.
    views: Vec<Vec<bool>>,
}

impl RegionOfInterest {
    /// A region of pixels of each view.
    pub(crate) fn new(views: Vec<Vec<bool>>) -> Self {
        Self { views }
    }

    /// Views are counted through all images of a batch.
    pub(crate) fn pixels(&self, view: usize) -> &[bool] {
        &self.views[view % self.views.len()]
    }

    /// For each position of a grid over a view, whether any of its pixels is inside.
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
        // The corners are beyond the outermost centres, where values repeat.
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

    fn batch<'a>(region: Option<&'a RegionOfInterest>, input: [usize; 2]) -> FeatureBatch<'a> {
        FeatureBatch { images: 1, views: 1, input, map: input, taps: &[], values: &[], shapes: &[], region, median: 1 }
    }

    #[test]
    fn nothing_outside_the_region_of_interest_is_anomalous() {
        let mut pixels = vec![false; 64];
        pixels[..32].fill(true); // the upper half
        let region = RegionOfInterest::new(vec![pixels]);
        let batch = batch(Some(&region), [8, 8]);
        let maker = MapMaker::new(&batch, [4, 4], 1.0).unwrap();
        let mut distances = vec![1.0; 16];
        maker.restrict(&mut distances);
        assert_eq!(distances.iter().sum::<f32>(), 8.0);
        let map = maker.maps(&distances).unwrap().remove(0);
        assert!(
            map.values[..32].iter().all(|value| *value > 0.0) && map.values[32..].iter().all(|value| *value == 0.0)
        );
    }

    #[test]
    fn a_map_that_shrinks_passes_nothing_over() {
        for (grid, size) in [([12, 9], [4, 9]), ([16, 16], [3, 5]), ([7, 5], [7, 10])] {
            let resizer = Resizer::new(grid, size).unwrap();
            for hot in 0..grid[0] * grid[1] {
                let mut values = vec![0.0; grid[0] * grid[1]];
                values[hot] = 1.0;
                let map = resizer.maps(&values).unwrap();
                assert!(map.len() == size[0] * size[1] && map.iter().any(|value| *value > 0.0), "{grid:?} {hot}");
            }
            assert!(
                resizer.maps(&vec![2.5; grid[0] * grid[1]]).unwrap().iter().all(|value| (value - 2.5).abs() < 1e-6)
            );
        }
    }

    #[test]
    fn a_constant_stays_constant() {
        let batch = batch(None, [10, 14]);
        let maker = MapMaker::new(&batch, [5, 7], 4.0).unwrap();
        let map = maker.maps(&[2.5; 35]).unwrap().remove(0);
        // The weights of the blur are rounded to f32, and so is their sum.
        assert!(map.values.iter().all(|value| (value - 2.5).abs() < 1e-5), "{map:?}");
    }
}
