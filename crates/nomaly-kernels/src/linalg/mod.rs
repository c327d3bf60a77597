//! One Gaussian for each of many positions: streamed statistics, batched Cholesky factors, Mahalanobis distances.
//!
//! The problem: PaDiM keeps a Gaussian of some hundred dimensions for each of thousands of positions of an image.
//! Keeping the features of all training images would take more memory than the covariances, one factorisation at a time
//! leaves the vector units idle, and every scored image passes over all factors.
//!
//! The design:
//! * [`PositionStatistics`] takes images one batch after the other, and two of them can be merged.
//! * The factorisation holds eight positions side by side, so that every operation works on whole vectors, whatever the
//!   dimension. It runs in f64: with a ridge of 0.01 on features of unit variance a covariance may have a condition
//!   number of 10⁴, which would leave three digits in single precision; results are rounded to f32.
//! * [`PositionGaussians`] holds the inverse `W` of each factor instead of the factor `L`. A triangular solve passes
//!   over the same number of values, but each of its results waits for the one before; the product `W (x - μ)` has no
//!   such chain.
//!
//! ```
//! use nomaly_kernels::Isa;
//! use nomaly_kernels::linalg::PositionStatistics;
//!
//! let isa = Isa::best()?;
//! let mut statistics = PositionStatistics::new(1, 2, isa)?; // one position, two numbers
//! statistics.add(&[0.0, 0.0, 2.0, 0.0, 0.0, 2.0, 2.0, 2.0])?; // four images
//! let gaussians = statistics.gaussians(0.0)?; // mean (1, 1), covariance 4/3 on the diagonal
//! let distance = gaussians.mahalanobis(&[1.0, 3.0])?;
//! assert!((distance[0] - 3.0f32.sqrt()).abs() < 1e-6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # References
//! Defard et al., *PaDiM: a patch distribution modeling framework for anomaly detection and localization* (2021); Chan,
//! Golub and LeVeque, *Updating formulae and a pairwise algorithm for computing sample variances* (1979), for the
//! merging.

mod cholesky;
mod gaussians;
mod statistics;
#[cfg(test)]
mod tests;

use crate::isa::IsaError;

pub use cholesky::cholesky_in_place;
pub use gaussians::PositionGaussians;
pub use statistics::PositionStatistics;

/// Why a computation fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LinalgError {
    /// The instruction set is not available.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// No positions, or no dimensions.
    #[error("{positions} positions of dimension {dim} hold nothing")]
    Empty {
        /// The positions.
        positions: usize,
        /// The dimension.
        dim: usize,
    },
    /// The number of values does not match the positions and the dimension.
    #[error("{what} should have {expected} numbers (or a multiple, for several images), but has {got}")]
    Length {
        /// The values in question.
        what: &'static str,
        /// The values of one image or table.
        expected: usize,
        /// The numbers given.
        got: usize,
    },
    /// Statistics of different shapes cannot be merged.
    #[error("statistics of {own:?} (positions, dimension) cannot take in those of {other:?}")]
    Shape {
        /// Positions and dimension of the receiver.
        own: (usize, usize),
        /// Positions and dimension of the other.
        other: (usize, usize),
    },
    /// A covariance needs two images.
    #[error("a covariance needs at least 2 images, but there are {count}")]
    TooFewImages {
        /// The images seen.
        count: u64,
    },
    /// A matrix is not positive definite, or holds a value that is not finite.
    #[error("the covariance of position {position} is not positive definite: pivot {row} is {pivot}")]
    NotPositiveDefinite {
        /// The first such position.
        position: usize,
        /// The row of the pivot.
        row: usize,
        /// The value found instead of a positive number.
        pivot: f64,
    },
}

/// Values of a lower triangle with its diagonal, row by row.
pub const fn packed_len(dim: usize) -> usize {
    dim * (dim + 1) / 2
}

/// Rejects empty shapes.
fn check_shape(positions: usize, dim: usize) -> Result<(), LinalgError> {
    if positions == 0 || dim == 0 { Err(LinalgError::Empty { positions, dim }) } else { Ok(()) }
}
