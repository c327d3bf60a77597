//! Slow, obviously right operations on `[C, H, W]` tensors of f64, and how to compare with them.

use nomaly_kernels::geometry::{Activation, Padding, Pool2d};

/// A tensor `[C, H, W]`.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) shape: [usize; 3],
    pub(crate) data: Vec<f64>,
}

impl Tensor {
    pub(crate) fn new(shape: [usize; 3], data: &[f32]) -> Self {
        assert_eq!(data.len(), shape.iter().product::<usize>());
        Self { shape, data: data.iter().map(|v| f64::from(*v)).collect() }
    }

    fn build(shape: [usize; 3], mut value: impl FnMut(usize, usize, usize) -> f64) -> Self {
        let mut data = Vec::new();
        for c in 0..shape[0] {
            for y in 0..shape[1] {
                for x in 0..shape[2] {
                    data.push(value(c, y, x));
                }
            }
        }
        Self { shape, data }
    }

    pub(crate) fn at(&self, c: usize, y: usize, x: usize) -> f64 {
        self.data[(c * self.shape[1] + y) * self.shape[2] + x]
    }

    /// The value at a position that may lie in the padding.
    fn padded(&self, c: usize, y: isize, x: isize) -> Option<f64> {
        let inside = y >= 0 && x >= 0 && (y as usize) < self.shape[1] && (x as usize) < self.shape[2];
        inside.then(|| self.at(c, y as usize, x as usize))
    }

    pub(crate) fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { shape: self.shape, data: self.data.iter().map(|v| f(*v)).collect() }
    }

    pub(crate) fn add(&self, other: &Self) -> Self {
        assert_eq!(self.shape, other.shape);
        Self { shape: self.shape, data: self.data.iter().zip(&other.data).map(|(a, b)| a + b).collect() }
    }

    pub(crate) fn mean(&self) -> Self {
        let [channels, h, w] = self.shape;
        let plane = h * w;
        let mean = |c: usize| self.data[c * plane..(c + 1) * plane].iter().sum::<f64>() / plane as f64;
        Self::build([channels, 1, 1], |c, _, _| mean(c))
    }

    pub(crate) fn affine(&self, scale: &[f32], shift: &[f32]) -> Self {
        Self::build(self.shape, |c, y, x| self.at(c, y, x) * f64::from(scale[c]) + f64::from(shift[c]))
    }

    pub(crate) fn rows(&self) -> Vec<f64> {
        let [channels, h, w] = self.shape;
        let mut rows = Vec::new();
        for y in 0..h {
            for x in 0..w {
                rows.extend((0..channels).map(|c| self.at(c, y, x)));
            }
        }
        rows
    }

    fn output(&self, kernel: [usize; 2], stride: [usize; 2], p: Padding) -> [usize; 2] {
        [
            (self.shape[1] + p.top + p.bottom - kernel[0]) / stride[0] + 1,
            (self.shape[2] + p.left + p.right - kernel[1]) / stride[1] + 1,
        ]
    }

    /// Convolution without activation.
    pub(crate) fn conv(
        &self,
        out: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        p: Padding,
        groups: usize,
        weight: &[f32],
        bias: Option<&[f32]>,
    ) -> Self {
        let per_group = self.shape[0] / groups;
        let [oh, ow] = self.output(kernel, stride, p);
        Self::build([out, oh, ow], |o, y, x| {
            let first = o / (out / groups) * per_group;
            let mut sum = bias.map_or(0.0, |bias| f64::from(bias[o]));
            for i in 0..per_group {
                for ky in 0..kernel[0] {
                    for kx in 0..kernel[1] {
                        let iy = (y * stride[0] + ky) as isize - p.top as isize;
                        let ix = (x * stride[1] + kx) as isize - p.left as isize;
                        let w = weight[((o * per_group + i) * kernel[0] + ky) * kernel[1] + kx];
                        sum += self.padded(first + i, iy, ix).unwrap_or(0.0) * f64::from(w);
                    }
                }
            }
            sum
        })
    }

    /// Folds the values inside the image of each window, given how many they are.
    pub(crate) fn pool(&self, pool: &Pool2d, fold: impl Fn(&[f64]) -> f64) -> Self {
        let p = pool.padding;
        let [oh, ow] = self.output(pool.kernel, pool.stride, p);
        Self::build([self.shape[0], oh, ow], |c, y, x| {
            let mut values = Vec::new();
            for ky in 0..pool.kernel[0] {
                for kx in 0..pool.kernel[1] {
                    let iy = (y * pool.stride[0] + ky) as isize - p.top as isize;
                    let ix = (x * pool.stride[1] + kx) as isize - p.left as isize;
                    values.extend(self.padded(c, iy, ix));
                }
            }
            fold(&values)
        })
    }
}

pub(crate) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::LeakyRelu(slope) => {
            if x > 0.0 {
                x
            } else {
                f64::from(slope.value()) * x
            }
        }
        Activation::Tanh => x.tanh(),
        Activation::Gelu => x * normal_distribution(x),
        Activation::GeluTanh => {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + u.tanh())
        }
    }
}

/// Φ(x) = 1/2 + φ(x) (x + x³/3 + x⁵/15 + ...), a series without alternating signs.
fn normal_distribution(x: f64) -> f64 {
    if x.abs() > 10.0 {
        // The rest is below 1e-23, and the series would overflow before its factor makes up for it.
        return if x > 0.0 { 1.0 } else { 0.0 };
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + sum * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Every activation.
pub(crate) const ACTIVATIONS: [Activation; 9] = [
    Activation::Identity,
    Activation::Relu,
    Activation::Relu6,
    Activation::Silu,
    Activation::Sigmoid,
    Activation::leaky_relu(0.2),
    Activation::Tanh,
    Activation::Gelu,
    Activation::GeluTanh,
];

/// Reproducible values in [-1, 1).
pub(crate) fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// The error that rounding may leave in a sum of `terms` products of values in [-1, 1]: each of the additions rounds a
/// partial sum of magnitude sqrt(terms), and the errors, being random, add up like sqrt(terms) again; times 4 for
/// safety.
pub(crate) fn tolerance(terms: usize) -> f64 {
    4.0 * f64::from(f32::EPSILON) * (terms as f64 + 4.0)
}

/// Asserts that two slices agree within `tolerance`, absolutely.
pub(crate) fn assert_close(got: &[f32], want: &[f64], tolerance: f64, what: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), want.len(), "{what:?}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= tolerance, "{what:?}: value {i} is {got}, expected {want}: off by {error:e} > {tolerance:e}");
    }
}
