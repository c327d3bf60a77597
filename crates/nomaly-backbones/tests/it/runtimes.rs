//! Architectures on every runtime: inference at every tap and training agree, and weights go both ways. A step of
//! EfficientNet-Lite0 is that of PyTorch (`tests/fixtures/gen_efficientnet_step.py`).

use nomaly_backbones::registry::BACKBONES;
use nomaly_backbones::{BackboneError, OutputLayout, TapRequest};
use nomaly_nn::graph::Graph;
use nomaly_nn::init::he_normal;
use nomaly_nn::runtime::{Device, Executor, TrainableNetwork};
use nomaly_nn::trainable::{Pass, Rule};
use nomaly_nn::weights::Weights;
use serde_json::Value;

use crate::formula;

/// Relative to the greatest value, or to the length of a gradient as a vector.
const CLOSE: f64 = 1e-4;
const IMAGES: usize = 2;

/// A small network of each family, with a size that is odd where padding depends on it.
const FAMILIES: [(&str, [usize; 2]); 5] = [
    ("resnet18", [41, 37]),
    ("wrn-10-4", [16, 16]),
    ("efficientnet-lite0", [45, 38]),
    ("efficientnet-b0", [41, 40]),
    ("mobilenetv2", [40, 33]),
];

/// The processor, and candle's processor where it is built.
fn executors() -> impl Iterator<Item = Executor> {
    let candle = cfg!(feature = "candle").then(|| Executor::on(Device::CandleCpu).unwrap());
    std::iter::once(Executor::on(Device::Cpu).unwrap()).chain(candle)
}

fn images([height, width]: [usize; 2]) -> Vec<f32> {
    formula::image([IMAGES * height, width])
}

fn assert_near(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let greatest = want.iter().fold(1e-6f32, |greatest, value| greatest.max(value.abs()));
    for (place, (got, want)) in got.iter().zip(want).enumerate() {
        let error = f64::from((got - want).abs());
        assert!(error <= CLOSE * f64::from(greatest), "{what}: value {place} is {got}, expected {want}");
    }
}

/// Holds a vector against another, relative to its length.
fn assert_close(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let error = length(&mut got.iter().zip(want).map(|(got, want)| f64::from(*got) - f64::from(*want)));
    let allowed = CLOSE * length(&mut want.iter().map(|value| f64::from(*value))).max(1e-6);
    assert!(error <= allowed, "{what}: off by {error}, allowed are {allowed}");
}

#[test]
fn every_tap_in_every_layout_is_that_of_the_processor() {
    for (name, size) in FAMILIES {
        let backbone = crate::backbone(name);
        let layouts = [OutputLayout::Nchw, OutputLayout::Rows, OutputLayout::Mean];
        let taps: Vec<TapRequest> = backbone
            .taps()
            .into_iter()
            .flat_map(|tap| layouts.map(|layout| TapRequest::new(tap.name.clone(), layout)))
            .collect();
        let mut want: Option<Vec<Vec<f32>>> = None;
        for executor in executors() {
            let extractor = backbone.compile(size, &taps, &executor).unwrap();
            assert_eq!(extractor.input_shape(), [3, size[0], size[1]]);
            let mut outputs = vec![Vec::new(); taps.len()];
            extractor.run(&images(size), IMAGES, &mut extractor.workspace(IMAGES), &mut outputs).unwrap();
            for (index, (tap, output)) in taps.iter().zip(&outputs).enumerate() {
                let what = format!("{name} {tap:?} on {}", executor.device());
                assert_eq!(output.len(), IMAGES * extractor.output_shape(index).iter().product::<usize>(), "{what}");
                if let Some(want) = &want {
                    assert_near(&what, output, &want[index]);
                }
            }
            want.get_or_insert(outputs);
        }
    }
}

fn logits(graph: &Graph) -> usize {
    graph.taps().last().expect("a classifier").node
}

/// The network in training.
fn trainable(executor: &Executor, graph: &Graph, weights: &Weights, size: [usize; 2]) -> Box<dyn TrainableNetwork> {
    executor.runtime().trainable(graph, weights, &[size], &[logits(graph)]).unwrap()
}

#[test]
fn a_step_of_training_is_that_of_the_processor_and_weights_go_both_ways() {
    for (name, size) in FAMILIES {
        let graph = BACKBONES.get(name).unwrap().architecture.graph(3);
        let weights = he_normal(&graph, 7);
        let mut want: Option<Box<dyn TrainableNetwork>> = None;
        for executor in executors() {
            let mut network = trainable(&executor, &graph, &weights, size);
            let loss = network.classify(&images(size), &[0, 2]).unwrap();
            let gradients = network.gradients().unwrap();
            network.step(Rule::sgd(0.01, 0.9)).unwrap();
            let after = network.weights().unwrap();
            let Some(want) = &mut want else {
                want = Some(network);
                continue;
            };
            let what = |tensor: &str| format!("{name} on {}: {tensor}", executor.device());
            // The gradients of the first pass are still there after the step.
            let expected = want.gradients().unwrap();
            assert!(expected.keys().eq(gradients.keys()));
            gradients.iter().for_each(|(tensor, values)| assert_close(&what(tensor), values, &expected[tensor]));
            let moved = want.weights().unwrap();
            for (tensor, values) in &after {
                assert_close(&what(tensor), &values.to_f32().unwrap(), &moved[tensor].to_f32().unwrap());
            }
            // Each continues with the weights of the other.
            network.load(&moved).unwrap();
            want.load(&after).unwrap();
            assert_eq!((network.weights().unwrap(), want.weights().unwrap()), (moved, after));
            for network in [network.as_mut(), want.as_mut()] {
                network.run(&[&images(size)], Pass::Evaluate).unwrap();
            }
            assert_near(&what("logits"), network.output(0), want.output(0));
            let second = network.classify(&images(size), &[0, 2]).unwrap();
            let expected = want.classify(&images(size), &[0, 2]).unwrap();
            assert!(f64::from((second - expected).abs()) <= CLOSE * f64::from(expected), "{second} {expected}");
            assert_ne!(loss, second);
        }
    }
}

#[test]
fn steps_of_efficientnet_lite0_are_those_of_pytorch() {
    let want: Value = serde_json::from_str(include_str!("../fixtures/efficientnet-lite0-step.json")).unwrap();
    const SIZE: [usize; 2] = [64, 64];
    let graph = BACKBONES.get("efficientnet-lite0").unwrap().architecture.graph(5);
    let number = |value: &Value| value.as_f64().expect("a number");
    let norms = want["gradients"].as_object().expect("gradients").values().map(|gradient| number(&gradient["norm"]));
    // Gradients of biases that the next norm removes are zero but for rounding.
    let least = 1e-3 * norms.fold(0.0, f64::max);
    for executor in executors() {
        let device = executor.device();
        let mut network = trainable(&executor, &graph, &formula::weights(&graph), SIZE);
        for (step, slack) in [(0, 1e-5), (1, 1e-4)] {
            let loss = f64::from(network.classify(&images(SIZE), &[0, 1]).unwrap());
            let expected = number(&want["losses"][step]);
            assert!(
                (loss - expected).abs() <= slack * expected,
                "{device}: loss {step} is {loss}, expected {expected}"
            );
            if step == 0 {
                let gradients = network.gradients().unwrap();
                assert_eq!(gradients.len(), want["gradients"].as_object().unwrap().len());
                for (name, values) in &gradients {
                    assert_gradient(&format!("{device}: {name}"), values, &want["gradients"][name], least);
                }
                for (name, tensor) in network.weights().unwrap().iter().filter(|(name, _)| name.contains("running")) {
                    let values = tensor.to_f32().unwrap();
                    let all: f64 = values.iter().map(|value| f64::from(value.abs())).sum();
                    crate::trainable::assert_digest(name, &values, &want["statistics"][name], 1e-6 * all.max(10.0));
                }
            }
            network.step(Rule::sgd(0.01, 0.9)).unwrap();
        }
    }
}

/// Holds a gradient against its length, sum, product with the probe, norm and single values, relative to the norm, or
/// to `least` if that is more.
fn assert_gradient(what: &str, values: &[f32], want: &Value, least: f64) {
    let norm = want["norm"].as_f64().expect("a norm");
    let slack = CLOSE * norm.max(least);
    let kept = want["values"].as_array().expect("values");
    for (index, expected) in kept.iter().enumerate() {
        let got = f64::from(values[index * (values.len() - 1) / (kept.len() - 1)]);
        let expected = expected.as_f64().expect("a number");
        assert!((got - expected).abs() <= slack, "{what}: {got}, expected {expected} within {slack}");
    }
    let own = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    assert!((own - norm).abs() <= slack, "{what}: the norm is {own}, expected {norm}");
    // A sum of n values whose errors are `slack` together may be off by √n times that.
    let slack = slack * (values.len() as f64).sqrt();
    crate::trainable::assert_digest(what, values, &want["digest"], slack);
}

#[test]
fn what_another_device_has_not_is_named() {
    let backbone = crate::backbone("resnet18");
    let taps = [TapRequest::new("layer1", OutputLayout::Mean)];
    for executor in executors() {
        let extractor = backbone.compile([32, 32], &taps, &executor).unwrap();
        let (mut workspace, mut outputs) = (extractor.workspace(1), [Vec::new()]);
        let times = extractor.profile(&images([16, 32]), 1, &mut workspace, &mut outputs);
        let wrong = extractor.run(&[0.0; 5], 1, &mut workspace, &mut outputs).unwrap_err();
        assert!(matches!(wrong, BackboneError::Network(_)), "{wrong}");
        if executor.device() == Device::Cpu {
            assert_eq!(times.unwrap().len(), extractor.steps().len());
            continue;
        }
        let message = times.unwrap_err().to_string();
        assert_eq!(message, "the device candle-cpu has not the times of single layers: use the device cpu");
        let cpu = backbone.compile([32, 32], &taps, &Executor::cpu().unwrap()).unwrap();
        let other = extractor.run(&images([16, 32]), 1, &mut cpu.workspace(1), &mut outputs).unwrap_err();
        assert!(matches!(other, BackboneError::OtherWorkspace), "{other}");
    }
}
