//! The sum over support vectors.

use ndarray::{ArrayView2, Axis, Slice};

use super::kernel::{KernelBank, KernelFunction, KernelKind, PointsView, Space};
use crate::ScorerError;
use crate::scorer::{State, Tensor};

/// Rows that are converted and scored at a time.
const STRETCH: usize = 8192;

/// `Σ coefficient · k(vector, x)`.
#[derive(Clone, Debug)]
pub(crate) struct Expansion {
    space: Space,
    /// `[support vectors, dim]`.
    vectors: Vec<f32>,
    coefficients: Vec<f64>,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// The linear kernel needs only `Σ coefficient · vector`.
    Linear(Vec<f64>),
    Bank(Box<KernelBank>),
}

impl Expansion {
    /// The rows `[n, dim]` whose coefficients are not zero.
    pub(crate) fn new(space: Space, rows: ArrayView2<'_, f32>, coefficients: &[f64]) -> Result<Self, ScorerError> {
        let support = rows.outer_iter().zip(coefficients).filter(|(_, coefficient)| **coefficient != 0.0);
        let (mut vectors, mut kept) = (Vec::new(), Vec::new());
        for (row, coefficient) in support {
            vectors.extend(row.iter().copied());
            kept.push(*coefficient);
        }
        Self::of_vectors(space, vectors, kept)
    }

    fn of_vectors(space: Space, vectors: Vec<f32>, coefficients: Vec<f64>) -> Result<Self, ScorerError> {
        let dim = space.dim();
        let form = if space.function.kernel == KernelKind::Linear {
            let mut sum = vec![0.0f64; dim];
            for (vector, coefficient) in vectors.chunks_exact(dim).zip(&coefficients) {
                sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += coefficient * f64::from(*value));
            }
            Form::Linear(sum)
        } else {
            let rows = ArrayView2::from_shape((coefficients.len(), dim), &vectors);
            let rows = rows.map_err(|_| ScorerError::Dimension { expected: dim, got: vectors.len() })?;
            Form::Bank(Box::new(space.bank(&space.points(rows))?))
        };
        Ok(Self { space, vectors, coefficients, form })
    }

    pub(crate) fn dim(&self) -> usize {
        self.space.dim()
    }

    pub(crate) fn len(&self) -> usize {
        self.coefficients.len()
    }

    /// Applies `make` to the sum and `k(x, x)` of each of the finite rows `[n, dim]`.
    pub(crate) fn evaluate(
        &self,
        rows: ArrayView2<'_, f32>,
        make: impl Fn(f64, f64) -> f64,
    ) -> Result<Vec<f64>, ScorerError> {
        let mut results = Vec::with_capacity(rows.nrows());
        for start in (0..rows.nrows()).step_by(STRETCH) {
            let end = rows.nrows().min(start + STRETCH);
            let points = self.space.points(rows.slice_axis(Axis(0), Slice::from(start..end)));
            let sums = match (&self.form, points.view()) {
                (Form::Linear(weights), PointsView::Double(values)) => {
                    let product = |row: &[f64]| row.iter().zip(weights).map(|(value, weight)| value * weight).sum();
                    values.chunks_exact(self.dim()).map(product).collect()
                }
                (Form::Bank(bank), points) => bank.weighted_sums(&self.coefficients, points)?,
                (Form::Linear(_), PointsView::Single(_)) => Vec::new(),
            };
            let self_kernels = self.space.self_kernels(points.view());
            results.extend(sums.into_iter().zip(self_kernels).map(|(sum, self_kernels)| make(sum, self_kernels)));
        }
        Ok(results)
    }

    /// The kernel function, for a configuration.
    pub(crate) fn function(&self) -> KernelFunction {
        self.space.function
    }

    /// The names of [`tensors`](Self::tensors) and of `offset`, which the machine adds.
    pub(crate) const TENSORS: [&str; 4] = ["centre", "coefficients", "offset", "vectors"];

    /// Its tensors, with those of the machine.
    pub(crate) fn tensors(&self, offset: f64) -> [(&'static str, Tensor); 4] {
        let [center, coefficients, of_machine, vectors] = Self::TENSORS;
        let (count, dim) = (self.len(), self.dim());
        [
            (center, Tensor::f64([dim], self.space.center.clone())),
            (coefficients, Tensor::f64([count], self.coefficients.clone())),
            (of_machine, Tensor::f64([1], vec![offset])),
            (vectors, Tensor::f32([count, dim], self.vectors.clone())),
        ]
    }

    /// Reads [`tensors`](Self::tensors) and the offset.
    pub(crate) fn from_state(state: &State, function: KernelFunction) -> Result<(Self, f64), ScorerError> {
        state.expect_only(&Self::TENSORS)?;
        let [count, dim] = state.shape("vectors")?;
        let vectors = state.read_f32("vectors", [count, dim])?.to_vec();
        let coefficients = state.read_f64("coefficients", [count])?.to_vec();
        if let Some(at) = coefficients.iter().position(|coefficient| !(0.0 < *coefficient && *coefficient <= 1.0)) {
            return Err(state.tensor_error("coefficients", format!("number {at} is not above 0 and at most 1")));
        }
        let center = state.read_f64("centre", [dim])?.to_vec();
        let offset = state.read_f64("offset", [1])?[0];
        let space = Space::restore(function, center).map_err(|reason| state.config_error(reason))?;
        Ok((Self::of_vectors(space, vectors, coefficients)?, offset))
    }
}
