//! The shape of every result, from the sizes of the inputs.

use nomaly_kernels::geometry::Padding;
use nomaly_kernels::training::Border;

use super::error::GraphError;
use super::{Graph, LearnedGrid, NodeLayout, Op, PaddingRule};

impl Graph {
    /// The inputs, in the order in which they are given.
    pub fn inputs(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|&index| matches!(self.nodes[index].op, Op::Input))
    }

    /// The shape `[C, H, W]` of each node's result for one image, from the height and width of each input; that of
    /// tokens is `[D, T, 1]`.
    ///
    /// # Errors
    /// For another number of inputs, an input that is too small for a window, inputs of one node whose sizes differ,
    /// and tokens that are not those of a grid where one is needed.
    pub fn shapes(&self, inputs: &[[usize; 2]]) -> Result<Vec<[usize; 3]>, GraphError> {
        let expected = self.inputs().count();
        if expected != inputs.len() {
            return Err(GraphError::Inputs { expected, found: inputs.len() });
        }
        let mut sizes = inputs.iter();
        let mut shapes: Vec<[usize; 3]> = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.iter().enumerate() {
            let from = node.inputs.first().map_or([0; 3], |&input| shapes[input]);
            let [height, width] = match &node.op {
                Op::Input => *sizes.next().unwrap_or(&[0; 2]),
                Op::Conv { name, kernel, stride, padding, .. } => windows(from, name, *kernel, *stride, *padding)?,
                Op::MaxPool { kernel, stride, padding } => windows(from, "max pooling", *kernel, *stride, *padding)?,
                Op::AvgPool { kernel, stride, padding, .. } => {
                    windows(from, "average pooling", *kernel, *stride, *padding)?
                }
                Op::ConvTranspose { name, kernel, stride, padding, output_padding, .. } => {
                    let enlarged = |size: usize| {
                        let size = size.checked_sub(1)? * stride + kernel + output_padding;
                        size.checked_sub(2 * padding).filter(|&size| size > 0)
                    };
                    let (Some(height), Some(width)) = (enlarged(from[1]), enlarged(from[2])) else {
                        let reason = format!("its output would be empty with a padding of {padding}");
                        return Err(GraphError::Size { layer: format!("`{name}`"), found: from, reason });
                    };
                    [height, width]
                }
                Op::Upsample { factor, .. } => [from[1] * factor, from[2] * factor],
                Op::Pad { sides: Padding { top, bottom, left, right }, border } => {
                    let sides = [(top, bottom, from[1]), (left, right, from[2])];
                    if *border == Border::Reflection && sides.iter().any(|(a, b, size)| *a >= size || *b >= size) {
                        let reason = "a reflection is smaller than the image".to_owned();
                        return Err(GraphError::Size { layer: "padding".to_owned(), found: from, reason });
                    }
                    [from[1] + top + bottom, from[2] + left + right]
                }
                Op::Reshape { shape } => {
                    if shape.iter().product::<usize>() != from.iter().product::<usize>() {
                        let reason = format!("{shape:?} has another number of values");
                        return Err(GraphError::Size { layer: "a reshape".to_owned(), found: from, reason });
                    }
                    [shape[1], shape[2]]
                }
                Op::Concat => {
                    let differs = |&&input: &&usize| shapes[input][1..] != from[1..];
                    if let Some(&other) = node.inputs.iter().find(differs) {
                        let reason = format!("another input is {from:?}");
                        return Err(GraphError::Size {
                            layer: "a concatenation".to_owned(),
                            found: shapes[other],
                            reason,
                        });
                    }
                    [from[1], from[2]]
                }
                Op::Gate => {
                    one_position(shapes[node.inputs[1]], "a gate")?;
                    [from[1], from[2]]
                }
                Op::Softmax => {
                    one_position(from, "softmax")?;
                    [1, 1]
                }
                Op::Linear { .. } if node.layout == NodeLayout::Tokens => [from[1], from[2]],
                Op::Linear { name, .. } => {
                    one_position(from, &format!("`{name}`"))?;
                    [1, 1]
                }
                Op::Tokens
                | Op::TokenGrid { .. }
                | Op::SelectToken { .. }
                | Op::InsertTokens { .. }
                | Op::PositionEmbedding { .. }
                | Op::LayerNorm { .. }
                | Op::Attention { .. }
                | Op::LayerScale { .. } => self.size_of_tokens(index, from, &shapes)?,
                Op::Add => {
                    if let Some(&other) = node.inputs.iter().find(|&&input| shapes[input] != from) {
                        let reason = format!("its other input is {from:?}");
                        return Err(GraphError::Size { layer: "a sum".to_owned(), found: shapes[other], reason });
                    }
                    [from[1], from[2]]
                }
                Op::GlobalAvgPool | Op::GlobalMaxPool => [1, 1],
                Op::BatchNorm { .. }
                | Op::InstanceNorm { .. }
                | Op::Activation(_)
                | Op::Dropout { .. }
                | Op::SqueezeExcite { .. } => [from[1], from[2]],
            };
            shapes.push([node.channels, height, width]);
        }
        Ok(shapes)
    }

    /// Height and width of the result of an operation on tokens of shape `from`.
    fn size_of_tokens(&self, index: usize, from: [usize; 3], shapes: &[[usize; 3]]) -> Result<[usize; 2], GraphError> {
        let node = &self.nodes[index];
        let (count, layer) = (from[1], format!("`{}`", node.op.label()));
        let grid = |prefix: usize| self.grid_behind(&layer, node.inputs[0], prefix, shapes);
        let too_few = |needed: usize| GraphError::Size {
            layer: layer.clone(),
            found: from,
            reason: format!("it needs {needed} tokens"),
        };
        Ok(match &node.op {
            Op::Tokens if from[1..].contains(&0) => return Err(too_few(1)),
            Op::Tokens => [from[1] * from[2], 1],
            Op::TokenGrid { prefix } => grid(*prefix)?,
            Op::SelectToken { token } if *token >= count => return Err(too_few(token + 1)),
            Op::SelectToken { .. } => [1, 1],
            Op::InsertTokens { place, .. } if *place > count => return Err(too_few(*place)),
            Op::InsertTokens { count: more, .. } => [count + more, 1],
            Op::PositionEmbedding { grid: LearnedGrid { prefix, .. }, .. } => {
                grid(*prefix)?;
                [count, 1]
            }
            Op::Attention { rotary: Some(rotary), .. } => {
                grid(rotary.prefix)?;
                [count, 1]
            }
            _ => [count, 1],
        })
    }
}

/// Refuses what has more than one position.
fn one_position(from: [usize; 3], layer: &str) -> Result<(), GraphError> {
    if from[1..] == [1, 1] {
        return Ok(());
    }
    let reason = "it needs one position; reshape or pool before it".to_owned();
    Err(GraphError::Size { layer: layer.to_owned(), found: from, reason })
}

/// Height and width after windows over an input of shape `[C, H, W]`.
fn windows(
    from: [usize; 3],
    layer: &str,
    kernel: usize,
    stride: usize,
    padding: PaddingRule,
) -> Result<[usize; 2], GraphError> {
    let [_, height, width] = from;
    let Padding { top, bottom, left, right } = padding.resolve([height, width], kernel, stride);
    let padded = [height + top + bottom, width + left + right];
    if height == 0 || width == 0 || padded.iter().any(|&size| size < kernel) {
        let reason = format!("its window is {kernel} x {kernel}");
        return Err(GraphError::Size { layer: format!("`{layer}`"), found: from, reason });
    }
    Ok(padded.map(|size| (size - kernel) / stride + 1))
}
