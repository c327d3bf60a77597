//! The covariances of a mixture, and how they are stored.

use ndarray::{Array1, Array2, Array3};
use nomaly_settings::SettingError;

use crate::ScorerError;
use crate::choice::named_choice;
use crate::scorer::{State, Tensor};

named_choice! {
    /// The form of the covariances of a mixture.
    MixtureCovariance {
        /// Each has a covariance of its own.
        Full = "full",
        /// Each has variances of its own along the columns, and no covariances.
        Diagonal = "diagonal",
        /// All share one covariance.
        Tied = "tied",
        /// Each has one variance, the same in all directions.
        Spherical = "spherical",
    }
}

/// The covariances of `k` components. Only the lower triangle of a matrix is used.
#[derive(Clone, Debug, PartialEq)]
pub enum Covariances {
    /// A matrix for each component, `[k, dim, dim]`.
    Full(Array3<f64>),
    /// The variances along the columns for each component, `[k, dim]`.
    Diagonal(Array2<f64>),
    /// One matrix for all components, `[dim, dim]`.
    Tied(Array2<f64>),
    /// One variance for each component, `[k]`.
    Spherical(Array1<f64>),
}

impl Covariances {
    /// The form of the covariances.
    pub fn covariance(&self) -> MixtureCovariance {
        match self {
            Self::Full(_) => MixtureCovariance::Full,
            Self::Diagonal(_) => MixtureCovariance::Diagonal,
            Self::Tied(_) => MixtureCovariance::Tied,
            Self::Spherical(_) => MixtureCovariance::Spherical,
        }
    }

    /// Fails unless the shape is that of `k` components in `dim` dimensions and every number is finite.
    pub(super) fn check(&self, k: usize, dim: usize) -> Result<(), ScorerError> {
        let (found, expected, finite) = match self {
            Self::Full(all) => (all.shape(), vec![k, dim, dim], all.iter().all(|value| value.is_finite())),
            Self::Diagonal(all) => (all.shape(), vec![k, dim], all.iter().all(|value| value.is_finite())),
            Self::Tied(one) => (one.shape(), vec![dim, dim], one.iter().all(|value| value.is_finite())),
            Self::Spherical(all) => (all.shape(), vec![k], all.iter().all(|value| value.is_finite())),
        };
        if found == expected && finite {
            return Ok(());
        }
        let expected = format!("finite numbers of shape {expected:?}");
        Err(SettingError::value("covariances", format!("of shape {found:?}"), &expected).into())
    }

    /// The number of free parameters.
    pub(super) fn parameters(&self) -> usize {
        match self {
            Self::Full(all) => all.shape()[0] * triangle(all.shape()[1]),
            Self::Diagonal(all) => all.len(),
            Self::Tied(one) => triangle(one.nrows()),
            Self::Spherical(all) => all.len(),
        }
    }

    /// The numbers as a tensor; matrices as lower triangles, row by row.
    pub(super) fn tensor(&self) -> Tensor {
        let lower = |dim: usize| (0..dim).flat_map(|row| (0..=row).map(move |column| (row, column)));
        match self {
            Self::Full(all) => {
                let (k, dim, _) = all.dim();
                let packed = all.outer_iter().flat_map(|one| lower(dim).map(|at| one[at]).collect::<Vec<_>>());
                Tensor::f64([k, triangle(dim)], packed.collect())
            }
            Self::Diagonal(all) => Tensor::f64(all.shape(), all.iter().copied().collect()),
            Self::Tied(one) => {
                let packed: Vec<f64> = lower(one.nrows()).map(|at| one[at]).collect();
                Tensor::f64([packed.len()], packed)
            }
            Self::Spherical(all) => Tensor::f64([all.len()], all.to_vec()),
        }
    }

    /// Reads the tensor `name` for `k` components in `dim` dimensions.
    pub(super) fn read(
        state: &State,
        name: &str,
        covariance: MixtureCovariance,
        k: usize,
        dim: usize,
    ) -> Result<Self, ScorerError> {
        let too_large = || state.tensor_error(name, format!("{dim} dimensions are too many for a covariance"));
        let packed = match covariance {
            MixtureCovariance::Full | MixtureCovariance::Tied => {
                dim.checked_mul(dim).and_then(|square| square.checked_add(dim)).ok_or_else(too_large)? / 2
            }
            MixtureCovariance::Diagonal | MixtureCovariance::Spherical => 0,
        };
        let place = |row: usize, column: usize| triangle(row.max(column)) + row.min(column);
        Ok(match covariance {
            MixtureCovariance::Full => {
                let lower = state.read_f64(name, [k, packed])?;
                let one = |(component, row, column)| lower[component * packed + place(row, column)];
                Self::Full(Array3::from_shape_fn((k, dim, dim), one))
            }
            MixtureCovariance::Tied => {
                let lower = state.read_f64(name, [packed])?;
                Self::Tied(Array2::from_shape_fn((dim, dim), |(row, column)| lower[place(row, column)]))
            }
            MixtureCovariance::Diagonal => {
                let all = state.read_f64(name, [k, dim])?;
                Self::Diagonal(Array2::from_shape_fn((k, dim), |(component, column)| all[component * dim + column]))
            }
            MixtureCovariance::Spherical => Self::Spherical(state.read_f64(name, [k])?.to_vec().into()),
        })
    }
}

/// The numbers in the lower triangle of a matrix of `dim` rows.
fn triangle(dim: usize) -> usize {
    dim * (dim + 1) / 2
}
