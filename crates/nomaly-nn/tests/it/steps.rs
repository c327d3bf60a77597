//! Training steps of networks with every node, and of two networks against each other, as in PyTorch
//! (`tests/fixtures/gen_steps.py`).

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Activation, Padding};
use nomaly_kernels::training::{Border, UpsampleMode, binary_cross_entropy, mean_squared_error};
use nomaly_nn::graph::{ConvOptions, ConvTransposeOptions, Graph, GraphBuilder, PaddingRule};
use nomaly_nn::trainable::{Network, NetworkOptimizer, Pass, Rule};
use serde_json::Value;

use crate::formula;

/// Single against double precision: relative to the loss.
const LOSS: f64 = 1e-5;

/// Relative to the length of a gradient as a vector.
const GRADIENT: f64 = 1e-4;

/// A fixture by its name.
fn fixture(text: &str) -> Value {
    serde_json::from_str(text).expect("a fixture")
}

/// Values by the formula in [-2, 2).
pub(crate) fn input(name: &str, count: usize) -> Vec<f32> {
    formula::values(name, count).map(|u| (2.0 * u) as f32).collect()
}

/// Holds a tensor against its length, its sum and its product with a probe, within `slack` of its length as a vector.
fn assert_digest(name: &str, values: &[f32], want: &Value, slack: f64) {
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

fn assert_loss(name: &str, got: f64, want: &Value, slack: f64) {
    let want = want.as_f64().expect("a number");
    assert!((got - want).abs() <= slack * want, "{name}: {got}, expected {want}");
}

/// Gradients and running statistics.
fn assert_step(isa: Isa, network: &Network, want: &Value) {
    assert_eq!(network.gradients().count(), want["gradients"].as_object().unwrap().len());
    for (name, _, values) in network.gradients() {
        assert_digest(&format!("{isa}: {name}"), values, &want["gradients"][name], GRADIENT);
    }
    for (name, _, values) in network.parameters().filter(|(name, ..)| name.contains("running")) {
        assert_digest(&format!("{isa}: {name}"), values, &want["running"][name], 1e-6);
    }
}

/// Runs `compute` with one and with two threads on every instruction set, and asserts that both give the same bits.
fn on_every_isa<T: PartialEq + Send>(compute: impl Fn(Isa) -> T + Sync, check: impl Fn(Isa, T)) {
    for isa in Isa::available() {
        let [one, two] = [1, 2].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| compute(isa))
        });
        assert!(one == two, "{isa}: two threads give another result than one");
        check(isa, one);
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

#[test]
fn a_step_of_a_network_with_skips_is_that_of_pytorch() {
    let want = fixture(include_str!("../fixtures/unet-step.json"));
    let graph = unet();
    let x = input("input", 3 * 2 * 256);
    let target: Vec<f32> = formula::values("target", x.len()).map(|u| (0.5 + 0.5 * u) as f32).collect();
    let run = |isa: Isa| {
        let mut network = Network::new(&graph, &["image"], [16; 2], &formula::weights(&graph), isa).unwrap();
        network = network.with_input_gradient();
        let mut optimizer = NetworkOptimizer::new(Rule::adam(0.01));
        let pass = |network: &mut Network| {
            network.forward(&x).unwrap();
            let mut gradient = vec![0.0; x.len()];
            let loss = mean_squared_error(isa, network.output(0), &target, &mut gradient).unwrap();
            network.backward(&[&gradient]).unwrap();
            f64::from(loss)
        };
        let first = pass(&mut network);
        let gradients: Vec<(String, Vec<f32>)> =
            network.gradients().map(|(name, _, values)| (name.to_owned(), values.to_vec())).collect();
        let by_input = network.input_gradient().to_vec();
        assert_step(isa, &network, &want);
        network.step(&mut optimizer).unwrap();
        (first, gradients, by_input, pass(&mut network))
    };
    on_every_isa(run, |isa, (first, _, by_input, second)| {
        assert_loss(&format!("{isa}: first loss"), first, &want["losses"][0], LOSS);
        assert_digest(&format!("{isa}: input"), &by_input, &want["input"], GRADIENT);
        // Adam divides by the root of gradients that may be mere rounding errors.
        assert_loss(&format!("{isa}: second loss"), second, &want["losses"][1], 1e-3);
    });
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

#[test]
fn steps_of_an_inverted_bottleneck_are_those_of_pytorch() {
    let want = fixture(include_str!("../fixtures/mobile-step.json"));
    let graph = mobile();
    let run = |isa: Isa| {
        let mut network = Network::new(&graph, &["logits"], [16; 2], &formula::weights(&graph), isa).unwrap();
        let rule = Rule::Sgd { rate: 0.05, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: true };
        let mut optimizer = NetworkOptimizer::new(rule);
        let mut losses = Vec::new();
        for step in 0..3 {
            losses.push(network.classify(&input("input", 4 * 3 * 256), &[0, 1, 2, 3]).unwrap());
            if step == 0 {
                assert_step(isa, &network, &want);
            }
            network.step(&mut optimizer).unwrap();
        }
        losses
    };
    on_every_isa(run, |isa, losses| {
        for (step, loss) in losses.into_iter().enumerate() {
            assert_loss(&format!("{isa}: loss {step}"), f64::from(loss), &want["losses"][step], LOSS);
        }
    });
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

/// The loss of the critic's verdict on `images`, and its backward pass.
fn judge(critic: &mut Network, isa: Isa, images: &[f32], label: f32) -> f64 {
    critic.forward(images).unwrap();
    let verdict = critic.output(0);
    let mut gradient = vec![0.0; verdict.len()];
    let loss = binary_cross_entropy(isa, verdict, &vec![label; verdict.len()], &mut gradient).unwrap();
    critic.backward(&[&gradient]).unwrap();
    f64::from(loss)
}

#[test]
fn ten_alternating_steps_of_two_networks_are_those_of_pytorch() {
    let want = fixture(include_str!("../fixtures/gan-steps.json"));
    let run = |isa: Isa| {
        let [of_generator, of_critic] = [generator(), critic()];
        let weights = [&of_generator, &of_critic].map(formula::weights);
        let mut generator = Network::new(&of_generator, &["image"], [1; 2], &weights[0], isa).unwrap();
        let mut critic =
            Network::new(&of_critic, &["verdict"], [16; 2], &weights[1], isa).unwrap().with_input_gradient();
        let mut rule = Rule::adam(0.002);
        if let Rule::Adam { betas, .. } = &mut rule {
            betas[0] = 0.5;
        }
        let [mut moves_generator, mut moves_critic] = [rule, rule].map(NetworkOptimizer::new);
        let mut losses = Vec::new();
        for step in 0..10 {
            let real: Vec<f32> = input(&format!("real{step}"), 4 * 256).iter().map(|value| value / 2.0).collect();
            generator.run(&[&input(&format!("z{step}"), 4 * 6)], Pass::Train).unwrap();
            critic.set_frozen(false);
            critic.set_accumulating(true);
            critic.clear_gradients();
            let on_real = judge(&mut critic, isa, &real, 1.0);
            let on_made = judge(&mut critic, isa, generator.output(0), 0.0);
            critic.step(&mut moves_critic).unwrap();
            critic.set_frozen(true);
            let loss = judge(&mut critic, isa, generator.output(0), 1.0);
            generator.backward(&[critic.input_gradient()]).unwrap();
            generator.step(&mut moves_generator).unwrap();
            losses.push([on_real, on_made, loss]);
        }
        let parameters = |network: &Network| -> Vec<(String, Vec<f32>)> {
            network.parameters().map(|(name, _, values)| (name.to_owned(), values.to_vec())).collect()
        };
        (losses, [parameters(&generator), parameters(&critic)].concat())
    };
    on_every_isa(run, |isa, (losses, states)| {
        for (step, (got, want)) in losses.iter().zip(want["losses"].as_array().unwrap()).enumerate() {
            for (part, got) in got.iter().enumerate() {
                // Rounding grows from step to step.
                assert_loss(
                    &format!("{isa}: loss {part} of step {step}"),
                    *got,
                    &want[part],
                    1e-5 * 3f64.powi(step as i32),
                );
            }
        }
        assert_eq!(states.len(), want["states"].as_object().unwrap().len());
        for (name, values) in &states {
            assert_digest(&format!("{isa}: {name}"), values, &want["states"][name], 1e-3);
        }
    });
}

#[test]
fn a_frozen_network_has_no_gradients_of_its_own() {
    let graph = critic();
    let isa = Isa::best().unwrap();
    let weights = formula::weights(&graph);
    let network = || Network::new(&graph, &["verdict"], [16; 2], &weights, isa).unwrap().with_input_gradient();
    let images = input("input", 2 * 256);
    let [mut free, mut frozen] = [network(), network()];
    frozen.set_frozen(true);
    for network in [&mut free, &mut frozen] {
        network.forward(&images).unwrap();
        network.backward(&[&[1.0, -0.5]]).unwrap();
    }
    assert_eq!(free.input_gradient(), frozen.input_gradient());
    assert!(frozen.gradients().all(|(.., values)| values.iter().all(|value| *value == 0.0)));
    assert!(free.gradients().all(|(.., values)| values.iter().any(|value| *value != 0.0)));
    // Two passes that accumulate give twice the gradient of one.
    let once: Vec<Vec<f32>> = free.gradients().map(|(.., values)| values.to_vec()).collect();
    free.set_accumulating(true);
    free.evaluate(&images).unwrap();
    free.clear_gradients();
    for _ in 0..2 {
        free.forward(&images).unwrap();
        free.backward(&[&[1.0, -0.5]]).unwrap();
    }
    for (once, (name, _, twice)) in once.iter().zip(free.gradients()) {
        assert!(once.iter().zip(twice).all(|(once, twice)| 2.0 * once == *twice), "{name}");
    }
}

#[test]
fn two_inputs_have_a_gradient_each_and_outputs_may_have_none() {
    let mut g = GraphBuilder::new(1);
    let other = g.input(2);
    let both = g.concat(&[GraphBuilder::INPUT, other]);
    g.tap("both", both);
    let sum = g.conv_with_bias(both, "conv", 1, ConvOptions::POINTWISE);
    g.tap("sum", sum);
    let graph = g.finish().unwrap();
    let isa = Isa::best().unwrap();
    let mut network =
        Network::with_inputs(&graph, &["both", "sum"], &[[1, 2], [1, 2]], &formula::weights(&graph), isa).unwrap();
    network = network.with_input_gradient();
    network.run(&[&[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0]], Pass::Evaluate).unwrap();
    assert_eq!(network.output(0), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    network.backward(&[&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[]]).unwrap();
    assert_eq!(network.input_gradient_of(0), [1.0, 2.0]);
    assert_eq!(network.input_gradient_of(1), [3.0, 4.0, 5.0, 6.0]);
    let weight = network.parameters().next().unwrap().2.to_vec();
    network.backward(&[&[], &[1.0, 0.0]]).unwrap();
    assert_eq!(network.input_gradient_of(1), [weight[1], 0.0, weight[2], 0.0]);
    assert!(network.run(&[&[1.0, 2.0]], Pass::Train).is_err());
    assert!(network.run(&[&[1.0, 2.0], &[3.0, 4.0]], Pass::Train).is_err());
}
