//! Histograms of the columns (HBOS).
//!
//! # What it computes
//! A histogram of equal bins for each column, over the range of its values. With `h` the density of a value's bin
//! divided by that of even values, `bins · count / n`, the score of a row is `-Σ ln((h + alpha) / (1 + alpha))`. A
//! value outside of the range by at most `tolerance` bins counts as one of the outermost bin; one farther away meets an
//! empty bin, `h = 0`. A column that is constant in the fit is one bin of that value alone.
//!
//! With `bins = auto` each column has the number of bins, below the root of the number of rows, that maximizes
//! `Σ count ln(bins · count / n) - (bins - 1 + ln(bins)^2.5)`, the likelihood less a penalty.
//!
//! PyOD's implementation differs in three points. It adds `alpha` to densities in the units of the column, so that its
//! scores change with the unit; on columns scaled to the range 0 to 1 the scores agree up to constants and the base of
//! the logarithm. Outside of the range it takes the rarest bin, which may be well filled. Its `auto` adds 1 inside of
//! the logarithm, which is not in the paper.
//!
//! # When to use
//! As a fast baseline where columns are nearly independent, and where a fit on millions of rows must take seconds. It
//! is blind to anomalies that show only in combinations of columns.
//!
//! # Parameters
//! `alpha`, `bins` and `tolerance`: see [`HistogramOptions`].
//!
//! # Reference
//! Goldstein and Dengel, *Histogram-based outlier score (HBOS): a fast unsupervised anomaly detection algorithm*
//! (2012); Birgé and Rozenholc, *How many bins should be put in a regular histogram* (2006), for `auto`.

use ndarray::ArrayView2;
use nomaly_settings::{Auto, Settings};
use rayon::prelude::*;

use crate::entry::{ScorerParams, check_settings};
use crate::scorer::{Scorer, State, Tensor, check_finite, check_rows};
use crate::{ScorerError, Watch};

/// Rows that one task scores.
const CHUNK: usize = 256;

/// The settings of [`Histograms`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct HistogramOptions {
    /// What is added to each density, as a share of that of even values.
    ///
    /// It bounds what one column can add to a score.
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = 1))]
    pub alpha: f64,
    /// The number of bins of each column that is not constant; `auto`: for each its own.
    #[schemars(extend("minimum" = 1, "maximum" = 1_000_000))]
    pub bins: Auto<usize>,
    /// How far outside of the range a value still belongs to the last bin, in bins.
    #[schemars(extend("minimum" = 0, "maximum" = 1))]
    pub tolerance: f64,
}

impl Default for HistogramOptions {
    /// As many bins as the rows support, with the regularization of PyOD.
    fn default() -> Self {
        Self { alpha: 0.1, bins: Auto::Auto, tolerance: 0.5 }
    }
}

impl Settings for HistogramOptions {}

impl ScorerParams for HistogramOptions {
    const NAME: &'static str = "histogram";
    const SUMMARY: &'static str = "negative logarithm of the densities of the columns, from histograms (HBOS)";
    type Fitted = Histograms;

    fn fit(&self, rows: ArrayView2<'_, f32>, _: Watch<'_>) -> Result<Histograms, ScorerError> {
        Histograms::fit(rows, *self)
    }

    fn restore(state: &State) -> Result<Histograms, ScorerError> {
        Histograms::from_state(state)
    }
}

/// A histogram for each column.
#[derive(Clone, Debug)]
pub struct Histograms {
    alpha: f64,
    tolerance: f64,
    rows: u64,
    columns: Vec<Column>,
}

/// The histogram of a column.
#[derive(Clone, Debug)]
struct Column {
    range: Range,
    counts: Vec<u32>,
    /// The contribution of each bin to the score.
    scores: Vec<f64>,
    /// The contribution of a value outside all bins.
    outside: f64,
}

/// Equal bins between two values.
#[derive(Clone, Copy, Debug)]
struct Range {
    lower: f64,
    upper: f64,
    bins: usize,
    /// The bins in one unit of the column; 0 where it is constant.
    per_unit: f64,
}

impl Range {
    fn new(lower: f64, upper: f64, bins: usize) -> Self {
        let per_unit = if upper > lower { bins as f64 / (upper - lower) } else { 0.0 };
        Self { lower, upper, bins, per_unit }
    }

    /// The bin of a value in the range; the upper end belongs to the last.
    fn bin(&self, value: f64) -> usize {
        (((value - self.lower) * self.per_unit) as usize).min(self.bins - 1)
    }

    /// The bin of any value, if it has one.
    fn find(&self, value: f64, tolerance: f64) -> Option<usize> {
        let outside = (self.lower - value).max(value - self.upper);
        // A constant column has no width to scale the tolerance.
        let within = outside <= 0.0 || (self.per_unit > 0.0 && outside * self.per_unit <= tolerance);
        within.then(|| self.bin(value.max(self.lower)))
    }
}

impl Column {
    fn new(range: Range, counts: Vec<u32>, rows: u64, alpha: f64) -> Self {
        let score = |count: u32| {
            let density = range.bins as f64 * f64::from(count) / rows as f64;
            -((density + alpha) / (1.0 + alpha)).ln()
        };
        Self { range, scores: counts.iter().copied().map(score).collect(), counts, outside: score(0) }
    }

    fn fit(mut values: Vec<f32>, options: &HistogramOptions) -> Self {
        let (lower, upper) = values
            .iter()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(lower, upper), value| (lower.min(*value), upper.max(*value)));
        let (lower, upper) = (f64::from(lower), f64::from(upper));
        let bins = match options.bins {
            _ if lower == upper => 1,
            Auto::Value(count) => count,
            Auto::Auto => {
                values.sort_unstable_by(f32::total_cmp);
                likeliest_bins(&values)
            }
        };
        let range = Range::new(lower, upper, bins);
        let mut counts = vec![0u32; bins];
        values.iter().for_each(|value| counts[range.bin(f64::from(*value))] += 1);
        Self::new(range, counts, values.len() as u64, options.alpha)
    }
}

/// The number of bins with the largest penalized likelihood, for sorted values that are not all equal.
fn likeliest_bins(values: &[f32]) -> usize {
    let count = values.len();
    let (lower, upper) = (f64::from(values[0]), f64::from(values[count - 1]));
    let mut best = (1, 0.0);
    for bins in 2..count.isqrt().max(2) {
        let range = Range::new(lower, upper, bins);
        let mut from = 0;
        let mut likelihood = 0.0;
        for bin in 0..bins {
            let width = values[from..].partition_point(|value| range.bin(f64::from(*value)) <= bin);
            if width > 0 {
                likelihood += width as f64 * (bins as f64 * width as f64 / count as f64).ln();
            }
            from += width;
        }
        let penalized = likelihood - (bins as f64 - 1.0 + (bins as f64).ln().powf(2.5));
        if penalized > best.1 {
            best = (bins, penalized);
        }
    }
    best.0
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    alpha: f64,
    rows: u64,
    tolerance: f64,
}

impl Histograms {
    /// Counts the values of each column of the rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Setting`], [`ScorerError::TooFewRows`] without rows and [`ScorerError::NonFiniteFeature`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: HistogramOptions) -> Result<Self, ScorerError> {
        check_settings(&options)?;
        check_finite(rows)?;
        if rows.nrows() == 0 {
            return Err(ScorerError::TooFewRows { what: "a histogram", needed: 1, got: 0 });
        }
        let columns =
            (0..rows.ncols()).into_par_iter().map(|column| Column::fit(rows.column(column).to_vec(), &options));
        let columns = columns.collect();
        Ok(Self { alpha: options.alpha, tolerance: options.tolerance, rows: rows.nrows() as u64, columns })
    }

    /// The number of bins of each column.
    pub fn bins(&self) -> Vec<usize> {
        self.columns.iter().map(|column| column.counts.len()).collect()
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { alpha, rows, tolerance } = state.read_config()?;
        let options = HistogramOptions { alpha, tolerance, ..HistogramOptions::default() };
        check_settings(&options).map_err(|error| state.config_error(error.to_string()))?;
        state.expect_only(&["bins", "counts", "lower", "upper"])?;
        let [dim] = state.shape("bins")?;
        let [total] = state.shape("counts")?;
        let bins = state.read_u32("bins", [dim])?;
        let mut counts = state.read_u32("counts", [total])?;
        let (lower, upper) = (state.read_f64("lower", [dim])?, state.read_f64("upper", [dim])?);
        if bins.iter().map(|bins| u64::from(*bins)).sum::<u64>() != total as u64 {
            return Err(state.tensor_error("counts", format!("{total} counts are not those of the bins")));
        }
        let mut columns = Vec::with_capacity(dim);
        for (at, bins) in bins.iter().enumerate() {
            let (own, rest) = counts.split_at(*bins as usize);
            counts = rest;
            if own.iter().map(|count| u64::from(*count)).sum::<u64>() != rows || own.is_empty() || rows == 0 {
                return Err(state.tensor_error("counts", format!("those of column {at} are not those of {rows} rows")));
            }
            let constant = lower[at] == upper[at] && own.len() == 1;
            if !constant && lower[at] >= upper[at] {
                return Err(state.tensor_error("upper", format!("column {at} ends before it begins")));
            }
            columns.push(Column::new(Range::new(lower[at], upper[at], own.len()), own.to_vec(), rows, alpha));
        }
        Ok(Self { alpha, tolerance, rows, columns })
    }
}

impl Scorer for Histograms {
    fn dim(&self) -> usize {
        self.columns.len()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        let mut scores = vec![0.0f64; rows.nrows()];
        scores.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, scores)| {
            for (at, score) in scores.iter_mut().enumerate() {
                let values = rows.row(chunk * CHUNK + at);
                let parts = values.iter().zip(&self.columns).map(|(value, column)| {
                    let bin = column.range.find(f64::from(*value), self.tolerance);
                    bin.map_or(column.outside, |bin| column.scores[bin])
                });
                *score = parts.sum();
            }
        });
        Ok(scores)
    }

    fn state(&self) -> State {
        let dim = self.dim();
        let ends = |end: fn(&Range) -> f64| self.columns.iter().map(|column| end(&column.range)).collect();
        let counts: Vec<u32> = self.columns.iter().flat_map(|column| column.counts.iter().copied()).collect();
        let bins = self.columns.iter().map(|column| column.counts.len() as u32).collect();
        State::new(
            HistogramOptions::NAME,
            &Config { alpha: self.alpha, rows: self.rows, tolerance: self.tolerance },
            [
                ("bins", Tensor::u32([dim], bins)),
                ("counts", Tensor::u32([counts.len()], counts)),
                ("lower", Tensor::f64([dim], ends(|range| range.lower))),
                ("upper", Tensor::f64([dim], ends(|range| range.upper))),
            ],
        )
    }
}
