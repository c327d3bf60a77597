//! Builds fitted detectors, from features of images or of partials.

use std::collections::BTreeSet;

use image::GrayImage;
use nomaly_backbones::Backbone;
use nomaly_data::Sample;
use nomaly_methods::{FitContext, Groups, InputParams, METHODS, Method, MethodError, MethodFit, Updates};
use nomaly_nn::runtime::{Device, Executor};
use nomaly_settings::Assignments;
use nomaly_store::Progress;
use nomaly_transforms::Pipeline;

use super::fit::{Detector, FitResult};
use super::fitted::{FittedDetector, ForImages};
use super::input_stage::InputStage;
use super::preprocessing::checked_median;
use super::training::{Training, held_out_images};
use crate::calibration::Calibration;
use crate::classes::Classes;
use crate::decider::Decider;
use crate::error::DetectorError;
use crate::fusion::{FusedFit, most_maps};
use crate::images::{FeatureExtractor, Streamed};
use crate::info::{BackboneInfo, DecisionHistory, MethodInfo, ModelInfo, TrainingInfo};

/// The parts of a detector, as stored in a file.
pub(crate) struct DetectorParts<'a> {
    pub(crate) method: &'a str,
    /// The full settings of the method.
    pub(crate) settings: &'a Assignments,
    pub(crate) backbone: Backbone,
    pub(crate) input: InputParams,
    /// One for each size, the smallest first.
    pub(crate) pipelines: &'a [Pipeline],
    pub(crate) region: Option<GrayImage>,
}

impl Detector {
    /// Builds a detector from [checked](crate::stored::check_parts) parts.
    ///
    /// # Errors
    /// Settings that contradict the backbone or the input.
    pub(crate) fn from_parts(parts: DetectorParts<'_>) -> Result<Self, DetectorError> {
        let DetectorParts { method, settings, backbone, input, pipelines, region } = parts;
        let method = (METHODS.get(method)?.build)(settings, &backbone)?;
        // A partial has the features already: no network runs.
        let executor = Executor::cpu()?;
        let input_stage =
            InputStage::new(&*method, &backbone, pipelines, region, checked_median(input.median)?, &executor)?;
        Ok(Self { method, backbone, input, input_stage, checkpoints: None, executor })
    }

    /// Fits the method at each size in turn with `fit_at`; `groups` is called last.
    pub(crate) fn learn(
        &self,
        seed: u64,
        updatable: bool,
        progress: &dyn Progress,
        fit_at: &dyn Fn(usize, &FitContext<'_>) -> Result<MethodFit, MethodError>,
        groups: impl FnOnce() -> Result<Groups, MethodError>,
    ) -> Result<FusedFit, MethodError> {
        let pipelines = self.input_stage.pipelines();
        let context = FitContext {
            seed,
            progress,
            executor: &self.executor,
            checkpoints: self.checkpoints.as_deref(),
            most_maps: (pipelines.len() > 1).then(|| most_maps(&pipelines)),
            occupied: 0,
            updatable,
        };
        let fit_at = |size, occupied| fit_at(size, &FitContext { occupied, ..context });
        FusedFit::new(&pipelines, None, fit_at, groups)
    }

    /// Builds the fitted detector from the fits and the data of the images, and calibrates the decision.
    pub(crate) fn fitted(self, fit: FusedFit, training: Training) -> Result<FitResult, DetectorError> {
        let Training { dataset, seed, rule, copies, streamed, input, mut notes } = training;
        let Streamed { usable, skipped, groups, group_info } = streamed;
        notes.extend(fit.notes);
        let calibration = Calibration::of(&fit.held_out, &groups, rule)?;
        // To the user, a sample and its copies are one image.
        let of_samples: Vec<usize> = usable.iter().map(|image| image / (1 + copies)).collect();
        let held_out = held_out_images(&fit.held_out, &of_samples, &groups);
        let device = self.executor.device();
        let info = ModelInfo {
            method: self.method_info(),
            backbone: self.backbone_info(),
            pipeline: *self.input_stage.extractors[0].pipeline(),
            fusion: fit.fusion,
            median: self.input_stage.extractors[0].median(),
            classes: fit.classes.iter().map(|held_out| held_out.class.clone()).collect(),
            decision: rule,
            history: DecisionHistory::default(),
            training: TrainingInfo {
                dataset,
                images: of_samples.iter().collect::<BTreeSet<_>>().len(),
                skipped: skipped.len(),
                seed,
                groups: group_info,
                dropped: 0,
                device: (device != Device::Cpu).then(|| device.to_string()),
            },
            input,
        };
        let classes = if fit.classes.is_empty() { None } else { Some(Classes::new(fit.classes, rule)?) };
        let detector = FittedDetector {
            info,
            decider: Decider::new(calibration, classes),
            model: ForImages {
                fitted: fit.fitted,
                backbone: self.backbone,
                input_stage: self.input_stage,
                executor: self.executor,
            },
        };
        let (dropped, warnings, checkpoint) = (Vec::new(), Vec::new(), fit.checkpoint);
        Ok(FitResult { detector, skipped, held_out, dropped, notes, warnings, checkpoint })
    }

    /// The method with its full settings.
    pub(crate) fn method_info(&self) -> MethodInfo {
        MethodInfo { name: self.method.name().to_owned(), settings: self.method.settings() }
    }

    /// The backbone and where its weights come from.
    pub(crate) fn backbone_info(&self) -> BackboneInfo {
        BackboneInfo {
            name: self.backbone.name().to_owned(),
            licence: self.backbone.licence().to_owned(),
            source: self.backbone.source().to_owned(),
        }
    }

    /// Rejects updatable models of methods without updates.
    pub(crate) fn check_updates(&self, updatable: bool) -> Result<(), MethodError> {
        match self.method.updates() {
            Updates::Never if updatable => Err(MethodError::NotExtendable { method: self.method.name().to_owned() }),
            _ => Ok(()),
        }
    }

    /// The method.
    pub(crate) fn method(&self) -> &dyn Method {
        &*self.method
    }

    /// The backbone.
    pub(crate) fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// What runs the networks.
    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The preprocessing settings.
    pub(crate) fn input(&self) -> &InputParams {
        &self.input
    }

    /// Preprocessing and network at each size, the smallest first.
    pub(crate) fn extractors(&self) -> &[FeatureExtractor] {
        &self.input_stage.extractors
    }

    /// The region of interest in the frame of the smallest size.
    pub(crate) fn region(&self) -> Option<&GrayImage> {
        self.input_stage.region.as_ref()
    }

    /// The most bytes of frames that a fit keeps.
    pub(crate) fn frame_bytes(&self) -> u64 {
        self.input_stage.frame_bytes(&*self.method)
    }

    /// Notes for the user on the sizes and shapes of `samples`.
    pub(crate) fn notes(&self, samples: &[Sample]) -> Vec<String> {
        self.input_stage.notes(&self.input, samples)
    }
}
