//! MobileNetV2.
//!
//! # What it computes
//! A stride-2 stem, seven stages of inverted residuals (1×1 expansion, depthwise 3×3, 1×1 projection, a shortcut
//! where the shape stays) and a 1×1 head, all with ReLU6 except the projections. Names as in torchvision's state dicts
//! (`features.1.conv.0.0`, …, `classifier.1`). Taps: `stem`, `stage1` … `stage7` (the last block of each stage,
//! linear), `head` (after its activation), `logits`; strides 2, 2, 4, 8, 16, 16, 32, 32, 32.
//!
//! # When to use
//! Where the weights have to be small, and joined with another network, so that methods on patches get features from
//! both.
//!
//! # Parameters
//! None: width 1.
//!
//! # Reference
//! Sandler et al., *MobileNetV2: Inverted Residuals and Linear Bottlenecks*, 2018, table 2.

use nomaly_kernels::geometry::Activation::Relu6;

use nomaly_nn::graph::{ConvOptions, Graph, GraphBuilder};

const EPSILON: f64 = 1e-5;

/// Channels of the stem and of the head.
const STEM: usize = 32;
const HEAD: usize = 1280;

/// A stage: expansion, output channels, blocks, stride of the first block.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// The graph with a classifier of `classes`.
pub(super) fn graph(classes: usize) -> Graph {
    let mut g = GraphBuilder::new(3);
    let mut x = layer(&mut g, 0, "features.0", STEM, ConvOptions::centered(3, 2));
    g.tap("stem", x);
    let mut feature = 1;
    for (stage, (expansion, outputs, blocks, stride)) in STAGES.into_iter().enumerate() {
        for within in 0..blocks {
            let stride = if within == 0 { stride } else { 1 };
            x = block(&mut g, x, &format!("features.{feature}.conv"), expansion, outputs, stride);
            feature += 1;
        }
        g.tap(format!("stage{}", stage + 1), x);
    }
    let x = layer(&mut g, x, &format!("features.{feature}"), HEAD, ConvOptions::POINTWISE);
    g.tap("head", x);
    g.classifier(x, "classifier.1", classes);
    g.finish().expect("the architecture is consistent")
}

fn block(g: &mut GraphBuilder, x: usize, name: &str, expansion: usize, outputs: usize, stride: usize) -> usize {
    let inputs = g.channels(x);
    let inner = inputs * expansion;
    // A block without expansion starts one entry earlier in its sequence.
    let (mut y, mut entry) = (x, 0);
    if expansion != 1 {
        y = layer(g, y, &format!("{name}.0"), inner, ConvOptions::POINTWISE);
        entry = 1;
    }
    let depthwise = ConvOptions { groups: inner, ..ConvOptions::centered(3, stride) };
    y = layer(g, y, &format!("{name}.{entry}"), inner, depthwise);
    y = g.conv(y, format!("{name}.{}", entry + 1), outputs, ConvOptions::POINTWISE);
    y = g.batch_norm(y, format!("{name}.{}", entry + 2), EPSILON);
    if stride == 1 && inputs == outputs { g.add(y, x) } else { y }
}

/// A convolution, its batch norm and ReLU6: entries 0, 1 and 2 of the sequence `name`.
fn layer(g: &mut GraphBuilder, x: usize, name: &str, channels: usize, shape: ConvOptions) -> usize {
    let x = g.conv(x, format!("{name}.0"), channels, shape);
    let x = g.batch_norm(x, format!("{name}.1"), EPSILON);
    g.activation(x, Relu6)
}
