//! Anomaly maps from distances on a grid of positions.
//!
//! Methods measure how anomalous each position of a feature map is. `MapMaker` upsamples these distances to the
//! network's input as the papers do: bilinearly, then with a Gaussian blur. With several input sizes, all maps have the
//! smallest.

use nomaly_kernels::Isa;
use nomaly_kernels::filter::{Border, GaussianBlur, MedianFilter};
use nomaly_kernels::resample::{Bilinear, Grid};

use crate::MethodError;
use crate::features::FeatureBatch;
use crate::maps::{AnomalyMap, RegionOfInterest};

/// Standard deviation of the blur of anomaly maps, in pixels of the network's input, of SPADE, PaDiM and PatchCore.
pub const DEFAULT_SIGMA: f64 = 4.0;
/// Where the blur is truncated, in standard deviations: scipy's default, which the authors' programs use.
const TRUNCATE: f64 = 4.0;

/// Resizes values on a grid to the size of a map: bilinear along sides that grow, area averaging along sides that
/// shrink.
#[derive(Debug)]
struct Resizer {
    grid: [usize; 2],
    /// The grid after averaging; no side exceeds the map's.
    averaged: [usize; 2],
    enlarge: Bilinear,
}

impl Resizer {
    fn new(grid: [usize; 2], size: [usize; 2]) -> Result<Self, MethodError> {
        let averaged = [grid[0].min(size[0]), grid[1].min(size[1])];
        Ok(Self { grid, averaged, enlarge: Bilinear::new(averaged, size, Grid::default(), Isa::best()?)? })
    }

    /// Maps `[views, size]` of values `[views, grid]`.
    fn maps(&self, values: &[f32]) -> Result<Vec<f32>, MethodError> {
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
pub struct MapMaker<'a> {
    grid: [usize; 2],
    size: [usize; 2],
    resize: Resizer,
    finish: Finish<'a>,
}

/// Filters maps: median, blur and region of interest.
#[derive(Debug)]
struct Finish<'a> {
    size: [usize; 2],
    median: Option<MedianFilter>,
    blur: Option<GaussianBlur>,
    region: Option<&'a RegionOfInterest>,
}

impl<'a> Finish<'a> {
    fn new(batch: &FeatureBatch<'a>, sigma: f64) -> Result<Self, MethodError> {
        let isa = Isa::best()?;
        let blur = if sigma > 0.0 { Some(GaussianBlur::new(sigma, TRUNCATE, Border::Reflect, isa)?) } else { None };
        let median = batch.median.map(|side| MedianFilter::new(side, Border::Reflect)).transpose()?;
        Ok(Self { size: batch.map, median, blur, region: batch.region })
    }

    /// Maps of all views from `values` `[views, height, width]`: median filter and blur. Pixels outside the region of
    /// interest are 0, or the map's smallest value if that is negative, so that none of them is the maximum.
    fn maps(&self, mut values: Vec<f32>) -> Result<Vec<AnomalyMap>, MethodError> {
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

/// Maps of all views from `values` `[views, height, width]`, one value per pixel of the network's input, with the
/// batch's median filter and a blur of `sigma` pixels of the map (0 for none). Pixels outside the region of interest
/// are 0, or the map's smallest value if that is negative.
///
/// # Errors
/// A blur that is wider than the kernels allow.
pub fn finish_maps(batch: &FeatureBatch<'_>, values: Vec<f32>, sigma: f64) -> Result<Vec<AnomalyMap>, MethodError> {
    let values = if batch.map == batch.input { values } else { Resizer::new(batch.input, batch.map)?.maps(&values)? };
    Finish::new(batch, sigma)?.maps(values)
}

impl<'a> MapMaker<'a> {
    /// For the features of `batch` at `grid` = height × width positions; `sigma` in pixels of the map, 0 for no blur.
    ///
    /// # Errors
    /// As [`finish_maps`], and a grid without positions.
    pub fn new(batch: &FeatureBatch<'a>, grid: [usize; 2], sigma: f64) -> Result<Self, MethodError> {
        let resize = Resizer::new(grid, batch.map)?;
        Ok(Self { grid, size: batch.map, resize, finish: Finish::new(batch, sigma)? })
    }

    /// Sets the distances of positions outside the region of interest to 0, in `distances` `[views, grid]`.
    pub fn restrict(&self, distances: &mut [f32]) {
        let Some(region) = self.finish.region else { return };
        for (view, distances) in distances.chunks_exact_mut(self.grid[0] * self.grid[1]).enumerate() {
            let inside = region.positions(view, self.grid, self.size);
            distances.iter_mut().zip(inside).filter(|(_, inside)| !inside).for_each(|(distance, _)| *distance = 0.0);
        }
    }

    /// Maps of all views from `distances` `[views, grid]`; pixels outside the region of interest are 0.
    ///
    /// # Errors
    /// Values that are not whole grids.
    pub fn maps(&self, distances: &[f32]) -> Result<Vec<AnomalyMap>, MethodError> {
        self.finish.maps(self.resize.maps(distances)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch<'a>(region: Option<&'a RegionOfInterest>, input: [usize; 2]) -> FeatureBatch<'a> {
        FeatureBatch {
            images: 1,
            views: 1,
            input,
            map: input,
            taps: &[],
            values: &[],
            shapes: &[],
            region,
            median: None,
        }
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
