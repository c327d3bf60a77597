//! The network of ADACL.
//!
//! # What it computes
//! Four 3×3 convolutions of 32, 64, 128 and 128 channels, each with bias and ReLU, the first three with stride 2;
//! global max pooling; a dense layer of 64 with ReLU; a dense layer without activation. 249 153 parameters. Taps:
//! `conv1` … `conv4` (after ReLU), strides 2, 4, 8, 8; `embedding` (the hidden dense layer, after ReLU); `logits`
//! (the regressed value, which ADACL clips to [0, 1]). The receptive field of the last convolution is 31×31 pixels:
//! all of a digit.
//!
//! Parameter names: `conv{1,2,3,4}`, `fc1`, `fc2`.
//!
//! # When to use
//! For ADACL, which learns to tell normal images from anomalies made by augmentation, on small images. Because of the
//! pooling, the number of positions affects only the time.
//!
//! # Parameters
//! None. The source gives the layers in their order and a size below 300 000; widths and strides are chosen here. There
//! is no batch norm: half of the images behind its statistics would be created anomalies.
//!
//! # Reference
//! Khazaie, Wong & Mohsenzadeh, *ADACL: Augment to Detect Anomalies with Continuous Labelling*, 2022; Khazaie, thesis,
//! section 4.3.2 and figure 4.3.

use nomaly_kernels::geometry::Activation::Relu;

use nomaly_nn::graph::{ConvOptions, Graph, GraphBuilder};

/// Channels and stride of each convolution.
const CONVOLUTIONS: [(usize, usize); 4] = [(32, 2), (64, 2), (128, 2), (128, 1)];

/// Width of the hidden dense layer.
const HIDDEN: usize = 64;

/// The graph with this many outputs; ADACL has one.
pub(super) fn graph(outputs: usize) -> Graph {
    let mut g = GraphBuilder::new(3);
    let mut x = 0;
    for (index, (channels, stride)) in CONVOLUTIONS.into_iter().enumerate() {
        let number = index + 1;
        x = g.conv_with_bias(x, format!("conv{number}"), channels, ConvOptions::centered(3, stride));
        x = g.activation(x, Relu);
        g.tap(format!("conv{number}"), x);
    }
    let x = g.global_max_pool(x);
    let x = g.linear(x, "fc1", HIDDEN);
    let x = g.activation(x, Relu);
    g.tap("embedding", x);
    let x = g.linear(x, "fc2", outputs);
    g.tap("logits", x);
    g.finish().expect("the architecture is consistent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_small_as_the_paper_says() {
        let graph = graph(1);
        assert_eq!(graph.parameter_count(), 249_153);
        let strides: Vec<_> = graph.taps().iter().map(|tap| graph.nodes()[tap.node].stride).collect();
        assert_eq!(strides, [Some(2), Some(4), Some(8), Some(8), None, None]);
    }
}
