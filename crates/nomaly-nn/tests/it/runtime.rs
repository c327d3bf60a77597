//! Every runtime against `Network` and the fixtures, through the traits alone.

use std::collections::BTreeMap;

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::OutputLayout;
use nomaly_kernels::training::binary_cross_entropy;
use nomaly_nn::graph::{Graph, GraphError};
use nomaly_nn::runtime::{Device, Executor, RuntimeError, TrainableNetwork};
use nomaly_nn::trainable::{
    Clip, Network, NetworkOptimizer, OptimizerOptions, OptimizerState, ParameterGroup, ParameterNames, Pass, Rule,
    TrainableError, WeightDecay,
};
use nomaly_nn::weights::Weights;

use crate::formula;
use crate::graphs::branched;
use crate::networks::{
    CLOSE, assert_digest, assert_loss, assert_near, critic, fixture, generator, input, mobile, rest, unet,
};

/// The processor, and candle's processor where it is built.
fn executors() -> impl Iterator<Item = Executor> {
    let candle = cfg!(feature = "candle").then(|| Executor::on(Device::CandleCpu).unwrap());
    std::iter::once(Executor::on(Device::Cpu).unwrap()).chain(candle)
}

fn outputs(graph: &Graph) -> Vec<usize> {
    graph.taps().iter().map(|tap| tap.node).collect()
}

fn planes(graph: &Graph) -> Vec<(usize, OutputLayout)> {
    outputs(graph).into_iter().map(|output| (output, OutputLayout::Nchw)).collect()
}

fn taps(graph: &Graph) -> Vec<&str> {
    graph.taps().iter().map(|tap| tap.name.as_str()).collect()
}

/// Two images for each input of a graph.
fn images(graph: &Graph, sizes: &[[usize; 2]]) -> Vec<Vec<f32>> {
    let image = |(node, [height, width]): (usize, &[usize; 2])| {
        input(&format!("input{node}"), 2 * graph.nodes()[node].channels * height * width)
    };
    graph.inputs().zip(sizes).map(image).collect()
}

fn slices(values: &[Vec<f32>]) -> Vec<&[f32]> {
    values.iter().map(Vec::as_slice).collect()
}

#[test]
fn inference_is_the_evaluation_of_the_network() {
    let cases: [(Graph, &[[usize; 2]]); 5] = [
        (branched(), &[[21, 18]]),
        (unet(), &[[16, 16]]),
        (mobile(), &[[16, 16]]),
        (generator(), &[[1, 1]]),
        (rest(), &[[10, 14], [5, 7]]),
    ];
    for (graph, sizes) in cases {
        let (weights, images) = (formula::weights(&graph), images(&graph, sizes));
        let isa = Isa::best().unwrap();
        let mut network = Network::with_inputs(&graph, &taps(&graph), sizes, &weights, isa).unwrap();
        network.run(&slices(&images), Pass::Evaluate).unwrap();
        for executor in executors() {
            let runtime = executor.runtime();
            let runnable = runtime.prepare(&graph, &weights, sizes, &planes(&graph)).unwrap();
            assert_eq!(runnable.output_shapes(), network.output_shapes());
            // The second run is in the memory of the first one.
            for _ in 0..2 {
                let results = runnable.run(&slices(&images)).unwrap();
                assert_eq!(results.len(), graph.taps().len());
                for (place, result) in results.iter().enumerate() {
                    let what = format!("{}: {}", runtime.name(), taps(&graph)[place]);
                    assert_near(&what, result, network.output(place));
                }
            }
        }
    }
}

#[test]
fn gradients_are_those_of_the_network_in_all_passes() {
    let graph = rest();
    let (weights, sizes) = (formula::weights(&graph), [[10, 14], [5, 7]]);
    let images = images(&graph, &sizes);
    for executor in executors() {
        let runtime = executor.runtime();
        let isa = Isa::best().unwrap();
        let mut network = Network::with_inputs(&graph, &taps(&graph), &sizes, &weights, isa).unwrap();
        network = network.with_input_gradient();
        let mut other = runtime.trainable(&graph, &weights, &sizes, &outputs(&graph)).unwrap();
        other.set_input_gradient(true);
        network.seed_dropout(9);
        other.seed_dropout(9);
        assert!(other.gradients().unwrap().values().flatten().all(|value| *value == 0.0));
        for pass in [Pass::Train, Pass::Sample, Pass::Evaluate] {
            network.run(&slices(&images), pass).unwrap();
            other.run(&slices(&images), pass).unwrap();
            // The first output alone: what comes after it has gradients of zero.
            let mut gradients = vec![Vec::new(); graph.taps().len()];
            gradients[0] = input("gradient", network.output(0).len());
            network.backward(&slices(&gradients)).unwrap();
            other.backward(&slices(&gradients)).unwrap();
            let got = other.gradients().unwrap();
            assert_eq!(got.len(), network.gradients().count());
            for (name, _, want) in network.gradients() {
                assert_near(&format!("{} {pass:?}: {name}", runtime.name()), &got[name], want);
            }
            for place in 0..2 {
                let what = format!("{} {pass:?}: input {place}", runtime.name());
                assert_near(&what, other.input_gradient(place), network.input_gradient_of(place));
            }
        }
        other.clear_gradients();
        assert!(other.gradients().unwrap().values().flatten().all(|value| *value == 0.0));
        // Without a gradient, only the weight decay moves the parameters.
        other.step(Rule::sgd(0.5, 0.0).with_weight_decay(0.5)).unwrap();
        let (before, after) = (network.weights(), other.weights().unwrap());
        let decayed: Vec<f32> = before["wide.weight"].to_f32().unwrap().iter().map(|value| 0.75 * value).collect();
        assert_near("a step without gradients", &after["wide.weight"].to_f32().unwrap(), &decayed);
        other.load(&before).unwrap();
        assert_eq!(other.weights().unwrap(), before);
    }
}

#[test]
fn outputs_come_in_their_layouts() {
    let graph = unet();
    let (weights, node) = (formula::weights(&graph), outputs(&graph)[0]);
    let image = images(&graph, &[[16, 16]]);
    let layouts = [OutputLayout::Nchw, OutputLayout::Rows, OutputLayout::Mean].map(|layout| (node, layout));
    for executor in executors() {
        let runnable = executor.runtime().prepare(&graph, &weights, &[[16, 16]], &layouts).unwrap();
        let [channels, height, width] = runnable.output_shapes()[0];
        assert_eq!(runnable.output_shapes()[1..], [[channels, height, width], [channels, 1, 1]]);
        let [planes, rows, means] = <[_; 3]>::try_from(runnable.run(&slices(&image)).unwrap()).unwrap();
        let positions = height * width;
        for (at, plane) in planes.chunks_exact(positions).enumerate() {
            let (image, channel) = (at / channels, at % channels);
            let of_image = &rows[image * channels * positions..][..channels * positions];
            let row: Vec<f32> = of_image.iter().skip(channel).step_by(channels).copied().collect();
            assert_near("rows", &row, plane);
            let mean = plane.iter().sum::<f32>() / positions as f32;
            assert_near("means", &means[at..=at], &[mean]);
        }
    }
}

/// Steps of training on random labels; returns the losses.
fn train(network: &mut dyn TrainableNetwork, rule: Rule, steps: std::ops::Range<usize>) -> Vec<f32> {
    let step = |step: usize| {
        let images = input(&format!("images{step}"), 4 * 3 * 16 * 16);
        let loss = network.classify(&images, &[0, 3, 1, 2]).unwrap();
        network.step(rule).unwrap();
        loss
    };
    steps.map(step).collect()
}

#[test]
fn training_begun_on_one_runtime_goes_on_on_another() {
    let graph = mobile();
    let start = |executor: &Executor, weights: &Weights| {
        executor.runtime().trainable(&graph, weights, &[[16, 16]], &outputs(&graph)).unwrap()
    };
    let (betas, epsilon, decay) = ([0.9, 0.99], 1e-3, WeightDecay::Decoupled);
    for rule in [
        Rule::sgd(0.01, 0.9),
        Rule::sgd(0.01, 0.0),
        Rule::Adam { rate: 0.001, betas, epsilon, weight_decay: 0.01, decay, amsgrad: true },
    ] {
        let mut whole = start(&Executor::cpu().unwrap(), &formula::weights(&graph));
        let want = train(whole.as_mut(), rule, 0..4);
        for first in executors() {
            let mut begun = start(&first, &formula::weights(&graph));
            assert_eq!(begun.optimizer_state().unwrap(), OptimizerState::default());
            let mut got = train(begun.as_mut(), rule, 0..2);
            let (weights, state) = (begun.weights().unwrap(), begun.optimizer_state().unwrap());
            assert_eq!(state.steps, 2);
            for second in executors() {
                let mut resumed = start(&second, &weights);
                resumed.resume(rule, state.clone()).unwrap();
                got.truncate(2);
                got.extend(train(resumed.as_mut(), rule, 2..4));
                let what = format!("{rule:?}: {} then {}", first.device(), second.device());
                assert_near(&what, &got, &want);
                assert_eq!(resumed.optimizer_state().unwrap().steps, 4);
            }
        }
    }
}

#[test]
fn groups_and_clipping_are_those_of_the_network() {
    let (graph, rule) = (mobile(), Rule::sgd(0.05, 0.9).with_weight_decay(0.5));
    let decay = |names, weight_decay| ParameterGroup { names, rate_factor: 0.5, weight_decay };
    let groups = vec![
        decay(ParameterNames::Suffix(".bias".to_owned()), Some(0.0)),
        decay(ParameterNames::Prefix("stem.".to_owned()), None),
    ];
    let images = input("images", 4 * 3 * 16 * 16);
    for clip in [None, Some(Clip::Norm(0.1)), Some(Clip::Value(0.01))] {
        let options = OptimizerOptions { groups: groups.clone(), clip };
        let isa = Isa::best().unwrap();
        let mut network = Network::new(&graph, &["logits"], [16, 16], &formula::weights(&graph), isa).unwrap();
        let mut optimizer = NetworkOptimizer::new(rule).with_options(options.clone());
        for executor in executors() {
            network.load(&formula::weights(&graph)).unwrap();
            optimizer.resume(OptimizerState::default());
            let weights = formula::weights(&graph);
            let mut other = executor.runtime().trainable(&graph, &weights, &[[16, 16]], &outputs(&graph)).unwrap();
            other.set_optimizer_options(options.clone());
            for _ in 0..2 {
                network.classify(&images, &[0, 3, 1, 2]).unwrap();
                network.step(&mut optimizer).unwrap();
                other.classify(&images, &[0, 3, 1, 2]).unwrap();
                other.step(rule).unwrap();
            }
            let (got, want) = (other.weights().unwrap(), network.weights());
            for (name, want) in &want {
                let what = format!("{clip:?} on {}: {name}", executor.device());
                assert_near(&what, &got[name].to_f32().unwrap(), &want.to_f32().unwrap());
            }
            let nobody = decay(ParameterNames::Prefix("head.".to_owned()), None);
            other.set_optimizer_options(OptimizerOptions { groups: vec![nobody], clip });
            let error = other.step(rule).unwrap_err();
            assert!(matches!(&error, RuntimeError::Network(TrainableError::EmptyGroup { .. })), "{error}");
        }
    }
}

#[test]
fn the_state_of_another_optimizer_is_refused() {
    let (graph, other) = (mobile(), critic());
    for executor in executors() {
        let start = |graph: &Graph| {
            let weights = formula::weights(graph);
            executor.runtime().trainable(graph, &weights, &[[16, 16]], &outputs(graph)).unwrap()
        };
        let mut network = start(&graph);
        train(network.as_mut(), Rule::adam(0.01), 0..1);
        let mut stranger = start(&other);
        let taken = stranger.resume(Rule::adam(0.01), network.optimizer_state().unwrap());
        let error = taken.and_then(|()| stranger.step(Rule::adam(0.01))).unwrap_err();
        assert!(matches!(&error, RuntimeError::Network(TrainableError::Optimizer { .. })), "{error}");
        let mut state = network.optimizer_state().unwrap();
        state.moments[0][1].pop();
        let taken = network.resume(Rule::adam(0.01), state);
        let error = taken.and_then(|()| network.step(Rule::adam(0.01))).unwrap_err();
        assert!(matches!(&error, RuntimeError::Network(TrainableError::OptimizerState { .. })), "{error}");
    }
}

/// The loss of the critic's verdict on `images`, and its backward pass.
fn judge(critic: &mut dyn TrainableNetwork, images: &[f32], label: f32) -> f64 {
    critic.run(&[images], Pass::Train).unwrap();
    let verdict = critic.output(0);
    let mut gradient = vec![0.0; verdict.len()];
    let labels = vec![label; verdict.len()];
    let loss = binary_cross_entropy(Isa::best().unwrap(), verdict, &labels, &mut gradient).unwrap();
    critic.backward(&[&gradient]).unwrap();
    f64::from(loss)
}

#[test]
fn alternating_steps_of_two_networks_are_those_of_pytorch() {
    let want = fixture(include_str!("../fixtures/gan-steps.json"));
    let graphs = [generator(), critic()];
    let mut rule = Rule::adam(0.002);
    if let Rule::Adam { betas, .. } = &mut rule {
        betas[0] = 0.5;
    }
    for executor in executors() {
        let runtime = executor.runtime();
        let [mut generator, mut critic] = [(0, [1; 2]), (1, [16; 2])].map(|(place, size): (usize, _)| {
            let graph = &graphs[place];
            runtime.trainable(graph, &formula::weights(graph), &[size], &outputs(graph)).unwrap()
        });
        critic.set_input_gradient(true);
        critic.set_accumulating(true);
        for step in 0..10 {
            let real: Vec<f32> = input(&format!("real{step}"), 4 * 256).iter().map(|value| value / 2.0).collect();
            generator.run(&[&input(&format!("z{step}"), 4 * 6)], Pass::Train).unwrap();
            critic.set_frozen(false);
            critic.clear_gradients();
            let on_real = judge(critic.as_mut(), &real, 1.0);
            let on_made = judge(critic.as_mut(), generator.output(0), 0.0);
            critic.step(rule).unwrap();
            critic.set_frozen(true);
            let loss = judge(critic.as_mut(), generator.output(0), 1.0);
            generator.backward(&[critic.input_gradient(0)]).unwrap();
            generator.step(rule).unwrap();
            for (part, got) in [on_real, on_made, loss].into_iter().enumerate() {
                let what = format!("{}: loss {part} of step {step}", runtime.name());
                // Rounding grows from step to step.
                let slack = CLOSE.max(1e-5 * 3f64.powi(step));
                assert_loss(&what, got, &want["losses"][step as usize][part], slack);
            }
        }
        let states: BTreeMap<_, _> =
            [generator, critic].into_iter().flat_map(|network| network.weights().unwrap()).collect();
        assert_eq!(states.len(), want["states"].as_object().unwrap().len());
        for (name, state) in &states {
            let what = format!("{}: {name}", runtime.name());
            assert_digest(&what, &state.to_f32().unwrap(), &want["states"][name], 1e-3);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let graph = critic();
    let weights = formula::weights(&graph);
    let mut lacking = weights.clone();
    lacking.remove("d.second.weight");
    for executor in executors() {
        let runtime = executor.runtime();
        let prepare = |weights, sizes: &[[usize; 2]]| runtime.trainable(&graph, weights, sizes, &outputs(&graph));
        let error = prepare(&lacking, &[[16; 2]]).unwrap_err();
        assert!(matches!(&error, RuntimeError::Network(TrainableError::MissingTensor { .. })), "{error}");
        let error = prepare(&weights, &[[6; 2]]).unwrap_err();
        assert!(matches!(&error, RuntimeError::Network(TrainableError::Graph(_))), "{error}");
        let runnable = runtime.prepare(&graph, &weights, &[[16; 2]], &planes(&graph)).unwrap();
        let error = runnable.run(&[&[0.0; 255]]).unwrap_err();
        assert!(matches!(&error, RuntimeError::Network(TrainableError::Images { each: 256, found: 255 })), "{error}");
        let error = runnable.run(&[]).unwrap_err();
        assert!(matches!(&error, RuntimeError::Network(TrainableError::Inputs { expected: 1, found: 0 })), "{error}");
        assert!(runtime.prepare(&graph, &weights, &[[16; 2], [16; 2]], &planes(&graph)).is_err_and(|error| {
            matches!(error, RuntimeError::Network(TrainableError::Graph(GraphError::Inputs { expected: 1, found: 2 })))
        }));
        let mut network = prepare(&weights, &[[16; 2]]).unwrap();
        let error = network.backward(&[&[1.0]]).unwrap_err();
        assert!(matches!(&error, RuntimeError::Network(TrainableError::Gradients { .. })), "{error}");
        network.run(&[&[0.5; 256]], Pass::Train).unwrap();
        network.backward(&[&[1.0]]).unwrap();
        network.step(Rule::adam(0.01)).unwrap();
        let error = network.step(Rule::sgd(0.01, 0.9)).unwrap_err();
        assert!(matches!(&error, RuntimeError::Rule { .. }), "{error}");
    }
}
