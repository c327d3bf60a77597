//! Weights and inputs made by a formula, the same as in the scripts that make fixtures; the tests of `nomaly-backbones`
//! share them.

use nomaly_nn::graph::{Graph, Parameter, ParameterRole};
use nomaly_nn::weights::{WeightTensor, Weights};

/// Numbers in [-1, 1), a fixed function of `name` and the index.
pub(crate) fn values(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let seed = name.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (0..count as u32).map(move |index| {
        let mut x = index.wrapping_mul(0x9E37_79B1).wrapping_add(seed);
        x ^= x >> 15;
        x = x.wrapping_mul(0x2C1B_3C6D);
        x ^= x >> 12;
        f64::from(x >> 8) / f64::from(1 << 23) - 1.0
    })
}

pub(crate) fn tensor(Parameter { name, shape, role }: &Parameter) -> WeightTensor {
    let (offset, factor) = match role {
        ParameterRole::Weight => (0.0, (6.0 / shape[1..].iter().product::<usize>() as f64).sqrt()),
        ParameterRole::Bias | ParameterRole::NormShift | ParameterRole::RunningMean => (0.0, 0.1),
        ParameterRole::NormScale => (0.7, 0.1),
        ParameterRole::LayerScale => (0.5, 0.25),
        ParameterRole::Embedding => (0.0, 0.5),
        ParameterRole::RunningVariance => (1.0, 0.25),
    };
    let count = shape.iter().product();
    let values: Vec<f32> = values(name, count).map(|u| (offset + factor * u) as f32).collect();
    WeightTensor::from_f32(shape.clone(), &values)
}

/// All parameters of a graph.
pub(crate) fn weights(graph: &Graph) -> Weights {
    graph.parameters().iter().map(|parameter| (parameter.name.clone(), tensor(parameter))).collect()
}

/// An image `[3, height, width]` with values in [-2, 2).
pub(crate) fn image([height, width]: [usize; 2]) -> Vec<f32> {
    values("input", 3 * height * width).map(|u| (2.0 * u) as f32).collect()
}
