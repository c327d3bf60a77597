//! The start and end of fits that train a network on pixels.

use nomaly_nn::graph::Graph;
use nomaly_nn::runtime::Device;

use super::images::PixelStore;
use crate::MethodError;
use crate::features::FeatureSource;
use crate::groups::Groups;
use crate::method::{FitContext, FittedMethod, Method, MethodFit};
use crate::score::{HeldOut, MethodScore};
use crate::training::settings::{Division, TrainingParams};
use crate::training::{Checkpoint, Learner, Objective, Trained, train};

/// The images of a fit, divided into training images and images that calibrate the decision.
pub(crate) struct TrainingSet<'a> {
    pub(crate) images: PixelStore,
    /// The groups of the images.
    pub(crate) groups: Groups,
    pub(crate) division: Division,
    /// Training views.
    pub(crate) train: Vec<usize>,
    /// Held-out views.
    pub(crate) held_out: Vec<usize>,
    pub(crate) source: &'a dyn FeatureSource,
    pub(crate) context: FitContext<'a>,
    settings: &'a TrainingParams,
    checkpoint: Option<Checkpoint>,
}

impl<'a> TrainingSet<'a> {
    /// Reads all images of `source` and divides them.
    ///
    /// # Errors
    /// Fewer than `needed` images; more examples than an epoch can have, with `kinds` examples per view.
    pub(crate) fn collect(
        method: &dyn Method,
        settings: &'a TrainingParams,
        source: &'a dyn FeatureSource,
        context: &FitContext<'a>,
        (needed, kinds): (usize, usize),
    ) -> Result<Self, MethodError> {
        let FitContext { seed, progress, checkpoints, executor, .. } = *context;
        let images = PixelStore::collect(source, progress)?;
        if images.images() < needed {
            let (method, found) = (method.name().to_owned(), images.images());
            return Err(MethodError::TooFew { of: method, items: "training images", needed, found });
        }
        let groups = source.groups()?;
        let division = settings.divide(&groups, seed);
        let (train, held_out) = (images.inputs_of(&division.train), images.inputs_of(&division.held_out));
        PixelStore::check_examples(method.name(), train.len(), kinds)?;
        let checkpoint = checkpoints.map(|folder| {
            let mut identity = images.identity(method, &groups, seed);
            // Another device rounds in another way, so that its training is another one.
            if executor.device() != Device::Cpu {
                identity.extend(executor.arithmetic().into_bytes());
            }
            Checkpoint::new(folder, &identity)
        });
        Ok(Self { images, groups, division, train, held_out, source, context: *context, settings, checkpoint })
    }

    /// A learner of the network of `graph`, with random weights.
    pub(crate) fn learner(&self, graph: &Graph) -> Result<Learner, MethodError> {
        Learner::initialized(graph, self.images.size(), self.settings.rule(), self.context.seed, self.context.executor)
    }

    /// Trains the networks of `objective`.
    pub(crate) fn train(&self, objective: &mut dyn Objective) -> Result<Trained, MethodError> {
        let FitContext { seed, progress, .. } = self.context;
        let plan = self.settings.plan(seed, self.train.len());
        train(&plan, objective, self.checkpoint.as_ref(), progress, &mut |_| {})
    }

    /// Scores the held-out images with `score`, which takes the planes of a view.
    pub(crate) fn score_held_out(
        &self,
        score: impl FnMut(&[f32]) -> Result<MethodScore, MethodError>,
    ) -> Result<Vec<HeldOut>, MethodError> {
        self.images.held_out(&self.division.held_out, self.source, self.context.progress, score)
    }

    /// The result of the fit. The checkpoint stays until the model is saved. `learned` describes the examples of each
    /// image.
    pub(crate) fn finish(
        self,
        fitted: Box<dyn FittedMethod>,
        held_out: Vec<HeldOut>,
        trained: &Trained,
        learned: &str,
    ) -> MethodFit {
        let Division { train, held_out: others } = &self.division;
        let division =
            format!("{} images learned from, {learned}; {} others calibrate the decision", train.len(), others.len());
        let notes = vec![trained.to_string(), division];
        let images = self.images.images();
        MethodFit { fitted, held_out, classes: Vec::new(), images, notes, checkpoint: self.checkpoint }
    }
}
