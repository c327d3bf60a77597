//! Networks in training against PyTorch (`tests/fixtures/gen_wrn_step.py`), and their trained weights in the compiled
//! plan.

use std::collections::HashMap;

use nomaly_backbones::architectures::wide_resnet::WideResNet;
use nomaly_backbones::registry::BACKBONES;
use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
use nomaly_kernels::Isa;
use nomaly_nn::graph::Graph;
use nomaly_nn::init::{he_normal, pytorch_default};
use nomaly_nn::trainable::{
    Clip, Network, NetworkOptimizer, OptimizerState, ParameterGroup, ParameterNames, Rule, TensorOptimizer,
    TrainableError, WeightDecay,
};
use serde_json::Value;

use crate::formula;

const SIDE: usize = 16;
const LABELS: [u32; 4] = [0, 1, 2, 3];

fn small() -> Graph {
    WideResNet::new(1, 2).graph(5)
}

fn images() -> Vec<f32> {
    formula::image([LABELS.len() * SIDE, SIDE])
}

fn digest(values: &[f32]) -> [f64; 2] {
    let probe = formula::values("probe", values.len());
    let product = values.iter().zip(probe).map(|(value, probe)| f64::from(*value) * probe).sum();
    [values.iter().map(|value| f64::from(*value)).sum(), product]
}

pub(crate) fn assert_digest(name: &str, values: &[f32], want: &Value, slack: f64) {
    assert_eq!(want[0], values.len() as u64, "{name}");
    for (got, want) in digest(values).into_iter().zip([&want[1], &want[2]]) {
        let want = want.as_f64().expect("a number");
        assert!((got - want).abs() <= slack, "{name}: {got}, expected {want} within {slack}");
    }
}

#[test]
fn a_step_is_that_of_pytorch_for_any_number_of_threads() {
    let want: Value = serde_json::from_str(include_str!("../fixtures/wrn-step.json")).expect("a fixture");
    let graph = small();
    let run = |isa, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let mut network = Network::new(&graph, &["logits"], [SIDE; 2], &formula::weights(&graph), isa).unwrap();
            let mut optimizer = NetworkOptimizer::new(Rule::adam(0.01));
            let first = network.classify(&images(), &LABELS).unwrap();
            let gradients: Vec<(String, Vec<f32>)> =
                network.gradients().map(|(name, _, values)| (name.to_owned(), values.to_vec())).collect();
            let statistics: Vec<(String, Vec<f32>)> = network
                .parameters()
                .filter(|(name, ..)| name.contains("running"))
                .map(|(name, _, values)| (name.to_owned(), values.to_vec()))
                .collect();
            network.step(&mut optimizer).unwrap();
            let second = network.classify(&images(), &LABELS).unwrap();
            ([first, second], gradients, statistics)
        })
    };
    for isa in Isa::available() {
        let got = run(isa, 1);
        assert!(got == run(isa, 2), "{isa}: two threads give another result than one");
        let (losses, gradients, statistics) = got;
        // The second loss comes after a step of Adam, which divides by the root of gradients that may be mere rounding
        // errors.
        for ((got, want), slack) in losses.iter().zip(want["losses"].as_array().unwrap()).zip([1e-5, 1e-2]) {
            let want = want.as_f64().unwrap();
            assert!((f64::from(*got) - want).abs() < slack * want, "{isa}: loss {got}, expected {want}");
        }
        assert_eq!(gradients.len(), want["gradients"].as_object().unwrap().len());
        for (name, values) in &gradients {
            // The error of a gradient is relative to its length as a vector; a ReLU near its kink may fall on either
            // side.
            let slack = 2e-3 * want["norms"][name].as_f64().unwrap();
            assert_digest(name, values, &want["gradients"][name], slack);
        }
        for (name, values) in &statistics {
            assert_digest(name, values, &want["statistics"][name], 1e-4);
        }
    }
}

#[test]
fn training_goes_on_from_a_checkpoint_as_if_it_had_never_stopped() {
    let graph = small();
    let isa = Isa::best().unwrap();
    let (betas, epsilon, weight_decay, decay) = ([0.9, 0.999], 1e-8, 0.01, WeightDecay::Decoupled);
    for rule in [
        Rule::adam(0.01),
        Rule::Adam { rate: 0.01, betas, epsilon, weight_decay, decay, amsgrad: true },
        Rule::sgd(0.05, 0.9),
        Rule::sgd(0.05, 0.0),
        Rule::nadam(0.01),
        Rule::RmsProp { rate: 0.001, alpha: 0.9, epsilon, weight_decay, momentum: 0.5, centered: true },
        Rule::stable_adamw(0.01),
    ] {
        let mut network = Network::new(&graph, &["logits"], [SIDE; 2], &he_normal(&graph, 1), isa).unwrap();
        let mut optimizer = NetworkOptimizer::new(rule);
        let train = |network: &mut Network, optimizer: &mut NetworkOptimizer| {
            for _ in 0..2 {
                network.classify(&images(), &LABELS).unwrap();
                network.step(optimizer).unwrap();
            }
        };
        train(&mut network, &mut optimizer);
        let (weights, state) = (network.weights(), optimizer.export());
        assert_eq!(state.steps, 2);
        train(&mut network, &mut optimizer);

        let mut again = Network::new(&graph, &["logits"], [SIDE; 2], &he_normal(&graph, 2), isa).unwrap();
        again.load(&weights).unwrap();
        assert_eq!(again.weights(), weights);
        let mut restored = NetworkOptimizer::restore(rule, state);
        train(&mut again, &mut restored);
        assert_eq!(again.weights(), network.weights(), "{rule:?}");
        assert_eq!(restored.export(), optimizer.export(), "{rule:?}");
    }
}

#[test]
fn a_checkpoint_of_another_network_is_refused_and_changes_nothing() {
    let graph = small();
    let isa = Isa::Portable;
    let mut network = Network::new(&graph, &["logits"], [SIDE; 2], &formula::weights(&graph), isa).unwrap();
    network.classify(&images(), &LABELS).unwrap();
    let before = network.weights();
    let mut optimizer = NetworkOptimizer::new(Rule::adam(0.01));
    network.step(&mut optimizer).unwrap();
    network.load(&before).unwrap();

    let mut state = optimizer.export();
    state.moments[2][1].pop();
    let length = state.moments[2][1].len();
    let name = network.gradients().nth(2).expect("a parameter").0.to_owned();
    match network.step(&mut NetworkOptimizer::restore(Rule::adam(0.01), state)).unwrap_err() {
        TrainableError::OptimizerState { parameter, expected, found } => {
            assert_eq!((parameter, expected, found), (name, length + 1, length));
        }
        error => panic!("{error}"),
    }
    let mut weights = he_normal(&graph, 0);
    weights.remove("fc.bias");
    assert!(matches!(network.load(&weights), Err(TrainableError::MissingTensor { .. })));
    let other = he_normal(&WideResNet::new(1, 2).graph(6), 0);
    assert!(matches!(network.load(&other), Err(TrainableError::Shape { .. })));
    assert_eq!(network.weights(), before);
}

/// The parameters of a network after a step from its first gradients, with their names and gradients.
fn after_a_step(optimizer: &mut NetworkOptimizer) -> Vec<(String, Vec<f32>, Vec<f32>)> {
    let graph = small();
    let isa = Isa::best().unwrap();
    let mut network = Network::new(&graph, &["logits"], [SIDE; 2], &formula::weights(&graph), isa).unwrap();
    network.classify(&images(), &LABELS).unwrap();
    network.step(optimizer).unwrap();
    let weights: HashMap<_, _> =
        network.parameters().map(|(name, _, values)| (name.to_owned(), values.to_vec())).collect();
    let gradients = network.gradients();
    gradients.map(|(name, _, gradient)| (name.to_owned(), weights[name].clone(), gradient.to_vec())).collect()
}

#[test]
fn groups_have_constants_of_their_own() {
    let isa = Isa::best().unwrap();
    let rule = Rule::sgd(0.1, 0.0).with_weight_decay(0.01);
    let names = ParameterNames::Suffix(".bias".to_owned());
    let group = ParameterGroup { names, rate_factor: 0.5, weight_decay: Some(0.0) };
    let mut optimizer = NetworkOptimizer::new(rule).with_groups(vec![group]);
    let start = formula::weights(&small());
    let mut seen = [0, 0];
    for (name, moved, gradient) in after_a_step(&mut optimizer) {
        let mut want = start[&name].to_f32().unwrap();
        let own = if name.ends_with(".bias") { Rule::sgd(0.05, 0.0) } else { rule };
        TensorOptimizer::new(own, isa).step(&mut want, &gradient).unwrap();
        assert_eq!(moved, want, "{name}");
        seen[usize::from(own == rule)] += 1;
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");

    let graph = small();
    let mut network = Network::new(&graph, &["logits"], [SIDE; 2], &start, isa).unwrap();
    let names = ParameterNames::Prefix("encoder.".to_owned());
    let group = ParameterGroup { names: names.clone(), rate_factor: 0.5, weight_decay: None };
    let error = network.step(&mut NetworkOptimizer::new(rule).with_groups(vec![group])).unwrap_err();
    assert!(matches!(&error, TrainableError::EmptyGroup { names: found } if *found == names.to_string()), "{error}");
    assert_eq!(error.to_string(), "the network has no parameter of the optimizer's group `encoder.*`");
}

#[test]
fn gradients_are_clipped_together() {
    let (rule, isa) = (Rule::sgd(0.1, 0.0), Isa::best().unwrap());
    let start = formula::weights(&small());
    let plain = after_a_step(&mut NetworkOptimizer::new(rule));
    let squares = plain.iter().flat_map(|(.., gradient)| gradient).map(|value| f64::from(*value).powi(2));
    let norm = squares.sum::<f64>().sqrt();
    let factor = 0.5 * norm / (norm + 1e-6);
    for (clip, clipped) in [
        (Clip::Norm(0.5 * norm), (&|value| (factor * f64::from(value)) as f32) as &dyn Fn(f32) -> f32),
        (Clip::Norm(2.0 * norm), &|value| value),
        (Clip::Value(1e-3), &|value: f32| value.clamp(-1e-3, 1e-3)),
    ] {
        for (name, moved, gradient) in after_a_step(&mut NetworkOptimizer::new(rule).with_clip(clip)) {
            let clipped: Vec<f32> = gradient.iter().map(|value| clipped(*value)).collect();
            let mut want = start[&name].to_f32().unwrap();
            TensorOptimizer::new(rule, isa).step(&mut want, &clipped).unwrap();
            for (got, want) in moved.iter().zip(&want) {
                // The factor is rounded to single precision.
                assert!((got - want).abs() <= 1e-6 * want.abs().max(0.1), "{clip:?}, {name}: {got}, expected {want}");
            }
        }
    }
    assert!(plain.iter().flat_map(|(.., gradient)| gradient).any(|value| value.abs() > 1e-3));
}

#[test]
fn a_tensor_is_optimized_without_a_network() {
    let isa = Isa::best().unwrap();
    let gradient = |values: &[f32]| -> Vec<f32> { values.iter().map(|value| 2.0 * (value - 3.0)).collect() };
    let run = |optimizer: &mut TensorOptimizer, values: &mut [f32; 5], steps| {
        for _ in 0..steps {
            let gradient = gradient(values);
            optimizer.step(values, &gradient).unwrap();
        }
    };
    let mut optimizer = TensorOptimizer::new(Rule::adam(0.1), isa);
    let mut values = [0.0, 1.0, -2.0, 3.0, 7.0];
    run(&mut optimizer, &mut values, 5);
    let (state, half_way) = (optimizer.export(), values);
    run(&mut optimizer, &mut values, 500);
    assert!(values.iter().all(|value| (value - 3.0).abs() < 1e-2), "{values:?}");

    let (mut again, mut resumed) = (half_way, TensorOptimizer::new(Rule::adam(0.1), isa));
    resumed.resume(state.clone()).unwrap();
    run(&mut resumed, &mut again, 500);
    assert_eq!((again, &resumed), (values, &optimizer));
    let error = resumed.step(&mut [0.0], &[0.0]).unwrap_err();
    assert!(matches!(error, TrainableError::OptimizerState { expected: 1, found: 5, .. }), "{error}");
    let error = resumed.resume(OptimizerState::default()).unwrap_err();
    assert!(matches!(error, TrainableError::Optimizer { expected: 1, found: 0 }), "{error}");

    let mut values = [0.0, 1.0, -2.0, 3.0, 7.0];
    optimizer.reset();
    run(&mut optimizer, &mut values, 5);
    assert_eq!((values, optimizer.export()), (half_way, state));

    let mut clipped = TensorOptimizer::new(Rule::sgd(1.0, 0.0), isa).with_clip(Clip::Value(0.5));
    let mut values = [0.0, 0.0];
    clipped.step(&mut values, &[3.0, -0.25]).unwrap();
    assert_eq!((values, clipped.steps()), ([-0.5, 0.25], 1));
}

#[test]
fn trained_weights_run_in_the_inference_plan() {
    let graph = BACKBONES.get("wrn-10-4").unwrap().architecture.graph(4);
    let isa = Isa::best().unwrap();
    let mut network = Network::new(&graph, &["logits"], [SIDE; 2], &pytorch_default(&graph, 3), isa).unwrap();
    // With momentum 1, evaluation after a pass without a step equals that pass.
    network = network.with_momentum(1.0);
    let mut optimizer = NetworkOptimizer::new(Rule::adamw(0.005));
    let losses: Vec<f32> = (0..4)
        .map(|_| {
            let loss = network.classify(&images(), &LABELS).unwrap();
            network.step(&mut optimizer).unwrap();
            loss
        })
        .collect();
    assert!(losses[3] < 0.5 * losses[0], "{losses:?}");
    network.forward(&images()).unwrap();

    let trained = Backbone::from_tensors("wrn-10-4", network.weights()).unwrap();
    let request = [TapRequest::new("logits", OutputLayout::Mean)];
    let extractor = trained.compile([SIDE; 2], &request, &isa.into()).unwrap();
    let mut outputs = vec![Vec::new()];
    extractor.run(&images(), LABELS.len(), &mut extractor.workspace(LABELS.len()), &mut outputs).unwrap();
    let greatest = network.output(0).iter().fold(0f32, |max, value| max.max(value.abs()));
    for (found, expected) in outputs[0].iter().zip(network.output(0)) {
        // The running variance is that of the population, of 64 or more values per channel: 1/64 more, in each of 7
        // norms.
        assert!((found - expected).abs() <= 0.05 * greatest, "{found} {expected}");
    }
}

/// Max pooling, a sum that shares its gradient, a ReLU of its own, several outputs: gradients by differences.
#[test]
fn gradients_of_a_residual_network_are_those_of_differences() {
    let graph = BACKBONES.get("resnet18").unwrap().architecture.graph(3);
    let weights = formula::weights(&graph);
    let isa = Isa::best().unwrap();
    let taps = ["layer1", "layer2"];
    let mut network = Network::new(&graph, &taps, [24, 24], &weights, isa).unwrap();
    let input = formula::image([2 * 24, 24]);
    let weigh = |network: &Network| -> f64 { (0..2).map(|index| digest(network.output(index))[1]).sum() };
    network.forward(&input).unwrap();
    let probes: Vec<Vec<f32>> =
        (0..2).map(|index| formula::values("probe", network.output(index).len()).map(|v| v as f32).collect()).collect();
    network.backward(&probes.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    let gradients: Vec<(String, Vec<f32>)> =
        network.gradients().map(|(name, _, values)| (name.to_owned(), values.to_vec())).collect();
    for name in ["conv1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer1.1.bn2.weight", "layer2.0.conv2.weight"] {
        let (_, gradient) = gradients.iter().find(|(other, _)| other == name).expect("a parameter");
        // Along the gradient itself: the derivative is its squared length.
        let squares: f64 = gradient.iter().map(|v| f64::from(*v).powi(2)).sum();
        let step = 1e-3 / squares.sqrt();
        let moved = |sign: f64| {
            let mut weights = weights.clone();
            let tensor = weights.get_mut(name).expect("a parameter");
            let mut values = tensor.to_f32().unwrap();
            values.iter_mut().zip(gradient).for_each(|(v, g)| *v += (sign * step * f64::from(*g)) as f32);
            *tensor = nomaly_nn::weights::WeightTensor::from_f32(tensor.shape.clone(), &values);
            let mut network = Network::new(&graph, &taps, [24, 24], &weights, isa).unwrap();
            network.forward(&input).unwrap();
            weigh(&network)
        };
        let numeric = (moved(1.0) - moved(-1.0)) / (2.0 * step);
        // Single precision, and kinks of ReLU and maximum within a step.
        assert!((numeric / squares - 1.0).abs() < 0.05, "{name}: {numeric}, expected {squares}");
    }
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let isa = Isa::Portable;
    let error = |name: &str, tap: &str, size| {
        let graph = BACKBONES.get(name).unwrap().architecture.graph(3);
        Network::new(&graph, &[tap], size, &formula::weights(&graph), isa).map(|_| ()).unwrap_err().to_string()
    };
    assert!(error("wrn-10-4", "grop1", [32, 32]).contains("did you mean `group1`"));
    assert!(error("wrn-10-4", "logits", [0, 32]).starts_with("`conv` cannot take [3, 0, 32]"));

    let graph = small();
    let mut weights = formula::weights(&graph);
    weights.remove("bn.bias");
    let missing = Network::new(&graph, &["logits"], [SIDE; 2], &weights, isa).unwrap_err();
    assert_eq!(missing.to_string(), "the weights have no `bn.bias`");
    assert!(matches!(Network::new(&graph, &[], [SIDE; 2], &weights, isa), Err(TrainableError::NoTaps)));

    let mut network = Network::new(&graph, &["logits"], [SIDE; 2], &formula::weights(&graph), isa).unwrap();
    assert!(matches!(network.forward(&[0.0; 7]), Err(TrainableError::Images { each: 768, found: 7 })));
    assert!(matches!(network.backward(&[&[]]), Err(TrainableError::Gradients { .. })));
    network.forward(&images()).unwrap();
    assert!(matches!(network.backward(&[]), Err(TrainableError::Gradients { .. })));
    let mut other = NetworkOptimizer::new(Rule::sgd(0.1, 0.9));
    network.classify(&images(), &LABELS).unwrap();
    network.step(&mut other).unwrap();
    let deeper = WideResNet::new(2, 1).graph(5);
    let mut network = Network::new(&deeper, &["logits"], [SIDE; 2], &formula::weights(&deeper), isa).unwrap();
    assert!(matches!(network.step(&mut other), Err(TrainableError::Optimizer { .. })));
}
