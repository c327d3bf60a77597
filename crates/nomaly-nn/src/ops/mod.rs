//! The training kernels as candle operations with gradients.
//!
//! On a CPU these functions run the kernels of [`nomaly_kernels::training`], forward and backward; on other devices
//! they consist of candle's own operations. The tensors determine which.
//!
//! They are for networks whose loss needs candle's tape: decoders, distillation, several branches. A network that is a
//! [`Graph`](crate::graph::Graph) needs no tape in [`trainable`](crate::trainable); candle's allocates each gradient
//! and adds it to a tensor of zeros.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use nomaly_nn::ops::{self, VarOptimizer};
//! use nomaly_nn::trainable::Rule;
//!
//! let image = Tensor::ones((1, 1, 4, 4), candle_core::DType::F32, &Device::Cpu)?;
//! let weight = Var::ones((1, 1, 3, 3), candle_core::DType::F32, &Device::Cpu)?;
//! let mut optimizer = VarOptimizer::new(Rule::sgd(0.125, 0.0), vec![weight.clone()]);
//! let loss = ops::conv2d(&image, &weight, None, [1, 1], [1, 1])?.sum_all()?;
//! optimizer.step(&loss.backward()?)?;
//! assert_eq!(weight.flatten_all()?.to_vec1::<f32>()?[..3], [1.0 - 9.0 / 8.0, 1.0 - 12.0 / 8.0, 1.0 - 9.0 / 8.0]);
//! # Ok::<(), candle_core::Error>(())
//! ```

mod convolution;
mod loss;
mod norm;
mod optimizer;
mod pooling;
pub(crate) mod windows;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor};
use nomaly_kernels::Isa;

pub use convolution::{conv_transpose2d, conv2d, linear};
pub use loss::cross_entropy;
pub use norm::{Norm, batch_norm};
pub use optimizer::VarOptimizer;
pub use pooling::{avg_pool2d, global_avg_pool, max_pool2d};

/// The values of a contiguous tensor on the CPU.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => Err(candle_core::Error::Msg("the tensor is not contiguous".to_owned()).bt()),
    }
}

/// An error of the kernels as one of candle.
fn wrap(error: impl std::error::Error + Send + Sync + 'static) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// Whether the kernels support these tensors.
fn is_served(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.device().is_cpu() && tensor.dtype() == DType::F32)
}

fn isa() -> Result<Isa> {
    Isa::best().map_err(wrap)
}

/// A function of one slice as an operation without gradient.
struct Map1<F>(&'static str, F);

impl<F: Fn(&[f32]) -> Result<(Vec<f32>, Shape)>> CustomOp1 for Map1<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (values, shape) = (self.1)(slice(storage, layout)?)?;
        Ok((CpuStorage::F32(values), shape))
    }
}

/// A function of two slices as an operation without gradient.
struct Map2<F>(&'static str, F);

impl<F: Fn(&[f32], &[f32]) -> Result<(Vec<f32>, Shape)>> CustomOp2 for Map2<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (values, shape) = (self.1)(slice(s1, l1)?, slice(s2, l2)?)?;
        Ok((CpuStorage::F32(values), shape))
    }
}

/// The result of `compute` on a fresh tensor of `shape`, from one tensor.
fn map1(
    name: &'static str,
    x: &Tensor,
    shape: &Shape,
    compute: impl Fn(&[f32], &mut [f32]) -> std::result::Result<(), nomaly_kernels::training::TrainingError>,
) -> Result<Tensor> {
    x.contiguous()?.apply_op1_no_bwd(&Map1(name, |x: &[f32]| {
        let mut to = vec![0.0; shape.elem_count()];
        compute(x, &mut to).map_err(wrap)?;
        Ok((to, shape.clone()))
    }))
}

/// The result of `compute` on a fresh tensor of `shape`, from two tensors.
fn map2(
    name: &'static str,
    [a, b]: [&Tensor; 2],
    shape: &Shape,
    compute: impl Fn(&[f32], &[f32], &mut [f32]) -> std::result::Result<(), nomaly_kernels::training::TrainingError>,
) -> Result<Tensor> {
    a.contiguous()?.apply_op2_no_bwd(
        &b.contiguous()?,
        &Map2(name, |a: &[f32], b: &[f32]| {
            let mut to = vec![0.0; shape.elem_count()];
            compute(a, b, &mut to).map_err(wrap)?;
            Ok((to, shape.clone()))
        }),
    )
}
