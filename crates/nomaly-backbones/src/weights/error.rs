//! Errors of published weights and of the cache.

use std::path::{Path, PathBuf};

use nomaly_nn::weights::WeightsError;
use nomaly_registry::UnknownName;
use nomaly_store::StoreError;

/// Why published weights could not be fetched, imported, converted or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// No published weights of that name.
    #[error(transparent)]
    UnknownWeights(#[from] UnknownName),
    /// The weights are known but not on this machine.
    #[error("the weights of {name} are not on this machine; fetch them with `nomaly weights get {name}`")]
    NotFetched {
        /// The weights.
        name: String,
    },
    /// The tensors are not those of the backbone.
    #[error("the tensors do not fit {name}: {reason}")]
    DoesNotFit {
        /// The backbone.
        name: String,
        /// The difference.
        reason: String,
    },
    /// A manifest of this library cannot be read.
    #[error("the manifest of the weights {name} is not valid: {reason}")]
    Manifest {
        /// The weights.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Something is wrong with a certain file.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<CacheError>,
    },
    /// A weight file cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A file could not be fetched or kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CacheError {
    pub(crate) fn in_file(self, path: &Path) -> Self {
        Self::InFile { path: path.to_owned(), source: Box::new(self) }
    }

    /// Whether the caller stopped the work.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::InFile { source, .. } => source.is_cancelled(),
            Self::Weights(error) => error.is_cancelled(),
            Self::Store(error) => error.is_cancelled(),
            _ => false,
        }
    }
}
