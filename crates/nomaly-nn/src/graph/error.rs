//! Errors of graphs.

use super::tokens::NodeLayout;

/// Why a graph cannot exist, or cannot take inputs of a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A node or a tap reads a node that does not stand before it.
    #[error("node {node} of the graph reads node {input}, which does not stand before it")]
    UnknownNode {
        /// The node that reads.
        node: usize,
        /// The node that is read.
        input: usize,
    },
    /// A node that needs inputs and has none.
    #[error("node {node} of the graph has no inputs")]
    NoInputs {
        /// The node.
        node: usize,
    },
    /// A result without channels.
    #[error("node {node} of the graph has no channels")]
    NoChannels {
        /// The node.
        node: usize,
    },
    /// Inputs of a node whose channels differ.
    #[error("node {node} of the graph needs {expected} channels, but one of its inputs has {found}")]
    Channels {
        /// The node.
        node: usize,
        /// Channels that the node needs.
        expected: usize,
        /// Channels of the input.
        found: usize,
    },
    /// Groups that do not divide the channels.
    #[error("`{layer}` has {groups} groups, which must divide its {inputs} input and {outputs} output channels")]
    Groups {
        /// The layer.
        layer: String,
        /// The groups.
        groups: usize,
        /// Input channels.
        inputs: usize,
        /// Output channels.
        outputs: usize,
    },
    /// An image where tokens are needed, or the other way round.
    #[error("{layer} needs {expected}, but node {input} gives {found}")]
    Layout {
        /// The layer.
        layer: String,
        /// The node that it reads.
        input: usize,
        /// What it needs.
        expected: NodeLayout,
        /// What it is given.
        found: NodeLayout,
    },
    /// Channels that are not those of queries, keys and values of whole heads.
    #[error(
        "node {node} of the graph has {channels} channels, which are not queries, keys and values of {heads} heads"
    )]
    Heads {
        /// The node.
        node: usize,
        /// The heads.
        heads: usize,
        /// Channels of its input.
        channels: usize,
    },
    /// A window or a step of zero.
    #[error("the window of {layer} has a side or a step of 0")]
    Window {
        /// The layer.
        layer: String,
    },
    /// Two things of one name.
    #[error("the graph has two of the {what} `{name}`")]
    Duplicate {
        /// `parameter` or `tap`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The number of sizes is not that of the inputs.
    #[error("the graph has {expected} inputs, but sizes of {found} were given")]
    Inputs {
        /// Inputs of the graph.
        expected: usize,
        /// Sizes given.
        found: usize,
    },
    /// An input that is too small, or inputs that do not fit each other.
    #[error("{layer} cannot take {found:?}: {reason}")]
    Size {
        /// The layer.
        layer: String,
        /// The shape of what it reads.
        found: [usize; 3],
        /// What it needs.
        reason: String,
    },
}
