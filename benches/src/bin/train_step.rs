//! Seconds of a training step of a wide residual network: forward, cross-entropy, backward, Adam.
//!
//! `train_step DEPTH WIDTH BATCH CLASSES`, on 32 × 32 images. Runs one warm-up step and prints `ready`; then, for each
//! line on standard input, one step, and a line with its seconds and its loss. Made for `compare/training.py`, which
//! alternates it with PyTorch. `RAYON_NUM_THREADS` sets the threads.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use nomaly_backbones::architectures::wide_resnet::WideResNet;
use nomaly_kernels::Isa;
use nomaly_nn::init::pytorch_default;
use nomaly_nn::trainable::{Network, NetworkOptimizer, Rule};

const SIDE: usize = 32;

fn main() -> Result<(), Box<dyn Error>> {
    let numbers = std::env::args().skip(1).map(|word| word.parse()).collect::<Result<Vec<usize>, _>>()?;
    let [depth, width, batch, classes] = numbers[..] else {
        return Err("usage: train_step DEPTH WIDTH BATCH CLASSES".into());
    };
    if depth < 10 || (depth - 4) % 6 != 0 {
        return Err(format!("a depth of {depth} is not 6 · blocks + 4").into());
    }
    let graph = WideResNet::new((depth - 4) / 6, width).graph(classes);
    let mut network = Network::new(&graph, &["logits"], [SIDE; 2], &pytorch_default(&graph, 0), Isa::best()?)?;
    let mut optimizer = NetworkOptimizer::new(Rule::adam(1e-3));
    let mix = |i: u32| i.wrapping_mul(2_654_435_761) >> 8;
    let images: Vec<f32> =
        (0..(batch * 3 * SIDE * SIDE) as u32).map(|i| mix(i) as f32 / (1 << 23) as f32 - 1.0).collect();
    let labels: Vec<u32> = (0..batch as u32).map(|i| mix(i) % classes as u32).collect();

    let mut step = || -> Result<(f64, f32), Box<dyn Error>> {
        let began = Instant::now();
        let loss = network.classify(&images, &labels)?;
        network.step(&mut optimizer)?;
        Ok((began.elapsed().as_secs_f64(), loss))
    };
    step()?;
    println!("ready");
    for line in std::io::stdin().lines() {
        line?;
        let (seconds, loss) = step()?;
        println!("{seconds} {loss}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
