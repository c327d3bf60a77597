//! Metrics of anomaly maps, accumulated image by image.

use crate::components::{Components, Connectivity};
use crate::error::both_classes;
use crate::pro::{self, DefectPixel, ProCurve};
use crate::radix;
use crate::rank::{Ranking, Sealed};
use crate::{CurvePoints, F1Max, MetricError, RocCurve};

/// Accumulates anomaly maps and masks, and computes exact figures over all pixels of all images.
///
/// Every distinct score is a threshold: nothing is binned or sampled. A normal pixel takes 4 bytes and a defect pixel
/// 8, and as much again while a figure is computed; the time is linear in the number of pixels (a radix sort). The
/// result does not depend on the order of the images.
///
/// ```
/// use nomaly_metrics::PixelMetrics;
///
/// let mut pixels = PixelMetrics::new();
/// pixels.push(&[0.9, 0.2, 0.1, 0.8], &[1, 0, 0, 1], 2, 2)?;
/// assert_eq!(pixels.auroc()?, 1.0);
/// assert_eq!(pixels.f1_max()?.threshold, f64::from(0.2f32));
/// assert_eq!(pixels.regions(), 1); // the two pixels touch at a corner
/// # Ok::<(), nomaly_metrics::MetricError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PixelMetrics {
    normal: Vec<u32>,
    defect: Vec<DefectPixel>,
    regions: u64,
    images: usize,
    sorted: bool,
}

impl PixelMetrics {
    /// An accumulator without images.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the map of an image with its ground-truth mask.
    ///
    /// `map` is `[height, width]`, row-major, higher = more anomalous. `mask` has the same shape; a non-zero pixel is
    /// defective. Nothing is added if the call fails.
    ///
    /// # Errors
    /// A map or mask that is not `width * height` long, a NaN in the map, or an image of 2³² pixels or more.
    pub fn push(&mut self, map: &[f32], mask: &[u8], width: usize, height: usize) -> Result<(), MetricError> {
        self.check_map(map, width, height)?;
        if mask.len() != map.len() {
            return Err(MetricError::MaskSize {
                image: self.images,
                width,
                height,
                expected: map.len(),
                found: mask.len(),
            });
        }
        let components = Components::find(mask, width, Connectivity::Eight);
        for (&score, &label) in map.iter().zip(&components.labels) {
            match label {
                0 => self.normal.push(score.key()),
                label => self.defect.push(DefectPixel::new(score.key(), components.sizes[label as usize - 1])),
            }
        }
        self.regions += components.sizes.len() as u64;
        self.images += 1;
        self.sorted = false;
        Ok(())
    }

    /// Adds the map of an image without defects.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_normal(&mut self, map: &[f32], width: usize, height: usize) -> Result<(), MetricError> {
        self.check_map(map, width, height)?;
        self.normal.extend(map.iter().map(|score| score.key()));
        self.images += 1;
        self.sorted = false;
        Ok(())
    }

    fn check_map(&self, map: &[f32], width: usize, height: usize) -> Result<(), MetricError> {
        let expected = width
            .checked_mul(height)
            .filter(|&pixels| u32::try_from(pixels).is_ok())
            .ok_or(MetricError::ImageTooLarge { width, height })?;
        if map.len() != expected {
            return Err(MetricError::MapSize { image: self.images, width, height, expected, found: map.len() });
        }
        match map.iter().position(|score| score.is_nan()) {
            Some(index) => Err(MetricError::NanPixel { image: self.images, x: index % width, y: index / width }),
            None => Ok(()),
        }
    }

    /// Number of images pushed.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Number of 8-connected ground-truth regions over all images.
    pub fn regions(&self) -> u64 {
        self.regions
    }

    /// Area under the ROC curve over all pixels, in [0, 1].
    ///
    /// # Errors
    /// No pixels, or pixels of one class only.
    pub fn auroc(&mut self) -> Result<f64, MetricError> {
        Ok(self.ranking()?.auroc())
    }

    /// Average precision over all pixels, in (0, 1].
    ///
    /// # Errors
    /// No pixels, or pixels of one class only.
    pub fn average_precision(&mut self) -> Result<f64, MetricError> {
        Ok(self.ranking()?.average_precision())
    }

    /// The best F1 over all thresholds on pixels.
    ///
    /// # Errors
    /// No pixels, or pixels of one class only.
    pub fn f1_max(&mut self) -> Result<F1Max, MetricError> {
        Ok(self.ranking()?.f1_max())
    }

    /// The ROC curve over all pixels.
    ///
    /// # Errors
    /// No pixels, or pixels of one class only.
    pub fn roc_curve(&mut self, points: CurvePoints) -> Result<RocCurve, MetricError> {
        Ok(self.ranking()?.roc_curve(points))
    }

    /// Area under the per-region overlap curve up to a false-positive rate of `limit`, divided by `limit`; in [0, 1].
    /// The usual limit is 0.3.
    ///
    /// # Errors
    /// A limit outside (0, 1], no pixels, or pixels of one class only.
    pub fn aupro(&mut self, limit: f64) -> Result<f64, MetricError> {
        let regions = self.regions;
        pro::area(&self.ranking()?, regions, limit)
    }

    /// The per-region overlap curve, with one point for each distinct score: 24 bytes per point.
    ///
    /// # Errors
    /// No pixels, or pixels of one class only.
    pub fn pro_curve(&mut self) -> Result<ProCurve, MetricError> {
        let regions = self.regions;
        Ok(pro::curve(&self.ranking()?, regions, 0.0))
    }

    /// The per-region overlap curve with both ends, and a point whenever one of its coordinates has moved by at least
    /// one part in `steps`: at most `2 steps + 2` points.
    ///
    /// # Errors
    /// No pixels, or pixels of one class only.
    pub fn pro_curve_thinned(&mut self, steps: usize) -> Result<ProCurve, MetricError> {
        let regions = self.regions;
        Ok(pro::curve(&self.ranking()?, regions, 1.0 / steps.max(1) as f64))
    }

    fn ranking(&mut self) -> Result<Ranking<'_, DefectPixel>, MetricError> {
        both_classes(self.defect.len(), self.normal.len())?;
        if !self.sorted {
            rayon::join(|| radix::sort(&mut self.normal), || radix::sort(&mut self.defect));
            self.sorted = true;
        }
        Ok(Ranking { positives: &self.defect, negatives: &self.normal })
    }
}
