//! Training steps of networks with every node, and of two networks against each other, as in PyTorch
//! (`tests/fixtures/gen_steps.py`).

use nomaly_kernels::Isa;
use nomaly_kernels::training::{binary_cross_entropy, mean_squared_error};
use nomaly_nn::graph::{ConvOptions, GraphBuilder};
use nomaly_nn::trainable::{Network, NetworkOptimizer, Pass, Rule};
use serde_json::Value;

use crate::formula;
use crate::networks::{GRADIENT, assert_digest, assert_loss, critic, fixture, generator, input, mobile, unet};

/// Single against double precision: relative to the loss.
const LOSS: f64 = 1e-5;

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
