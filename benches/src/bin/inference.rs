//! Seconds of inference of a U-Net on 64 × 64 images and of the generator of a DCGAN of 32 × 32 images.
//!
//! `inference unet|dcgan BATCH`. Runs one warm-up and prints `ready`; then, for each line on standard input, a run, and
//! a line with its seconds. Made for `compare/inference.py`, which alternates it with PyTorch. `RAYON_NUM_THREADS` sets
//! the threads.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use nomaly_bench::networks::{generator, unet};
use nomaly_kernels::Isa;
use nomaly_kernels::geometry::OutputLayout;
use nomaly_nn::inference::Inference;
use nomaly_nn::init::pytorch_default;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: inference unet|dcgan BATCH";
    let [network, batch] = &words[..] else { return Err(usage.into()) };
    let batch: usize = batch.parse()?;
    let (graph, size) = match network.as_str() {
        "unet" => (unet()?, [64; 2]),
        "dcgan" => (generator(64)?, [1; 2]),
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
