//! Training images in memory.

use std::ops::Range;

use ndarray::ArrayView2;
use nomaly_scorers::ScorerError;
use nomaly_store::{Progress, sha256_hex};

use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::score::{HeldOut, MethodScore};
use crate::stage::Stage;

/// All views of all images as 8-bit planes, red, green and blue: the output of a pipeline before normalization, whose
/// values are `v / 255`, so that a byte holds a value exactly.
#[derive(Debug)]
pub struct PixelStore {
    bytes: Vec<u8>,
    size: [usize; 2],
    views: usize,
}

impl PixelStore {
    /// Reads all images of `source`, whose only feature is the planes of each view.
    pub(crate) fn collect(source: &dyn FeatureSource, progress: &dyn Progress) -> Result<Self, MethodError> {
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

    /// The number of views of all images.
    pub fn inputs(&self) -> usize {
        self.bytes.len() / self.view_len().max(1)
    }

    /// The views of an image.
    pub(crate) fn views_of(&self, image: usize) -> Range<usize> {
        image * self.views..(image + 1) * self.views
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Values of one view, `3 · height · width`.
    pub fn view_len(&self) -> usize {
        3 * self.size[0] * self.size[1]
    }

    /// Writes the planes `[3, height, width]` of a view, in [0, 1].
    ///
    /// # Panics
    /// For a view that does not exist.
    pub fn unpack(&self, input: usize, planes: &mut [f32]) {
        let each = self.view_len();
        for (value, byte) in planes.iter_mut().zip(&self.bytes[input * each..(input + 1) * each]) {
            *value = f32::from(*byte) / 255.0;
        }
    }

    /// The size and the SHA-256 of all bytes.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{:?} {}", self.size, sha256_hex(&self.bytes))
    }

    /// Scores the held-out `images` with `score`, which takes the planes of a view.
    pub(crate) fn held_out(
        &self,
        images: &[usize],
        source: &dyn FeatureSource,
        progress: &dyn Progress,
        mut score: impl FnMut(&[f32]) -> Result<MethodScore, MethodError>,
    ) -> Result<Vec<HeldOut>, MethodError> {
        let stage = Stage::start(progress, "scoring held-out images", Some(images.len()));
        let mut planes = vec![0.0; self.view_len()];
        let mut held_out = Vec::with_capacity(images.len());
        for &image in images {
            let mut views = Vec::new();
            for view in self.views_of(image) {
                self.unpack(view, &mut planes);
                views.push(score(&planes)?);
            }
            held_out.push(HeldOut::new(image, &source.combine(views)?));
            stage.advance(1);
            if progress.cancelled() {
                return Err(MethodError::Cancelled);
            }
        }
        Ok(held_out)
    }
}

/// The planes `[3, H, W]` of each view of a batch, one per row. Rejects views of another size than the network's.
pub(crate) fn views<'a>(batch: &FeatureBatch<'a>, size: [usize; 2]) -> Result<ArrayView2<'a, f32>, MethodError> {
    let (views, expected) = (batch.images * batch.views, 3 * size[0] * size[1]);
    let found = batch.values[0].len() / views.max(1);
    let refuse = || MethodError::FeatureShape { tap: batch.taps[0].name.clone(), expected, found };
    if batch.input != size {
        return Err(refuse());
    }
    ArrayView2::from_shape((views, expected), batch.values[0].as_slice()).map_err(|_| refuse())
}
