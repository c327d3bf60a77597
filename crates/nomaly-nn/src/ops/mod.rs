//! The training kernels as candle operations with gradients.
//!
//! On a CPU these functions run the kernels of [`nomaly_kernels::training`], forward and backward; on other devices
//! they consist of candle's own operations. The tensors determine which.
//!
//! They are for networks whose loss needs candle's tape: decoders, distillation, several branches. A network that is a
//! [`Graph`](crate::graph::Graph) needs no tape in [`trainable`](crate::trainable); candle's allocates each gradient
//! and adds it to a tensor of zeros. On another device a graph runs as a `module::Module` of these functions.
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
mod elementwise;
mod loss;
mod norm;
mod optimizer;
mod pooling;
mod spatial;
mod tokens;
mod windows;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor};
use nomaly_kernels::Isa;
use nomaly_kernels::training::TrainingError;

pub use convolution::{ConvGeometry, conv_transpose2d, conv2d, conv2d_with, linear};
pub use elementwise::{activation, dropout, gate, softmax};
pub use loss::cross_entropy;
pub use norm::{Norm, batch_norm, batch_norm_fixed, instance_norm};
pub use optimizer::VarOptimizer;
pub use pooling::{avg_pool2d, avg_pool2d_with, global_avg_pool, global_max_pool, max_pool2d, max_pool2d_with};
pub use spatial::{pad2d, upsample2d};
pub use tokens::{RotaryTables, attention, layer_norm};

/// What a kernel returns.
type Done = std::result::Result<(), TrainingError>;

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

/// A function of three slices as an operation without gradient.
struct Map3<F>(&'static str, F);

impl<F: Fn(&[f32], &[f32], &[f32]) -> Result<(Vec<f32>, Shape)>> CustomOp3 for Map3<F> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (values, shape) = (self.1)(slice(s1, l1)?, slice(s2, l2)?, slice(s3, l3)?)?;
        Ok((CpuStorage::F32(values), shape))
    }
}

/// A kernel of one tensor, with its gradient.
trait Kernel: Send + Sync + 'static {
    /// The name in errors.
    const NAME: &'static str;

    /// The shape of the result.
    fn output(&self, input: &Shape) -> Result<Shape>;

    fn forward(&self, x: &[f32], y: &mut [f32]) -> Done;

    /// The gradient of `x` from that of `y`.
    fn backward(&self, x: &[f32], y: &[f32], gradient: &[f32], to: &mut [f32]) -> Done;
}

/// A kernel as an operation with gradient.
struct Differentiable<K>(K);

impl<K: Kernel> CustomOp1 for Differentiable<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = self.0.output(layout.shape())?;
        let mut y = vec![0.0; shape.elem_count()];
        self.0.forward(slice(storage, layout)?, &mut y).map_err(wrap)?;
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let op = Map3(K::NAME, |x: &[f32], y: &[f32], gradient: &[f32]| {
            let mut to = vec![0.0; x.len()];
            self.0.backward(x, y, gradient, &mut to).map_err(wrap)?;
            Ok((to, Shape::from(x.len())))
        });
        let by_x = x.contiguous()?.apply_op3_no_bwd(&y.contiguous()?, &gradient.contiguous()?, &op)?;
        by_x.reshape(x.shape()).map(Some)
    }
}

/// The result of a kernel, on candle's tape.
fn differentiable(x: &Tensor, kernel: impl Kernel) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Differentiable(kernel))
}

/// The result of `compute` on a fresh tensor of `shape`, from one tensor.
fn map1(name: &'static str, x: &Tensor, shape: &Shape, compute: impl Fn(&[f32], &mut [f32]) -> Done) -> Result<Tensor> {
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
    compute: impl Fn(&[f32], &[f32], &mut [f32]) -> Done,
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
