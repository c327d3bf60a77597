//! The effect of a finite number of held-out scores on the run length of a chart.
//!
//! `cargo run --release -p nomaly-scorers --example run_lengths`
//!
//! Charts are calibrated on 10 samples of each size for an average run length of 500, and then run on the sample (drawn
//! with replacement) and on the distribution that it comes from.

use nomaly_scorers::decision::sequence::{ChartKind, ChartOptions, ControlChart};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const SAMPLES: u64 = 10;
const RUNS: u64 = 2000;
const ARL0: f64 = 500.0;

type Distribution = (&'static str, fn(&mut ChaCha8Rng) -> f64);

/// Uniform in (0, 1).
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (-2.0 * uniform(rng).ln()).sqrt() * (std::f64::consts::TAU * uniform(rng)).cos()
}

const DISTRIBUTIONS: [Distribution; 4] = [
    ("normal", normal),
    ("gumbel", |rng| -(-uniform(rng).ln()).ln()),
    ("exponential", |rng| -uniform(rng).ln()),
    ("log-normal", |rng| (0.5 * normal(rng)).exp()),
];

/// The mean run length on scores of `next`.
fn run_length(chart: &ControlChart, mut next: impl FnMut() -> f64) -> f64 {
    let mut total = 0u64;
    for _ in 0..RUNS {
        let mut monitor = chart.monitor();
        total += 1;
        while !monitor.push(next()).alarm {
            total += 1;
        }
    }
    total as f64 / RUNS as f64
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "| scores | chart | held-out | on the sample | on the distribution: median | second lowest to second highest |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, draw) in DISTRIBUTIONS {
        for kind in [ChartKind::CUSUM, ChartKind::EWMA] {
            for n in [300usize, 1000] {
                let (mut on_sample, mut on_truth) = (Vec::new(), Vec::new());
                for sample in 0..SAMPLES {
                    let mut rng = ChaCha8Rng::seed_from_u64(1000 + sample);
                    let held_out: Vec<f64> = (0..n).map(|_| draw(&mut rng)).collect();
                    let chart = ControlChart::calibrate(&held_out, &ChartOptions { kind, arl0: ARL0, seed: sample })?;
                    on_sample.push(run_length(&chart, || held_out[(uniform(&mut rng) * n as f64) as usize]));
                    on_truth.push(run_length(&chart, || draw(&mut rng)));
                }
                on_sample.sort_by(f64::total_cmp);
                on_truth.sort_by(f64::total_cmp);
                println!(
                    "| {name} | {} | {n} | {:.0} to {:.0} | {:.0} | {:.0} to {:.0} |",
                    kind.name(),
                    on_sample[0],
                    on_sample[SAMPLES as usize - 1],
                    on_truth[SAMPLES as usize / 2],
                    on_truth[1],
                    on_truth[SAMPLES as usize - 2],
                );
            }
        }
    }
    Ok(())
}
