//! Kernel machines: boundaries and subspaces of normal rows in the feature space of a kernel.
//!
//! [`SupportVectorMachine`] separates the rows from the origin by a hyperplane ([`OneClassSvmOptions`]) or encloses
//! them in a ball ([`SvddOptions`]). Both are found by one solver, sequential minimal optimization, and scored by a sum
//! over support vectors. [`KernelPca`] measures the distance from a subspace.

mod expansion;
mod kernel;
mod kernel_pca;
mod machine;
mod one_class_svm;
mod rows_cache;
mod smo;
mod svdd;

pub use kernel::{Gamma, KernelKind, KernelOptions};
pub use kernel_pca::{KernelPca, KernelPcaOptions};
pub use machine::{Boundary, SupportVectorMachine, SupportVectorOptions};
pub use one_class_svm::OneClassSvmOptions;
pub use svdd::SvddOptions;
