//! Count, mean, scatter and the moments for Ledoit–Wolf shrinkage, over any number of rows.

use ndarray::ArrayView2;

use crate::ScorerError;
use crate::linalg::{self, Centered};
use crate::scorer::{State, Tensor, check_finite, check_rows};

/// Rows that are reduced at once; further rows are merged block by block.
const BLOCK_ROWS: usize = 1024;

/// Moments of a set of rows, which can be computed in parts and merged exactly.
///
/// Besides count, mean and scatter `S = Σ y yᵀ` (with `y = x - mean`) it keeps `Σ ‖y‖² y` and `Σ ‖y‖⁴`.
/// The shrinkage of Ledoit and Wolf depends on the rows through `Σ ‖y‖⁴`, `‖S‖²` and `tr S` alone, and the
/// vector moves the first to another mean; so an estimate from merged parts equals that from all the rows, up to
/// rounding.
///
/// Additions happen in blocks of 1024 rows in the order of the rows, then in the order of the merges: the same calls
/// give the same bytes on any number of threads. Memory is `dim²` numbers of 8 bytes.
///
/// # Folds
/// Take the statistics of each fold once, then merge all but one of them for each fit:
///
/// ```
/// use nomaly_scorers::gaussian::{Covariance, Gaussian, GaussianStatistics};
/// use ndarray::Array2;
///
/// let rows = Array2::from_shape_fn((40, 3), |(i, j)| ((i * 31 + j * 17) % 23) as f32);
/// let folds: Vec<_> = (0..4)
///     .map(|fold| GaussianStatistics::from_rows(rows.slice(ndarray::s![fold * 10..(fold + 1) * 10, ..])))
///     .collect::<Result<_, _>>()?;
/// for held_out in 0..4 {
///     let rest = folds.iter().enumerate().filter(|(fold, _)| *fold != held_out).map(|(_, part)| part);
///     let gaussian = Gaussian::from_statistics(&GaussianStatistics::merged(rest)?, Covariance::LedoitWolf)?;
///     assert_eq!(gaussian.rows(), 30);
/// }
/// # Ok::<(), nomaly_scorers::ScorerError>(())
/// ```
///
/// # Reference
/// Chan, Golub and LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances* (1982).
#[derive(Clone, PartialEq)]
pub struct GaussianStatistics {
    count: u64,
    mean: Vec<f64>,
    /// Column-major `[dim, dim]`; only the lower triangle counts, the rest is zero.
    scatter: Vec<f64>,
    /// `Σ ‖y‖² y`.
    third: Vec<f64>,
    /// `Σ ‖y‖⁴`.
    fourth: f64,
}

impl std::fmt::Debug for GaussianStatistics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GaussianStatistics")
            .field("count", &self.count)
            .field("dim", &self.dim())
            .finish_non_exhaustive()
    }
}

impl GaussianStatistics {
    /// Statistics of no rows in `dim` dimensions.
    ///
    /// # Errors
    /// [`ScorerError::NoColumns`] if `dim` is 0.
    pub fn new(dim: usize) -> Result<Self, ScorerError> {
        if dim == 0 {
            return Err(ScorerError::NoColumns);
        }
        Ok(Self { count: 0, mean: vec![0.0; dim], scatter: vec![0.0; dim * dim], third: vec![0.0; dim], fourth: 0.0 })
    }

    /// Statistics of the rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::NoColumns`], [`ScorerError::NonFiniteFeature`].
    pub fn from_rows(rows: ArrayView2<'_, f32>) -> Result<Self, ScorerError> {
        check_finite(rows)?;
        let mut statistics = Self::new(rows.ncols())?;
        statistics.push_checked(rows);
        Ok(statistics)
    }

    /// Adds rows `[n, dim]`.
    ///
    /// # Errors
    /// [`ScorerError::Dimension`], [`ScorerError::NonFiniteFeature`]; the statistics are then unchanged.
    pub fn push_rows(&mut self, rows: ArrayView2<'_, f32>) -> Result<(), ScorerError> {
        check_rows(rows, self.dim())?;
        self.push_checked(rows);
        Ok(())
    }

    fn push_checked(&mut self, rows: ArrayView2<'_, f32>) {
        for block in rows.axis_chunks_iter(ndarray::Axis(0), BLOCK_ROWS) {
            let block = Self::of_block(block);
            if self.count == 0 { *self = block } else { self.merge_same_dim(&block) }
        }
    }

    fn of_block(rows: ArrayView2<'_, f32>) -> Self {
        let dim = rows.ncols();
        let Centered { mean, rows: centered } = linalg::center(rows);
        let mut third = vec![0.0f64; dim];
        let mut fourth = 0.0;
        for row in centered.chunks_exact(dim) {
            let square: f64 = row.iter().map(|value| value * value).sum();
            fourth += square * square;
            third.iter_mut().zip(row).for_each(|(sum, value)| *sum += square * value);
        }
        let mut scatter = linalg::scatter(&centered, dim);
        for column in 1..dim {
            scatter[column * dim..column * dim + column].fill(0.0);
        }
        Self { count: rows.nrows() as u64, mean, scatter, third, fourth }
    }

    /// Merges other statistics.
    ///
    /// # Errors
    /// [`ScorerError::Dimension`].
    pub fn merge(&mut self, other: &Self) -> Result<(), ScorerError> {
        if other.dim() != self.dim() {
            return Err(ScorerError::Dimension { expected: self.dim(), got: other.dim() });
        }
        match (self.count, other.count) {
            (_, 0) => {}
            (0, _) => self.clone_from(other),
            _ => self.merge_same_dim(other),
        }
        Ok(())
    }

    /// The statistics of all parts, merged in order.
    ///
    /// # Errors
    /// [`ScorerError::TooFewRows`] without parts, [`ScorerError::Dimension`].
    pub fn merged<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Result<Self, ScorerError> {
        let mut parts = parts.into_iter();
        let first = parts.next().ok_or(ScorerError::TooFewRows { what: "a merge of statistics", needed: 1, got: 0 })?;
        let mut merged = first.clone();
        parts.try_for_each(|part| merged.merge(part))?;
        Ok(merged)
    }

    fn merge_same_dim(&mut self, other: &Self) {
        let dim = self.dim();
        let (own, theirs) = (self.count as f64, other.count as f64);
        let total = own + theirs;
        let between: Vec<f64> = self.mean.iter().zip(&other.mean).map(|(own, theirs)| theirs - own).collect();
        let (third, fourth) = self.moved(&between, theirs / total);
        let (other_third, other_fourth) = other.moved(&between, -own / total);
        self.third = third.iter().zip(&other_third).map(|(own, theirs)| own + theirs).collect();
        self.fourth = fourth + other_fourth;
        self.mean.iter_mut().zip(&between).for_each(|(mean, between)| *mean += between * (theirs / total));
        for (column, scale) in between.iter().map(|between| between * (own * theirs / total)).enumerate() {
            let lower = column * dim + column..(column + 1) * dim;
            let pairs = self.scatter[lower.clone()].iter_mut().zip(&other.scatter[lower]).zip(&between[column..]);
            pairs.for_each(|((own, theirs), between)| *own += theirs + scale * between);
        }
        self.count += other.count;
    }

    /// The third and fourth moments about `mean + share · between`.
    fn moved(&self, between: &[f64], share: f64) -> (Vec<f64>, f64) {
        let count = self.count as f64;
        let step: Vec<f64> = between.iter().map(|between| between * share).collect();
        let along = self.scatter_times(&step);
        let square: f64 = dot(&step, &step);
        let trace = self.trace();
        // ‖y - d‖² = ‖y‖² - 2 d·y + ‖d‖², expanded with Σ y = 0.
        let third =
            (0..self.dim()).map(|i| self.third[i] - 2.0 * along[i] - (trace + count * square) * step[i]).collect();
        let fourth = self.fourth - 4.0 * dot(&step, &self.third)
            + 4.0 * dot(&step, &along)
            + 2.0 * square * trace
            + count * square * square;
        (third, fourth)
    }

    fn scatter_times(&self, vector: &[f64]) -> Vec<f64> {
        let dim = self.dim();
        let mut product = vec![0.0; dim];
        for column in 0..dim {
            let below = &self.scatter[column * dim + column + 1..(column + 1) * dim];
            let (head, tail) = product.split_at_mut(column + 1);
            let mut own = self.scatter[column * dim + column] * vector[column];
            for ((target, value), other) in tail.iter_mut().zip(below).zip(&vector[column + 1..]) {
                *target += value * vector[column];
                own += value * other;
            }
            head[column] += own;
        }
        product
    }

    /// The number of columns.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The number of rows.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean row `[dim]`; zero where there are no rows.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// An element of the scatter matrix `Σ (x - mean)(x - mean)ᵀ`. Divided by the count it is the empirical
    /// covariance.
    ///
    /// # Panics
    /// If `row` or `column` is not less than [`dim`](Self::dim).
    pub fn scatter(&self, row: usize, column: usize) -> f64 {
        assert!(row < self.dim() && column < self.dim(), "element ({row}, {column}) of {} dimensions", self.dim());
        self.scatter[row.min(column) * self.dim() + row.max(column)]
    }

    /// The trace of the scatter matrix.
    pub(super) fn trace(&self) -> f64 {
        self.scatter.iter().step_by(self.dim() + 1).sum()
    }

    /// The lower triangle of the scatter matrix in a column-major `[dim, dim]` array.
    pub(super) fn lower(&self) -> &[f64] {
        &self.scatter
    }

    /// The share `δ` in `[0, 1]` of Ledoit and Wolf: the estimate of the covariance is
    /// `(1 - δ) C + δ (tr C / dim) I` with the empirical covariance `C`.
    ///
    /// It is 0 for a single column, for fewer than two rows, and where all rows are equal, as in scikit-learn.
    ///
    /// # Reference
    /// Ledoit and Wolf, *A well-conditioned estimator for large-dimensional covariance matrices* (2004), lemmas
    /// 3.2–3.5.
    pub fn shrinkage(&self) -> f64 {
        let dim = self.dim();
        let mut squares = 0.0;
        for column in 0..dim {
            let lower = &self.scatter[column * dim + column..(column + 1) * dim];
            squares += lower[0] * lower[0] + 2.0 * lower[1..].iter().map(|value| value * value).sum::<f64>();
        }
        shrinkage(self.count, dim, self.trace(), squares, self.fourth)
    }

    /// The statistics as named tensors, to be sent to another machine.
    pub fn state(&self) -> State {
        let dim = self.dim();
        let packed = pack_lower(dim, |column| &self.scatter[column * dim + column..(column + 1) * dim]);
        State::new(
            STATE_KIND,
            &StatisticsConfig { count: self.count },
            [
                ("fourth", Tensor::f64([1], vec![self.fourth])),
                ("mean", Tensor::f64([dim], self.mean.clone())),
                ("scatter", Tensor::f64([packed.len()], packed)),
                ("third", Tensor::f64([dim], self.third.clone())),
            ],
        )
    }

    /// Restores the statistics from their [`state`](Self::state).
    ///
    /// # Errors
    /// [`ScorerError::Stored`].
    pub fn from_state(state: &State) -> Result<Self, ScorerError> {
        if state.kind != STATE_KIND {
            return Err(state.config_error(format!("is not `{STATE_KIND}`")));
        }
        let StatisticsConfig { count } = state.read_config()?;
        let [dim] = state.shape("mean")?;
        let mean = state.read_f64("mean", [dim])?.to_vec();
        let scatter = read_lower(state, "scatter", dim)?;
        if let Some(at) = (0..dim).find(|at| scatter[at * dim + at] < 0.0) {
            return Err(state.tensor_error("scatter", format!("column {at} has a negative sum of squares")));
        }
        let third = state.read_f64("third", [dim])?.to_vec();
        let fourth = state.read_f64("fourth", [1])?[0];
        if fourth < 0.0 {
            return Err(state.tensor_error("fourth", format!("is {fourth}, a negative sum of fourth powers")));
        }
        state.expect_only(&["fourth", "mean", "scatter", "third"])?;
        Ok(Self { count, mean, scatter, third, fourth })
    }
}

const STATE_KIND: &str = "gaussian-statistics";

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct StatisticsConfig {
    count: u64,
}

/// The shrinkage of Ledoit and Wolf from sums over `count` centered rows `y`: the trace and the squared Frobenius norm
/// of the scatter matrix, and `Σ ‖y‖⁴`.
pub(super) fn shrinkage(count: u64, dim: usize, trace: f64, squares: f64, fourth: f64) -> f64 {
    if dim < 2 || count < 2 {
        return 0.0;
    }
    let (count, dim) = (count as f64, dim as f64);
    let mean_variance = trace / count / dim;
    let squares = squares / (count * count);
    let distance = squares / dim - mean_variance * mean_variance;
    let error = (fourth / count - squares) / (count * dim);
    // The error of the empirical covariance, at most its distance from the multiple of the identity.
    if error > 0.0 && distance > 0.0 { (error / distance).min(1.0) } else { 0.0 }
}

/// The lower triangle by columns, one after the other.
pub(super) fn pack_lower<'a>(dim: usize, column: impl Fn(usize) -> &'a [f64]) -> Vec<f64> {
    let mut packed = Vec::with_capacity(dim * (dim + 1) / 2);
    (0..dim).for_each(|index| packed.extend_from_slice(column(index)));
    packed
}

/// The stored lower triangle `name` (see [`pack_lower`]) as a column-major `[dim, dim]` array with zeros above.
pub(super) fn read_lower(state: &State, name: &str, dim: usize) -> Result<Vec<f64>, ScorerError> {
    let too_large = || state.tensor_error(name, format!("{dim} dimensions are too many for a covariance"));
    let square = dim.checked_mul(dim).ok_or_else(too_large)?;
    let mut packed = state.read_f64(name, [(square + dim) / 2])?;
    let mut lower = vec![0.0; square];
    for column in 0..dim {
        let (head, tail) = packed.split_at(dim - column);
        lower[column * dim + column..(column + 1) * dim].copy_from_slice(head);
        packed = tail;
    }
    Ok(lower)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
