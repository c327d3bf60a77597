//! An ensemble of histograms on random projections (LODA).
//!
//! # What it computes
//! Each projection takes `√dim` of the columns (rounded down) with standard normal weights. The projected rows form a
//! histogram with bins of equal width, and the score of a row is the mean over the projections of the negative
//! logarithm of the share of rows in its bin. An empty bin and values outside the histogram count as 1e-12 rows. On a
//! projection on which all rows are equal the histogram is that one number.
//!
//! With `bins = auto` each projection takes the number `b` of bins, up to the root of the number `n` of rows, that
//! maximizes the penalized likelihood `Σ n_j ln(b n_j / n) - (b - 1 + (ln b)^2.5)`.
//!
//! # When to use
//! Many rows or columns and little time: a fit passes over the rows once per projection, and scoring takes `√dim`
//! multiplications and one look-up per projection. Projections of several columns detect some of the broken
//! correlations that histograms of single columns miss.
//!
//! # Parameters
//! `projections`, `bins` and `seed`: see [`RandomProjectionsOptions`].
//!
//! # Reference
//! Pevný, *Loda: lightweight on-line detector of anomalies* (2016), section 3; Birgé and Rozenholc, *How many bins
//! should be put in a regular histogram* (2006), for `auto`. PyOD's `LODA` makes the same histograms; in PyOD 2.1 its
//! look-up takes the bin beside the right one, and a value outside counts as in the first or last bin, so that scores
//! differ.

use ndarray::{ArrayView1, ArrayView2};
use nomaly_settings::{Auto, SettingError, Settings};
use rand::seq::index;
use rayon::prelude::*;

use crate::entry::{ScorerParams, check_settings};
use crate::random::{normals, stream};
use crate::scorer::{Scorer, State, Tensor, check_finite, check_rows};
use crate::{ScorerError, Watch};

const MAX_BINS: usize = 1 << 16;

/// The rows that an empty bin counts as.
const EMPTY: f64 = 1e-12;

/// Rows that are scored by one task.
const CHUNK: usize = 256;

/// The settings of [`RandomProjections`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct RandomProjectionsOptions {
    /// The number of projections.
    #[schemars(extend("minimum" = 1, "maximum" = 100_000))]
    pub projections: usize,
    /// The bins of each histogram; `auto`: for each its own number.
    #[schemars(extend("minimum" = 1, "maximum" = MAX_BINS))]
    pub bins: Auto<usize>,
    /// Which projections they are.
    pub seed: u64,
}

impl Default for RandomProjectionsOptions {
    /// 100 projections, each with a number of bins of its own.
    fn default() -> Self {
        Self { projections: 100, bins: Auto::Auto, seed: 0 }
    }
}

impl Settings for RandomProjectionsOptions {}

impl ScorerParams for RandomProjectionsOptions {
    const NAME: &'static str = "random-projections";
    const SUMMARY: &'static str = "how rare a row is on random projections (LODA)";
    type Fitted = RandomProjections;

    fn fit(&self, rows: ArrayView2<'_, f32>, watch: Watch<'_>) -> Result<RandomProjections, ScorerError> {
        RandomProjections::fit(rows, *self, watch)
    }

    fn restore(state: &State) -> Result<RandomProjections, ScorerError> {
        RandomProjections::from_state(state)
    }
}

/// Some columns and their weights.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedColumns {
    /// The columns, from 0.
    pub columns: Vec<u32>,
    /// As many finite weights.
    pub weights: Vec<f64>,
}

/// Random projections with a histogram on each.
#[derive(Clone, Debug)]
pub struct RandomProjections {
    dim: usize,
    rows: u32,
    /// All of the same number of columns.
    projections: Vec<WeightedColumns>,
    histograms: Vec<Histogram>,
    /// `-ln(share)` of each bin, and of values outside.
    tables: Vec<(Vec<f64>, f64)>,
}

/// Rows in bins of equal width.
#[derive(Clone, Debug, PartialEq)]
struct Histogram {
    low: f64,
    /// Equal to `low` if there is only one value.
    high: f64,
    /// The rows in each bin; a bin holds its lower border, the last one its upper border too.
    counts: Vec<u32>,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    dim: usize,
    rows: u32,
}

impl RandomProjections {
    /// Fits on rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for settings out of range, [`ScorerError::TooFewRows`] below 2 rows,
    /// [`ScorerError::NonFiniteFeature`], [`ScorerError::Cancelled`].
    pub fn fit(
        rows: ArrayView2<'_, f32>,
        options: RandomProjectionsOptions,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        check_finite(rows)?;
        check_settings(&options)?;
        let RandomProjectionsOptions { projections, bins, seed } = options;
        let dim = rows.ncols();
        let draw = |part: usize| {
            let mut rng = stream(seed, part);
            let mut columns: Vec<u32> =
                index::sample(&mut rng, dim, dim.isqrt()).into_iter().map(|column| column as u32).collect();
            columns.sort_unstable();
            WeightedColumns { weights: normals(&mut rng, columns.len()), columns }
        };
        Self::fit_along(rows, (0..projections).map(draw).collect(), bins, watch)
    }

    /// Fits on rows `[n, dim]` along given projections, which all have the same number of columns; `bins` as in
    /// [`RandomProjectionsOptions`].
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and [`ScorerError::Setting`] for projections that do not fit rows with `dim` columns.
    pub fn fit_along(
        rows: ArrayView2<'_, f32>,
        projections: Vec<WeightedColumns>,
        bins: Auto<usize>,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        check_finite(rows)?;
        check_settings(&RandomProjectionsOptions { bins, ..RandomProjectionsOptions::default() })?;
        let (n, dim) = rows.dim();
        let width = projections.first().map_or(0, |projection| projection.columns.len());
        if width == 0 || projections.iter().any(|projection| !projection.is_valid(width, dim)) {
            let expected = "the same number of existing columns for all, each with a finite weight";
            return Err(SettingError::value("projections", projections.len(), expected).into());
        }
        if n < 2 {
            return Err(ScorerError::TooFewRows { what: "a histogram", needed: 2, got: n });
        }
        let count = u32::try_from(n).map_err(|_| ScorerError::Numerical {
            what: "a histogram",
            reason: format!("{n} rows are too many to be counted, the limit is 2^32 - 1"),
        })?;
        let histogram = |projection: &WeightedColumns| {
            watch.check()?;
            let mut values: Vec<f64> = rows.outer_iter().map(|row| projection.of(row)).collect();
            Ok(Histogram::of(&mut values, bins))
        };
        let histograms = projections.par_iter().map(histogram).collect::<Result<_, ScorerError>>()?;
        Ok(Self::new(dim, count, projections, histograms))
    }

    fn new(dim: usize, rows: u32, projections: Vec<WeightedColumns>, histograms: Vec<Histogram>) -> Self {
        let tables = histograms.iter().map(Histogram::table).collect();
        Self { dim, rows, projections, histograms, tables }
    }

    /// The number of bins of each projection.
    pub fn bins(&self) -> impl Iterator<Item = usize> {
        self.histograms.iter().map(|histogram| histogram.counts.len())
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { dim, rows } = state.read_config()?;
        state.expect_only(&["bins", "borders", "columns", "counts", "weights"])?;
        let [count, width] = state.shape("columns")?;
        let columns = state.read_u32("columns", [count, width])?;
        if let Some(column) = columns.iter().find(|column| **column as usize >= dim) {
            return Err(state.tensor_error("columns", format!("there is no column {column} among {dim}")));
        }
        let weights = state.read_f64("weights", [count, width])?;
        // The Box–Muller transform of 53 bits is below 9; a far larger weight would leave the range of `f64`.
        if let Some(at) = weights.iter().position(|weight| weight.abs() > 1e100) {
            return Err(state.tensor_error("weights", format!("number {at} is too large")));
        }
        let projections = columns
            .chunks_exact(width)
            .zip(weights.chunks_exact(width))
            .map(|(columns, weights)| WeightedColumns { columns: columns.to_vec(), weights: weights.to_vec() })
            .collect();
        let bins = state.read_u32("bins", [count])?;
        let [total] = state.shape("counts")?;
        let counts = state.read_u32("counts", [total])?;
        let dealt: u64 = bins.iter().map(|bins| u64::from(*bins)).sum();
        if bins.contains(&0) || dealt != total as u64 {
            return Err(state.tensor_error("bins", format!("does not deal out {total} bins to {count} projections")));
        }
        let borders = state.read_f64("borders", [count, 2])?;
        let mut first = 0;
        let mut histograms = Vec::with_capacity(count);
        for (at, (bins, borders)) in bins.iter().zip(borders.chunks_exact(2)).enumerate() {
            let counts = counts[first..first + *bins as usize].to_vec();
            first += counts.len();
            let histogram = Histogram { low: borders[0], high: borders[1], counts };
            if !histogram.is_valid(rows) {
                return Err(state
                    .tensor_error("counts", format!("the histogram of projection {at} does not count {rows} rows")));
            }
            histograms.push(histogram);
        }
        Ok(Self::new(dim, rows, projections, histograms))
    }
}

impl Scorer for RandomProjections {
    fn dim(&self) -> usize {
        self.dim
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim)?;
        let mut scores = vec![0.0f64; rows.nrows()];
        scores.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, scores)| {
            for ((projection, histogram), (table, outside)) in
                self.projections.iter().zip(&self.histograms).zip(&self.tables)
            {
                for (offset, score) in scores.iter_mut().enumerate() {
                    let value = projection.of(rows.row(chunk * CHUNK + offset));
                    *score += histogram.bin(value).map_or(*outside, |bin| table[bin]);
                }
            }
            scores.iter_mut().for_each(|score| *score /= self.projections.len() as f64);
        });
        Ok(scores)
    }

    fn state(&self) -> State {
        let count = self.projections.len();
        let columns: Vec<u32> = self.projections.iter().flat_map(|projection| projection.columns.clone()).collect();
        let weights = self.projections.iter().flat_map(|projection| projection.weights.clone()).collect();
        let counts: Vec<u32> = self.histograms.iter().flat_map(|histogram| histogram.counts.clone()).collect();
        let borders = self.histograms.iter().flat_map(|histogram| [histogram.low, histogram.high]).collect();
        let width = columns.len() / count;
        State::new(
            RandomProjectionsOptions::NAME,
            &Config { dim: self.dim, rows: self.rows },
            [
                ("bins", Tensor::u32([count], self.bins().map(|bins| bins as u32).collect())),
                ("borders", Tensor::f64([count, 2], borders)),
                ("columns", Tensor::u32([count, width], columns)),
                ("counts", Tensor::u32([counts.len()], counts)),
                ("weights", Tensor::f64([count, width], weights)),
            ],
        )
    }
}

impl WeightedColumns {
    fn of(&self, row: ArrayView1<'_, f32>) -> f64 {
        self.columns.iter().zip(&self.weights).map(|(column, weight)| weight * f64::from(row[*column as usize])).sum()
    }

    fn is_valid(&self, width: usize, dim: usize) -> bool {
        self.columns.len() == width
            && self.weights.len() == width
            && self.columns.iter().all(|column| (*column as usize) < dim)
            && self.weights.iter().all(|weight| weight.abs() <= 1e100)
    }
}

impl Histogram {
    /// The histogram of at least one value; sorts the values if the number of bins is chosen automatically.
    fn of(values: &mut [f64], bins: Auto<usize>) -> Self {
        let (low, high) = values
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
        let bins = match bins {
            _ if low == high => 1,
            Auto::Value(bins) => bins,
            Auto::Auto => {
                values.sort_unstable_by(f64::total_cmp);
                best_bins(values)
            }
        };
        let mut histogram = Self { low, high, counts: vec![0; bins] };
        for value in values {
            if let Some(bin) = histogram.bin(*value) {
                histogram.counts[bin] += 1;
            }
        }
        histogram
    }

    /// The lower border of a bin.
    fn border(&self, bin: usize) -> f64 {
        if bin == self.counts.len() {
            return self.high;
        }
        self.low + bin as f64 * ((self.high - self.low) / self.counts.len() as f64)
    }

    /// The bin that holds a value, as in NumPy: an estimate, corrected by the borders.
    fn bin(&self, value: f64) -> Option<usize> {
        if !(self.low..=self.high).contains(&value) {
            return None;
        }
        if self.low == self.high {
            return Some(0);
        }
        let bins = self.counts.len();
        let bin = (((value - self.low) / (self.high - self.low) * bins as f64) as usize).min(bins - 1);
        if bin > 0 && value < self.border(bin) {
            Some(bin - 1)
        } else if bin + 1 < bins && value >= self.border(bin + 1) {
            Some(bin + 1)
        } else {
            Some(bin)
        }
    }

    fn table(&self) -> (Vec<f64>, f64) {
        let bins = self.counts.len() as f64;
        let total = self.counts.iter().map(|count| f64::from(*count)).sum::<f64>() + bins * EMPTY;
        let cost = |count: f64| -((count + EMPTY) / total).ln();
        (self.counts.iter().map(|count| cost(f64::from(*count))).collect(), cost(0.0))
    }

    fn is_valid(&self, rows: u32) -> bool {
        let range = 1..=MAX_BINS;
        let counted: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let is_range = self.low < self.high || (self.low == self.high && self.counts.len() == 1);
        range.contains(&self.counts.len()) && rows > 0 && counted == u64::from(rows) && is_range
    }
}

/// The number of bins of equal width, up to the root of the number of the sorted values, with the largest penalized
/// likelihood.
fn best_bins(sorted: &[f64]) -> usize {
    let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
    let count = sorted.len() as f64;
    let mut best = (1, f64::NEG_INFINITY);
    for bins in 1..=sorted.len().isqrt() {
        let width = (high - low) / bins as f64;
        let mut likelihood = 0.0;
        let mut from = 0;
        for bin in 1..=bins {
            let to = if bin == bins {
                sorted.len()
            } else {
                let border = low + bin as f64 * width;
                from + sorted[from..].partition_point(|value| *value < border)
            };
            if to > from {
                let rows = (to - from) as f64;
                likelihood += rows * (bins as f64 * rows / count).ln();
            }
            from = to;
        }
        let likelihood = likelihood - (bins as f64 - 1.0 + (bins as f64).ln().powf(2.5));
        if likelihood > best.1 {
            best = (bins, likelihood);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_those_of_the_definition() {
        let mut values = [0.0, 0.25, 0.3, 0.5, 1.0];
        let histogram = Histogram::of(&mut values, Auto::Value(4));
        assert_eq!(histogram.counts, [1, 2, 1, 1]);
        let bins = [-0.1, 0.0, 0.25, 0.7499, 0.75, 1.0, 1.1].map(|value| histogram.bin(value));
        assert_eq!(bins, [None, Some(0), Some(1), Some(2), Some(3), Some(3), None]);
        let one = Histogram::of(&mut [0.1; 3], Auto::Auto);
        assert_eq!((one.bin(0.1), one.bin(0.2), one.counts.len()), (Some(0), None, 1));
    }

    #[test]
    fn even_values_need_one_bin_and_two_groups_more() {
        let mut even: Vec<f64> = (0..1000).map(f64::from).collect();
        assert_eq!(Histogram::of(&mut even, Auto::Auto).counts.len(), 1);
        let mut groups: Vec<f64> = (0..1000).map(|i| f64::from(i % 2 * 9000 + i)).collect();
        let bins = Histogram::of(&mut groups, Auto::Auto).counts.len();
        assert!((8..=31).contains(&bins), "{bins}");
    }
}
