//! Subspaces: normal rows lie near a few directions, and the distance from these is the score.
//!
//! [`PcaMonitor`] scores rows by the distance from the directions of largest variance, [`PrincipalComponents`] gives their
//! coordinates on these.

mod affine;
mod pca;
mod projection;

use affine::{Affine, Basis};
pub(crate) use pca::ENTRY as PCA_ENTRY;
pub use pca::{Components, Monitored, PcaMonitor, PcaMonitorOptions};
pub use projection::PrincipalComponents;
