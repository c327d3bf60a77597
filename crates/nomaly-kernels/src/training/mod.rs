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
//! | convolution, groups = 1 | [`Conv2d::forward`] | [`Conv2d::input_gradient`], [`Conv2d::weight_gradient`], [`Conv2d::bias_gradient`] |
//! | transposed convolution | [`ConvTranspose2d::forward`] | likewise |
//! | linear layer | a 1×1 convolution of 1×1 images: [`linear`] | likewise |
//! | batch norm, with ReLU | [`BatchNorm::forward`], [`BatchNorm::evaluate`] | [`BatchNorm::backward`], [`BatchNorm::backward_fixed`] |
//! | pooling | [`Pool::average`], [`Pool::max`], [`global_average`] | [`Pool::average_gradient`], [`Pool::max_gradient`], [`global_average_gradient`] |
//! | dropout | [`Dropout::apply`] | likewise |
//! | softmax cross-entropy | [`cross_entropy`] | in the same call |
//! | optimizer step | [`SgdStep`], [`AdamStep`], [`NAdamStep`], [`RmsPropStep`], [`StableAdamWStep`] | |
//! | gradient clipping | [`global_norm`], [`clip_norm`], [`clip_value`] | |
//! | moving average of weights | [`WeightAverage`] | |
//!
//! **Parallelism** is one level deep, on the current rayon pool. Threads share a sum only in parts that the shapes
//! alone determine and that are added in order: results are the same for any number of threads.

mod average;
mod clip;
mod convolution;
mod correlation;
mod dropout;
mod elementwise;
mod error;
mod layout;
mod loss;
mod memory;
mod norm;
mod optimizer;
mod pooling;
mod reduce;
mod weight_gradient;

pub use average::WeightAverage;
pub use clip::{clip_norm, clip_value, global_norm, norm_factor};
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
pub use pooling::{AverageOver, Pool, global_average, global_average_gradient};

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
        },
    )
}
