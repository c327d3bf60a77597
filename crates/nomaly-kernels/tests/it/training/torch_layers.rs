//! Activations, norms, losses and attention against PyTorch in double precision (`tests/fixtures/gen_layers.py`).

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Activation, Slope};
use nomaly_kernels::training::{
    AfterNorm, Attention, AttentionShape, BatchNorm, ChannelScale, GroupNorm, LayerNorm, NormBackward, Qkv,
    QkvGradient, Reads, Rotary, RotaryPairs, RowNormBackward, ScalePer, activate, activation_gradient,
    binary_cross_entropy, log_softmax, log_softmax_gradient, mean_absolute_error, mean_squared_error, smooth_l1,
    softmax, softmax_gradient, weighted_binary_cross_entropy,
};
use serde_json::Value;

use super::on_every_isa;
use super::torch::{assert_digest, integer, number, values};

fn fixture(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../../fixtures/layers.json")).expect("a fixture");
    all[kind].as_array().expect("cases").clone()
}

fn scaled(name: &str, count: usize, factor: f32) -> Vec<f32> {
    values(name, count).iter().map(|v| factor * v).collect()
}

fn sizes<const K: usize>(case: &Value) -> [usize; K] {
    std::array::from_fn(|i| integer(&case["shape"][i]))
}

fn name(case: &Value) -> &str {
    case["name"].as_str().expect("a name")
}

/// Runs on every instruction set and compares each tensor with its digest.
fn check<const K: usize>(case: &Value, key: &str, rounding: f64, compute: impl Fn(Isa) -> [Vec<f32>; K] + Sync) {
    let want = case[key].as_array().expect("digests");
    assert_eq!(want.len(), K);
    on_every_isa(compute, |isa, got| {
        for (index, (got, want)) in got.iter().zip(want).enumerate() {
            assert_digest(got, want, rounding, &(isa, index, &case["name"], &case["shape"]));
        }
    });
}

#[test]
fn activations() {
    for case in fixture("activations") {
        let activation = match name(&case) {
            "relu6" => Activation::Relu6,
            "silu" => Activation::Silu,
            "sigmoid" => Activation::Sigmoid,
            "leaky_relu" => Activation::leaky_relu(0.2),
            "tanh" => Activation::Tanh,
            "gelu" => Activation::Gelu,
            "gelu_tanh" => Activation::GeluTanh,
            other => panic!("unknown activation {other}"),
        };
        let x = scaled("x", 4000, 8.0);
        check(&case, "results", 1e-6, |isa| {
            let (mut y, mut gradient) = (vec![0.0; x.len()], values("gradient", x.len()));
            activate(isa, activation, &x, &mut y).unwrap();
            let read = if activation.gradient_reads() == Reads::Input { &x } else { &y };
            activation_gradient(isa, activation, read, &mut gradient).unwrap();
            [y, gradient]
        });
    }
}

#[test]
fn norms_of_rows_and_groups() {
    for case in fixture("layer_norms") {
        let [rows, width] = sizes(&case);
        check(&case, "results", 5e-6, |isa| {
            let norm = LayerNorm::new(isa, width, 1e-6).unwrap();
            let (x, g) = (values("x", rows * width), values("gradient", rows * width));
            let (weight, bias) = (values("weight", width), values("bias", width));
            let mut results = [&x, &x, &weight, &bias].map(|like| vec![0.0; like.len()]);
            let [y, dx, dw, db] = &mut results;
            norm.forward(&x, Some(&weight), Some(&bias), y).unwrap();
            norm.backward(RowNormBackward {
                input: &x,
                weight: Some(&weight),
                output_gradient: &g,
                input_gradient: dx,
                weight_gradient: Some(dw),
                bias_gradient: Some(db),
            })
            .unwrap();
            results
        });
    }
    for case in fixture("group_norms") {
        let [images, channels, plane, groups] = sizes(&case);
        check(&case, "results", 5e-6, |isa| {
            let norm = GroupNorm::new(isa, channels, plane, groups, 1e-5).unwrap();
            let x = values("x", images * channels * plane);
            let g = values("gradient", x.len());
            let (weight, bias) = (values("weight", channels), values("bias", channels));
            let mut results = [&x, &x, &weight, &bias].map(|like| vec![0.0; like.len()]);
            let [y, dx, dw, db] = &mut results;
            norm.forward(&x, Some(&weight), Some(&bias), y).unwrap();
            norm.backward(RowNormBackward {
                input: &x,
                weight: Some(&weight),
                output_gradient: &g,
                input_gradient: dx,
                weight_gradient: Some(dw),
                bias_gradient: Some(db),
            })
            .unwrap();
            results
        });
    }
}

#[test]
fn batch_norm_of_rows() {
    for case in fixture("batch_norm_rows") {
        let [rows, channels] = sizes(&case);
        let after = AfterNorm::LeakyRelu(Slope::new(number(&case["slope"]) as f32));
        check(&case, "results", 5e-6, |isa| {
            let norm = BatchNorm::new(isa, channels, 1, 1e-5, after).unwrap();
            let (x, g) = (values("x", rows * channels), values("gradient", rows * channels));
            let [mut mean, mut variance] = [(); 2].map(|()| vec![0.0; channels]);
            let [mut y, mut dx] = [(); 2].map(|()| vec![0.0; x.len()]);
            norm.forward(&x, None, None, &mut mean, &mut variance, &mut y).unwrap();
            norm.backward(NormBackward {
                input: &x,
                weight: None,
                bias: None,
                mean: &mean,
                variance: &variance,
                output_gradient: &g,
                input_gradient: &mut dx,
                weight_gradient: None,
                bias_gradient: None,
            })
            .unwrap();
            [y, dx]
        });
    }
}

#[test]
fn softmaxes() {
    for case in fixture("softmaxes") {
        let [rows, width] = sizes(&case);
        check(&case, "results", 5e-6, |isa| {
            let x = scaled("x", rows * width, 10.0);
            let (mut y, mut gradient) = (vec![0.0; x.len()], values("gradient", x.len()));
            if case["logarithm"] == true {
                log_softmax(isa, width, &x, &mut y).unwrap();
                log_softmax_gradient(isa, width, &y, &mut gradient).unwrap();
            } else {
                softmax(isa, width, &x, &mut y).unwrap();
                softmax_gradient(isa, width, &y, &mut gradient).unwrap();
            }
            [y, gradient]
        });
    }
}

#[test]
fn losses() {
    for case in fixture("losses") {
        let x = scaled("x", 1000, 4.0);
        let t: Vec<f32> = values("target", 1000).iter().map(|v| 0.5 + 0.5 * v).collect();
        on_every_isa(
            |isa| {
                let mut gradient = vec![0.0; x.len()];
                let loss = match name(&case) {
                    "binary_cross_entropy" => binary_cross_entropy(isa, &x, &t, &mut gradient),
                    "weighted_binary_cross_entropy" => weighted_binary_cross_entropy(isa, 3.5, &x, &t, &mut gradient),
                    "mean_squared_error" => mean_squared_error(isa, &x, &t, &mut gradient),
                    "mean_absolute_error" => mean_absolute_error(isa, &x, &t, &mut gradient),
                    "smooth_l1" => smooth_l1(isa, 0.5, &x, &t, &mut gradient),
                    other => panic!("unknown loss {other}"),
                };
                gradient.iter_mut().for_each(|g| *g *= 1000.0);
                (loss.unwrap(), gradient)
            },
            |isa, (loss, gradient)| {
                let want = number(&case["loss"]);
                assert!((f64::from(*loss) - want).abs() <= 1e-6 * want, "{isa} {}: {loss} {want}", case["name"]);
                assert_digest(gradient, &case["gradient"], 1e-6, &(isa, &case["name"]));
            },
        );
    }
}

#[test]
fn factors_per_channel() {
    for case in fixture("scales") {
        let [images, channels, plane] = sizes(&case);
        for (key, per, factors) in [
            ("gated", ScalePer::Plane, values("gate", images * channels)),
            ("scaled", ScalePer::Channel, values("gamma", channels)),
        ] {
            check(&case, key, 2e-6, |isa| {
                let plan = ChannelScale::new(isa, per, channels, plane).unwrap();
                let x = values("x", images * channels * plane);
                let mut results = [&x, &x, &factors].map(|like| vec![0.0; like.len()]);
                let [y, dx, df] = &mut results;
                plan.forward(&x, &factors, y).unwrap();
                plan.backward(&x, &factors, &values("gradient", x.len()), dx, df).unwrap();
                results
            });
        }
    }
}

#[test]
fn attentions() {
    for case in fixture("attentions") {
        let [images, heads, tokens, head_dim] = sizes(&case);
        let angles = scaled("angles", tokens * (head_dim / 2), 3.0);
        let [cos, sin] =
            [f64::cos, f64::sin].map(|f| angles.iter().map(|angle| f(f64::from(*angle)) as f32).collect::<Vec<f32>>());
        let pairs = match case["pairs"].as_str() {
            None => None,
            Some("halves") => Some(RotaryPairs::Halves),
            Some("adjacent") => Some(RotaryPairs::Adjacent),
            Some(other) => panic!("unknown pairs {other}"),
        };
        check(&case, "results", 1e-5, |isa| {
            let attention = Attention::new(isa, AttentionShape { heads, tokens, head_dim }).unwrap();
            let rotary = pairs.map(|pairs| Rotary { cos: &cos, sin: &sin, pairs });
            let len = images * tokens * heads * head_dim;
            let qkv = scaled("qkv", 3 * len, 2.0);
            let (mut y, mut gradient) = (vec![0.0; len], vec![0.0; 3 * len]);
            attention.forward(Qkv::Packed(&qkv), rotary, &mut y).unwrap();
            let above = values("gradient", len);
            attention.backward(Qkv::Packed(&qkv), rotary, &above, QkvGradient::Packed(&mut gradient)).unwrap();
            [y, gradient]
        });
    }
}
