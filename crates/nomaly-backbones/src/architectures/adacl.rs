//! The regressor of ADACL.
//!
//! # What it computes
//! Four 3×3 convolutions of 32, 64, 128 and 128 channels, each with batch norm and ReLU, the last three with stride 2; global
//! max pooling; a dense layer of 64 with ReLU; a dense layer without activation. 249 505 parameters. Taps: `conv1` … `conv4`
//! (after ReLU), strides 1, 2, 4, 8; `embedding` (the hidden dense layer, after ReLU); `logits` (the regressed value, which
//! ADACL clips to [0, 1]).
//!
//! Parameter names: `conv{1,2,3,4}`, `bn{1,2,3,4}`, `fc1`, `fc2`.
//!
//! # When to use
//! The network of the method that learns to tell normal images from anomalies made of them by augmentation, on small images.
//! The number of positions changes nothing but the time, because of the pooling.
//!
//! # Parameters
//! None. The source gives the layers in their order and a size below 300 000; widths, strides and batch norm are chosen here.
//! Batch norm stands for the convolutions' biases and lets the learning rate cycle widely.
//!
//! # Reference
//! Khazaie, Wong & Mohsenzadeh, *ADACL: Augment to Detect Anomalies with Continuous Labelling*, 2022; Khazaie, thesis,
//! section 4.3.2 and figure 4.3.

use nomaly_kernels::network::Activation::Relu;

use crate::graph::{ConvShape, Graph, GraphBuilder};

const EPSILON: f64 = 1e-5;

/// Channels and stride of each convolution.
const CONVOLUTIONS: [(usize, usize); 4] = [(32, 1), (64, 2), (128, 2), (128, 2)];

/// Width of the hidden dense layer.
const HIDDEN: usize = 64;

/// The graph with so many outputs; ADACL has one.
pub(super) fn graph(outputs: usize) -> Graph {
    let mut g = GraphBuilder::new();
    let mut x = 0;
    for (index, (channels, stride)) in CONVOLUTIONS.into_iter().enumerate() {
        let number = index + 1;
        x = g.conv(x, format!("conv{number}"), channels, ConvShape::centred(3, stride));
        x = g.batch_norm(x, format!("bn{number}"), EPSILON);
        x = g.activation(x, Relu);
        g.tap(format!("conv{number}"), x);
    }
    let x = g.global_max_pool(x);
    let x = g.linear(x, "fc1", HIDDEN);
    let x = g.activation(x, Relu);
    g.tap("embedding", x);
    let x = g.linear(x, "fc2", outputs);
    g.tap("logits", x);
    g.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_small_as_the_paper_says() {
        let graph = graph(1);
        assert_eq!(graph.parameter_count(), 249_505);
        let strides: Vec<_> = graph.taps().iter().map(|tap| graph.nodes()[tap.node].stride).collect();
        assert_eq!(strides, [Some(1), Some(2), Some(4), Some(8), None, None]);
    }
}
