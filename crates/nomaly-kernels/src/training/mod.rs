//! The kernels of a training step: forward and backward passes, losses and optimizer steps, on planar f32 tensors.
//!
//! **The problem.** Training passes through the same network twice per step with weights that change each time, so
//! nothing can be folded or packed in advance as in [`network`](crate::network), and reductions run over the whole
//! batch.
//!
//! **The design.** Tensors are `[N, C, H, W]`, row-major, as in other frameworks. Kernels that need another order
//! convert within a unit of work, in its cache. Plans ([`Conv2d`], [`ConvTranspose2d`], [`BatchNorm`], [`Pool`]) are
//! made for a geometry and serve any batch; working memory belongs to the threads and is kept between calls.
//!
//! | operation | forward | gradients |
//! |---|---|---|
//! | convolution, also in groups and depthwise | [`Conv2d::forward`] | [`Conv2d::input_gradient`], [`Conv2d::weight_gradient`], [`Conv2d::bias_gradient`] |
//! | transposed convolution | [`ConvTranspose2d::forward`] | likewise |
//! | linear layer | a 1×1 convolution of 1×1 images: [`linear`]; with fixed weights [`PackedLinear`] | likewise |
//! | batch norm, with ReLU or leaky ReLU | [`BatchNorm::forward`], [`BatchNorm::evaluate`] | [`BatchNorm::backward`], [`BatchNorm::backward_fixed`] |
//! | layer norm; group norm and instance norm | [`LayerNorm::forward`]; [`GroupNorm::forward`] | [`LayerNorm::backward`]; [`GroupNorm::backward`] |
//! | activation | [`activate`], [`activate_in_place`] | [`activation_gradient`] |
//! | factor per channel | [`ChannelScale::forward`] | [`ChannelScale::backward`] |
//! | pooling | [`Pool::average`], [`Pool::max`], [`global_average`] | [`Pool::average_gradient`], [`Pool::max_gradient`], [`global_average_gradient`] |
//! | attention | [`Attention::forward`] | [`Attention::backward`] |
//! | interpolation | [`Upsample::forward`] | [`Upsample::input_gradient`] |
//! | concatenation of channels | [`Concat::forward`] | [`Concat::split`] |
//! | padding, cropping | [`Pad::forward`], [`Crop::forward`] | [`Pad::input_gradient`], [`Crop::input_gradient`] |
//! | dropout | [`Dropout::apply`] | likewise |
//! | softmax of rows, and its logarithm | [`softmax`], [`log_softmax`] | [`softmax_gradient`], [`log_softmax_gradient`] |
//! | softmax cross-entropy | [`cross_entropy`] | in the same call |
//! | binary cross-entropy | [`binary_cross_entropy`], [`weighted_binary_cross_entropy`] | in the same call |
//! | squared, absolute, smooth absolute error | [`mean_squared_error`], [`mean_absolute_error`], [`smooth_l1`] | in the same call |
//! | optimizer step | [`SgdStep`], [`AdamStep`], [`NAdamStep`], [`RmsPropStep`], [`StableAdamWStep`] | |
//! | gradient clipping | [`global_norm`], [`clip_norm`], [`clip_value`] | |
//! | moving average of weights | [`WeightAverage`] | |
//!
//! **Parallelism** is one level deep, on the current rayon pool. Threads share a sum only in parts that the shapes
//! alone determine and that are added in order: results are the same for any number of threads.

mod activation;
mod attention;
mod average;
mod channel_scale;
mod clip;
mod columns;
mod concat;
mod convolution;
mod correlation;
mod depthwise;
mod depthwise_gradient;
mod dropout;
mod elementwise;
mod error;
mod grouped;
mod layout;
mod loss;
mod matrix;
mod memory;
mod norm;
mod optimizer;
mod packed_linear;
mod pair_loss;
mod pooling;
mod reduce;
mod row_norm;
mod softmax;
mod vectors;
mod weight_gradient;

pub use activation::{Reads, activate, activate_in_place, activation_gradient};
pub use attention::{Attention, AttentionShape, Qkv, QkvGradient, Rotary, RotaryPairs};
pub use channel_scale::{ChannelScale, ScalePer};
mod pad;
mod stage;
mod upsample;

pub use average::WeightAverage;
pub use clip::{clip_norm, clip_value, global_norm, norm_factor};
pub use concat::Concat;
pub use convolution::{Conv2d, ConvShape, ConvTranspose2d, ConvTransposeShape};
pub use dropout::Dropout;
pub use elementwise::{add_assign, relu, relu_gradient};
pub use error::TrainingError;
pub use loss::cross_entropy;
pub use norm::{AfterNorm, BatchNorm, NormBackward};
pub use optimizer::{
    AdamState, AdamStep, Gradient, NAdamRates, NAdamStep, RmsPropState, RmsPropStep, SgdStep, StableAdamWStep,
    StableForm, WeightDecay,
};
pub use packed_linear::PackedLinear;
pub use pad::{Border, Crop, Pad};
pub use pair_loss::{
    binary_cross_entropy, mean_absolute_error, mean_squared_error, smooth_l1, weighted_binary_cross_entropy,
};
pub use pooling::{AverageOver, Pool, global_average, global_average_gradient};
pub use row_norm::{GroupNorm, LayerNorm, RowNormBackward};
pub use softmax::{log_softmax, log_softmax_gradient, softmax, softmax_gradient};
pub use upsample::{Upsample, UpsampleMode};

use crate::geometry::Padding;
use crate::isa::Isa;

/// A linear layer `[N, I]` → `[N, O]` with weights `[O, I]`: a 1×1 convolution of images of one position.
///
/// # Errors
/// As for [`Conv2d::new`].
pub fn linear(isa: Isa, inputs: usize, outputs: usize) -> Result<Conv2d, TrainingError> {
    Conv2d::new(
        isa,
        ConvShape {
            in_channels: inputs,
            out_channels: outputs,
            input: [1, 1],
            kernel: [1, 1],
            stride: [1, 1],
            padding: Padding::default(),
            groups: 1,
        },
    )
}
