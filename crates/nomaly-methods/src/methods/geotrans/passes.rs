//! Uncertainty of the network by Monte Carlo dropout.
//!
//! Dropout stays active during scoring, so that each pass is a sample of the network. The spread over passes measures
//! the uncertainty that the training images leave (Gal & Ghahramani, *Dropout as a Bayesian Approximation*, ICML 2016).

use nomaly_nn::graph::Graph;
use nomaly_nn::runtime::{Executor, TrainableNetwork};
use nomaly_nn::trainable::Pass;
use nomaly_nn::weights::Weights;

use crate::MethodError;
use crate::networks::classifier::log_softmax;
use crate::score::MethodScore;
use crate::training::tap_node;

/// Inputs per run of the network.
const INPUTS_PER_RUN: usize = 72;

/// The parts of the score; each is a mean over the transformations.
pub(super) const PARTS: [&str; 5] = ["predictive-entropy", "mutual-information", "variance", "simple", "deviation"];

/// A network with dropout that runs several passes.
pub(super) struct Passes {
    graph: Graph,
    weights: Weights,
    size: [usize; 2],
    count: usize,
    seed: u64,
    executor: Executor,
}

/// Sums over the passes for one row of the table.
struct Row {
    /// Probabilities.
    mean: Vec<f64>,
    /// Entropies of the passes.
    entropy: f64,
    /// Probability of the right transformation, and its square.
    right: [f64; 2],
}

impl Passes {
    /// Plans `count` passes of the network `graph`, which has dropout, on images of `size`.
    pub(super) fn new(
        graph: Graph,
        weights: Weights,
        size: [usize; 2],
        count: usize,
        seed: u64,
        executor: &Executor,
    ) -> Result<Self, MethodError> {
        let passes = Self { graph, weights, size, count, seed, executor: executor.clone() };
        passes.network()?;
        Ok(passes)
    }

    /// The network; each scoring thread needs its own.
    pub(super) fn network(&self) -> Result<Box<dyn TrainableNetwork>, MethodError> {
        let logits = tap_node(&self.graph, "logits")?;
        Ok(self.executor.runtime().trainable(&self.graph, &self.weights, &[self.size], &[logits])?)
    }

    /// Scores an image, given as the `k` inputs of its transformations. The score is the entropy of the mean
    /// prediction, which is the mean entropy of the passes plus their mutual information. Its deviation is that of the
    /// entropies of the passes.
    pub(super) fn score(
        &self,
        inputs: &[f32],
        k: usize,
        network: &mut dyn TrainableNetwork,
    ) -> Result<MethodScore, MethodError> {
        let each = inputs.len() / k;
        let mut rows: Vec<Row> = (0..k).map(|_| Row { mean: vec![0.0; k], entropy: 0.0, right: [0.0; 2] }).collect();
        // The simple score of each pass, and its entropy.
        let mut simple = Vec::with_capacity(self.count);
        let mut entropies = Vec::with_capacity(self.count);
        let mut log_p = vec![0.0; k];
        for pass in 0..self.count {
            let (mut wrong, mut entropy) = (0.0, 0.0);
            for (part, (inputs, rows)) in
                inputs.chunks(INPUTS_PER_RUN * each).zip(rows.chunks_mut(INPUTS_PER_RUN)).enumerate()
            {
                // All inputs of a pass share the same dropout masks.
                network.seed_dropout(self.seed ^ (pass as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                network.run(&[inputs], Pass::Sample)?;
                for (at, (logits, row)) in network.output(0).chunks_exact(k).zip(rows).enumerate() {
                    log_softmax(logits, &mut log_p);
                    let mut of_row = 0.0;
                    for (mean, log_p) in row.mean.iter_mut().zip(&log_p) {
                        let p = log_p.exp();
                        *mean += p;
                        of_row -= p * log_p;
                    }
                    row.entropy += of_row;
                    entropy += of_row;
                    let right = log_p[part * INPUTS_PER_RUN + at].exp();
                    row.right[0] += right;
                    row.right[1] += right * right;
                    wrong += 1.0 - right;
                }
            }
            simple.push(wrong / k as f64);
            entropies.push(entropy / k as f64);
        }
        let n = self.count as f64;
        let mut parts = [0.0; PARTS.len()];
        let mut terms = Vec::with_capacity(k);
        for row in &rows {
            let predictive: f64 = row.mean.iter().map(|sum| -(sum / n) * (sum / n).ln()).sum();
            let mean = row.right[0] / n;
            let of_row = [
                predictive,
                (predictive - row.entropy / n).max(0.0),
                (row.right[1] / n - mean * mean).max(0.0),
                1.0 - mean,
            ];
            parts.iter_mut().zip(of_row).for_each(|(part, value)| *part += value / k as f64);
            terms.push(predictive / k as f64);
        }
        parts[4] = deviation(&simple);
        let deviation = Some(deviation(&entropies));
        Ok(MethodScore { deviation, parts: parts.to_vec(), terms, ..MethodScore::whole(parts[0]) })
    }
}

/// The population standard deviation.
fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt()
}

#[cfg(test)]
mod tests {
    use nomaly_backbones::Backbone;
    use nomaly_backbones::registry::BACKBONES;

    use super::*;

    fn passes(dropout: f32, count: usize) -> Passes {
        let start = Backbone::initialized("wrn-10-4", 3, 5).unwrap();
        let plain = BACKBONES.get("wrn-10-4").unwrap().architecture;
        let graph = plain.with_dropout(dropout).unwrap().graph(3);
        Passes::new(graph, start.export(&["logits"]).unwrap(), [8, 8], count, 1, &Executor::cpu().unwrap()).unwrap()
    }

    fn scored(passes: &Passes, inputs: &[f32]) -> MethodScore {
        passes.score(inputs, 3, passes.network().unwrap().as_mut()).unwrap()
    }

    #[test]
    fn deviations_are_those_of_numpy() {
        // np.std([1, 2, 4, 9])
        assert!((deviation(&[1.0, 2.0, 4.0, 9.0]) - 3.082_207_001_484_488_5).abs() < 1e-14);
    }

    #[test]
    fn passes_differ_by_dropout_alone() {
        let inputs: Vec<f32> = (0..3 * 3 * 64).map(|i| ((i * 37 % 101) as f32) / 50.0 - 1.0).collect();
        let without = scored(&passes(0.0, 4), &inputs);
        assert!(without.parts[1] < 1e-12 && without.parts[2] < 1e-12 && without.parts[4] < 1e-12, "{without:?}");
        assert!(without.deviation.unwrap() < 1e-12, "{without:?}");
        let with = scored(&passes(0.5, 16), &inputs);
        assert!(with.parts[1] > 1e-6 && with.parts[2] > 0.0 && with.parts[4] > 0.0, "{with:?}");
        assert!((1e-6..with.score).contains(&with.deviation.unwrap()), "{with:?}");
        assert!(with.parts[1] <= with.parts[0] && with.parts[0] <= 3f64.ln() + 1e-12, "{with:?}");
        assert!((with.terms.iter().sum::<f64>() - with.score).abs() < 1e-12);
        assert_eq!(with, scored(&passes(0.5, 16), &inputs));
    }
}
