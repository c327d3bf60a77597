//! What a method is to the detector that runs it.

use nomaly_backbones::TapRequest;
use nomaly_scorers::State;
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
