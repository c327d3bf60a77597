//! Pooling.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use nomaly_kernels::geometry::{Padding, Pool2d};
use nomaly_kernels::training::{AverageOver, Pool, global_average, global_average_gradient};

use super::{is_served, isa, map1, slice, windows, wrap};

struct Average(Pool);

/// The result shape of pooling `[N, C, H, W]`.
fn pooled(layout: &Layout, [height, width]: [usize; 2]) -> Result<Shape> {
    let (images, channels, _, _) = layout.shape().dims4()?;
    Ok(Shape::from((images, channels, height, width)))
}

impl CustomOp1 for Average {
    fn name(&self) -> &'static str {
        "average-pooling"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = pooled(layout, self.0.output())?;
        let mut output = vec![0.0; shape.elem_count()];
        self.0.average(AverageOver::Window, slice(storage, layout)?, &mut output).map_err(wrap)?;
        Ok((CpuStorage::F32(output), shape))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        map1("average-pooling-gradient", gradient, x.shape(), |gradient, to| {
            self.0.average_gradient(AverageOver::Window, gradient, to)
        })
        .map(Some)
    }
}

struct Max {
    pool: Pool,
    /// The index in the plane of each maximum.
    places: OnceLock<Vec<u32>>,
}

impl CustomOp1 for Max {
    fn name(&self) -> &'static str {
        "max-pooling"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = pooled(layout, self.pool.output())?;
        let mut output = vec![0.0; shape.elem_count()];
        let mut places = vec![0; output.len()];
        self.pool.max(slice(storage, layout)?, &mut output, &mut places).map_err(wrap)?;
        // Each operation is applied once.
        let _ = self.places.set(places);
        Ok((CpuStorage::F32(output), shape))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let lacking = || candle_core::Error::Msg("max pooling has not been run".to_owned()).bt();
        let places = self.places.get().ok_or_else(lacking)?;
        map1("max-pooling-gradient", gradient, x.shape(), |gradient, to| self.pool.max_gradient(gradient, places, to))
            .map(Some)
    }
}

struct Mean;

impl CustomOp1 for Mean {
    fn name(&self) -> &'static str {
        "global-average-pooling"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, _, height, width) = layout.shape().dims4()?;
        let shape = pooled(layout, [1, 1])?;
        let mut output = vec![0.0; shape.elem_count()];
        global_average(isa()?, height * width, slice(storage, layout)?, &mut output).map_err(wrap)?;
        Ok((CpuStorage::F32(output), shape))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, height, width) = x.dims4()?;
        map1("global-average-pooling-gradient", gradient, x.shape(), |gradient, to| {
            global_average_gradient(height * width, gradient, to)
        })
        .map(Some)
    }
}

fn plan(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Pool> {
    let (_, _, height, width) = x.dims4()?;
    let pool = Pool2d { kernel: [kernel; 2], stride: [stride; 2], padding: Padding::symmetric(padding) };
    Pool::new([height, width], pool).map_err(wrap)
}

/// The mean of each `kernel` × `kernel` window of `x` `[N, C, H, W]`; zeros in the padding count.
///
/// # Errors
/// For windows that do not fit, and errors of candle.
pub fn avg_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    if is_served(&[x]) {
        return x.contiguous()?.apply_op1(Average(plan(x, kernel, stride, padding)?));
    }
    let padded = windows::pad(x, Padding::symmetric(padding), 0.0)?;
    let places = windows::window(&padded, kernel, stride)?;
    let count = places.len() as f64;
    let mut places = places.into_iter();
    let first = places.next().ok_or_else(|| candle_core::Error::Msg("a window has at least one place".to_owned()))?;
    places.try_fold(first, |sum, place| sum.add(&place))? / count
}

/// The maximum of each `kernel` × `kernel` window of `x` `[N, C, H, W]`; padding never wins.
///
/// # Errors
/// For windows that do not fit, and errors of candle.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    if is_served(&[x]) {
        return x.contiguous()?.apply_op1(Max { pool: plan(x, kernel, stride, padding)?, places: OnceLock::new() });
    }
    let padded = windows::pad(x, Padding::symmetric(padding), f32::NEG_INFINITY)?;
    windows::max_pool(&padded, kernel, stride)
}

/// The mean of each channel of `x` `[N, C, H, W]`, `[N, C, 1, 1]`.
///
/// # Errors
/// Errors of candle.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    if is_served(&[x]) { x.contiguous()?.apply_op1(Mean) } else { x.mean_keepdim((2, 3)) }
}
