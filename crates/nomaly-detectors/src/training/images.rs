//! Images kept in memory for as long as a training needs them.

use std::ops::Range;

use nomaly_scorers::ScorerError;
use nomaly_store::{Progress, sha256_hex};

use crate::DetectorError;
use crate::features::FeatureSource;

/// All views of all images as 8-bit planes, red, green and blue: what a pipeline makes of images, without its last step.
///
/// The methods that train on pixels stand on the backbone `pixels`, whose values are `v / 255`: a byte holds all of one.
#[derive(Debug)]
pub(crate) struct PixelStore {
    bytes: Vec<u8>,
    size: [usize; 2],
    views: usize,
}

impl PixelStore {
    /// Reads all images of `source`, whose only feature is the planes of each view.
    pub(crate) fn collect(source: &dyn FeatureSource, progress: &dyn Progress) -> Result<Self, DetectorError> {
        let mut store = Self { bytes: Vec::new(), size: [0; 2], views: source.views() };
        source.visit(progress, &mut |batch| {
            store.size = batch.input;
            let planes = &batch.values[0];
            if let Some(at) = planes.iter().position(|value| !(0.0..=1.0).contains(value)) {
                let each = 3 * batch.input[0] * batch.input[1];
                return Err(ScorerError::NonFiniteFeature { row: at / each, column: at % each }.into());
            }
            store.bytes.extend(planes.iter().map(|value| (value * 255.0).round() as u8));
            Ok(())
        })?;
        Ok(store)
    }

    /// How many images there are.
    pub(crate) fn images(&self) -> usize {
        self.inputs() / self.views
    }

    /// How many views of images there are.
    pub(crate) fn inputs(&self) -> usize {
        self.bytes.len() / self.each().max(1)
    }

    /// The views of an image.
    pub(crate) fn views_of(&self, image: usize) -> Range<usize> {
        image * self.views..(image + 1) * self.views
    }

    /// The views of some images.
    pub(crate) fn inputs_of(&self, images: &[usize]) -> Vec<usize> {
        images.iter().flat_map(|image| self.views_of(*image)).collect()
    }

    /// Height and width.
    pub(crate) fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Values of one view, `3 · height · width`.
    pub(crate) fn each(&self) -> usize {
        3 * self.size[0] * self.size[1]
    }

    /// Writes the planes `[3, height, width]` of a view, in [0, 1].
    pub(crate) fn unpack(&self, input: usize, planes: &mut [f32]) {
        let each = self.each();
        for (value, byte) in planes.iter_mut().zip(&self.bytes[input * each..(input + 1) * each]) {
            *value = f32::from(*byte) / 255.0;
        }
    }

    /// A checksum of all pixels, by which a training knows its images again.
    pub(crate) fn digest(&self) -> String {
        sha256_hex(&self.bytes)
    }
}
