//! Subspaces: normal rows lie near a few directions, and the distance from these is the score.
//!
//! [`PcaMonitor`] scores rows by the distance from the directions of largest variance, [`RobustPca`] from those that gross
//! errors of single entries do not move; [`PrincipalComponents`] gives the coordinates of rows.

mod affine;
mod pca;
mod projection;
mod pursuit;
mod robust;

use affine::{Affine, Basis};
pub(crate) use pca::ENTRY as PCA_ENTRY;
pub use pca::{Components, Monitored, PcaMonitor, PcaMonitorOptions};
pub use projection::PrincipalComponents;
pub(crate) use robust::ENTRY as ROBUST_PCA_ENTRY;
pub use robust::{Lambda, RobustPca, RobustPcaOptions};
