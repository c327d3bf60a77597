//! Errors of networks.

use crate::isa::IsaError;
use crate::window::WindowError;

/// Why a network cannot be built or run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The instruction set cannot be used here.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// A window without output.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// A node of another builder.
    #[error("node {node} does not exist: the network has {count} nodes")]
    UnknownNode {
        /// Number of the node.
        node: usize,
        /// How many nodes there are.
        count: usize,
    },
    /// A size that must be positive is zero.
    #[error("{what} must not be zero")]
    ZeroSize {
        /// Which size.
        what: &'static str,
    },
    /// A slice has the wrong length.
    #[error("{what} has {found} values, expected {expected}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Length required by the shapes.
        expected: usize,
        /// Length of the slice.
        found: usize,
    },
    /// Two tensors that must have the same shape do not.
    #[error("{what}: shape {found:?} does not match {expected:?}")]
    Shape {
        /// The operation.
        what: &'static str,
        /// Shape `[C, H, W]` that is needed.
        expected: [usize; 3],
        /// Shape `[C, H, W]` that was found.
        found: [usize; 3],
    },
    /// Grouped convolution other than depthwise.
    #[error(
        "convolution with {groups} groups from {input} to {output} channels is not supported: \
         groups must be 1, or equal to both channel counts (depthwise)"
    )]
    Groups {
        /// Number of groups.
        groups: usize,
        /// Input channels.
        input: usize,
        /// Output channels.
        output: usize,
    },
    /// A tensor too large for memory.
    #[error("{what} is too large")]
    TooLarge {
        /// Which tensor.
        what: &'static str,
    },
    /// A network has one input.
    #[error("a network has exactly one input, found {found}")]
    InputCount {
        /// How many were declared.
        found: usize,
    },
    /// A network without outputs computes nothing.
    #[error("a network needs at least one output")]
    NoOutputs,
    /// The number of output vectors differs from the number of outputs.
    #[error("{found} output vectors given, the network has {expected} outputs")]
    OutputCount {
        /// Outputs of the network.
        expected: usize,
        /// Vectors given.
        found: usize,
    },
    /// The workspace was made by another network.
    #[error("the workspace holds {found} values per image, this network needs {expected}")]
    Workspace {
        /// Values per image that the network needs.
        expected: usize,
        /// Values per image of the workspace.
        found: usize,
    },
}
