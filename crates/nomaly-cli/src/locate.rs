//! Localization of anomalies: maps at the size of the image, masks and regions, on one scale for all images.

use anyhow::Context;
use nomaly::regions::{RegionOptions, Regions};
use nomaly::{AnomalyMap, Calibration, DetectorError, FittedDetector, Outcome, Prediction};
use nomaly_report::overlay::ValueRange;

/// The largest grey level in units of the pixel threshold; defects seldom reach it.
const GREY_HEADROOM: f64 = 10.0;

/// Turns the maps of one run into located anomalies.
pub(crate) struct Locator<'a> {
    detector: &'a FittedDetector,
    /// The source of the pixel threshold.
    calibration: Calibration,
    regions: RegionOptions,
    scales: Scales,
}

/// Where an image is anomalous.
#[derive(Debug)]
pub(crate) struct Located {
    /// A value for each pixel of the image.
    pub(crate) map: AnomalyMap,
    /// The regions above the threshold.
    pub(crate) found: Regions,
}

impl Located {
    /// Width and height of the image in pixels.
    pub(crate) fn size(&self) -> (u32, u32) {
        self.found.mask.dimensions()
    }
}

impl<'a> Locator<'a> {
    /// A locator for the maps of a detector with this calibration; `None` for methods without maps.
    pub(crate) fn new(
        detector: &'a FittedDetector,
        calibration: &Calibration,
        regions: RegionOptions,
    ) -> anyhow::Result<Option<Self>> {
        let Some(map_maxima) = calibration.map_maxima() else { return Ok(None) };
        let scales = Scales::new(map_maxima, calibration.map_threshold())
            .context("the model's held-out maps are too large for a colour scale")?;
        Ok(Some(Self { detector, calibration: calibration.clone(), regions, scales }))
    }

    /// Whether there is a pixel threshold; without one, an empty result means nothing.
    pub(crate) fn decides(&self) -> bool {
        self.calibration.map_threshold().is_some_and(f64::is_finite)
    }

    /// The located anomalies of an image; `None` if it has no score.
    pub(crate) fn locate(&self, outcome: &Outcome<'_>) -> Result<Option<Located>, DetectorError> {
        let (Ok(Prediction { map: Some(map), .. }), Some(size)) = (&outcome.result, outcome.size) else {
            return Ok(None);
        };
        let (map, found) = self.detector.locate(map, size, &self.calibration, &self.regions)?;
        Ok(Some(Located { map, found }))
    }

    /// The scales of colours and grey levels.
    pub(crate) fn scales(&self) -> Scales {
        self.scales
    }
}

/// The scales of colours and grey levels in all images of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scales {
    /// The ends of the colours.
    pub(crate) colors: ValueRange,
    /// The ends of 16-bit grey levels: from 0, with room above the threshold so that defects differ.
    pub(crate) grays: ValueRange,
}

impl Scales {
    /// Derives the scales from the ascending maxima of the held-out maps and the pixel threshold; without a threshold
    /// above typical normal images, from the largest maximum.
    fn new(map_maxima: &[f64], threshold: Option<f64>) -> Option<Self> {
        let (typical, largest) = (map_maxima.get(map_maxima.len() / 2).copied()?, map_maxima.last().copied()?);
        // If all maps are equal, any scale that starts there works.
        let apart = typical + typical.abs().max(1.0);
        let middles = threshold.into_iter().chain([largest, apart]);
        let colors =
            middles.clone().find_map(|middle| ValueRange::for_threshold(typical as f32, middle as f32).ok())?;
        let grays = middles
            .chain([1.0])
            .filter(|middle| *middle > 0.0)
            .find_map(|middle| ValueRange::new(0.0, (GREY_HEADROOM * middle) as f32).ok())?;
        Some(Self { colors, grays })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_follow_from_the_decision() {
        let scales = |threshold| Scales::new(&[1.0, 2.0, 3.0, 6.0], threshold).unwrap();
        let ends = |range: ValueRange| (range.low(), range.high());
        assert_eq!((ends(scales(Some(5.0)).colors), ends(scales(Some(5.0)).grays)), ((3.0, 7.0), (0.0, 50.0)));
        // Without a threshold, or with one that flags most normal images: from the largest value.
        for threshold in [None, Some(2.0), Some(f64::NEG_INFINITY)] {
            assert_eq!(ends(scales(threshold).colors), (3.0, 9.0), "{threshold:?}");
        }
        assert_eq!(ends(scales(None).grays), (0.0, 60.0));
    }

    #[test]
    fn maps_that_are_all_alike_have_a_scale_too() {
        for value in [0.0, 1e-30, 4.0, -2.0] {
            let scales = Scales::new(&[value], None).unwrap();
            assert_eq!(scales.colors.low(), value as f32);
        }
        assert_eq!(Scales::new(&[], None), None);
        assert_eq!(Scales::new(&[f64::INFINITY], None), None);
    }
}
