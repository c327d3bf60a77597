//! The distance from the nearest k-means center.
//!
//! # What it computes
//! Rows are put in groups by k-means; the score is the L2 distance of a row from the nearest center, as it is or
//! divided by the spread of that group: the root of the mean squared distance of the group's own rows from their
//! center. A group whose spread is below a millionth of that of all rows together holds rows that are equal up to
//! rounding, and takes the spread of all; where that is zero too, distances are left as they are.
//!
//! # When to use
//! Where normal items fall into compact groups of about the same size in all directions, and a memory bank would be too
//! large or too slow: it keeps one row per group. `relative` where some groups are much wider than others.
//!
//! # Parameters
//! `clusters`, `distance` and `seed`: see [`ClusteringOptions`].
//!
//! # Reference
//! Chandola, Banerjee and Kumar, *Anomaly detection: a survey* (2009), section 6 (clustering-based techniques, the
//! distance to the closest centroid); Arthur and Vassilvitskii, *k-means++: the advantages of careful seeding* (2007).

use ndarray::ArrayView2;
use nomaly_settings::Settings;

use super::Groups;
use crate::choice::named_choice;
use crate::entry::{ScorerParams, check_settings};
use crate::scorer::{Scorer, State, check_rows};
use crate::{ScorerError, Watch};

/// Groups of a smaller share of the whole spread hold rows that are equal up to rounding.
const EQUAL: f64 = 1e-6;

named_choice! {
    /// How the distance from a center is measured.
    ClusterDistance {
        /// The L2 distance.
        Plain = "plain",
        /// The L2 distance over the spread of the group.
        Relative = "relative",
    }
}

/// The settings of a [`Clustering`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct ClusteringOptions {
    /// The groups that k-means makes, at most the rows of the fit; fewer where there are fewer distinct rows.
    #[schemars(extend("minimum" = 1))]
    pub clusters: usize,
    /// Whether the distance from a center is divided by the spread of the group.
    pub distance: ClusterDistance,
    /// Where k-means starts.
    pub seed: u64,
}

impl Default for ClusteringOptions {
    /// Plain distances from the centers of 8 groups.
    fn default() -> Self {
        Self { clusters: 8, distance: ClusterDistance::Plain, seed: 0 }
    }
}

impl Settings for ClusteringOptions {}

impl ScorerParams for ClusteringOptions {
    const NAME: &'static str = "clustering";
    const SUMMARY: &'static str = "distance from the nearest k-means centre";
    type Fitted = Clustering;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<Clustering, ScorerError> {
        Clustering::fit(rows, *self, watch)
    }

    fn restore(state: &State) -> Result<Clustering, ScorerError> {
        Clustering::from_state(state)
    }
}

/// The centers of groups of rows.
#[derive(Clone, Debug)]
pub struct Clustering {
    distance: ClusterDistance,
    groups: Groups,
    /// The divisor of the distance from each center, positive.
    spreads: Vec<f64>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    distance: ClusterDistance,
}

impl Clustering {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::TooFewRows`] for fewer rows than groups, [`ScorerError::Setting`] without groups,
    /// [`ScorerError::NonFiniteFeature`], [`ScorerError::Cancelled`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: ClusteringOptions, watch: Watch<'_>) -> Result<Self, ScorerError> {
        check_settings(&options)?;
        Ok(Self::new(options.distance, Groups::fit(rows, options.clusters, options.seed, watch)?))
    }

    fn new(distance: ClusterDistance, groups: Groups) -> Self {
        let spreads = match distance {
            ClusterDistance::Plain => vec![1.0; groups.len()],
            ClusterDistance::Relative => spreads(&groups),
        };
        Self { distance, groups, spreads }
    }

    /// The number of groups.
    pub fn clusters(&self) -> usize {
        self.groups.len()
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { distance } = state.read_config()?;
        Ok(Self::new(distance, Groups::from_state(state)?))
    }
}

impl Scorer for Clustering {
    fn dim(&self) -> usize {
        self.groups.dim()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        let nearest = self.groups.means.assign(rows);
        Ok(nearest.into_iter().map(|(group, square)| square.sqrt() / self.spreads[group as usize]).collect())
    }

    fn state(&self) -> State {
        State::new(ClusteringOptions::NAME, &Config { distance: self.distance }, self.groups.tensors())
    }
}

fn spreads(groups: &Groups) -> Vec<f64> {
    let root = |square: f64, rows: f64| (square / rows).sqrt();
    let rows = groups.sizes.iter().map(|size| f64::from(*size)).sum();
    let whole = root(groups.squares.iter().sum(), rows);
    let whole = if whole > 0.0 { whole } else { 1.0 };
    let spread = |(square, size): (&f64, &u32)| {
        let spread = root(*square, f64::from(*size));
        if spread > EQUAL * whole { spread } else { whole }
    };
    groups.squares.iter().zip(&groups.sizes).map(spread).collect()
}
