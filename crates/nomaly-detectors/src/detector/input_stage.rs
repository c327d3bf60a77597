//! The input stage of a detector: preprocessing, backbone and region of interest.

use std::path::Path;

use image::GrayImage;
use nomaly_backbones::Backbone;
use nomaly_data::Sample;
use nomaly_methods::{Aspect, InputParams, Method};
use nomaly_nn::runtime::Executor;
use nomaly_transforms::Pipeline;

use super::preprocessing::{Shapes, pipelines, read_region, views_of};
use crate::DetectorError;
use crate::images::{FeatureExtractor, size_name};

/// The least reduction for which a fit warns of lost defects.
const LARGE_REDUCTION: f64 = 4.0;

/// A fit caches frames in `max_memory` divided by this, so that it decodes files once.
const FRAME_SHARE: u64 = 4;

/// Preprocessing and backbone at each size, and the region of interest.
pub(super) struct InputStage {
    /// One for each size, the smallest first.
    pub(super) extractors: Vec<FeatureExtractor>,
    /// The region of interest in the frame of the smallest size.
    pub(super) region: Option<GrayImage>,
}

impl InputStage {
    /// Compiles the backbone for each of `pipelines`, the smallest first. The region of interest applies to the maps of
    /// all sizes.
    pub(super) fn new(
        method: &dyn Method,
        backbone: &Backbone,
        pipelines: &[Pipeline],
        region: Option<GrayImage>,
        median: Option<usize>,
        executor: &Executor,
    ) -> Result<Self, DetectorError> {
        let mut extractors = Vec::with_capacity(pipelines.len());
        for pipeline in pipelines {
            method.check_input(pipeline.output_size())?;
            let views = region.as_ref().map(|region| views_of(region, &pipelines[0])).transpose()?;
            let extractor = FeatureExtractor::new(backbone, *pipeline, method.taps(), executor)?;
            extractors.push(extractor.with_maps_of(pipelines[0]).with_region(views).with_median(median));
        }
        Ok(Self { extractors, region })
    }

    /// The input stage of these settings for images of this aspect ratio (width / height).
    pub(super) fn of_input(
        method: &dyn Method,
        backbone: &Backbone,
        input: &InputParams,
        ratio: f64,
        executor: &Executor,
    ) -> Result<Self, DetectorError> {
        let pipelines = pipelines(input, backbone, ratio)?;
        let region = input.roi.as_ref().map(|path| read_region(Path::new(path), &pipelines[0])).transpose()?;
        Self::new(method, backbone, &pipelines, region, input.median, executor)
    }

    /// The most bytes of frames that a fit of `method` caches; 0 if it visits each image once.
    pub(super) fn frame_bytes(&self, method: &dyn Method) -> u64 {
        let once = self.extractors.len() == 1 && !method.revisits();
        if once { 0 } else { method.max_memory().0 / FRAME_SHARE }
    }

    /// The preprocessing at each size.
    pub(super) fn pipelines(&self) -> Vec<Pipeline> {
        self.extractors.iter().map(|extractor| *extractor.pipeline()).collect()
    }

    /// Notes for the user on the sizes and shapes of images.
    pub(super) fn notes(&self, input: &InputParams, samples: &[Sample]) -> Vec<String> {
        let pipelines = self.pipelines();
        let shapes = Shapes::of(samples);
        let mut notes = Vec::new();
        if input.aspect == Aspect::Keep {
            let sizes: Vec<String> = pipelines.iter().map(size_name).collect();
            let ratio = shapes.ratio();
            let shape = if ratio < 1.0 { format!("1 : {:.2}", 1.0 / ratio) } else { format!("{ratio:.2} : 1") };
            notes.push(format!(
                "images are seen at {} pixels, height × width; they are {shape}, width : height",
                sizes.join(" and ")
            ));
            let others = shapes.count_unlike(ratio);
            if others > 0 {
                let all = shapes.len();
                notes.push(format!("{others} of {all} images have another shape and are stretched to this one"));
            }
            let [height, width] = pipelines[0].frame_size();
            if !(0.8..=1.25).contains(&(width as f64 / height as f64 / ratio)) {
                notes.push(
                    "that is as near to their shape as sides from 32 to 2048 pixels in steps of 32 come".to_owned(),
                );
            }
        }
        let reduction = pipelines.last().map_or(0.0, |largest| shapes.reduction(largest.frame_size()));
        if reduction >= LARGE_REDUCTION {
            let instead = if pipelines.len() > 1 { " (and one size)" } else { "" };
            notes.push(format!(
                "images are reduced by {reduction:.1}: defects of fewer than {reduction:.0} pixels may be lost; more \
                 `tiles`{instead} would show them, see \"Large images\" in docs/methods.md"
            ));
        }
        notes
    }
}
