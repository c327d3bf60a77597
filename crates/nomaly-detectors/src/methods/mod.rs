//! The methods, one file each.

pub mod dn2;
mod grid;
pub mod mvg;
pub mod padim;
pub mod patchcore;
mod patches;
mod pooled;
