//! Networks in training on a CPU: the same graphs as the inference plans, with gradients.
//!
//! **The problem.** A general tape allocates every intermediate result and gradient, initializes each gradient with
//! zeros and adds to it on one thread.
//!
//! **The design.** A [`Network`] is planned from a graph for one image size. A ReLU after batch norm is fused; sums are
//! computed in place; a gradient is passed on, and added only where two meet; results that no gradient needs are
//! released at once; and all memory is kept for the next step. The kernels are those of [`nomaly_kernels::training`],
//! so the gradients do not depend on the number of threads. The parameters have the names of the inference plan, so
//! [`Network::weights`] can be compiled.
//!
//! Other losses are computed by the caller, on any tape: [`Network::backward`] takes the gradients of the outputs.
//!
//! ```
//! use nomaly_kernels::Isa;
//! use nomaly_kernels::geometry::Activation;
//! use nomaly_nn::graph::{ConvOptions, GraphBuilder};
//! use nomaly_nn::init::pytorch_default;
//! use nomaly_nn::trainable::{Network, NetworkOptimizer, Rule};
//!
//! let mut builder = GraphBuilder::new(3);
//! let x = builder.conv(GraphBuilder::INPUT, "conv", 8, ConvOptions::centered(3, 1));
//! let x = builder.batch_norm(x, "bn", 1e-5);
//! let x = builder.activation(x, Activation::Relu);
//! builder.classifier(x, "fc", 2);
//! let graph = builder.finish()?;
//! let mut network = Network::new(&graph, &["logits"], [8, 8], &pytorch_default(&graph, 0), Isa::best()?)?;
//! let mut optimizer = NetworkOptimizer::new(Rule::adam(0.01));
//! let images: Vec<f32> = (0..4 * 3 * 64).map(|i| if i < 2 * 3 * 64 { 1.0 } else { (i % 5) as f32 }).collect();
//! let mut losses = Vec::new();
//! for _ in 0..30 {
//!     losses.push(network.classify(&images, &[0, 0, 1, 1])?);
//!     network.step(&mut optimizer)?;
//! }
//! assert!(losses[29] < 0.5 * losses[0], "{losses:?}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod buffers;
mod error;
mod optimizer;
mod pass;
mod steps;
mod tokens;

use std::sync::Arc;

use nomaly_kernels::Isa;
use nomaly_kernels::training::cross_entropy;
use nomaly_registry::UnknownName;

use crate::graph::Graph;
use crate::masks::MaskKeys;
use crate::weights::{WeightTensor, Weights};

use buffers::Buffers;
use optimizer::Parameter;
use steps::{Plan, Slot, Step};

pub use error::TrainableError;
pub use nomaly_kernels::training::{StableForm, WeightDecay};
#[cfg(feature = "candle")]
pub(crate) use optimizer::State;
pub use optimizer::{
    Clip, NetworkOptimizer, OptimizerOptions, OptimizerState, ParameterGroup, ParameterNames, Rule, TensorOptimizer,
};
pub use pass::Pass;

/// A trainable network.
#[derive(Debug)]
pub struct Network {
    isa: Isa,
    steps: Vec<Step>,
    slots: Vec<Slot>,
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    /// The share of a batch's statistics in the running ones.
    momentum: f64,
    images: usize,
    /// The mode of the last forward pass.
    pass: Pass,
    /// Whether the parameters have no gradients.
    frozen: bool,
    /// Whether gradients of parameters are added to those of earlier backward passes.
    accumulates: bool,
    dropout: MaskKeys,
    wants_input_gradient: bool,
    /// By input.
    input_gradients: Vec<Vec<f32>>,
    /// Results of the steps that are still needed.
    values: Vec<Option<Vec<f32>>>,
    gradients: Vec<Option<Arc<Vec<f32>>>>,
    buffers: Buffers,
}

impl Network {
    /// Plans the part of `graph` that the `taps` need, for images of `size` (height, width), with parameters from
    /// `weights`.
    ///
    /// # Errors
    /// As [`with_inputs`](Self::with_inputs).
    pub fn new(
        graph: &Graph,
        taps: &[&str],
        size: [usize; 2],
        weights: &Weights,
        isa: Isa,
    ) -> Result<Self, TrainableError> {
        Self::with_inputs(graph, taps, &[size], weights, isa)
    }

    /// Plans the part of `graph` that the `taps` need, for inputs of these `sizes` (height, width), with parameters
    /// from `weights`.
    ///
    /// # Errors
    /// For a tap that the graph does not have, another number of inputs, weights that are missing or of another shape,
    /// and inputs that are too small or do not fit each other.
    pub fn with_inputs(
        graph: &Graph,
        taps: &[&str],
        sizes: &[[usize; 2]],
        weights: &Weights,
        isa: Isa,
    ) -> Result<Self, TrainableError> {
        let targets = taps
            .iter()
            .map(|name| {
                let found = graph.taps().iter().find(|tap| tap.name == *name).map(|tap| tap.node);
                found.ok_or_else(|| UnknownName::new("tap", name, graph.taps().iter().map(|tap| tap.name.as_str())))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::at_nodes(graph, &targets, sizes, weights, isa)
    }

    /// As [`with_inputs`](Self::with_inputs), for the results of nodes of the graph.
    pub(crate) fn at_nodes(
        graph: &Graph,
        targets: &[usize],
        sizes: &[[usize; 2]],
        weights: &Weights,
        isa: Isa,
    ) -> Result<Self, TrainableError> {
        if targets.is_empty() {
            return Err(TrainableError::NoTaps);
        }
        let Plan { steps, slots, inputs, outputs } = steps::plan(graph, targets, sizes, weights, isa)?;
        let values = steps.iter().map(|_| None).collect();
        let gradients = vec![None; steps.len()];
        let buffers = Buffers::default();
        Ok(Self {
            isa,
            steps,
            slots,
            input_gradients: vec![Vec::new(); inputs.len()],
            inputs,
            outputs,
            momentum: 0.1,
            images: 0,
            pass: Pass::default(),
            frozen: false,
            accumulates: false,
            dropout: MaskKeys::new(0),
            wants_input_gradient: false,
            values,
            gradients,
            buffers,
        })
    }

    /// Sets the share of a batch's statistics in the running ones, in [0, 1]; the default is PyTorch's 0.1.
    #[must_use]
    pub fn with_momentum(mut self, momentum: f64) -> Self {
        self.momentum = momentum;
        self
    }

    /// Extends backward passes to the inputs; see [`input_gradient`](Self::input_gradient).
    #[must_use]
    pub fn with_input_gradient(mut self) -> Self {
        self.set_input_gradient(true);
        self
    }

    /// Whether backward passes extend to the inputs.
    pub fn set_input_gradient(&mut self, wanted: bool) {
        self.wants_input_gradient = wanted;
    }

    /// Freezes the parameters, or frees them: backward passes of a frozen network compute no gradients of parameters,
    /// but hand on those of the inputs. Running statistics move in [`Pass::Train`] all the same.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// Whether backward passes add the gradients of parameters to those of earlier passes, until
    /// [`clear_gradients`](Self::clear_gradients). By default each pass replaces them.
    pub fn set_accumulating(&mut self, accumulating: bool) {
        self.accumulates = accumulating;
    }

    /// Sets the gradients of all parameters to zero.
    pub fn clear_gradients(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.gradient.fill(0.0));
    }

    /// Seeds the dropout masks of the following passes: the same seed and the same passes give the same masks, on any
    /// number of threads. A new network has the seed 0.
    pub fn seed_dropout(&mut self, seed: u64) {
        self.dropout = MaskKeys::new(seed);
    }

    /// Runs the network on its `inputs`, `[N, C, H, W]` each, in the order of their nodes. The results are the
    /// [`outputs`](Self::output).
    ///
    /// # Errors
    /// Unless there is one slice for each input, and all have the same number of whole images.
    pub fn run(&mut self, inputs: &[&[f32]], pass: Pass) -> Result<(), TrainableError> {
        pass::forward(self, inputs, pass)
    }

    /// Runs a network of one input on `images` `[N, C, H, W]` as in training, see [`Pass::Train`].
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn forward(&mut self, images: &[f32]) -> Result<(), TrainableError> {
        self.run(&[images], Pass::Train)
    }

    /// Runs a network of one input on `images` `[N, C, H, W]` as in inference, see [`Pass::Evaluate`].
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn evaluate(&mut self, images: &[f32]) -> Result<(), TrainableError> {
        self.run(&[images], Pass::Evaluate)
    }

    /// Runs a network of one input on `images` `[N, C, H, W]` with dropout, see [`Pass::Sample`].
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn sample(&mut self, images: &[f32]) -> Result<(), TrainableError> {
        self.run(&[images], Pass::Sample)
    }

    /// The result of a tap, `[N, C, h, w]`, or `[N, T, D]` for tokens, in the order of the taps; empty before the first
    /// forward pass.
    pub fn output(&self, index: usize) -> &[f32] {
        self.outputs.get(index).and_then(|&step| self.values[step].as_deref()).unwrap_or(&[])
    }

    /// Shape `[C, h, w]` of one image's result of each tap; `[D, T, 1]` for tokens.
    pub fn output_shapes(&self) -> Vec<[usize; 3]> {
        self.outputs.iter().map(|&step| self.steps[step].shape).collect()
    }

    /// Computes the [`gradients`](Self::gradients) of a loss, given its gradient with respect to each output of the
    /// last pass of any kind: running statistics are constants but in [`Pass::Train`], and dropout has the masks of
    /// that pass. An empty slice stands for a gradient of zeros.
    ///
    /// # Errors
    /// Unless there is one gradient for each output, of the same length or empty.
    pub fn backward(&mut self, gradients: &[&[f32]]) -> Result<(), TrainableError> {
        pass::backward(self, gradients)
    }

    /// A forward and a backward pass of the mean cross-entropy of the first output as logits, which it returns; there
    /// is one label per image.
    ///
    /// # Errors
    /// As for the two passes, and for labels that are not classes.
    pub fn classify(&mut self, images: &[f32], labels: &[u32]) -> Result<f32, TrainableError> {
        self.forward(images)?;
        let step = &self.steps[self.outputs[0]];
        let (classes, name) = (step.len(), step.name.clone());
        let mut gradients = vec![Vec::new(); self.outputs.len()];
        gradients[0] = vec![0.0; self.images * classes];
        let loss = cross_entropy(self.output(0), classes, labels, &mut gradients[0]).map_err(error::in_layer(&name))?;
        self.backward(&gradients.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        Ok(loss)
    }

    /// Moves the parameters by the gradients of the last backward pass.
    ///
    /// # Errors
    /// If the optimizer belongs to another network, was restored from the state of one, or has a group without members.
    pub fn step(&mut self, optimizer: &mut NetworkOptimizer) -> Result<(), TrainableError> {
        optimizer.check(self.gradients().map(|(name, _, gradient)| (name, gradient.len())))?;
        let isa = self.isa;
        let slots = self.slots.iter_mut().filter(|slot| slot.role.is_trained());
        let parameters = slots.map(|Slot { name, values, gradient, .. }| Parameter { name, values, gradient });
        optimizer.apply(isa, parameters.collect()).map_err(error::in_layer("the optimizer"))
    }

    /// The parameters and running statistics: name, shape, values.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        self.slots.iter().map(|slot| (slot.name.as_str(), slot.shape.as_slice(), slot.values.as_slice()))
    }

    /// The gradients of the last backward pass: name, shape, values.
    pub fn gradients(&self) -> impl Iterator<Item = (&str, &[usize], &[f32])> {
        let trained = self.slots.iter().filter(|slot| slot.role.is_trained());
        trained.map(|slot| (slot.name.as_str(), slot.shape.as_slice(), slot.gradient.as_slice()))
    }

    /// The gradient of the first input of the last backward pass, `[N, C, H, W]`; empty unless
    /// [asked for](Self::with_input_gradient).
    pub fn input_gradient(&self) -> &[f32] {
        self.input_gradient_of(0)
    }

    /// The gradient of an input of the last backward pass, `[N, C, H, W]`; empty unless
    /// [asked for](Self::with_input_gradient), or if no output depends on it.
    pub fn input_gradient_of(&self, input: usize) -> &[f32] {
        self.input_gradients.get(input).map_or(&[], Vec::as_slice)
    }

    /// The number of trained values.
    pub fn parameter_count(&self) -> usize {
        self.slots.iter().filter(|slot| slot.role.is_trained()).map(|slot| slot.values.len()).sum()
    }

    /// Sets all parameters and running statistics to those of `weights`, exactly; nothing is changed on an error. Other
    /// tensors are ignored.
    ///
    /// # Errors
    /// For weights that are missing or of another shape.
    pub fn load(&mut self, weights: &Weights) -> Result<(), TrainableError> {
        let values = self.slots.iter().map(|slot| steps::values(&slot.name, &slot.shape, weights));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        self.slots.iter_mut().zip(values).for_each(|(slot, values)| slot.values = values);
        Ok(())
    }

    /// The current parameters, for building a backbone.
    pub fn weights(&self) -> Weights {
        let tensor = |slot: &Slot| (slot.name.clone(), WeightTensor::from_f32(slot.shape.clone(), &slot.values));
        self.slots.iter().map(tensor).collect()
    }
}
