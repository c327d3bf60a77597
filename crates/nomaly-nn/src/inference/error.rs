//! Errors of inference.

use nomaly_kernels::network::NetworkError;
use nomaly_kernels::training::TrainingError;

/// Why an [`Inference`](super::Inference) cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InferenceError {
    /// The number of inputs differs from the graph's.
    #[error("the network has {expected} inputs, but {found} were given")]
    Inputs {
        /// Inputs of the graph.
        expected: usize,
        /// Inputs given.
        found: usize,
    },
    /// An input or the list of outputs has another length, or the workspace belongs to another network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A layer cannot be run.
    #[error("{layer}: {source}")]
    Layer {
        /// The layer's name.
        layer: String,
        /// The cause.
        source: TrainingError,
    },
}
