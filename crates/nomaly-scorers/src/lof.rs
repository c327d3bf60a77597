//! The local outlier factor: how sparse the surroundings of a row are compared with those of its neighbours.
//!
//! # What it computes
//! With `d_k(o)` the distance from a row `o` of the fit to its k-th nearest other row, the reachability distance of `p`
//! from `o` is `max(d_k(o), d(p, o))`. The local reachability density `lrd(p)` is 1 over the mean of that distance over
//! the `k` rows nearest to `p`, and the score the mean of `lrd(o) / lrd(p)` over the same rows: about 1 inside a group
//! of rows however dense it is, and larger the sparser it is around `p` than around its neighbours. Neighbours are
//! found exactly; ties go to the rows that come first in the fit, and there are always `k` neighbours.
//!
//! More than `k` equal rows are at distance 0 from each other and have no finite density; 1e-10 is added to every mean,
//! as scikit-learn does, which gives such rows a factor of 1 among themselves and a very large one to a row that stands
//! apart from them. Features should therefore be of a scale that makes 1e-10 small.
//!
//! # When to use
//! Where normal items form groups of different density, so that no single distance divides normal from anomalous. The
//! bank of all rows is searched for each row scored, as with `neighbours`.
//!
//! # Parameters
//! `k` and `distance`: see [`LofOptions`].
//!
//! # Reference
//! Breunig, Kriegel, Ng and Sander, *LOF: identifying density-based local outliers* (2000), definitions 3 to 7; as
//! scikit-learn's `LocalOutlierFactor(novelty=True)` for `l2` and `cosine`, whose `score_samples` is the score with its
//! sign changed.

use std::borrow::Cow;

use ndarray::ArrayView2;
use nomaly_kernels::isa::Isa;
use nomaly_kernels::neighbours::{Bank, Metric};
use nomaly_settings::Settings;
use rayon::prelude::*;

use crate::choice::named_choice;
use crate::entry::{ScorerParams, check_settings};
use crate::scorer::{Scorer, State, Tensor, check_finite, check_rows};
use crate::{ScorerError, Watch};

/// Keeps densities finite where more than `k` rows are equal; scikit-learn's number.
const EPSILON: f64 = 1e-10;

/// Rows of the fit whose neighbours are searched between two checks for cancellation.
const SEARCH: usize = 4096;

named_choice! {
    /// How far two rows are apart.
    LofDistance {
        /// `‖a - b‖`.
        L2 = "l2",
        /// `1 - cos(a, b)`; a row of zeros is at distance 1 from every other row.
        Cosine = "cosine",
    }
}

/// The settings of a [`Lof`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LofOptions {
    /// How far two rows are apart.
    pub distance: LofDistance,
    /// The number of nearest rows; all other rows where there are fewer.
    #[schemars(extend("minimum" = 1))]
    pub k: usize,
}

impl Default for LofOptions {
    /// The 20 nearest rows by their L2 distance.
    fn default() -> Self {
        Self { distance: LofDistance::L2, k: 20 }
    }
}

impl Settings for LofOptions {}

impl ScorerParams for LofOptions {
    const NAME: &'static str = "lof";
    const SUMMARY: &'static str = "how sparse the surroundings are beside those of the nearest normal rows";
    type Fitted = Lof;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<Lof, ScorerError> {
        Lof::fit(rows, *self, watch)
    }

    fn restore(state: &State) -> Result<Lof, ScorerError> {
        Lof::from_state(state)
    }
}

/// The rows of a fit with the density around each.
#[derive(Clone, Debug)]
pub struct Lof {
    /// `k` is below the number of rows.
    options: LofOptions,
    bank: Bank<'static>,
    /// The distance from each row to its k-th nearest other row.
    reach: Vec<f64>,
    /// The local reachability density of each row.
    density: Vec<f64>,
}

impl Lof {
    /// Fits on rows `[n, dim]`; takes the search of `n` rows among `n`.
    ///
    /// # Errors
    /// [`ScorerError::TooFewRows`] below 2 rows, [`ScorerError::Setting`] where `k` is 0,
    /// [`ScorerError::NonFiniteFeature`], [`ScorerError::Neighbours`] for rows too long to square in `f32`,
    /// [`ScorerError::InstructionSet`], [`ScorerError::Cancelled`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: LofOptions, watch: Watch<'_>) -> Result<Self, ScorerError> {
        check_finite(rows)?;
        let (n, dim) = rows.dim();
        check_settings(&options)?;
        if n < 2 {
            return Err(ScorerError::TooFewRows { what: "the local outlier factor", needed: 2, got: n });
        }
        let options = LofOptions { k: options.k.min(n - 1), ..options };
        let bank = bank(options, dim, rows.iter().copied().collect())?;
        let (neighbours, distances) = neighbours_of_own_rows(&bank, options, watch)?;
        let k = options.k;
        let reach: Vec<f64> = distances.chunks_exact(k).map(|distances| distances[k - 1]).collect();
        let density = neighbours
            .chunks_exact(k)
            .zip(distances.chunks_exact(k))
            .map(|(neighbours, distances)| density_at(neighbours, distances, &reach))
            .collect();
        Ok(Self { options, bank, reach, density })
    }

    /// The settings; `k` is at most the number of rows less one.
    pub fn options(&self) -> LofOptions {
        self.options
    }

    /// The number of rows of the fit.
    pub fn rows(&self) -> usize {
        self.bank.len()
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let options: LofOptions = state.read_config()?;
        state.expect_only(&["bank", "density", "reach"])?;
        let [rows, dim] = state.shape("bank")?;
        if options.k == 0 || options.k >= rows {
            return Err(state.config_error(format!("{} neighbours in a bank of {rows} rows", options.k)));
        }
        let reach = state.read_f64("reach", [rows])?.to_vec();
        if let Some(at) = reach.iter().position(|reach| *reach < 0.0) {
            return Err(state.tensor_error("reach", format!("number {at} is negative")));
        }
        let density = state.read_f64("density", [rows])?.to_vec();
        // Distances of `f32` numbers are below 1e20, and 1e-10 is added to each mean.
        let range = 1e-21..=1.0 / EPSILON;
        if let Some(at) = density.iter().position(|density| !range.contains(density)) {
            return Err(state.tensor_error("density", format!("number {at} is not a mean distance")));
        }
        let bank = bank(options, dim, state.read_f32("bank", [rows, dim])?.to_vec())?;
        Ok(Self { options, bank, reach, density })
    }
}

impl Scorer for Lof {
    fn dim(&self) -> usize {
        self.bank.dim()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        let k = self.options.k;
        let queries =
            rows.to_slice().map_or_else(|| Cow::Owned(rows.iter().copied().collect::<Vec<_>>()), Cow::Borrowed);
        let found = self.bank.top_k(&queries, k)?;
        let factor = |(neighbours, distances): (&[u32], &[f32])| {
            let distances: Vec<f64> = distances.iter().map(|found| measure(self.options.distance, *found)).collect();
            let around: f64 = neighbours.iter().map(|row| self.density[*row as usize]).sum();
            around / k as f64 / density_at(neighbours, &distances, &self.reach)
        };
        Ok(found.indices.par_chunks_exact(k).zip(found.distances.par_chunks_exact(k)).map(factor).collect())
    }

    fn state(&self) -> State {
        let rows = self.rows();
        State::new(
            LofOptions::NAME,
            &self.options,
            [
                ("bank", Tensor::f32([rows, self.dim()], self.bank.rows().to_vec())),
                ("density", Tensor::f64([rows], self.density.clone())),
                ("reach", Tensor::f64([rows], self.reach.clone())),
            ],
        )
    }
}

fn bank(options: LofOptions, dim: usize, rows: Vec<f32>) -> Result<Bank<'static>, ScorerError> {
    let isa = Isa::best().map_err(|error| ScorerError::InstructionSet(error.to_string()))?;
    let metric = match options.distance {
        LofDistance::L2 => Metric::SquaredL2,
        LofDistance::Cosine => Metric::Cosine,
    };
    Ok(Bank::new(rows, dim, metric, isa)?)
}

fn measure(distance: LofDistance, found: f32) -> f64 {
    match distance {
        LofDistance::L2 => f64::from(found).sqrt(),
        LofDistance::Cosine => f64::from(found),
    }
}

/// The `k` nearest other rows of each row of the bank and their distances, `[n, k]` each, nearest first.
fn neighbours_of_own_rows(
    bank: &Bank<'_>,
    options: LofOptions,
    watch: Watch<'_>,
) -> Result<(Vec<u32>, Vec<f64>), ScorerError> {
    let LofOptions { distance, k } = options;
    let mut neighbours = Vec::with_capacity(bank.len() * k);
    let mut distances = Vec::with_capacity(bank.len() * k);
    for (part, queries) in bank.rows().chunks(SEARCH * bank.dim()).enumerate() {
        watch.check()?;
        let found = bank.top_k(queries, k + 1)?;
        let lists = found.indices.chunks_exact(k + 1).zip(found.distances.chunks_exact(k + 1));
        for (offset, (indices, squares)) in lists.enumerate() {
            let own = (part * SEARCH + offset) as u32;
            // The row itself is missing from its list only where more than `k` equal rows come before it, all at
            // distance 0; then the last of them is left out.
            let others = indices.iter().zip(squares).filter(|(index, _)| **index != own).take(k);
            for (index, square) in others {
                neighbours.push(*index);
                distances.push(measure(distance, *square));
            }
        }
    }
    Ok((neighbours, distances))
}

/// 1 over the mean reachability distance from the neighbours.
fn density_at(neighbours: &[u32], distances: &[f64], reach: &[f64]) -> f64 {
    let far = neighbours.iter().zip(distances).map(|(row, distance)| distance.max(reach[*row as usize]));
    1.0 / (far.sum::<f64>() / neighbours.len() as f64 + EPSILON)
}
