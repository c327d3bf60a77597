//! Seconds of training steps of several networks.
//!
//! `train_step NETWORK BATCH`. Runs one warm-up step and prints `ready`; then, for each line on standard input, one
//! step, and a line with its seconds and its loss. Made for `compare/training.py`, which alternates it with PyTorch and
//! describes the networks. `RAYON_NUM_THREADS` sets the threads.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use nomaly_backbones::architectures::efficientnet::{EfficientNet, Flavor};
use nomaly_backbones::architectures::wide_resnet::WideResNet;
use nomaly_bench::networks;
use nomaly_kernels::Isa;
use nomaly_kernels::training::{binary_cross_entropy, mean_squared_error};
use nomaly_nn::graph::Graph;
use nomaly_nn::init::pytorch_default;
use nomaly_nn::trainable::{Network, NetworkOptimizer, Pass, Rule};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Computes one step and returns the loss.
type Step = Box<dyn FnMut() -> Outcome<f32>>;

const USAGE: &str = "usage: train_step wrn-DEPTH-WIDTH|lite0|unet|gan|transposed BATCH";

fn mix(i: u32) -> u32 {
    i.wrapping_mul(2_654_435_761) >> 8
}

/// Values in [-1, 1).
fn numbers(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| mix(i) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn network(graph: &Graph, tap: &str, side: usize, isa: Isa) -> Outcome<Network> {
    Ok(Network::new(graph, &[tap], [side; 2], &pytorch_default(graph, 0), isa)?)
}

/// Cross-entropy over `classes`, with Adam.
fn classifier(graph: &Graph, side: usize, classes: u32, batch: usize, isa: Isa) -> Outcome<Step> {
    let mut network = network(graph, "logits", side, isa)?;
    let mut optimizer = NetworkOptimizer::new(Rule::adam(1e-3));
    let images = numbers(batch * 3 * side * side);
    let labels: Vec<u32> = (0..batch as u32).map(|i| mix(i) % classes).collect();
    Ok(Box::new(move || {
        let loss = network.classify(&images, &labels)?;
        network.step(&mut optimizer)?;
        Ok(loss)
    }))
}

/// The mean squared error of an image, with Adam.
fn regression(graph: &Graph, side: usize, channels: usize, batch: usize, isa: Isa) -> Outcome<Step> {
    let mut network = network(graph, "image", side, isa)?;
    let mut optimizer = NetworkOptimizer::new(Rule::adam(1e-3));
    let images = numbers(batch * channels * side * side);
    let mut gradient = Vec::new();
    let targets = numbers(batch * 3 * 64 * 64);
    Ok(Box::new(move || {
        network.forward(&images)?;
        gradient.resize(targets.len(), 0.0);
        let loss = mean_squared_error(isa, network.output(0), &targets, &mut gradient)?;
        network.backward(&[&gradient])?;
        network.step(&mut optimizer)?;
        Ok(loss)
    }))
}

/// A step of the critic on real and on made images, then one of the generator, with Adam (Radford et al. 2016).
fn gan(batch: usize, isa: Isa) -> Outcome<Step> {
    let mut generator = network(&networks::generator(32)?, "image", 1, isa)?;
    let mut critic = network(&networks::critic(32)?, "verdict", 32, isa)?.with_input_gradient();
    let mut rule = Rule::adam(2e-4);
    if let Rule::Adam { betas, .. } = &mut rule {
        betas[0] = 0.5;
    }
    let [mut moves_generator, mut moves_critic] = [rule, rule].map(NetworkOptimizer::new);
    let (real, latent) = (numbers(batch * 3 * 32 * 32), numbers(batch * 100));
    let judge = move |critic: &mut Network, images: &[f32], label: f32| -> Outcome<f32> {
        critic.forward(images)?;
        let (verdicts, labels) = (critic.output(0), vec![label; batch]);
        let mut gradient = vec![0.0; batch];
        let loss = binary_cross_entropy(isa, verdicts, &labels, &mut gradient)?;
        critic.backward(&[&gradient])?;
        Ok(loss)
    };
    Ok(Box::new(move || {
        generator.run(&[&latent], Pass::Train)?;
        critic.set_frozen(false);
        critic.set_input_gradient(false);
        critic.set_accumulating(true);
        critic.clear_gradients();
        judge(&mut critic, &real, 1.0)?;
        judge(&mut critic, generator.output(0), 0.0)?;
        critic.step(&mut moves_critic)?;
        critic.set_frozen(true);
        critic.set_input_gradient(true);
        let loss = judge(&mut critic, generator.output(0), 1.0)?;
        generator.backward(&[critic.input_gradient()])?;
        generator.step(&mut moves_generator)?;
        Ok(loss)
    }))
}

/// The step of a network by name.
fn step_of(name: &str, batch: usize, isa: Isa) -> Outcome<Step> {
    match name {
        "lite0" => {
            let lite = EfficientNet { width: 1.0, depth: 1.0, flavor: Flavor::Lite };
            classifier(&lite.graph(10), 224, 10, batch, isa)
        }
        "unet" => regression(&networks::unet()?, 64, 3, batch, isa),
        "transposed" => regression(&networks::transposed()?, 8, 128, batch, isa),
        "gan" => gan(batch, isa),
        _ => {
            let (depth, width) = name.strip_prefix("wrn-").and_then(|sizes| sizes.split_once('-')).ok_or(USAGE)?;
            let (depth, width): (usize, usize) = (depth.parse()?, width.parse()?);
            if depth < 10 || (depth - 4) % 6 != 0 {
                return Err(format!("a depth of {depth} is not 6 · blocks + 4").into());
            }
            classifier(&WideResNet::new((depth - 4) / 6, width).graph(72), 32, 72, batch, isa)
        }
    }
}

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, batch] = &words[..] else { return Err(USAGE.into()) };
    let mut step = step_of(name, batch.parse()?, Isa::best()?)?;
    step()?;
    println!("ready");
    for line in std::io::stdin().lines() {
        line?;
        let began = Instant::now();
        let loss = step()?;
        println!("{} {loss}", began.elapsed().as_secs_f64());
        std::io::stdout().flush()?;
    }
    Ok(())
}
