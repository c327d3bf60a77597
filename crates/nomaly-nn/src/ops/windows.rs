//! Padding and windows in candle's own operations, for devices and types that the kernels do not serve.

use candle_core::{Result, Tensor};
use nomaly_kernels::geometry::Padding;

/// `x` with `value` around each image.
pub(super) fn pad(x: &Tensor, padding: Padding, value: f32) -> Result<Tensor> {
    let mut x = x.clone();
    for (dim, before, after) in [(2, padding.top, padding.bottom), (3, padding.left, padding.right)] {
        let border = |samples: usize| {
            let mut shape = x.dims().to_vec();
            shape[dim] = samples;
            Tensor::full(value, shape, x.device())?.to_dtype(x.dtype())
        };
        let mut parts = Vec::with_capacity(3);
        if before > 0 {
            parts.push(border(before)?);
        }
        parts.push(x.clone());
        if after > 0 {
            parts.push(border(after)?);
        }
        if parts.len() > 1 {
            x = Tensor::cat(&parts, dim)?;
        }
    }
    Ok(x)
}

/// Positions of a window of `kernel` that moves by `stride` over each axis of `x`.
fn positions(x: &Tensor, kernel: [usize; 2], stride: usize) -> Result<[usize; 2]> {
    let (_, _, height, width) = x.dims4()?;
    let [kh, kw] = kernel;
    if stride == 0 || kh == 0 || kw == 0 || height < kh || width < kw {
        candle_core::bail!("a window of {kh} x {kw} in steps of {stride} does not fit into {height} x {width}");
    }
    Ok([(height - kh) / stride + 1, (width - kw) / stride + 1])
}

/// `x` without the rows and columns at the end that no window reaches.
pub(super) fn fit(x: &Tensor, kernel: [usize; 2], stride: usize) -> Result<Tensor> {
    let [oh, ow] = positions(x, kernel, stride)?;
    x.narrow(2, 0, (oh - 1) * stride + kernel[0])?.narrow(3, 0, (ow - 1) * stride + kernel[1])
}

/// For each position of a `kernel`×`kernel` window, row by row, its samples as the window moves by `stride` over `x`
/// `[N, C, H, W]`: tensors `[N, C, oh, ow]`.
pub(super) fn window(x: &Tensor, kernel: usize, stride: usize) -> Result<Vec<Tensor>> {
    let (n, c, height, width) = x.dims4()?;
    let [oh, ow] = positions(x, [kernel; 2], stride)?;
    // Pads to a multiple of the stride, far enough that the samples of the last position lie inside; the padding is not
    // read.
    let [full_h, full_w] = [oh, ow].map(|out| out * stride + kernel.div_ceil(stride) * stride);
    let x = x
        .pad_with_zeros(2, 0, full_h.saturating_sub(height))?
        .pad_with_zeros(3, 0, full_w.saturating_sub(width))?
        .narrow(2, 0, full_h)?
        .narrow(3, 0, full_w)?
        .reshape((n, c, full_h / stride, stride, full_w / stride, stride))?;
    let mut places = Vec::with_capacity(kernel * kernel);
    for row in 0..kernel {
        let rows = x.narrow(3, row % stride, 1)?.narrow(2, row / stride, oh)?;
        for column in 0..kernel {
            let place = rows.narrow(5, column % stride, 1)?.narrow(4, column / stride, ow)?;
            places.push(place.reshape((n, c, oh, ow))?);
        }
    }
    Ok(places)
}

/// Max pooling with a gradient: candle's own has none for overlapping windows.
pub(super) fn max_pool(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let mut places = window(x, kernel, stride)?.into_iter();
    let first = places.next().ok_or_else(|| candle_core::Error::Msg("a window has at least one place".to_owned()))?;
    places.try_fold(first, |greatest, place| greatest.maximum(&place))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;

    #[test]
    fn the_gradient_of_overlapping_pooling_goes_to_the_greatest() {
        let x: Vec<f32> = (0..9).map(|i| i as f32).collect();
        let x = Var::from_vec(x, (1, 1, 3, 3), &Device::Cpu).unwrap();
        let gradients = max_pool(&x, 2, 1).unwrap().sum_all().unwrap().backward().unwrap();
        let gradient: Vec<f32> = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(gradient, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn padding_is_on_the_sides_it_is_given_for() {
        let padding = Padding { top: 0, bottom: 1, left: 2, right: 0 };
        let x = pad(&Tensor::zeros((1, 1, 1, 1), DType::F32, &Device::Cpu).unwrap(), padding, 5.0).unwrap();
        assert_eq!(x.flatten_all().unwrap().to_vec1::<f32>().unwrap(), [5.0, 5.0, 0.0, 5.0, 5.0, 5.0]);
    }
}
