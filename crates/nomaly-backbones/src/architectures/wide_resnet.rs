//! Wide residual networks for small images, WRN-n-k.
//!
//! # What it computes
//! A 3×3 stem of 16 channels, three groups of (n − 4) / 6 pre-activation blocks with 16k, 32k and 64k channels
//! (batch norm, ReLU, 3×3, batch norm, ReLU, dropout, 3×3; the first block of groups 2 and 3 has stride 2), a last
//! batch norm and ReLU, global average pooling and a linear classifier. Where a block changes the width its 1×1
//! shortcut starts after the first ReLU. Taps: `stem`, `group1` … `group3` (sums, before any activation), `head`
//! (after the last ReLU), `logits`; strides 1, 1, 2, 4, 4.
//!
//! Parameter names: `conv`; `group{1,2,3}.{block}.{bn1,conv1,bn2,conv2,shortcut}`; `bn`; `fc`.
//!
//! # When to use
//! The classifier of the self-supervised methods on 32×32 images (GeoTrans), trained from scratch.
//!
//! # Parameters
//! Depth n = 6 · blocks + 4, width factor k, and the rate of dropout, which only training and Monte Carlo passes of
//! [`trainable`](nomaly_nn::trainable) apply.
//!
//! # Reference
//! Zagoruyko & Komodakis, *Wide Residual Networks*, 2016, table 1, block B(3, 3); section 2.4 for dropout.

use nomaly_kernels::geometry::Activation::Relu;

use nomaly_nn::graph::{ConvOptions, Graph, GraphBuilder};

const EPSILON: f64 = 1e-5;

/// One wide residual network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WideResNet {
    /// Blocks in each of the three groups, (n − 4) / 6.
    pub blocks: usize,
    /// The width factor k.
    pub width: usize,
    /// Share of the values that dropout between the two convolutions of a block sets to zero, in [0, 1); 0 for none.
    pub dropout: f32,
}

impl WideResNet {
    /// The network with this number of blocks per group and this width, without dropout.
    pub const fn new(blocks: usize, width: usize) -> Self {
        Self { blocks, width, dropout: 0.0 }
    }

    /// The same network with dropout.
    #[must_use]
    pub const fn with_dropout(mut self, rate: f32) -> Self {
        self.dropout = rate;
        self
    }

    /// The graph with a classifier of `classes`.
    pub fn graph(&self, classes: usize) -> Graph {
        let mut g = GraphBuilder::new(3);
        let mut x = g.conv(0, "conv", 16, ConvOptions::centered(3, 1));
        g.tap("stem", x);
        for group in 0..3 {
            for block in 0..self.blocks {
                let stride = if group > 0 && block == 0 { 2 } else { 1 };
                let name = format!("group{}.{block}", group + 1);
                x = self.block(&mut g, x, &name, (16 << group) * self.width, stride);
            }
            g.tap(format!("group{}", group + 1), x);
        }
        let x = g.batch_norm(x, "bn", EPSILON);
        let x = g.activation(x, Relu);
        g.tap("head", x);
        g.classifier(x, "fc", classes);
        g.finish().expect("the architecture is consistent")
    }

    fn block(&self, g: &mut GraphBuilder, x: usize, name: &str, channels: usize, stride: usize) -> usize {
        let a = g.batch_norm(x, format!("{name}.bn1"), EPSILON);
        let a = g.activation(a, Relu);
        let shortcut = if g.channels(x) == channels {
            x
        } else {
            g.conv(a, format!("{name}.shortcut"), channels, ConvOptions { stride, ..ConvOptions::POINTWISE })
        };
        let y = g.conv(a, format!("{name}.conv1"), channels, ConvOptions::centered(3, stride));
        let y = g.batch_norm(y, format!("{name}.bn2"), EPSILON);
        let mut y = g.activation(y, Relu);
        if self.dropout != 0.0 {
            y = g.dropout(y, self.dropout);
        }
        let y = g.conv(y, format!("{name}.conv2"), channels, ConvOptions::centered(3, 1));
        g.add(y, shortcut)
    }
}
