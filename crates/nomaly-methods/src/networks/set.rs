//! The start and end of fits that train a network.

use std::ops::Range;

use nomaly_nn::graph::Graph;
use nomaly_nn::init::he_normal;
use nomaly_nn::runtime::Device;
use nomaly_nn::weights::Weights;

use super::data::{FitData, views_of};
use super::taps::TapLimits;
use crate::MethodError;
use crate::features::FeatureSource;
use crate::groups::Groups;
use crate::method::{FitContext, FittedMethod, Method, MethodFit};
use crate::score::{HeldOut, MethodScore};
use crate::training::settings::{Division, TrainingParams};
use crate::training::{Checkpoint, Learner, Objective, Trained, tap_node, train};
use crate::workspace::MethodWorkspace;

/// Settings with the values that they had before they existed. They are no part of a training's identity, so that a
/// checkpoint from then is found.
const LATER_SETTINGS: [(&str, &str); 5] =
    [("amsgrad", "false"), ("clip_norm", "none"), ("clip_value", "none"), ("nesterov", "false"), ("warmup", "none")];

/// What a training needs of its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingNeeds {
    /// The fewest images.
    pub images: usize,
    /// Examples made of each view in an epoch.
    pub examples: usize,
}

/// The images of a fit, divided into training images and images that calibrate the decision.
pub struct TrainingSet<'a> {
    /// What is kept of all images.
    pub data: FitData,
    /// Numbers of the training views in [`data`](Self::data), ascending.
    pub train: Vec<usize>,
    /// Numbers of the held-out views, ascending.
    pub held_out: Vec<usize>,
    pub(crate) groups: Groups,
    pub(crate) division: Division,
    pub(crate) source: &'a dyn FeatureSource,
    pub(crate) context: FitContext<'a>,
    settings: &'a TrainingParams,
    checkpoint: Option<Checkpoint>,
}

impl<'a> TrainingSet<'a> {
    /// Reads all images of `source`, as `method` sees them, and divides them.
    ///
    /// Features take [`Method::max_memory`] less what other parts of the fit hold; what is more goes to a temporary
    /// file in the folder of checkpoints, or in that of temporary files without checkpoints.
    ///
    /// # Errors
    /// Too few images, more examples than an epoch can have, and the errors of [`FitData::collect`].
    pub fn collect(
        method: &dyn Method,
        settings: &'a TrainingParams,
        source: &'a dyn FeatureSource,
        context: &FitContext<'a>,
        needs: TrainingNeeds,
    ) -> Result<Self, MethodError> {
        let FitContext { seed, progress, checkpoints, executor, .. } = *context;
        let limits = TapLimits {
            memory: method.max_memory().0.saturating_sub(context.occupied + source.held_bytes()),
            folder: checkpoints.map_or_else(std::env::temp_dir, ToOwned::to_owned),
        };
        let data = FitData::collect(method.taps(), source, limits, progress)?;
        let images = data.inputs() / source.views();
        if images < needs.images {
            let of = method.name().to_owned();
            return Err(MethodError::TooFew { of, items: "training images", needed: needs.images, found: images });
        }
        let groups = source.groups()?;
        let division = settings.divide(&groups, seed);
        let inputs_of = |images: &[usize]| images.iter().flat_map(|&image| views_of(image, source.views())).collect();
        let (train, held_out): (Vec<usize>, _) = (inputs_of(&division.train), inputs_of(&division.held_out));
        check_examples(method.name(), train.len(), needs.examples)?;
        let mut identity = identity(method, &data, &groups, seed);
        // Another device rounds in another way, so that its training is another one.
        if executor.device() != Device::Cpu {
            identity.extend(executor.arithmetic().into_bytes());
        }
        let checkpoint = checkpoints.map(|folder| Checkpoint::new(folder, &identity));
        Ok(Self { data, train, held_out, groups, division, source, context: *context, settings, checkpoint })
    }

    /// The number of images.
    pub fn images(&self) -> usize {
        self.division.train.len() + self.division.held_out.len()
    }

    /// The views of an image.
    pub(crate) fn views_of(&self, image: usize) -> Range<usize> {
        views_of(image, self.source.views())
    }

    /// A learner of the network of `graph`, which ends at the tap `logits`, with He-normal weights drawn from the seed.
    pub(crate) fn learner(&self, graph: &Graph) -> Result<Learner, MethodError> {
        self.learner_at(graph, &he_normal(graph, self.context.seed), &["logits"])
    }

    /// A learner of the network of `graph` with these weights, whose inputs are the data and whose outputs are the
    /// `taps`.
    ///
    /// # Errors
    /// For a tap that the graph does not have, weights that do not fit it, and data that it cannot take.
    pub fn learner_at(&self, graph: &Graph, weights: &Weights, taps: &[&str]) -> Result<Learner, MethodError> {
        let sizes: Vec<[usize; 2]> = self.data.shapes().iter().map(|[_, height, width]| [*height, *width]).collect();
        let outputs = taps.iter().map(|tap| tap_node(graph, tap)).collect::<Result<Vec<_>, _>>()?;
        let network = self.context.executor.runtime().trainable(graph, weights, &sizes, &outputs)?;
        Ok(self.settings.learner(network))
    }

    /// Trains the networks of `objective` by the settings, going on from a checkpoint if there is one.
    ///
    /// # Errors
    /// As [`train`].
    pub fn train(&self, objective: &mut dyn Objective) -> Result<Trained, MethodError> {
        let FitContext { seed, progress, .. } = self.context;
        let plan = self.settings.plan(seed, self.train.len());
        train(&plan, objective, self.checkpoint.as_ref(), progress, &mut |_| {})
    }

    /// Scores the held-out images with `score`, which takes the planes of a view. For methods without maps that train
    /// on pixels.
    pub(crate) fn score_held_out(
        &self,
        score: impl FnMut(&[f32]) -> Result<MethodScore, MethodError>,
    ) -> Result<Vec<HeldOut>, MethodError> {
        self.data.pixels()?.held_out(&self.division.held_out, self.source, self.context.progress, score)
    }

    /// Scores the held-out images with `fitted`, as it scores new ones: they are read again, with the region of
    /// interest and the filter of maps, and the scores and maps of their views are combined.
    ///
    /// # Errors
    /// The errors of `fitted`, and of [`FeatureSource::visit_some`].
    pub fn score_held_out_with(&self, fitted: &dyn FittedMethod) -> Result<Vec<HeldOut>, MethodError> {
        let images = &self.division.held_out;
        let mut held_out = Vec::with_capacity(images.len());
        let mut workspace = MethodWorkspace::default();
        self.source.visit_some(images, self.context.progress, &mut |batch| {
            let mut views = fitted.score(batch, &mut workspace)?.into_iter();
            for _ in 0..batch.images {
                let score = self.source.combine(views.by_ref().take(batch.views).collect())?;
                held_out.push(self.context.held_out(images[held_out.len()], score));
            }
            Ok(())
        })?;
        Ok(held_out)
    }

    /// The result of the fit. The checkpoint stays until the model is saved. `learned` describes the examples of each
    /// image.
    pub fn finish(
        self,
        fitted: Box<dyn FittedMethod>,
        held_out: Vec<HeldOut>,
        trained: &Trained,
        learned: &str,
    ) -> MethodFit {
        let images = self.images();
        let Division { train, held_out: others } = &self.division;
        let division =
            format!("{} images learned from, {learned}; {} others calibrate the decision", train.len(), others.len());
        let notes = vec![trained.to_string(), division];
        MethodFit { fitted, held_out, classes: Vec::new(), images, notes, checkpoint: self.checkpoint }
    }
}

/// Everything that determines the result of training `method` on these images in these groups.
fn identity(method: &dyn Method, data: &FitData, groups: &Groups, seed: u64) -> Vec<u8> {
    let mut settings = method.settings();
    for (name, default) in LATER_SETTINGS {
        if settings.text(name).as_deref() == Some(default) {
            settings.remove(name);
        }
    }
    let settings = serde_json::to_string(&settings).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let (name, data) = (method.name(), data.fingerprint());
    let groups = if groups.is_trivial() { String::new() } else { format!(" {:?}", groups.of()) };
    format!("{name} {version} {settings} {seed} {data}{groups}").into_bytes()
}

/// Rejects more examples than an epoch can have, with `each` examples per view.
fn check_examples(method: &str, views: usize, each: usize) -> Result<(), MethodError> {
    let examples = views.saturating_mul(each);
    if u32::try_from(examples).is_ok() {
        return Ok(());
    }
    Err(MethodError::memory(
        method,
        &format!("{examples} training examples"),
        &format!("{} examples", u32::MAX),
        "use fewer images or fewer examples of each",
    ))
}
