//! Convolution, transposed convolution, linear layer.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use nomaly_kernels::geometry::Padding;
use nomaly_kernels::training::{Conv2d, ConvShape, ConvTranspose2d, ConvTransposeShape};

use super::windows::{self, fit};
use super::{Done, is_served, isa, map1, map2, slice, wrap};

/// Both kinds of convolution.
enum Plan {
    Direct(Conv2d),
    Transposed(ConvTranspose2d),
}

impl Plan {
    /// Shape `[O, h, w]` of one image's output.
    fn output(&self) -> [usize; 3] {
        let (channels, [height, width]) = match self {
            Self::Direct(plan) => (plan.shape().out_channels, plan.output()),
            Self::Transposed(plan) => (plan.shape().out_channels, plan.output()),
        };
        [channels, height, width]
    }

    fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) -> Done {
        match self {
            Self::Direct(plan) => plan.forward(x, weight, bias, y),
            Self::Transposed(plan) => plan.forward(x, weight, bias, y),
        }
    }

    fn input_gradient(&self, gradient: &[f32], weight: &[f32], to: &mut [f32]) -> Done {
        match self {
            Self::Direct(plan) => plan.input_gradient(gradient, weight, to),
            Self::Transposed(plan) => plan.input_gradient(gradient, weight, to),
        }
    }

    fn weight_gradient(&self, x: &[f32], gradient: &[f32], to: &mut [f32]) -> Done {
        match self {
            Self::Direct(plan) => plan.weight_gradient(x, gradient, to),
            Self::Transposed(plan) => plan.weight_gradient(x, gradient, to),
        }
    }

    fn bias_gradient(&self, gradient: &[f32], to: &mut [f32]) -> Done {
        match self {
            Self::Direct(plan) => plan.bias_gradient(gradient, to),
            Self::Transposed(plan) => plan.bias_gradient(gradient, to),
        }
    }

    fn compute(&self, images: usize, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let [channels, height, width] = self.output();
        let shape = Shape::from((images, channels, height, width));
        let mut output = vec![0.0; shape.elem_count()];
        self.forward(x, weight, bias, &mut output).map_err(wrap)?;
        Ok((CpuStorage::F32(output), shape))
    }

    /// The gradients of the arguments that need one.
    fn gradients(&self, x: &Tensor, weight: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let by_x = x.track_op().then(|| {
            map2("convolution-input-gradient", [gradient, weight], x.shape(), |gradient, weight, to| {
                self.input_gradient(gradient, weight, to)
            })
        });
        let by_weight = weight.track_op().then(|| {
            map2("convolution-weight-gradient", [x, gradient], weight.shape(), |x, gradient, to| {
                self.weight_gradient(x, gradient, to)
            })
        });
        Ok((by_x.transpose()?, by_weight.transpose()?))
    }
}

struct Convolution(Plan);

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.0.compute(l1.dims()[0], slice(s1, l1)?, slice(s2, l2)?, None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.0.gradients(x, weight, gradient)
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "convolution-with-bias"
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
        self.0.compute(l1.dims()[0], slice(s1, l1)?, slice(s2, l2)?, Some(slice(s3, l3)?))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (by_x, by_weight) = self.0.gradients(x, weight, gradient)?;
        let by_bias = bias.track_op().then(|| {
            map1("convolution-bias-gradient", gradient, bias.shape(), |gradient, to| self.0.bias_gradient(gradient, to))
        });
        Ok((by_x, by_weight, by_bias.transpose()?))
    }
}

fn apply(plan: Plan, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    match bias {
        Some(bias) => x.apply_op3(&weight, &bias.contiguous()?, Convolution(plan)),
        None => x.apply_op2(&weight, Convolution(plan)),
    }
}

fn add_bias(y: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        None => Ok(y),
    }
}

/// Where the windows of a convolution stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    /// Steps of rows and columns.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: Padding,
    /// Groups of channels that are convolved by themselves.
    pub groups: usize,
}

/// A convolution of `x` `[N, I, H, W]` with `weight` `[O, I, kh, kw]` and `bias` `[O]`, groups = 1; `padding` is on
/// both sides.
///
/// # Errors
/// As for [`conv2d_with`].
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: [usize; 2],
    padding: [usize; 2],
) -> Result<Tensor> {
    let [rows, columns] = padding;
    let padding = Padding { top: rows, bottom: rows, left: columns, right: columns };
    conv2d_with(x, weight, bias, ConvGeometry { stride, padding, groups: 1 })
}

/// A convolution of `x` `[N, I, H, W]` with `weight` `[O, I / groups, kh, kw]` and `bias` `[O]`.
///
/// # Errors
/// For shapes that do not fit, for strides that differ where the kernels do not serve the tensors, and errors of
/// candle.
pub fn conv2d_with(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, geometry: ConvGeometry) -> Result<Tensor> {
    let ConvGeometry { stride, padding, groups } = geometry;
    let (_, in_channels, height, width) = x.dims4()?;
    let (out_channels, _, kh, kw) = weight.dims4()?;
    if is_served(&[x, weight]) {
        let (input, kernel) = ([height, width], [kh, kw]);
        let shape = ConvShape { in_channels, out_channels, input, kernel, stride, padding, groups };
        return apply(Plan::Direct(Conv2d::new(isa()?, shape).map_err(wrap)?), x, weight, bias);
    }
    let [step, across] = stride;
    if step != across || step == 0 {
        candle_core::bail!("strides {step} and {across} differ or are zero, which this device does not support");
    }
    let padded = windows::pad(x, padding, 0.0)?;
    if groups > 1 && groups == in_channels && groups == out_channels && kh == kw {
        return add_bias(depthwise(&padded, weight, kh, step)?, bias);
    }
    // The gradient of candle's convolution needs windows that end at the last row and column.
    let y = fit(&padded, [kh, kw], step)?.contiguous()?.conv2d(weight, 0, step, 1, groups)?;
    add_bias(y, bias)
}

/// A depthwise convolution as a sum over the positions of the kernel: candle itself runs one convolution per channel.
fn depthwise(x: &Tensor, weight: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let factors = weight.reshape((1, (), kernel * kernel, 1))?;
    let mut sum: Option<Tensor> = None;
    for (index, place) in windows::window(x, kernel, stride)?.iter().enumerate() {
        let term = place.broadcast_mul(&factors.narrow(2, index, 1)?)?;
        sum = Some(match sum {
            Some(sum) => sum.add(&term)?,
            None => term,
        });
    }
    sum.ok_or_else(|| candle_core::Error::Msg("a kernel has at least one place".to_owned()))
}

/// A transposed convolution of `x` `[N, I, H, W]` with `weight` `[I, O, kh, kw]` and `bias` `[O]`, groups = 1, of
/// `(H - 1) · stride - 2 · padding + kh + output_padding` rows.
///
/// # Errors
/// For shapes that do not fit, and errors of candle.
pub fn conv_transpose2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
    output_padding: usize,
) -> Result<Tensor> {
    let (_, in_channels, height, width) = x.dims4()?;
    let (_, out_channels, kh, kw) = weight.dims4()?;
    if is_served(&[x, weight]) {
        let shape = ConvTransposeShape {
            in_channels,
            out_channels,
            input: [height, width],
            kernel: [kh, kw],
            stride: [stride; 2],
            padding: Padding::symmetric(padding),
            output_padding: [output_padding; 2],
        };
        return apply(Plan::Transposed(ConvTranspose2d::new(isa()?, shape).map_err(wrap)?), x, weight, bias);
    }
    // What candle computes without a check.
    if [(height, kh), (width, kw)]
        .iter()
        .any(|&(size, kernel)| size == 0 || (size - 1) * stride + kernel + output_padding <= 2 * padding)
    {
        candle_core::bail!("the result of {height} x {width} would be empty with a padding of {padding}");
    }
    add_bias(x.conv_transpose2d(weight, padding, output_padding, stride, 1)?, bias)
}

/// A linear layer: `x` `[N, I]` times `weight` `[O, I]`, plus `bias` `[O]`.
///
/// # Errors
/// For shapes that do not fit, and errors of candle.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    if is_served(&[x, weight]) {
        let (images, inputs) = x.dims2()?;
        let (outputs, _) = weight.dims2()?;
        let x = x.reshape((images, inputs, 1, 1))?;
        return conv2d(&x, &weight.reshape((outputs, (), 1, 1))?, bias, [1, 1], [0, 0])?.reshape((images, outputs));
    }
    let y = x.matmul(&weight.t()?)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// `[2, 3, height, width]`, with distinct neighboring values.
    fn images(height: usize, width: usize) -> Tensor {
        let values: Vec<f32> = (0..6 * height * width).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        Tensor::from_vec(values, (2, 3, height, width), &Device::Cpu).unwrap()
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.dims(), b.dims());
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn windows_are_those_of_candles_own_convolution_and_pooling() {
        for (kernel, stride, height, width) in [(3, 1, 5, 4), (3, 2, 7, 8), (5, 2, 9, 6), (2, 3, 8, 9), (1, 2, 3, 4)] {
            let x = images(height, width);
            let weight = images(kernel, kernel).narrow(0, 0, 1).unwrap().reshape((3, 1, kernel, kernel)).unwrap();
            let ours = depthwise(&x, &weight, kernel, stride).unwrap();
            let theirs = x.conv2d(&weight, 0, stride, 1, 3).unwrap();
            assert!(largest_difference(&ours, &theirs) < 1e-5, "{kernel} {stride}");
            let ours = windows::max_pool(&x, kernel, stride).unwrap();
            let theirs = x.max_pool2d_with_stride(kernel, stride).unwrap();
            assert_eq!(largest_difference(&ours, &theirs), 0.0, "{kernel} {stride}");
        }
    }
}
