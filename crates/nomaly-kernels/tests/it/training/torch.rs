//! The kernels against PyTorch in double precision (`tests/fixtures/gen_training.py`).

use nomaly_kernels::geometry::Padding;
use nomaly_kernels::training::{
    AdamState, AdamStep, AfterNorm, BatchNorm, Conv2d, ConvShape, ConvTranspose2d, ConvTransposeShape, NormBackward,
    SgdStep, WeightDecay,
};
use serde_json::Value;

use super::on_every_isa;

/// The script's formula.
pub(super) fn values(name: &str, count: usize) -> Vec<f32> {
    let seed = name.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let value = |index: u32| {
        let mut x = index.wrapping_mul(0x9E37_79B1).wrapping_add(seed);
        x ^= x >> 15;
        x = x.wrapping_mul(0x2C1B_3C6D);
        x ^= x >> 12;
        (x >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count as u32).map(value).collect()
}

/// Asserts that a tensor has the length, the sum and the product with the probe that PyTorch found.
///
/// `rounding` is the error of one value; those of all of them are random and grow like the root of their number.
pub(super) fn assert_digest(got: &[f32], want: &Value, rounding: f64, what: &dyn std::fmt::Debug) {
    assert_eq!(got.len() as u64, want[0], "{what:?}");
    let probe = values("probe", got.len());
    let sum: f64 = got.iter().map(|v| f64::from(*v)).sum();
    let product: f64 = got.iter().zip(&probe).map(|(v, p)| f64::from(*v) * f64::from(*p)).sum();
    let slack = 4.0 * rounding * (got.len() as f64).sqrt();
    for (got, want) in [sum, product].into_iter().zip([number(&want[1]), number(&want[2])]) {
        assert!((got - want).abs() <= slack, "{what:?}: {got}, expected {want} within {slack}");
    }
}

pub(super) fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

pub(super) fn integer(value: &Value) -> usize {
    value.as_u64().expect("an integer") as usize
}

pub(super) fn pair(value: &Value) -> [usize; 2] {
    [integer(&value[0]), integer(&value[1])]
}

fn fixture(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../../fixtures/training.json")).expect("a fixture");
    all[kind].as_array().expect("cases").clone()
}

#[test]
fn convolutions() {
    for case in fixture("convolutions") {
        let shape = &case["shape"];
        let (images, padding) = (integer(&shape["images"]), pair(&shape["padding"]));
        let padding = Padding { top: padding[0], bottom: padding[0], left: padding[1], right: padding[1] };
        let direct = ConvShape {
            in_channels: integer(&shape["in"]),
            out_channels: integer(&shape["out"]),
            input: pair(&shape["input"]),
            kernel: pair(&shape["kernel"]),
            stride: pair(&shape["stride"]),
            padding,
            groups: shape.get("groups").map_or(1, integer),
        };
        let transposed = ConvTransposeShape {
            in_channels: direct.in_channels,
            out_channels: direct.out_channels,
            input: direct.input,
            kernel: direct.kernel,
            stride: direct.stride,
            padding,
            output_padding: [integer(&shape["output_padding"]); 2],
        };
        let compute = |isa| {
            // Both convolutions have the same methods.
            macro_rules! passes {
                ($conv:expr) => {{
                    let conv = $conv.expect("a valid shape");
                    let x = values("x", images * conv.input_len());
                    let (w, b) = (values("weight", conv.weight_len()), values("bias", direct.out_channels));
                    let g = values("gradient", images * conv.output_len());
                    let mut results = [&g, &x, &w, &b].map(|like| vec![0.0; like.len()]);
                    conv.forward(&x, &w, Some(&b), &mut results[0]).unwrap();
                    conv.input_gradient(&g, &w, &mut results[1]).unwrap();
                    conv.weight_gradient(&x, &g, &mut results[2]).unwrap();
                    conv.bias_gradient(&g, &mut results[3]).unwrap();
                    results
                }};
            }
            if shape["transposed"] == true {
                passes!(ConvTranspose2d::new(isa, transposed))
            } else {
                passes!(Conv2d::new(isa, direct))
            }
        };
        on_every_isa(compute, |isa, got| {
            for (got, want) in got.iter().zip(case["results"].as_array().expect("digests")) {
                // Sums of at most some hundred products of values in [-1, 1).
                assert_digest(got, want, 5e-6, &(isa, shape));
            }
        });
    }
}

#[test]
fn norms() {
    for case in fixture("norms") {
        let shape = &case["shape"];
        let (images, channels, plane) = (integer(&shape[0]), integer(&shape[1]), integer(&shape[2]));
        let after = if case["relu"] == true { AfterNorm::Relu } else { AfterNorm::Nothing };
        let x = values("x", images * channels * plane);
        let (weight, bias, g) = (values("weight", channels), values("bias", channels), values("gradient", x.len()));
        let compute = |isa| {
            let norm = BatchNorm::new(isa, channels, plane, 1e-5, after).unwrap();
            let [mut mean, mut variance, mut weight_gradient, mut bias_gradient] =
                [(); 4].map(|()| vec![0.0; channels]);
            let [mut y, mut input_gradient] = [vec![0.0; x.len()], vec![0.0; x.len()]];
            norm.forward(&x, Some(&weight), Some(&bias), &mut mean, &mut variance, &mut y).unwrap();
            let [mut running_mean, mut running_variance] = [vec![0.0; channels], vec![1.0; channels]];
            let running = [running_mean.as_mut_slice(), running_variance.as_mut_slice()];
            norm.update_running(images, 0.1, [&mean, &variance], running).unwrap();
            norm.backward(NormBackward {
                input: &x,
                weight: Some(&weight),
                bias: Some(&bias),
                mean: &mean,
                variance: &variance,
                output_gradient: &g,
                input_gradient: &mut input_gradient,
                weight_gradient: Some(&mut weight_gradient),
                bias_gradient: Some(&mut bias_gradient),
            })
            .unwrap();
            [y, input_gradient, weight_gradient, bias_gradient, running_mean, running_variance]
        };
        on_every_isa(compute, |isa, got| {
            for (got, want) in got.iter().zip(case["results"].as_array().expect("digests")) {
                assert_digest(got, want, 3e-6, &(isa, shape));
            }
        });
    }
}

#[test]
fn optimizers() {
    for case in fixture("optimisers") {
        let option = |name: &str, default: f64| case["options"].get(name).map_or(default, number);
        let (rate, weight_decay) = (option("lr", 0.0), option("weight_decay", 0.0));
        let betas = match case["options"].get("betas") {
            Some(betas) => [number(&betas[0]), number(&betas[1])],
            None => [0.9, 0.999],
        };
        let decay = if case["kind"] == "AdamW" { WeightDecay::Decoupled } else { WeightDecay::Gradient };
        let nesterov = case["options"].get("nesterov").is_some();
        let start = values("parameter", 37);
        let compute = |isa| {
            let [mut p, mut first, mut second] = [start.clone(), vec![0.0; 37], vec![0.0; 37]];
            (1..=5)
                .map(|step| {
                    let gradient = values(&format!("gradient{}", step - 1), 37);
                    if case["kind"] == "SGD" {
                        let (momentum, dampening) = (option("momentum", 0.0), option("dampening", 0.0));
                        let sgd = SgdStep { rate, momentum, dampening, weight_decay, nesterov, step };
                        sgd.apply(isa, &mut p, &gradient, &mut first).unwrap();
                    } else {
                        let epsilon = option("eps", 1e-8);
                        let adam = AdamStep { rate, betas, epsilon, weight_decay, decay, amsgrad: false, step };
                        let state = AdamState { first: &mut first, second: &mut second, maximum: &mut [] };
                        adam.apply(isa, &mut p, &gradient, state).unwrap();
                    }
                    p.clone()
                })
                .collect::<Vec<_>>()
        };
        on_every_isa(compute, |isa, got| {
            for (got, want) in got.iter().zip(case["results"].as_array().expect("digests")) {
                // A few steps, each with a few roundings of values near 1.
                assert_digest(got, want, 3e-7, &(isa, &case["kind"], &case["options"]));
            }
        });
    }
}
