//! Sessions score images one by one and reuse memory between them.
//!
//! [`predict`](FittedDetector::predict) is for many images at once: it reads ahead and decodes in parallel. A
//! [`Session`] is for a program that needs a result for one image at once: a camera loop or a service. Its results
//! equal those of `predict`, bit for bit.

use std::ops::Deref;
use std::sync::Arc;

use image::RgbImage;
use nomaly_data::DataError;
use nomaly_methods::{FeatureBatch, MethodError, MethodWorkspace, Skipped};
use nomaly_transforms::statistics::ImageStatistics;
use nomaly_transforms::{FileFacts, Limits, decode_bytes_with_facts};
use nomaly_wire::Region;

use crate::calibration::DecisionRule;
use crate::decider::Decider;
use crate::detector::FittedDetector;
use crate::error::DetectorError;
use crate::images::{FeatureExtractor, NetworkMemory};
use crate::judge::Judge;
use crate::outcome::Prediction;
use crate::regions::RegionOptions;
use crate::shift::{Look, pooled};

/// Options of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// A decision rule in place of the model's own.
    pub rule: Option<DecisionRule>,
    /// Views per run of the network, at least 1. Affects memory, not the result.
    pub batch: usize,
    /// Limits of encoded images.
    pub limits: Limits,
    /// Options of regions, for methods with maps.
    pub regions: RegionOptions,
    /// Whether to check images for shifts against the training images.
    pub shift: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self { rule: None, batch: 8, limits: Limits::default(), regions: RegionOptions::default(), shift: true }
    }
}

/// The result for an image. Dereferences to its [`Prediction`].
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Score, p-value, decision and map.
    pub prediction: Prediction,
    /// Width and height of the image in pixels.
    pub size: (u32, u32),
    /// The class, `unknown` or `undecided`, for models of classes.
    pub label: Option<String>,
    /// The regions above the pixel threshold, in pixels of the image, for models with maps and such a threshold.
    pub regions: Option<Vec<Region>>,
}

impl Deref for Verdict {
    type Target = Prediction;

    fn deref(&self) -> &Prediction {
        &self.prediction
    }
}

/// A detector with memory for scoring. Each scoring thread needs its own; sessions of one detector share its weights.
pub struct Session {
    detector: Arc<FittedDetector>,
    options: SessionOptions,
    decider: Decider,
    /// One per size.
    memories: Vec<NetworkMemory>,
    /// The method's workspace at each size.
    workspaces: Vec<MethodWorkspace>,
    /// The network's inputs at each size.
    inputs: Vec<Vec<f32>>,
}

impl FittedDetector {
    /// A session that scores single images or small batches.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn session(self, options: SessionOptions) -> Result<Session, DetectorError> {
        Session::new(Arc::new(self), options)
    }
}

impl Session {
    /// A session of a shared detector.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn new(detector: Arc<FittedDetector>, options: SessionOptions) -> Result<Self, DetectorError> {
        let decider = detector.decider_under(options.rule)?;
        let at_a_time = options.batch.max(1);
        let memories: Vec<NetworkMemory> =
            detector.extractors().iter().map(|extractor| extractor.memory(at_a_time)).collect();
        let inputs = vec![Vec::new(); memories.len()];
        let workspaces = detector.fused().workspaces();
        Ok(Self { detector, options, decider, memories, workspaces, inputs })
    }

    /// The detector.
    pub fn detector(&self) -> &Arc<FittedDetector> {
        &self.detector
    }

    /// Scores a decoded image.
    ///
    /// # Errors
    /// An image without pixels, or one whose score is not finite.
    pub fn score(&mut self, image: &RgbImage) -> Result<Verdict, DetectorError> {
        self.score_one(image, None)
    }

    /// Scores an encoded image of any supported format.
    ///
    /// # Errors
    /// Bytes that cannot be decoded or exceed the limits, and the errors of [`score`](Self::score).
    pub fn score_bytes(&mut self, bytes: &[u8]) -> Result<Verdict, DetectorError> {
        let (image, file) = decode_bytes_with_facts(bytes, &self.options.limits).map_err(DataError::from)?;
        self.score_one(&image, file)
    }

    /// Scores decoded images together, in order. An image without a finite score does not affect the others.
    ///
    /// # Errors
    /// An image without pixels.
    pub fn score_batch(&mut self, images: &[&RgbImage]) -> Result<Vec<Result<Verdict, Skipped>>, DetectorError> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        self.run(images, None)
    }

    fn score_one(&mut self, image: &RgbImage, file: Option<FileFacts>) -> Result<Verdict, DetectorError> {
        let verdict = self.run(&[image], file)?.remove(0);
        verdict.map_err(|skipped| MethodError::BadImage { skipped }.into())
    }

    fn run(
        &mut self,
        images: &[&RgbImage],
        file: Option<FileFacts>,
    ) -> Result<Vec<Result<Verdict, Skipped>>, DetectorError> {
        let Self { detector, options, decider, memories, workspaces, inputs } = self;
        let extractors = detector.extractors();
        for (extractor, input) in extractors.iter().zip(inputs.iter_mut()) {
            let len = extractor.pipeline().output_len();
            input.resize(images.len() * len, 0.0);
            for (image, input) in images.iter().zip(input.chunks_exact_mut(len)) {
                extractor.pipeline().apply_into(image, input)?;
            }
        }
        let sizes = extractors.iter().zip(inputs.iter()).zip(memories.iter_mut());
        let features: Vec<FeatureBatch<'_>> = sizes
            .map(|((extractor, input), memory)| extractor.features(images.len(), input, memory))
            .collect::<Result<_, _>>()?;
        let looks = if options.shift { looks(extractors, &features, images, file) } else { Vec::new() };
        let judge = Judge { fused: detector.fused(), decider };
        let (calibration, classes) = (decider.calibration(), decider.classes());
        let mut verdicts = Vec::with_capacity(images.len());
        for (at, judged) in judge.batch(&features, workspaces)?.into_iter().enumerate() {
            let prediction = match judged {
                Ok(prediction) => prediction,
                Err(fault) => {
                    verdicts.push(Err(fault.of(&format!("image {at}"))));
                    continue;
                }
            };
            let input_shift = looks.get(at).zip(detector.input_profile()).and_then(|(look, own)| own.shift(look));
            let size = images[at].dimensions();
            let decides = calibration.map_threshold().is_some();
            let regions = match prediction.map.as_ref().filter(|_| decides) {
                Some(map) => Some(detector.locate(map, size, calibration, &options.regions)?.1.regions),
                None => None,
            };
            let label = classes.zip(prediction.recognition).map(|(known, found)| known.label(&found).to_owned());
            verdicts.push(Ok(Verdict { prediction: Prediction { input_shift, ..prediction }, size, label, regions }));
        }
        Ok(verdicts)
    }
}

/// How images look, with their features at the tap used for comparison with the training images.
fn looks(
    extractors: &[FeatureExtractor],
    features: &[FeatureBatch<'_>],
    images: &[&RgbImage],
    file: Option<FileFacts>,
) -> Vec<Look> {
    let tap = extractors.first().and_then(FeatureExtractor::shallowest_tap);
    let mut rows = features.first().zip(tap).map(|(features, tap)| pooled(features, tap).into_iter());
    let mut look = |image: &&RgbImage| Look {
        size: image.dimensions(),
        file,
        statistics: ImageStatistics::of(image),
        features: rows.as_mut().and_then(Iterator::next),
    };
    images.iter().map(&mut look).collect()
}
