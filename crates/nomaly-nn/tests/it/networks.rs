//! Small networks with every node, and what holds their training steps against the fixtures of
//! `tests/fixtures/gen_steps.py`.

use nomaly_kernels::geometry::{Activation, Padding};
use nomaly_kernels::training::{Border, UpsampleMode};
use nomaly_nn::graph::{
    AxialRotary, BlockOptions, ConvOptions, ConvTransposeOptions, Graph, GraphBuilder, LearnedGrid, PaddingRule,
    PositionResize,
};
use serde_json::Value;

use crate::formula;

/// Relative to the length of a gradient as a vector.
pub(crate) const GRADIENT: f64 = 1e-4;

/// Relative to the loss, and for values to the greatest one: two ways of computation in single precision.
pub(crate) const CLOSE: f64 = 1e-4;

/// A fixture by its name.
pub(crate) fn fixture(text: &str) -> Value {
    serde_json::from_str(text).expect("a fixture")
}

/// Values by the formula in [-2, 2).
pub(crate) fn input(name: &str, count: usize) -> Vec<f32> {
    formula::values(name, count).map(|u| (2.0 * u) as f32).collect()
}

/// Holds a tensor against its length, its sum and its product with a probe, within `slack` of its length as a vector.
pub(crate) fn assert_digest(name: &str, values: &[f32], want: &Value, slack: f64) {
    assert_eq!(want[0], values.len() as u64, "{name}");
    let length = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let probe = formula::values("probe", values.len());
    let product: f64 = values.iter().zip(probe).map(|(value, probe)| f64::from(*value) * probe).sum();
    let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
    // A sum of n values whose errors are `slack` of the vector's length may be off by √n times that.
    let slack = slack * length.max(1e-3) * (values.len() as f64).sqrt();
    for (got, want) in [(sum, &want[1]), (product, &want[2])] {
        let want = want.as_f64().expect("a number");
        assert!((got - want).abs() <= slack, "{name}: {got}, expected {want} within {slack}");
    }
}

pub(crate) fn assert_loss(name: &str, got: f64, want: &Value, slack: f64) {
    let want = want.as_f64().expect("a number");
    assert!((got - want).abs() <= slack * want, "{name}: {got}, expected {want}");
}

/// Holds values against others, within [`CLOSE`] of the greatest.
pub(crate) fn assert_near(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let greatest = want.iter().fold(1e-3f32, |greatest, value| greatest.max(value.abs()));
    for (place, (got, want)) in got.iter().zip(want).enumerate() {
        let error = f64::from((got - want).abs());
        assert!(error <= CLOSE * f64::from(greatest), "{what}: value {place} is {got}, expected {want}");
    }
}

pub(crate) fn unet() -> Graph {
    let mut g = GraphBuilder::new(2);
    let leaky = Activation::leaky_relu(0.2);
    let x = g.pad(GraphBuilder::INPUT, Padding::symmetric(1), Border::Reflection);
    let x = g.conv_with_bias(x, "enc1", 8, ConvOptions::padded(3, 1, 0));
    let x = g.instance_norm(x, "in1", 1e-5, true);
    let a = g.activation(x, leaky);
    let x = g.max_pool(a, 2, 2, PaddingRule::Symmetric(0));
    let x = g.conv(x, "enc2", 12, ConvOptions::centered(3, 1));
    let x = g.batch_norm(x, "bn2", 1e-5);
    let b = g.activation(x, leaky);
    let x = g.avg_pool(b, 3, 2, PaddingRule::Symmetric(1), true);
    let x = g.conv(x, "mid", 16, ConvOptions::centered(3, 1));
    let x = g.batch_norm_without_affine(x, "bn3", 1e-5);
    let c = g.activation(x, Activation::Tanh);
    let x = g.conv_transpose(c, "up2", 12, ConvTransposeOptions::new(4, 2, 1));
    let x = g.concat(&[x, b]);
    let x = g.conv_with_bias(x, "dec2", 8, ConvOptions::centered(3, 1));
    let x = g.activation(x, Activation::Gelu);
    let x = g.upsample(x, 2, UpsampleMode::Bilinear);
    let x = g.concat(&[x, a]);
    let x = g.conv_with_bias(x, "out", 2, ConvOptions::POINTWISE);
    let x = g.activation(x, Activation::Sigmoid);
    g.tap("image", x);
    g.finish().unwrap()
}

pub(crate) fn mobile() -> Graph {
    let mut g = GraphBuilder::new(3);
    let x = g.conv(GraphBuilder::INPUT, "stem", 8, ConvOptions::centered(3, 2));
    let x = g.batch_norm(x, "bn0", 1e-5);
    let stem = g.activation(x, Activation::Relu6);
    let x = g.conv(stem, "wide", 32, ConvOptions::POINTWISE);
    let x = g.batch_norm(x, "bn1", 1e-5);
    let x = g.activation(x, Activation::Silu);
    let x = g.conv(x, "depthwise", 32, ConvOptions { groups: 32, ..ConvOptions::centered(5, 1) });
    let x = g.batch_norm(x, "bn2", 1e-5);
    let x = g.activation(x, Activation::Silu);
    let x = g.squeeze_excite(x, ["se.reduce".to_owned(), "se.expand".to_owned()], 4, Activation::Silu);
    let x = g.conv(x, "narrow", 8, ConvOptions::POINTWISE);
    let x = g.batch_norm(x, "bn3", 1e-5);
    let x = g.add(stem, x);
    let x = g.conv_with_bias(x, "grouped", 16, ConvOptions { groups: 4, ..ConvOptions::centered(3, 2) });
    let x = g.activation(x, Activation::Relu);
    let x = g.upsample(x, 1, UpsampleMode::Nearest);
    let x = g.reshape(x, [256, 1, 1]);
    let x = g.linear_without_bias(x, "fc1", 10);
    let x = g.batch_norm(x, "bn4", 1e-5);
    let x = g.activation(x, Activation::Relu);
    let x = g.linear(x, "fc2", 4);
    g.tap("logits", x);
    g.finish().unwrap()
}

pub(crate) fn generator() -> Graph {
    let mut g = GraphBuilder::new(6);
    let x = g.conv_transpose(GraphBuilder::INPUT, "g.first", 16, ConvTransposeOptions::new(4, 1, 0));
    let x = g.batch_norm(x, "g.bn1", 1e-5);
    let x = g.activation(x, Activation::Relu);
    let x = g.conv_transpose(x, "g.second", 8, ConvTransposeOptions::new(4, 2, 1));
    let x = g.batch_norm(x, "g.bn2", 1e-5);
    let x = g.activation(x, Activation::Relu);
    let x = g.conv_transpose(x, "g.third", 1, ConvTransposeOptions::new(4, 2, 1).with_bias());
    let x = g.activation(x, Activation::Tanh);
    g.tap("image", x);
    g.finish().unwrap()
}

pub(crate) fn critic() -> Graph {
    let mut g = GraphBuilder::new(1);
    let leaky = Activation::leaky_relu(0.2);
    let x = g.conv_with_bias(GraphBuilder::INPUT, "d.first", 8, ConvOptions::padded(4, 2, 1));
    let x = g.activation(x, leaky);
    let x = g.conv(x, "d.second", 16, ConvOptions::padded(4, 2, 1));
    let x = g.batch_norm(x, "d.bn2", 1e-5);
    let x = g.activation(x, leaky);
    let x = g.conv_with_bias(x, "d.last", 1, ConvOptions::padded(4, 1, 0));
    g.tap("verdict", x);
    g.finish().unwrap()
}

/// What stands in for positions in a small vision transformer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Positions {
    /// As in DINOv2.
    Learned,
    /// As in DINOv3.
    Rotary,
}

/// Two transformer blocks of 64 values and two heads on patches of 4 × 4 pixels. The taps are all results of
/// `tests/fixtures/gen_vit.py`: tokens, but for the last two.
pub(crate) fn vit(registers: usize, positions: Positions) -> Graph {
    let mut g = GraphBuilder::new(3);
    let prefix = 1 + registers;
    let x = g.conv_with_bias(GraphBuilder::INPUT, "patch_embed.proj", 64, ConvOptions::padded(4, 4, 0));
    let x = g.tokens(x);
    g.tap("patches", x);
    let mut x = g.insert_tokens(x, "cls_token", 0, 1);
    if positions == Positions::Learned {
        let resize = match registers {
            0 => PositionResize::Scaled { offset: 0.1 },
            _ => PositionResize::Antialiased,
        };
        x = g.position_embedding(x, "pos_embed", LearnedGrid { prefix: 1, size: [5, 5] }, resize);
    }
    if registers > 0 {
        x = g.insert_tokens(x, "register_tokens", 1, registers);
    }
    g.tap("embedded", x);
    let rotary = (positions == Positions::Rotary).then_some(AxialRotary { prefix, base: 100.0 });
    for block in 0..2 {
        let first = x + 1;
        x = g.transformer_block(x, &format!("blocks.{block}"), BlockOptions { rotary, ..BlockOptions::dinov2(2) });
        // norm1, qkv, attention, proj, ls1, sum, norm2, …
        for (name, node) in [("norm1", first), ("attn", first + 3), ("norm2", first + 6), ("sum", x)] {
            g.tap(format!("{name}-{block}"), node);
        }
    }
    let x = g.layer_norm(x, "norm", 1e-6);
    g.tap("norm", x);
    let grid = g.token_grid(x, prefix);
    g.tap("grid", grid);
    let class = g.select_token(x, 0);
    g.tap("class", class);
    g.finish().unwrap()
}

/// The nodes and options that the other networks lack, of two inputs whose sides differ.
pub(crate) fn rest() -> Graph {
    let mut g = GraphBuilder::new(3);
    let other = g.input(2);
    let x = g.conv(
        GraphBuilder::INPUT,
        "same",
        6,
        ConvOptions { padding: PaddingRule::Same, ..ConvOptions::padded(3, 2, 0) },
    );
    let x = g.instance_norm(x, "norm", 1e-5, false);
    let x = g.activation(x, Activation::GeluTanh);
    let x = g.dropout(x, 0.3);
    let x =
        g.conv_transpose(x, "up", 4, ConvTransposeOptions { output_padding: 1, ..ConvTransposeOptions::new(3, 2, 1) });
    let y = g.upsample(other, 2, UpsampleMode::BilinearCorners);
    let x = g.concat(&[x, y]);
    let x = g.pad(x, Padding { top: 1, bottom: 0, left: 0, right: 2 }, Border::Zeros);
    g.tap("joined", x);
    let a = g.avg_pool(x, 3, 2, PaddingRule::Symmetric(1), false);
    let b = g.max_pool(x, 3, 2, PaddingRule::Same);
    let wide = g.conv_with_bias(x, "wide", 6, ConvOptions { groups: 2, ..ConvOptions::padded(3, 2, 1) });
    let x = g.add(a, wide);
    let pooled = g.global_max_pool(b);
    let gate = g.linear(pooled, "gate", 6);
    let gate = g.softmax(gate);
    let x = g.gate(x, gate);
    let x = g.upsample(x, 3, UpsampleMode::Nearest);
    let x = g.dropout(x, 0.2);
    let x = g.activation(x, Activation::Silu);
    g.tap("gated", x);
    g.classifier(x, "fc", 5);
    g.finish().unwrap()
}
