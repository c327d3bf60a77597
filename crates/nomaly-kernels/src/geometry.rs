//! Shapes and options that single kernels and whole networks share: activations, padding, pooling windows, layouts.

use std::fmt;

/// The function applied to the result of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// x
    #[default]
    Identity,
    /// max(x, 0)
    Relu,
    /// min(max(x, 0), 6)
    Relu6,
    /// x / (1 + exp(-x)), also called swish
    Silu,
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// x where it is positive, elsewhere slope * x
    LeakyRelu(Slope),
    /// The hyperbolic tangent.
    Tanh,
    /// x * Φ(x) with the distribution function Φ of the standard normal distribution (Hendrycks & Gimpel 2016)
    Gelu,
    /// x / 2 * (1 + tanh(sqrt(2 / π) * (x + 0.044715 x³))), the approximation of [`Gelu`](Self::Gelu) from the same
    /// paper
    GeluTanh,
}

impl Activation {
    /// Leaky ReLU with a factor of negative values.
    pub const fn leaky_relu(slope: f32) -> Self {
        Self::LeakyRelu(Slope::new(slope))
    }
}

/// A factor of negative values. It compares and hashes by its bits, so that what holds it can be compared and hashed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slope {
    bits: u32,
}

impl Slope {
    /// The factor `value`.
    pub const fn new(value: f32) -> Self {
        Self { bits: value.to_bits() }
    }

    /// The factor.
    pub const fn value(self) -> f32 {
        f32::from_bits(self.bits)
    }
}

impl fmt::Debug for Slope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.value(), f)
    }
}

/// Rows and columns of zeros around an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same number on all four sides.
    pub const fn symmetric(size: usize) -> Self {
        Self { top: size, bottom: size, left: size, right: size }
    }

    /// TensorFlow's `SAME`: enough to make the output ceil(input / stride) on each axis; an odd row or column goes
    /// below or to the right. `input`, `kernel` and `stride` are `[height, width]`; a stride of zero counts as one.
    pub const fn same(input: [usize; 2], kernel: [usize; 2], stride: [usize; 2]) -> Self {
        const fn total(input: usize, kernel: usize, stride: usize) -> usize {
            let stride = if stride == 0 { 1 } else { stride };
            let last = input.div_ceil(stride).saturating_sub(1).saturating_mul(stride);
            last.saturating_add(kernel).saturating_sub(input)
        }
        let rows = total(input[0], kernel[0], stride[0]);
        let columns = total(input[1], kernel[1], stride[1]);
        Self { top: rows / 2, bottom: rows - rows / 2, left: columns / 2, right: columns - columns / 2 }
    }

    /// The larger of the two on each side.
    pub(crate) fn union(self, other: Self) -> Self {
        Self {
            top: self.top.max(other.top),
            bottom: self.bottom.max(other.bottom),
            left: self.left.max(other.left),
            right: self.right.max(other.right),
        }
    }
}

/// The window of a pooling operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2d {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Step between windows, rows and columns.
    pub stride: [usize; 2],
    /// Border around the input; each side smaller than the kernel. Maximum pooling ignores what lies in it.
    pub padding: Padding,
}

/// The layout of a network's output, for each image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputLayout {
    /// `[C, H, W]`
    Nchw,
    /// `[H * W, C]`: a row of features for each position, row-major positions.
    Rows,
    /// `[C]`: the mean over all positions.
    Mean,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_compare_by_value_and_print_as_numbers() {
        assert_eq!(Activation::leaky_relu(0.2), Activation::LeakyRelu(Slope::new(0.2)));
        assert_ne!(Activation::leaky_relu(0.2), Activation::leaky_relu(0.1));
        assert_eq!(format!("{:?}", Activation::leaky_relu(0.2)), "LeakyRelu(0.2)");
    }

    #[test]
    fn same_padding_is_tensorflows() {
        // (input, kernel, stride) -> (before, after), from the formula in the documentation of tf.nn.
        for (input, kernel, stride, want) in
            [(224, 3, 2, (0, 1)), (225, 3, 2, (1, 1)), (112, 5, 2, (1, 2)), (7, 3, 1, (1, 1)), (8, 1, 2, (0, 0))]
        {
            let got = Padding::same([input, 9], [kernel, 1], [stride, 1]);
            assert_eq!((got.top, got.bottom), want, "{input} {kernel} {stride}");
            assert_eq!((got.left, got.right), (0, 0));
        }
    }
}
