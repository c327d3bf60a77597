//! Inference of graphs with every node, against evaluation by the training engine and against compiled plans.

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Activation, OutputLayout};
use nomaly_kernels::network::NetworkError;
use nomaly_nn::graph::{ConvOptions, ConvTransposeOptions, Graph, GraphBuilder, GraphError, PaddingRule};
use nomaly_nn::inference::{Inference, InferenceError};
use nomaly_nn::trainable::{Network, Pass};
use nomaly_nn::{CompileError, compile};

use crate::formula;
use crate::networks::{critic, generator, input, mobile, unet};

/// Relative to the largest value: sums in another order, Winograd's algorithm, and folded norms, a dozen layers deep.
const TOLERANCE: f32 = 2e-5;

fn assert_near(name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}");
    let greatest = want.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    assert!(greatest > 0.0, "{name}: only zeros");
    for (index, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= TOLERANCE * greatest, "{name}: {a} and {b} at {index}");
    }
}

/// All taps of a graph as outputs.
fn taps(graph: &Graph) -> Vec<(usize, OutputLayout)> {
    graph.taps().iter().map(|tap| (tap.node, OutputLayout::Nchw)).collect()
}

fn run(network: &Inference, inputs: &[&[f32]], batch: usize) -> Vec<Vec<f32>> {
    let mut outputs = vec![Vec::new(); network.output_count()];
    network.run(inputs, batch, &mut network.workspace(batch), &mut outputs).unwrap();
    outputs
}

/// A generator of residual blocks with instance norm, noise as a second input, and outputs within it.
fn residual() -> Graph {
    let mut g = GraphBuilder::new(3);
    let noise = g.input(4);
    let x = g.conv_with_bias(GraphBuilder::INPUT, "stem", 8, ConvOptions::centered(3, 1));
    let x = g.instance_norm(x, "in0", 1e-5, false);
    let stem = g.activation(x, Activation::Relu);
    g.tap("stem", stem);
    let x = g.conv(stem, "a", 8, ConvOptions::centered(3, 1));
    let x = g.instance_norm(x, "in1", 1e-5, true);
    let x = g.dropout(x, 0.5);
    let sum = g.add(stem, x);
    let from_noise = g.conv_with_bias(noise, "noise", 8, ConvOptions::POINTWISE);
    let sum = g.add(sum, from_noise);
    let sum = g.activation(sum, Activation::Silu);
    g.tap("sum", sum);
    let pooled = g.global_avg_pool(sum);
    let gate = g.linear(pooled, "gate", 8);
    let gate = g.softmax(gate);
    g.tap("gate", gate);
    let x = g.gate(sum, gate);
    let twice = g.add(x, x);
    let x = g.batch_norm(twice, "bn", 1e-5);
    let x = g.activation(x, Activation::Relu6);
    let x = g.conv_transpose(x, "up", 4, ConvTransposeOptions::new(3, 2, 1).with_bias());
    let up = g.batch_norm(x, "bn_up", 1e-5);
    g.tap("up", up);
    let x = g.activation(up, Activation::leaky_relu(0.1));
    let x = g.max_pool(x, 3, 2, PaddingRule::Symmetric(1));
    let x = g.global_max_pool(x);
    g.tap("maximum", x);
    g.finish().unwrap()
}

/// The graphs with the sizes of their inputs.
fn graphs() -> [(&'static str, Graph, Vec<[usize; 2]>); 5] {
    [
        ("unet", unet(), vec![[16; 2]]),
        ("mobile", mobile(), vec![[16; 2]]),
        ("generator", generator(), vec![[1; 2]]),
        ("critic", critic(), vec![[16; 2]]),
        ("residual", residual(), vec![[9, 7]; 2]),
    ]
}

/// Values of all inputs for a batch.
fn inputs_of(network: &Inference, batch: usize) -> Vec<Vec<f32>> {
    let shapes = network.input_shapes().iter().enumerate();
    shapes.map(|(place, shape)| input(&format!("input{place}"), batch * shape.iter().product::<usize>())).collect()
}

fn slices(values: &[Vec<f32>]) -> Vec<&[f32]> {
    values.iter().map(Vec::as_slice).collect()
}

#[test]
fn inference_is_evaluation_on_every_instruction_set() {
    for (name, graph, sizes) in graphs() {
        let weights = formula::weights(&graph);
        let names: Vec<&str> = graph.taps().iter().map(|tap| tap.name.as_str()).collect();
        for isa in Isa::available() {
            let network = Inference::new(&graph, &weights, &sizes, &taps(&graph), isa).unwrap();
            let inputs = inputs_of(&network, 3);
            let outputs = run(&network, &slices(&inputs), 3);
            let mut reference = Network::with_inputs(&graph, &names, &sizes, &weights, isa).unwrap();
            reference.run(&slices(&inputs), Pass::Evaluate).unwrap();
            for (place, output) in outputs.iter().enumerate() {
                assert_eq!(network.output_shape(place), reference.output_shapes()[place]);
                assert_near(&format!("{isa}: {name}, {}", names[place]), output, reference.output(place));
            }
        }
    }
}

#[test]
fn transposed_convolutions_of_every_geometry_are_those_of_training() {
    // (side of the input, kernel, stride, padding, output padding)
    let cases = [
        (1, 4, 1, 0, 0),
        (1, 3, 2, 0, 0),
        (1, 4, 2, 1, 0),
        (3, 4, 2, 1, 0),
        (3, 2, 2, 0, 0),
        (3, 3, 2, 1, 1),
        (3, 3, 2, 1, 0),
        (3, 3, 1, 1, 0),
        (2, 5, 1, 0, 0),
        (3, 5, 2, 2, 1),
        (3, 1, 2, 0, 0),
        (3, 1, 2, 0, 1),
        (2, 6, 3, 1, 0),
        (2, 5, 3, 1, 0),
        (3, 4, 1, 2, 0),
    ];
    for (side, kernel, stride, padding, output_padding) in cases {
        let mut g = GraphBuilder::new(40);
        let options = ConvTransposeOptions { output_padding, ..ConvTransposeOptions::new(kernel, stride, padding) };
        let x = g.conv_transpose(GraphBuilder::INPUT, "up", 5, options.with_bias());
        let x = g.batch_norm(x, "bn", 1e-5);
        let x = g.activation(x, Activation::Silu);
        g.tap("image", x);
        let graph = g.finish().unwrap();
        let weights = formula::weights(&graph);
        for isa in Isa::available() {
            let network = Inference::new(&graph, &weights, &[[side; 2]], &taps(&graph), isa).unwrap();
            let images = inputs_of(&network, 2);
            let mut reference = Network::new(&graph, &["image"], [side; 2], &weights, isa).unwrap();
            reference.evaluate(&images[0]).unwrap();
            let name = format!("{isa}: {side}, kernel {kernel}, stride {stride}, padding {padding}, {output_padding}");
            assert_near(&name, &run(&network, &slices(&images), 2)[0], reference.output(0));
        }
    }
}

#[test]
fn a_network_that_a_plan_has_is_that_plan() {
    let mut g = GraphBuilder::new(3);
    let x = g.conv(GraphBuilder::INPUT, "stem", 16, ConvOptions::centered(3, 2));
    let x = g.batch_norm(x, "bn", 1e-5);
    let stem = g.activation(x, Activation::Relu);
    g.tap("stem", stem);
    let x = g.conv(stem, "deep", 16, ConvOptions::centered(3, 1));
    let x = g.add(x, stem);
    g.classifier(x, "fc", 5);
    let graph = g.finish().unwrap();
    let weights = formula::weights(&graph);
    let [stem, logits] = [0, 1].map(|tap| graph.taps()[tap].node);
    let outputs = [(stem, OutputLayout::Rows), (logits, OutputLayout::Mean), (stem, OutputLayout::Nchw)];
    for isa in Isa::available() {
        let network = Inference::new(&graph, &weights, &[[19, 21]], &outputs, isa).unwrap();
        assert_eq!((network.segments().count(), network.planar_steps()), (1, 0));
        let compiled = compile(&graph, &weights, [19, 21], &outputs, isa).unwrap();
        let images = [formula::image([19, 21]), formula::image([19, 21])].concat();
        let mut want = vec![Vec::new(); 3];
        compiled.run(&images, 2, &mut compiled.workspace(2), &mut want).unwrap();
        assert_eq!(run(&network, &[&images], 2), want);
        // Its outputs are written directly: the workspace is that of the plan.
        assert_eq!(network.workspace(2).bytes(), compiled.workspace(2).bytes());
    }
}

#[test]
fn results_depend_neither_on_the_batch_nor_on_threads_nor_on_earlier_runs() {
    let isa = Isa::best().unwrap();
    for (name, graph, sizes) in graphs() {
        let network = Inference::new(&graph, &formula::weights(&graph), &sizes, &taps(&graph), isa).unwrap();
        let inputs = inputs_of(&network, 5);
        let [one, four] = [1, 4].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&network, &slices(&inputs), 5))
        });
        assert!(one == four, "{name}: four threads give another result than one");
        let mut workspace = network.workspace(1);
        let mut outputs = vec![vec![7.0; 3]; network.output_count()];
        for image in 0..5 {
            let parts: Vec<&[f32]> =
                inputs.iter().map(|all| all.chunks_exact(all.len() / 5).nth(image).unwrap()).collect();
            network.run(&parts, 1, &mut workspace, &mut outputs).unwrap();
            for (place, output) in outputs.iter().enumerate() {
                let len = network.output_len(place);
                assert!(
                    *output == one[place][image * len..(image + 1) * len],
                    "{name}: output {place} of image {image}"
                );
            }
        }
        // A workspace grows with the batch, and keeps its memory from then on.
        network.run(&slices(&inputs), 5, &mut workspace, &mut outputs).unwrap();
        assert!(outputs == one, "{name}");
        let (bytes, at) = (workspace.bytes(), outputs.iter().map(Vec::as_ptr).collect::<Vec<_>>());
        network.run(&slices(&inputs), 5, &mut workspace, &mut outputs).unwrap();
        assert_eq!((workspace.bytes(), outputs.iter().map(Vec::as_ptr).collect()), (bytes, at), "{name}");
    }
}

#[test]
fn threads_share_a_network() {
    let graph = unet();
    let isa = Isa::best().unwrap();
    let network = Inference::new(&graph, &formula::weights(&graph), &[[16; 2]], &taps(&graph), isa).unwrap();
    let images = inputs_of(&network, 2);
    let want = run(&network, &slices(&images), 2);
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| run(&network, &slices(&images), 2))).collect();
        runs.into_iter().for_each(|run| assert!(run.join().unwrap() == want));
    });
}

#[test]
fn outputs_have_the_layout_that_is_asked_for_wherever_they_are_computed() {
    let graph = unet();
    let isa = Isa::best().unwrap();
    let weights = formula::weights(&graph);
    let nodes: Vec<usize> = (0..graph.nodes().len()).collect();
    let with = |layout: OutputLayout| {
        let outputs: Vec<_> = nodes.iter().map(|&node| (node, layout)).collect();
        let network = Inference::new(&graph, &weights, &[[16; 2]], &outputs, isa).unwrap();
        let results = run(&network, &slices(&inputs_of(&network, 2)), 2);
        (network, results)
    };
    let (network, planar) = with(OutputLayout::Nchw);
    let [(_, rows), (_, means)] = [OutputLayout::Rows, OutputLayout::Mean].map(with);
    for node in nodes {
        let [channels, height, width] = network.output_shape(node);
        let plane = height * width;
        let images = planar[node].chunks_exact(channels * plane).enumerate();
        for (image, values) in images {
            let mut want_rows = Vec::new();
            for position in 0..plane {
                want_rows.extend((0..channels).map(|channel| values[channel * plane + position]));
            }
            assert_near(
                &format!("rows of node {node}"),
                &rows[node][image * channels * plane..][..channels * plane],
                &want_rows,
            );
            // Relative to the largest value of a plane, as means may cancel.
            let greatest = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
            for (channel, plane_values) in values.chunks_exact(plane).enumerate() {
                let mean = plane_values.iter().sum::<f32>() / plane as f32;
                let got = means[node][image * channels + channel];
                assert!((got - mean).abs() <= TOLERANCE * greatest, "mean of node {node}: {got} and {mean}");
            }
        }
    }
}

#[test]
fn an_output_may_be_an_input_and_be_wanted_twice() {
    let mut g = GraphBuilder::new(1);
    let x = g.reshape(GraphBuilder::INPUT, [4, 1, 1]);
    let graph = g.finish().unwrap();
    let outputs = [(0, OutputLayout::Mean), (x, OutputLayout::Mean), (x, OutputLayout::Nchw), (0, OutputLayout::Rows)];
    let network = Inference::new(&graph, &formula::weights(&graph), &[[2, 2]], &outputs, Isa::best().unwrap()).unwrap();
    let image = [1.0, 2.0, 3.0, 6.0];
    assert_eq!(run(&network, &[&image], 1), [vec![3.0], image.to_vec(), image.to_vec(), image.to_vec()]);
    assert_eq!([0, 1].map(|output| network.output_shape(output)), [[1, 1, 1], [4, 1, 1]]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let isa = Isa::best().unwrap();
    let graph = unet();
    let weights = formula::weights(&graph);
    let outputs = taps(&graph);
    let new = |sizes: &[[usize; 2]], outputs: &[(usize, OutputLayout)]| {
        Inference::new(&graph, &weights, sizes, outputs, isa).map(drop).unwrap_err()
    };
    assert!(matches!(new(&[], &outputs), CompileError::Graph(GraphError::Inputs { expected: 1, found: 0 })));
    assert!(matches!(new(&[[15, 16]], &outputs), CompileError::Graph(GraphError::Size { .. })));
    assert!(matches!(new(&[[16; 2]], &[]), CompileError::Network(NetworkError::NoOutputs)));
    let beyond = [(graph.nodes().len(), OutputLayout::Nchw)];
    assert!(matches!(new(&[[16; 2]], &beyond), CompileError::Network(NetworkError::UnknownNode { .. })));
    for missing in ["up2.weight", "in1.bias", "dec2.weight"] {
        let mut fewer = weights.clone();
        fewer.remove(missing);
        let error = Inference::new(&graph, &fewer, &[[16; 2]], &outputs, isa).map(drop).unwrap_err();
        assert!(matches!(&error, CompileError::MissingTensor { tensor } if tensor == missing), "{error}");
    }
    for (tensor, other) in [("up2.weight", "in1.bias"), ("in1.weight", "up2.weight")] {
        let mut swapped = weights.clone();
        swapped.insert(tensor.to_owned(), weights[other].clone());
        let error = Inference::new(&graph, &swapped, &[[16; 2]], &outputs, isa).map(drop).unwrap_err();
        assert!(matches!(error, CompileError::Network(NetworkError::Length { .. })), "{error}");
    }

    let network = Inference::new(&graph, &weights, &[[16; 2]], &outputs, isa).unwrap();
    let image = vec![0.5; 2 * 256];
    let mut out = vec![Vec::new()];
    let mut own = network.workspace(1);
    let error = network.run(&[&image, &image], 1, &mut own, &mut out).unwrap_err();
    assert_eq!(error, InferenceError::Inputs { expected: 1, found: 2 });
    let error = network.run(&[&image], 2, &mut own, &mut out).unwrap_err();
    assert!(matches!(error, InferenceError::Network(NetworkError::Length { expected: 1024, found: 512, .. })));
    let error = network.run(&[&image], 1, &mut own, &mut []).unwrap_err();
    assert!(matches!(error, InferenceError::Network(NetworkError::OutputCount { expected: 1, found: 0 })));
    let other = critic();
    let other = Inference::new(&other, &formula::weights(&other), &[[16; 2]], &taps(&other), isa).unwrap();
    let error = network.run(&[&image], 1, &mut other.workspace(1), &mut out).unwrap_err();
    assert!(matches!(error, InferenceError::Network(NetworkError::Workspace { .. })));
}
