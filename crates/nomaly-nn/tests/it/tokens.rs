//! Vision transformers: every intermediate result, gradients and training steps against PyTorch
//! (`tests/fixtures/gen_vit.py`), on every runtime and instruction set.

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Activation, OutputLayout};
use nomaly_kernels::training::mean_squared_error;
use nomaly_nn::graph::{
    AxialRotary, BlockOptions, ConvOptions, Graph, GraphBuilder, GraphError, LearnedGrid, NodeLayout, PositionResize,
};
use nomaly_nn::inference::Inference;
use nomaly_nn::runtime::{CpuRuntime, Runtime};
use nomaly_nn::trainable::{Network, NetworkOptimizer, Pass, Rule};
use nomaly_nn::weights::{WeightTensor, Weights};
use nomaly_nn::{CompileError, compile};
use serde_json::Value;

use crate::formula;
use crate::networks::{GRADIENT, Positions, assert_digest, assert_loss, assert_near, fixture, input, vit};

/// For each value of a result, relative to their root mean square: single against double precision.
const RESULT: f64 = 1e-6;

fn networks() -> Value {
    fixture(include_str!("../fixtures/vit.json"))
}

/// The networks of the fixture with the sizes of their images.
fn cases() -> [(&'static str, Graph, [usize; 2]); 4] {
    [
        ("plain", vit(0, Positions::Learned), [12, 28]),
        ("registers", vit(4, Positions::Learned), [28, 16]),
        ("rotary", vit(4, Positions::Rotary), [12, 20]),
        ("same-size", vit(0, Positions::Learned), [20, 20]),
    ]
}

fn taps(graph: &Graph) -> Vec<&str> {
    graph.taps().iter().map(|tap| tap.name.as_str()).collect()
}

/// Each tap in the order of its own values.
fn outputs(graph: &Graph) -> Vec<(usize, OutputLayout)> {
    let layout = |node: usize| match graph.nodes()[node].layout {
        NodeLayout::Tokens => OutputLayout::Rows,
        NodeLayout::Image => OutputLayout::Nchw,
    };
    graph.taps().iter().map(|tap| (tap.node, layout(tap.node))).collect()
}

fn run(network: &Inference, images: &[f32], batch: usize) -> Vec<Vec<f32>> {
    let mut results = vec![Vec::new(); network.output_count()];
    network.run(&[images], batch, &mut network.workspace(batch), &mut results).unwrap();
    results
}

fn runtimes() -> Vec<Box<dyn Runtime>> {
    #[allow(unused_mut)] // Only candle adds to it.
    let mut all: Vec<Box<dyn Runtime>> =
        Isa::available().into_iter().map(|isa| Box::new(CpuRuntime::new(isa)) as Box<dyn Runtime>).collect();
    #[cfg(feature = "candle")]
    all.push(Box::new(nomaly_nn::runtime::CandleRuntime::new(candle_core::Device::Cpu)));
    all
}

#[test]
fn every_intermediate_result_is_that_of_pytorch() {
    let want = networks();
    for (case, graph, [height, width]) in cases() {
        let (weights, names) = (formula::weights(&graph), taps(&graph));
        let images = input("input", 2 * 3 * height * width);
        let want = want[case]["results"].as_array().unwrap();
        assert_eq!(want.len(), names.len());
        let check = |what: &str, results: &[Vec<f32>]| {
            for ((name, result), want) in names.iter().zip(results).zip(want) {
                assert_digest(&format!("{what}, {case}: {name}"), result, want, RESULT);
            }
        };
        for isa in Isa::available() {
            let network = Inference::new(&graph, &weights, &[[height, width]], &outputs(&graph), isa).unwrap();
            let results = run(&network, &images, 2);
            check(&format!("{isa}"), &results);
            let mut trained = Network::new(&graph, &names, [height, width], &weights, isa).unwrap();
            trained.evaluate(&images).unwrap();
            for (place, result) in results.iter().enumerate() {
                assert_eq!(network.output_shape(place), trained.output_shapes()[place]);
                assert_near(&format!("{isa}, {case}: {}", names[place]), trained.output(place), result);
            }
        }
        for runtime in runtimes() {
            let runnable = runtime.prepare(&graph, &weights, &[[height, width]], &outputs(&graph)).unwrap();
            check(&runtime.name(), &runnable.run(&[&images]).unwrap());
        }
    }
}

#[test]
fn layer_scale_that_is_folded_computes_the_same() {
    for (case, graph, [height, width]) in cases() {
        let weights = formula::weights(&graph);
        let images = input("input", 2 * 3 * height * width);
        for isa in Isa::available() {
            let new = |outputs: &[(usize, OutputLayout)]| {
                Inference::new(&graph, &weights, &[[height, width]], outputs, isa).unwrap()
            };
            let all = outputs(&graph);
            // The results of the projections are outputs of the first alone, so that it has steps of their LayerScales.
            let (unfolded, folded) = (new(&all), new(&all[all.len() - 3..]));
            assert_eq!(unfolded.planar_steps(), folded.planar_steps() + 4);
            let (unfolded, folded) = (run(&unfolded, &images, 2), run(&folded, &images, 2));
            for (place, got) in folded.iter().enumerate() {
                let want = &unfolded[all.len() - 3 + place];
                let greatest = want.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                let far = got.iter().zip(want).find(|(got, want)| (*got - *want).abs() > 1e-5 * greatest);
                assert!(far.is_none(), "{isa}, {case}: {far:?}");
            }
        }
    }
}

/// The gradients that the fixture's loss has at the outputs: probes of the last two.
fn probes(graph: &Graph, lens: &[usize]) -> Vec<Vec<f32>> {
    let probe = |(name, len): (&str, &usize)| match name {
        "grid" | "class" => formula::values(name, *len).map(|value| value as f32).collect(),
        _ => Vec::new(),
    };
    taps(graph).into_iter().zip(lens).map(probe).collect()
}

#[test]
fn gradients_and_a_step_are_those_of_pytorch() {
    let want = networks();
    for (case, graph, [height, width]) in cases() {
        let (weights, want) = (formula::weights(&graph), &want[case]);
        let images = input("input", 2 * 3 * height * width);
        for isa in Isa::available() {
            let compute = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let mut network = Network::new(&graph, &taps(&graph), [height, width], &weights, isa)
                        .unwrap()
                        .with_input_gradient();
                    network.forward(&images).unwrap();
                    let lens: Vec<usize> = (0..graph.taps().len()).map(|tap| network.output(tap).len()).collect();
                    let probes = probes(&graph, &lens);
                    network.backward(&probes.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
                    network
                })
            };
            let (mut network, two) = (compute(1), compute(2));
            assert_eq!(network.gradients().count(), want["gradients"].as_object().unwrap().len());
            for ((name, _, values), (.., other)) in network.gradients().zip(two.gradients()) {
                assert!(values == other, "{isa}, {case}: {name} depends on the number of threads");
                assert_digest(&format!("{isa}, {case}: {name}"), values, &want["gradients"][name], GRADIENT);
            }
            assert_digest(&format!("{isa}, {case}: input"), network.input_gradient(), &want["input"], GRADIENT);
            network.step(&mut NetworkOptimizer::new(Rule::adamw(1e-3))).unwrap();
            network.forward(&images).unwrap();
            for (place, want) in want["second"].as_array().unwrap().iter().enumerate() {
                let output = network.output(graph.taps().len() - 2 + place);
                // AdamW divides by the root of gradients that may be mere rounding errors.
                assert_digest(&format!("{isa}, {case}: second {place}"), output, want, 1e-4);
            }
        }
    }
}

#[test]
fn a_step_of_a_block_is_that_of_pytorch() {
    let want = &networks()["block"];
    let mut g = GraphBuilder::new(64);
    let x = g.tokens(GraphBuilder::INPUT);
    let x = g.transformer_block(x, "block", BlockOptions::dinov2(2));
    g.tap("tokens", x);
    let graph = g.finish().unwrap();
    // The names of the fixture are those of the block alone.
    let weights: Weights = graph
        .parameters()
        .into_iter()
        .map(|parameter| {
            let own = nomaly_nn::graph::Parameter {
                name: parameter.name.strip_prefix("block.").unwrap().to_owned(),
                ..parameter.clone()
            };
            (parameter.name, formula::tensor(&own))
        })
        .collect();
    let tokens = input("input", 3 * 7 * 64);
    let mut planes = vec![0.0; tokens.len()];
    for (place, value) in tokens.iter().enumerate() {
        let (image, token, channel) = (place / (7 * 64), place / 64 % 7, place % 64);
        planes[(image * 64 + channel) * 7 + token] = *value;
    }
    let target: Vec<f32> = formula::values("target", tokens.len()).map(|value| value as f32).collect();
    for isa in Isa::available() {
        let mut network = Network::new(&graph, &["tokens"], [7, 1], &weights, isa).unwrap();
        let pass = |network: &mut Network| {
            network.forward(&planes).unwrap();
            let mut gradient = vec![0.0; target.len()];
            let loss = mean_squared_error(isa, network.output(0), &target, &mut gradient).unwrap();
            network.backward(&[&gradient]).unwrap();
            f64::from(loss)
        };
        assert_loss(&format!("{isa}: first loss"), pass(&mut network), &want["losses"][0], 1e-5);
        assert_eq!(network.gradients().count(), want["gradients"].as_object().unwrap().len());
        for (name, _, values) in network.gradients() {
            let name = name.strip_prefix("block.").unwrap();
            assert_digest(&format!("{isa}: {name}"), values, &want["gradients"][name], GRADIENT);
        }
        network.step(&mut NetworkOptimizer::new(Rule::sgd(0.05, 0.0))).unwrap();
        assert_loss(&format!("{isa}: second loss"), pass(&mut network), &want["losses"][1], 1e-5);
    }
}

#[test]
fn a_position_embedding_is_resized_as_by_pytorch() {
    let positions = fixture(include_str!("../fixtures/positions.json"));
    let learned: Vec<f32> = formula::values("pos_embed", 37 * 37 * 2).map(|value| value as f32).collect();
    let weights = Weights::from([("pos_embed".to_owned(), WeightTensor::from_f32(vec![1, 37 * 37, 2], &learned))]);
    let grids = positions["grids"].as_array().unwrap();
    assert_eq!(grids.len(), 10);
    for want in grids {
        let registers = want["registers"].as_bool().unwrap();
        let size = [0, 1].map(|axis: usize| want["size"][axis].as_u64().unwrap() as usize);
        let resize = if registers { PositionResize::Antialiased } else { PositionResize::Scaled { offset: 0.1 } };
        let mut g = GraphBuilder::new(2);
        let x = g.tokens(GraphBuilder::INPUT);
        let x = g.position_embedding(x, "pos_embed", LearnedGrid { prefix: 0, size: [37, 37] }, resize);
        let graph = g.finish().unwrap();
        let zeros = vec![0.0; 2 * size[0] * size[1]];
        let check = |what: &str, got: &[f32]| {
            assert_digest(&format!("{what}: {registers} {size:?}"), got, &want["digest"], RESULT);
            let want = want["values"].as_array().unwrap();
            assert_eq!(want.len(), got.len().div_ceil(7));
            for (got, want) in got.iter().step_by(7).zip(want) {
                let want = want.as_f64().unwrap();
                assert!((f64::from(*got) - want).abs() < 1e-5, "{what}: {registers} {size:?}: {got} for {want}");
            }
        };
        let isa = Isa::best().unwrap();
        let network = Inference::new(&graph, &weights, &[size], &[(x, OutputLayout::Rows)], isa).unwrap();
        check("inference", &run(&network, &zeros, 1)[0]);
        for runtime in runtimes() {
            let runnable = runtime.prepare(&graph, &weights, &[size], &[(x, OutputLayout::Rows)]).unwrap();
            check(&runtime.name(), &runnable.run(&[&zeros]).unwrap()[0]);
        }
    }
}

#[test]
fn gradients_are_the_same_on_every_runtime_frozen_and_accumulated() {
    for (case, graph, size) in cases() {
        let weights = formula::weights(&graph);
        let images = input("input", 2 * 3 * size[0] * size[1]);
        let nodes: Vec<usize> = graph.taps().iter().map(|tap| tap.node).collect();
        let mut network =
            Network::new(&graph, &taps(&graph), size, &weights, Isa::best().unwrap()).unwrap().with_input_gradient();
        network.forward(&images).unwrap();
        // Each tap has a gradient, so that the gradients of tokens meet.
        let probes: Vec<Vec<f32>> =
            (0..nodes.len()).map(|tap| input(&format!("probe{tap}"), network.output(tap).len())).collect();
        let probes: Vec<&[f32]> = probes.iter().map(Vec::as_slice).collect();
        network.backward(&probes).unwrap();
        for runtime in runtimes() {
            let mut other = runtime.trainable(&graph, &weights, &[size], &nodes).unwrap();
            other.set_input_gradient(true);
            other.set_accumulating(true);
            other.clear_gradients();
            for pass in [Pass::Train, Pass::Evaluate] {
                other.run(&[&images], pass).unwrap();
                other.backward(&probes).unwrap();
            }
            let got = other.gradients().unwrap();
            for (name, _, want) in network.gradients() {
                let twice: Vec<f32> = want.iter().map(|value| 2.0 * value).collect();
                assert_near(&format!("{}, {case}: {name}", runtime.name()), &got[name], &twice);
            }
            other.set_frozen(true);
            other.run(&[&images], Pass::Train).unwrap();
            other.backward(&probes).unwrap();
            assert_near(
                &format!("{}, {case}: input", runtime.name()),
                other.input_gradient(0),
                network.input_gradient(),
            );
            assert_eq!(other.gradients().unwrap(), got, "{}: a frozen network", runtime.name());
        }
    }
}

#[test]
fn results_depend_neither_on_the_batch_nor_on_threads() {
    for (case, graph, [height, width]) in cases() {
        for isa in Isa::available() {
            let all = outputs(&graph);
            let last = &all[all.len() - 2..];
            let network = Inference::new(&graph, &formula::weights(&graph), &[[height, width]], last, isa).unwrap();
            let images = input("input", 5 * 3 * height * width);
            let [one, three] = [1, 3].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| run(&network, &images, 5))
            });
            assert!(one == three, "{isa}, {case}");
            let (mut workspace, mut alone) = (network.workspace(1), vec![Vec::new(); 2]);
            for (image, values) in images.chunks_exact(images.len() / 5).enumerate() {
                network.run(&[values], 1, &mut workspace, &mut alone).unwrap();
                for (place, output) in alone.iter().enumerate() {
                    let len = network.output_len(place);
                    assert!(*output == one[place][image * len..][..len], "{isa}, {case}: {place} of image {image}");
                }
            }
        }
    }
}

#[test]
fn tokens_are_written_in_every_layout() {
    let (graph, isa) = (vit(4, Positions::Learned), Isa::best().unwrap());
    let weights = formula::weights(&graph);
    let images = input("input", 2 * 3 * 12 * 20);
    // Alone and together, as a node may have several outputs.
    for tap in ["embedded", "sum-0", "norm", "grid", "class"] {
        let node = graph.taps().iter().find(|found| found.name == tap).unwrap().node;
        let layouts = [OutputLayout::Nchw, OutputLayout::Rows, OutputLayout::Mean];
        let together: Vec<_> = layouts.iter().map(|&layout| (node, layout)).collect();
        let together = Inference::new(&graph, &weights, &[[12, 20]], &together, isa).unwrap();
        let [channels, height, width] = together.output_shape(0);
        let count = height * width;
        let results = run(&together, &images, 2);
        for (place, &layout) in layouts.iter().enumerate() {
            let alone = Inference::new(&graph, &weights, &[[12, 20]], &[(node, layout)], isa).unwrap();
            assert_near(&format!("{tap}: {layout:?} alone"), &run(&alone, &images, 2)[0], &results[place]);
        }
        for image in 0..2 {
            for channel in 0..channels {
                let planar = &results[0][(image * channels + channel) * count..][..count];
                let rows: Vec<f32> =
                    (0..count).map(|at| results[1][(image * count + at) * channels + channel]).collect();
                assert_eq!(planar, rows, "{tap}: channel {channel} of image {image}");
                let mean = planar.iter().sum::<f32>() / count as f32;
                assert!((results[2][image * channels + channel] - mean).abs() < 1e-4, "{tap}: mean");
            }
        }
    }
}

#[test]
fn images_and_tokens_are_told_apart() {
    let build = |describe: &dyn Fn(&mut GraphBuilder)| {
        let mut builder = GraphBuilder::new(12);
        describe(&mut builder);
        builder.finish().unwrap_err()
    };
    let (image, tokens) = (NodeLayout::Image, NodeLayout::Tokens);
    let refused =
        |layer: &str, input, expected, found| GraphError::Layout { layer: layer.to_owned(), input, expected, found };
    assert_eq!(build(&|g| _ = g.layer_norm(0, "norm", 1e-6)), refused("`norm`", 0, tokens, image));
    assert_eq!(build(&|g| _ = g.attention(0, 1, None)), refused("`attention`", 0, tokens, image));
    assert_eq!(build(&|g| _ = g.token_grid(0, 1)), refused("`token grid`", 0, tokens, image));
    let conv = build(&|g| {
        let x = g.tokens(0);
        g.conv(x, "conv", 8, ConvOptions::POINTWISE);
    });
    assert_eq!(conv, refused("`conv`", 1, image, tokens));
    let sum = build(&|g| {
        let x = g.tokens(0);
        g.add(x, 0);
    });
    assert_eq!(sum, refused("`sum`", 0, tokens, image));
    let rotary = Some(AxialRotary { prefix: 0, base: 100.0 });
    for (count, rotary) in [(3, None), (0, None), (2, rotary)] {
        let found = build(&|g| {
            let x = g.tokens(0);
            g.attention(x, count, rotary);
        });
        assert_eq!(found, GraphError::Heads { node: 2, heads: count, channels: 12 });
    }
    assert_eq!(refused("`conv`", 1, image, tokens).to_string(), "`conv` needs an image, but node 1 gives tokens");
}

#[test]
fn tokens_that_are_no_grid_are_refused() {
    let build = |describe: &dyn Fn(&mut GraphBuilder, usize)| {
        let mut builder = GraphBuilder::new(12);
        let x = builder.tokens(0);
        let x = builder.insert_tokens(x, "class", 0, 1);
        let x = builder.activation(x, Activation::Gelu);
        describe(&mut builder, x);
        builder.finish().unwrap().shapes(&[[2, 3]])
    };
    assert_eq!(build(&|g, x| _ = g.token_grid(x, 1)).unwrap().last(), Some(&[12, 2, 3]));
    assert_eq!(
        build(&|g, x| _ = g.token_grid(x, 0)).unwrap_err().to_string(),
        "`token grid` cannot take [12, 7, 1]: 2 x 3 positions behind 0 others are 6 tokens"
    );
    assert_eq!(
        build(&|g, x| _ = g.select_token(x, 7)).unwrap_err().to_string(),
        "`token selection` cannot take [12, 7, 1]: it needs 8 tokens"
    );
    let grid = LearnedGrid { prefix: 2, size: [4, 4] };
    for error in [
        build(&|g, x| _ = g.insert_tokens(x, "more", 8, 1)),
        build(&|g, x| _ = g.position_embedding(x, "pos_embed", grid, PositionResize::Antialiased)),
        build(&|g, x| _ = g.attention(x, 1, Some(AxialRotary { prefix: 0, base: 100.0 }))),
    ] {
        assert!(matches!(error, Err(GraphError::Size { .. })), "{error:?}");
    }
}

#[test]
fn what_a_plan_cannot_have_and_weights_that_do_not_fit_are_refused() {
    let (graph, isa) = (vit(4, Positions::Learned), Isa::best().unwrap());
    let weights = formula::weights(&graph);
    let (node, size) = (graph.taps()[graph.taps().len() - 2].node, [12, 20]);
    let error = compile(&graph, &weights, size, &[(node, OutputLayout::Nchw)], isa).unwrap_err();
    assert!(matches!(error, CompileError::Unsupported { operation: "tokens" }), "{error}");
    for name in ["patch_embed.proj.bias", "cls_token", "pos_embed", "blocks.0.attn.qkv.bias", "blocks.1.ls2.gamma"] {
        let new = |weights: &Weights| Inference::new(&graph, weights, &[size], &[(node, OutputLayout::Nchw)], isa);
        let mut other = weights.clone();
        other.remove(name);
        let error = new(&other).map(drop).unwrap_err();
        assert!(matches!(&error, CompileError::MissingTensor { tensor } if tensor == name), "{name}: {error}");
        other.insert(name.to_owned(), WeightTensor::from_f32(vec![3], &[0.0; 3]));
        let error = new(&other).map(drop).unwrap_err();
        assert!(matches!(error, CompileError::Network(_)), "{name}: {error}");
    }
}
