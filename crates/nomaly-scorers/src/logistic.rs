//! Logistic regression: the fully supervised reference, for comparison only.
//!
//! It needs labelled anomalies, unlike anomaly detection, and recognizes only the kinds of anomalies that it was
//! trained on. It is therefore not a [`Scorer`](crate::Scorer) and not in the list of scorers: it shows how well a
//! two-class classifier does on the same features.
//!
//! # What it computes
//! The log-odds `x·w + b` of a row to be an anomaly, with the minimum of `½ ‖w‖² + C Σ s_i log(1 + exp(-y_i
//! (x_i·w + b)))` for `y_i` 1 (anomaly) or -1 and the weights `s_i` of the classes. Newton's method with a line search
//! finds it; the objective is convex, so there is no other minimum. `b` is not penalized, and rows are centered for the
//! computation, which changes only the rounding.
//!
//! # When to use
//! In an evaluation with labelled training rows, as the reference for a detector without labels.
//!
//! # Parameters
//! See [`LogisticOptions`]; `c` and the class weights follow scikit-learn's `LogisticRegression`.
//!
//! # Reference
//! Hastie, Tibshirani and Friedman, *The Elements of Statistical Learning* (2009), section 4.4.1; Nocedal and Wright,
//! *Numerical Optimization* (2006), algorithm 3.1, for the line search.

use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::ArrayView2;
use nomaly_settings::{SettingError, Settings};
use rayon::prelude::*;

use crate::blocks::BlockRows;
use crate::choice::named_choice;
use crate::entry::check_settings;
use crate::scorer::{check_finite, check_rows};
use crate::{ScorerError, Watch, linalg};

/// Rows whose part in the Hessian is multiplied out at once.
const BLOCK: usize = 2048;

/// Rows that one task loads and predicts.
const ROWS: usize = 128;

/// Standard deviations below this share of the mean are rounding of a constant column.
const CONSTANT: f64 = 1e-12;

/// The share of the slope that a step must gain (Nocedal and Wright, section 3.1).
const SUFFICIENT: f64 = 1e-4;

/// The predicted gain of the next step, as a share of the objective, below which the minimum is reached. Newton's
/// method converges quadratically, so the coefficients then have about ten digits.
const GAIN: f64 = 1e-14;

/// The same for a step that gains nothing because of rounding.
const ROUNDING_GAIN: f64 = 1e-9;

/// The most steps, and the most halvings of a step.
const STEPS: usize = 200;
const HALVINGS: usize = 60;

named_choice! {
    /// How much the rows of a class count.
    ClassWeight {
        /// Each row counts the same.
        Equal = "equal",
        /// Each class counts the same: a row of a class of `n_c` of `n` rows counts `n / (2 n_c)`.
        Balanced = "balanced",
    }
}

/// The settings of [`LogisticRegression`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct LogisticOptions {
    /// The weight of the likelihood against the penalty `½ ‖w‖²`: small values shrink the coefficients more.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub c: f64,
    /// How much the rows of a class count.
    pub class_weight: ClassWeight,
    /// Whether columns are divided by their standard deviations first.
    ///
    /// The deviations have the divisor `n`; constant columns are not divided. The penalty then does not depend on the
    /// units of the columns.
    pub standardize: bool,
}

impl Default for LogisticOptions {
    /// `c` of 1 on standardized columns, classes counted alike, for anomalies are few.
    fn default() -> Self {
        Self { c: 1.0, class_weight: ClassWeight::Balanced, standardize: true }
    }
}

impl Settings for LogisticOptions {}

/// A fitted two-class classifier of normal rows and anomalies.
///
/// A step of the fit takes about `n dim² / 2 + dim³ / 3` multiplications; there are about ten.
#[derive(Clone, Debug, PartialEq)]
pub struct LogisticRegression {
    options: LogisticOptions,
    /// The mean row `[dim]`.
    center: Vec<f64>,
    /// `[dim]`, in the units of the columns.
    coefficients: Vec<f64>,
    /// The log-odds of the mean row.
    at_center: f64,
}

impl LogisticRegression {
    /// Fits on rows `[n, dim]`, each with a label: whether it is an anomaly.
    ///
    /// # Errors
    /// [`ScorerError::Setting`] for a `c` out of range, unless there is one label per row, or where all labels are
    /// equal; [`ScorerError::NoColumns`], [`ScorerError::NonFiniteFeature`], [`ScorerError::Numerical`] where the
    /// objective leaves the range of floating point, [`ScorerError::Cancelled`].
    pub fn fit(
        rows: ArrayView2<'_, f32>,
        anomalous: &[bool],
        options: LogisticOptions,
        watch: Watch<'_>,
    ) -> Result<Self, ScorerError> {
        check_finite(rows)?;
        check_settings(&options)?;
        let (count, dim) = rows.dim();
        if anomalous.len() != count {
            let expected = format!("a label for each of {count} rows");
            return Err(SettingError::value("labels", anomalous.len(), &expected).into());
        }
        let anomalies = anomalous.iter().filter(|anomalous| **anomalous).count();
        if anomalies == 0 || anomalies == count {
            let expected = format!("rows of both classes among {count}");
            return Err(SettingError::value("labels", format!("{anomalies} anomalies"), &expected).into());
        }
        let weight = |members: usize| match options.class_weight {
            ClassWeight::Equal => options.c,
            ClassWeight::Balanced => options.c * count as f64 / 2.0 / members as f64,
        };
        let rows = BlockRows::new(rows, linalg::mean(rows));
        let scale = if options.standardize { scales(&rows) } else { vec![1.0; dim] };
        let weights = [weight(count - anomalies), weight(anomalies)];
        let problem = Problem { rows: &rows, inverse: scale.iter().map(|s| 1.0 / s).collect(), anomalous, weights };
        let found = problem.minimize(watch)?;
        let coefficients = found[..dim].iter().zip(&scale).map(|(coefficient, scale)| coefficient / scale).collect();
        Ok(Self { options, center: rows.center().to_vec(), coefficients, at_center: found[dim] })
    }

    /// The settings.
    pub fn options(&self) -> LogisticOptions {
        self.options
    }

    /// The coefficients `[dim]`, for columns in their own units.
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// The log-odds of a row of zeros.
    pub fn intercept(&self) -> f64 {
        self.at_center - self.coefficients.iter().zip(&self.center).map(|(w, center)| w * center).sum::<f64>()
    }

    /// The log-odds of each of the rows `[n, dim]` to be an anomaly: above 0 where that is more likely. The result for
    /// a row does not depend on the other rows.
    ///
    /// # Errors
    /// [`ScorerError::Dimension`] and [`ScorerError::NonFiniteFeature`].
    pub fn decision(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        let dim = self.center.len();
        check_rows(rows, dim)?;
        let rows = BlockRows::new(rows, self.center.clone());
        let mut decisions = vec![0.0f64; rows.len()];
        decisions.par_chunks_mut(ROWS).enumerate().for_each_init(
            || vec![0.0f64; ROWS * dim],
            |buffer, (chunk, decisions)| {
                rows.load(chunk * ROWS, buffer);
                for (decision, row) in decisions.iter_mut().zip(buffer.chunks_exact(dim)) {
                    *decision = self.at_center + dot(row, &self.coefficients);
                }
            },
        );
        Ok(decisions)
    }

    /// The probability in `[0, 1]` of each of the rows `[n, dim]` to be an anomaly. With balanced class weights it
    /// assumes equally frequent classes.
    ///
    /// # Errors
    /// As [`decision`](Self::decision).
    pub fn probability(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        Ok(self.decision(rows)?.into_iter().map(sigmoid).collect())
    }
}

/// The minimization problem over the coefficients of centered and scaled columns and, last, the log-odds of their mean.
struct Problem<'a> {
    rows: &'a BlockRows<'a>,
    /// The factor of each column.
    inverse: Vec<f64>,
    anomalous: &'a [bool],
    /// `C s` of normal rows and of anomalies.
    weights: [f64; 2],
}

/// The objective at a point, with its derivatives.
struct Evaluation {
    value: f64,
    gradient: Vec<f64>,
    /// Only the lower triangle is used.
    hessian: Mat<f64>,
}

impl Problem<'_> {
    fn minimize(&self, watch: Watch<'_>) -> Result<Vec<f64>, ScorerError> {
        let numerical = |reason: String| ScorerError::Numerical { what: "logistic regression", reason };
        let mut point = vec![0.0; self.rows.dim() + 1];
        let mut here = self.evaluate(&point, watch)?;
        for _ in 0..STEPS {
            let step = newton_step(&here).ok_or_else(|| numerical("its Hessian is not finite".to_owned()))?;
            let gain = dot(&step, &here.gradient);
            if gain <= GAIN * here.value.abs() {
                return Ok(point);
            }
            let mut length = 1.0;
            let mut halvings = 0;
            (point, here) = loop {
                let next: Vec<f64> = point.iter().zip(&step).map(|(at, step)| at - length * step).collect();
                let there = self.evaluate(&next, watch)?;
                if there.value <= here.value - SUFFICIENT * length * gain {
                    break (next, there);
                }
                if gain <= ROUNDING_GAIN * here.value.abs() {
                    return Ok(point);
                }
                halvings += 1;
                if halvings > HALVINGS {
                    return Err(numerical(format!("no step lowers the objective of {}", here.value)));
                }
                length /= 2.0;
            };
        }
        Err(numerical(format!("no minimum after {STEPS} steps")))
    }

    fn evaluate(&self, point: &[f64], watch: Watch<'_>) -> Result<Evaluation, ScorerError> {
        let (count, size) = (self.rows.len(), point.len());
        let dim = size - 1;
        let mut value = 0.0;
        let mut gradient = vec![0.0f64; size];
        let mut hessian = vec![0.0f64; size * size];
        let mut buffer = vec![0.0f64; BLOCK.min(count) * size];
        // The width of panels follows from the shape, so that even a few columns give enough tasks.
        let panel = size.div_ceil(8).clamp(16, 128);
        for first in (0..count).step_by(BLOCK) {
            watch.check()?;
            let block = BLOCK.min(count - first);
            let buffer = &mut buffer[..block * size];
            let parts: Vec<(f64, Vec<f64>)> = buffer
                .par_chunks_mut(ROWS * size)
                .enumerate()
                .map(|(chunk, rows)| self.load(first + chunk * ROWS, point, rows))
                .collect();
            for (part, slope) in &parts {
                value += part;
                gradient.iter_mut().zip(slope).for_each(|(sum, part)| *sum += part);
            }
            let rows = MatRef::from_row_major_slice(buffer, block, size);
            hessian.par_chunks_mut(panel * size).enumerate().for_each(|(index, columns)| {
                let (from, width) = (index * panel, columns.len() / size);
                let target = MatMut::from_column_major_slice_mut(columns, size, width).subrows_mut(from, size - from);
                let left = rows.subcols(from, size - from).transpose();
                matmul(target, Accum::Add, left, rows.subcols(from, width), 1.0, Par::Seq);
            });
        }
        let mut hessian = MatRef::from_column_major_slice(&hessian, size, size).to_owned();
        for at in 0..dim {
            value += 0.5 * point[at] * point[at];
            gradient[at] += point[at];
            hessian[(at, at)] += 1.0;
        }
        Ok(Evaluation { value, gradient, hessian })
    }

    /// Fills `rows` `[n, dim + 1]` with the rows from `first` on, each followed by a 1 and multiplied by the root of
    /// its weight in the Hessian; returns their contributions to objective and gradient.
    fn load(&self, first: usize, point: &[f64], rows: &mut [f64]) -> (f64, Vec<f64>) {
        let dim = point.len() - 1;
        let mut centered = vec![0.0f64; rows.len() / point.len() * dim];
        self.rows.load(first, &mut centered);
        let mut value = 0.0;
        let mut gradient = vec![0.0f64; point.len()];
        let pairs = rows.chunks_exact_mut(point.len()).zip(centered.chunks_exact(dim));
        for ((target, row), anomalous) in pairs.zip(&self.anomalous[first..]) {
            target.iter_mut().zip(row).zip(&self.inverse).for_each(|((target, value), s)| *target = value * s);
            target[dim] = 1.0;
            let odds = dot(target, point);
            let weight = self.weights[usize::from(*anomalous)];
            value += weight * softplus(if *anomalous { -odds } else { odds });
            let probability = sigmoid(odds);
            let slope = weight * (probability - f64::from(u8::from(*anomalous)));
            let root = (weight * probability * sigmoid(-odds)).sqrt();
            for (target, sum) in target.iter_mut().zip(&mut gradient) {
                *sum += slope * *target;
                *target *= root;
            }
        }
        (value, gradient)
    }
}

/// `H⁻¹ g`, with a growing multiple of the identity added to `H` where it is not numerically positive definite.
fn newton_step(here: &Evaluation) -> Option<Vec<f64>> {
    let size = here.gradient.len();
    let trace = (0..size).map(|at| here.hessian[(at, at)]).sum::<f64>();
    let mut damping = 0.0;
    while trace.is_finite() && damping <= trace {
        let mut matrix = here.hessian.clone();
        (0..size).for_each(|at| matrix[(at, at)] += damping);
        if let Some(factor) = linalg::cholesky(matrix) {
            let mut step = Mat::from_fn(size, 1, |at, _| here.gradient[at]);
            solve_lower_triangular_in_place(factor.as_ref(), step.as_mut(), Par::Seq);
            solve_upper_triangular_in_place(factor.transpose(), step.as_mut(), Par::Seq);
            let step: Vec<f64> = step.col(0).iter().copied().collect();
            return step.iter().all(|value| value.is_finite()).then_some(step);
        }
        damping = if damping == 0.0 { trace * 1e-14 } else { damping * 10.0 };
    }
    None
}

/// The standard deviations (divisor `n`), and 1 for constant columns.
fn scales(rows: &BlockRows<'_>) -> Vec<f64> {
    let dim = rows.dim();
    let mut squares = vec![0.0f64; dim];
    let mut block = vec![0.0f64; ROWS * dim];
    for first in (0..rows.len()).step_by(ROWS) {
        // Rows beyond the last are zeros, which add nothing.
        rows.load(first, &mut block);
        for row in block.chunks_exact(dim) {
            squares.iter_mut().zip(row).for_each(|(sum, value)| *sum += value * value);
        }
    }
    let scale = |(sum, mean): (&f64, &f64)| {
        let deviation = (sum / rows.len() as f64).sqrt();
        if deviation > CONSTANT * mean.abs() { deviation } else { 1.0 }
    };
    squares.iter().zip(rows.center()).map(scale).collect()
}

fn sigmoid(odds: f64) -> f64 {
    if odds >= 0.0 {
        1.0 / (1.0 + (-odds).exp())
    } else {
        let exp = odds.exp();
        exp / (1.0 + exp)
    }
}

/// `log(1 + exp(x))`, for any `x`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Four sums side by side, so that the additions need not wait for one another.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_fours, b_fours) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a_fours.remainder().iter().zip(b_fours.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0f64; 4];
    for (a, b) in a_fours.zip(b_fours) {
        (0..4).for_each(|at| sums[at] += a[at] * b[at]);
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}
