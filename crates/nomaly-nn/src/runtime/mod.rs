//! One interface to what runs networks: the CPU, or a device of candle.
//!
//! An [`Executor`] is an opened [`Device`]. Its [`Runtime`] makes a [`Runnable`] for inference or a
//! [`TrainableNetwork`] of a graph and weights. Values go in and come out as slices in the memory of the host, so that
//! callers know no device. All runtimes compute the same, up to rounding; dropout masks of the same seed are the same.
//!
//! ```
//! use nomaly_kernels::geometry::OutputLayout;
//! use nomaly_nn::graph::{ConvOptions, GraphBuilder};
//! use nomaly_nn::init::pytorch_default;
//! use nomaly_nn::runtime::{Device, Executor};
//! use nomaly_nn::trainable::{Pass, Rule};
//!
//! let mut builder = GraphBuilder::new(1);
//! let y = builder.conv_with_bias(GraphBuilder::INPUT, "conv", 1, ConvOptions::centered(3, 1));
//! let graph = builder.finish()?;
//! let (executor, weights) = (Executor::on(Device::Cpu)?, pytorch_default(&graph, 0));
//! let runtime = executor.runtime();
//! let mut network = runtime.trainable(&graph, &weights, &[[4, 4]], &[y])?;
//! let image = [1.0; 16];
//! network.run(&[&image], Pass::Train)?;
//! let gradient = network.output(0).to_vec();
//! network.backward(&[&gradient])?;
//! network.step(Rule::sgd(0.01, 0.0))?;
//! let runnable = runtime.prepare(&graph, &network.weights()?, &[[4, 4]], &[(y, OutputLayout::Nchw)])?;
//! let length = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>();
//! assert!(length(&runnable.run(&[&image])?[0]) < length(&gradient));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(feature = "candle")]
mod candle;
mod cpu;
mod device;
mod executor;

use std::collections::BTreeMap;
use std::sync::Arc;

use nomaly_kernels::geometry::OutputLayout;
use nomaly_kernels::training::cross_entropy;

use crate::error::CompileError;
use crate::graph::{Graph, GraphError};
use crate::inference::InferenceError;
use crate::trainable::{OptimizerOptions, OptimizerState, Pass, Rule, TrainableError};
use crate::weights::Weights;

#[cfg(feature = "candle")]
pub use candle::CandleRuntime;
pub use cpu::CpuRuntime;
pub use device::{Device, DeviceError};
pub use executor::Executor;

/// Why a network cannot be prepared or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The plan for inference cannot be compiled or run.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A network cannot be run.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// A network or its inputs do not fit, on any runtime.
    #[error(transparent)]
    Network(#[from] TrainableError),
    /// The rule of the optimizer changed to one of another kind, whose state is another.
    #[error("the optimizer cannot go on from {before:?} with {after:?}")]
    Rule {
        /// The rule of earlier steps.
        before: Rule,
        /// The rule of this step.
        after: Rule,
    },
    /// The weights cannot be loaded onto the device, or the device failed.
    #[cfg(feature = "candle")]
    #[error(transparent)]
    Module(#[from] crate::module::ModuleError),
}

impl From<GraphError> for RuntimeError {
    fn from(error: GraphError) -> Self {
        Self::Network(error.into())
    }
}

/// Refuses a rule whose optimizer has another state.
fn same_kind(before: Rule, after: Rule) -> Result<(), RuntimeError> {
    if std::mem::discriminant(&before) == std::mem::discriminant(&after) {
        Ok(())
    } else {
        Err(RuntimeError::Rule { before, after })
    }
}

/// A device and a way to run networks on it.
pub trait Runtime: std::fmt::Debug + Send + Sync {
    /// The name in messages, such as `cpu`.
    fn name(&self) -> String;

    /// Prepares inference of the `outputs` (nodes of `graph` with the layout of their values) for inputs of these sizes
    /// (height, width). A batch norm that the weights do not have counts as folded into the convolution before it.
    ///
    /// # Errors
    /// For sizes that the graph cannot take, tensors that are missing or of another shape, and if the device fails.
    fn prepare(
        &self,
        graph: &Graph,
        weights: &Weights,
        inputs: &[[usize; 2]],
        outputs: &[(usize, OutputLayout)],
    ) -> Result<Arc<dyn Runnable>, RuntimeError>;

    /// Prepares training of the `outputs` (nodes of `graph`) for inputs of these sizes.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    fn trainable(
        &self,
        graph: &Graph,
        weights: &Weights,
        inputs: &[[usize; 2]],
        outputs: &[usize],
    ) -> Result<Box<dyn TrainableNetwork>, RuntimeError>;
}

/// A network for inference. Several threads may run it at once.
pub trait Runnable: std::fmt::Debug + Send + Sync {
    /// Shape `[C, h, w]` of one image's result of each output, whatever its layout; `[D, T, 1]` for tokens, `[C, 1, 1]`
    /// for a mean.
    fn output_shapes(&self) -> Vec<[usize; 3]>;

    /// The outputs for `inputs` `[N, C, H, W]`, each in its layout.
    ///
    /// # Errors
    /// Unless there is one slice for each input, and all have the same number of whole images; and if the device fails.
    fn run(&self, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, RuntimeError>;
}

/// A network in training, with the state of its optimizer; see [`Network`](crate::trainable::Network).
pub trait TrainableNetwork: std::fmt::Debug + Send {
    /// Shape `[C, h, w]` of one image's result of each output; `[D, T, 1]` for tokens.
    fn output_shapes(&self) -> Vec<[usize; 3]>;

    /// Runs the network on its `inputs`, `[N, C, H, W]` each. The results are the [`outputs`](Self::output).
    ///
    /// # Errors
    /// As [`Runnable::run`].
    fn run(&mut self, inputs: &[&[f32]], pass: Pass) -> Result<(), RuntimeError>;

    /// An output `[N, C, h, w]`, or `[N, T, D]` for tokens, of the last pass; empty before the first one.
    fn output(&self, index: usize) -> &[f32];

    /// Computes the gradients of a loss, given its gradient with respect to each output of the last pass. An empty
    /// slice stands for a gradient of zeros. Each pass can be differentiated once.
    ///
    /// # Errors
    /// Unless there is one gradient for each output, of the same length or empty; without a pass; and if the device
    /// fails.
    fn backward(&mut self, gradients: &[&[f32]]) -> Result<(), RuntimeError>;

    /// A training pass and a backward pass of the mean cross-entropy of the first output as logits. Returns the loss;
    /// there is one label per image.
    ///
    /// # Errors
    /// As for the two passes, and for labels that are not classes.
    fn classify(&mut self, images: &[f32], labels: &[u32]) -> Result<f32, RuntimeError> {
        self.run(&[images], Pass::Train)?;
        let shapes = self.output_shapes();
        let logits = self.output(0);
        let mut gradients = vec![Vec::new(); shapes.len()];
        gradients[0] = vec![0.0; logits.len()];
        let loss = cross_entropy(logits, shapes[0].iter().product(), labels, &mut gradients[0])
            .map_err(|source| TrainableError::Layer { layer: "cross-entropy".to_owned(), source })?;
        self.backward(&gradients.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        Ok(loss)
    }

    /// Moves the parameters by their gradients. The optimizer keeps its state from step to step; a schedule may change
    /// the constants of the rule, but not its kind.
    ///
    /// # Errors
    /// If the device fails, the rule is of another kind than before, or a [group](OptimizerOptions::groups) has no
    /// member.
    fn step(&mut self, rule: Rule) -> Result<(), RuntimeError>;

    /// Sets groups of parameters and clipping of the optimizer, from the next step on; its state stays.
    fn set_optimizer_options(&mut self, options: OptimizerOptions);

    /// A copy of the optimizer's state, with the parameters in the order of the graph; empty before the first step.
    ///
    /// # Errors
    /// If the device fails.
    fn optimizer_state(&self) -> Result<OptimizerState, RuntimeError>;

    /// Goes on from the state of an optimizer of this rule, on whatever runtime it was.
    ///
    /// # Errors
    /// For a state of other parameters, here or in the next step, and if the device fails.
    fn resume(&mut self, rule: Rule, state: OptimizerState) -> Result<(), RuntimeError>;

    /// The gradients of the trained parameters by name; zeros before the first backward pass.
    ///
    /// # Errors
    /// If the device fails.
    fn gradients(&self) -> Result<BTreeMap<String, Vec<f32>>, RuntimeError>;

    /// The gradient of an input of the last backward pass, `[N, C, H, W]`; empty unless
    /// [asked for](Self::set_input_gradient), or if no output depends on it.
    fn input_gradient(&self, input: usize) -> &[f32];

    /// Whether backward passes extend to the inputs; from the next pass on.
    fn set_input_gradient(&mut self, wanted: bool);

    /// Freezes the parameters, or frees them: backward passes of a frozen network leave their gradients as they are.
    fn set_frozen(&mut self, frozen: bool);

    /// Whether backward passes add the gradients of parameters to those of earlier passes.
    fn set_accumulating(&mut self, accumulating: bool);

    /// Sets the gradients of all parameters to zero.
    fn clear_gradients(&mut self);

    /// Seeds the dropout masks of the following passes. A new network has the seed 0.
    fn seed_dropout(&mut self, seed: u64);

    /// The current parameters and running statistics.
    ///
    /// # Errors
    /// If the device fails.
    fn weights(&self) -> Result<Weights, RuntimeError>;

    /// Sets all parameters and running statistics to those of `weights`; nothing is changed on an error of the weights.
    ///
    /// # Errors
    /// For weights that are missing or of another shape, and if the device fails.
    fn load(&mut self, weights: &Weights) -> Result<(), RuntimeError>;
}
