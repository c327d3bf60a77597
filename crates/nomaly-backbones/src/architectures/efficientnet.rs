//! EfficientNet and EfficientNet-Lite.
//!
//! # What it computes
//! A stride-2 stem, seven stages of inverted bottlenecks (1×1 expansion, depthwise 3×3 or 5×5, squeeze-excite, 1×1
//! projection, a shortcut where the shape stays) and a 1×1 head. Taps: `stem`, `stage1` … `stage7` (the last block
//! of each stage, linear), `head` (after its activation), `logits`; strides 2, 2, 4, 8, 16, 16, 32, 32, 32. Lite omits
//! squeeze-excite, uses ReLU6, and scales neither stem and head nor the depth of the first and the last stage.
//!
//! # When to use
//! Multivariate Gaussians on pooled features were published on B4; Lite0 is the small, fast one whose weights are
//! embedded.
//!
//! # Parameters
//! Width and depth coefficients; the [`Flavor`] names the source of the weights, which determines padding, batch
//! norm's epsilon and names.
//!
//! # Reference
//! Tan & Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*, 2019, table 1; for Lite the
//! TensorFlow TPU models (`efficientnet/lite`).

use nomaly_kernels::geometry::Activation::{self, Relu6, Silu};

use nomaly_nn::graph::{ConvOptions, Graph, GraphBuilder, PaddingRule};

/// The source of the weights: they differ in padding, epsilon and names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flavor {
    /// EfficientNet-Lite as converted from TensorFlow: `SAME` padding, epsilon 1e-3, names `_blocks.0._expand_conv`.
    Lite,
    /// EfficientNet as converted from TensorFlow (`efficientnet_pytorch`): `SAME` padding, epsilon 1e-3, names
    /// `_blocks.0._expand_conv`.
    TensorFlow,
    /// torchvision's: symmetric padding, names `features.1.0.block.0.0`.
    Torchvision {
        /// Batch norm's epsilon: 1e-5 up to B4, 1e-3 from B5 on.
        epsilon: f64,
    },
}

/// One EfficientNet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EfficientNet {
    /// Factor on channels; results are rounded to multiples of 8.
    pub width: f64,
    /// Factor on the blocks of a stage, rounded up.
    pub depth: f64,
    /// The source of the weights.
    pub flavor: Flavor,
}

/// A stage of B0: kernel, stride, expansion, output channels, blocks.
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
];

/// One block: its position and its parameters.
struct Block {
    index: usize,
    stage: usize,
    within: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    outputs: usize,
}

/// The parameter prefixes of a block.
struct BlockNames {
    expand: [String; 2],
    depthwise: [String; 2],
    squeeze: [String; 2],
    project: [String; 2],
}

impl EfficientNet {
    /// The name of the family.
    pub fn family(&self) -> &'static str {
        match self.flavor {
            Flavor::Lite => "efficientnet-lite",
            Flavor::TensorFlow | Flavor::Torchvision { .. } => "efficientnet",
        }
    }

    /// The graph with a classifier of `classes`.
    pub fn graph(&self, classes: usize) -> Graph {
        let mut g = GraphBuilder::new(3);
        let ([stem, stem_norm], [head, head_norm], classifier) = self.outer_names();
        let (stem_width, head_width) = match self.flavor {
            Flavor::Lite => (32, 1280),
            Flavor::TensorFlow => (self.channels(32), self.channels(1280)),
            Flavor::Torchvision { .. } => (self.channels(32), 4 * self.channels(320)),
        };

        let x = g.conv(0, stem, stem_width, self.shape(3, 2, 1));
        let mut x = self.norm_and_activation(&mut g, x, stem_norm);
        g.tap("stem", x);
        let mut index = 0;
        for (stage, (kernel, stride, expansion, outputs, blocks)) in STAGES.into_iter().enumerate() {
            let outputs = self.channels(outputs);
            for within in 0..self.blocks(stage, blocks) {
                let stride = if within == 0 { stride } else { 1 };
                let block = Block { index, stage: stage + 1, within, kernel, stride, expansion, outputs };
                x = self.block(&mut g, x, &block);
                index += 1;
            }
            g.tap(format!("stage{}", stage + 1), x);
        }
        let x = g.conv(x, head, head_width, ConvOptions::POINTWISE);
        let x = self.norm_and_activation(&mut g, x, head_norm);
        g.tap("head", x);
        g.classifier(x, classifier, classes);
        g.finish().expect("the architecture is consistent")
    }

    fn block(&self, g: &mut GraphBuilder, x: usize, block: &Block) -> usize {
        let names = self.block_names(block);
        let inputs = g.channels(x);
        let inner = inputs * block.expansion;
        let mut y = x;
        if block.expansion != 1 {
            let [conv, norm] = names.expand;
            y = g.conv(y, conv, inner, ConvOptions::POINTWISE);
            y = self.norm_and_activation(g, y, norm);
        }
        let [conv, norm] = names.depthwise;
        y = g.conv(y, conv, inner, self.shape(block.kernel, block.stride, inner));
        y = self.norm_and_activation(g, y, norm);
        if self.flavor != Flavor::Lite {
            y = g.squeeze_excite(y, names.squeeze, (inputs / 4).max(1), Silu);
        }
        let [conv, norm] = names.project;
        y = g.conv(y, conv, block.outputs, ConvOptions::POINTWISE);
        y = g.batch_norm(y, norm, self.epsilon());
        if block.stride == 1 && inputs == block.outputs { g.add(y, x) } else { y }
    }

    fn norm_and_activation(&self, g: &mut GraphBuilder, x: usize, norm: String) -> usize {
        let x = g.batch_norm(x, norm, self.epsilon());
        g.activation(x, self.activation())
    }

    fn activation(&self) -> Activation {
        if self.flavor == Flavor::Lite { Relu6 } else { Silu }
    }

    fn epsilon(&self) -> f64 {
        match self.flavor {
            Flavor::Lite | Flavor::TensorFlow => 1e-3,
            Flavor::Torchvision { epsilon } => epsilon,
        }
    }

    fn shape(&self, kernel: usize, stride: usize, groups: usize) -> ConvOptions {
        let padding = match self.flavor {
            Flavor::Lite | Flavor::TensorFlow => PaddingRule::Same,
            Flavor::Torchvision { .. } => PaddingRule::Symmetric(kernel / 2),
        };
        ConvOptions { kernel, stride, padding, groups }
    }

    /// Scaled channels: the nearest multiple of 8 that is not more than 10 % below.
    fn channels(&self, base: usize) -> usize {
        let scaled = base as f64 * self.width;
        let rounded = (((scaled + 4.0) as usize) / 8 * 8).max(8);
        if (rounded as f64) < 0.9 * scaled { rounded + 8 } else { rounded }
    }

    fn blocks(&self, stage: usize, base: usize) -> usize {
        let unscaled = self.flavor == Flavor::Lite && (stage == 0 || stage + 1 == STAGES.len());
        if unscaled { base } else { (base as f64 * self.depth).ceil() as usize }
    }

    /// Stem and its norm, head and its norm, classifier.
    fn outer_names(&self) -> ([String; 2], [String; 2], &'static str) {
        match self.flavor {
            Flavor::Lite | Flavor::TensorFlow => {
                (["_conv_stem", "_bn0"].map(String::from), ["_conv_head", "_bn1"].map(String::from), "_fc")
            }
            Flavor::Torchvision { .. } => (
                ["features.0.0", "features.0.1"].map(String::from),
                ["features.8.0", "features.8.1"].map(String::from),
                "classifier.1",
            ),
        }
    }

    fn block_names(&self, block: &Block) -> BlockNames {
        match self.flavor {
            Flavor::Lite | Flavor::TensorFlow => {
                let named = |leaves: [&str; 2]| leaves.map(|leaf| format!("_blocks.{}.{leaf}", block.index));
                BlockNames {
                    expand: named(["_expand_conv", "_bn0"]),
                    depthwise: named(["_depthwise_conv", "_bn1"]),
                    squeeze: named(["_se_reduce", "_se_expand"]),
                    project: named(["_project_conv", "_bn2"]),
                }
            }
            Flavor::Torchvision { .. } => {
                // A block without expansion starts one entry earlier in its sequence.
                let first = usize::from(block.expansion != 1);
                let at = |entry: usize, leaves: [&str; 2]| {
                    leaves.map(|leaf| format!("features.{}.{}.block.{entry}.{leaf}", block.stage, block.within))
                };
                BlockNames {
                    expand: at(0, ["0", "1"]),
                    depthwise: at(first, ["0", "1"]),
                    squeeze: at(first + 1, ["fc1", "fc2"]),
                    project: at(first + 2, ["0", "1"]),
                }
            }
        }
    }
}
