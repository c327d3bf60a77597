//! Residual networks.
//!
//! # What it computes
//! A 7×7 stem, a 3×3 max pooling, four groups of residual blocks (basic: two 3×3 convolutions; bottleneck: 1×1,
//! 3×3, 1×1 with the stride on the 3×3) and a linear classifier. Names as in torchvision's state dicts (`conv1`,
//! `bn1`, `layer1.0.conv1`, …, `layer1.0.downsample.0`, `fc`). Taps: `stem` (before the pooling), `layer1` …
//! `layer4`, `logits`; strides 2, 4, 8, 16, 32.
//!
//! # When to use
//! The backbones of PaDiM, PatchCore, SPADE, STFPM and reverse distillation; `wide-resnet50-2` is what most published
//! tables use, `resnet18` is the fast one.
//!
//! # Parameters
//! Block kind, blocks per group, and the width of a bottleneck's inner convolution (64 for ResNet, 128 for
//! Wide-ResNet-50-2, per 64 channels of the group).
//!
//! # Reference
//! He et al., *Deep Residual Learning for Image Recognition*, 2016, table 1; Zagoruyko & Komodakis, *Wide Residual
//! Networks*, 2016 (table 8 has Wide-ResNet-50-2).

use nomaly_kernels::geometry::Activation::Relu;

use nomaly_nn::graph::{ConvOptions, Graph, GraphBuilder, PaddingRule};

const EPSILON: f64 = 1e-5;

/// The residual block of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 and 1×1 convolutions; the result has four times the group's channels.
    Bottleneck {
        /// Channels of the 3×3 convolution per 64 channels of the group.
        inner: usize,
    },
}

impl Block {
    fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck { .. } => 4,
        }
    }
}

/// One residual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResNet {
    /// Kind of block.
    pub block: Block,
    /// Blocks in each of the four groups.
    pub depths: [usize; 4],
}

impl ResNet {
    /// The graph with a classifier of `classes`.
    pub fn graph(&self, classes: usize) -> Graph {
        let mut g = GraphBuilder::new(3);
        let x = g.conv(0, "conv1", 64, ConvOptions::centered(7, 2));
        let x = g.batch_norm(x, "bn1", EPSILON);
        let x = g.activation(x, Relu);
        g.tap("stem", x);
        let mut x = g.max_pool(x, 3, 2, PaddingRule::Symmetric(1));
        for (group, depth) in self.depths.into_iter().enumerate() {
            for block in 0..depth {
                let stride = if group > 0 && block == 0 { 2 } else { 1 };
                x = self.block(&mut g, x, &format!("layer{}.{block}", group + 1), 64 << group, stride);
            }
            g.tap(format!("layer{}", group + 1), x);
        }
        g.classifier(x, "fc", classes);
        g.finish().expect("the architecture is consistent")
    }

    fn block(&self, g: &mut GraphBuilder, x: usize, name: &str, width: usize, stride: usize) -> usize {
        let outputs = width * self.block.expansion();
        // The shortcut comes first so that the last convolution can take it as its residual.
        let shortcut = if stride != 1 || g.channels(x) != outputs {
            let shape = ConvOptions { stride, ..ConvOptions::POINTWISE };
            let shortcut = g.conv(x, format!("{name}.downsample.0"), outputs, shape);
            g.batch_norm(shortcut, format!("{name}.downsample.1"), EPSILON)
        } else {
            x
        };
        let layers = match self.block {
            Block::Basic => vec![(width, ConvOptions::centered(3, stride)), (outputs, ConvOptions::centered(3, 1))],
            Block::Bottleneck { inner } => {
                let inner = width * inner / 64;
                vec![
                    (inner, ConvOptions::POINTWISE),
                    (inner, ConvOptions::centered(3, stride)),
                    (outputs, ConvOptions::POINTWISE),
                ]
            }
        };
        let mut y = x;
        for (index, (channels, shape)) in layers.into_iter().enumerate() {
            if index > 0 {
                y = g.activation(y, Relu);
            }
            y = g.conv(y, format!("{name}.conv{}", index + 1), channels, shape);
            y = g.batch_norm(y, format!("{name}.bn{}", index + 1), EPSILON);
        }
        let sum = g.add(y, shortcut);
        g.activation(sum, Relu)
    }
}
