//! The networks that are timed against PyTorch.

use nomaly_kernels::geometry::Activation;
use nomaly_nn::graph::{ConvOptions, ConvTransposeOptions, Graph, GraphBuilder, GraphError, PaddingRule};

/// Channels of the U-Net's first level.
const WIDTH: usize = 32;

/// Two 3 × 3 convolutions with batch norm and ReLU.
fn double(g: &mut GraphBuilder, mut x: usize, name: &str, channels: usize) -> usize {
    for part in ["a", "b"] {
        x = g.conv(x, format!("{name}.{part}"), channels, ConvOptions::centered(3, 1));
        x = g.batch_norm(x, format!("{name}.{part}n"), 1e-5);
        x = g.activation(x, Activation::Relu);
    }
    x
}

/// Four levels down and up, with a skip at each (Ronneberger et al. 2015, with batch norm and padding).
///
/// # Errors
/// None in practice: the description does not contradict itself.
pub fn unet() -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(3);
    let (mut x, mut skips) = (GraphBuilder::INPUT, Vec::new());
    for level in 0..4 {
        let skip = double(&mut g, x, &format!("down{level}"), WIDTH << level);
        skips.push(skip);
        x = g.max_pool(skip, 2, 2, PaddingRule::Symmetric(0));
    }
    x = double(&mut g, x, "middle", WIDTH << 4);
    for (level, skip) in skips.into_iter().enumerate().rev() {
        let options = ConvTransposeOptions::new(2, 2, 0).with_bias();
        x = g.conv_transpose(x, format!("up{level}"), WIDTH << level, options);
        x = g.concat(&[skip, x]);
        x = double(&mut g, x, &format!("join{level}"), WIDTH << level);
    }
    let x = g.conv_with_bias(x, "last", 3, ConvOptions::POINTWISE);
    g.tap("image", x);
    g.finish()
}

/// From 100 numbers to an image of 32 × 32 pixels (Radford et al. 2016), with `width` channels before the last layer.
///
/// # Errors
/// None in practice: the description does not contradict itself.
pub fn generator(width: usize) -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(100);
    let mut x = GraphBuilder::INPUT;
    for (level, channels) in [4 * width, 2 * width, width].into_iter().enumerate() {
        let options = if level == 0 { ConvTransposeOptions::new(4, 1, 0) } else { ConvTransposeOptions::new(4, 2, 1) };
        x = g.conv_transpose(x, format!("up{level}"), channels, options);
        x = g.batch_norm(x, format!("bn{level}"), 1e-5);
        x = g.activation(x, Activation::Relu);
    }
    x = g.conv_transpose(x, "last", 3, ConvTransposeOptions::new(4, 2, 1));
    let x = g.activation(x, Activation::Tanh);
    g.tap("image", x);
    g.finish()
}

/// From an image of 32 × 32 pixels to a number, mirrored to the [`generator`].
///
/// # Errors
/// None in practice: the description does not contradict itself.
pub fn critic(width: usize) -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(3);
    let mut x = GraphBuilder::INPUT;
    for (level, channels) in [width, 2 * width, 4 * width].into_iter().enumerate() {
        x = g.conv(x, format!("down{level}"), channels, ConvOptions::padded(4, 2, 1));
        if level > 0 {
            x = g.batch_norm(x, format!("bn{level}"), 1e-5);
        }
        x = g.activation(x, Activation::leaky_relu(0.2));
    }
    let x = g.conv(x, "last", 1, ConvOptions::padded(4, 1, 0));
    g.tap("verdict", x);
    g.finish()
}

/// Three 4 × 4 transposed convolutions of stride 2 with ReLU in between, from 128 × 8 × 8 to 3 × 64 × 64.
///
/// # Errors
/// None in practice: the description does not contradict itself.
pub fn transposed() -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(128);
    let mut x = GraphBuilder::INPUT;
    for (level, channels) in [64, 32, 3].into_iter().enumerate() {
        x = g.conv_transpose(x, format!("up{level}"), channels, ConvTransposeOptions::new(4, 2, 1).with_bias());
        if channels > 3 {
            x = g.activation(x, Activation::Relu);
        }
    }
    g.tap("image", x);
    g.finish()
}
