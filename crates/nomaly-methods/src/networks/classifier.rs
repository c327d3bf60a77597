//! Trained networks, ready for inference.

use std::sync::Arc;

use nomaly_backbones::{Backbone, BackboneError, TapRequest};
use nomaly_nn::runtime::{Executor, Runnable};
use nomaly_nn::weights::{WeightTensor, Weights};
use nomaly_scorers::{State, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::MethodError;
use crate::input::INPUT_SIDES;

/// A trained network, ready for inference. Its graph may have any operations and several inputs.
#[derive(Debug)]
pub struct TrainedNetwork {
    backbone: Backbone,
    inference: Arc<dyn Runnable>,
    /// Heights and widths of the inputs.
    sizes: Vec<[usize; 2]>,
    /// Names and shapes `[C, h, w]` of the computed taps.
    taps: Vec<String>,
    shapes: Vec<[usize; 3]>,
}

/// Buffers of a [`TrainedNetwork`], one set per thread.
#[derive(Debug, Default)]
pub struct NetworkBuffers {
    outputs: Vec<Vec<f32>>,
}

/// Inputs per run of a network: enough to keep all cores busy, few enough to stay in the caches.
pub(crate) const INPUTS_PER_RUN: usize = 32;

/// The name of the state of a trained network in a model file, for methods with one.
pub(crate) const STATE: &str = "network";

impl TrainedNetwork {
    /// The `taps` of a network with its weights, on the device of `executor`, for inputs of these heights and widths,
    /// in the order of their nodes.
    ///
    /// A network of the registry comes from [`Backbone::from_tensors`], that of a graph from [`Backbone::of_graph`].
    ///
    /// # Errors
    /// As [`Backbone::inference`].
    pub fn new(
        backbone: Backbone,
        sizes: &[[usize; 2]],
        taps: &[TapRequest],
        executor: &Executor,
    ) -> Result<Self, MethodError> {
        let inference = backbone.inference(sizes, taps, executor)?;
        let (shapes, taps) = (inference.output_shapes(), taps.iter().map(|tap| tap.name.clone()).collect());
        Ok(Self { backbone, inference, sizes: sizes.to_vec(), shapes, taps })
    }

    /// Empty buffers, for the first run to fill.
    pub fn buffers(&self) -> NetworkBuffers {
        NetworkBuffers::default()
    }

    /// The network with its weights.
    pub fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// Its weights.
    pub(crate) fn weights(&self) -> Weights {
        let taps: Vec<&str> = self.taps.iter().map(String::as_str).collect();
        self.backbone.export(&taps).expect("the taps are those it was made ready for")
    }

    /// Values of a tap per input.
    pub(crate) fn width(&self, tap: usize) -> usize {
        self.shapes[tap].iter().product()
    }

    /// The `[C, h, w]` of a tap, whatever its layout.
    ///
    /// # Panics
    /// Without such a tap.
    pub fn shape(&self, tap: usize) -> [usize; 3] {
        self.shapes[tap]
    }

    /// Runs the network on its `inputs`, `[N, C, H, W]` each, and returns the values of each tap. The values of an
    /// input do not depend on the others of its batch. Memory grows with N.
    ///
    /// # Errors
    /// Unless there is a slice for each input, and all have the same number of whole inputs.
    pub fn run<'b>(&self, inputs: &[&[f32]], buffers: &'b mut NetworkBuffers) -> Result<&'b [Vec<f32>], MethodError> {
        buffers.outputs = self.inference.run(inputs)?;
        Ok(&buffers.outputs)
    }

    /// The state in a model file, with the sizes of the inputs and the seed of the training.
    pub fn state(&self, seed: u64) -> State {
        let tensor = |(name, tensor): (String, WeightTensor)| {
            let values = tensor.to_f32().expect("weights were read when the network was made ready");
            (name, Tensor::f32(tensor.shape, values))
        };
        let tensors = self.weights().into_iter().map(tensor).collect();
        let size = match self.sizes[..] {
            [size] => Sizes::One(size),
            ref sizes => Sizes::Several(sizes.to_vec()),
        };
        State {
            kind: self.backbone.name().to_owned(),
            config: serde_json::json!({ "size": size, "seed": seed }),
            tensors,
        }
    }

    /// Restores the network `name` from its state in a model file; `open` makes the network of its weights.
    ///
    /// # Errors
    /// A state of another network, with an invalid size, or without a tensor that the taps need.
    pub fn restore(
        name: &str,
        state: State,
        open: impl FnOnce(Weights) -> Result<Backbone, BackboneError>,
        taps: &[TapRequest],
        executor: &Executor,
    ) -> Result<StoredNetwork, MethodError> {
        if state.kind != name {
            return Err(MethodError::State { state: STATE.to_owned(), reason: None });
        }
        let refuse = |reason: String| MethodError::State { state: STATE.to_owned(), reason: Some(reason) };
        let Config { size, seed } =
            serde_json::from_value(state.config.clone()).map_err(|error| refuse(error.to_string()))?;
        let sizes = match size {
            Sizes::One(size) => vec![size],
            Sizes::Several(sizes) => sizes,
        };
        if let Some(size) = sizes.iter().find(|size| size.iter().any(|side| !(1..=*INPUT_SIDES.end()).contains(side))) {
            return Err(refuse(format!("its input is {} x {}", size[0], size[1])));
        }
        let network = Self::new(open(stored_weights(state)?)?, &sizes, taps, executor)?;
        let size = sizes.first().copied().ok_or_else(|| refuse("it has no input".to_owned()))?;
        Ok(StoredNetwork { network, size, seed })
    }
}

/// The configuration of a network in a model file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    size: Sizes,
    seed: u64,
}

/// Heights and widths of the inputs of a network.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Sizes {
    One([usize; 2]),
    Several(Vec<[usize; 2]>),
}

/// A network from a model file.
#[derive(Debug)]
pub struct StoredNetwork {
    /// The network.
    pub network: TrainedNetwork,
    /// Height and width of its first input.
    pub size: [usize; 2],
    /// The seed of its training.
    pub seed: u64,
}

/// The weights of a state, whose kind is the network's name.
fn stored_weights(state: State) -> Result<Weights, MethodError> {
    let tensor = |(name, tensor): (String, Tensor)| match tensor.data {
        TensorData::F32(values) if tensor.shape.iter().product::<usize>() == values.len() => {
            Ok((name, WeightTensor::from_f32(tensor.shape, &values)))
        }
        _ => Err(MethodError::State { state: state.kind.clone(), reason: Some(format!("`{name}` is not of f32")) }),
    };
    state.tensors.into_iter().map(tensor).collect()
}

/// Writes the log-softmax of `logits`. Probabilities are at least [`FLOOR`], so that no single one dominates a score.
pub(crate) fn log_softmax(logits: &[f32], log_p: &mut [f64]) {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - f64::from(greatest)).exp()).sum();
    let log_sum = f64::from(greatest) + sum.ln();
    for (log_p, logit) in log_p.iter_mut().zip(logits) {
        *log_p = (f64::from(*logit) - log_sum).max(FLOOR.ln());
    }
}

/// The lower bound of probabilities.
const FLOOR: f64 = 1e-12;
