//! The three kinds of passes of a trainable network: training, evaluation, and with dropout alone.

use nomaly_backbones::architectures::Architecture;
use nomaly_backbones::architectures::wide_resnet::WideResNet;
use nomaly_backbones::registry::BACKBONES;
use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
use nomaly_kernels::Isa;
use nomaly_kernels::geometry::Activation;
use nomaly_nn::graph::{ConvOptions, Graph, GraphBuilder};
use nomaly_nn::init::he_normal;
use nomaly_nn::runtime::Executor;
use nomaly_nn::trainable::{Network, TrainableError};
use nomaly_nn::weights::{WeightTensor, Weights};
use serde_json::Value;

use crate::formula;

const SIDE: usize = 16;
const IMAGES: usize = 3;
const EACH: usize = 3 * SIDE * SIDE;

fn architecture(name: &str) -> Architecture {
    BACKBONES.get(name).expect("a known name").architecture
}

fn images() -> Vec<f32> {
    formula::image([IMAGES * SIDE, SIDE])
}

fn network(graph: &Graph, weights: &Weights) -> Network {
    Network::new(graph, &["logits"], [SIDE; 2], weights, Isa::best().unwrap()).unwrap()
}

/// A graph that is no backbone: convolutions with bias, global max pooling and dense layers.
fn max_pooled(outputs: usize) -> Graph {
    let mut builder = GraphBuilder::new(3);
    let mut x = GraphBuilder::INPUT;
    for (name, channels) in [("conv1", 8), ("conv2", 16), ("conv3", 24)] {
        x = builder.conv_with_bias(x, name, channels, ConvOptions::centered(3, 2));
        x = builder.activation(x, Activation::Relu);
        builder.tap(name, x);
    }
    let x = builder.global_max_pool(x);
    let x = builder.linear(x, "fc1", 16);
    let x = builder.activation(x, Activation::Relu);
    builder.tap("embedding", x);
    let x = builder.linear(x, "fc2", outputs);
    builder.tap("logits", x);
    builder.finish().unwrap()
}

/// That graph with weights by the formula.
fn of_graph(outputs: usize) -> Backbone {
    let graph = max_pooled(outputs);
    Backbone::of_graph("max-pooled", graph.clone(), formula::weights(&graph)).unwrap()
}

fn dropping(rate: f32) -> Graph {
    WideResNet::new(1, 2).with_dropout(rate).graph(5)
}

fn assert_near(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let greatest = expected.iter().fold(0f32, |max, value| max.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance * greatest, "{what}: {found}, expected {expected}");
    }
}

fn gradient_of(network: &Network, name: &str) -> Vec<f32> {
    let mut gradients = network.gradients();
    gradients.find(|(other, ..)| *other == name).expect("a trained parameter").2.to_vec()
}

#[test]
fn evaluation_is_the_inference_plan_with_dropout_and_without() {
    let isa = Isa::best().unwrap();
    let known = |name| {
        let plain = architecture(name);
        let graph = plain.graph(4);
        let backbone = Backbone::from_tensors(name, formula::weights(&graph)).unwrap();
        (name, backbone, graph, plain.with_dropout(0.5).map(|architecture| architecture.graph(4)))
    };
    for (name, backbone, graph, dropping) in
        [known("wrn-10-4"), known("resnet18"), ("max-pooled", of_graph(4), max_pooled(4), None)]
    {
        let weights = formula::weights(&graph);
        let request = [TapRequest::new("logits", OutputLayout::Mean)];
        let extractor = backbone.compile([SIDE; 2], &request, &isa.into()).unwrap();
        let mut expected = vec![Vec::new()];
        extractor.run(&images(), IMAGES, &mut extractor.workspace(IMAGES), &mut expected).unwrap();
        for graph in [Some(graph), dropping].iter().flatten() {
            let mut network = network(graph, &weights);
            network.evaluate(&images()).unwrap();
            assert_near(network.output(0), &expected[0], 1e-5, name);
            assert_eq!(network.weights(), weights, "{name}: an evaluation changes nothing");
        }
    }
}

#[cfg(feature = "candle")]
#[test]
fn the_candle_module_agrees_on_global_max_pooling_and_dense_layers() {
    use candle_core::{Device, Tensor};
    use nomaly_nn::module::Mode;

    let backbone = of_graph(1);
    let module = backbone.module(&["embedding", "logits"], &Device::Cpu, |_| false).unwrap();
    let input = Tensor::from_vec(images(), (IMAGES, 3, SIDE, SIDE), &Device::Cpu).unwrap();
    let outputs = module.forward(&[&input], Mode::Evaluate).unwrap();
    let taps = ["embedding", "logits"];
    let weights = formula::weights(backbone.graph().unwrap());
    let mut network =
        Network::new(backbone.graph().unwrap(), &taps, [SIDE; 2], &weights, Isa::best().unwrap()).unwrap();
    network.evaluate(&images()).unwrap();
    for (index, output) in outputs.iter().enumerate() {
        let values: Vec<f32> = output.flatten_all().unwrap().to_vec1().unwrap();
        assert_near(network.output(index), &values, 1e-5, taps[index]);
    }
}

#[test]
fn dropout_leaves_the_parameters_as_they_are() {
    let plain = architecture("wrn-10-4");
    let dropped = plain.with_dropout(0.3).expect("wide residual networks have a place for dropout");
    assert_eq!(dropped.graph(7).parameters(), plain.graph(7).parameters());
    assert_eq!(dropped.with_dropout(0.0), Some(plain));
    assert_eq!(he_normal(&dropped.graph(7), 3), he_normal(&plain.graph(7), 3));
    assert_eq!(architecture("resnet18").with_dropout(0.3), None);
    let graph = dropping(1.0);
    let error = Network::new(&graph, &["logits"], [SIDE; 2], &formula::weights(&graph), Isa::Portable).unwrap_err();
    assert_eq!(error.to_string(), "dropout: a dropout rate of 1 is not in [0, 1)");
}

/// A pass in one of the modes.
type Pass = fn(&mut Network, &[f32]) -> Result<(), TrainableError>;

/// The directional derivative along the gradient is its squared length.
#[test]
fn gradients_of_every_pass_are_those_of_differences() {
    let input = images();
    let cases: [(&str, Graph, Pass, [&str; 3]); 4] = [
        ("evaluation", dropping(0.4), Network::evaluate, ["group1.0.bn2.weight", "group2.0.conv1.weight", "fc.bias"]),
        ("sample", dropping(0.4), Network::sample, ["group1.0.bn2.weight", "group2.0.conv1.weight", "fc.weight"]),
        ("training", dropping(0.4), Network::forward, ["group1.0.bn2.weight", "group2.0.conv1.weight", "bn.bias"]),
        ("max pooling", max_pooled(2), Network::evaluate, ["conv2.weight", "conv3.bias", "fc1.weight"]),
    ];
    for (what, graph, pass, names) in cases {
        let weights = formula::weights(&graph);
        let run = |weights: &Weights, input: &[f32]| {
            let mut network = network(&graph, weights).with_input_gradient();
            network.seed_dropout(5);
            pass(&mut network, input).unwrap();
            network
        };
        let mut base = run(&weights, &input);
        let probe: Vec<f32> = formula::values("probe", base.output(0).len()).map(|v| v as f32).collect();
        let loss = |network: &Network| -> f64 {
            network.output(0).iter().zip(&probe).map(|(y, p)| f64::from(*y) * f64::from(*p)).sum()
        };
        base.backward(&[&probe]).unwrap();
        let check = |name: &str, gradient: &[f32], moved: &dyn Fn(f64) -> f64| {
            let squares: f64 = gradient.iter().map(|v| f64::from(*v).powi(2)).sum();
            assert!(squares > 0.0, "{what} {name}: no gradient");
            let step = 2e-3 / squares.sqrt();
            let numeric = (moved(step) - moved(-step)) / (2.0 * step);
            // Single precision, and kinks of ReLU and maximum within a step.
            assert!((numeric / squares - 1.0).abs() < 0.05, "{what} {name}: {numeric}, expected {squares}");
        };
        let along = |values: &mut [f32], gradient: &[f32], step: f64| {
            values.iter_mut().zip(gradient).for_each(|(v, g)| *v += (step * f64::from(*g)) as f32);
        };
        for name in names {
            let gradient = gradient_of(&base, name);
            check(name, &gradient, &|step| {
                let mut weights = weights.clone();
                let tensor = weights.get_mut(name).expect("a parameter");
                let mut values = tensor.to_f32().unwrap();
                along(&mut values, &gradient, step);
                *tensor = WeightTensor::from_f32(tensor.shape.clone(), &values);
                loss(&run(&weights, &input))
            });
        }
        let gradient = base.input_gradient().to_vec();
        assert_eq!(gradient.len(), input.len());
        check("the images", &gradient, &|step| {
            let mut input = input.clone();
            along(&mut input, &gradient, step);
            loss(&run(&weights, &input))
        });
    }
}

#[test]
fn passes_in_evaluation_have_the_gradients_of_pytorch() {
    let want: Value = serde_json::from_str(include_str!("../fixtures/wrn-evaluation.json")).expect("a fixture");
    let graph = architecture("wrn-10-4").graph(5);
    for isa in Isa::available() {
        let weights = formula::weights(&graph);
        let mut network = Network::new(&graph, &["logits"], [SIDE; 2], &weights, isa).unwrap().with_input_gradient();
        network.evaluate(&formula::image([2 * SIDE, SIDE])).unwrap();
        let logits: Vec<f32> = want["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        assert_near(network.output(0), &logits, 1e-5, "logits");
        let probe: Vec<f32> = formula::values("probe", 10).map(|v| v as f32).collect();
        network.backward(&[&probe]).unwrap();
        let input = ("input".to_owned(), network.input_gradient().to_vec());
        let gradients = network.gradients().map(|(name, _, values)| (name.to_owned(), values.to_vec()));
        for (name, values) in gradients.chain([input]) {
            // As in the training step: relative to the gradient's length as a vector.
            let slack = 2e-3 * want["norms"][&name].as_f64().expect("a norm");
            crate::trainable::assert_digest(&name, &values, &want["gradients"][&name], slack);
        }
    }
}

#[test]
fn masks_follow_the_seed_on_any_number_of_threads() {
    let graph = dropping(0.5);
    let weights = formula::weights(&graph);
    // Each pass, its outputs and a gradient.
    let run = |seed: u64, threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| {
            let mut network = network(&graph, &weights);
            network.seed_dropout(seed);
            let passes: [Pass; 4] = [Network::sample, Network::sample, Network::forward, Network::evaluate];
            passes.map(|pass| {
                pass(&mut network, &images()).unwrap();
                let output = network.output(0).to_vec();
                network.backward(&[&output.clone()]).unwrap();
                [output, gradient_of(&network, "group2.0.conv2.weight")]
            })
        })
    };
    let first = run(1, 1);
    assert_eq!(first, run(1, 2));
    let second = run(2, 1);
    assert_ne!(first[0], first[1], "each pass has a mask of its own");
    assert_ne!(first[0], second[0], "each seed has masks of its own");
    assert_ne!(first[2], second[2], "training has dropout");

    // Evaluation draws no mask, so one in between does not change the others.
    let mut network = network(&graph, &weights);
    network.seed_dropout(1);
    network.evaluate(&images()).unwrap();
    network.sample(&images()).unwrap();
    assert_eq!(network.output(0), first[0][0]);
}

#[test]
fn in_training_each_image_has_its_mask_and_in_samples_all_have_one() {
    let graph = dropping(0.5);
    let weights = formula::weights(&graph);
    let mut network = network(&graph, &weights);
    let one = &images()[..EACH];
    let twice = [one, one].concat();
    network.forward(&twice).unwrap();
    let (first, second) = network.output(0).split_at(5);
    assert_ne!(first, second);
    network.seed_dropout(3);
    network.sample(&twice).unwrap();
    let (first, second) = network.output(0).split_at(5);
    assert_eq!(first, second);
    // An image's sample does not depend on its position or on the others.
    let alone = first.to_vec();
    network.seed_dropout(3);
    network.sample(&[&images()[EACH..], one].concat()).unwrap();
    assert_eq!(network.output(0)[5 * (IMAGES - 1)..], alone);
}

/// The mean over samples of a linear function of the dropped-out values is the evaluation.
#[test]
fn samples_scatter_about_the_evaluation() {
    let graph = dropping(0.2);
    let weights = formula::weights(&graph);
    let isa = Isa::best().unwrap();
    // A sum over a convolution of the remaining values, before any activation.
    let mut network = Network::new(&graph, &["group1"], [SIDE; 2], &weights, isa).unwrap();
    let one = &images()[..EACH];
    network.evaluate(one).unwrap();
    let expected = network.output(0).to_vec();
    let samples = 200;
    let (mut sums, mut squares) = (vec![0.0f64; expected.len()], vec![0.0f64; expected.len()]);
    for _ in 0..samples {
        network.sample(one).unwrap();
        for ((value, sum), square) in network.output(0).iter().zip(&mut sums).zip(&mut squares) {
            *sum += f64::from(*value);
            *square += f64::from(*value).powi(2);
        }
    }
    let mut beyond = 0;
    for ((expected, sum), square) in expected.iter().zip(&sums).zip(&squares) {
        let mean = sum / f64::from(samples);
        let variance = (square / f64::from(samples) - mean * mean).max(0.0);
        assert!(variance > 0.0);
        if (mean - f64::from(*expected)).abs() > 3.0 * (variance / f64::from(samples)).sqrt() {
            beyond += 1;
        }
    }
    // 0.3 % of 8192 means lie beyond three standard errors; neighbouring values are correlated.
    assert!(beyond < expected.len() / 50, "{beyond} of {}", expected.len());
}

#[test]
fn a_graph_that_is_no_backbone_is_checked_run_and_explained() {
    use nomaly_backbones::explain::{AverageActivations, GradCam, Target};

    let executor = Executor::cpu().unwrap();
    let own = of_graph(3);
    let taps: Vec<String> = own.taps().into_iter().map(|tap| tap.name).collect();
    assert_eq!(taps, ["conv1", "conv2", "conv3", "embedding", "logits"]);
    assert_eq!((own.name(), own.entries().count(), own.has_network()), ("max-pooled", 0, true));
    let requests = ["logits", "conv2"].map(|tap| TapRequest::new(tap, OutputLayout::Nchw));
    let extractor = own.compile([SIDE; 2], &requests, &executor).unwrap();
    let inference = own.inference(&[[SIDE; 2]], &requests, &executor).unwrap();
    let mut compiled = vec![Vec::new(); 2];
    extractor.run(&images(), IMAGES, &mut extractor.workspace(IMAGES), &mut compiled).unwrap();
    assert_eq!(compiled, inference.run(&[&images()]).unwrap(), "the same plan");
    let mut cam = GradCam::new(&own, None, [SIDE; 2], &executor).unwrap();
    assert_eq!((cam.tap(), cam.output(), cam.classes()), ("conv3", "logits", Some(3)));
    let explained = cam.explain(&images(), Target::Class(1)).unwrap();
    assert_eq!((explained.len(), explained[0].map.size), (IMAGES, [2, 2]));
    for (explained, logits) in explained.iter().zip(compiled[0].chunks(3)) {
        assert!((explained.value - logits[1]).abs() <= 1e-5 * logits[1].abs().max(1.0));
    }
    let mut average = AverageActivations::new(&own, &[], [SIDE; 2], &executor).unwrap();
    average.add(&images()).unwrap();
    assert_eq!(average.maps().len(), 3);
    // Weights are checked as those of a backbone.
    let graph = max_pooled(3);
    let refusal = |edit: fn(&mut Weights)| {
        let mut weights = formula::weights(&graph);
        edit(&mut weights);
        Backbone::of_graph("max-pooled", graph.clone(), weights).unwrap_err().to_string()
    };
    let without = refusal(|weights| drop(weights.remove("conv1.bias")));
    assert_eq!(without, "the weights of max-pooled have no `conv1.bias`, without which no tap can be computed");
    let shape = refusal(|weights| drop(weights.insert("fc2.bias".into(), WeightTensor::from_f32(vec![2], &[0.0; 2]))));
    assert_eq!(shape, "`fc2.bias` is [2] in the weights, but [3] in max-pooled");
    let not_finite = |weights: &mut Weights| {
        weights.insert("fc2.bias".into(), WeightTensor::from_f32(vec![3], &[0.0, f32::NAN, 0.0]));
    };
    assert_eq!(refusal(not_finite), "`fc2.bias` of the weights of max-pooled holds NaN at index 1");
}
