//! Pooled features as rows.

use ndarray::Array2;
use nomaly_backbones::{OutputLayout, TapRequest};
use nomaly_data::Sample;
use nomaly_methods::MethodError;
use nomaly_store::Progress;

use super::fitted::FittedDetector;
use crate::error::DetectorError;
use crate::images::{FeatureExtractor, ImageStream, StreamOptions};

/// Pooled features, a row per usable image.
#[derive(Clone, Debug)]
pub struct PooledRows {
    /// The level of the backbone.
    pub level: String,
    /// `[usable images, channels]`.
    pub rows: Array2<f32>,
    /// The indices of the usable images among the samples, ascending.
    pub usable: Vec<usize>,
}

impl FittedDetector {
    /// The features of the deepest level that the method uses, averaged over all positions and views; `what` names the
    /// stage of the progress.
    ///
    /// # Errors
    /// Cancellation, and an unusable image in strict mode.
    pub fn pooled_features(
        &self,
        samples: &[Sample],
        options: StreamOptions,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<PooledRows, DetectorError> {
        let used = |name: &String| self.model.input_stage.extractors[0].taps().iter().any(|tap| tap.name == *name);
        let deepest = self.model.backbone.taps().into_iter().map(|tap| tap.name).rfind(used);
        let level = deepest
            .ok_or_else(|| DetectorError::from(MethodError::State { state: "features".to_owned(), reason: None }))?;
        let tap = TapRequest { name: level.clone(), layout: OutputLayout::Mean };
        let extractor = [FeatureExtractor::new(&self.model.backbone, *self.pipeline(), &[tap], &self.model.executor)?];
        let images = ImageStream::new(&extractor, samples, options);
        let (mut cells, mut usable, mut dim) = (Vec::new(), Vec::new(), 0);
        images.run(progress, what, &mut |batch| -> Result<(), DetectorError> {
            usable.extend(batch.images.iter().filter(|image| image.failure.is_none()).map(|image| image.index));
            for features in batch.features {
                dim = features.shapes[0][0];
                for views in features.values[0].chunks(dim * features.views) {
                    let mean = |column: usize| views.iter().skip(column).step_by(dim).sum::<f32>();
                    cells.extend((0..dim).map(|column| mean(column) / features.views as f32));
                }
            }
            Ok(())
        })?;
        let rows = Array2::from_shape_vec((usable.len(), dim), cells).expect("every image adds a whole row");
        Ok(PooledRows { level, rows, usable })
    }
}
