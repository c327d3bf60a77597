//! Errors of networks in training.

use nomaly_kernels::training::TrainingError;
use nomaly_registry::UnknownName;

use crate::graph::GraphError;
use crate::weights::WeightsError;

/// Why a network cannot be trained or a pass cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainableError {
    /// The graph has no tap of that name.
    #[error(transparent)]
    UnknownTap(#[from] UnknownName),
    /// No tap was requested.
    #[error("a network in training needs at least one tap as its output")]
    NoTaps,
    /// The graph cannot take inputs of these sizes.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The number of inputs differs from the graph's.
    #[error("the network has {expected} inputs, but {found} were given")]
    Inputs {
        /// Inputs of the graph.
        expected: usize,
        /// Inputs given.
        found: usize,
    },
    /// A parameter is missing.
    #[error("the weights have no `{tensor}`")]
    MissingTensor {
        /// The parameter.
        tensor: String,
    },
    /// The shape of a parameter differs from the graph.
    #[error("`{tensor}` is {found:?} in the weights, but {expected:?} in the network")]
    Shape {
        /// The parameter.
        tensor: String,
        /// Shape in the network.
        expected: Vec<usize>,
        /// Shape in the weights.
        found: Vec<usize>,
    },
    /// A tensor cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A layer cannot be planned or run.
    #[error("{layer}: {source}")]
    Layer {
        /// The layer's name.
        layer: String,
        /// The cause.
        source: TrainingError,
    },
    /// The images are not a whole number of images of the planned size.
    #[error("{found} values are not a whole number of images of {each} values")]
    Images {
        /// Values of one image.
        each: usize,
        /// Values given.
        found: usize,
    },
    /// The gradients do not fit the outputs.
    #[error("gradients of {found:?} values were given for outputs of {expected:?} values")]
    Gradients {
        /// Values of each output.
        expected: Vec<usize>,
        /// Values of each gradient.
        found: Vec<usize>,
    },
    /// A group of parameters of the optimizer has no member.
    #[error("the network has no parameter of the optimizer's group {names}")]
    EmptyGroup {
        /// The names, as the group gives them.
        names: String,
    },
    /// The optimizer has been used with another network.
    #[error("the optimizer has states of {found} parameters, the network has {expected}")]
    Optimizer {
        /// Parameters of the network.
        expected: usize,
        /// Parameters that the optimizer knows.
        found: usize,
    },
    /// The optimizer's state of a parameter differs in length from the parameter.
    #[error("the optimizer's state of `{parameter}` has {found} values, the network's parameter {expected}")]
    OptimizerState {
        /// The parameter.
        parameter: String,
        /// Values of the parameter.
        expected: usize,
        /// Values of its state.
        found: usize,
    },
}

/// Adds the layer's name to a kernel error.
pub(super) fn in_layer(layer: &str) -> impl FnOnce(TrainingError) -> TrainableError + use<> {
    let layer = layer.to_owned();
    |source| TrainableError::Layer { layer, source }
}
