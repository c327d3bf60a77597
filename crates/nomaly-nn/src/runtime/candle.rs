//! Devices of candle.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use nomaly_kernels::geometry::OutputLayout;
use nomaly_kernels::training::norm_factor;

use super::{Runnable, Runtime, RuntimeError, TrainableNetwork, same_kind};
use crate::graph::{Graph, Op, Parameter};
use crate::module::{Mode, Module, ModuleError};
use crate::ops::VarOptimizer;
use crate::trainable::{Clip, OptimizerOptions, OptimizerState, Pass, Rule, TrainableError};
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
        outputs: &[(usize, OutputLayout)],
        train: bool,
    ) -> Result<OnDevice, RuntimeError> {
        if outputs.is_empty() {
            return Err(TrainableError::NoTaps.into());
        }
        let shapes = graph.shapes(sizes)?;
        let (nodes, layouts): (Vec<usize>, Vec<OutputLayout>) = outputs.iter().copied().unzip();
        let own = weights_of(graph, weights, &nodes, train)?;
        let shape = |&(node, layout): &(usize, OutputLayout)| match layout {
            OutputLayout::Mean => [shapes[node][0], 1, 1],
            OutputLayout::Nchw | OutputLayout::Rows => shapes[node],
        };
        Ok(OnDevice {
            module: Module::trainable(graph.clone(), nodes, &own, &self.device, |_| train)?,
            device: self.device.clone(),
            inputs: graph.inputs().map(|input| shapes[input]).collect(),
            outputs: outputs.iter().map(shape).collect(),
            layouts,
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
        outputs: &[(usize, OutputLayout)],
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
        let outputs: Vec<_> = outputs.iter().map(|&output| (output, OutputLayout::Nchw)).collect();
        let network = self.network(graph, weights, inputs, &outputs, true)?;
        let known: BTreeMap<&str, &Var> = network.module.variables().collect();
        let variable = |Parameter { name, .. }: Parameter| {
            let variable = known.get(name.as_str()).map(|&variable| variable.clone())?;
            Some((name, variable))
        };
        Ok(Box::new(Training {
            variables: graph.parameters().into_iter().filter_map(variable).collect(),
            input_gradients: vec![Vec::new(); network.inputs.len()],
            values: vec![Vec::new(); network.outputs.len()],
            network,
            given: Vec::new(),
            results: Vec::new(),
            gradients: Vec::new(),
            optimizer: None,
            options: OptimizerOptions::default(),
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
    layouts: Vec<OutputLayout>,
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
        let results = self.forward(&self.upload(inputs)?, Mode::Evaluate)?;
        // Tokens `[N, T, D]` have three axes, and are rows.
        let arranged = |(result, layout): (&Tensor, &OutputLayout)| {
            let tokens = result.rank() == 3;
            let arranged = match layout {
                OutputLayout::Nchw if tokens => result.transpose(1, 2),
                OutputLayout::Rows if !tokens => result.permute((0, 2, 3, 1)),
                OutputLayout::Mean if tokens => result.mean(1),
                OutputLayout::Mean => result.mean((2, 3)),
                OutputLayout::Nchw | OutputLayout::Rows => Ok(result.clone()),
            };
            download(&arranged.map_err(ModuleError::from)?)
        };
        results.iter().zip(&self.layouts).map(arranged).collect()
    }
}

/// The values of a tensor.
fn download(tensor: &Tensor) -> Result<Vec<f32>, RuntimeError> {
    Ok(tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).map_err(ModuleError::from)?)
}

/// A network in training.
struct Training {
    network: OnDevice,
    /// The trained parameters, in the order of the graph.
    variables: Vec<(String, Var)>,
    /// Inputs and outputs of the last pass, on the tape.
    given: Vec<Tensor>,
    results: Vec<Tensor>,
    /// The outputs of the last pass.
    values: Vec<Vec<f32>>,
    /// By variable; empty for zeros.
    gradients: Vec<Tensor>,
    input_gradients: Vec<Vec<f32>>,
    optimizer: Option<VarOptimizer>,
    options: OptimizerOptions,
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
    /// A new optimizer of the variables.
    fn new_optimizer(&self, rule: Rule) -> VarOptimizer {
        VarOptimizer::new(rule, self.variables.iter().map(|(_, variable)| variable.clone()).collect())
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

    /// The gradients of the next step.
    fn clipped(&self) -> candle_core::Result<Vec<Tensor>> {
        match self.options.clip {
            None => Ok(self.gradients.clone()),
            Some(Clip::Value(limit)) => self.gradients.iter().map(|gradient| gradient.clamp(-limit, limit)).collect(),
            Some(Clip::Norm(max_norm)) => {
                let mut squares = 0.0;
                for gradient in &self.gradients {
                    squares += gradient.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                }
                let factor = norm_factor(squares.sqrt(), max_norm);
                self.gradients.iter().map(|gradient| gradient * factor).collect()
            }
        }
    }

    /// Keeps the gradients of the parameters.
    fn keep(&mut self, store: Option<&GradStore>) -> candle_core::Result<()> {
        let mut gradients = Vec::new();
        for (place, (_, variable)) in self.variables.iter().enumerate() {
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
        if let Some(optimizer) = &self.optimizer {
            same_kind(optimizer.rule, rule)?;
        }
        self.options.check(self.variables.iter().map(|(name, _)| name.as_str()))?;
        let clipped = self.clipped().map_err(ModuleError::from)?;
        let mut optimizer = self.optimizer.take().unwrap_or_else(|| self.new_optimizer(rule));
        optimizer.rule = rule;
        let own = |place: usize| self.options.rule_of(rule, &self.variables[place].0);
        let stepped = optimizer.step_by(own, |place, _| clipped.get(place));
        self.optimizer = Some(optimizer);
        Ok(stepped.map_err(ModuleError::from)?)
    }

    fn set_optimizer_options(&mut self, options: OptimizerOptions) {
        self.options = options;
    }

    fn optimizer_state(&self) -> Result<OptimizerState, RuntimeError> {
        let state = self.optimizer.as_ref().map(VarOptimizer::export).transpose().map_err(ModuleError::from)?;
        Ok(state.unwrap_or_default())
    }

    fn resume(&mut self, rule: Rule, state: OptimizerState) -> Result<(), RuntimeError> {
        let mut optimizer = self.new_optimizer(rule);
        if !state.moments.is_empty() {
            if state.moments.len() != self.variables.len() {
                let (expected, found) = (self.variables.len(), state.moments.len());
                return Err(TrainableError::Optimizer { expected, found }.into());
            }
            for ((name, variable), moments) in self.variables.iter().zip(&state.moments) {
                let expected = variable.elem_count();
                if let Some(wrong) = moments.iter().find(|values| !values.is_empty() && values.len() != expected) {
                    let (parameter, found) = (name.clone(), wrong.len());
                    return Err(TrainableError::OptimizerState { parameter, expected, found }.into());
                }
            }
        }
        optimizer.resume(state).map_err(ModuleError::from)?;
        self.optimizer = Some(optimizer);
        Ok(())
    }

    fn gradients(&self) -> Result<BTreeMap<String, Vec<f32>>, RuntimeError> {
        let gradient = |(place, (name, variable)): (usize, &(String, Var))| {
            let zeros = || Ok(vec![0.0; variable.elem_count()]);
            Ok((name.clone(), self.gradients.get(place).map_or_else(zeros, download)?))
        };
        self.variables.iter().enumerate().map(gradient).collect()
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
