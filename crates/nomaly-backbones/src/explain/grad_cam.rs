//! Grad-CAM.

use nomaly_kernels::geometry::OutputLayout;
use nomaly_nn::runtime::{Executor, RuntimeError, TrainableNetwork};
use nomaly_nn::trainable::Pass;

use crate::backbone::Backbone;
use crate::extractor::{Extractor, Workspace};
use crate::taps::{LOGITS, TapInfo, TapRequest};

use super::{ActivationMap, ExplainError, no_positions, spatial, with_positions};

/// Images that are run at a time.
const BATCH: usize = 8;

/// The number whose gradient weights the channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target<'a> {
    /// The largest logit, for each image separately.
    Predicted,
    /// The logit of a class.
    Class(usize),
    /// Half the squared distance ½ ‖f − c‖² of the output's features f, averaged over its positions, from a
    /// centre c, such as the mean of the normal images; no centre is the origin. It shows where the features come from
    /// that differ from the centre. For backbones without classifier.
    Distance(Option<&'a [f32]>),
    /// The gradient of any function of the output's features, averaged over its positions; the value is then unknown.
    Gradient(&'a [f32]),
}

/// The explanation of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The explained class; none for a distance.
    pub class: Option<usize>,
    /// The target's value: a logit, half a squared distance, or 0 for a gradient.
    pub value: f32,
    /// The map, at the resolution of the tap; nonnegative.
    pub map: ActivationMap,
}

/// Grad-CAM at one tap of a backbone, planned for one image size.
///
/// # What it computes
/// `ReLU(Σ_k α_k A^k)`, with A^k the k-th channel of the tap and α_k the spatial mean of ∂y / ∂A^k, where y is
/// the [`Target`].
///
/// The backbone runs up to the tap as an inference plan; only the layers between the tap and the output need a
/// gradient. Every tap that has positions can be explained.
///
/// # Reference
/// Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via Gradient-Based Localization*, 2020,
/// equations 1 and 2.
#[derive(Debug)]
pub struct GradCam {
    backbone: String,
    tap: String,
    output: String,
    /// Whether the output is a classifier's.
    classifies: bool,
    extractor: Extractor,
    workspace: Workspace,
    above: Box<dyn TrainableNetwork>,
    /// Shape `[C, h, w]` of the tap and of the output.
    shapes: [[usize; 3]; 2],
}

impl GradCam {
    /// Plans for images of `size` (height, width) and the map of `tap`; by default the deepest tap with positions, in
    /// the last of joined networks. The output is the classifier, or the deepest tap that the weights serve, of the
    /// same network.
    ///
    /// # Errors
    /// For a tap that the backbone or its weights do not have, that has no positions, or that the output bypasses; for
    /// images that are too small.
    pub fn new(
        backbone: &Backbone,
        tap: Option<&str>,
        size: [usize; 2],
        executor: &Executor,
    ) -> Result<Self, ExplainError> {
        let name = backbone.name().to_owned();
        let deepest = |taps: Vec<TapInfo>| taps.into_iter().next_back().map_or_else(String::new, |tap| tap.name);
        let tap = match tap {
            Some(tap) => with_positions(backbone, tap)?,
            None => spatial(backbone).pop().ok_or_else(|| no_positions(backbone, &deepest(backbone.taps())))?,
        };
        let (place, from) = backbone.tap_node(&tap)?;
        let part = backbone.part(place);
        let output = deepest(part.taps().collect());
        let (_, to) = backbone.tap_node(&output)?;
        let own = &output[part.prefix.len()..];
        let Some(graph) = part.graph.between(from, to) else {
            return Err(ExplainError::Bypassed { backbone: name, tap, output });
        };
        let extractor = backbone.compile(size, &[TapRequest::new(&tap, OutputLayout::Nchw)], executor)?;
        let [_, height, width] = extractor.output_shape(0);
        let targets: Vec<usize> = graph.taps().iter().filter(|tap| tap.name == own).map(|tap| tap.node).collect();
        let weights = part.unfolded(to);
        let mut above = match executor.runtime().trainable(&graph, &weights, &[[height, width]], &targets) {
            Ok(above) => above,
            Err(error) => {
                let source = Box::new(error);
                return Err(ExplainError::Gradient { backbone: name, tap, output, source });
            }
        };
        above.set_input_gradient(true);
        above.set_frozen(true);
        let shapes = [extractor.output_shape(0), above.output_shapes()[0]];
        let workspace = extractor.workspace(BATCH);
        let classifies = own == LOGITS;
        Ok(Self { backbone: name, tap, output, classifies, extractor, workspace, above, shapes })
    }

    /// The tap whose maps are made.
    pub fn tap(&self) -> &str {
        &self.tap
    }

    /// The tap that the target is computed from.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// The number of classes; none without a classifier.
    pub fn classes(&self) -> Option<usize> {
        self.classifies.then_some(self.shapes[1][0])
    }

    /// Explains each of `images` `[N, 3, H, W]`; the explanation of one does not depend on the others.
    ///
    /// # Errors
    /// If the values do not form whole images, for a class that does not exist or without a classifier, and for a
    /// centre whose length differs from that of the features.
    pub fn explain(&mut self, images: &[f32], target: Target<'_>) -> Result<Vec<Explanation>, ExplainError> {
        self.check(target)?;
        let each = self.extractor.input_shape().iter().product::<usize>();
        if !images.len().is_multiple_of(each) {
            return Err(ExplainError::Images { each, found: images.len() });
        }
        let mut explanations = Vec::with_capacity(images.len() / each);
        let mut features = [Vec::new()];
        for batch in images.chunks(BATCH * each) {
            self.extractor.run(batch, batch.len() / each, &mut self.workspace, &mut features)?;
            self.batch(&features[0], target, &mut explanations)?;
        }
        Ok(explanations)
    }

    fn check(&self, target: Target<'_>) -> Result<(), ExplainError> {
        let backbone = || self.backbone.clone();
        match (target, self.classes()) {
            (Target::Class(class), Some(classes)) if class >= classes => {
                Err(ExplainError::NoClass { backbone: backbone(), class, classes })
            }
            (Target::Predicted | Target::Class(_), None) => {
                Err(ExplainError::NoClassifier { backbone: backbone(), deepest: self.output.clone() })
            }
            (Target::Distance(Some(center)) | Target::Gradient(center), _) if center.len() != self.shapes[1][0] => {
                let (expected, found) = (self.shapes[1][0], center.len());
                Err(ExplainError::Centre { output: self.output.clone(), expected, found })
            }
            _ => Ok(()),
        }
    }

    /// Explains images, given their features at the tap.
    fn batch(
        &mut self,
        features: &[f32],
        target: Target<'_>,
        explanations: &mut Vec<Explanation>,
    ) -> Result<(), ExplainError> {
        let Self { backbone, tap, output, above, shapes: [from, to], .. } = self;
        let fail = |source: RuntimeError| {
            let [backbone, tap, output] = [&*backbone, &*tap, &*output].map(String::clone);
            ExplainError::Gradient { backbone, tap, output, source: Box::new(source) }
        };
        above.run(&[features], Pass::Evaluate).map_err(fail)?;
        let mut gradient = vec![0.0; above.output(0).len()];
        let each = to.iter().product::<usize>();
        let pairs = above.output(0).chunks_exact(each).zip(gradient.chunks_exact_mut(each));
        let targets: Vec<_> = pairs.map(|(output, gradient)| differentiate(output, to[0], target, gradient)).collect();
        above.backward(&[&gradient]).map_err(fail)?;
        let each = from.iter().product::<usize>();
        let pairs = features.chunks_exact(each).zip(above.input_gradient(0).chunks_exact(each));
        for ((features, gradient), (class, value)) in pairs.zip(targets) {
            let [_, height, width] = *from;
            let map = ActivationMap { size: [height, width], values: weighted(features, gradient, height * width) };
            explanations.push(Explanation { class, value, map });
        }
        Ok(())
    }
}

/// Writes the gradient of the target by the output `[C, h, w]` of one image, and returns the class and the target's
/// value.
fn differentiate(output: &[f32], channels: usize, target: Target<'_>, gradient: &mut [f32]) -> (Option<usize>, f32) {
    let class = match target {
        Target::Class(class) => class,
        // Ties go to the first logit.
        Target::Predicted => (0..channels).rev().max_by(|&a, &b| output[a].total_cmp(&output[b])).unwrap_or(0),
        Target::Gradient(of_means) => {
            let positions = output.len() / channels;
            let planes = gradient.chunks_exact_mut(positions).zip(of_means);
            planes.for_each(|(plane, value)| plane.fill(value / positions as f32));
            return (None, 0.0);
        }
        Target::Distance(center) => {
            let positions = output.len() / channels;
            let mut squares = 0.0;
            let planes = output.chunks_exact(positions).zip(gradient.chunks_exact_mut(positions));
            for (channel, (plane, gradient)) in planes.enumerate() {
                let mean = plane.iter().map(|&value| f64::from(value)).sum::<f64>() / positions as f64;
                let difference = mean - center.map_or(0.0, |center| f64::from(center[channel]));
                squares += difference * difference;
                gradient.fill((difference / positions as f64) as f32);
            }
            return (None, (squares / 2.0) as f32);
        }
    };
    gradient[class] = 1.0;
    (Some(class), output[class])
}

/// Equations 1 and 2: the channels, weighted by the means of their gradients, with negative values clipped.
fn weighted(features: &[f32], gradient: &[f32], positions: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; positions];
    for (plane, gradient) in features.chunks_exact(positions).zip(gradient.chunks_exact(positions)) {
        let alpha = gradient.iter().map(|&value| f64::from(value)).sum::<f64>() / positions as f64;
        plane.iter().zip(&mut sums).for_each(|(&value, sum)| *sum += alpha * f64::from(value));
    }
    sums.into_iter().map(|sum| sum.max(0.0) as f32).collect()
}
