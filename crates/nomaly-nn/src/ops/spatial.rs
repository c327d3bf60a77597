//! Padding and upsampling.

use candle_core::{DType, Device, Result, Shape, Tensor};
use nomaly_kernels::geometry::Padding;
use nomaly_kernels::training::{Border, Pad, Upsample, UpsampleMode};

use super::{Done, Kernel, differentiable, is_served, isa, windows, wrap};

/// `[N, C, H, W]` with another height and width.
fn resized(input: &Shape, [height, width]: [usize; 2]) -> Result<Shape> {
    let (images, channels, _, _) = input.dims4()?;
    Ok(Shape::from((images, channels, height, width)))
}

impl Kernel for Pad {
    const NAME: &'static str = "padding";

    fn output(&self, input: &Shape) -> Result<Shape> {
        resized(input, Self::output(self))
    }

    fn forward(&self, x: &[f32], y: &mut [f32]) -> Done {
        Self::forward(self, x, y)
    }

    fn backward(&self, _x: &[f32], _y: &[f32], gradient: &[f32], to: &mut [f32]) -> Done {
        self.input_gradient(gradient, to)
    }
}

/// `x` `[N, C, H, W]` with zeros or its reflection around each image.
///
/// # Errors
/// For a reflection that is not smaller than the image, and errors of candle.
pub fn pad2d(x: &Tensor, sides: Padding, border: Border) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let plan = Pad::new([height, width], sides, border).map_err(wrap)?;
    if is_served(&[x]) {
        return differentiable(x, plan);
    }
    match border {
        Border::Zeros => windows::pad(x, sides, 0.0),
        Border::Reflection => {
            let rows = reflected(x, 2, [sides.top, height, sides.bottom])?;
            reflected(&rows, 3, [sides.left, width, sides.right])
        }
    }
}

/// `x` with `before` and `after` reflected positions along an axis of `size`.
fn reflected(x: &Tensor, axis: usize, [before, size, after]: [usize; 3]) -> Result<Tensor> {
    if before + after == 0 {
        return Ok(x.clone());
    }
    let places = (1..=before).rev().chain(0..size).chain((0..after).map(|place| size - 2 - place));
    let places = places.map(|place| place as u32).collect::<Vec<_>>();
    x.contiguous()?.index_select(&Tensor::new(places, x.device())?, axis)
}

impl Kernel for Upsample {
    const NAME: &'static str = "upsampling";

    fn output(&self, input: &Shape) -> Result<Shape> {
        resized(input, Self::output(self))
    }

    fn forward(&self, x: &[f32], y: &mut [f32]) -> Done {
        Self::forward(self, x, y)
    }

    fn backward(&self, _x: &[f32], _y: &[f32], gradient: &[f32], to: &mut [f32]) -> Done {
        self.input_gradient(gradient, to)
    }
}

/// `x` `[N, C, H, W]` enlarged to `[N, C, factor · H, factor · W]`.
///
/// # Errors
/// For a factor or an image of zero, and errors of candle.
pub fn upsample2d(x: &Tensor, factor: usize, mode: UpsampleMode) -> Result<Tensor> {
    let (images, channels, height, width) = x.dims4()?;
    if is_served(&[x]) {
        return differentiable(x, Upsample::by_factor(isa()?, [height, width], [factor; 2], mode).map_err(wrap)?);
    }
    // Interpolation is a matrix for each axis.
    let [across, down] = [width, height].map(|size| interpolation(x, size, factor, mode));
    let (across, down) = (across?, down?);
    let rows = x.reshape((images * channels * height, width))?.matmul(&across)?;
    let columns = rows.reshape((images * channels, height, width * factor))?.transpose(1, 2)?.contiguous()?;
    let both = columns.reshape((images * channels * width * factor, height))?.matmul(&down)?;
    let both = both.reshape((images * channels, width * factor, height * factor))?.transpose(1, 2)?.contiguous()?;
    both.reshape((images, channels, height * factor, width * factor))
}

/// The matrix `[size, factor · size]` of one axis, of the type and on the device of `x`: what the kernel makes of unit
/// vectors.
fn interpolation(x: &Tensor, size: usize, factor: usize, mode: UpsampleMode) -> Result<Tensor> {
    let plan = Upsample::by_factor(isa()?, [1, size], [1, factor], mode).map_err(wrap)?;
    let units: Vec<f32> = Tensor::eye(size, DType::F32, &Device::Cpu)?.flatten_all()?.to_vec1()?;
    let mut matrix = vec![0.0; size * size * factor];
    plan.forward(&units, &mut matrix).map_err(wrap)?;
    Tensor::from_vec(matrix, (size, size * factor), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())
}
