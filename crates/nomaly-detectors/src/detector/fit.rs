//! Detectors before they are fitted, and the result of a fit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nomaly_backbones::{Backbone, OpenOptions};
use nomaly_data::{Sample, with_changes};
use nomaly_methods::groups::GroupInfo;
use nomaly_methods::training::Checkpoint;
use nomaly_methods::{
    Aspect, FeatureSource, FitContext, GroupBy, InputParams, METHODS, Method, MethodError, Sees, Skipped,
};
use nomaly_nn::runtime::Executor;
use nomaly_settings::{Assignments, Auto, Settings, SettingsTable};
use nomaly_store::Progress;
use nomaly_transforms::augment::Changes;

use super::fitted::{FittedDetector, ForImages};
use super::input_stage::InputStage;
use super::preprocessing::Shapes;
use super::several_sizes::of_several_sizes;
use super::training::{Training, held_out_images};
use crate::calibration::{Calibration, DEFAULT_MAX_FPR, DecisionRule};
use crate::error::DetectorError;
use crate::fusion::{FusedFit, most_maps};
use crate::images::{FeatureExtractor, ImageStream, StreamOptions, Streamed};
use crate::outcome::HeldOutImage;
use crate::shift::InputProfile;
use crate::stored::{check_backbone, check_names, check_networks};
use crate::suspicion::Suspicious;

/// A checked method on a backbone with weights: ready to be fitted.
pub struct Detector {
    pub(super) method: Box<dyn Method>,
    pub(super) backbone: Backbone,
    pub(super) input: InputParams,
    pub(super) input_stage: InputStage,
    pub(super) checkpoints: Option<PathBuf>,
    pub(super) executor: Executor,
}

/// Options of a fit.
#[derive(Clone, Debug)]
pub struct FitOptions {
    /// Seeds every random choice.
    pub seed: u64,
    /// The decision rule of the model.
    pub rule: DecisionRule,
    /// The rule that groups dependent images.
    pub group_by: GroupBy,
    /// Changes to tolerate: changed copies of every image are training images too, and held out with it.
    pub changes: Changes,
    /// Image options.
    pub stream: StreamOptions,
    /// Whether to keep the state that [updates](FittedDetector::extend) need, for methods that would not otherwise.
    pub updatable: bool,
}

impl Default for FitOptions {
    fn default() -> Self {
        let rule = DecisionRule::MaxFpr(DEFAULT_MAX_FPR);
        Self {
            seed: 0,
            rule,
            group_by: GroupBy::default(),
            changes: Changes::default(),
            stream: StreamOptions::default(),
            updatable: false,
        }
    }
}

/// The result of a fit.
pub struct FitResult {
    /// The fitted detector.
    pub detector: FittedDetector,
    /// Unusable training images.
    pub skipped: Vec<Skipped>,
    /// The held-out scores, in the order of their samples.
    pub held_out: Vec<HeldOutImage>,
    /// Samples dropped as suspicious; see [`suspicion`](crate::suspicion).
    pub dropped: Vec<Suspicious>,
    /// Notes for the user: limits that were reached, choices that were made.
    pub notes: Vec<String>,
    /// Findings about the images that may make the model worse than it seems.
    pub warnings: Vec<String>,
    /// The checkpoint of the finished training. [`save`](Self::save) removes it; callers that keep the detector
    /// otherwise call [`remove_checkpoint`](Self::remove_checkpoint). Until then the same fit resumes from it.
    pub checkpoint: Option<Checkpoint>,
}

impl Detector {
    /// Builds a method on a backbone, to run on the processor. Methods that see pixels take the name `pixels`.
    ///
    /// # Errors
    /// Unknown, missing or invalid names, settings or weights; the message names the command that helps.
    pub fn new(method: &str, backbone: &str, settings: &Assignments) -> Result<Self, DetectorError> {
        Self::new_on(method, backbone, settings, &Executor::cpu()?)
    }

    /// Builds a method on a backbone, whose networks run on `executor`.
    ///
    /// # Errors
    /// As [`new`](Self::new), and if the device fails.
    pub fn new_on(
        method: &str,
        backbone: &str,
        settings: &Assignments,
        executor: &Executor,
    ) -> Result<Self, DetectorError> {
        let entry = METHODS.get(method)?;
        let common = SettingsTable::of::<InputParams>();
        check_names(entry, settings, &common)?;
        check_backbone(entry, backbone)?;
        let (for_input, own) = settings.split(&common);
        for name in ["roi", "median"] {
            if let Some(given) = for_input.text(name).filter(|_| !entry.maps) {
                return Err(DetectorError::setting(
                    name,
                    &given,
                    &format!("a method with maps, which {method} has not"),
                ));
            }
        }
        let mut usual = (entry.input)();
        if for_input.contains("sizes") {
            usual.input_size = Auto::Auto;
        }
        let input = for_input.read_over(&usual)?;
        let weights = input.weights.as_ref().map(Into::into);
        let backbone = match entry.sees {
            Sees::Pixels if weights.is_some() => {
                let given = input.weights.as_ref().map_or("", String::as_str);
                let allowed = format!("`auto` for {method}, which sees pixels");
                return Err(DetectorError::setting("weights", given, &allowed));
            }
            Sees::Pixels => Backbone::pixels(),
            Sees::Taps => Backbone::open(backbone, &OpenOptions { weights })?,
        };
        let own = match &input.sizes {
            Some(sizes) if sizes.len() > 1 => of_several_sizes(entry, sizes, &own)?,
            _ => own,
        };
        let method = (entry.build)(&own, &backbone)?;
        check_networks(method.name(), &backbone, method.taps())?;
        // The shape of images is not known yet; a square suffices to check the settings.
        let input_stage = InputStage::of_input(&*method, &backbone, &input, 1.0, executor)?;
        Ok(Self { method, backbone, input, input_stage, checkpoints: None, executor: executor.clone() })
    }

    /// Builds a method outside the registry on a backbone. Its models can score and be saved, but only models of
    /// registered methods can be loaded.
    ///
    /// # Errors
    /// As [`new_on`](Self::new_on).
    pub fn of(
        method: Box<dyn Method>,
        backbone: &str,
        input: &InputParams,
        executor: &Executor,
    ) -> Result<Self, DetectorError> {
        input.check()?;
        let weights = input.weights.as_ref().map(Into::into);
        Self::on(method, Backbone::open(backbone, &OpenOptions { weights })?, input, executor)
    }

    /// Builds a method outside the registry that sees nothing but pixels, in [0, 1]. As [`of`](Self::of) otherwise.
    ///
    /// # Errors
    /// As [`new`](Self::new), and for taps of a network.
    pub fn of_pixels(method: Box<dyn Method>, input: &InputParams, executor: &Executor) -> Result<Self, DetectorError> {
        input.check()?;
        Self::on(method, Backbone::pixels(), input, executor)
    }

    fn on(
        method: Box<dyn Method>,
        backbone: Backbone,
        input: &InputParams,
        executor: &Executor,
    ) -> Result<Self, DetectorError> {
        check_networks(method.name(), &backbone, method.taps())?;
        let input_stage = InputStage::of_input(&*method, &backbone, input, 1.0, executor)?;
        let (input, executor) = (input.clone(), executor.clone());
        Ok(Self { method, backbone, input, input_stage, checkpoints: None, executor })
    }

    /// Adapts the detector to the median aspect ratio of `samples`, if the aspect ratio is kept.
    pub(crate) fn shaped_for(mut self, samples: &[Sample]) -> Result<Self, DetectorError> {
        if self.input.aspect == Aspect::Keep {
            let ratio = Shapes::of(samples).ratio();
            let input_stage = InputStage::of_input(&*self.method, &self.backbone, &self.input, ratio, &self.executor);
            self.input_stage = input_stage.map_err(|error| match error {
                DetectorError::Method(MethodError::Transform(cause)) => {
                    DetectorError::setting("aspect", "keep", &format!("`squash` for these images, as {cause}"))
                }
                error => error,
            })?;
        }
        Ok(self)
    }

    /// Keeps checkpoints of the training in `folder`. An interrupted fit resumes from the last one when it is started
    /// again with the same images, settings and seed. Only affects methods that train a network.
    #[must_use]
    pub fn with_checkpoints(mut self, folder: impl Into<PathBuf>) -> Self {
        self.checkpoints = Some(folder.into());
        self
    }

    /// Patches per image and values per patch with `grid=auto`, at each size.
    pub(crate) fn patches(&self) -> Vec<(usize, usize)> {
        self.input_stage.extractors.iter().map(FeatureExtractor::patches).collect()
    }

    /// The features of `samples` for the method.
    pub(crate) fn stream<'a>(&'a self, samples: &'a [Sample], options: StreamOptions) -> ImageStream<'a> {
        ImageStream::new(&self.input_stage.extractors, samples, options)
    }

    /// Fits the method on `samples`, all treated as good regardless of their labels.
    ///
    /// `dataset` is their name in the model file.
    ///
    /// # Errors
    /// Too few usable images, cancellation, an unusable image with [`StreamOptions::strict`], and
    /// [`MethodError::NotExtendable`] for an [updatable](FitOptions::updatable) model of a method without updates.
    pub fn fit(
        self,
        dataset: &str,
        samples: &[Sample],
        options: &FitOptions,
        progress: &dyn Progress,
    ) -> Result<FitResult, DetectorError> {
        let rule = options.rule.checked()?;
        self.check_updates(options.updatable)?;
        let shaped = self.shaped_for(samples)?;
        let notes = shaped.notes(samples);
        let copies = options.changes.0.len();
        let changed;
        let samples = if copies > 0 {
            changed = with_changes(samples, &options.changes);
            &changed
        } else {
            samples
        };
        let images = shaped.stream(samples, options.stream).grouped(&options.group_by).measuring();
        let images = images.caching(shaped.frame_bytes());
        let fit_at = |size, context: &FitContext<'_>| shaped.method.fit(&images.at(size), context);
        let fit = shaped.learn(options.seed, options.updatable, progress, &fit_at, || images.at(0).groups())?;
        let input = InputProfile::of(images.looks(), shaped.extractors()[0].shallowest());
        let mut streamed = images.into_streamed()?;
        // An unreadable image is named once, without its copies.
        let originals: BTreeSet<&str> =
            samples.iter().filter(|sample| !sample.source.is_changed()).map(|sample| sample.id.as_str()).collect();
        streamed.skipped.retain(|bad| originals.contains(bad.id.as_str()));
        let dataset = dataset.to_owned();
        shaped.fitted(fit, Training { dataset, seed: options.seed, rule, copies, streamed, input, notes })
    }
}

impl FitResult {
    /// Writes the model file, then removes the checkpoint of the training.
    ///
    /// # Errors
    /// A path that cannot be written. The checkpoint then remains, and the same fit resumes from the end of its
    /// training.
    pub fn save(&self, path: &Path) -> Result<(), DetectorError> {
        self.detector.save(path)?;
        self.remove_checkpoint();
        Ok(())
    }

    /// Removes the checkpoint of the training, for detectors that are not saved.
    pub fn remove_checkpoint(&self) {
        if let Some(checkpoint) = &self.checkpoint {
            checkpoint.remove();
        }
    }
}

impl FittedDetector {
    /// Updates the detector with `samples`.
    ///
    /// Their held-out scores are added to the existing ones; their groups, made by `group_by`, count as new ones. The
    /// model's own rule is [`group_by`](Self::group_by).
    ///
    /// # Errors
    /// [`MethodError::NotExtendable`], [`MethodError::NotUpdatable`], and the errors of [`fit`](Detector::fit).
    pub fn extend(
        self,
        samples: &[Sample],
        group_by: &GroupBy,
        options: StreamOptions,
        progress: &dyn Progress,
    ) -> Result<FitResult, DetectorError> {
        let Self { mut info, decider, model } = self;
        let ForImages { fitted, backbone, input_stage, executor } = model;
        let method = (METHODS.get(&info.method.name)?.build)(&info.method.settings, &backbone)?;
        let extractors = &input_stage.extractors;
        let images = ImageStream::new(extractors, samples, options).grouped(group_by).measuring();
        let pipelines = input_stage.pipelines();
        let several = pipelines.len() > 1;
        let images = if several { images.caching(input_stage.frame_bytes(&*method)) } else { images };
        let most_maps = several.then(|| most_maps(&pipelines));
        let context = FitContext { most_maps, ..FitContext::new(info.training.seed, progress, &executor) };
        let mut states: Vec<_> = fitted.iter().map(|fitted| fitted.states()).collect();
        drop(fitted);
        let extend_at = |size: usize, occupied| {
            let context = FitContext { occupied, ..context };
            method.extend(std::mem::take(&mut states[size]), &images.at(size), &context)
        };
        let fit = FusedFit::new(&pipelines, info.fusion.take(), extend_at, || images.at(0).groups())?;
        info.fusion = fit.fusion;
        let known = info.input.as_ref().map_or(0, |input| input.count_known(images.looks()));
        let warnings = (known > 0).then(|| warning_of_known(known, images.looks().len())).into_iter().collect();
        info.input = info.input.and_then(|input| input.joined(images.looks()));
        let Streamed { usable, skipped, groups, group_info } = images.into_streamed()?;
        info.training.images += fit.images;
        info.training.skipped += skipped.len();
        info.training.groups = joined_groups(info.training.groups, group_info);
        let more = Calibration::of(&fit.held_out, &groups, decider.calibration().rule())?;
        let decider = decider.joined(&more)?;
        let held_out = held_out_images(&fit.held_out, &usable, &groups);
        let detector = Self { info, decider, model: ForImages { fitted: fit.fitted, backbone, input_stage, executor } };
        let (dropped, notes, checkpoint) = (Vec::new(), fit.notes, fit.checkpoint);
        Ok(FitResult { detector, skipped, held_out, dropped, notes, warnings, checkpoint })
    }
}

/// The warning about images that the model has learned from before.
fn warning_of_known(known: usize, images: usize) -> String {
    format!(
        "{known} of the {images} images look exactly like images that the model has already learned from: they count \
         twice, and their scores lower the threshold"
    )
}

/// The groups of a model with those of an update, which may have another rule.
fn joined_groups(groups: GroupInfo, more: GroupInfo) -> GroupInfo {
    let count = groups.count + more.count;
    let how = if more.by == groups.by {
        groups.how.or(more.how)
    } else {
        let new = format!("images of an update by `{}`", more.by);
        match (groups.how, more.how) {
            (Some(how), _) if how.contains(&new) => Some(how),
            (Some(how), _) => Some(format!("{how}; {new}")),
            (None, Some(how)) => Some(format!("{new}: {how}")),
            (None, None) => None,
        }
    };
    GroupInfo { by: groups.by, count, how }
}
