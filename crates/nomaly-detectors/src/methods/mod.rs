//! The methods, one file each.

pub mod dn2;
pub mod mvg;
mod pooled;
