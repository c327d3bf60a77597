//! Explanations of a detector's network.
//!
//! [`FittedDetector::explainer`] computes Grad-CAM maps of images, [`FittedDetector::average_layers`] averages the
//! activations of each layer over many images. Methods that train a network ([`FittedMethod::network`]) are explained
//! by it, others by their backbone.
//!
//! For methods on pooled features the target is the anomaly score as a function of their deepest features: the map
//! shows which regions raise the score. For other methods, which make anomaly maps themselves, the target is half the
//! squared length of the deepest features: how strongly each region activates them.

use std::borrow::Cow;

use image::{GrayImage, Luma, Rgb, RgbImage};
use nomaly_backbones::explain::{ActivationMap, AverageActivations, Explanation, GradCam, Importance, Target};
use nomaly_backbones::{Backbone, Extractor, OutputLayout, TapRequest};
use nomaly_data::Sample;
use nomaly_methods::{AnomalyMap, FeatureBatch, FittedMethod, MethodError, MethodNetwork, MethodWorkspace, Skipped};
use nomaly_store::Progress;

use crate::images::{FeatureExtractor, ImageStream};
use crate::{DetectorError, FittedDetector, StreamOptions};

/// The target of an [`Explainer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Explains {
    /// The logit of a class.
    Class,
    /// The anomaly score, as a function of the deepest features.
    Score,
    /// Half the squared length of the deepest features.
    Features,
}

/// Grad-CAM of a detector's network, see [`FittedDetector::explainer`].
pub struct Explainer<'a> {
    scaling: InputScaling,
    classes: Vec<String>,
    inputs: FeatureExtractor,
    cam: GradCam,
    class: Option<usize>,
    /// Present if the target is the anomaly score.
    score: Option<Score<'a>>,
}

/// The explanation of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageExplanation {
    /// The explained class; `None` without a classifier. Of several views, the class of the one with the largest value.
    pub class: Option<usize>,
    /// The value of the target; of several views the largest.
    pub value: f64,
    /// How much each pixel of the [frame](nomaly_transforms::Pipeline::frame_size) contributes to the target, at least
    /// 0. [`FittedDetector::map_on_image`] maps it to the image.
    pub map: AnomalyMap,
}

/// One image of a run over many.
pub struct Explained<'a> {
    /// The image.
    pub sample: &'a Sample,
    /// The explanation, or why there is none.
    pub result: Result<ImageExplanation, Skipped>,
    /// Width and height of the image in pixels, if decoded.
    pub size: Option<(u32, u32)>,
    /// The image, if [`StreamOptions::preview`] requests it.
    pub preview: Option<RgbImage>,
}

/// Average activations of the layers of a network over many images.
#[derive(Clone, Debug)]
pub struct AverageLayers {
    /// The number of averaged images, counting each view.
    pub images: usize,
    /// For each layer, the mean over channels and images at each position.
    pub layers: Vec<(String, ActivationMap)>,
    /// The mean input as an image.
    pub picture: RgbImage,
    /// Unusable images.
    pub skipped: Vec<Skipped>,
}

/// The network by which a method scores.
struct ExplainedNetwork<'a> {
    backbone: &'a Backbone,
    scaling: InputScaling,
    /// The names of its classes; empty if they have none.
    classes: Vec<String>,
    /// The weights that a model file keeps, for methods that score by the detector's backbone.
    stored: Option<Backbone>,
}

impl ExplainedNetwork<'_> {
    /// The network to run: the stored one, so that a detector is explained alike before it is saved and after.
    fn network(&self) -> &Backbone {
        self.stored.as_ref().unwrap_or(self.backbone)
    }
}

impl FittedDetector {
    /// Plans Grad-CAM of the detector's network at the layer `tap` (by default the deepest with positions) for `class`
    /// (by default the most likely one of each image).
    ///
    /// # Errors
    /// A method on pixels without a network, and the errors of [`GradCam`]: unknown layers or classes, operations
    /// without gradient.
    pub fn explainer(&self, tap: Option<&str>, class: Option<usize>) -> Result<Explainer<'_>, DetectorError> {
        let (fitted, backbone, taps) = self.parts();
        let size = self.pipeline().output_size();
        let explained = self.explained_network()?;
        let cam = GradCam::new(explained.network(), tap, size, self.executor())?;
        let pooled = taps.iter().all(|tap| tap.layout == OutputLayout::Mean);
        let level = taps.iter().position(|tap| tap.name == cam.output());
        let score = match level {
            // A fused score does not depend on the features of one size only.
            Some(level) if explained.stored.is_some() && pooled && self.info().fusion.is_none() => {
                let extractor = backbone.compile(size, taps, self.executor())?;
                Some(Score { fitted, taps, level, extractor, input: size })
            }
            _ => None,
        };
        let ExplainedNetwork { scaling, classes, .. } = explained;
        let mut explainer = Explainer { scaling, classes, inputs: inputs(self)?, cam, class, score };
        // Runs the checks without an image.
        let target = explainer.target();
        explainer.cam.explain(&[], target)?;
        Ok(explainer)
    }

    /// Averages the layers `taps` (by default all with positions) of the detector's network over `samples`.
    ///
    /// # Errors
    /// As [`explainer`](Self::explainer), cancellation, no usable image, and an unusable image in strict mode.
    pub fn average_layers(
        &self,
        taps: &[&str],
        samples: &[Sample],
        options: StreamOptions,
        progress: &dyn Progress,
    ) -> Result<AverageLayers, DetectorError> {
        let explained = self.explained_network()?;
        let size = self.pipeline().output_size();
        let mut average = AverageActivations::new(explained.network(), taps, size, self.executor())?;
        let inputs = &inputs(self)?;
        let mut skipped = Vec::new();
        let mut sums = vec![0.0f64; 3 * size[0] * size[1]];
        ImageStream::new(std::slice::from_ref(inputs), samples, options).run(
            progress,
            "averaging layers",
            &mut |batch| -> Result<(), DetectorError> {
                skipped.extend(batch.images.into_iter().filter_map(|image| image.failure));
                for features in batch.features {
                    for planes in features.values[0].chunks_exact(sums.len()) {
                        sums.iter_mut().zip(planes).for_each(|(sum, value)| *sum += f64::from(*value));
                    }
                    average.add(&explained.scaling.apply(&features.values[0]))?;
                }
                Ok(())
            },
        )?;
        if average.images() == 0 {
            let method = self.info().method.name.clone();
            return Err(DetectorError::from(MethodError::TooFew {
                of: method,
                items: "training images",
                needed: 1,
                found: 0,
            }));
        }
        let picture = self.picture(&sums, average.images());
        let layers = average.maps().into_iter().map(|(name, map)| (name.to_owned(), map)).collect();
        Ok(AverageLayers { images: average.images(), layers, picture, skipped })
    }

    fn explained_network(&self) -> Result<ExplainedNetwork<'_>, DetectorError> {
        let (fitted, backbone, taps) = self.parts();
        if let Some(MethodNetwork { backbone, input, classes }) = fitted.network() {
            return Ok(ExplainedNetwork { backbone, scaling: InputScaling(input), classes, stored: None });
        }
        if !backbone.has_network() {
            return Err(DetectorError::no_network(&self.info().method.name));
        }
        let taps: Vec<&str> = taps.iter().map(|tap| tap.name.as_str()).collect();
        let stored = Some(Backbone::from_tensors(backbone.name(), backbone.export(&taps)?)?);
        Ok(ExplainedNetwork { backbone, scaling: InputScaling([1.0, 0.0]), classes: Vec::new(), stored })
    }

    /// The mean input as an image, from the sums of the normalized planes over `count` inputs.
    fn picture(&self, sums: &[f64], count: usize) -> RgbImage {
        let [height, width] = self.pipeline().output_size();
        let normalize = self.pipeline().normalize;
        RgbImage::from_fn(width as u32, height as u32, |x, y| {
            Rgb([0, 1, 2].map(|channel| {
                let at = (channel * height + y as usize) * width + x as usize;
                let mean = sums[at] / count as f64;
                let sample = mean * f64::from(normalize.std[channel]) + f64::from(normalize.mean[channel]);
                (sample * 255.0).round().clamp(0.0, 255.0) as u8
            }))
        })
    }
}

impl Explainer<'_> {
    /// The explained layer.
    pub fn tap(&self) -> &str {
        self.cam.tap()
    }

    /// The layer from which the target is computed: `logits`, or the deepest one in the model.
    pub fn output(&self) -> &str {
        self.cam.output()
    }

    /// The name of a class, if it has one.
    pub fn class_name(&self, class: usize) -> Option<&str> {
        self.classes.get(class).map(String::as_str)
    }

    /// The target.
    pub fn explains(&self) -> Explains {
        match (self.cam.classes(), &self.score) {
            (Some(_), _) => Explains::Class,
            (None, Some(_)) => Explains::Score,
            (None, None) => Explains::Features,
        }
    }

    fn target(&self) -> Target<'static> {
        match (self.class, self.cam.classes()) {
            (Some(class), _) => Target::Class(class),
            (None, Some(_)) => Target::Predicted,
            (None, None) => Target::Distance(None),
        }
    }

    /// Explains `samples` in order and passes each result to `sink`.
    ///
    /// # Errors
    /// Errors of `sink`, cancellation, and an unusable image in strict mode.
    pub fn run<E: From<DetectorError> + From<MethodError> + Send>(
        &mut self,
        samples: &[Sample],
        options: StreamOptions,
        progress: &dyn Progress,
        mut sink: impl FnMut(Explained<'_>) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let target = self.target();
        let Self { scaling, inputs, cam, score, .. } = self;
        let views = inputs.pipeline().view_count();
        ImageStream::new(std::slice::from_ref(inputs), samples, options).run(
            progress,
            "explaining images",
            &mut |batch| {
                let mut explanations = match batch.features.first() {
                    Some(features) => {
                        let views = scaling.apply(&features.values[0]);
                        match score {
                            Some(score) => score.explain(cam, &views)?,
                            None => cam
                                .explain(&views, target)
                                .map_err(DetectorError::from)?
                                .into_iter()
                                .map(|one| (f64::from(one.value), one))
                                .collect(),
                        }
                    }
                    None => Vec::new(),
                }
                .into_iter();
                for image in batch.images {
                    let (size, preview) =
                        image.decoded.map_or((None, None), |decoded| (Some(decoded.size), decoded.preview));
                    let result = match image.failure {
                        Some(skipped) => Err(skipped),
                        None => Ok(joined(inputs, explanations.by_ref().take(views).collect())?),
                    };
                    sink(Explained { sample: &samples[image.index], result, size, preview })?;
                }
                Ok(())
            },
        )
    }
}

/// Factor and offset that turn the values of views into the network's input.
#[derive(Clone, Copy, Debug)]
struct InputScaling([f32; 2]);

impl InputScaling {
    fn apply<'v>(&self, views: &'v [f32]) -> Cow<'v, [f32]> {
        match self.0 {
            [1.0, 0.0] => Cow::Borrowed(views),
            [factor, summand] => views.iter().map(|value| factor * value + summand).collect(),
        }
    }
}

/// The anomaly score of a method as a function of pooled features.
struct Score<'a> {
    fitted: &'a dyn FittedMethod,
    taps: &'a [TapRequest],
    /// The index of the tap to differentiate by.
    level: usize,
    extractor: Extractor,
    input: [usize; 2],
}

/// The step of the central differences, relative to the magnitude of the features.
const STEP: f32 = 1e-2;

/// Rows of features per scoring call.
const ROWS: usize = 256;

impl Score<'_> {
    /// The score and gradient of each view.
    fn explain(&self, cam: &mut GradCam, views: &[f32]) -> Result<Vec<(f64, Explanation)>, DetectorError> {
        let each: usize = self.extractor.input_shape().iter().product();
        let mut features = vec![Vec::new(); self.taps.len()];
        let mut workspace = self.extractor.workspace(1);
        let mut explanations = Vec::with_capacity(views.len() / each);
        for view in views.chunks_exact(each) {
            self.extractor.run(view, 1, &mut workspace, &mut features)?;
            let score = self.score(&features, 1)?[0];
            let gradient = self.gradient(&features)?;
            let explained = cam.explain(view, Target::Gradient(&gradient))?;
            explanations.extend(explained.into_iter().map(|explanation| (score, explanation)));
        }
        Ok(explanations)
    }

    /// The gradient of the score by the features of the level, by central differences, since scorers have no gradient.
    fn gradient(&self, features: &[Vec<f32>]) -> Result<Vec<f32>, DetectorError> {
        let base = &features[self.level];
        let squares: f32 = base.iter().map(|value| value * value).sum();
        let step = STEP * (squares / base.len() as f32).sqrt().max(f32::MIN_POSITIVE);
        let mut gradient = Vec::with_capacity(base.len());
        for first in (0..base.len()).step_by(ROWS / 2) {
            let moved = first..(first + ROWS / 2).min(base.len());
            let rows = 2 * moved.len();
            let mut values: Vec<Vec<f32>> = features.iter().map(|features| features.repeat(rows)).collect();
            for (place, index) in moved.enumerate() {
                values[self.level][2 * place * base.len() + index] += step;
                values[self.level][(2 * place + 1) * base.len() + index] -= step;
            }
            let scores = self.score(&values, rows)?;
            gradient.extend(scores.chunks_exact(2).map(|pair| ((pair[0] - pair[1]) / (2.0 * f64::from(step))) as f32));
        }
        Ok(gradient)
    }

    /// The scores of rows of features.
    fn score(&self, values: &[Vec<f32>], rows: usize) -> Result<Vec<f64>, DetectorError> {
        let shapes: Vec<[usize; 3]> = (0..self.taps.len()).map(|tap| self.extractor.output_shape(tap)).collect();
        let batch = FeatureBatch {
            images: rows,
            views: 1,
            input: self.input,
            map: self.input,
            taps: self.taps,
            values,
            shapes: &shapes,
            region: None,
            median: None,
        };
        Ok(self.fitted.score(&batch, &mut MethodWorkspace::default())?.into_iter().map(|score| score.score).collect())
    }
}

/// Combines the explanations of the views of an image.
fn joined(inputs: &FeatureExtractor, views: Vec<(f64, Explanation)>) -> Result<ImageExplanation, DetectorError> {
    let [rows, columns] = inputs.pipeline().output_size();
    let mut maps = Vec::with_capacity(views.len() * rows * columns);
    let (mut value, mut class) = (f64::NEG_INFINITY, None);
    for (of_view, explanation) in views {
        if of_view > value {
            (value, class) = (of_view, explanation.class);
        }
        let ActivationMap { size: [height, width], values } = explanation.map;
        maps.extend(AnomalyMap { height, width, values }.resized(rows, columns)?.values);
    }
    let [height, width] = inputs.pipeline().frame_size();
    let map = AnomalyMap { height, width, values: inputs.pipeline().assemble(&maps)? };
    Ok(ImageExplanation { class, value, map })
}

/// An extractor of the preprocessed pixels of a detector.
fn inputs(detector: &FittedDetector) -> Result<FeatureExtractor, DetectorError> {
    let tap = TapRequest::pixels(OutputLayout::Nchw);
    Ok(FeatureExtractor::new(&Backbone::pixels(), *detector.pipeline(), &[tap], detector.executor())?)
}

/// The mask of the important pixels of a map, which are white.
///
/// # Errors
/// A quantile outside [0, 1].
pub fn importance_mask(map: &ActivationMap, threshold: Importance) -> Result<GrayImage, DetectorError> {
    let important = map.important(threshold)?;
    let [height, width] = map.size;
    Ok(GrayImage::from_fn(width as u32, height as u32, |x, y| {
        Luma([if important[y as usize * width + x as usize] { u8::MAX } else { 0 }])
    }))
}
