//! The methods, one file each.

pub mod dn2;
mod grid;
#[cfg(test)]
mod locating_tests;
pub mod mvg;
pub mod padim;
pub mod patchcore;
mod patches;
mod pooled;
