//! Average activation maps.

use nomaly_kernels::geometry::OutputLayout;
use nomaly_nn::runtime::Executor;

use crate::backbone::Backbone;
use crate::extractor::{Extractor, Workspace};
use crate::taps::TapRequest;

use super::{ActivationMap, ExplainError, spatial, with_positions};

/// Images that are run at a time.
const BATCH: usize = 8;

/// Where layers are active over many images: the mean of a tap's channels at each position, averaged over images.
///
/// Images are added batch by batch and not kept.
#[derive(Debug)]
pub struct AverageActivations {
    extractor: Extractor,
    workspace: Workspace,
    outputs: Vec<Vec<f32>>,
    /// For each tap, the sum over images at each position.
    sums: Vec<Vec<f64>>,
    images: usize,
}

impl AverageActivations {
    /// Averages the `taps` of a backbone over images of `size` (height, width); all taps with positions if none are
    /// named.
    ///
    /// # Errors
    /// For a tap that the backbone or its weights do not have, or that has no positions, and for images that are too
    /// small.
    pub fn new(
        backbone: &Backbone,
        taps: &[&str],
        size: [usize; 2],
        executor: &Executor,
    ) -> Result<Self, ExplainError> {
        let names = if taps.is_empty() {
            spatial(backbone)
        } else {
            taps.iter().map(|tap| with_positions(backbone, tap)).collect::<Result<_, _>>()?
        };
        let requests: Vec<_> = names.into_iter().map(|name| TapRequest::new(name, OutputLayout::Nchw)).collect();
        let extractor = backbone.compile(size, &requests, executor)?;
        let positions = |index: usize| extractor.output_shape(index)[1..].iter().product::<usize>();
        let sums = (0..requests.len()).map(|index| vec![0.0; positions(index)]).collect();
        let outputs = vec![Vec::new(); requests.len()];
        Ok(Self { workspace: extractor.workspace(BATCH), extractor, outputs, sums, images: 0 })
    }

    /// Adds `images` `[N, 3, H, W]`.
    ///
    /// # Errors
    /// If the values do not form whole images; nothing is added then.
    pub fn add(&mut self, images: &[f32]) -> Result<(), ExplainError> {
        let each = self.extractor.input_shape().iter().product::<usize>();
        if !images.len().is_multiple_of(each) {
            return Err(ExplainError::Images { each, found: images.len() });
        }
        for batch in images.chunks(BATCH * each) {
            let count = batch.len() / each;
            self.extractor.run(batch, count, &mut self.workspace, &mut self.outputs)?;
            for (index, (values, sums)) in self.outputs.iter().zip(&mut self.sums).enumerate() {
                let channels = self.extractor.output_shape(index)[0];
                // The mean per image first: its contribution does not depend on the batch.
                for image in values.chunks_exact(channels * sums.len()) {
                    for (position, sum) in sums.iter_mut().enumerate() {
                        let of_channels = image.iter().skip(position).step_by(image.len() / channels);
                        *sum += of_channels.map(|&value| f64::from(value)).sum::<f64>() / channels as f64;
                    }
                }
            }
            self.images += count;
        }
        Ok(())
    }

    /// Images added.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Each tap with its map; zeros before the first image.
    pub fn maps(&self) -> Vec<(&str, ActivationMap)> {
        let count = self.images.max(1) as f64;
        let map = |(index, sums): (usize, &Vec<f64>)| {
            let [_, height, width] = self.extractor.output_shape(index);
            let values = sums.iter().map(|sum| (sum / count) as f32).collect();
            (self.extractor.taps()[index].name.as_str(), ActivationMap { size: [height, width], values })
        };
        self.sums.iter().enumerate().map(map).collect()
    }
}
