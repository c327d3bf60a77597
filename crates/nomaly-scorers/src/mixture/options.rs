//! The settings of mixtures.

use ndarray::ArrayView2;
use nomaly_settings::{Auto, Settings};

use super::{Mixture, MixtureCovariance};
use crate::entry::ScorerParams;
use crate::scorer::State;
use crate::{ScorerError, Watch};

/// The settings of a [`Mixture`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct MixtureOptions {
    /// The number of Gaussians; `auto`: the number from 1 to 8 with the smallest BIC.
    #[schemars(extend("minimum" = 1))]
    pub components: Auto<usize>,
    /// What the Gaussians may look like.
    pub covariance: MixtureCovariance,
    /// The share of the mean variance of the columns that is added to every variance.
    ///
    /// It keeps covariances positive definite where a component has few rows, or rows that depend on one another.
    #[schemars(extend("minimum" = 0))]
    pub floor: f64,
    /// The most steps of EM.
    #[schemars(extend("minimum" = 1))]
    pub max_iterations: usize,
    /// Decides the random choices of the start.
    pub seed: u64,
    /// The number of starts, of which the likeliest is kept.
    #[schemars(extend("minimum" = 1))]
    pub starts: usize,
    /// EM ends once the mean log-likelihood of a row changes by less.
    #[schemars(extend("minimum" = 0))]
    pub tolerance: f64,
}

impl Default for MixtureOptions {
    /// As many full Gaussians as the Bayesian information criterion asks for, from one start.
    fn default() -> Self {
        Self {
            components: Auto::Auto,
            covariance: MixtureCovariance::Full,
            floor: 1e-6,
            max_iterations: 100,
            seed: 0,
            starts: 1,
            tolerance: 1e-3,
        }
    }
}

impl Settings for MixtureOptions {}

impl ScorerParams for MixtureOptions {
    const NAME: &'static str = "gmm";
    const SUMMARY: &'static str = "negative log-likelihood under a mixture of Gaussians";
    type Fitted = Mixture;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<Mixture, ScorerError> {
        Mixture::fit(rows, *self, watch)
    }

    fn restore(state: &State) -> Result<Mixture, ScorerError> {
        Mixture::from_state(state)
    }
}
