//! Anomalous regions of anomaly maps.
//!
//! # What it computes
//! The connected components, across edges and corners, of the pixels above a threshold. Holes (background that is not
//! connected to the border of the map across edges) are filled first if requested; whatever lies in a hole becomes part
//! of the surrounding region. Then too small regions are dropped.
//!
//! # When to use
//! To show, count and measure defects. The map must have the resolution of the wanted regions.
//!
//! # Parameters
//! The threshold and [`RegionOptions`].
//!
//! # Reference
//! Canny, *A computational approach to edge detection*, 1986, section VIII, for hysteresis. Equals
//! `skimage.filters.apply_hysteresis_threshold` with 8-connectivity, `label` with a 3 × 3 structure,
//! `binary_fill_holes` and `find_objects` of `scipy.ndimage`.

use image::GrayImage;
use nomaly_metrics::components::{Components, Connectivity};

pub use nomaly_wire::Region;

use crate::DetectorError;

/// Options of the regions above a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegionOptions {
    /// Hysteresis: a second, lower threshold. A region above it counts if it has a pixel above the first threshold; so
    /// the first decides whether there is a defect, and the second determines its extent. Ignored unless lower.
    pub low: Option<f64>,
    /// The fewest pixels of a region, including filled holes; smaller ones are dropped.
    pub min_area: usize,
    /// Whether to fill holes.
    pub fill_holes: bool,
}

impl Default for RegionOptions {
    /// No least area: every image above the threshold then has a region that shows why, and the size of the smallest
    /// real defect depends on the camera. Holes are filled: the inside of a large even defect often looks normal while
    /// its outline does not, yet it is one defect.
    fn default() -> Self {
        Self { low: None, min_area: 0, fill_holes: true }
    }
}

/// The anomalous regions of a map.
///
/// ```
/// use nomaly_detectors::regions::{RegionOptions, Regions};
///
/// let map = [
///     0.1, 0.2, 0.1, 0.0, //
///     0.1, 0.8, 0.1, 0.0, //
///     0.1, 0.1, 0.9, 0.0,
/// ];
/// let found = Regions::find(&map, 4, 3, 0.5, &RegionOptions::default())?;
/// assert_eq!(found.regions.len(), 1);
/// let region = found.regions[0];
/// assert_eq!((region.x, region.y, region.width, region.height, region.area), (1, 1, 2, 2, 2));
/// assert_eq!((region.peak, region.peak_x, region.peak_y), (0.9, 2, 2));
/// assert_eq!(found.mask.get_pixel(2, 2).0, [255]);
/// # Ok::<(), nomaly_detectors::DetectorError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Regions {
    /// 255 inside regions, 0 elsewhere; as large as the map.
    pub mask: GrayImage,
    /// The regions, highest peak first; equal peaks in raster order of the upper left corner of their bounding boxes.
    pub regions: Vec<Region>,
}

impl Regions {
    /// Finds the regions above `threshold`, which may be infinite, of a row-major map of `height` rows of `width`
    /// pixels. A value equal to the threshold is not above it. Hysteresis comes first, then holes, then the least area.
    ///
    /// # Errors
    /// A map with a wrong number of values or more than 2³² − 1; a value that is not finite, since counting it as
    /// "not above" would hide it; a threshold that is NaN.
    pub fn find(
        map: &[f32],
        width: usize,
        height: usize,
        threshold: f64,
        options: &RegionOptions,
    ) -> Result<Self, DetectorError> {
        let shape = || DetectorError::map_shape([width, height], map.len());
        let pixels = width.checked_mul(height).filter(|&pixels| pixels == map.len());
        if pixels.is_none_or(|pixels| u32::try_from(pixels).is_err()) {
            return Err(shape());
        }
        let (Ok(columns), Ok(rows)) = (u32::try_from(width), u32::try_from(height)) else {
            return Err(shape());
        };
        if let Some(at) = map.iter().position(|value| !value.is_finite()) {
            return Err(DetectorError::map_value([at % width, at / width], map[at]));
        }
        if let Some(value) = [Some(threshold), options.low].into_iter().flatten().find(|value| value.is_nan()) {
            return Err(DetectorError::map_threshold(value));
        }

        let above =
            |threshold: f64| map.iter().map(|&value| if f64::from(value) > threshold { 255 } else { 0 }).collect();
        let mut mask: Vec<u8> = above(threshold);
        if let Some(low) = options.low.filter(|low| *low < threshold) {
            mask = grown(&mask, above(low), width);
        }
        if options.fill_holes {
            fill_holes(&mut mask, width);
        }
        let components = Components::find(&mask, width, Connectivity::Eight);
        let mut regions = measure(map, width, &components);
        if options.min_area > 1 {
            let large = |label: u32| components.sizes[label as usize - 1] as usize >= options.min_area;
            for (pixel, &label) in mask.iter_mut().zip(&components.labels) {
                if label != 0 && !large(label) {
                    *pixel = 0;
                }
            }
            regions.retain(|region| region.area >= options.min_area);
        }
        regions.sort_by(|a, b| b.peak.total_cmp(&a.peak).then((a.y, a.x).cmp(&(b.y, b.x))));
        let mask = GrayImage::from_raw(columns, rows, mask).expect("the mask has a byte for every pixel");
        Ok(Self { mask, regions })
    }
}

/// The regions of `low` that contain a pixel of `high`.
fn grown(high: &[u8], mut low: Vec<u8>, width: usize) -> Vec<u8> {
    let Components { labels, sizes } = Components::find(&low, width, Connectivity::Eight);
    let mut kept = vec![false; sizes.len() + 1];
    labels.iter().zip(high).filter(|(_, high)| **high != 0).for_each(|(&label, _)| kept[label as usize] = true);
    low.iter_mut().zip(&labels).filter(|(_, label)| !kept[**label as usize]).for_each(|(pixel, _)| *pixel = 0);
    low
}

/// Fills the background that is not connected to the border of the mask.
fn fill_holes(mask: &mut [u8], width: usize) {
    let background: Vec<u8> = mask.iter().map(|&pixel| u8::from(pixel == 0)).collect();
    let Components { labels, sizes } = Components::find(&background, width, Connectivity::Four);
    let mut open = vec![false; sizes.len() + 1];
    let last_row = labels.len() - width.min(labels.len());
    for border in [&labels[..width.min(labels.len())], &labels[last_row..]] {
        border.iter().for_each(|&label| open[label as usize] = true);
    }
    for row in labels.chunks_exact(width.max(1)) {
        open[row[0] as usize] = true;
        open[row[width - 1] as usize] = true;
    }
    // Label 0 is already set.
    for (pixel, label) in mask.iter_mut().zip(labels) {
        if label != 0 && !open[label as usize] {
            *pixel = 255;
        }
    }
}

/// Box, peak and mean of every region, in the order of their labels.
fn measure(map: &[f32], width: usize, components: &Components) -> Vec<Region> {
    /// The running statistics of a region; borders are inclusive.
    struct Extent {
        left: usize,
        right: usize,
        top: usize,
        bottom: usize,
        peak: usize,
        sum: f64,
    }
    let mut extents: Vec<Extent> = Vec::with_capacity(components.sizes.len());
    for (at, (&label, &value)) in components.labels.iter().zip(map).enumerate().filter(|(_, (label, _))| **label != 0) {
        let (x, y) = (at % width, at / width);
        // Labels are in raster order of the regions' first pixels.
        if label as usize > extents.len() {
            extents.push(Extent { left: x, right: x, top: y, bottom: y, peak: at, sum: 0.0 });
        }
        let extent = &mut extents[label as usize - 1];
        extent.left = extent.left.min(x);
        extent.right = extent.right.max(x);
        extent.bottom = y;
        if value > map[extent.peak] {
            extent.peak = at;
        }
        extent.sum += f64::from(value);
    }
    let region = |(extent, &area): (&Extent, &u32)| Region {
        x: extent.left as u32,
        y: extent.top as u32,
        width: (extent.right - extent.left + 1) as u32,
        height: (extent.bottom - extent.top + 1) as u32,
        area: area as usize,
        peak: map[extent.peak],
        peak_x: (extent.peak % width) as u32,
        peak_y: (extent.peak / width) as u32,
        mean: (extent.sum / f64::from(area)) as f32,
    };
    extents.iter().zip(&components.sizes).map(region).collect()
}
