//! The methods, one module each.

pub mod adacl;
pub mod cutpaste;
pub mod dn2;
pub mod features;
mod gallery;
pub mod geotrans;
mod grid;
#[cfg(test)]
mod locating_tests;
pub mod mvg;
pub mod open_set;
pub mod padim;
pub mod patch_model;
pub mod patchcore;
mod patches;
mod pooled;
mod pyramid;
mod scoring;
pub mod spade;
