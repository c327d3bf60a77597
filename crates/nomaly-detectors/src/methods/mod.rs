//! The methods, one file each.

pub mod dn2;
mod gallery;
mod grid;
#[cfg(test)]
mod locating_tests;
pub mod mvg;
pub mod padim;
pub mod patchcore;
mod patches;
mod pooled;
mod pyramid;
pub mod spade;
