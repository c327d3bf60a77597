//! Pooling.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use nomaly_kernels::geometry::{Padding, Pool2d};
use nomaly_kernels::training::{AverageOver, Pool, global_average, global_average_gradient};

use super::{is_served, isa, map1, slice, windows, wrap};

struct Average {
    pool: Pool,
    over: AverageOver,
}

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
        let shape = pooled(layout, self.pool.output())?;
        let mut output = vec![0.0; shape.elem_count()];
        self.pool.average(self.over, slice(storage, layout)?, &mut output).map_err(wrap)?;
        Ok((CpuStorage::F32(output), shape))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        map1("average-pooling-gradient", gradient, x.shape(), |gradient, to| {
            self.pool.average_gradient(self.over, gradient, to)
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

fn plan(x: &Tensor, pool: Pool2d) -> Result<Pool> {
    let (_, _, height, width) = x.dims4()?;
    Pool::new([height, width], pool).map_err(wrap)
}

/// A square window with the same padding on all sides.
fn square(kernel: usize, stride: usize, padding: usize) -> Pool2d {
    Pool2d { kernel: [kernel; 2], stride: [stride; 2], padding: Padding::symmetric(padding) }
}

/// Kernel and stride of a square window that moves equally in both axes; candle's own operations serve no other.
fn same_axes(pool: Pool2d) -> Result<[usize; 2]> {
    match pool {
        Pool2d { kernel: [kernel, other], stride: [stride, across], .. } if kernel == other && stride == across => {
            Ok([kernel, stride])
        }
        _ => candle_core::bail!("a window that is not square does not run on this device"),
    }
}

/// The mean of each `kernel` × `kernel` window of `x` `[N, C, H, W]`; zeros in the padding count.
///
/// # Errors
/// As for [`avg_pool2d_with`].
pub fn avg_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    avg_pool2d_with(x, square(kernel, stride, padding), AverageOver::Window)
}

/// The mean of each window of `x` `[N, C, H, W]`, over all of it or what lies inside the image.
///
/// # Errors
/// For windows that do not fit, for those that are not square where the kernels do not serve the tensor, and errors of
/// candle.
pub fn avg_pool2d_with(x: &Tensor, pool: Pool2d, over: AverageOver) -> Result<Tensor> {
    if is_served(&[x]) {
        return x.contiguous()?.apply_op1(Average { pool: plan(x, pool)?, over });
    }
    let [kernel, stride] = same_axes(pool)?;
    let padded = windows::pad(x, pool.padding, 0.0)?;
    let mut places = windows::window(&padded, kernel, stride)?.into_iter();
    let first = places.next().ok_or_else(|| candle_core::Error::Msg("a window has at least one place".to_owned()))?;
    let sum = places.try_fold(first, |sum, place| sum.add(&place))?;
    match over {
        AverageOver::Window => sum / (kernel * kernel) as f64,
        AverageOver::Inside => {
            let (_, _, height, width) = x.dims4()?;
            let (_, _, rows, columns) = sum.dims4()?;
            let inside = |position: usize, before: usize, size: usize| {
                let start = position * stride;
                (start + kernel).min(before + size).saturating_sub(start.max(before)) as f64
            };
            let rows: Vec<f64> = (0..rows).map(|row| inside(row, pool.padding.top, height)).collect();
            let columns: Vec<f64> = (0..columns).map(|column| inside(column, pool.padding.left, width)).collect();
            let each = |sizes: Vec<f64>| Tensor::new(sizes, &candle_core::Device::Cpu)?.to_dtype(x.dtype());
            let rows = each(rows)?.to_device(x.device())?.reshape((1, 1, (), 1))?;
            let columns = each(columns)?.to_device(x.device())?.reshape((1, 1, 1, ()))?;
            sum.broadcast_div(&rows)?.broadcast_div(&columns)
        }
    }
}

/// The maximum of each `kernel` × `kernel` window of `x` `[N, C, H, W]`; padding never wins.
///
/// # Errors
/// As for [`max_pool2d_with`].
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, padding: usize) -> Result<Tensor> {
    max_pool2d_with(x, square(kernel, stride, padding))
}

/// The maximum of each window of `x` `[N, C, H, W]`; padding never wins.
///
/// # Errors
/// For windows that do not fit, for those that are not square where the kernels do not serve the tensor, and errors of
/// candle.
pub fn max_pool2d_with(x: &Tensor, pool: Pool2d) -> Result<Tensor> {
    if is_served(&[x]) {
        return x.contiguous()?.apply_op1(Max { pool: plan(x, pool)?, places: OnceLock::new() });
    }
    let [kernel, stride] = same_axes(pool)?;
    windows::max_pool(&windows::pad(x, pool.padding, f32::NEG_INFINITY)?, kernel, stride)
}

/// The mean of each channel of `x` `[N, C, H, W]`, `[N, C, 1, 1]`.
///
/// # Errors
/// Errors of candle.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    if is_served(&[x]) { x.contiguous()?.apply_op1(Mean) } else { x.mean_keepdim((2, 3)) }
}

/// The maximum of each channel of `x` `[N, C, H, W]`, `[N, C, 1, 1]`.
///
/// # Errors
/// Errors of candle.
pub fn global_max_pool(x: &Tensor) -> Result<Tensor> {
    let (images, channels, height, width) = x.dims4()?;
    if is_served(&[x]) {
        return max_pool2d_with(x, Pool2d { kernel: [height, width], stride: [1; 2], padding: Padding::default() });
    }
    // One place has the gradient, also where the maximum occurs twice; candle's own maximum hands it to each.
    let planes = x.flatten_from(2)?.contiguous()?;
    let places = planes.detach().argmax_keepdim(D::Minus1)?;
    planes.gather(&places, D::Minus1)?.reshape((images, channels, 1, 1))
}
