//! Graphs: what the builder refuses, the shapes of results, and the agreement of inference with evaluation.

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Activation, OutputLayout};
use nomaly_nn::compile;
use nomaly_nn::graph::{ConvOptions, Graph, GraphBuilder, GraphError, PaddingRule};
use nomaly_nn::trainable::Network;

use crate::formula;

/// Relative to the largest value: sums of up to 200 products in another order, twice.
const TOLERANCE: f32 = 1e-5;

/// Two branches with pooling of every kind, and an odd size.
pub(crate) fn branched() -> Graph {
    let mut builder = GraphBuilder::new(3);
    let x = builder.conv(GraphBuilder::INPUT, "conv1", 16, ConvOptions::padded(5, 2, 1));
    let x = builder.batch_norm(x, "bn1", 1e-5);
    let stem = builder.activation(x, Activation::Relu);
    let x = builder.conv_with_bias(stem, "conv2", 16, ConvOptions::centered(3, 1));
    let sum = builder.add(x, stem);
    builder.tap("sum", sum);
    let x = builder.max_pool(sum, 3, 2, PaddingRule::Same);
    let x = builder.conv_with_bias(x, "conv3", 8, ConvOptions::POINTWISE);
    builder.tap("narrow", x);
    builder.classifier(x, "fc", 4);
    builder.finish().unwrap()
}

#[test]
fn shapes_are_those_of_what_is_computed() {
    let graph = branched();
    let size = [21, 18];
    let shapes = graph.shapes(&[size]).unwrap();
    let weights = formula::weights(&graph);
    let outputs: Vec<_> = graph.taps().iter().map(|tap| (tap.node, OutputLayout::Nchw)).collect();
    let isa = Isa::best().unwrap();
    let plan = compile(&graph, &weights, size, &outputs, isa).unwrap();
    let mut network = Network::new(&graph, &["sum", "narrow", "logits"], size, &weights, isa).unwrap();
    let image = formula::image(size);
    let mut compiled = vec![Vec::new(); outputs.len()];
    plan.run(&image, 1, &mut plan.workspace(1), &mut compiled).unwrap();
    network.evaluate(&image).unwrap();
    for (place, tap) in graph.taps().iter().enumerate() {
        let shape = shapes[tap.node];
        assert_eq!((plan.output_shape(place), network.output_shapes()[place]), (shape, shape), "{}", tap.name);
        let greatest = compiled[place].iter().fold(0.0f32, |most, value| most.max(value.abs()));
        for (a, b) in compiled[place].iter().zip(network.output(place)) {
            assert!((a - b).abs() <= TOLERANCE * greatest, "{}: {a} and {b}", tap.name);
        }
    }
}

#[test]
fn a_description_that_contradicts_itself_is_refused() {
    let build = |describe: &dyn Fn(&mut GraphBuilder)| {
        let mut builder = GraphBuilder::new(4);
        describe(&mut builder);
        builder.finish().unwrap_err()
    };
    let unknown = build(&|g| _ = g.activation(7, Activation::Relu));
    assert_eq!(unknown, GraphError::UnknownNode { node: 1, input: 7 });
    let sum = build(&|g| {
        let x = g.conv(0, "a", 8, ConvOptions::POINTWISE);
        g.add(x, 0);
    });
    assert_eq!(sum, GraphError::Channels { node: 2, expected: 8, found: 4 });
    let groups = build(&|g| _ = g.conv(0, "a", 9, ConvOptions { groups: 2, ..ConvOptions::POINTWISE }));
    assert_eq!(groups, GraphError::Groups { layer: "a".to_owned(), groups: 2, inputs: 4, outputs: 9 });
    let names = build(&|g| {
        let x = g.conv(0, "a", 4, ConvOptions::POINTWISE);
        g.conv(x, "a", 4, ConvOptions::POINTWISE);
    });
    assert_eq!(names, GraphError::Duplicate { what: "parameter", name: "a.weight".to_owned() });
    let taps = build(&|g| {
        g.tap("x", 0);
        g.tap("x", 0);
    });
    assert_eq!(taps, GraphError::Duplicate { what: "tap", name: "x".to_owned() });
    assert!(matches!(build(&|g| _ = g.conv(0, "a", 4, ConvOptions::padded(0, 1, 0))), GraphError::Window { .. }));
    assert_eq!(build(&|g| _ = g.linear(0, "a", 0)), GraphError::NoChannels { node: 1 });
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let mut builder = GraphBuilder::new(1);
    let other = builder.input(1);
    builder.add(GraphBuilder::INPUT, other);
    let graph = builder.finish().unwrap();
    assert_eq!(graph.inputs().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(graph.shapes(&[[4, 4], [4, 4]]).unwrap()[2], [1, 4, 4]);
    assert!(matches!(graph.shapes(&[[4, 4], [4, 5]]), Err(GraphError::Size { .. })));
    assert_eq!(graph.shapes(&[[4, 4]]), Err(GraphError::Inputs { expected: 2, found: 1 }));
    let error = branched().shapes(&[[2, 2]]).unwrap_err().to_string();
    assert_eq!(error, "`conv1` cannot take [3, 2, 2]: its window is 5 x 5");
}
