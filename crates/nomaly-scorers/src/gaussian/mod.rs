//! Multivariate Gaussians: one mean and one covariance, and the distance from them.
//!
//! [`GaussianStatistics`] takes rows block by block and merges; [`Gaussian`] and [`PcaGaussian`] score.

mod pca;
mod scorer;
mod statistics;

pub(crate) use pca::ENTRY as PCA_ENTRY;
pub use pca::{Keep, PcaEstimator, PcaGaussian, PcaOptions};
pub(crate) use scorer::ENTRY;
pub use scorer::{Covariance, Gaussian};
pub use statistics::GaussianStatistics;
