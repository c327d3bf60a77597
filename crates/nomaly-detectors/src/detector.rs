//! A method on a backbone, before and after it has seen data.

mod parameters;
mod pooled;
mod preprocessing;
mod seeing;

use std::path::{Path, PathBuf};

use nomaly_backbones::{Backbone, OpenOptions, TapRequest};
use nomaly_data::{Sample, with_changes};
use nomaly_methods::training::Checkpoint;
use nomaly_methods::{
    AnomalyMap, FeatureSource, FitContext, FittedMethod, GroupBy, Groups, HeldOut, METHODS, Method, MethodError,
    Settings, Skipped,
};
use nomaly_store::Progress;
use nomaly_transforms::Pipeline;
use nomaly_transforms::augment::Changes;

pub use self::parameters::COMMON_PARAMETERS;
use self::parameters::of_several_sizes;
pub use self::pooled::PooledRows;
use self::preprocessing::{Shapes, checked_median, keeps_aspect, region_tensor, stored_region};
use self::seeing::Seeing;
use crate::calibration::{Calibration, DEFAULT_MAX_FPR, DecisionRule};
use crate::classes::Classes;
use crate::fusion::{FusedFit, FusedMethod, Fusion, most_maps};
use crate::images::{FeatureExtractor, ImageStream, StreamOptions, Streamed};
use crate::info::{BackboneInfo, DecisionHistory, MethodInfo, ModelInfo, TrainingInfo};
use crate::judge::Judge;
use crate::outcome::{HeldOutImage, Outcome, Prediction};
use crate::shift::{InputProfile, Look};
use crate::stored::{check_backbone, check_networks, check_settings, check_stored};
use crate::suspicion::Suspicious;
use crate::{DetectorError, model_file};

/// A checked method on a backbone with weights: ready to be fitted.
pub struct Detector {
    method: Box<dyn Method>,
    backbone: Backbone,
    /// Those that preprocessing is made of.
    settings: Settings,
    seeing: Seeing,
    checkpoints: Option<PathBuf>,
}

/// How a detector is fitted.
#[derive(Clone, Debug)]
pub struct FitOptions {
    /// Decides every random choice.
    pub seed: u64,
    /// The decision rule that the model starts with.
    pub rule: DecisionRule,
    /// Which images depend on each other.
    pub group_by: GroupBy,
    /// What the model is to bear: changed copies of every image are learned from too, and held out with it.
    pub changes: Changes,
    /// How images are read.
    pub stream: StreamOptions,
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
        }
    }
}

/// How images are scored.
#[derive(Clone, Copy, Debug, Default)]
pub struct PredictOptions {
    /// A decision rule in place of the model's own.
    pub rule: Option<DecisionRule>,
    /// How images are read.
    pub stream: StreamOptions,
}

/// What a fit gives.
pub struct Fit {
    /// The fitted detector.
    pub detector: FittedDetector,
    /// Training images that could not be used.
    pub skipped: Vec<Skipped>,
    /// The held-out scores, in the order of the samples that they belong to.
    pub held_out: Vec<HeldOutImage>,
    /// Samples that were left out because they do not look like the others; see [`suspicion`](crate::suspicion).
    pub dropped: Vec<Suspicious>,
    /// What the user should know of how the fit went: limits that were reached, choices that were made.
    pub notes: Vec<String>,
    /// The checkpoint of a training that has ended. Whoever has the detector in safety
    /// [removes](Self::remove_checkpoint) it, as [`save`](Self::save) does; until then the same fit goes on from it.
    pub checkpoint: Option<Checkpoint>,
}

impl Detector {
    /// Puts a method on a backbone.
    ///
    /// # Errors
    /// Names, settings or weights that are unknown, missing or not valid; the message says which command helps.
    pub fn new(method: &str, backbone: &str, settings: &Settings) -> Result<Self, DetectorError> {
        let entry = METHODS.get(method)?;
        check_settings(entry, settings, COMMON_PARAMETERS)?;
        check_backbone(entry, backbone)?;
        for key in ["roi", "median"] {
            if let Some(given) = settings.get(key).filter(|_| !entry.maps) {
                return Err(DetectorError::setting(key, given, &format!("a method with maps, which {method} has not")));
            }
        }
        let weights = settings.get("weights").map(Into::into);
        let backbone = Backbone::open(backbone, &OpenOptions { weights })?;
        let several = settings.get("sizes").is_some_and(|sizes| sizes.contains(','));
        let settings = &if several { of_several_sizes(entry, settings)? } else { settings.clone() };
        let method = (entry.build)(settings, &backbone)?;
        check_networks(method.name(), &backbone, method.taps())?;
        let sized = settings.get("sizes").is_some();
        let defaults: Vec<_> =
            entry.defaults.iter().copied().filter(|(key, _)| !(sized && *key == "input_size")).collect();
        let settings = settings.clone().or(&defaults);
        // The shape of images is known once there are any; a square shows what is wrong with the settings.
        let seeing = Seeing::of_settings(&*method, &backbone, &settings, 1.0)?;
        Ok(Self { method, backbone, settings, seeing, checkpoints: None })
    }

    /// The same detector for images of the shape that most of `samples` have, where the aspect ratio is kept.
    pub(crate) fn shaped_for(mut self, samples: &[Sample]) -> Result<Self, DetectorError> {
        if keeps_aspect(&self.settings)? {
            let ratio = Shapes::of(samples).ratio();
            let seeing = Seeing::of_settings(&*self.method, &self.backbone, &self.settings, ratio);
            self.seeing = seeing.map_err(|error| match error {
                DetectorError::Method(MethodError::Transform(cause)) => {
                    DetectorError::setting("aspect", "keep", &format!("`squash` for these images, as {cause}"))
                }
                error => error,
            })?;
        }
        Ok(self)
    }

    /// The same detector, whose training keeps checkpoints in `folder`: a fit that was interrupted goes on from the last
    /// one when it is started again with the same images, settings and seed. For methods that train a network; the others
    /// start from the beginning.
    #[must_use]
    pub fn with_checkpoints(mut self, folder: impl Into<PathBuf>) -> Self {
        self.checkpoints = Some(folder.into());
        self
    }

    /// Patches of an image and numbers a patch at each size, where they lie at the positions of `grid=auto`.
    pub(crate) fn patches(&self) -> Vec<(usize, usize)> {
        self.seeing.extractors.iter().map(FeatureExtractor::patches).collect()
    }

    /// The features of `samples` as the method will see them.
    pub(crate) fn stream<'a>(&'a self, samples: &'a [Sample], options: StreamOptions) -> ImageStream<'a> {
        ImageStream::new(&self.seeing.extractors, samples, options)
    }

    /// Learns what is normal from `samples`, all of which are taken to be good whatever their label says.
    ///
    /// `dataset` is the name that the model file remembers.
    ///
    /// # Errors
    /// Too few usable images, cancellation, and a bad image where [`StreamOptions::strict`] is set.
    pub fn fit(
        self,
        dataset: &str,
        samples: &[Sample],
        options: &FitOptions,
        progress: &dyn Progress,
    ) -> Result<Fit, DetectorError> {
        let rule = options.rule.checked()?;
        let shaped = self.shaped_for(samples)?;
        let mut notes = shaped.seeing.notes(&shaped.settings, samples)?;
        let copies = options.changes.0.len();
        let changed;
        let samples = if copies > 0 {
            changed = with_changes(samples, &options.changes);
            &changed
        } else {
            samples
        };
        let images = shaped.stream(samples, options.stream).grouped(&options.group_by).measuring();
        let images = images.caching(shaped.seeing.frame_bytes(&*shaped.method, &shaped.method.settings())?);
        let extractors = &shaped.seeing.extractors;
        let pipelines = shaped.seeing.pipelines();
        let context = FitContext {
            seed: options.seed,
            progress,
            checkpoints: shaped.checkpoints.as_deref(),
            most_maps: (pipelines.len() > 1).then(|| most_maps(&pipelines)),
            occupied: 0,
        };
        let fit_at = |size, occupied| shaped.method.fit(&images.at(size), &FitContext { occupied, ..context });
        let fit = FusedFit::new(&pipelines, None, fit_at, || images.at(0).groups())?;
        notes.extend(fit.notes);
        let input = InputProfile::of(images.looks(), extractors[0].shallowest());
        let Streamed { usable, mut skipped, groups, group_info } = images.into_streamed()?;
        // An image that cannot be read is named once, not with its copies.
        let originals: std::collections::BTreeSet<&str> =
            samples.iter().filter(|sample| !sample.source.is_changed()).map(|sample| sample.id.as_str()).collect();
        skipped.retain(|bad| originals.contains(bad.id.as_str()));
        let calibration = Calibration::of(&fit.held_out, &groups, rule)?;
        // A sample and its copies are one image to the user.
        let of_samples: Vec<usize> = usable.iter().map(|image| image / (1 + copies)).collect();
        let held_out = held_out_images(&fit.held_out, &of_samples, &groups);
        let info = ModelInfo {
            method: MethodInfo { name: shaped.method.name().to_owned(), settings: shaped.method.settings() },
            backbone: BackboneInfo {
                name: shaped.backbone.name().to_owned(),
                licence: shaped.backbone.licence().to_owned(),
                source: shaped.backbone.source().to_owned(),
            },
            pipeline: pipelines[0],
            fusion: fit.fusion,
            median: extractors[0].median(),
            classes: fit.classes.iter().map(|held_out| held_out.class.clone()).collect(),
            decision: rule,
            history: DecisionHistory::default(),
            training: TrainingInfo {
                dataset: dataset.to_owned(),
                images: of_samples.iter().collect::<std::collections::BTreeSet<_>>().len(),
                skipped: skipped.len(),
                seed: options.seed,
                groups: group_info,
                dropped: 0,
            },
            input,
        };
        let classes = if fit.classes.is_empty() { None } else { Some(Classes::new(fit.classes, rule)?) };
        let detector = FittedDetector {
            info,
            calibration,
            classes,
            fitted: fit.fitted,
            backbone: shaped.backbone,
            seeing: shaped.seeing,
        };
        Ok(Fit { detector, skipped, held_out, dropped: Vec::new(), notes, checkpoint: fit.checkpoint })
    }
}

impl Fit {
    /// Writes the model file, and removes the checkpoint of the training once the file is there.
    ///
    /// # Errors
    /// A place that cannot be written to. The checkpoint stays then, and the same fit goes on from the end of its
    /// training.
    pub fn save(&self, path: &Path) -> Result<(), DetectorError> {
        self.detector.save(path)?;
        self.remove_checkpoint();
        Ok(())
    }

    /// Removes the checkpoint of the training, where the detector has served its purpose and needs no file.
    pub fn remove_checkpoint(&self) {
        if let Some(checkpoint) = &self.checkpoint {
            checkpoint.remove();
        }
    }
}

/// Held-out scores with the places of their samples and their groups.
fn held_out_images(held_out: &[HeldOut], usable: &[usize], groups: &Groups) -> Vec<HeldOutImage> {
    let of = |held_out: &HeldOut| HeldOutImage {
        sample: usable[held_out.image],
        group: groups.of()[held_out.image],
        score: held_out.score,
    };
    held_out.iter().map(of).collect()
}

/// A detector that has learned what is normal.
pub struct FittedDetector {
    info: ModelInfo,
    calibration: Calibration,
    /// Present where the method tells classes apart.
    classes: Option<Classes>,
    /// One for each size.
    fitted: Vec<Box<dyn FittedMethod>>,
    backbone: Backbone,
    seeing: Seeing,
}

impl FittedDetector {
    /// What it is made of and what it was fitted on.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Its decision rule and held-out scores. A model of classes decides by its [classes](Self::classes); this holds the
    /// held-out scores under the closest class then.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// The classes that it knows, with the decision for each; `None` for models of normal images alone.
    pub fn classes(&self) -> Option<&Classes> {
        self.classes.as_ref()
    }

    /// Its classes under the rule that `options` ask for.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn classes_for(&self, options: &PredictOptions) -> Result<Option<Classes>, DetectorError> {
        let with_rule =
            |classes: &Classes| options.rule.map_or_else(|| Ok(classes.clone()), |rule| classes.with_rule(rule));
        self.classes.as_ref().map(with_rule).transpose()
    }

    /// Its calibration under the rule that `options` ask for.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn calibration_for(&self, options: &PredictOptions) -> Result<Calibration, DetectorError> {
        options.rule.map_or_else(|| Ok(self.calibration.clone()), |rule| self.calibration.with_rule(rule))
    }

    /// Names of the [parts](Prediction::parts) of a score; the sizes, where images are seen at several.
    pub fn part_names(&self) -> Vec<String> {
        self.info.fusion.as_ref().map_or_else(|| self.fitted[0].part_names(), Fusion::part_names)
    }

    /// Whether predictions have a [deviation](Prediction::deviation).
    pub fn scores_vary(&self) -> bool {
        self.info.fusion.is_none() && self.fitted[0].scores_vary()
    }

    /// Names of the [terms](Prediction::terms) of a score.
    pub fn term_names(&self) -> Vec<String> {
        if self.info.fusion.is_some() { Vec::new() } else { self.fitted[0].term_names() }
    }

    /// Scores `samples` in order and hands each outcome to `sink`.
    ///
    /// An image that cannot be used is an outcome too, unless [`StreamOptions::strict`] makes it an error. So is one
    /// whose score, or a value of whose map, is not a finite number: it is [`Skipped`] with the kind
    /// `non-finite-score`.
    ///
    /// # Errors
    /// Whatever `sink` fails with, cancellation, and a bad image where the options are strict.
    pub fn predict(
        &self,
        samples: &[Sample],
        options: &PredictOptions,
        progress: &dyn Progress,
        sink: impl FnMut(Outcome<'_>) -> Result<(), DetectorError> + Send,
    ) -> Result<(), DetectorError> {
        self.predict_grouped(samples, &GroupBy::None, options, progress, sink).map(drop)
    }

    /// As [`predict`](Self::predict); says which images could be read, and which of them depend on each other.
    /// `sink` may fail with an error of its own.
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
        let judge = Judge {
            fused: self.fused(),
            calibration: self.calibration_for(options)?,
            classes: self.classes_for(options)?,
        };
        let images = self.stream(samples, options.stream).grouped(group_by).measuring();
        images.run_noting(progress, "scoring images", &mut |batch| -> Result<(), E> {
            let judged = judge.batch(&batch.features)?;
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

    /// How the training images looked; `None` for models of programs that did not keep it.
    pub fn input_profile(&self) -> Option<&InputProfile> {
        self.info.input.as_ref()
    }

    /// Looks at `samples` as [`predict`](Self::predict) does, without scoring them, and hands each to `sink`: how it
    /// looks, or why it cannot be read.
    ///
    /// # Errors
    /// Whatever `sink` fails with, cancellation, and a bad image where the options are strict.
    pub fn look_at(
        &self,
        samples: &[Sample],
        options: StreamOptions,
        progress: &dyn Progress,
        mut sink: impl FnMut(&Sample, Result<Look, Skipped>) -> Result<(), DetectorError> + Send,
    ) -> Result<(), DetectorError> {
        let images = ImageStream::new(&self.seeing.extractors[..1], samples, options).measuring();
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

    /// Lays a map of the [frame](nomaly_transforms::Pipeline::frame_size) over an image of `width` × `height` pixels.
    /// Pixels that the frame leaves out (around a centre crop) get the smallest value of the map.
    ///
    /// # Errors
    /// An image without pixels.
    pub fn map_on_image(&self, map: &AnomalyMap, (width, height): (u32, u32)) -> Result<AnomalyMap, DetectorError> {
        let footprint = self.pipeline().footprint((width, height))?;
        Ok(map.placed(footprint, height as usize, width as usize)?)
    }

    /// The preprocessing; of the smallest size, where images are seen at several.
    pub fn pipeline(&self) -> &Pipeline {
        &self.info.pipeline
    }

    /// The fitted method, the backbone, and the taps of it that the method looks at; at the smallest size, where there
    /// are several.
    pub(crate) fn parts(&self) -> (&dyn FittedMethod, &Backbone, &[TapRequest]) {
        (&*self.fitted[0], &self.backbone, self.seeing.extractors[0].taps())
    }

    /// The method at all sizes.
    pub(crate) fn fused(&self) -> FusedMethod<'_> {
        let fusion = self.info.fusion.as_ref();
        FusedMethod { fitted: &self.fitted, extractors: &self.seeing.extractors, fusion }
    }

    /// The features of `samples` at all sizes.
    pub(crate) fn stream<'a>(&'a self, samples: &'a [Sample], options: StreamOptions) -> ImageStream<'a> {
        ImageStream::new(&self.seeing.extractors, samples, options)
    }

    /// The same detector, having learned from `samples` too.
    ///
    /// Their held-out scores join those that are there; their groups, made by `group_by`, count as further ones.
    ///
    /// # Errors
    /// [`MethodError::NotExtendable`], and everything that [`fit`](Detector::fit) fails with.
    pub fn extend(
        self,
        samples: &[Sample],
        group_by: &GroupBy,
        options: StreamOptions,
        progress: &dyn Progress,
    ) -> Result<Fit, DetectorError> {
        let Self { mut info, calibration, classes, fitted, backbone, seeing } = self;
        let method = (METHODS.get(&info.method.name)?.build)(&info.method.settings, &backbone)?;
        let extractors = &seeing.extractors;
        let images = ImageStream::new(extractors, samples, options).grouped(group_by).measuring();
        let pipelines = seeing.pipelines();
        let several = pipelines.len() > 1;
        let images =
            if several { images.caching(seeing.frame_bytes(&*method, &info.method.settings)?) } else { images };
        let most_maps = several.then(|| most_maps(&pipelines));
        let context = FitContext { most_maps, ..FitContext::new(info.training.seed, progress) };
        let mut states: Vec<_> = fitted.iter().map(|fitted| fitted.states()).collect();
        drop(fitted);
        let extend_at = |size: usize, occupied| {
            let context = FitContext { occupied, ..context };
            method.extend(std::mem::take(&mut states[size]), &images.at(size), &context)
        };
        let fit = FusedFit::new(&pipelines, info.fusion.take(), extend_at, || images.at(0).groups())?;
        info.fusion = fit.fusion;
        info.input = info.input.and_then(|input| input.joined(images.looks()));
        let Streamed { usable, skipped, groups, group_info } = images.into_streamed()?;
        info.training.images += fit.images;
        info.training.skipped += skipped.len();
        info.training.groups.count += groups.count();
        info.training.groups.how = info.training.groups.how.or(group_info.how);
        let more = Calibration::of(&fit.held_out, &groups, calibration.rule())?;
        let calibration = calibration.joined(&more)?;
        let held_out = held_out_images(&fit.held_out, &usable, &groups);
        let detector = Self { info, calibration, classes, fitted: fit.fitted, backbone, seeing };
        Ok(Fit { detector, skipped, held_out, dropped: Vec::new(), notes: fit.notes, checkpoint: fit.checkpoint })
    }

    pub(crate) fn info_mut(&mut self) -> &mut ModelInfo {
        &mut self.info
    }

    pub(crate) fn set_calibration(&mut self, calibration: Calibration, classes: Option<Classes>) {
        self.calibration = calibration;
        self.classes = classes;
    }

    /// Notes how many images were left out of the training because they do not look like the others.
    pub(crate) fn dropped(&mut self, images: usize) {
        self.info.training.dropped = images;
    }

    /// Writes the model file, atomically.
    ///
    /// # Errors
    /// A place that cannot be written to.
    pub fn save(&self, path: &Path) -> Result<(), DetectorError> {
        let taps: Vec<&str> = self.seeing.extractors[0].taps().iter().map(|tap| tap.name.as_str()).collect();
        let states = self.fitted.iter().map(|fitted| fitted.states()).collect();
        model_file::write(
            path,
            &self.info,
            &model_file::joined_states(states),
            model_file::HeldOutScores { calibration: &self.calibration, classes: self.classes.as_ref() },
            self.seeing.region.as_ref().map(region_tensor).as_ref(),
            &self.backbone.export(&taps)?,
        )
    }

    /// Reads a model file; nothing in it is executed, and everything in it is checked.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or comes from a version that this one does not know.
    pub fn load(path: &Path) -> Result<Self, DetectorError> {
        let parts = model_file::read(path)?;
        let refuse = |error: DetectorError| match error {
            // A fault of the machine or of the environment is not one of the file.
            DetectorError::Method(MethodError::Isa(_)) => error,
            error => DetectorError::ModelFile { path: path.to_owned(), reason: error.to_string() },
        };
        let calibration = parts.held_out.calibration(parts.info.decision).map_err(refuse)?;
        let classes =
            model_file::stored_classes(&parts.info.classes, parts.class_scores, parts.info.decision).map_err(refuse)?;
        let info = parts.info;
        let backbone =
            Backbone::from_tensors(&info.backbone.name, parts.backbone).map_err(|error| refuse(error.into()))?;
        let build = || -> Result<_, DetectorError> {
            let entry = METHODS.get(&info.method.name)?;
            check_stored(&info, entry)?;
            let method = (entry.build)(&info.method.settings, &backbone)?;
            let pipelines = match &info.fusion {
                Some(fusion) => fusion.sizes.iter().map(|size| size.pipeline).collect(),
                None => vec![info.pipeline],
            };
            let region = parts.region.map(|region| stored_region(&region, &info.pipeline)).transpose()?;
            let seeing = Seeing::new(&*method, &backbone, &pipelines, region, checked_median(info.median)?)?;
            let states = model_file::split_states(parts.states, pipelines.len())?;
            let fitted: Vec<_> =
                states.into_iter().map(|states| method.restore(states)).collect::<Result<_, MethodError>>()?;
            model_file::check_classes(fitted[0].classes(), &info.classes)?;
            Ok((seeing, fitted))
        };
        let (seeing, fitted) = build().map_err(refuse)?;
        Ok(Self { info, calibration, classes, fitted, backbone, seeing })
    }
}
