//! Trained networks, compiled for inference.

use nomaly_backbones::{Backbone, Extractor, TapRequest, Workspace};
use nomaly_nn::runtime::Executor;
use nomaly_nn::weights::{WeightTensor, Weights};
use nomaly_scorers::{State, Tensor, TensorData};

use crate::MethodError;
use crate::input::INPUT_SIDES;

/// A trained network, compiled for inference.
pub(crate) struct TrainedNetwork {
    backbone: Backbone,
    extractor: Extractor,
}

/// Buffers of a [`TrainedNetwork`], one set per thread.
pub(crate) struct Buffers {
    workspace: Workspace,
    outputs: Vec<Vec<f32>>,
}

/// Inputs per run of a network: enough to keep all cores busy, few enough to stay in the caches.
pub(crate) const INPUTS_PER_RUN: usize = 32;

impl TrainedNetwork {
    /// The network `name` with these weights, compiled for inputs of `size` (height, width).
    pub(crate) fn new(
        name: &str,
        weights: Weights,
        size: [usize; 2],
        taps: &[TapRequest],
        executor: &Executor,
    ) -> Result<Self, MethodError> {
        let backbone = Backbone::from_tensors(name, weights)?;
        let extractor = backbone.compile(size, taps, executor)?;
        Ok(Self { backbone, extractor })
    }

    /// Allocates buffers.
    pub(crate) fn buffers(&self) -> Buffers {
        let outputs = vec![Vec::new(); self.extractor.taps().len()];
        Buffers { workspace: self.extractor.workspace(INPUTS_PER_RUN), outputs }
    }

    /// The network with its weights.
    pub(crate) fn backbone(&self) -> &Backbone {
        &self.backbone
    }

    /// Its weights.
    pub(crate) fn weights(&self) -> Weights {
        let taps: Vec<&str> = self.extractor.taps().iter().map(|tap| tap.name.as_str()).collect();
        self.backbone.export(&taps).expect("the taps are those it was compiled for")
    }

    /// Values of a tap per input.
    pub(crate) fn width(&self, tap: usize) -> usize {
        self.extractor.output_shape(tap).iter().product()
    }

    /// Runs `inputs`, at most [`AT_A_TIME`] images of the compiled size; returns the outputs of each tap.
    pub(crate) fn run<'b>(&self, inputs: &[f32], buffers: &'b mut Buffers) -> Result<&'b [Vec<f32>], MethodError> {
        let each: usize = self.extractor.input_shape().iter().product();
        let Buffers { workspace, outputs } = buffers;
        self.extractor.run(inputs, inputs.len() / each, workspace, outputs)?;
        Ok(outputs)
    }

    /// The state of the network `name` in a model file, with its input size and training seed.
    pub(crate) fn state(&self, name: &str, seed: u64) -> State {
        let tensor = |(name, tensor): (String, WeightTensor)| {
            let values = tensor.to_f32().expect("weights were read when they were compiled");
            (name, Tensor::f32(tensor.shape, values))
        };
        let tensors = self.weights().into_iter().map(tensor).collect();
        let [_, height, width] = self.extractor.input_shape();
        State { kind: name.to_owned(), config: serde_json::json!({ "size": [height, width], "seed": seed }), tensors }
    }

    /// Restores the network `name` from a model file, compiled for the input size it was trained on, with its seed.
    ///
    /// # Errors
    /// A state of another network, with an invalid size, or without a tensor that the taps need.
    pub(crate) fn restore(
        name: &str,
        state: State,
        taps: &[TapRequest],
        executor: &Executor,
    ) -> Result<Stored, MethodError> {
        if state.kind != name {
            return Err(MethodError::State { state: STATE.to_owned(), reason: None });
        }
        let refuse = |reason: String| MethodError::State { state: STATE.to_owned(), reason: Some(reason) };
        let Config { size, seed } =
            serde_json::from_value(state.config.clone()).map_err(|error| refuse(error.to_string()))?;
        if size.iter().any(|side| !(1..=*INPUT_SIDES.end()).contains(side)) {
            return Err(refuse(format!("its input is {} x {}", size[0], size[1])));
        }
        Ok(Stored { network: Self::new(name, stored_weights(state)?, size, taps, executor)?, size, seed })
    }
}

/// Name of the state of a trained network in a model file.
pub(crate) const STATE: &str = "network";

/// The configuration of a network in a model file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    size: [usize; 2],
    seed: u64,
}

/// A network from a model file.
pub(crate) struct Stored {
    pub(crate) network: TrainedNetwork,
    /// Height and width of its input.
    pub(crate) size: [usize; 2],
    /// The seed of its training.
    pub(crate) seed: u64,
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
