//! Seconds of inference of a vision transformer up to its last tokens.
//!
//! `tokens BACKBONE SIZE BATCH`, with random weights, on square images of SIZE pixels. Runs one warm-up and prints
//! `ready`; then, for each line on standard input, a run, and a line with its seconds; for the line `profile` the times
//! of all steps on standard error as well. Made for `compare/tokens.py`, which alternates it with PyTorch.
//! `RAYON_NUM_THREADS` sets the threads.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::time::Instant;

use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
use nomaly_nn::runtime::Executor;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [backbone, size, batch] = &words[..] else { return Err("usage: tokens BACKBONE SIZE BATCH".into()) };
    let (size, batch): (usize, usize) = (size.parse()?, batch.parse()?);
    let taps = [TapRequest::new("patches", OutputLayout::Rows)];
    let extractor = Backbone::initialized(backbone, 0, 0)?.compile([size; 2], &taps, &Executor::cpu()?)?;
    let mix = |i: u32| i.wrapping_mul(2_654_435_761) >> 8;
    let len = batch * extractor.input_shape().iter().product::<usize>();
    let images: Vec<f32> = (0..len as u32).map(|i| mix(i) as f32 / (1 << 23) as f32 - 1.0).collect();
    let (mut workspace, mut outputs) = (extractor.workspace(batch), vec![Vec::new()]);
    extractor.run(&images, batch, &mut workspace, &mut outputs)?;
    println!("ready");
    for line in std::io::stdin().lines() {
        let began = Instant::now();
        if line? == "profile" {
            let times = extractor.profile(&images, batch, &mut workspace, &mut outputs)?;
            for (step, time) in extractor.steps().into_iter().zip(times) {
                let seconds = time.as_secs_f64();
                let rate = (step.flops * batch as u64) as f64 / 1e9 / seconds;
                eprintln!("{:8.3} ms {rate:6.1} GFLOP/s {} ({})", 1e3 * seconds, step.description, step.algorithm);
            }
        } else {
            extractor.run(&images, batch, &mut workspace, &mut outputs)?;
        }
        println!("{}", began.elapsed().as_secs_f64());
        std::io::stdout().flush()?;
    }
    Ok(())
}
