//! Kernel density estimation with a Gaussian kernel.
//!
//! # What it computes
//! A density `p(x) = 1/n Σ N(x; x_i, H)`: a Gaussian around each of the `n` rows of the fit. The score of a row is
//! `-ln p(x)`, taken by log-sum-exp over blocks of rows, so it stays finite at any distance. Distances are in double
//! precision, the exponentials of their differences in single, which leaves about seven digits of the density.
//!
//! The bandwidth is a rule of thumb, `scott`: `f = n^(-1/(d+4))`, or `silverman`: `f = (n (d+2)/4)^(-1/(d+4))`, which
//! is multiplied with the spread of the rows as `shape` says; or a number, which is the standard deviation of the
//! kernel in every direction, in the units of the columns.
//!
//! # When to use
//! Where normal items have no simple distribution and rows have few columns: the number of rows that a density needs
//! grows exponentially with the columns, so reduce deep features first. `full` follows correlated columns and needs
//! more rows than columns; take `diagonal` where there are fewer. Fit and scoring visit every row: scoring takes `n d`
//! multiplications per row.
//!
//! # Parameters
//! `bandwidth` and `shape`: see [`KdeOptions`].
//!
//! # Reference
//! Parzen, *On estimation of a probability density function and mode* (1962); Scott, *Multivariate density estimation*
//! (1992), section 6.3; Silverman, *Density estimation for statistics and data analysis* (1986), section 4.3.

use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Mat, Par};
use ndarray::{Array2, ArrayView2};
use nomaly_kernels::exponentials::ExponentialSum;
use nomaly_kernels::isa::Isa;
use nomaly_settings::{Settings, word_or_value};

use crate::choice::named_choice;
use crate::entry::{ScorerParams, check_settings};
use crate::gaussian::GaussianStatistics;
use crate::scorer::{Scorer, State, Tensor, check_finite, check_rows};
use crate::{ScorerError, Watch, linalg, pairs};

/// Blocks of the density's sum are skipped if all their terms are smaller than the largest so far by this factor (a
/// logarithm): double precision would lose them too.
const NEGLIGIBLE: f64 = 45.0;

/// Standard deviations below this share of the largest value are rounding of a constant column.
const CONSTANT: f64 = 1e-12;

/// The share of the mean variance that a constant column is given.
const CONSTANT_SHARE: f64 = 1e-6;

word_or_value! {
    /// The width of the kernel.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub enum Bandwidth {
        /// `n^(-1/(d+4))` times the spread of the rows.
        Scott = "scott",
        /// `(n (d+2)/4)^(-1/(d+4))` times the spread of the rows.
        Silverman = "silverman",
        ;
        /// A standard deviation in every direction, in the units of the columns; the shape is then not used.
        Absolute(f64) { "exclusiveMinimum": 0 },
    }
}

named_choice! {
    /// What the factor of a rule is multiplied with. Variances divide by the number of rows less one, as SciPy's do.
    KernelShape {
        /// The covariance of the rows: the kernel is as long and as skew as they are. Needs more rows than columns, and
        /// no column that follows from others.
        Full = "full",
        /// The standard deviation of each column. A column that is constant in all rows is given a millionth of the
        /// mean variance.
        Diagonal = "diagonal",
        /// The root of the mean variance of the columns.
        Isotropic = "isotropic",
    }
}

/// The settings of a [`KernelDensity`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct KdeOptions {
    /// The width of the kernel: a rule, or a standard deviation in the units of the columns.
    pub bandwidth: Bandwidth,
    /// What a rule is multiplied with: covariance, standard deviation of each column, or their mean.
    pub shape: KernelShape,
}

impl Default for KdeOptions {
    /// Scott's rule with the covariance of the rows.
    fn default() -> Self {
        Self { bandwidth: Bandwidth::Scott, shape: KernelShape::Full }
    }
}

impl Settings for KdeOptions {}

impl ScorerParams for KdeOptions {
    const NAME: &'static str = "kde";
    const SUMMARY: &'static str = "negative logarithm of a density of Gaussian kernels around the normal rows";
    type Fitted = KernelDensity;

    fn fit(&self, rows: ArrayView2<'_, f32>, _: Watch<'_>) -> Result<KernelDensity, ScorerError> {
        KernelDensity::fit(rows, *self)
    }

    fn restore(state: &State) -> Result<KernelDensity, ScorerError> {
        KernelDensity::from_state(state)
    }
}

/// Rows with a Gaussian kernel around each of them.
#[derive(Clone, Debug)]
pub struct KernelDensity {
    /// The rows of the fit, `[n, dim]`.
    rows: Array2<f32>,
    mean: Vec<f64>,
    kernel: Kernel,
    /// Scaled rows: half their squared distance is the exponent of the kernel.
    bank: pairs::Rows,
    /// The logarithm of the density minus that of the sum of kernels.
    constant: f64,
}

/// A root of the covariance of the kernel.
#[derive(Clone, Debug)]
enum Kernel {
    /// The Cholesky factor, lower triangle, and its inverse row by row.
    Full { factor: Mat<f64>, inverse: Vec<f64> },
    /// The standard deviation of each column.
    Axes(Vec<f64>),
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    form: Form,
}

named_choice! {
    /// How the kernel is stored.
    Form {
        /// As the rows of a lower triangle.
        Factor = "factor",
        /// As a standard deviation for each column.
        Axes = "axes",
    }
}

impl KernelDensity {
    /// Stores the rows `[n, dim]` and determines the width of the kernel.
    ///
    /// # Errors
    /// [`ScorerError::Setting`], [`ScorerError::TooFewRows`] below 2 rows (1 for an absolute bandwidth),
    /// [`ScorerError::ConstantRows`] and, for `full`, [`ScorerError::Numerical`] where the covariance is singular,
    /// [`ScorerError::NonFiniteFeature`].
    pub fn fit(rows: ArrayView2<'_, f32>, options: KdeOptions) -> Result<Self, ScorerError> {
        check_settings(&options)?;
        check_finite(rows)?;
        let (count, dim) = rows.dim();
        let (n, d) = (count as f64, dim as f64);
        let factor = match options.bandwidth {
            Bandwidth::Scott => n.powf(-1.0 / (d + 4.0)),
            Bandwidth::Silverman => (n * (d + 2.0) / 4.0).powf(-1.0 / (d + 4.0)),
            Bandwidth::Absolute(width) => {
                if count == 0 {
                    return Err(ScorerError::TooFewRows { what: "a kernel density", needed: 1, got: 0 });
                }
                return Self::new(rows.to_owned(), Kernel::Axes(vec![width; dim]));
            }
        };
        if count < 2 {
            return Err(ScorerError::TooFewRows { what: "a kernel density", needed: 2, got: count });
        }
        let statistics = GaussianStatistics::from_rows(rows)?;
        let covariance = |row: usize, column: usize| statistics.scatter(row, column) / (n - 1.0);
        let mut variances: Vec<f64> = (0..dim).map(|column| covariance(column, column)).collect();
        let mean_variance = variances.iter().sum::<f64>() / d;
        let is_constant = |column: usize| variances[column].sqrt() <= CONSTANT * statistics.mean()[column].abs();
        let constant: Vec<usize> = (0..dim).filter(|column| is_constant(*column)).collect();
        if constant.len() == dim {
            return Err(ScorerError::ConstantRows { rows: count as u64 });
        }
        let kernel = match options.shape {
            KernelShape::Isotropic => Kernel::Axes(vec![factor * mean_variance.sqrt(); dim]),
            KernelShape::Diagonal => {
                constant.into_iter().for_each(|column| variances[column] = CONSTANT_SHARE * mean_variance);
                Kernel::Axes(variances.iter().map(|variance| factor * variance.sqrt()).collect())
            }
            KernelShape::Full => {
                let singular = || ScorerError::Numerical {
                    what: "the kernel density",
                    reason: format!(
                        "the covariance of {count} rows in {dim} dimensions is singular; use shape `diagonal` or more rows"
                    ),
                };
                if count <= dim {
                    return Err(singular());
                }
                let matrix = Mat::from_fn(dim, dim, |row, column| factor * factor * covariance(row, column));
                Kernel::full(linalg::cholesky(matrix).ok_or_else(singular)?)
            }
        };
        Self::new(rows.to_owned(), kernel)
    }

    fn new(rows: Array2<f32>, kernel: Kernel) -> Result<Self, ScorerError> {
        let (count, dim) = rows.dim();
        let mean = linalg::mean(rows.view());
        let mut values = vec![0.0f64; count * dim];
        for (target, row) in values.chunks_exact_mut(dim).zip(rows.outer_iter()) {
            kernel.whiten(row.iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean), target);
        }
        let normalizer = 0.5 * dim as f64 * (2.0 * std::f64::consts::PI).ln();
        let constant = (count as f64).ln() + normalizer + kernel.log_root_determinant();
        if !constant.is_finite() || values.iter().any(|value| !value.is_finite()) {
            let reason = "the bandwidth is out of proportion to the rows".to_owned();
            return Err(ScorerError::Numerical { what: "the kernel density", reason });
        }
        Ok(Self { rows, mean, kernel, bank: pairs::Rows::new(values, dim), constant })
    }

    /// The number of rows of the fit.
    pub fn rows(&self) -> usize {
        self.rows.nrows()
    }

    /// Restores the scorer from its [`state`](Scorer::state).
    ///
    /// # Errors
    /// As [`restore`](crate::restore).
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        let Config { form } = state.read_config()?;
        state.expect_only(&["factor", "rows"])?;
        let [count, dim] = state.shape("rows")?;
        let values = state.read_f32("rows", [count, dim])?;
        let rows = Array2::from_shape_fn((count, dim), |(row, column)| values[row * dim + column]);
        let positive = |numbers: &[f64]| match numbers.iter().position(|number| *number <= 0.0) {
            Some(at) => Err(state.tensor_error("factor", format!("standard deviation {at} is not positive"))),
            None => Ok(()),
        };
        let kernel = match form {
            Form::Axes => {
                let axes = state.read_f64("factor", [dim])?;
                positive(axes)?;
                Kernel::Axes(axes.to_vec())
            }
            Form::Factor => {
                let too_large = || state.tensor_error("factor", format!("{dim} dimensions are too many"));
                let packed = dim.checked_mul(dim).and_then(|square| square.checked_add(dim)).ok_or_else(too_large)? / 2;
                let lower = state.read_f64("factor", [packed])?;
                let at = |row: usize, column: usize| lower[row * (row + 1) / 2 + column];
                positive(&(0..dim).map(|row| at(row, row)).collect::<Vec<_>>())?;
                Kernel::full(Mat::from_fn(dim, dim, |row, column| if column > row { 0.0 } else { at(row, column) }))
            }
        };
        Self::new(rows, kernel).map_err(|error| state.config_error(error.to_string()))
    }
}

impl Kernel {
    fn full(mut factor: Mat<f64>) -> Self {
        let dim = factor.nrows();
        (0..dim).for_each(|row| (row + 1..dim).for_each(|column| factor[(row, column)] = 0.0));
        let mut inverse = Mat::identity(dim, dim);
        solve_lower_triangular_in_place(factor.as_ref(), inverse.as_mut(), Par::Seq);
        let inverse =
            (0..dim).flat_map(|row| (0..dim).map(move |column| (row, column))).map(|at| inverse[at]).collect();
        Self::Full { factor, inverse }
    }

    /// Scales a row, less the mean, so that the squared distance of two is twice the exponent of their kernel.
    fn whiten(&self, row: impl Iterator<Item = f64>, target: &mut [f64]) {
        match self {
            Self::Full { inverse, .. } => {
                let row: Vec<f64> = row.collect();
                for (at, (target, inverse)) in target.iter_mut().zip(inverse.chunks_exact(row.len())).enumerate() {
                    *target = inverse[..=at].iter().zip(&row).map(|(factor, value)| factor * value).sum();
                }
            }
            Self::Axes(axes) => {
                for ((target, value), width) in target.iter_mut().zip(row).zip(axes) {
                    *target = value / width;
                }
            }
        }
    }

    /// Half the logarithm of the determinant of the covariance.
    fn log_root_determinant(&self) -> f64 {
        match self {
            Self::Full { factor, .. } => (0..factor.nrows()).map(|at| factor[(at, at)].ln()).sum(),
            Self::Axes(axes) => axes.iter().map(|width| width.ln()).sum(),
        }
    }
}

/// A sum of exponentials, as `sum · exp(-nearest)`.
struct LogSum {
    exponentials: ExponentialSum,
    nearest: f64,
    sum: f64,
}

impl LogSum {
    /// Adds `exp(-distance / 2)` for each of the squared distances.
    fn add(&mut self, distances: &[f64]) {
        let nearest = 0.5 * least(distances);
        if nearest > self.nearest + NEGLIGIBLE {
            return;
        }
        if nearest < self.nearest {
            self.sum *= (nearest - self.nearest).exp();
            self.nearest = nearest;
        }
        self.sum += self.exponentials.sum(distances, 0.5, self.nearest);
    }
}

/// The minimum of numbers without NaN, in parallel chains of comparisons.
fn least(values: &[f64]) -> f64 {
    let smaller = |least: f64, value: f64| if value < least { value } else { least };
    let mut lanes = [f64::INFINITY; 8];
    let whole = values.chunks_exact(lanes.len());
    let rest = whole.remainder().iter().copied().fold(f64::INFINITY, smaller);
    for values in whole {
        lanes.iter_mut().zip(values).for_each(|(least, value)| *least = smaller(*least, *value));
    }
    lanes.into_iter().fold(rest, smaller)
}

impl Scorer for KernelDensity {
    fn dim(&self) -> usize {
        self.mean.len()
    }

    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        Ok(self.log_likelihood(rows)?.into_iter().map(|log| -log).collect())
    }

    fn log_likelihood(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        check_rows(rows, self.dim())?;
        let load = |at: usize, target: &mut [f64]| {
            let row = rows.row(at);
            self.kernel.whiten(row.iter().zip(&self.mean).map(|(value, mean)| f64::from(*value) - mean), target);
        };
        let isa = Isa::best().map_err(|error| ScorerError::InstructionSet(error.to_string()))?;
        let exponentials = ExponentialSum::new(isa).map_err(|error| ScorerError::InstructionSet(error.to_string()))?;
        let start = |_| LogSum { exponentials, nearest: f64::INFINITY, sum: 0.0 };
        let end = |found: LogSum| found.sum.ln() - found.nearest - self.constant;
        Ok(self.bank.fold(rows.nrows(), load, start, |sum, _, distances| sum.add(distances), end))
    }

    fn state(&self) -> State {
        let (form, factor) = match &self.kernel {
            Kernel::Full { factor, .. } => {
                let lower = (0..self.dim()).flat_map(|row| (0..=row).map(move |column| (row, column)));
                (Form::Factor, lower.map(|at| factor[at]).collect())
            }
            Kernel::Axes(axes) => (Form::Axes, axes.clone()),
        };
        let rows = Tensor::f32(self.rows.shape(), self.rows.iter().copied().collect());
        State::new(
            KdeOptions::NAME,
            &Config { form },
            [("factor", Tensor::f64([factor.len()], factor)), ("rows", rows)],
        )
    }
}
