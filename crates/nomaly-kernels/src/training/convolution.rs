//! Convolution and transposed convolution with their gradients.

use crate::geometry::Padding;
use crate::isa::Isa;
use crate::simd::Token;
use crate::window::Window;

use super::correlation::{Phase, Shape};
use super::error::{TrainingError, expect, positive, samples, values};
use super::grouped::{GroupedCorrelation, GroupedWeightGradient};
use super::reduce::channel_sums;

/// The geometry of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// How far the window moves, down and to the right.
    pub stride: [usize; 2],
    /// Zeros around the input.
    pub padding: Padding,
    /// Groups of channels that are convolved each by itself: output group g sees input group g alone. With as many
    /// groups as input channels the convolution is depthwise.
    pub groups: usize,
}

impl ConvShape {
    /// The shape that is computed: a window as large as the image is a linear layer, whose positions are the images of
    /// the batch.
    fn planned(&self) -> Self {
        if self.groups == 1 && self.kernel == self.input && self.padding == Padding::default() {
            let in_channels = self.in_channels * self.input[0] * self.input[1];
            Self { in_channels, input: [1, 1], kernel: [1, 1], stride: [1, 1], ..*self }
        } else {
            *self
        }
    }
}

/// A convolution `[N, I, H, W]` → `[N, O, h, w]` and its gradients, planned for one geometry and any batch.
///
/// Weights are `[O, I / groups, kh, kw]`; they are packed anew in each call, since training changes them.
///
/// ```
/// use nomaly_kernels::isa::Isa;
/// use nomaly_kernels::geometry::Padding;
/// use nomaly_kernels::training::{Conv2d, ConvShape};
///
/// let shape = ConvShape {
///     in_channels: 1,
///     out_channels: 1,
///     input: [4, 4],
///     kernel: [3, 3],
///     stride: [1, 1],
///     padding: Padding::symmetric(1),
///     groups: 1,
/// };
/// let conv = Conv2d::new(Isa::best()?, shape)?;
/// let mut output = [0.0; 16];
/// conv.forward(&[1.0; 16], &[1.0; 9], None, &mut output)?;
/// assert_eq!(output[..4], [4.0, 6.0, 6.0, 4.0]);
///
/// // The gradient of the sum of the outputs: each weight sums the ones that the border does not hide.
/// let mut gradient = [0.0; 9];
/// conv.weight_gradient(&[1.0; 16], &[1.0; 16], &mut gradient)?;
/// assert_eq!(gradient, [9.0, 12.0, 9.0, 12.0, 16.0, 12.0, 9.0, 12.0, 9.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Conv2d {
    shape: ConvShape,
    output: [usize; 2],
    token: Token,
    forward: GroupedCorrelation,
    backward: GroupedCorrelation,
    weights: GroupedWeightGradient,
}

impl Conv2d {
    /// Plans a convolution.
    ///
    /// # Errors
    /// For an instruction set that this processor does not have, sizes of zero, groups that do not divide both numbers
    /// of channels, a window that does not fit into the padded input or that could lie entirely in the padding, and
    /// tensors too large for memory.
    pub fn new(isa: Isa, shape: ConvShape) -> Result<Self, TrainingError> {
        let token = Token::new(isa)?;
        let ConvShape { in_channels, out_channels, input, kernel, stride, padding, groups } = shape;
        positive(&[
            ("the number of input channels", in_channels),
            ("the number of output channels", out_channels),
            ("the number of groups", groups),
        ])?;
        let channels = [in_channels, out_channels];
        if channels.iter().any(|channels| !channels.is_multiple_of(groups)) {
            return Err(TrainingError::Groups { groups, channels });
        }
        let geometry = Window { kernel, stride, padding };
        let (output, padded) = (geometry.output(input)?, geometry.padded(input));
        // At most, a plan replaces each value of a tensor by a vector of the widest instruction set.
        values("the input", &[in_channels.max(16), padded[0], padded[1], size_of::<f32>()])?;
        values("the output", &[out_channels.max(16), output[0], output[1], size_of::<f32>()])?;
        values("the weight", &[in_channels.max(16), out_channels.max(32), kernel[0], kernel[1], size_of::<f32>()])?;

        let planned = shape.planned();
        let ConvShape { in_channels, input, kernel, stride, padding, .. } = planned;
        let channels = [in_channels, out_channels];
        let window = kernel[0] * kernel[1];
        let [inputs, outputs] = channels.map(|channels| channels / groups);
        let x = [inputs, input[0], input[1]];
        let y = [outputs, output[0], output[1]];
        let forward = Phase {
            first: [0, 0],
            count: output,
            window: kernel,
            start: [-(padding.top as isize), -(padding.left as isize)],
            taps: (0..window).collect(),
        };
        let forward_shape =
            Shape { input: x, output: y, in_step: stride, out_step: [1, 1], weight_steps: [inputs * window, window] };
        let backward_shape =
            Shape { input: y, output: x, in_step: [1, 1], out_step: stride, weight_steps: [window, inputs * window] };
        let lanes = isa.lanes();
        Ok(Self {
            shape,
            output,
            token,
            forward: GroupedCorrelation::new(token, lanes, groups, forward_shape, vec![forward]),
            backward: GroupedCorrelation::new(token, lanes, groups, backward_shape, phases(&planned)),
            weights: GroupedWeightGradient::new(token, lanes, groups, [x, y], kernel, stride, padding),
        })
    }

    /// The planned geometry.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// Values of one image of the input.
    pub fn input_len(&self) -> usize {
        self.shape.in_channels * self.shape.input[0] * self.shape.input[1]
    }

    /// Values of one image of the output.
    pub fn output_len(&self) -> usize {
        self.shape.out_channels * self.output[0] * self.output[1]
    }

    /// Values of the weight.
    pub fn weight_len(&self) -> usize {
        self.shape.out_channels
            * (self.shape.in_channels / self.shape.groups)
            * self.shape.kernel[0]
            * self.shape.kernel[1]
    }

    /// Computes the output; `bias` is `[O]`.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of `input`.
    pub fn forward(
        &self,
        input: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        output: &mut [f32],
    ) -> Result<(), TrainingError> {
        let images = samples("the input", input.len(), self.input_len())?;
        expect("the weight", weight.len(), self.weight_len())?;
        expect("the bias", bias.map_or(self.shape.out_channels, <[f32]>::len), self.shape.out_channels)?;
        expect("the output", output.len(), images * self.output_len())?;
        self.forward.run(images, input, weight, bias, output);
        Ok(())
    }

    /// Computes the gradient of the input from that of the output.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of `output_gradient`.
    pub fn input_gradient(
        &self,
        output_gradient: &[f32],
        weight: &[f32],
        input_gradient: &mut [f32],
    ) -> Result<(), TrainingError> {
        let images = samples("the gradient of the output", output_gradient.len(), self.output_len())?;
        expect("the weight", weight.len(), self.weight_len())?;
        expect("the gradient of the input", input_gradient.len(), images * self.input_len())?;
        self.backward.run(images, output_gradient, weight, None, input_gradient);
        Ok(())
    }

    /// Computes the gradient of the weight from the input and the gradient of the output.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of `input`.
    pub fn weight_gradient(
        &self,
        input: &[f32],
        output_gradient: &[f32],
        weight_gradient: &mut [f32],
    ) -> Result<(), TrainingError> {
        let images = samples("the input", input.len(), self.input_len())?;
        expect("the gradient of the output", output_gradient.len(), images * self.output_len())?;
        expect("the gradient of the weight", weight_gradient.len(), self.weight_len())?;
        self.weights.run(images, input, output_gradient, weight_gradient);
        Ok(())
    }

    /// Computes the gradient of the bias, the sum over images and positions.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes.
    pub fn bias_gradient(&self, output_gradient: &[f32], bias_gradient: &mut [f32]) -> Result<(), TrainingError> {
        samples("the gradient of the output", output_gradient.len(), self.output_len())?;
        expect("the gradient of the bias", bias_gradient.len(), self.shape.out_channels)?;
        channel_sums(self.token, output_gradient, self.output[0] * self.output[1], bias_gradient);
        Ok(())
    }
}

/// The phases of the input's gradient: one for each remainder of a position modulo the stride.
fn phases(shape: &ConvShape) -> Vec<Phase> {
    /// One axis of a phase: how many positions it has, where its window starts, and the kernel element of each of the
    /// window's elements.
    fn axis(
        remainder: usize,
        length: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> (usize, isize, Vec<usize>) {
        let count = length.saturating_sub(remainder).div_ceil(stride);
        // Position `remainder + stride * q` meets kernel element k in the window of output (position + padding - k) /
        // stride.
        let elements: Vec<usize> = ((remainder + padding) % stride..kernel).step_by(stride).rev().collect();
        let start = ((remainder + padding) / stride) as isize + 1 - elements.len() as isize;
        (count, start, elements)
    }
    let ConvShape { input, kernel, stride, padding, .. } = *shape;
    let mut phases = Vec::new();
    for y in 0..stride[0].min(input[0]) {
        let (rows, top, down) = axis(y, input[0], kernel[0], stride[0], padding.top);
        for x in 0..stride[1].min(input[1]) {
            let (columns, left, across) = axis(x, input[1], kernel[1], stride[1], padding.left);
            let taps: Vec<usize> =
                down.iter().flat_map(|ky| across.iter().map(move |kx| ky * kernel[1] + kx)).collect();
            let window = if taps.is_empty() { [0, 0] } else { [down.len(), across.len()] };
            phases.push(Phase { first: [y, x], count: [rows, columns], window, start: [top, left], taps });
        }
    }
    phases
}

/// The geometry of a transposed convolution with groups = 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvTransposeShape {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// How far apart the windows of neighbouring inputs are in the output.
    pub stride: [usize; 2],
    /// Rows and columns cut from the output.
    pub padding: Padding,
    /// Rows and columns that are added to the output, below and to the right; less than the stride.
    pub output_padding: [usize; 2],
}

/// A transposed convolution `[N, I, H, W]` → `[N, O, h, w]` and its gradients: the input gradient of a convolution,
/// used as a forward pass.
///
/// Weights are `[I, O, kh, kw]`. The output has `(H - 1) · stride - padding + kernel + output_padding` rows.
#[derive(Debug)]
pub struct ConvTranspose2d {
    shape: ConvTransposeShape,
    inverse: Conv2d,
}

impl ConvTranspose2d {
    /// Plans a transposed convolution.
    ///
    /// # Errors
    /// As for [`Conv2d::new`], and if the output size is impossible.
    pub fn new(isa: Isa, shape: ConvTransposeShape) -> Result<Self, TrainingError> {
        let ConvTransposeShape { in_channels, out_channels, input, kernel, stride, padding, output_padding } = shape;
        positive(&[
            ("the height of the input", input[0]),
            ("the width of the input", input[1]),
            ("the vertical stride", stride[0]),
            ("the horizontal stride", stride[1]),
        ])?;
        let cut = [padding.top.saturating_add(padding.bottom), padding.left.saturating_add(padding.right)];
        let refused = TrainingError::TransposedSize { input, output_padding };
        let mut output = [0; 2];
        for axis in [0, 1] {
            let full = (input[axis] - 1)
                .checked_mul(stride[axis])
                .and_then(|size| size.checked_add(kernel[axis]))
                .and_then(|size| size.checked_add(output_padding[axis]))
                .ok_or(TrainingError::TooLarge { what: "the output" })?;
            output[axis] = full.checked_sub(cut[axis]).ok_or_else(|| refused.clone())?;
        }
        let shape_of_inverse = ConvShape {
            in_channels: out_channels,
            out_channels: in_channels,
            input: output,
            kernel,
            stride,
            padding,
            groups: 1,
        };
        let inverse = Conv2d::new(isa, shape_of_inverse)?;
        if inverse.output != input {
            return Err(refused);
        }
        Ok(Self { shape, inverse })
    }

    /// The planned geometry.
    pub fn shape(&self) -> &ConvTransposeShape {
        &self.shape
    }

    /// Height and width of the output.
    pub fn output(&self) -> [usize; 2] {
        self.inverse.shape.input
    }

    /// Values of one image of the input.
    pub fn input_len(&self) -> usize {
        self.inverse.output_len()
    }

    /// Values of one image of the output.
    pub fn output_len(&self) -> usize {
        self.inverse.input_len()
    }

    /// Values of the weight.
    pub fn weight_len(&self) -> usize {
        self.inverse.weight_len()
    }

    /// Computes the output; `bias` is `[O]`.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of `input`.
    pub fn forward(
        &self,
        input: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        output: &mut [f32],
    ) -> Result<(), TrainingError> {
        let images = samples("the input", input.len(), self.input_len())?;
        expect("the weight", weight.len(), self.weight_len())?;
        expect("the bias", bias.map_or(self.shape.out_channels, <[f32]>::len), self.shape.out_channels)?;
        expect("the output", output.len(), images * self.output_len())?;
        // A linear layer has a bias for each output position.
        let positions = self.inverse.shape.planned().in_channels / self.inverse.shape.in_channels;
        let repeated = bias
            .filter(|_| positions > 1)
            .map(|bias| bias.iter().flat_map(|bias| std::iter::repeat_n(*bias, positions)).collect::<Vec<f32>>());
        self.inverse.backward.run(images, input, weight, repeated.as_deref().or(bias), output);
        Ok(())
    }

    /// Computes the gradient of the input from that of the output.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch of `output_gradient`.
    pub fn input_gradient(
        &self,
        output_gradient: &[f32],
        weight: &[f32],
        input_gradient: &mut [f32],
    ) -> Result<(), TrainingError> {
        self.inverse.forward(output_gradient, weight, None, input_gradient)
    }

    /// Computes the gradient of the weight from the input and the gradient of the output.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes and the batch.
    pub fn weight_gradient(
        &self,
        input: &[f32],
        output_gradient: &[f32],
        weight_gradient: &mut [f32],
    ) -> Result<(), TrainingError> {
        self.inverse.weight_gradient(output_gradient, input, weight_gradient)
    }

    /// Computes the gradient of the bias, the sum over images and positions.
    ///
    /// # Errors
    /// If the length of a slice does not match the shapes.
    pub fn bias_gradient(&self, output_gradient: &[f32], bias_gradient: &mut [f32]) -> Result<(), TrainingError> {
        samples("the gradient of the output", output_gradient.len(), self.output_len())?;
        expect("the gradient of the bias", bias_gradient.len(), self.shape.out_channels)?;
        let [height, width] = self.output();
        channel_sums(self.inverse.token, output_gradient, height * width, bias_gradient);
        Ok(())
    }
}
