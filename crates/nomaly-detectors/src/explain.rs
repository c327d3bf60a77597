//! Where the network of a detector looks.
//!
//! [`FittedDetector::explainer`] lays Grad-CAM over images, [`FittedDetector::average_layers`] says where each layer is
//! active over many of them. Methods that train a network of their own ([`FittedMethod::network`]) are explained by it,
//! the others by the backbone whose features they judge by.
//!
//! Methods that judge by features averaged over positions are explained by their anomaly score, as a function of the
//! deepest features that they look at: the map shows where the image has what raises its score. For the remaining
//! methods, which make anomaly maps of their own, it is half the squared length of the deepest features: how strongly,
//! and where, the image excites what the method judges by.

use std::borrow::Cow;

use image::{GrayImage, Luma, Rgb, RgbImage};
use nomaly_backbones::architectures::pixels;
use nomaly_backbones::explain::{ActivationMap, AverageActivations, Explanation, GradCam, Importance, Target};
use nomaly_backbones::{Backbone, BackboneEntry, Extractor, OpenOptions, OutputLayout, TapRequest};
use nomaly_data::Sample;
use nomaly_kernels::Isa;
use nomaly_methods::{AnomalyMap, FeatureBatch, FittedMethod, MethodError, MethodNetwork, MethodWorkspace, Skipped};
use nomaly_store::Progress;

use crate::images::{FeatureExtractor, ImageStream};
use crate::{DetectorError, FittedDetector, StreamOptions};

/// What an [`Explainer`] explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Explains {
    /// The logit of a class.
    Class,
    /// The anomaly score, by way of the deepest features.
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
    /// Present where the anomaly score is explained.
    score: Option<Score<'a>>,
}

/// What speaks for the target in one image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageExplanation {
    /// The class that was looked for; `None` without a classifier. Of several views, that of the one with the greatest
    /// value.
    pub class: Option<usize>,
    /// The value of what is explained; of several views the greatest.
    pub value: f64,
    /// How much each pixel of the [frame](nomaly_transforms::Pipeline::frame_size) speaks for the target, from 0 on.
    /// [`FittedDetector::map_on_image`] lays it over the image.
    pub map: AnomalyMap,
}

/// One image of a run over many.
pub struct Explained<'a> {
    /// The image.
    pub sample: &'a Sample,
    /// The explanation, or why there is none.
    pub result: Result<ImageExplanation, Skipped>,
    /// Width and height of the image in pixels, where it could be decoded.
    pub size: Option<(u32, u32)>,
    /// The image, where [`StreamOptions::preview`] asks for it.
    pub preview: Option<RgbImage>,
}

/// Where the layers of a network are active over many images.
#[derive(Clone, Debug)]
pub struct AverageLayers {
    /// The images that were averaged; each view counts.
    pub images: usize,
    /// Each layer with the mean of its channels at each position, averaged over images.
    pub layers: Vec<(String, ActivationMap)>,
    /// The mean of the network's inputs, for pictures.
    pub picture: RgbImage,
    /// Images that could not be used.
    pub skipped: Vec<Skipped>,
}

/// The network by which a method scores.
struct ExplainedNetwork<'a> {
    backbone: &'a Backbone,
    scaling: InputScaling,
    /// The names of its classes; empty where they have none.
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
    /// Plans Grad-CAM of the network behind this detector at the layer `tap` (the deepest with positions, where none is
    /// named) for `class` (each image's most likely one, where none is named).
    ///
    /// # Errors
    /// For methods that look at pixels without a network, and those of [`GradCam`]: layers that are not there,
    /// operations without gradient, classes that are none.
    pub fn explainer(&self, tap: Option<&str>, class: Option<usize>) -> Result<Explainer<'_>, DetectorError> {
        let (fitted, backbone, taps) = self.parts();
        let size = self.pipeline().output_size();
        let explained = self.explained_network()?;
        let cam = GradCam::new(explained.network(), tap, size, Isa::best()?)?;
        let pooled = taps.iter().all(|tap| tap.layout == OutputLayout::Mean);
        let level = taps.iter().position(|tap| tap.name == cam.output());
        let score = match level {
            // The score of several sizes is no function of the features of one.
            Some(level) if explained.stored.is_some() && pooled && self.info().fusion.is_none() => {
                Some(Score { fitted, taps, level, extractor: backbone.compile(size, taps, Isa::best()?)?, input: size })
            }
            _ => None,
        };
        let ExplainedNetwork { scaling, classes, .. } = explained;
        let mut explainer = Explainer { scaling, classes, inputs: inputs(self)?, cam, class, score };
        // No image, but the same checks.
        let target = explainer.target();
        explainer.cam.explain(&[], target)?;
        Ok(explainer)
    }

    /// Averages the layers `taps` (all with positions, where none are named) of the network behind this detector over
    /// `samples`.
    ///
    /// # Errors
    /// As [`explainer`](Self::explainer), cancellation, no usable image, and a bad image where the options are strict.
    pub fn average_layers(
        &self,
        taps: &[&str],
        samples: &[Sample],
        options: StreamOptions,
        progress: &dyn Progress,
    ) -> Result<AverageLayers, DetectorError> {
        let explained = self.explained_network()?;
        let size = self.pipeline().output_size();
        let mut average = AverageActivations::new(explained.network(), taps, size, Isa::best()?)?;
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
        if !backbone.entries().all(BackboneEntry::has_weights) {
            return Err(DetectorError::no_network(&self.info().method.name));
        }
        let taps: Vec<&str> = taps.iter().map(|tap| tap.name.as_str()).collect();
        let stored = Some(Backbone::from_tensors(backbone.name(), backbone.export(&taps)?)?);
        Ok(ExplainedNetwork { backbone, scaling: InputScaling([1.0, 0.0]), classes: Vec::new(), stored })
    }

    /// The picture of which `sums` are the normalized planes, added up over so many inputs.
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
    /// The layer whose maps are made.
    pub fn tap(&self) -> &str {
        self.cam.tap()
    }

    /// The layer that the target is computed from: `logits`, or the deepest that the model keeps.
    pub fn output(&self) -> &str {
        self.cam.output()
    }

    /// What a class is called, where the method has a name for it.
    pub fn class_name(&self, class: usize) -> Option<&str> {
        self.classes.get(class).map(String::as_str)
    }

    /// What is explained.
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

    /// Explains `samples` in order and hands each outcome to `sink`, which may fail with an error of its own.
    ///
    /// # Errors
    /// Whatever `sink` fails with, cancellation, and a bad image where the options are strict.
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

/// Factor and summand that turn the values of views into a network's input.
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
    /// Which of the taps is moved.
    level: usize,
    extractor: Extractor,
    input: [usize; 2],
}

/// Steps of the differences by which scores are differentiated, relative to the size of the features.
const STEP: f32 = 1e-2;

/// Rows of features that are scored at a time.
const ROWS: usize = 256;

impl Score<'_> {
    /// The score of each of the views, and what speaks for it.
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

    /// The derivative of the score by each of the features of the level, by central differences: scorers need not know
    /// it.
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

/// The explanation of an image from the values and the explanations of its views.
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

/// What the pipeline of a detector makes of images, and nothing more.
fn inputs(detector: &FittedDetector) -> Result<FeatureExtractor, DetectorError> {
    let backbone = Backbone::open("pixels", &OpenOptions::default())?;
    let tap = TapRequest::new(pixels::TAP, OutputLayout::Nchw);
    Ok(FeatureExtractor::new(&backbone, *detector.pipeline(), &[tap])?)
}

/// The mask of high importance of a map, white where it is.
///
/// # Errors
/// For a quantile outside [0, 1].
pub fn importance_mask(map: &ActivationMap, threshold: Importance) -> Result<GrayImage, DetectorError> {
    let important = map.important(threshold)?;
    let [height, width] = map.size;
    Ok(GrayImage::from_fn(width as u32, height as u32, |x, y| {
        Luma([if important[y as usize * width + x as usize] { u8::MAX } else { 0 }])
    }))
}
