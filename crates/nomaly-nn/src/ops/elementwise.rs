//! Activations, softmax, dropout, factors of channels.

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor};
use nomaly_kernels::Isa;
use nomaly_kernels::geometry::Activation;
use nomaly_kernels::training::{self, ChannelScale, Dropout, Reads, ScalePer};

use super::{Done, Kernel, Map3, differentiable, is_served, isa, slice, wrap};

struct Activate {
    isa: Isa,
    activation: Activation,
}

impl Kernel for Activate {
    const NAME: &'static str = "activation";

    fn output(&self, input: &Shape) -> Result<Shape> {
        Ok(input.clone())
    }

    fn forward(&self, x: &[f32], y: &mut [f32]) -> Done {
        training::activate(self.isa, self.activation, x, y)
    }

    fn backward(&self, x: &[f32], y: &[f32], gradient: &[f32], to: &mut [f32]) -> Done {
        to.copy_from_slice(gradient);
        let values = if self.activation.gradient_reads() == Reads::Output { y } else { x };
        training::activation_gradient(self.isa, self.activation, values, to)
    }
}

/// An activation of each value of `x`.
///
/// # Errors
/// Errors of candle.
pub fn activation(x: &Tensor, activation: Activation) -> Result<Tensor> {
    if is_served(&[x]) {
        return differentiable(x, Activate { isa: isa()?, activation });
    }
    match activation {
        Activation::Identity => Ok(x.clone()),
        Activation::Relu => x.relu(),
        Activation::Relu6 => x.clamp(0f32, 6f32),
        Activation::Silu => x.silu(),
        Activation::Sigmoid => candle_nn::ops::sigmoid(x),
        Activation::LeakyRelu(slope) => leaky_relu(x, slope.value()),
        Activation::Tanh => x.tanh(),
        Activation::Gelu => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
    }
}

pub(super) fn leaky_relu(x: &Tensor, slope: f32) -> Result<Tensor> {
    x.relu()?.sub(&(x.neg()?.relu()? * f64::from(slope))?)
}

struct Softmax {
    isa: Isa,
    classes: usize,
}

impl Kernel for Softmax {
    const NAME: &'static str = "softmax";

    fn output(&self, input: &Shape) -> Result<Shape> {
        Ok(input.clone())
    }

    fn forward(&self, x: &[f32], y: &mut [f32]) -> Done {
        training::softmax(self.isa, self.classes, x, y)
    }

    fn backward(&self, _x: &[f32], y: &[f32], gradient: &[f32], to: &mut [f32]) -> Done {
        to.copy_from_slice(gradient);
        training::softmax_gradient(self.isa, self.classes, y, to)
    }
}

/// The softmax over the channels of `x` `[N, C, 1, 1]`.
///
/// # Errors
/// For images of more than one position, and errors of candle.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let (_, classes, height, width) = x.dims4()?;
    if [height, width] != [1, 1] {
        candle_core::bail!("softmax needs one position, but there are {height} x {width}");
    }
    if is_served(&[x]) {
        return differentiable(x, Softmax { isa: isa()?, classes });
    }
    candle_nn::ops::softmax(x, 1)
}

struct Scale(ChannelScale);

impl CustomOp2 for Scale {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, factors) = (slice(s1, l1)?, slice(s2, l2)?);
        let mut output = vec![0.0; x.len()];
        self.0.forward(x, factors, &mut output).map_err(wrap)?;
        Ok((CpuStorage::F32(output), l1.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        factors: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        // Both gradients, one after the other.
        let op = Map3("gate-gradient", |x: &[f32], factors: &[f32], gradient: &[f32]| {
            let mut to = vec![0.0; x.len() + factors.len()];
            let (by_x, by_factors) = to.split_at_mut(x.len());
            self.0.backward(x, factors, gradient, by_x, by_factors).map_err(wrap)?;
            Ok((to, Shape::from(x.len() + factors.len())))
        });
        let both = x.contiguous()?.apply_op3_no_bwd(&factors.contiguous()?, &gradient.contiguous()?, &op)?;
        let by_x = both.narrow(0, 0, x.elem_count())?.reshape(x.shape())?;
        let by_factors = both.narrow(0, x.elem_count(), factors.elem_count())?.reshape(factors.shape())?;
        Ok((Some(by_x), Some(by_factors)))
    }
}

/// `x` `[N, C, H, W]` times `factors` `[N, C, 1, 1]`.
///
/// # Errors
/// For factors of another shape, and errors of candle.
pub fn gate(x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let (images, channels, height, width) = x.dims4()?;
    if factors.dims() != [images, channels, 1, 1] {
        candle_core::bail!("the factors of {:?} are {:?}", x.dims(), factors.dims());
    }
    if is_served(&[x, factors]) {
        let plan = ChannelScale::new(isa()?, ScalePer::Plane, channels, height * width).map_err(wrap)?;
        return x.contiguous()?.apply_op2(&factors.contiguous()?, Scale(plan));
    }
    x.broadcast_mul(factors)
}

/// `x` times the mask of `key`, which has `period` values: those of [`Dropout::apply`], on every device.
///
/// # Errors
/// If the period is zero or does not divide the number of values, and errors of candle.
pub fn dropout(x: &Tensor, dropout: Dropout, key: u64, period: usize) -> Result<Tensor> {
    let mut mask = vec![1.0; x.elem_count()];
    dropout.apply(key, period, &mut mask).map_err(wrap)?;
    let mask = Tensor::from_vec(mask, x.shape(), &Device::Cpu)?;
    if is_served(&[x]) {
        return x.contiguous()?.mul(&mask);
    }
    x.mul(&mask.to_dtype(x.dtype())?.to_device(x.device())?)
}
