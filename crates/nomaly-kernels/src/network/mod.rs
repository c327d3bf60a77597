//! Whole convolutional networks as one plan: built once, run many times.
//!
//! **The problem.** A framework runs a network layer by layer: each layer allocates its output, converts layouts and
//! makes passes over memory for bias, activation and residual. At batch 1 that costs more than the arithmetic.
//!
//! **The design.** [`NetworkBuilder`] checks every shape as the graph is described and packs the weights for the
//! instruction set. [`NetworkBuilder::finish`] drops what no output needs, gives every tensor a place in one arena by
//! its lifetime, with the zero border that its consumers' padding asks for, and resolves all addresses.
//! [`CompiledNetwork::run`] only computes, without allocation or shape logic. Tensors are in the blocked layout between
//! layers and are converted to the requested [`OutputLayout`] at the outputs.
//!
//! Nodes are fused first, so that some tensors need not exist (the `fuse` module), and 3x3 convolutions of stride 1 are
//! computed by Winograd's algorithm where a cost model says so ([`Algorithm`]).
//!
//! **Measured**: see `benches/README.md`, which has the commands too.
//!
//! **Eligible** are networks of the operations that [`NetworkBuilder`] has. Convolutions with other groups are refused
//! when the graph is described, so a plan that exists runs entirely on these kernels.
//!
//! **Parallelism** is one level deep, on the current rayon pool: a run gathers its threads once and distributes each
//! step, images x bands of rows x channel blocks, among them. The split of the work never changes the order of a sum,
//! and the algorithm of a layer depends on its geometry alone, so an image's result depends neither on the number of
//! threads nor on its batch.
//!
//! ```
//! use nomaly_kernels::isa::Isa;
//! use nomaly_kernels::network::{Activation, ConvLayer, NetworkBuilder, OutputLayout, Padding};
//!
//! let mut net = NetworkBuilder::new(Isa::best()?);
//! let image = net.input(1, 4, 4);
//! let sum = net.conv2d(
//!     image,
//!     ConvLayer {
//!         out_channels: 1,
//!         kernel: [3, 3],
//!         stride: [1, 1],
//!         padding: Padding::symmetric(1),
//!         groups: 1,
//!         weight: &[1.0; 9],
//!         bias: None,
//!         activation: Activation::Identity,
//!         residual: None,
//!     },
//! )?;
//! let net = net.finish(&[(sum, OutputLayout::Nchw)])?;
//!
//! let mut outputs = vec![Vec::new()];
//! net.run(&[1.0; 16], 1, &mut net.workspace(1), &mut outputs)?;
//! assert_eq!(outputs[0][..4], [4.0, 6.0, 6.0, 4.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod fuse;
mod node;
mod plan;
mod run;

pub use self::builder::NetworkBuilder;
pub use self::run::{CompiledNetwork, NetworkWorkspace, StepInfo};
pub use crate::error::NetworkError;
pub use crate::geometry::{Activation, OutputLayout, Padding, Pool2d};

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// The fastest for the layer's geometry.
    #[default]
    Auto,
    /// Every product and sum of the definition.
    Direct,
    /// Winograd's F(2x2, 3x3): 3x3 of stride 1 with 16/36 of the multiplications, and about as exact as direct.
    Winograd2,
    /// Winograd's F(4x4, 3x3): 3x3 of stride 1 with a quarter of the multiplications.
    Winograd4,
}

/// A tensor in a network under construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) usize);

/// A two-dimensional convolution (cross-correlation, as in every deep-learning framework) with its epilogue:
/// `activation(conv(x) + bias + residual)`.
#[derive(Clone, Copy, Debug)]
pub struct ConvLayer<'a> {
    /// Output channels O.
    pub out_channels: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Step between windows, rows and columns.
    pub stride: [usize; 2],
    /// Zeros around the input; each side smaller than the kernel.
    pub padding: Padding,
    /// 1, or the number of input channels (which is then also that of output channels): depthwise.
    pub groups: usize,
    /// Weights `[O, I / groups, kh, kw]`.
    pub weight: &'a [f32],
    /// Bias `[O]`.
    pub bias: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
    /// A tensor of the output's shape that is added before the activation.
    pub residual: Option<NodeId>,
}

/// Channel attention (Hu et al. 2018, "Squeeze-and-Excitation Networks", section 3):
/// `x * sigmoid(expand(activation(reduce(mean(x)))))`.
#[derive(Clone, Copy, Debug)]
pub struct SqueezeExcite<'a> {
    /// Width R of the bottleneck.
    pub reduced: usize,
    /// Weights `[R, C]` of the first dense layer.
    pub reduce_weight: &'a [f32],
    /// Bias `[R]` of the first dense layer.
    pub reduce_bias: &'a [f32],
    /// Between the two dense layers.
    pub activation: Activation,
    /// Weights `[C, R]` of the second dense layer.
    pub expand_weight: &'a [f32],
    /// Bias `[C]` of the second dense layer.
    pub expand_bias: &'a [f32],
}
