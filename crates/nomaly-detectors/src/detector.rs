//! A method on a backbone, before and after it has seen data.

use std::path::Path;

use image::RgbImage;
use nomaly_backbones::{Backbone, OpenOptions};
use nomaly_data::Sample;
use nomaly_store::Progress;
use nomaly_transforms::{CenterCrop, Filter, Normalize, Pipeline, Resize, ResizeMode};
use serde::Serialize;

use crate::calibration::{Calibration, DEFAULT_MAX_FPR, DecisionRule};
use crate::features::{FeatureExtractor, StreamOptions};
use crate::method::{FittedMethod, Method};
use crate::model_file::{self, BackboneInfo, MethodInfo, ModelInfo, TrainingInfo};
use crate::{DetectorError, METHODS, Parameter, Settings};

/// The settings that every method understands besides its own.
pub const COMMON_PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "weights",
        default: "the embedded or the cached file",
        values: "the path of a safetensors, .pth or .pt file",
        summary: "weights of the backbone",
    },
    Parameter {
        name: "input_size",
        default: "the backbone's own",
        values: "a number of pixels from 32 to 2048",
        summary: "height and width of the network's input",
    },
    Parameter {
        name: "interpolation",
        default: "bilinear",
        values: "`bilinear` or `bicubic`",
        summary: "how images are resized, antialiased; bilinear is what the methods' papers use",
    },
    Parameter {
        name: "view",
        default: "whole",
        values: "`whole` or `center`",
        summary: "resize the whole image, or resize its short side and crop the centre as the backbone was trained",
    },
];

/// A checked method on a backbone with weights: ready to be fitted.
pub struct Detector {
    method: Box<dyn Method>,
    backbone: Backbone,
    extractor: FeatureExtractor,
}

/// How a detector is fitted.
#[derive(Clone, Copy, Debug)]
pub struct FitOptions {
    /// Decides every random choice.
    pub seed: u64,
    /// The decision rule that the model starts with.
    pub rule: DecisionRule,
    /// How images are read.
    pub stream: StreamOptions,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self { seed: 0, rule: DecisionRule::MaxFpr(DEFAULT_MAX_FPR), stream: StreamOptions::default() }
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
}

/// An image that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The image.
    pub id: String,
    /// What is wrong, as one word for programs: `not-found`, `truncated`, …
    pub kind: String,
    /// What is wrong, for people.
    pub message: String,
}

/// What a fitted detector says of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The anomaly score, *higher = more anomalous*; its scale belongs to the method.
    pub score: f64,
    /// The conformal p-value in (0, 1]: the share of held-out normal images that score at least as high.
    pub p_value: f64,
    /// The decision.
    pub anomalous: bool,
    /// Scores of the parts that the score is made of, in the order of [`FittedDetector::part_names`].
    #[serde(skip)]
    pub parts: Vec<f64>,
}

/// One image of a run over many.
pub struct Outcome<'a> {
    /// The image.
    pub sample: &'a Sample,
    /// The number of the batch it was in.
    pub batch: usize,
    /// What the detector says, or why it cannot.
    pub result: Result<Prediction, Skipped>,
    /// A small version of the decoded image, where [`StreamOptions::preview`] asks for one.
    pub preview: Option<RgbImage>,
}

impl Detector {
    /// Puts a method on a backbone.
    ///
    /// # Errors
    /// Names, settings or weights that are unknown, missing or not valid; the message says which command helps.
    pub fn new(method: &str, backbone: &str, settings: &Settings) -> Result<Self, DetectorError> {
        let entry = METHODS.get(method)?;
        settings.check_known(&[entry.parameters, COMMON_PARAMETERS])?;
        let weights = settings.get("weights").map(Into::into);
        let backbone = Backbone::open(backbone, &OpenOptions { weights })?;
        let pipeline = pipeline(settings, &backbone)?;
        let method = (entry.build)(settings, &backbone)?;
        let extractor = FeatureExtractor::new(&backbone, pipeline, method.taps())?;
        Ok(Self { method, backbone, extractor })
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
        let images = self.extractor.stream(samples, options.stream);
        let fit = self.method.fit(&images, options.seed, progress)?;
        let skipped = images.into_skipped();
        let info = ModelInfo {
            method: MethodInfo { name: self.method.name().to_owned(), settings: self.method.settings() },
            backbone: BackboneInfo {
                name: self.backbone.name().to_owned(),
                licence: self.backbone.licence().to_owned(),
                source: self.backbone.source().to_owned(),
            },
            pipeline: *self.extractor.pipeline(),
            decision: rule,
            training: TrainingInfo {
                dataset: dataset.to_owned(),
                images: fit.held_out.len(),
                skipped: skipped.len(),
                seed: options.seed,
            },
        };
        let detector = FittedDetector {
            info,
            calibration: Calibration::new(fit.held_out, rule)?,
            fitted: fit.fitted,
            backbone: self.backbone,
            extractor: self.extractor,
        };
        Ok(Fit { detector, skipped })
    }
}

/// The preprocessing that the settings ask for.
fn pipeline(settings: &Settings, backbone: &Backbone) -> Result<Pipeline, DetectorError> {
    let native = backbone.preprocessing();
    let allowed = "a number of pixels from 32 to 2048";
    let size: u32 = settings.value("input_size", native.input_size as u32, allowed)?;
    if !(32..=2048).contains(&size) {
        return Err(DetectorError::setting("input_size", &size.to_string(), allowed));
    }
    let (mode, crop) = match settings.get("view").unwrap_or("whole") {
        "whole" => (ResizeMode::Exact { height: size, width: size }, None),
        "center" => {
            let short_side = (native.resize_short_side * size as usize).div_ceil(native.input_size);
            (ResizeMode::ShortSide(short_side as u32), Some(CenterCrop { height: size, width: size }))
        }
        other => return Err(DetectorError::setting("view", other, "`whole` or `center`")),
    };
    let filter = match settings.get("interpolation").unwrap_or("bilinear") {
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        other => return Err(DetectorError::setting("interpolation", other, "`bilinear` or `bicubic`")),
    };
    let normalize = Normalize { mean: native.mean, std: native.std };
    Ok(Pipeline::new(Resize { mode, filter }, crop, normalize)?)
}

/// A detector that has learned what is normal.
pub struct FittedDetector {
    info: ModelInfo,
    calibration: Calibration,
    fitted: Box<dyn FittedMethod>,
    backbone: Backbone,
    extractor: FeatureExtractor,
}

impl FittedDetector {
    /// What it is made of and what it was fitted on.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Its decision rule and held-out scores.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// Its calibration under the rule that `options` ask for.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn calibration_for(&self, options: &PredictOptions) -> Result<Calibration, DetectorError> {
        options.rule.map_or_else(|| Ok(self.calibration.clone()), |rule| self.calibration.with_rule(rule))
    }

    /// Names of the [parts](Prediction::parts) of a score.
    pub fn part_names(&self) -> Vec<String> {
        self.fitted.part_names()
    }

    /// Scores `samples` in order and hands each outcome to `sink`.
    ///
    /// An image that cannot be used is an outcome too, unless [`StreamOptions::strict`] makes it an error.
    ///
    /// # Errors
    /// Whatever `sink` fails with, cancellation, and a bad image where the options are strict.
    pub fn predict(
        &self,
        samples: &[Sample],
        options: &PredictOptions,
        progress: &dyn Progress,
        mut sink: impl FnMut(Outcome<'_>) -> Result<(), DetectorError> + Send,
    ) -> Result<(), DetectorError> {
        let calibration = self.calibration_for(options)?;
        let images = self.extractor.stream(samples, options.stream);
        images.run(progress, "scoring images", &mut |batch| {
            let mut scores = match &batch.features {
                Some(features) => self.fitted.score(features)?,
                None => Vec::new(),
            }
            .into_iter();
            for image in batch.images {
                let result = match image.failure {
                    Some(skipped) => Err(skipped),
                    None => {
                        let scored = scores.next().expect("a method scores every image of a batch");
                        Ok(Prediction {
                            p_value: calibration.p_value(scored.score),
                            anomalous: calibration.is_anomalous(scored.score),
                            score: scored.score,
                            parts: scored.parts,
                        })
                    }
                };
                sink(Outcome { sample: &samples[image.index], batch: batch.number, result, preview: image.preview })?;
            }
            Ok(())
        })
    }

    /// Writes the model file, atomically.
    ///
    /// # Errors
    /// A place that cannot be written to.
    pub fn save(&self, path: &Path) -> Result<(), DetectorError> {
        let taps: Vec<&str> = self.extractor.taps().iter().map(|tap| tap.name.as_str()).collect();
        let bytes = model_file::encode(
            &self.info,
            &self.fitted.states(),
            self.calibration.held_out(),
            &self.backbone.export(&taps)?,
        )?;
        Ok(nomaly_store::write_atomic(path, &bytes)?)
    }

    /// Reads a model file; nothing in it is executed, and everything in it is checked.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or comes from a version that this one does not know.
    pub fn load(path: &Path) -> Result<Self, DetectorError> {
        let parts = model_file::read(path)?;
        let refuse = |error: DetectorError| match error {
            // A fault of the machine or of the environment is not one of the file.
            DetectorError::Isa(_) => error,
            error => DetectorError::ModelFile { path: path.to_owned(), reason: error.to_string() },
        };
        let info = parts.info;
        let backbone =
            Backbone::from_tensors(&info.backbone.name, parts.backbone).map_err(|error| refuse(error.into()))?;
        let build = || -> Result<_, DetectorError> {
            let method = (METHODS.get(&info.method.name)?.build)(&info.method.settings, &backbone)?;
            let extractor = FeatureExtractor::new(&backbone, info.pipeline, method.taps())?;
            let fitted = method.restore(&parts.states)?;
            let calibration = Calibration::new(parts.held_out, info.decision)?;
            Ok((extractor, fitted, calibration))
        };
        let (extractor, fitted, calibration) = build().map_err(refuse)?;
        Ok(Self { info, calibration, fitted, backbone, extractor })
    }
}
