//! Devices of candle.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};

use super::{Runnable, Runtime, RuntimeError, TrainableNetwork, same_kind};
use crate::graph::{Graph, Op, Parameter};
use crate::module::{Mode, Module, ModuleError};
use crate::ops::VarOptimizer;
use crate::trainable::{Pass, Rule, TrainableError};
use crate::weights::Weights;

/// Runs networks on a device of candle, in single precision.
#[derive(Clone, Debug)]
pub struct CandleRuntime {
    device: Device,
}

impl CandleRuntime {
    /// A runtime of a device.
    pub fn new(device: Device) -> Self {
        Self { device }
    }

    fn network(
        &self,
        graph: &Graph,
        weights: &Weights,
        sizes: &[[usize; 2]],
        outputs: &[usize],
        train: bool,
    ) -> Result<OnDevice, RuntimeError> {
        if outputs.is_empty() {
            return Err(TrainableError::NoTaps.into());
        }
        let shapes = graph.shapes(sizes)?;
        let own = weights_of(graph, weights, outputs, train)?;
        let module = Module::trainable(graph.clone(), outputs.to_vec(), &own, &self.device, |_| train)?;
        Ok(OnDevice {
            module,
            device: self.device.clone(),
            inputs: graph.inputs().map(|input| shapes[input]).collect(),
            outputs: outputs.iter().map(|&output| shapes[output]).collect(),
        })
    }
}

/// The weights of what the outputs need. In inference a batch norm may be folded into its convolution, as in
/// [`compile`](crate::compile).
fn weights_of(graph: &Graph, weights: &Weights, outputs: &[usize], train: bool) -> Result<Weights, RuntimeError> {
    let mut own = Weights::new();
    for (node, _) in graph.needed(outputs).into_iter().enumerate().filter(|(_, needed)| *needed) {
        match &graph.nodes()[node].op {
            Op::BatchNorm { name, .. } if !train && !weights.contains_key(&format!("{name}.running_var")) => continue,
            Op::Conv { name, .. } if !train => {
                let folded = weights.get_key_value(&format!("{name}.bias"));
                own.extend(folded.map(|(name, tensor)| (name.clone(), tensor.clone())));
            }
            _ => {}
        }
        for Parameter { name, shape, .. } in graph.parameters_of(node) {
            let missing = || TrainableError::MissingTensor { tensor: name.clone() };
            let weight = weights.get(&name).ok_or_else(missing)?;
            if weight.shape != shape {
                let found = weight.shape.clone();
                return Err(TrainableError::Shape { tensor: name, expected: shape, found }.into());
            }
            own.insert(name, weight.clone());
        }
    }
    Ok(own)
}

impl Runtime for CandleRuntime {
    fn name(&self) -> String {
        match &self.device {
            Device::Cpu => "candle-cpu".to_owned(),
            Device::Cuda(_) => "candle-cuda".to_owned(),
            Device::Metal(_) => "candle-metal".to_owned(),
        }
    }

    fn prepare(
        &self,
        graph: &Graph,
        weights: &Weights,
        inputs: &[[usize; 2]],
        outputs: &[usize],
    ) -> Result<Arc<dyn Runnable>, RuntimeError> {
        Ok(Arc::new(self.network(graph, weights, inputs, outputs, false)?))
    }

    fn trainable(
        &self,
        graph: &Graph,
        weights: &Weights,
        inputs: &[[usize; 2]],
        outputs: &[usize],
    ) -> Result<Box<dyn TrainableNetwork>, RuntimeError> {
        let network = self.network(graph, weights, inputs, outputs, true)?;
        Ok(Box::new(Training {
            input_gradients: vec![Vec::new(); network.inputs.len()],
            values: vec![Vec::new(); network.outputs.len()],
            network,
            given: Vec::new(),
            results: Vec::new(),
            gradients: Vec::new(),
            optimizer: None,
            wants_input_gradient: false,
            frozen: false,
            accumulates: false,
        }))
    }
}

/// A module for inputs of fixed sizes.
#[derive(Debug)]
struct OnDevice {
    module: Module,
    device: Device,
    /// Shapes `[C, H, W]` of the inputs and outputs.
    inputs: Vec<[usize; 3]>,
    outputs: Vec<[usize; 3]>,
}

impl OnDevice {
    /// The inputs on the device.
    fn upload(&self, inputs: &[&[f32]]) -> Result<Vec<Tensor>, RuntimeError> {
        if inputs.len() != self.inputs.len() {
            return Err(TrainableError::Inputs { expected: self.inputs.len(), found: inputs.len() }.into());
        }
        let mut tensors: Vec<Tensor> = Vec::with_capacity(inputs.len());
        for (values, &[channels, height, width]) in inputs.iter().zip(&self.inputs) {
            let each = channels * height * width;
            let images = values.len() / each;
            if !values.len().is_multiple_of(each) || tensors.first().is_some_and(|first| first.dims()[0] != images) {
                return Err(TrainableError::Images { each, found: values.len() }.into());
            }
            let shape = (images, channels, height, width);
            tensors.push(Tensor::from_slice(values, shape, &self.device).map_err(ModuleError::from)?);
        }
        Ok(tensors)
    }

    fn forward(&self, inputs: &[Tensor], mode: Mode) -> Result<Vec<Tensor>, RuntimeError> {
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        Ok(self.module.forward(&inputs, mode).map_err(ModuleError::from)?)
    }
}

impl Runnable for OnDevice {
    fn output_shapes(&self) -> Vec<[usize; 3]> {
        self.outputs.clone()
    }

    fn run(&self, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, RuntimeError> {
        self.forward(&self.upload(inputs)?, Mode::Evaluate)?.iter().map(download).collect()
    }
}

/// The values of a tensor.
fn download(tensor: &Tensor) -> Result<Vec<f32>, RuntimeError> {
    Ok(tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).map_err(ModuleError::from)?)
}

/// A network in training.
struct Training {
    network: OnDevice,
    /// Inputs and outputs of the last pass, on the tape.
    given: Vec<Tensor>,
    results: Vec<Tensor>,
    /// The outputs of the last pass.
    values: Vec<Vec<f32>>,
    /// By variable; empty for zeros.
    gradients: Vec<Tensor>,
    input_gradients: Vec<Vec<f32>>,
    optimizer: Option<VarOptimizer>,
    wants_input_gradient: bool,
    frozen: bool,
    accumulates: bool,
}

impl std::fmt::Debug for Training {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Training").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Training {
    fn variables(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.network.module.variables()
    }

    /// The tape's gradients of all outputs together; none if no output has a gradient.
    fn differentiate(&self, gradients: &[&[f32]]) -> candle_core::Result<Option<GradStore>> {
        let mut loss: Option<Tensor> = None;
        for (result, gradient) in self.results.iter().zip(gradients).filter(|(_, gradient)| !gradient.is_empty()) {
            let factors = Tensor::from_slice(gradient, result.shape(), result.device())?;
            let part = (result * factors)?.sum_all()?;
            loss = Some(match loss {
                Some(loss) => loss.add(&part)?,
                None => part,
            });
        }
        loss.map(|loss| loss.backward()).transpose()
    }

    /// Keeps the gradients of the parameters.
    fn keep(&mut self, store: Option<&GradStore>) -> candle_core::Result<()> {
        let mut gradients = Vec::new();
        for (place, (_, variable)) in self.variables().enumerate() {
            let earlier = self.gradients.get(place).filter(|_| self.accumulates);
            gradients.push(match (store.and_then(|store| store.get(variable)), earlier) {
                (Some(now), Some(before)) => now.add(before)?.detach(),
                (Some(gradient), None) | (None, Some(gradient)) => gradient.detach(),
                (None, None) => variable.zeros_like()?,
            });
        }
        self.gradients = gradients;
        Ok(())
    }
}

impl TrainableNetwork for Training {
    fn output_shapes(&self) -> Vec<[usize; 3]> {
        self.network.outputs.clone()
    }

    fn run(&mut self, inputs: &[&[f32]], pass: Pass) -> Result<(), RuntimeError> {
        let mut given = self.network.upload(inputs)?;
        if self.wants_input_gradient {
            for tensor in &mut given {
                *tensor = Var::from_tensor(tensor).map_err(ModuleError::from)?.as_tensor().clone();
            }
        }
        let mode = match pass {
            Pass::Train => Mode::TRAIN,
            Pass::Evaluate => Mode::Evaluate,
            Pass::Sample => Mode::Sample,
        };
        self.results = self.network.forward(&given, mode)?;
        self.values = self.results.iter().map(download).collect::<Result<_, _>>()?;
        self.given = given;
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        self.values.get(index).map_or(&[], Vec::as_slice)
    }

    fn backward(&mut self, gradients: &[&[f32]]) -> Result<(), RuntimeError> {
        let expected: Vec<usize> = self.values.iter().map(Vec::len).collect();
        let found: Vec<usize> = gradients.iter().map(|gradient| gradient.len()).collect();
        let fits = expected.len() == found.len() && expected.iter().zip(&found).all(|(a, b)| a == b || *b == 0);
        if !fits || self.results.is_empty() {
            return Err(TrainableError::Gradients { expected, found }.into());
        }
        let store = self.differentiate(gradients).map_err(ModuleError::from)?;
        self.results.clear();
        for (values, tensor) in self.input_gradients.iter_mut().zip(self.given.drain(..)) {
            let gradient = store.as_ref().filter(|_| tensor.is_variable()).and_then(|store| store.get(&tensor));
            *values = gradient.map(download).transpose()?.unwrap_or_default();
        }
        if !self.frozen {
            self.keep(store.as_ref()).map_err(ModuleError::from)?;
        }
        Ok(())
    }

    fn step(&mut self, rule: Rule) -> Result<(), RuntimeError> {
        if self.gradients.is_empty() {
            self.keep(None).map_err(ModuleError::from)?;
        }
        let variables = || self.network.module.variables().map(|(_, variable)| variable.clone()).collect();
        let optimizer = self.optimizer.get_or_insert_with(|| VarOptimizer::new(rule, variables()));
        same_kind(optimizer.rule, rule)?;
        optimizer.rule = rule;
        Ok(optimizer.step_by(|place, _| self.gradients.get(place)).map_err(ModuleError::from)?)
    }

    fn gradients(&self) -> Result<BTreeMap<String, Vec<f32>>, RuntimeError> {
        let gradient = |(place, (name, variable)): (usize, (&str, &Var))| {
            let zeros = || Ok(vec![0.0; variable.elem_count()]);
            Ok((name.to_owned(), self.gradients.get(place).map_or_else(zeros, download)?))
        };
        self.variables().enumerate().map(gradient).collect()
    }

    fn input_gradient(&self, input: usize) -> &[f32] {
        self.input_gradients.get(input).map_or(&[], Vec::as_slice)
    }

    fn set_input_gradient(&mut self, wanted: bool) {
        self.wants_input_gradient = wanted;
    }

    fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    fn set_accumulating(&mut self, accumulating: bool) {
        self.accumulates = accumulating;
    }

    fn clear_gradients(&mut self) {
        self.gradients.clear();
    }

    fn seed_dropout(&mut self, seed: u64) {
        self.network.module.seed_dropout(seed);
    }

    fn weights(&self) -> Result<Weights, RuntimeError> {
        Ok(self.network.module.export().map_err(ModuleError::from)?)
    }

    fn load(&mut self, weights: &Weights) -> Result<(), RuntimeError> {
        Ok(self.network.module.load(weights)?)
    }
}
