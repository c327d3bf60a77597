//! The cluster-based local outlier factor.
//!
//! # What it computes
//! Rows are put in groups by k-means, and the groups, largest first, are divided into large and small ones: the border
//! is the first place at which the groups before it hold at least the share `alpha` of the rows and the last of them
//! has at least `beta` times the rows of the next; where there is none, the first that satisfies the condition on
//! `alpha`, else the first that satisfies the one on `beta`, else all groups are large. The score of a row whose
//! nearest center is that of a large group is its L2 distance from it; that of another row is its distance from the
//! nearest center of a large group. With `use_weights` the score is multiplied by the number of rows in the group of
//! the nearest center, as in the paper.
//!
//! # When to use
//! Where the rows of the fit are not all normal, so that small groups of anomalies may be among them: `clustering`
//! takes such a group for normal, this scorer does not. The weights of the paper make rows of the largest groups the
//! most anomalous where groups differ much in size, which is why they are off by default, as in PyOD.
//!
//! # Parameters
//! `clusters`, `alpha`, `beta`, `use_weights` and `seed`: see [`CblofOptions`].
//!
//! # Reference
//! He, Xu and Deng, *Discovering cluster-based local outliers* (2003), definitions 3 and 4, with k-means in place of
//! their algorithm Squeezer, as PyOD's `CBLOF`.

use ndarray::{ArrayView2, Axis};
use nomaly_settings::Settings;

use super::{Groups, with_centers};
use crate::entry::{ScorerParams, check_settings};
use crate::kmeans::KMeans;
use crate::scorer::{Scorer, State, check_rows};
use crate::{ScorerError, Watch};

/// The settings of a [`Cblof`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct CblofOptions {
    /// The groups that k-means makes, at most the rows of the fit; fewer where there are fewer distinct rows.
    #[schemars(extend("minimum" = 1))]
    pub clusters: usize,
    /// The share of the rows that large groups hold.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub alpha: f64,
    /// How many times larger the smallest large group is than the largest small one.
    #[schemars(extend("exclusiveMinimum" = 1))]
    pub beta: f64,
    /// Whether the score is multiplied by the rows of the group.
    pub use_weights: bool,
    /// Where k-means starts.
    pub seed: u64,
}

impl Default for CblofOptions {
    /// The settings of the paper, without weights.
    fn default() -> Self {
        Self { clusters: 8, alpha: 0.9, beta: 5.0, use_weights: false, seed: 0 }
    }
}

impl Settings for CblofOptions {}

impl ScorerParams for CblofOptions {
    const NAME: &'static str = "cblof";
    const SUMMARY: &'static str = "distance from the nearest large group of rows (CBLOF)";
    type Fitted = Cblof;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<Cblof, ScorerError> {
        Cblof::fit(rows, *self, watch)
    }

    fn restore(state: &State) -> Result<Cblof, ScorerError> {
        Cblof::from_state(state)
    }
}

/// Groups of rows, divided into large and small ones.
#[derive(Clone, Debug)]
pub struct Cblof {
    config: Config,
    groups: Groups,
    is_large: Vec<bool>,
    /// The centers of the large groups.
    large: KMeans,
}

#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    alpha: f64,
    beta: f64,
    use_weights: bool,
}

impl Cblof {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for settings out of range, [`ScorerError::TooFewRows`] for fewer rows than groups,
    /// [`ScorerError::NonFiniteFeature`], [`ScorerError::Cancelled`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: CblofOptions, watch: Watch<'_>) -> Result<Self, ScorerError> {
        check_settings(&options)?;
        let CblofOptions { clusters, alpha, beta, use_weights, seed } = options;
        Ok(Self::new(Config { alpha, beta, use_weights }, Groups::fit(rows, clusters, seed, watch)?))
    }

    fn new(config: Config, groups: Groups) -> Self {
        let order = by_size(&groups.sizes);
        let mut large = order[..border(&order, &groups.sizes, config.alpha, config.beta)].to_vec();
        large.sort_unstable();
        let mut is_large = vec![false; groups.len()];
        large.iter().for_each(|group| is_large[*group] = true);
        let large = with_centers(groups.means.centers.select(Axis(0), &large));
        Self { config, groups, is_large, large }
    }

    /// The number of large groups and of all groups.
    pub fn clusters(&self) -> (usize, usize) {
        (self.large.centers.nrows(), self.groups.len())
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let config: Config = state.read_config()?;
        let Config { alpha, beta, use_weights } = config;
        let options = CblofOptions { alpha, beta, use_weights, ..CblofOptions::default() };
        check_settings(&options).map_err(|error| state.config_error(error.to_string()))?;
        Ok(Self::new(config, Groups::from_state(state)?))
    }
}

impl Scorer for Cblof {
    fn dim(&self) -> usize {
        self.groups.dim()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        let mut nearest = self.groups.means.assign(rows);
        let outside: Vec<usize> = (0..nearest.len()).filter(|row| !self.is_large[nearest[*row].0 as usize]).collect();
        let distances = self.large.assign(rows.select(Axis(0), &outside).view());
        for (row, (_, square)) in outside.into_iter().zip(distances) {
            nearest[row].1 = square;
        }
        let weight = |group: u32| {
            if self.config.use_weights { f64::from(self.groups.sizes[group as usize]) } else { 1.0 }
        };
        Ok(nearest.into_iter().map(|(group, square)| weight(group) * square.sqrt()).collect())
    }

    fn state(&self) -> State {
        State::new(CblofOptions::NAME, &self.config, self.groups.tensors())
    }
}

/// The groups, largest first; ties keep their order.
fn by_size(sizes: &[u32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|group| std::cmp::Reverse(sizes[*group]));
    order
}

/// How many of the groups in `order` are large.
fn border(order: &[usize], sizes: &[u32], alpha: f64, beta: f64) -> usize {
    let size = |place: usize| f64::from(sizes[order[place]]);
    let rows: f64 = (0..order.len()).map(size).sum();
    let hold_enough = |border: &usize| (0..*border).map(size).sum::<f64>() >= rows * alpha;
    let drops = |border: &usize| size(border - 1) / size(*border) >= beta;
    let first = |condition: &dyn Fn(&usize) -> bool| (1..order.len()).find(condition);
    first(&|border| hold_enough(border) && drops(border))
        .or_else(|| first(&hold_enough))
        .or_else(|| first(&drops))
        .unwrap_or(order.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_border_follows_the_definition() {
        let check = |sizes: &[u32], alpha: f64, beta: f64, large: usize| {
            assert_eq!(border(&by_size(sizes), sizes, alpha, beta), large, "{sizes:?} {alpha} {beta}");
        };
        // Both conditions: 95 of 100 rows, and 45 is nine times 5.
        check(&[5, 50, 45], 0.9, 5.0, 2);
        // No drop: the share alone.
        check(&[30, 30, 20, 20], 0.5, 5.0, 2);
        // The share is reached with the last group only: the drop alone.
        check(&[90, 6, 4], 0.99, 5.0, 1);
        // Neither.
        check(&[40, 30, 30], 0.9, 5.0, 3);
        check(&[7], 0.9, 5.0, 1);
    }
}
