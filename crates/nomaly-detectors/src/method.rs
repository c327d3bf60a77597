//! What a method is to the detector that runs it, and to the registry that lists it.

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_registry::Entry;
use nomaly_scorers::{Parameter, State};
use nomaly_store::Progress;

use crate::features::{FeatureBatch, FeatureSource};
use crate::{DetectorError, Settings};

/// A method whose parameters have been checked and which has seen no data yet.
pub trait Method: Send + Sync {
    /// The name it has in the [registry](crate::METHODS).
    fn name(&self) -> &'static str;

    /// The features that it looks at, in the order in which [`FeatureBatch`] holds them.
    fn taps(&self) -> &[TapRequest];

    /// Its parameters in full, defaults included, as the model file keeps them.
    fn settings(&self) -> Settings;

    /// Learns what is normal from the images behind `source`.
    ///
    /// `seed` decides every random choice. The held-out scores come from images that the scorer giving them had not
    /// seen.
    ///
    /// # Errors
    /// Too few images, or numbers that the method cannot use.
    fn fit(&self, source: &dyn FeatureSource, seed: u64, progress: &dyn Progress) -> Result<MethodFit, DetectorError>;

    /// Rebuilds the fitted method from the named states of a model file.
    ///
    /// # Errors
    /// A state that is missing or does not fit the parameters.
    fn restore(&self, states: &[(String, State)]) -> Result<Box<dyn FittedMethod>, DetectorError>;
}

/// What [`Method::fit`] gives.
pub struct MethodFit {
    /// The method fitted on all images.
    pub fitted: Box<dyn FittedMethod>,
    /// One score for each training image, given by a fit that had not seen it.
    pub held_out: Vec<f64>,
}

/// A method that has seen data: the only state that can score.
pub trait FittedMethod: Send + Sync {
    /// Scores each image of a batch; *higher = more anomalous*.
    ///
    /// # Errors
    /// Features of another shape than those fitted on, or numbers that are not finite.
    fn score(&self, batch: &FeatureBatch<'_>) -> Result<Vec<MethodScore>, DetectorError>;

    /// Everything needed to [restore](Method::restore) it, by name.
    fn states(&self) -> Vec<(String, State)>;

    /// Names of the [parts](MethodScore::parts) of a score, in order; empty for methods without parts.
    fn part_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The score of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodScore {
    /// The anomaly score, *higher = more anomalous*.
    pub score: f64,
    /// Scores of the parts it was made of (one a level, say), named by [`FittedMethod::part_names`].
    pub parts: Vec<f64>,
}

/// A published figure of a method.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// The data set, and the backbone where the paper compares several.
    pub on: &'static str,
    /// The image-level AUROC in percent.
    pub image_auroc: f64,
}

/// Makes a checked method of settings and the backbone it is to stand on.
pub type BuildMethod = fn(&Settings, &Backbone) -> Result<Box<dyn Method>, DetectorError>;

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
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// Figures of its paper.
    pub published: &'static [Published],
    /// Checks the settings against the backbone.
    pub build: BuildMethod,
}

impl Entry for MethodEntry {
    fn name(&self) -> &str {
        self.name
    }
    fn summary(&self) -> &str {
        self.summary
    }
}
