//! Seconds of inference of a U-Net on 64 × 64 images and of the generator of a DCGAN of 32 × 32 images.
//!
//! `inference unet|dcgan BATCH`. Runs one warm-up and prints `ready`; then, for each line on standard input, a run, and
//! a line with its seconds. Made for `compare/inference.py`, which alternates it with PyTorch. `RAYON_NUM_THREADS` sets
//! the threads.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use nomaly_kernels::Isa;
use nomaly_kernels::geometry::{Activation, OutputLayout};
use nomaly_nn::graph::{ConvOptions, ConvTransposeOptions, Graph, GraphBuilder, GraphError, PaddingRule};
use nomaly_nn::inference::Inference;
use nomaly_nn::init::pytorch_default;

/// Channels of the U-Net's first level.
const WIDTH: usize = 32;

/// Two 3 × 3 convolutions with batch norm and ReLU.
fn double(g: &mut GraphBuilder, mut x: usize, name: &str, channels: usize) -> usize {
    for part in ["a", "b"] {
        x = g.conv(x, format!("{name}.{part}"), channels, ConvOptions::centered(3, 1));
        x = g.batch_norm(x, format!("{name}.{part}n"), 1e-5);
        x = g.activation(x, Activation::Relu);
    }
    x
}

/// Four levels down and up, with a skip at each (Ronneberger et al. 2015, with batch norm and padding).
fn unet() -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(3);
    let (mut x, mut skips) = (GraphBuilder::INPUT, Vec::new());
    for level in 0..4 {
        let skip = double(&mut g, x, &format!("down{level}"), WIDTH << level);
        skips.push(skip);
        x = g.max_pool(skip, 2, 2, PaddingRule::Symmetric(0));
    }
    x = double(&mut g, x, "middle", WIDTH << 4);
    for (level, skip) in skips.into_iter().enumerate().rev() {
        let options = ConvTransposeOptions::new(2, 2, 0).with_bias();
        x = g.conv_transpose(x, format!("up{level}"), WIDTH << level, options);
        x = g.concat(&[skip, x]);
        x = double(&mut g, x, &format!("join{level}"), WIDTH << level);
    }
    let x = g.conv_with_bias(x, "last", 3, ConvOptions::POINTWISE);
    g.tap("image", x);
    g.finish()
}

/// From 100 numbers to an image (Radford et al. 2016), 64 channels before the last layer.
fn dcgan() -> Result<Graph, GraphError> {
    let mut g = GraphBuilder::new(100);
    let mut x = GraphBuilder::INPUT;
    for (level, channels) in [256, 128, 64].into_iter().enumerate() {
        let options = if level == 0 { ConvTransposeOptions::new(4, 1, 0) } else { ConvTransposeOptions::new(4, 2, 1) };
        x = g.conv_transpose(x, format!("up{level}"), channels, options);
        x = g.batch_norm(x, format!("bn{level}"), 1e-5);
        x = g.activation(x, Activation::Relu);
    }
    x = g.conv_transpose(x, "last", 3, ConvTransposeOptions::new(4, 2, 1));
    let x = g.activation(x, Activation::Tanh);
    g.tap("image", x);
    g.finish()
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: inference unet|dcgan BATCH";
    let [network, batch] = &words[..] else { return Err(usage.into()) };
    let batch: usize = batch.parse()?;
    let (graph, size) = match network.as_str() {
        "unet" => (unet()?, [64; 2]),
        "dcgan" => (dcgan()?, [1; 2]),
        _ => return Err(usage.into()),
    };
    let output = [(graph.taps()[0].node, OutputLayout::Nchw)];
    let network = Inference::new(&graph, &pytorch_default(&graph, 0), &[size], &output, Isa::best()?)?;
    let mix = |i: u32| i.wrapping_mul(2_654_435_761) >> 8;
    let len = batch * network.input_shapes()[0].iter().product::<usize>();
    let images: Vec<f32> = (0..len as u32).map(|i| mix(i) as f32 / (1 << 23) as f32 - 1.0).collect();
    let (mut workspace, mut outputs) = (network.workspace(batch), vec![Vec::new()]);
    let mut run = || -> Result<f64, Box<dyn Error>> {
        let began = Instant::now();
        network.run(&[&images], batch, &mut workspace, &mut outputs)?;
        Ok(began.elapsed().as_secs_f64())
    };
    run()?;
    println!("ready");
    for line in std::io::stdin().lines() {
        line?;
        println!("{}", run()?);
        std::io::stdout().flush()?;
    }
    Ok(())
}
