//! From an anomaly map to the regions that are anomalous.
//!
//! # What it computes
//! The pixels whose value is above a threshold, joined to regions where they touch at an edge or a corner. Holes, parts
//! of the background that do not reach the border of the map by steps across edges, are filled first if asked; what
//! lies in a hole becomes part of the region around it. Then regions that are too small are dropped.
//!
//! # When to use
//! Where somebody has to be shown what is wrong, or defects are to be counted and measured. The map has to be at the
//! resolution in which the regions are wanted.
//!
//! # Parameters
//! The threshold and [`RegionOptions`].
//!
//! # Reference
//! Canny, *A computational approach to edge detection*, 1986, section VIII, for hysteresis. Equals
//! `skimage.filters.apply_hysteresis_threshold` with neighbors across corners where it is asked for, `label` with a 3
//! × 3 structure, `binary_fill_holes` and `find_objects` of `scipy.ndimage`.

use image::GrayImage;
use nomaly_metrics::components::{Components, Connectivity};

pub use nomaly_wire::Region;

use crate::DetectorError;

/// Which pixels above a threshold make a region.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegionOptions {
    /// Hysteresis: a second, lower threshold. Where a region above it has a pixel above the first, all of it counts; so
    /// the first decides whether there is a defect, and the second how far it reaches. Without effect where it is not
    /// lower.
    pub low: Option<f64>,
    /// The fewest pixels of a region, filled holes included; smaller ones are dropped.
    pub min_area: usize,
    /// Whether holes belong to the region around them.
    pub fill_holes: bool,
}

impl Default for RegionOptions {
    /// No region is too small: then an image whose highest value is above the threshold has a region that shows why,
    /// and how many pixels the smallest real defect has is known only to those who know the camera. Holes are filled:
    /// the inside of a large even defect often looks normal while its outline does not, and it is one defect all the
    /// same.
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
    /// 255 where a pixel belongs to a region, 0 elsewhere; as large as the map.
    pub mask: GrayImage,
    /// The regions: highest peak first, of equal peaks the one whose bounding box starts in the upper row, then in the
    /// column to the left.
    pub regions: Vec<Region>,
}

impl Regions {
    /// Finds the regions of a row-major map of `height` rows of `width` pixels that lie above `threshold`, which may be
    /// infinite. A value equal to the threshold is not above it. Hysteresis comes first, then holes, then the least
    /// area.
    ///
    /// # Errors
    /// A map that has another number of values or more than 2³² − 1; a value that is not finite: taking it for "not
    /// above" would pass an image that was never judged; a threshold that is no number.
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

/// Sets the background that does not reach the border of the mask.
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
    // Label 0 is what is set already.
    for (pixel, label) in mask.iter_mut().zip(labels) {
        if label != 0 && !open[label as usize] {
            *pixel = 255;
        }
    }
}

/// Box, peak and mean of every region, in the order of their labels.
fn measure(map: &[f32], width: usize, components: &Components) -> Vec<Region> {
    /// What is known of a region before its last pixel; borders are inclusive.
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
