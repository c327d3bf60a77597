//! The shape of every result, from the sizes of the inputs.

use nomaly_kernels::geometry::Padding;

use super::error::GraphError;
use super::{Graph, Op, PaddingRule};

impl Graph {
    /// The inputs, in the order in which they are given.
    pub fn inputs(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|&index| matches!(self.nodes[index].op, Op::Input))
    }

    /// The shape `[C, H, W]` of each node's result for one image, from the height and width of each input.
    ///
    /// # Errors
    /// For another number of inputs, an input that is too small for a window, and inputs of one node whose sizes
    /// differ.
    pub fn shapes(&self, inputs: &[[usize; 2]]) -> Result<Vec<[usize; 3]>, GraphError> {
        let expected = self.inputs().count();
        if expected != inputs.len() {
            return Err(GraphError::Inputs { expected, found: inputs.len() });
        }
        let mut sizes = inputs.iter();
        let mut shapes: Vec<[usize; 3]> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let from = node.inputs.first().map_or([0; 3], |&input| shapes[input]);
            let [height, width] = match &node.op {
                Op::Input => *sizes.next().unwrap_or(&[0; 2]),
                Op::Conv { name, kernel, stride, padding, .. } => windows(from, name, *kernel, *stride, *padding)?,
                Op::MaxPool { kernel, stride, padding } => windows(from, "max pooling", *kernel, *stride, *padding)?,
                Op::Add => {
                    if let Some(&other) = node.inputs.iter().find(|&&input| shapes[input] != from) {
                        let reason = format!("its other input is {from:?}");
                        return Err(GraphError::Size { layer: "a sum".to_owned(), found: shapes[other], reason });
                    }
                    [from[1], from[2]]
                }
                Op::GlobalAvgPool | Op::GlobalMaxPool | Op::Linear { .. } => [1, 1],
                Op::BatchNorm { .. } | Op::Activation(_) | Op::Dropout { .. } | Op::SqueezeExcite { .. } => {
                    [from[1], from[2]]
                }
            };
            shapes.push([node.channels, height, width]);
        }
        Ok(shapes)
    }
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
