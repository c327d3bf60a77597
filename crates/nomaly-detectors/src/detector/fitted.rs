//! Fitted detectors of images.

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_data::Sample;
use nomaly_methods::{AnomalyMap, FittedMethod, GroupBy, METHODS, MethodError, Skipped};
use nomaly_nn::runtime::Executor;
use nomaly_store::Progress;
use nomaly_transforms::Pipeline;

use super::input_stage::InputStage;
use super::preprocessing::{checked_median, region_tensor, stored_region};
use crate::calibration::{Calibration, DecisionRule};
use crate::error::DetectorError;
use crate::fitted::sealed::Ours;
use crate::fitted::{Fitted, Model};
use crate::fusion::{FusedMethod, Fusion};
use crate::images::{FeatureExtractor, ImageStream, StreamOptions, Streamed};
use crate::info::ModelInfo;
use crate::judge::Judge;
use crate::model_file::{Stored, joined_states, split_states};
use crate::outcome::{Outcome, Prediction};
use crate::regions::{RegionOptions, Regions};
use crate::shift::{InputProfile, Look};
use crate::stored::check_stored;

/// Options of scoring.
#[derive(Clone, Copy, Debug, Default)]
pub struct PredictOptions {
    /// A decision rule in place of the model's own.
    pub rule: Option<DecisionRule>,
    /// Image options.
    pub stream: StreamOptions,
}

/// A fitted detector of images.
pub type FittedDetector = Fitted<ForImages>;

/// The fitted model of images: a method on a backbone.
pub struct ForImages {
    /// The fitted method at each size.
    pub(super) fitted: Vec<Box<dyn FittedMethod>>,
    pub(super) backbone: Backbone,
    pub(super) input_stage: InputStage,
    /// Runs the networks.
    pub(super) executor: Executor,
}

impl Ours for ForImages {}

impl Model for ForImages {
    type Info = ModelInfo;

    fn stored(&self) -> Result<Stored, DetectorError> {
        let taps: Vec<&str> = self.input_stage.extractors[0].taps().iter().map(|tap| tap.name.as_str()).collect();
        Ok(Stored {
            states: joined_states(self.fitted.iter().map(|fitted| fitted.states()).collect()),
            region: self.input_stage.region.as_ref().map(region_tensor),
            backbone: self.backbone.export(&taps)?,
        })
    }

    fn restore(info: &ModelInfo, stored: Stored, executor: &Executor) -> Result<Self, DetectorError> {
        let backbone = Backbone::from_tensors(&info.backbone.name, stored.backbone)?;
        let entry = METHODS.get(&info.method.name)?;
        check_stored(info, entry)?;
        let method = (entry.build)(&info.method.settings, &backbone)?;
        let pipelines = match &info.fusion {
            Some(fusion) => fusion.sizes.iter().map(|size| size.pipeline).collect(),
            None => vec![info.pipeline],
        };
        let region = stored.region.map(|region| stored_region(&region, &info.pipeline)).transpose()?;
        let median = checked_median(info.median)?;
        let input_stage = InputStage::new(&*method, &backbone, &pipelines, region, median, executor)?;
        let states = split_states(stored.states, pipelines.len())?;
        let fitted =
            states.into_iter().map(|states| method.restore(states, executor)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { fitted, backbone, input_stage, executor: executor.clone() })
    }

    fn class_names(&self) -> &[String] {
        self.fitted[0].classes()
    }
}

impl FittedDetector {
    /// Names of the [parts](Prediction::parts) of a score; the sizes, if there are several.
    pub fn part_names(&self) -> Vec<String> {
        self.info.fusion.as_ref().map_or_else(|| self.model.fitted[0].part_names(), Fusion::part_names)
    }

    /// Whether predictions have a [deviation](Prediction::deviation).
    pub fn scores_vary(&self) -> bool {
        self.info.fusion.is_none() && self.model.fitted[0].scores_vary()
    }

    /// Names of the [terms](Prediction::terms) of a score.
    pub fn term_names(&self) -> Vec<String> {
        if self.info.fusion.is_some() { Vec::new() } else { self.model.fitted[0].term_names() }
    }

    /// Scores `samples` in order and passes each outcome to `sink`.
    ///
    /// An unusable image is an outcome too, unless [`StreamOptions::strict`] makes it an error. An image with a score
    /// or map value that is not finite is [`Skipped`] with the kind `non-finite-score`.
    ///
    /// # Errors
    /// Errors of `sink`, cancellation, and an unusable image in strict mode.
    pub fn predict(
        &self,
        samples: &[Sample],
        options: &PredictOptions,
        progress: &dyn Progress,
        sink: impl FnMut(Outcome<'_>) -> Result<(), DetectorError> + Send,
    ) -> Result<(), DetectorError> {
        self.predict_grouped(samples, &GroupBy::None, options, progress, sink).map(drop)
    }

    /// As [`predict`](Self::predict); also returns the usable images with their groups.
    ///
    /// # Errors
    /// As [`predict`](Self::predict), and images that cannot be grouped.
    pub fn predict_grouped<E: From<DetectorError> + From<MethodError> + Send>(
        &self,
        samples: &[Sample],
        group_by: &GroupBy,
        options: &PredictOptions,
        progress: &dyn Progress,
        mut sink: impl FnMut(Outcome<'_>) -> Result<(), E> + Send,
    ) -> Result<Streamed, E> {
        let decider = self.decider_under(options.rule)?;
        let judge = Judge { fused: self.fused(), decider: &decider };
        let mut workspaces = judge.fused.workspaces();
        let images = self.stream(samples, options.stream).grouped(group_by).measuring();
        images.run_and_record(progress, "scoring images", &mut |batch| -> Result<(), E> {
            let judged = judge.batch(&batch.features, &mut workspaces)?;
            let mut judged = judged.into_iter();
            for image in batch.images {
                let (size, preview, look) = image
                    .decoded
                    .map_or((None, None, None), |decoded| (Some(decoded.size), decoded.preview, decoded.look));
                let sample = &samples[image.index];
                let result = match image.failure {
                    Some(skipped) => Err(skipped),
                    None => {
                        let judged = judged.next().expect("every usable image is judged");
                        let input_shift =
                            look.as_ref().zip(self.input_profile()).and_then(|(look, own)| own.shift(look));
                        judged
                            .map(|prediction| Prediction { input_shift, ..prediction })
                            .map_err(|fault| fault.of(&sample.id))
                    }
                };
                match result {
                    Err(skipped) if options.stream.strict => {
                        return Err(DetectorError::from(MethodError::BadImage { skipped }).into());
                    }
                    result => sink(Outcome { sample, batch: batch.number, result, size, preview, look })?,
                }
            }
            Ok(())
        })?;
        Ok(images.into_streamed()?)
    }

    /// The rule that grouped the training images; [`GroupBy::Auto`] if the file does not say.
    pub fn group_by(&self) -> GroupBy {
        self.info.training.groups.by.parse().unwrap_or_default()
    }

    /// The profile of the training images; `None` for models of older versions.
    pub fn input_profile(&self) -> Option<&InputProfile> {
        self.info.input.as_ref()
    }

    /// Measures how `samples` look, without scoring them, and passes each to `sink`: its look, or why it cannot be
    /// read.
    ///
    /// # Errors
    /// Errors of `sink`, cancellation, and an unusable image in strict mode.
    pub fn look_at(
        &self,
        samples: &[Sample],
        options: StreamOptions,
        progress: &dyn Progress,
        mut sink: impl FnMut(&Sample, Result<Look, Skipped>) -> Result<(), DetectorError> + Send,
    ) -> Result<(), DetectorError> {
        let images = ImageStream::new(&self.model.input_stage.extractors[..1], samples, options).measuring();
        images.run(progress, "looking at images", &mut |batch| -> Result<(), DetectorError> {
            for image in batch.images {
                let look = image.decoded.and_then(|decoded| decoded.look);
                let result = match (image.failure, look) {
                    (Some(skipped), _) => Err(skipped),
                    (None, Some(look)) => Ok(look),
                    (None, None) => continue,
                };
                sink(&samples[image.index], result)?;
            }
            Ok(())
        })
    }

    /// Maps the anomaly map of the frame to the image of `width` × `height` pixels, and finds its regions above the
    /// pixel threshold of `calibration`. Without a threshold there are no regions.
    ///
    /// # Errors
    /// An image without pixels, or a map with a value that is not finite.
    pub fn locate(
        &self,
        map: &AnomalyMap,
        size: (u32, u32),
        calibration: &Calibration,
        options: &RegionOptions,
    ) -> Result<(AnomalyMap, Regions), DetectorError> {
        let map = self.map_on_image(map, size)?;
        let threshold = calibration.map_threshold().unwrap_or(f64::INFINITY);
        let found = Regions::find(&map.values, map.width, map.height, threshold, options)?;
        Ok((map, found))
    }

    /// Maps a map of the [frame](nomaly_transforms::Pipeline::frame_size) to an image of `width` × `height` pixels.
    /// Pixels outside the frame (around a center crop) get the smallest value of the map.
    ///
    /// # Errors
    /// An image without pixels.
    pub fn map_on_image(&self, map: &AnomalyMap, (width, height): (u32, u32)) -> Result<AnomalyMap, DetectorError> {
        let footprint = self.pipeline().footprint((width, height))?;
        Ok(map.placed(footprint, height as usize, width as usize)?)
    }

    /// The preprocessing; at the smallest size, if there are several.
    pub fn pipeline(&self) -> &Pipeline {
        &self.info.pipeline
    }

    /// The fitted method, the backbone, and the taps that the method uses; at the smallest size, if there are several.
    pub(crate) fn parts(&self) -> (&dyn FittedMethod, &Backbone, &[TapRequest]) {
        (&*self.model.fitted[0], &self.model.backbone, self.model.input_stage.extractors[0].taps())
    }

    /// What runs the networks.
    pub fn executor(&self) -> &Executor {
        &self.model.executor
    }

    /// One for each size, the smallest first.
    pub(crate) fn extractors(&self) -> &[FeatureExtractor] {
        &self.model.input_stage.extractors
    }

    /// The method at all sizes.
    pub(crate) fn fused(&self) -> FusedMethod<'_> {
        let fusion = self.info.fusion.as_ref();
        FusedMethod { fitted: &self.model.fitted, extractors: &self.model.input_stage.extractors, fusion }
    }

    /// The features of `samples` at all sizes.
    pub(crate) fn stream<'a>(&'a self, samples: &'a [Sample], options: StreamOptions) -> ImageStream<'a> {
        ImageStream::new(&self.model.input_stage.extractors, samples, options)
    }

    /// Records the number of training images dropped as suspicious.
    pub(crate) fn dropped(&mut self, images: usize) {
        self.info.training.dropped = images;
    }
}
