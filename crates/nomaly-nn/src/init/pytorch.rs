//! PyTorch's default initialization.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::graph::{Graph, ParameterRole};
use crate::weights::{WeightTensor, Weights};

use super::he::{EMBEDDING, normal};

/// Draws all parameters of `graph` as the constructors of `torch.nn.Conv2d`, `Linear` and `BatchNorm2d` do: weights and
/// biases uniform in ±1 / √fan-in (Kaiming-uniform with a = √5), norms and LayerScale as the identity. Learned
/// tokens and position embeddings, which have no constructor, are normal with deviation 0.02.
///
/// The numbers are not PyTorch's own. Each tensor has its own random stream, so extending a network does not change the
/// others.
pub fn pytorch_default(graph: &Graph, seed: u64) -> Weights {
    let mut weights = Weights::new();
    let mut bound = 0.0;
    for (stream, parameter) in graph.parameters().into_iter().enumerate() {
        let count = parameter.shape.iter().product();
        let values = match parameter.role {
            ParameterRole::Weight | ParameterRole::Bias => {
                // A bias follows the weight whose fan-in it shares.
                if parameter.role == ParameterRole::Weight {
                    let fan_in: usize = parameter.shape[1..].iter().product();
                    bound = (fan_in.max(1) as f64).powf(-0.5);
                }
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(stream as u64);
                let unit = |rng: &mut ChaCha8Rng| (f64::from(rng.next_u32()) + 0.5) / (f64::from(u32::MAX) + 1.0);
                (0..count).map(|_| ((2.0 * unit(&mut rng) - 1.0) * bound) as f32).collect()
            }
            ParameterRole::Embedding => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(stream as u64);
                normal(&mut rng, count, EMBEDDING)
            }
            ParameterRole::NormShift | ParameterRole::RunningMean => vec![0.0; count],
            ParameterRole::NormScale | ParameterRole::LayerScale | ParameterRole::RunningVariance => vec![1.0; count],
        };
        weights.insert(parameter.name, WeightTensor::from_f32(parameter.shape, &values));
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{ConvOptions, GraphBuilder};

    #[test]
    fn weights_fill_their_interval_and_follow_the_seed() {
        let mut builder = GraphBuilder::new(3);
        let x = builder.conv(GraphBuilder::INPUT, "conv", 256, ConvOptions::centered(3, 1));
        let x = builder.batch_norm(x, "bn", 1e-5);
        let x = builder.conv(x, "wide", 256, ConvOptions::centered(3, 1));
        builder.classifier(x, "fc", 72);
        let graph = builder.finish().unwrap();
        let weights = pytorch_default(&graph, 7);
        for (name, fan_in) in [("wide.weight", 256.0 * 9.0), ("fc.weight", 256.0), ("fc.bias", 256.0)] {
            let bound = f64::powf(fan_in, -0.5);
            let values = weights[name].to_f32().unwrap();
            let greatest = values.iter().map(|value| f64::from(value.abs())).fold(0.0, f64::max);
            // The maximum of 72 or more numbers is within 20 % of the bound, except in one draw in ten million.
            assert!(greatest <= bound && greatest > 0.8 * bound, "{name}: {greatest} {bound}");
        }
        assert_eq!(weights["bn.weight"].to_f32().unwrap(), [1.0; 256]);
        assert_eq!(weights, pytorch_default(&graph, 7));
        assert_ne!(weights["conv.weight"], pytorch_default(&graph, 8)["conv.weight"]);
    }
}
