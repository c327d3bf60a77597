//! What a method is to the detector that runs it, and to the registry that lists it.

use std::path::Path;

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_data::subset::{Choice, choose};
use nomaly_registry::Entry;
use nomaly_scorers::State;
use nomaly_settings::{Assignments, Memory, Settings, Table};
use nomaly_store::Progress;

use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::input::InputParams;
use crate::recognition::HeldOutClass;
use crate::score::{HeldOut, MethodScore};
use crate::training::Checkpoint;
use crate::workspace::MethodWorkspace;

/// A method whose parameters have been checked and which has seen no data yet.
pub trait Method: Send + Sync {
    /// The name it has in the [registry](crate::METHODS).
    fn name(&self) -> &'static str;

    /// The features that it looks at, in the order in which [`FeatureBatch`] holds them.
    fn taps(&self) -> &[TapRequest];

    /// Its parameters in full, defaults included, as the model file keeps them.
    fn settings(&self) -> Assignments;

    /// Refuses inputs of `[height, width]` pixels that the method cannot work on. Asked before a fit, and when a model
    /// file is read.
    ///
    /// # Errors
    /// The setting that does not fit the input.
    fn check_input(&self, _input: [usize; 2]) -> Result<(), MethodError> {
        Ok(())
    }

    /// Learns what is normal from the images behind `source`.
    ///
    /// The held-out scores come from images of [groups](FeatureSource::groups) that the scorer giving them had not
    /// seen.
    ///
    /// # Errors
    /// Too few images, or numbers that the method cannot use.
    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError>;

    /// Whether models can be updated.
    fn updates(&self) -> Updates {
        Updates::Never
    }

    /// Adds the images behind `source` to what a fit has learned, without its training images.
    ///
    /// `states` are those of the fit. The held-out scores are those of the added images, under the fit that had not
    /// seen them.
    ///
    /// # Errors
    /// [`MethodError::NotExtendable`] for methods that have to see all images at once, [`MethodError::NotUpdatable`]
    /// for a model that does not keep what an update needs, and everything that [`fit`](Method::fit) fails with.
    fn extend(
        &self,
        _states: Vec<(String, State)>,
        _source: &dyn FeatureSource,
        _context: &FitContext<'_>,
    ) -> Result<MethodFit, MethodError> {
        Err(MethodError::NotExtendable { method: self.name().to_owned() })
    }

    /// What a fit may take.
    fn max_memory(&self) -> Memory {
        Memory::gib(2)
    }

    /// Whether a fit looks at images more than once, so that it pays to keep their frames.
    fn revisits(&self) -> bool {
        false
    }

    /// Rebuilds the fitted method from the named states of a model file.
    ///
    /// # Errors
    /// A state that is missing or does not fit the parameters.
    fn restore(&self, states: Vec<(String, State)>) -> Result<Box<dyn FittedMethod>, MethodError>;
}

/// Whether the models of a method can take in further images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updates {
    /// No: it has to see all images at once.
    Never,
    /// Those that were fitted to be [updatable](FitContext::updatable), which makes the file larger.
    Kept,
    /// All of them.
    Always,
}

/// What a fit is told beside the images.
#[derive(Clone, Copy)]
pub struct FitContext<'a> {
    /// Decides every random choice.
    pub seed: u64,
    /// Told how far the fit is, and asked whether to go on.
    pub progress: &'a dyn Progress,
    /// The folder where a method that trains keeps its checkpoint, so that a fit that was interrupted goes on from
    /// there; `None` for none.
    pub checkpoints: Option<&'a Path>,
    /// How many held-out images keep their maps, for those of several sizes to be added up; `None` for one size.
    pub most_maps: Option<usize>,
    /// Bytes of `max_memory` that the fits of other sizes hold.
    pub occupied: u64,
    /// Whether the model keeps what it needs to be [updated](Method::extend), where it would not otherwise.
    pub updatable: bool,
}

impl<'a> FitContext<'a> {
    /// A fit without checkpoints.
    pub fn new(seed: u64, progress: &'a dyn Progress) -> Self {
        Self { seed, progress, checkpoints: None, most_maps: None, occupied: 0, updatable: false }
    }

    /// What the image with this number among the usable ones got.
    pub fn held_out(&self, image: usize, score: MethodScore) -> HeldOut {
        let held_out = HeldOut::new(image, &score);
        HeldOut { map: score.map.filter(|_| self.most_maps.is_some()), ..held_out }
    }

    /// The most images that are to be held out, of as many as a method would like.
    pub fn most_held_out(&self, images: usize) -> usize {
        self.most_maps.map_or(images, |most| most.min(images))
    }

    /// Which of `images` added images are held out: all, or a choice where their maps are kept.
    pub fn held_out_of(&self, images: usize) -> Vec<usize> {
        choose(images, self.most_held_out(images), Choice::Seeded(self.seed))
    }
}

/// What [`Method::fit`] gives.
pub struct MethodFit {
    /// The method fitted on all images.
    pub fitted: Box<dyn FittedMethod>,
    /// What training images get from a fit that had not seen them, nor any other image of their
    /// [group](FeatureSource::groups): all of them, or a random choice where that would take too long.
    pub held_out: Vec<HeldOut>,
    /// The same by the class that images are taken for, for methods that tell classes apart; else empty.
    pub classes: Vec<HeldOutClass>,
    /// How many images were learned from.
    pub images: usize,
    /// What the user should know of how the fit went: limits that were reached, choices that were made.
    pub notes: Vec<String>,
    /// The checkpoint of a training that has ended, which the same fit goes on from until it is
    /// [removed](Checkpoint::remove); `None` for methods that do not train, and fits without checkpoints.
    pub checkpoint: Option<Checkpoint>,
}

/// A method that has seen data: the only state that can score.
pub trait FittedMethod: Send + Sync {
    /// Scores each view of each image of a batch, in their order; *higher = more anomalous*. `workspace` is one that
    /// only this method has used.
    ///
    /// # Errors
    /// Features of another shape than those fitted on, or numbers that are not finite.
    fn score(&self, batch: &FeatureBatch<'_>, workspace: &mut MethodWorkspace)
    -> Result<Vec<MethodScore>, MethodError>;

    /// Everything needed to [restore](Method::restore) it, by name.
    fn states(&self) -> Vec<(String, State)>;

    /// Names of the [parts](MethodScore::parts) of a score, in order; empty for methods without parts.
    fn part_names(&self) -> Vec<String> {
        Vec::new()
    }

    /// Names of the [terms](MethodScore::terms) that a score is the sum of, in order; empty for methods whose score is
    /// none.
    fn term_names(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether its scores have a [deviation](MethodScore::deviation).
    fn scores_vary(&self) -> bool {
        false
    }

    /// The classes that it tells apart, ascending; the [parts](MethodScore::parts) of a score are those under each
    /// class then, and the score is the least of them. Empty for methods that know no classes.
    fn classes(&self) -> &[String] {
        &[]
    }

    /// The network that it trained; `None` for methods that judge by the features of the detector's backbone.
    fn network(&self) -> Option<MethodNetwork<'_>> {
        None
    }
}

/// A network by which images are judged.
#[derive(Clone, Debug)]
pub struct MethodNetwork<'a> {
    /// The network with its weights.
    pub backbone: &'a Backbone,
    /// Factor and summand that turn the values of a detector's views into the network's input.
    pub input: [f32; 2],
    /// What its classes are called; empty where they have no names.
    pub classes: Vec<String>,
}

/// A published figure of a method.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// The data set, and the backbone where the paper compares several.
    pub on: &'static str,
    /// The image-level AUROC in percent.
    pub image_auroc: f64,
    /// The pixel-level AUROC in percent, where it was published.
    pub pixel_auroc: Option<f64>,
    /// The area under the per-region overlap curve up to a false-positive rate of 0.3 in percent, where it was
    /// published.
    pub aupro: Option<f64>,
}

impl Published {
    /// A figure over whole images.
    pub const fn image(on: &'static str, image_auroc: f64) -> Self {
        Self { on, image_auroc, pixel_auroc: None, aupro: None }
    }
}

/// A published table of the one-against-all protocol, in percent AUROC.
#[derive(Clone, Copy, Debug)]
pub struct PublishedClasses {
    /// The name of the data set in nomaly.
    pub dataset: &'static str,
    /// Its classes, where their names alone tell the data set.
    pub classes: &'static [&'static str],
    /// What was run, for people.
    pub on: &'static str,
    /// The mean over all classes.
    pub mean: f64,
    /// The figure of each class in the order of their numbers; empty where the paper gives the mean alone.
    pub by_class: &'static [f64],
}

/// What a method costs beside running the backbone, in words.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// To fit.
    pub fit: &'static str,
    /// To score an image.
    pub predict: &'static str,
    /// What it keeps in memory.
    pub memory: &'static str,
}

/// Settings that are those of one method, so that a program can choose it by their type.
pub trait MethodParams: Settings {
    /// The method.
    const METHOD: &'static str;
}

/// Makes a checked method of settings and the backbone it is to stand on.
pub type BuildMethod = fn(&Assignments, &Backbone) -> Result<Box<dyn Method>, MethodError>;

/// The settings that a choice among the settings brings with it.
pub type MoreSettings = fn(&Assignments) -> Result<Table, MethodError>;

/// One method: what it is, and how it is made from settings.
pub struct MethodEntry {
    /// The name users type.
    pub name: &'static str,
    /// One line that says what it does.
    pub summary: &'static str,
    /// Authors, title, year.
    pub paper: &'static str,
    /// Whether it makes anomaly maps.
    pub maps: bool,
    /// The fewest training images it can be fitted on.
    pub min_images: usize,
    /// What it costs.
    pub cost: Cost,
    /// Its settings.
    pub table: fn() -> Table,
    /// Settings that it has besides, by what the settings choose: those of a scorer, say.
    pub more: Option<MoreSettings>,
    /// The only backbone that it stands on, where it cannot stand on all.
    pub backbone: Option<&'static str>,
    /// How images become its input where nothing else is said.
    pub input: fn() -> InputParams,
    /// Whether it tells classes of images apart.
    pub classes: bool,
    /// Whether it trains a network: its fit keeps a checkpoint, and goes on from it when it was interrupted.
    pub trains: bool,
    /// Figures of its paper.
    pub published: &'static [Published],
    /// Tables of its paper that `nomaly eval --one-vs-all` sets beside its own.
    pub one_vs_all: &'static [PublishedClasses],
    /// Checks the settings against the backbone.
    pub build: BuildMethod,
}

impl MethodEntry {
    /// Its settings, and those that a choice among `given` brings with it.
    ///
    /// # Errors
    /// A choice that is not known.
    pub fn settings(&self, given: &Assignments) -> Result<Table, MethodError> {
        let more = self.more.map_or_else(|| Ok(Table::default()), |more| more(given))?;
        Ok(Table::joined([&(self.table)(), &more]))
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
