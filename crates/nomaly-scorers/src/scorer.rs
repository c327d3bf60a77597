//! The trait of all scorers, and their stored form.

use std::collections::BTreeMap;

use half::f16;
use ndarray::ArrayView2;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::ScorerError;

/// A scorer fitted on rows of normal items. *Higher = more anomalous.*
pub trait Scorer: Send + Sync + std::fmt::Debug {
    /// The number of columns of the rows it was fitted on.
    fn dim(&self) -> usize;

    /// One score for each of the rows `[n, dim]`. The score of a row does not depend on the other rows.
    ///
    /// # Errors
    /// [`ScorerError::Dimension`] and [`ScorerError::NonFiniteFeature`].
    fn score(&self, rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError>;

    /// The natural logarithm of the probability density of each of the rows `[n, dim]`, for scorers that model one. It
    /// decreases as the score increases.
    ///
    /// # Errors
    /// [`ScorerError::NoDensity`] for scorers that do not model a density, and those of [`score`](Self::score).
    fn log_likelihood(&self, _rows: ArrayView2<'_, f32>) -> Result<Vec<f64>, ScorerError> {
        Err(ScorerError::NoDensity { kind: self.state().kind })
    }

    /// The complete scorer as numbers; [`restore`](crate::restore) returns one with the same scores.
    fn state(&self) -> State;
}

/// The numbers of a tensor, in row-major order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TensorData {
    /// Half precision.
    F16(Vec<f16>),
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
    /// Whole numbers: indices, counts.
    U32(Vec<u32>),
}

/// A stored array.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The length of each axis; empty for a single number.
    pub shape: Vec<usize>,
    /// As many numbers as the product of `shape`.
    pub data: TensorData,
}

impl Tensor {
    /// A tensor of half precision.
    pub fn f16(shape: impl Into<Vec<usize>>, data: Vec<f16>) -> Self {
        Self { shape: shape.into(), data: TensorData::F16(data) }
    }

    /// A tensor of single precision.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        Self { shape: shape.into(), data: TensorData::F32(data) }
    }

    /// A tensor of double precision.
    pub fn f64(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Self {
        Self { shape: shape.into(), data: TensorData::F64(data) }
    }

    /// A tensor of whole numbers.
    pub fn u32(shape: impl Into<Vec<usize>>, data: Vec<u32>) -> Self {
        Self { shape: shape.into(), data: TensorData::U32(data) }
    }
}

/// The complete state of a fitted scorer, as stored in model files.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The scorer's name in [`SCORERS`](crate::SCORERS).
    pub kind: String,
    /// Its small settings, a JSON object.
    pub config: serde_json::Value,
    /// Its numbers by name.
    pub tensors: BTreeMap<String, Tensor>,
}

impl State {
    /// A state of `kind` with `config` and named tensors.
    pub(crate) fn new<const N: usize>(kind: &str, config: &impl Serialize, tensors: [(&str, Tensor); N]) -> Self {
        Self::with_tensors(kind, config, tensors)
    }

    /// As [`new`](Self::new), with tensors of which some may be absent.
    pub(crate) fn with_tensors<'a>(
        kind: &str,
        config: &impl Serialize,
        tensors: impl IntoIterator<Item = (&'a str, Tensor)>,
    ) -> Self {
        Self {
            kind: kind.to_owned(),
            config: serde_json::to_value(config).unwrap_or_default(),
            tensors: tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect(),
        }
    }

    /// Reads the configuration.
    pub(crate) fn read_config<T: DeserializeOwned>(&self) -> Result<T, ScorerError> {
        T::deserialize(&self.config).map_err(|error| self.config_error(error.to_string()))
    }

    /// An error about the configuration.
    pub(crate) fn config_error(&self, reason: String) -> ScorerError {
        self.stored_error(format!(": {reason}"))
    }

    /// An error about the tensor `name`.
    pub(crate) fn tensor_error(&self, name: &str, reason: String) -> ScorerError {
        self.stored_error(format!(", tensor `{name}`: {reason}"))
    }

    fn stored_error(&self, problem: String) -> ScorerError {
        ScorerError::Stored { kind: self.kind.clone(), problem }
    }

    /// Fails if there is an unexpected tensor.
    pub(crate) fn expect_only(&self, names: &[&str]) -> Result<(), ScorerError> {
        match self.tensors.keys().find(|name| !names.contains(&name.as_str())) {
            Some(name) => Err(self.tensor_error(name, "this scorer has no such tensor".to_owned())),
            None => Ok(()),
        }
    }

    /// The shape of the tensor `name`, checked to have `N` axes, none of them empty, and the matching number of values.
    pub(crate) fn shape<const N: usize>(&self, name: &str) -> Result<[usize; N], ScorerError> {
        let tensor = self.tensor(name)?;
        let shape: [usize; N] = tensor
            .shape
            .as_slice()
            .try_into()
            .map_err(|_| self.tensor_error(name, format!("has {} axes, expected {N}", tensor.shape.len())))?;
        let len = match &tensor.data {
            TensorData::F16(data) => data.len(),
            TensorData::F32(data) => data.len(),
            TensorData::F64(data) => data.len(),
            TensorData::U32(data) => data.len(),
        };
        if shape.contains(&0) {
            return Err(self.tensor_error(name, format!("shape {shape:?} is empty")));
        }
        let product = shape.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis));
        if product != Some(len) {
            return Err(self.tensor_error(name, format!("shape {shape:?} does not hold {len} numbers")));
        }
        Ok(shape)
    }

    /// The finite `f64` numbers of the tensor `name`, which must have exactly `shape`.
    pub(crate) fn read_f64<const N: usize>(&self, name: &str, shape: [usize; N]) -> Result<&[f64], ScorerError> {
        self.expect_shape(name, shape)?;
        let TensorData::F64(data) = &self.tensor(name)?.data else {
            return Err(self.tensor_error(name, "does not hold f64".to_owned()));
        };
        match data.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(self.tensor_error(name, format!("number {at} is not finite"))),
            None => Ok(data),
        }
    }

    /// The finite `f32` numbers of the tensor `name`, which must have exactly `shape`.
    pub(crate) fn read_f32<const N: usize>(&self, name: &str, shape: [usize; N]) -> Result<&[f32], ScorerError> {
        self.expect_shape(name, shape)?;
        let TensorData::F32(data) = &self.tensor(name)?.data else {
            return Err(self.tensor_error(name, "does not hold f32".to_owned()));
        };
        match data.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(self.tensor_error(name, format!("number {at} is not finite"))),
            None => Ok(data),
        }
    }

    /// The whole numbers of the tensor `name`, which must have exactly `shape`.
    pub(crate) fn read_u32<const N: usize>(&self, name: &str, shape: [usize; N]) -> Result<&[u32], ScorerError> {
        self.expect_shape(name, shape)?;
        match &self.tensor(name)?.data {
            TensorData::U32(data) => Ok(data),
            _ => Err(self.tensor_error(name, "does not hold u32".to_owned())),
        }
    }

    fn expect_shape<const N: usize>(&self, name: &str, shape: [usize; N]) -> Result<(), ScorerError> {
        let found = self.shape::<N>(name)?;
        if found == shape {
            return Ok(());
        }
        Err(self.tensor_error(name, format!("shape is {found:?}, expected {shape:?}")))
    }

    fn tensor(&self, name: &str) -> Result<&Tensor, ScorerError> {
        self.tensors.get(name).ok_or_else(|| self.stored_error(format!(" has no tensor `{name}`")))
    }
}

/// Fails unless `rows` have columns and every feature is finite.
pub(crate) fn check_finite(rows: ArrayView2<'_, f32>) -> Result<(), ScorerError> {
    if rows.ncols() == 0 {
        return Err(ScorerError::NoColumns);
    }
    for (row, values) in rows.outer_iter().enumerate() {
        if let Some(column) = values.iter().position(|value| !value.is_finite()) {
            return Err(ScorerError::NonFiniteFeature { row, column });
        }
    }
    Ok(())
}

/// Fails unless `rows` have `dim` columns and every feature is finite.
pub(crate) fn check_rows(rows: ArrayView2<'_, f32>, dim: usize) -> Result<(), ScorerError> {
    if rows.ncols() != dim {
        return Err(ScorerError::Dimension { expected: dim, got: rows.ncols() });
    }
    check_finite(rows)
}
