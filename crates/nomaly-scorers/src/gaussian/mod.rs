//! Multivariate Gaussians: one mean and one covariance, and the distance from them.
//!
//! [`GaussianStatistics`] takes rows block by block and merges; [`Gaussian`] and [`PcaGaussian`] score.

mod pca;
mod scorer;
mod statistics;

pub use pca::{Keep, PcaEstimator, PcaGaussian, PcaOptions};
pub use scorer::{Covariance, Gaussian, GaussianOptions};
pub use statistics::GaussianStatistics;
