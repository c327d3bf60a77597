//! Times the scores of GeoTrans without the network: by Dirichlet distributions and by entropy.
//!
//! ```console
//! $ cargo run --release -p nomaly-scorers --example time_normality -- 72 100 20
//! ```
//!
//! The arguments are the numbers of transformations, training images and test images. Vectors are the softmax of
//! synthetic logits that favour the right class to different degrees.

use std::time::{Duration, Instant};

use nomaly_scorers::dirichlet::{Dirichlet, SimplexStatistics};

/// Logarithms of the probabilities of `k` classes for each of `k` transformations.
fn table(state: &mut u64, k: usize) -> Vec<f64> {
    let mut uniform = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut table = Vec::with_capacity(k * k);
    for right in 0..k {
        let logits: Vec<f64> =
            (0..k).map(|class| 6.0 * uniform() + if class == right { 8.0 * uniform() } else { 0.0 }).collect();
        let log_sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        table.extend(logits.iter().map(|logit| logit - log_sum));
    }
    table
}

/// The shortest time of several runs, and their result.
fn timed<T>(mut run: impl FnMut() -> T) -> (Duration, T) {
    let mut best = (Duration::MAX, None);
    for _ in 0..5 {
        let began = Instant::now();
        let result = run();
        let took = began.elapsed();
        if took < best.0 {
            best = (took, Some(result));
        }
    }
    (best.0, best.1.expect("there were runs"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [k, train, test] = numbers[..] else {
        return Err("three numbers: transformations, training and test images".into());
    };
    let mut state = 1;
    let train: Vec<Vec<f64>> = (0..train).map(|_| table(&mut state, k)).collect();
    let test: Vec<Vec<f64>> = (0..test).map(|_| table(&mut state, k)).collect();

    let (fit, dirichlets) = timed(|| {
        (0..k)
            .map(|row| {
                let mut statistics = SimplexStatistics::new(k);
                train.iter().for_each(|table| statistics.push(&table[row * k..][..k]).expect("finite logarithms"));
                Dirichlet::fit(&statistics).expect("more than one vector")
            })
            .collect::<Vec<_>>()
    });
    let (dirichlet, a) = timed(|| {
        let score = |table: &Vec<f64>| -> f64 {
            let rows = table.chunks_exact(k).zip(&dirichlets);
            rows.map(|(row, dirichlet)| -dirichlet.normality(row).expect("finite logarithms")).sum()
        };
        test.iter().map(score).sum::<f64>()
    });
    let (entropy, b) = timed(|| test.iter().flatten().map(|log_p| -log_p.exp() * log_p).sum::<f64>());
    println!("{k} transformations, {} training and {} test images", train.len(), test.len());
    println!(
        "Dirichlet  fit {:9.3} ms, score {:8.3} ms  (sum {a:.1})",
        1e3 * fit.as_secs_f64(),
        1e3 * dirichlet.as_secs_f64()
    );
    println!("entropy                      score {:8.3} ms  (sum {b:.1})", 1e3 * entropy.as_secs_f64());
    println!("ratio, fit included: {:.1}", (fit + dirichlet).as_secs_f64() / entropy.as_secs_f64());
    Ok(())
}
