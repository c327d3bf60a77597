//! Kernel machines: boundaries and subspaces of normal rows in the feature space of a kernel.
//!
//! [`OneClassSvm`] separates the rows from the origin by a hyperplane, [`Svdd`] encloses them in a ball. Both are found by
//! one solver, sequential minimal optimisation, and scored by a sum over support vectors. [`KernelPca`] measures the distance
//! from a subspace.

mod expansion;
mod kernel;
mod kernel_pca;
mod one_class_svm;
mod rows_cache;
mod smo;
mod svdd;

pub use expansion::SupportVectorOptions;
pub use kernel::{Gamma, KernelKind, KernelOptions};
pub(crate) use kernel_pca::ENTRY as KERNEL_PCA_ENTRY;
pub use kernel_pca::{KernelComponents, KernelPca, KernelPcaOptions};
pub(crate) use one_class_svm::ENTRY as ONE_CLASS_SVM_ENTRY;
pub use one_class_svm::OneClassSvm;
pub(crate) use svdd::ENTRY as SVDD_ENTRY;
pub use svdd::Svdd;
