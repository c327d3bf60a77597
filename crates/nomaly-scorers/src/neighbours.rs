//! The distance from the nearest rows of a memory bank.
//!
//! # What it computes
//! The distances from a row to its `k` nearest rows of the fit, exactly (no index, no approximation), and their mean,
//! their sum, or the largest of them.
//!
//! # When to use
//! Where normal items fall into groups that a single Gaussian would merge. `k = 2` with the mean of squared L2
//! distances on pooled features of a pretrained network is the DN2 method; `k = 50` with L2 is the image score of
//! SPADE.
//!
//! # Parameters
//! `k`, `distance` and `aggregation`: see [`NeighboursOptions`].
//!
//! # Reference
//! Ramaswamy, Rastogi and Shim, *Efficient algorithms for mining outliers from large data sets* (2000), for the k-th
//! distance; Angiulli and Pizzuti, *Fast outlier detection in high dimensional spaces* (2002), for the sum; Reiss,
//! Cohen, Bergman and Hoshen, *PANDA: adapting pretrained features for anomaly detection and segmentation* (2021), for
//! DN2.

use std::borrow::Cow;

use ndarray::ArrayView2;
use nomaly_kernels::isa::Isa;
use nomaly_kernels::neighbours::{Bank, Metric};
use nomaly_settings::{Assignments, SettingError, Settings};

use crate::choice::named_choice;
use crate::entry::{ScorerParams, check_settings};
use crate::scorer::{Scorer, State, Tensor, check_finite, check_rows};
use crate::{ScorerError, Watch};

named_choice! {
    /// How far two rows are apart.
    Distance {
        /// `‖a - b‖`.
        L2 = "l2",
        /// `‖a - b‖²`.
        SquaredL2 = "squared-l2",
        /// `1 - cos(a, b)`; a row of zeros is at distance 1 from every other row.
        Cosine = "cosine",
    }
}

named_choice! {
    /// What becomes of the distances to the nearest rows.
    Aggregation {
        /// The distance to the k-th nearest row.
        Kth = "kth",
        /// The mean of the k distances.
        Mean = "mean",
        /// The sum of the k distances.
        Sum = "sum",
    }
}

/// The settings of [`NearestNeighbours`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NeighboursOptions {
    /// What becomes of the distances to the nearest rows.
    pub aggregation: Aggregation,
    /// How far two rows are apart.
    pub distance: Distance,
    /// The number of nearest rows, at most the rows of the fit.
    #[schemars(extend("minimum" = 1))]
    pub k: usize,
}

impl Default for NeighboursOptions {
    /// DN2: the mean squared L2 distance to the 2 nearest rows.
    fn default() -> Self {
        Self { aggregation: Aggregation::Mean, distance: Distance::SquaredL2, k: 2 }
    }
}

impl Settings for NeighboursOptions {}

impl ScorerParams for NeighboursOptions {
    const NAME: &'static str = "neighbours";
    const SUMMARY: &'static str = "distance from the k nearest normal rows";
    type Fitted = NearestNeighbours;

    fn fit(&self, rows: ArrayView2<'_, f32>, _: Watch<'_>) -> Result<NearestNeighbours, ScorerError> {
        NearestNeighbours::fit(rows, *self)
    }

    fn restore(state: &State) -> Result<NearestNeighbours, ScorerError> {
        NearestNeighbours::from_state(state)
    }
}

/// A memory bank of rows.
#[derive(Clone, Debug)]
pub struct NearestNeighbours {
    options: NeighboursOptions,
    bank: Bank<'static>,
}

impl NearestNeighbours {
    /// Stores the rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::TooFewRows`] where `k` is larger than `n`, [`ScorerError::Setting`] where it is 0,
    /// [`ScorerError::NonFiniteFeature`], [`ScorerError::InstructionSet`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: NeighboursOptions) -> Result<Self, ScorerError> {
        check_finite(rows)?;
        check_settings(&options)?;
        if rows.nrows() < options.k {
            return Err(ScorerError::TooFewRows { what: "the memory bank", needed: options.k, got: rows.nrows() });
        }
        Self::new(options, rows.ncols(), rows.iter().copied().collect())
    }

    fn new(options: NeighboursOptions, dim: usize, bank: Vec<f32>) -> Result<Self, ScorerError> {
        let isa = Isa::best().map_err(|error| ScorerError::InstructionSet(error.to_string()))?;
        let metric = match options.distance {
            Distance::L2 | Distance::SquaredL2 => Metric::SquaredL2,
            Distance::Cosine => Metric::Cosine,
        };
        Ok(Self { options, bank: Bank::new(bank, dim, metric, isa)? })
    }

    /// Appends the bank of another scorer, fitted with the same options on other rows: the result is that of a fit on
    /// the rows of both.
    ///
    /// # Errors
    /// [`ScorerError::Dimension`], [`ScorerError::Setting`] where the options differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), ScorerError> {
        if other.dim() != self.dim() {
            return Err(ScorerError::Dimension { expected: self.dim(), got: other.dim() });
        }
        let (own, others) = (Assignments::of(&self.options), Assignments::of(&other.options));
        if let Some(((name, own), (_, other))) = own.iter().zip(others.iter()).find(|(own, other)| own != other) {
            return Err(SettingError::value(name, other, &format!("`{own}`, as in the bank before it")).into());
        }
        Ok(self.bank.append(other.bank.rows())?)
    }

    /// Appends further rows `[n, dim]`: the result is that of a fit on all of them.
    ///
    /// # Errors
    /// [`ScorerError::Dimension`], [`ScorerError::NonFiniteFeature`].
    pub fn push_rows(&mut self, rows: ArrayView2<'_, f32>) -> Result<(), ScorerError> {
        check_rows(rows, self.dim())?;
        Ok(self.bank.append(&rows.iter().copied().collect::<Vec<_>>())?)
    }

    /// The settings.
    pub fn options(&self) -> NeighboursOptions {
        self.options
    }

    /// The number of rows in the bank.
    pub fn rows(&self) -> usize {
        self.bank.len()
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let options: NeighboursOptions = state.read_config()?;
        state.expect_only(&["bank"])?;
        let [rows, dim] = state.shape("bank")?;
        if options.k == 0 || options.k > rows {
            return Err(state.config_error(format!("{} neighbours in a bank of {rows} rows", options.k)));
        }
        Self::new(options, dim, state.read_f32("bank", [rows, dim])?.to_vec())
    }
}

impl Scorer for NearestNeighbours {
    fn dim(&self) -> usize {
        self.bank.dim()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        let NeighboursOptions { aggregation, distance, k } = self.options;
        let queries =
            rows.to_slice().map_or_else(|| Cow::Owned(rows.iter().copied().collect::<Vec<_>>()), Cow::Borrowed);
        let found = self.bank.top_k(&queries, k)?;
        let measure = |found: &f32| match distance {
            Distance::L2 => f64::from(*found).sqrt(),
            Distance::SquaredL2 | Distance::Cosine => f64::from(*found),
        };
        let score = |near: &[f32]| match aggregation {
            Aggregation::Kth => measure(&near[k - 1]),
            Aggregation::Mean => near.iter().map(measure).sum::<f64>() / k as f64,
            Aggregation::Sum => near.iter().map(measure).sum(),
        };
        Ok(found.distances.chunks_exact(k).map(score).collect())
    }

    fn state(&self) -> State {
        let bank = Tensor::f32([self.rows(), self.dim()], self.bank.rows().to_vec());
        State::new(NeighboursOptions::NAME, &self.options, [("bank", bank)])
    }
}
