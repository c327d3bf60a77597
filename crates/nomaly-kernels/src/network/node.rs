//! The nodes of a graph whose shapes have been checked.

use super::NodeId;
use crate::conv::{DenseWeights, DepthwiseWeights, WinogradWeights};
use crate::geometry::Activation;
use crate::window::Window;

/// What a node computes.
#[derive(Debug)]
pub(crate) enum Op {
    Input {
        planar: bool,
    },
    /// Reads its input, a residual if there is one, and a gate `[C, 1, 1]` of its input if `gated`.
    Dense {
        weights: DenseWeights,
        window: Window,
        activation: Activation,
        gated: bool,
    },
    Winograd {
        weights: WinogradWeights,
        window: Window,
        activation: Activation,
    },
    Depthwise(Box<DepthwiseLayer>),
    /// A depthwise convolution into the tensor of its second input, and a pointwise one from there; its first input is
    /// that of the depthwise one, the third, if there is one, a residual.
    Inverted {
        depthwise: Box<DepthwiseLayer>,
        weights: DenseWeights,
        window: Window,
        activation: Activation,
    },
    /// The tensor between the layers of the node that reads it.
    Wide,
    Affine {
        scale: Vec<f32>,
        shift: Vec<f32>,
        activation: Activation,
    },
    Add {
        activation: Activation,
    },
    MaxPool {
        window: Window,
    },
    AvgPool {
        window: Window,
        count_include_pad: bool,
    },
    Mean,
    /// The mean, from the sums of rows that its input wrote.
    MeanOfSums,
    Scale,
    /// Fused into another node; has no reader.
    Absorbed,
}

/// A depthwise convolution, optionally after the pointwise convolution `expand`.
#[derive(Debug)]
pub(crate) struct DepthwiseLayer {
    pub(crate) weights: DepthwiseWeights,
    pub(crate) window: Window,
    pub(crate) activation: Activation,
    pub(crate) expand: Option<(DenseWeights, Activation)>,
}

/// A node of the graph: an operation, what it reads, and the shape `[C, H, W]` of its result.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<NodeId>,
    pub(crate) shape: [usize; 3],
    /// The node that reads the sums of rows of this one's result.
    pub(crate) sums: Option<usize>,
}
