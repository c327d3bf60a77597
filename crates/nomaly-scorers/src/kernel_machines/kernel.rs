//! Kernel functions and their evaluation for many pairs of rows.
//!
//! The Gaussian kernel runs in single precision on vectors ([`nomaly_kernels::rbf`]) on rows that are centered and
//! scaled by `√γ`. Its error in a squared distance is some units of `f32::EPSILON` times the squared lengths of the
//! two rows, so where those are large on average (a `γ` far beyond the scale of the rows), and for the kernels of a
//! scalar product, double precision is used, with products of fixed blocks.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use ndarray::ArrayView2;
use nomaly_kernels::isa::Isa;
use nomaly_kernels::rbf::{RbfBank, RbfError};
use nomaly_settings::word_or_value;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ScorerError;
use crate::choice::named_choice;

/// Queries that are multiplied at once in double precision; smaller blocks are padded with zeros.
const QUERIES: usize = 8;

/// Rows of a bank that are multiplied at once in double precision.
const BANK: usize = 256;

/// The mean squared length of scaled rows up to which single precision is used: distances are then off by about 1e-5.
const SINGLE_UP_TO: f64 = 64.0;

/// The largest squared length of scaled rows with which single precision is used.
const SINGLE_LARGEST: f64 = 1e6;

/// The share of the squared lengths of two rows below which their squared distance is taken from the differences.
const CANCELLED: f64 = 1e-8;

/// Coordinates are clamped to this in single precision: no row of a fit is near it, and lengths stay finite.
const FARTHEST: f64 = 1e15;

/// Kernel values are clamped to this, so that their sums stay finite.
const LARGEST_VALUE: f64 = 1e290;

/// Upper bound of kernel values between rows of a fit, which are kept in `f32`.
const LARGEST_FITTED: f64 = 1e37;

named_choice! {
    /// A kernel function.
    KernelKind {
        /// `exp(-γ ‖a - b‖²)`.
        Rbf = "rbf",
        /// `a·b`.
        Linear = "linear",
        /// `(γ a·b + coef0)^degree`.
        Polynomial = "polynomial",
    }
}

word_or_value! {
    /// How the `γ` of a kernel is found.
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    pub enum Gamma {
        /// `1 / (dim · variance)` with the variance of all numbers of the rows together; 1 where that is zero.
        #[default]
        Scale = "scale",
        /// `1 / dim`.
        Auto = "auto",
        ;
        /// This number.
        Value(f64) { "exclusiveMinimum": 0 },
    }
}

impl Gamma {
    /// The value of `γ` for these rows.
    fn resolve(self, rows: ArrayView2<'_, f32>) -> f64 {
        let dim = rows.ncols() as f64;
        match self {
            Self::Value(value) => value,
            Self::Auto => 1.0 / dim,
            Self::Scale => {
                let count = rows.len() as f64;
                let mean = rows.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
                let variance = rows.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / count;
                // Deviations of equal numbers are rounding errors of their mean.
                let rounding = f64::EPSILON * count.sqrt() * mean.abs();
                if variance.sqrt() <= rounding { 1.0 } else { 1.0 / (dim * variance) }
            }
        }
    }
}

/// The settings of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KernelOptions {
    /// The similarity of two rows.
    pub kernel: KernelKind,
    /// The factor of the squared distance or of the product; `scale`: 1 / (columns · variance), `auto`: 1 / columns.
    pub gamma: Gamma,
    /// The degree of the polynomial kernel.
    #[schemars(extend("minimum" = 1, "maximum" = 16))]
    pub degree: u32,
    /// The constant of the polynomial kernel.
    #[schemars(extend("minimum" = 0))]
    pub coef0: f64,
}

impl Default for KernelOptions {
    /// The Gaussian kernel, `γ` by the scale of the rows; degree 3 and constant 0 where it is polynomial.
    fn default() -> Self {
        Self { kernel: KernelKind::Rbf, gamma: Gamma::Scale, degree: 3, coef0: 0.0 }
    }
}

/// A checked kernel with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KernelFunction {
    pub(crate) kernel: KernelKind,
    pub(crate) gamma: f64,
    pub(crate) degree: u32,
    pub(crate) coef0: f64,
    precision: Precision,
}

/// The arithmetic that evaluates a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Precision {
    /// Vectors of `f32`.
    Single,
    /// `f64`.
    Double,
}

impl KernelFunction {
    /// Checks a stored function; the error says what is wrong.
    fn check(&self) -> Result<(), String> {
        let Self { kernel, gamma, degree, coef0, precision } = *self;
        if !(gamma.is_finite() && gamma > 0.0) {
            return Err(format!("gamma is {gamma}, expected a number above 0"));
        }
        if !(1..=16).contains(&degree) {
            return Err(format!("degree is {degree}, expected 1 to 16"));
        }
        if !(coef0.is_finite() && coef0 >= 0.0) {
            return Err(format!("coef0 is {coef0}, expected a number from 0"));
        }
        if precision == Precision::Single && kernel != KernelKind::Rbf {
            return Err(format!("kernel {kernel} has no single precision"));
        }
        Ok(())
    }

    /// The kernel from a scalar product and the two squared lengths; `direct` gives the squared distance where those
    /// cancel.
    fn of(&self, product: f64, square: f64, other_square: f64, direct: impl FnOnce() -> f64) -> f64 {
        let value = match self.kernel {
            KernelKind::Rbf => {
                let squares = square + other_square;
                let distance = squares - 2.0 * product;
                return (-if distance < CANCELLED * squares { direct() } else { distance }).exp();
            }
            KernelKind::Linear => product,
            KernelKind::Polynomial => (self.gamma * product + self.coef0).powi(self.degree as i32),
        };
        value.clamp(-LARGEST_VALUE, LARGEST_VALUE)
    }
}

/// The feature space of a kernel: converts rows to [`Points`], on which kernels are evaluated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Space {
    pub(crate) function: KernelFunction,
    /// Subtracted from rows, `[dim]`: the mean for `rbf`, which does not change distances, otherwise zeros.
    pub(crate) center: Vec<f64>,
}

/// Rows in the form of a [`Space`], row-major.
#[derive(Clone, Debug)]
pub(crate) enum Points {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

/// Consecutive [`Points`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum PointsView<'a> {
    Single(&'a [f32]),
    Double(&'a [f64]),
}

impl Space {
    /// The space for the rows `[n, dim]` of a fit: at least one, all finite. The options must be checked.
    ///
    /// # Errors
    /// [`ScorerError::Numerical`] where the variance of the rows gives no `γ`, and where kernel values of rows leave
    /// the range of single precision, in which they are kept.
    pub(crate) fn fit(rows: ArrayView2<'_, f32>, options: KernelOptions) -> Result<(Self, Points), ScorerError> {
        let KernelOptions { kernel, gamma, degree, coef0 } = options;
        let function =
            KernelFunction { kernel, gamma: gamma.resolve(rows), degree, coef0, precision: Precision::Double };
        function.check().map_err(|reason| ScorerError::Numerical { what: "the kernel", reason })?;
        let dim = rows.ncols();
        let mut center = vec![0.0f64; dim];
        if kernel == KernelKind::Rbf {
            for row in rows.outer_iter() {
                center.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
            }
            center.iter_mut().for_each(|sum| *sum /= rows.nrows() as f64);
        }
        let mut space = Self { function, center };
        let points = space.points(rows);
        let Points::Double(values) = &points else { return Ok((space, points)) };
        let squares = values.chunks_exact(dim).map(square);
        let (sum, largest) = squares.fold((0.0, 0.0f64), |(sum, largest), square| (sum + square, largest.max(square)));
        if kernel == KernelKind::Rbf && sum <= SINGLE_UP_TO * rows.nrows() as f64 && largest <= SINGLE_LARGEST {
            space.function.precision = Precision::Single;
            let points = space.points(rows);
            return Ok((space, points));
        }
        if kernel != KernelKind::Rbf && function.of(largest, largest, largest, || 0.0) >= LARGEST_FITTED {
            let reason = "values of the rows are beyond 1e37; scale the rows".to_owned();
            return Err(ScorerError::Numerical { what: "the kernel", reason });
        }
        Ok((space, points))
    }

    /// A stored space; the center must be finite.
    ///
    /// # Errors
    /// What is wrong with the function.
    pub(crate) fn restore(function: KernelFunction, center: Vec<f64>) -> Result<Self, String> {
        function.check()?;
        Ok(Self { function, center })
    }

    pub(crate) fn dim(&self) -> usize {
        self.center.len()
    }

    /// Converts rows `[n, dim]` to points of this space.
    pub(crate) fn points(&self, rows: ArrayView2<'_, f32>) -> Points {
        let scale = if self.function.kernel == KernelKind::Rbf { self.function.gamma.sqrt() } else { 1.0 };
        let coordinate = |(value, center): (&f32, &f64)| (f64::from(*value) - center) * scale;
        let all = rows.outer_iter().flat_map(|row| {
            let row: Vec<f64> = row.iter().zip(&self.center).map(coordinate).collect();
            row
        });
        match self.function.precision {
            Precision::Single => Points::Single(all.map(|value| value.clamp(-FARTHEST, FARTHEST) as f32).collect()),
            Precision::Double => Points::Double(all.collect()),
        }
    }

    /// `k(x, x)` of each of the rows `[n, dim]`.
    pub(crate) fn self_kernels(&self, points: PointsView<'_>) -> Vec<f64> {
        match points {
            PointsView::Single(values) => vec![1.0; values.len() / self.dim()],
            PointsView::Double(values) => {
                let of_row = |row| {
                    let square = square(row);
                    self.function.of(square, square, square, || 0.0)
                };
                values.chunks_exact(self.dim()).map(of_row).collect()
            }
        }
    }

    /// A bank of the points, for comparison with others.
    ///
    /// # Errors
    /// [`ScorerError::InstructionSet`] where the requested one is unknown or absent.
    pub(crate) fn bank(&self, points: &Points) -> Result<KernelBank, ScorerError> {
        let form = match points {
            Points::Single(values) => {
                let isa = Isa::best().map_err(|error| ScorerError::InstructionSet(error.to_string()))?;
                Form::Single(RbfBank::new(values, self.dim(), isa).map_err(refused)?)
            }
            Points::Double(values) => {
                Form::Double { values: values.clone(), squares: values.chunks_exact(self.dim()).map(square).collect() }
            }
        };
        Ok(KernelBank { function: self.function, dim: self.dim(), form })
    }
}

impl Points {
    pub(crate) fn view(&self) -> PointsView<'_> {
        match self {
            Self::Single(values) => PointsView::Single(values),
            Self::Double(values) => PointsView::Double(values),
        }
    }

    /// The points of some rows, in their order.
    pub(crate) fn select(&self, rows: impl IntoIterator<Item = usize>, dim: usize) -> Self {
        fn take<T: Copy>(values: &[T], rows: impl IntoIterator<Item = usize>, dim: usize) -> Vec<T> {
            let mut taken = Vec::new();
            rows.into_iter().for_each(|row| taken.extend_from_slice(&values[row * dim..(row + 1) * dim]));
            taken
        }
        match self {
            Self::Single(values) => Self::Single(take(values, rows, dim)),
            Self::Double(values) => Self::Double(take(values, rows, dim)),
        }
    }
}

/// Points that others are compared with.
#[derive(Clone, Debug)]
pub(crate) struct KernelBank {
    function: KernelFunction,
    dim: usize,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Single(RbfBank),
    Double { values: Vec<f64>, squares: Vec<f64> },
}

impl KernelBank {
    /// `k(query, row)` for each query and all rows of the bank, in parallel. The queries must be of the same space;
    /// `values` has one slice per query, each as long as the bank.
    pub(crate) fn values(&self, queries: PointsView<'_>, values: &mut [&mut [f32]]) -> Result<(), ScorerError> {
        let (bank, squares, queries) = match (&self.form, queries) {
            (Form::Single(bank), PointsView::Single(queries)) => return bank.values(queries, values).map_err(refused),
            (Form::Double { values, squares }, PointsView::Double(queries)) => (values, squares, queries),
            _ => return Err(mixed()),
        };
        for (queries, values) in queries.chunks(QUERIES * self.dim).zip(values.chunks_mut(QUERIES)) {
            let queries = Queries::new(queries, self.dim);
            let mut parts: Vec<_> = values.iter_mut().map(|row| row.chunks_mut(BANK)).collect();
            let blocks: Vec<Vec<&mut [f32]>> = (0..squares.len().div_ceil(BANK))
                .map(|_| parts.iter_mut().filter_map(Iterator::next).collect())
                .collect();
            let rows = bank.par_chunks(BANK * self.dim).zip(squares.par_chunks(BANK));
            blocks.into_par_iter().zip(rows).for_each_init(Vec::new, |kernels, (targets, (rows, squares))| {
                self.kernels(&queries, rows, squares, kernels);
                for (target, kernels) in targets.into_iter().zip(kernels.chunks_exact(squares.len())) {
                    for (target, kernel) in target.iter_mut().zip(kernels) {
                        *target = kernel.clamp(f32::MIN.into(), f32::MAX.into()) as f32;
                    }
                }
            });
        }
        Ok(())
    }

    /// For each query the sum of its kernels with all rows of the bank, times their `weights`, in parallel. A sum
    /// depends neither on the other queries nor on the number of threads.
    pub(crate) fn weighted_sums(&self, weights: &[f64], queries: PointsView<'_>) -> Result<Vec<f64>, ScorerError> {
        let (bank, squares, queries) = match (&self.form, queries) {
            (Form::Single(bank), PointsView::Single(queries)) => {
                let weights: Vec<f32> = weights.iter().map(|weight| *weight as f32).collect();
                return bank.weighted_sums(&weights, queries).map_err(refused);
            }
            (Form::Double { values, squares }, PointsView::Double(queries)) => (values, squares, queries),
            _ => return Err(mixed()),
        };
        let of_group = |queries: &[f64]| {
            let queries = Queries::new(queries, self.dim);
            let (mut sums, mut kernels) = (vec![0.0f64; queries.squares.len()], Vec::new());
            let blocks = bank.chunks(BANK * self.dim).zip(squares.chunks(BANK)).zip(weights.chunks(BANK));
            for ((rows, squares), weights) in blocks {
                self.kernels(&queries, rows, squares, &mut kernels);
                for (sum, kernels) in sums.iter_mut().zip(kernels.chunks_exact(squares.len())) {
                    *sum += kernels.iter().zip(weights).map(|(kernel, weight)| kernel * weight).sum::<f64>();
                }
            }
            sums
        };
        Ok(queries.par_chunks(QUERIES * self.dim).map(of_group).collect::<Vec<_>>().concat())
    }

    /// The kernels of a block of queries with some rows of the bank, `[QUERIES, rows]`; those of padding are
    /// unspecified.
    fn kernels(&self, queries: &Queries, rows: &[f64], squares: &[f64], kernels: &mut Vec<f64>) {
        let count = squares.len();
        kernels.resize(count * QUERIES, 0.0);
        matmul(
            MatMut::from_column_major_slice_mut(kernels, count, QUERIES),
            Accum::Replace,
            MatRef::from_row_major_slice(rows, count, self.dim),
            MatRef::from_column_major_slice(&queries.values, self.dim, QUERIES),
            1.0,
            Par::Seq,
        );
        let of_queries = queries.values.chunks_exact(self.dim).zip(&queries.squares);
        for (kernels, (query, square)) in kernels.chunks_exact_mut(count).zip(of_queries) {
            let rows = rows.chunks_exact(self.dim).zip(squares);
            for (value, (row, other)) in kernels.iter_mut().zip(rows) {
                *value = self.function.of(*value, *square, *other, || {
                    query.iter().zip(row).map(|(one, other)| (one - other).powi(2)).sum()
                });
            }
        }
    }
}

/// A block of queries in double precision.
struct Queries {
    /// `[QUERIES, dim]`, padded with zeros.
    values: Vec<f64>,
    /// The squared length of each, without padding.
    squares: Vec<f64>,
}

impl Queries {
    fn new(queries: &[f64], dim: usize) -> Self {
        let mut values = queries.to_vec();
        values.resize(QUERIES * dim, 0.0);
        Self { values, squares: queries.chunks_exact(dim).map(square).collect() }
    }
}

fn square(row: &[f64]) -> f64 {
    row.iter().map(|value| value * value).sum()
}

fn refused(error: RbfError) -> ScorerError {
    ScorerError::Numerical { what: "the kernel", reason: error.to_string() }
}

fn mixed() -> ScorerError {
    ScorerError::Numerical { what: "the kernel", reason: "points of two spaces are compared".to_owned() }
}
