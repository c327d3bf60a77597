//! He-normal initialization.

use std::f64::consts::TAU;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::graph::{Graph, ParameterRole};
use crate::weights::{WeightTensor, Weights};

/// The deviation of learned tokens and position embeddings (Dosovitskiy et al. 2021, and the code of DINOv2).
pub(super) const EMBEDDING: f64 = 0.02;

/// Draws all parameters of `graph`: convolutions and linear layers He-normal, biases and running means 0, the factors
/// of norms and of LayerScale and running variances 1, learned tokens and position embeddings normal with deviation
/// 0.02.
///
/// He-normal numbers have mean 0 and variance 2 / fan-in, which keeps the variance of a ReLU network constant with
/// depth (He et al., *Delving Deep into Rectifiers*, 2015, equation 10). Each tensor has its own random stream, so
/// cutting or extending a network does not change the others.
pub fn he_normal(graph: &Graph, seed: u64) -> Weights {
    let mut weights = Weights::new();
    for (stream, parameter) in graph.parameters().into_iter().enumerate() {
        let count = parameter.shape.iter().product();
        let values = match parameter.role {
            ParameterRole::Weight => {
                let fan_in = parameter.shape[1..].iter().product::<usize>().max(1);
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(stream as u64);
                normal(&mut rng, count, (2.0 / fan_in as f64).sqrt())
            }
            ParameterRole::Embedding => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(stream as u64);
                normal(&mut rng, count, EMBEDDING)
            }
            ParameterRole::Bias | ParameterRole::NormShift | ParameterRole::RunningMean => vec![0.0; count],
            ParameterRole::NormScale | ParameterRole::LayerScale | ParameterRole::RunningVariance => vec![1.0; count],
        };
        weights.insert(parameter.name, WeightTensor::from_f32(parameter.shape, &values));
    }
    weights
}

/// Normal numbers of mean 0 by the Box–Muller transform, two from each pair of uniform ones.
pub(super) fn normal(rng: &mut impl Rng, count: usize, deviation: f64) -> Vec<f32> {
    let mut uniform = || (f64::from(rng.next_u32()) + 0.5) / (f64::from(u32::MAX) + 1.0);
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt() * deviation, TAU * uniform());
        values.push((radius * angle.cos()) as f32);
        values.push((radius * angle.sin()) as f32);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{ConvOptions, GraphBuilder};

    #[test]
    fn weights_have_the_variance_of_their_fan_in_and_follow_the_seed() {
        let mut builder = GraphBuilder::new(3);
        let x = builder.conv(GraphBuilder::INPUT, "conv", 256, ConvOptions::centered(3, 1));
        let x = builder.conv(x, "wide", 256, ConvOptions::centered(3, 1));
        builder.classifier(x, "fc", 72);
        let graph = builder.finish().unwrap();
        let weights = he_normal(&graph, 7);
        let conv = weights["wide.weight"].to_f32().unwrap();
        let n = conv.len() as f64;
        let mean = conv.iter().map(|&value| f64::from(value)).sum::<f64>() / n;
        let variance = conv.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / n;
        let expected = 2.0 / (256.0 * 9.0);
        // For 589 824 normal numbers, the standard error of the variance is 0.2 % of it, that of the mean 0.13 % of the
        // deviation.
        assert!((variance / expected - 1.0).abs() < 0.01, "{variance} {expected}");
        assert!(mean.abs() < 0.01 * expected.sqrt(), "{mean}");
        assert_eq!(weights["fc.weight"].shape, [72, 256]);
        assert_eq!(weights, he_normal(&graph, 7));
        assert_ne!(weights["conv.weight"], he_normal(&graph, 8)["conv.weight"]);
    }
}
