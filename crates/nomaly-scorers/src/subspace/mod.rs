//! Subspaces: normal rows lie near a few directions, and the distance from these is the score.
//!
//! [`PcaMonitor`] scores rows by the distance from the directions of largest variance, [`RobustPca`] from directions
//! that are robust to gross errors of single entries; [`PrincipalComponents`] gives the coordinates of rows.

mod affine;
mod components;
mod pca;
mod projection;
mod pursuit;
mod robust;

use affine::{Affine, Basis};
pub use components::KeptComponents;
pub use pca::{Monitored, PcaMonitor, PcaMonitorOptions};
pub use projection::PrincipalComponents;
pub use robust::{RobustPca, RobustPcaOptions};
