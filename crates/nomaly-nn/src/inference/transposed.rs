//! Transposed convolutions as blocked plans.
//!
//! The planar kernel packs the weights in each run, which costs more than the arithmetic where there are more weights
//! than results. There, the results with one remainder modulo the stride, a *phase*, are an ordinary convolution of
//! stride 1 with a part of the kernel: a plan computes all phases with weights that are packed once, and a planar step
//! interleaves them.

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Activation, OutputLayout, Padding};
use nomaly_kernels::network::{CompiledNetwork, ConvLayer, NetworkBuilder, NetworkError};
use nomaly_kernels::training::ConvTransposeShape;

/// One axis of a phase.
struct Axis {
    /// Elements of the kernel, in the order in which a window has them.
    elements: Vec<usize>,
    before: usize,
    after: usize,
}

/// The phase of results with this remainder, unless it is not a convolution of the plan's kind.
fn axis(remainder: usize, [input, output]: [usize; 2], kernel: usize, stride: usize, padding: usize) -> Option<Axis> {
    let count = output.checked_sub(remainder)?.div_ceil(stride);
    // Result `remainder + stride * q` reads input (remainder + padding - k) / stride + q by kernel element k.
    let elements: Vec<usize> = ((remainder + padding) % stride..kernel).step_by(stride).rev().collect();
    let before = elements.len().checked_sub((remainder + padding) / stride + 1)?;
    let after = (count + elements.len()).checked_sub(input + before + 1)?;
    (before < elements.len() && after < elements.len()).then_some(Axis { elements, before, after })
}

/// A plan whose outputs are the phases, row by row, each `[O, H / stride, W / stride]`; or one output with all results
/// if they need no interleaving. `None` where the planar kernel serves better.
pub(super) fn phases(
    shape: &ConvTransposeShape,
    output: [usize; 2],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    isa: Isa,
) -> Option<Result<CompiledNetwork, NetworkError>> {
    let ConvTransposeShape {
        in_channels, out_channels, input, kernel: [side, _], stride: [stride, _], padding, ..
    } = *shape;
    if weight.len() <= out_channels * output[0] * output[1] {
        return None;
    }
    let taps = side * side;
    if input == [1, 1] && output == [side; 2] {
        return Some(linear(shape, weight, bias, activation, isa));
    }
    if output.iter().any(|size| !size.is_multiple_of(stride)) {
        return None;
    }
    let axes = |place: usize| -> Option<Vec<Axis>> {
        let sizes = [input[place], output[place]];
        (0..stride).map(|remainder| axis(remainder, sizes, side, stride, padding.top)).collect()
    };
    let (rows, columns) = (axes(0)?, axes(1)?);
    let build = || {
        let mut builder = NetworkBuilder::new(isa);
        let x = builder.input(in_channels, input[0], input[1]);
        let mut results = Vec::with_capacity(stride * stride);
        for row in &rows {
            for column in &columns {
                let mut part =
                    Vec::with_capacity(out_channels * in_channels * row.elements.len() * column.elements.len());
                for o in 0..out_channels {
                    for i in 0..in_channels {
                        let of = &weight[(i * out_channels + o) * taps..][..taps];
                        for y in &row.elements {
                            part.extend(column.elements.iter().map(|x| of[y * side + x]));
                        }
                    }
                }
                let conv = ConvLayer {
                    out_channels,
                    kernel: [row.elements.len(), column.elements.len()],
                    stride: [1; 2],
                    padding: Padding { top: row.before, bottom: row.after, left: column.before, right: column.after },
                    groups: 1,
                    weight: &part,
                    bias,
                    activation,
                    residual: None,
                };
                results.push((builder.conv2d(x, conv)?, OutputLayout::Nchw));
            }
        }
        builder.finish(&results)
    };
    Some(build())
}

/// Of an image of one position, the result is a linear layer with the kernel's positions as outputs.
fn linear(
    shape: &ConvTransposeShape,
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    isa: Isa,
) -> Result<CompiledNetwork, NetworkError> {
    let outputs = weight.len() / shape.in_channels;
    let mut builder = NetworkBuilder::new(isa);
    let x = builder.input(shape.in_channels, 1, 1);
    let turned: Vec<f32> =
        (0..outputs).flat_map(|output| weight.iter().skip(output).step_by(outputs).copied()).collect();
    let taps = outputs / shape.out_channels;
    let bias: Option<Vec<f32>> =
        bias.map(|bias| bias.iter().flat_map(|&value| std::iter::repeat_n(value, taps)).collect());
    let conv = ConvLayer {
        out_channels: outputs,
        kernel: [1; 2],
        stride: [1; 2],
        padding: Padding::default(),
        groups: 1,
        weight: &turned,
        bias: bias.as_deref(),
        activation,
        residual: None,
    };
    let result = builder.conv2d(x, conv)?;
    builder.finish(&[(result, OutputLayout::Nchw)])
}

/// Interleaves the phases of planes: `output` has planes of `width` columns.
pub(super) fn interleave(stride: usize, width: usize, phases: &[Option<&[f32]>], output: &mut [f32]) {
    let narrow = width / stride;
    // Planes have a whole number of rows of each phase, so rows are numbered through all planes.
    for (y, row) in output.chunks_exact_mut(width).enumerate() {
        let line = y / stride * narrow..(y / stride + 1) * narrow;
        for (x, phase) in phases[y % stride * stride..][..stride].iter().enumerate() {
            let from = &phase.unwrap_or(&[])[line.clone()];
            row.iter_mut().skip(x).step_by(stride).zip(from).for_each(|(to, from)| *to = *from);
        }
    }
}
