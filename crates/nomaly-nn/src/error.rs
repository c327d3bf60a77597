//! Errors of compilation.

use nomaly_kernels::network::NetworkError;
use nomaly_kernels::training::TrainingError;

use crate::graph::GraphError;
use crate::weights::WeightsError;

/// Why a graph with weights cannot be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// A tensor is missing.
    #[error("the weights have no `{tensor}`")]
    MissingTensor {
        /// The tensor.
        tensor: String,
    },
    /// The plan does not have an operation.
    #[error("a single plan cannot have {operation}")]
    Unsupported {
        /// The operation.
        operation: &'static str,
    },
    /// The graph cannot take inputs of these sizes.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A layer outside the plans cannot be planned.
    #[error("{layer}: {source}")]
    Layer {
        /// The layer's name.
        layer: String,
        /// The cause.
        source: TrainingError,
    },
    /// A tensor cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The network cannot be compiled for the input.
    #[error(transparent)]
    Network(#[from] NetworkError),
}
