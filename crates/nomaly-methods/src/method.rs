//! The traits of methods and their registry entries.

use std::path::Path;

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_data::subset::{Choice, choose};
use nomaly_nn::runtime::Executor;
use nomaly_registry::Entry;
use nomaly_scorers::State;
use nomaly_settings::{Assignments, Memory, Settings, SettingsTable};
use nomaly_store::Progress;

use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::input::InputParams;
use crate::recognition::HeldOutClass;
use crate::score::{HeldOut, MethodScore};
use crate::training::Checkpoint;
use crate::workspace::MethodWorkspace;

/// A method with checked parameters, before it is fitted.
pub trait Method: Send + Sync {
    /// Its name in the [registry](crate::METHODS).
    fn name(&self) -> &'static str;

    /// What it sees of images, when it is fitted and when it scores, in the order of a [`FeatureBatch`]: taps of the
    /// backbone, [pixels](nomaly_backbones::PIXELS) among them. A method that sees nothing but pixels takes no
    /// backbone.
    fn taps(&self) -> &[TapRequest];

    /// Its parameters including defaults, as stored in the model file.
    fn settings(&self) -> Assignments;

    /// Rejects unsupported inputs of `[height, width]` pixels. Called before a fit and when a model file is read.
    ///
    /// # Errors
    /// The setting that contradicts the input.
    fn check_input(&self, _input: [usize; 2]) -> Result<(), MethodError> {
        Ok(())
    }

    /// Fits the method on the images of `source`.
    ///
    /// Each held-out score comes from a fit without any image of the same [group](FeatureSource::groups).
    ///
    /// # Errors
    /// Too few images, or features that the method cannot use.
    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError>;

    /// Whether its models support updates.
    fn updates(&self) -> Updates {
        Updates::Never
    }

    /// Updates a model with the images of `source`, without its training images.
    ///
    /// `states` are those of the fitted method. The held-out scores are those of the added images under the model
    /// before the update.
    ///
    /// # Errors
    /// [`MethodError::NotExtendable`] for methods that need all images at once, [`MethodError::NotUpdatable`] for a
    /// model that was not fitted to be updatable, and the errors of [`fit`](Method::fit).
    fn extend(
        &self,
        _states: Vec<(String, State)>,
        _source: &dyn FeatureSource,
        _context: &FitContext<'_>,
    ) -> Result<MethodFit, MethodError> {
        Err(MethodError::NotExtendable { method: self.name().to_owned() })
    }

    /// The memory limit of a fit.
    fn max_memory(&self) -> Memory {
        Memory::gib(2)
    }

    /// Whether a fit visits images more than once, so that caching their frames pays.
    fn revisits(&self) -> bool {
        false
    }

    /// Restores the fitted method from the named states of a model file; its own networks run on `executor`.
    ///
    /// # Errors
    /// A state that is missing or contradicts the parameters.
    fn restore(&self, states: Vec<(String, State)>, executor: &Executor) -> Result<Box<dyn FittedMethod>, MethodError>;
}

/// Whether the models of a method can be updated with further images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updates {
    /// No: a fit needs all images at once.
    Never,
    /// Models fitted as [updatable](FitContext::updatable), whose files are larger.
    OptIn,
    /// All models.
    Always,
}

/// The inputs of a fit besides the images.
#[derive(Clone, Copy)]
pub struct FitContext<'a> {
    /// Seeds every random choice.
    pub seed: u64,
    /// Reports progress, and signals cancellation.
    pub progress: &'a dyn Progress,
    /// Trains and runs the networks of the method.
    pub executor: &'a Executor,
    /// The folder for checkpoints of methods that train a network, from which an interrupted fit resumes.
    pub checkpoints: Option<&'a Path>,
    /// How many held-out images keep their maps, for fusing several sizes; `None` for one size.
    pub most_maps: Option<usize>,
    /// Bytes of `max_memory` in use by the fits at other sizes.
    pub occupied: u64,
    /// Whether to keep the state that [updates](Method::extend) need, for methods that would not otherwise.
    pub updatable: bool,
}

impl<'a> FitContext<'a> {
    /// A context without checkpoints.
    pub fn new(seed: u64, progress: &'a dyn Progress, executor: &'a Executor) -> Self {
        Self { seed, progress, executor, checkpoints: None, most_maps: None, occupied: 0, updatable: false }
    }

    /// The held-out score of a usable image, by its number.
    pub fn held_out(&self, image: usize, score: MethodScore) -> HeldOut {
        let held_out = HeldOut::new(image, &score);
        HeldOut { map: score.map.filter(|_| self.most_maps.is_some()), ..held_out }
    }

    /// Limits a number of held-out images to [`most_maps`](Self::most_maps).
    pub fn most_held_out(&self, images: usize) -> usize {
        self.most_maps.map_or(images, |most| most.min(images))
    }

    /// The numbers of the added images to score as held out: all of `images`, or a sample if their maps are kept.
    pub fn held_out_of(&self, images: usize) -> Vec<usize> {
        choose(images, self.most_held_out(images), Choice::Seeded(self.seed))
    }
}

/// The result of [`Method::fit`].
pub struct MethodFit {
    /// The method fitted on all images.
    pub fitted: Box<dyn FittedMethod>,
    /// Scores of training images by fits without any image of their [group](FeatureSource::groups): of all images, or
    /// of a random sample if that would take too long.
    pub held_out: Vec<HeldOut>,
    /// The same by predicted class, for methods with classes; otherwise empty.
    pub classes: Vec<HeldOutClass>,
    /// The number of training images.
    pub images: usize,
    /// Notes for the user: limits that were reached, choices that were made.
    pub notes: Vec<String>,
    /// The checkpoint of the finished training, to be [removed](Checkpoint::remove) once the model is saved; `None` for
    /// methods that do not train, and fits without checkpoints.
    pub checkpoint: Option<Checkpoint>,
}

impl MethodFit {
    /// The fit of a method without classes and training, with nothing to note.
    pub fn new(fitted: Box<dyn FittedMethod>, held_out: Vec<HeldOut>, images: usize) -> Self {
        Self { fitted, held_out, classes: Vec::new(), images, notes: Vec::new(), checkpoint: None }
    }
}

/// A fitted method, which can score.
pub trait FittedMethod: Send + Sync {
    /// Scores each view of each image of a batch, in order; *higher = more anomalous*. A `workspace` must not be shared
    /// between methods.
    ///
    /// # Errors
    /// Features of another shape than the fitted ones, or values that are not finite.
    fn score(&self, batch: &FeatureBatch<'_>, workspace: &mut MethodWorkspace)
    -> Result<Vec<MethodScore>, MethodError>;

    /// The named states from which it can be [restored](Method::restore).
    fn states(&self) -> Vec<(String, State)>;

    /// Names of the [parts](MethodScore::parts) of a score, in order; empty for methods without parts.
    fn part_names(&self) -> Vec<String> {
        Vec::new()
    }

    /// Names of the [terms](MethodScore::terms) that sum to a score, in order; empty for methods whose score is not a
    /// sum.
    fn term_names(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether scores have a [deviation](MethodScore::deviation).
    fn scores_vary(&self) -> bool {
        false
    }

    /// The known classes, ascending. The [parts](MethodScore::parts) of a score are then the scores under each class,
    /// and the score is their minimum. Empty for methods without classes.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// The trained network; `None` for methods that use the features of the detector's backbone.
    fn network(&self) -> Option<MethodNetwork<'_>> {
        None
    }
}

/// The trained network of a method.
#[derive(Clone, Debug)]
pub struct MethodNetwork<'a> {
    /// The network with its weights.
    pub backbone: &'a Backbone,
    /// Factor and offset that turn the values of a detector's views into the network's input.
    pub input: [f32; 2],
    /// The names of its classes; empty if they have none.
    pub classes: Vec<String>,
}

/// A published result of a method.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// The data set, and the backbone if the paper compares several.
    pub on: &'static str,
    /// The image-level AUROC in percent.
    pub image_auroc: f64,
    /// The pixel-level AUROC in percent, if published.
    pub pixel_auroc: Option<f64>,
    /// The AUPRO up to a false-positive rate of 0.3 in percent, if published.
    pub aupro: Option<f64>,
}

impl Published {
    /// An image-level result.
    pub const fn image(on: &'static str, image_auroc: f64) -> Self {
        Self { on, image_auroc, pixel_auroc: None, aupro: None }
    }
}

/// A published table of the one-against-all protocol, in percent AUROC.
#[derive(Clone, Copy, Debug)]
pub struct PublishedClasses {
    /// The data set's name in nomaly.
    pub dataset: &'static str,
    /// Its classes, if their names identify the data set.
    pub classes: &'static [&'static str],
    /// A description of the run.
    pub on: &'static str,
    /// The mean over all classes.
    pub mean: f64,
    /// The AUROC of each class, in the order of the classes; empty if the paper gives only the mean.
    pub by_class: &'static [f64],
}

/// The cost of a method besides running the backbone, in words.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// The time to fit.
    pub fit: &'static str,
    /// The time to score an image.
    pub predict: &'static str,
    /// The memory of a fitted method.
    pub memory: &'static str,
}

/// The settings type of one method, by which programs select the method.
pub trait MethodParams: Settings {
    /// The method's name.
    const METHOD: &'static str;
}

/// What a method sees of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// Pixels as they come out of the pipeline, in [0, 1]. It takes no backbone.
    Pixels,
    /// Taps of a pretrained network.
    Taps,
}

/// Builds a checked method from settings and a backbone, which has [no network](Backbone::pixels) for methods that see
/// pixels.
pub type BuildMethod = fn(&Assignments, &Backbone) -> Result<Box<dyn Method>, MethodError>;

/// The further settings that a setting selects.
pub type MoreSettings = fn(&Assignments) -> Result<SettingsTable, MethodError>;

/// The registry entry of a method.
pub struct MethodEntry {
    /// Its name.
    pub name: &'static str,
    /// A one-line summary.
    pub summary: &'static str,
    /// Authors, title and year of the paper.
    pub paper: &'static str,
    /// Whether it makes anomaly maps.
    pub maps: bool,
    /// The fewest training images of a fit.
    pub min_images: usize,
    /// Its cost.
    pub cost: Cost,
    /// Its settings.
    pub table: fn() -> SettingsTable,
    /// Further settings that depend on the given ones, such as those of a scorer.
    pub more: Option<MoreSettings>,
    /// What it sees of images.
    pub sees: Sees,
    /// The default preprocessing.
    pub input: fn() -> InputParams,
    /// Whether it models classes of images.
    pub classes: bool,
    /// Whether it trains a network. Such fits write checkpoints and resume from them.
    pub trains: bool,
    /// Results from its paper.
    pub published: &'static [Published],
    /// Tables from its paper that `nomaly eval --one-vs-all` compares with.
    pub one_vs_all: &'static [PublishedClasses],
    /// Checks the settings against the backbone.
    pub build: BuildMethod,
}

impl MethodEntry {
    /// Its settings, including those that `given` selects.
    ///
    /// # Errors
    /// An unknown selection.
    pub fn settings(&self, given: &Assignments) -> Result<SettingsTable, MethodError> {
        let more = self.more.map_or_else(|| Ok(SettingsTable::default()), |more| more(given))?;
        Ok(SettingsTable::joined([&(self.table)(), &more]))
    }
}

impl Entry for MethodEntry {
    fn name(&self) -> &str {
        self.name
    }
    fn summary(&self) -> &str {
        self.summary
    }
}
