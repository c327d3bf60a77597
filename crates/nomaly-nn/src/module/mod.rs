//! The candle module of a graph and weights: the same network on any candle device, with gradients.
//!
//! On a CPU the compiled plan is far faster; the module is for CUDA and Metal, for training with losses on candle's
//! tape, and as a reference for the plan in tests. Its operations are [`ops`](crate::ops), which run the training
//! kernels on a CPU in single precision, and candle's own operations elsewhere. With the same weights, inputs and seed
//! it computes what a [`Network`](crate::trainable::Network) does, dropout masks included.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use nomaly_nn::graph::{ConvOptions, GraphBuilder};
//! use nomaly_nn::init::pytorch_default;
//! use nomaly_nn::module::{Mode, Module};
//! use nomaly_nn::ops::VarOptimizer;
//! use nomaly_nn::trainable::Rule;
//!
//! let mut builder = GraphBuilder::new(3);
//! let x = builder.conv(GraphBuilder::INPUT, "conv", 8, ConvOptions::centered(3, 1));
//! builder.classifier(x, "fc", 2);
//! let graph = builder.finish()?;
//! let (weights, logits) = (pytorch_default(&graph, 0), graph.taps()[0].node);
//! let module = Module::trainable(graph, vec![logits], &weights, &Device::Cpu, |_| true)?;
//! let mut optimizer = VarOptimizer::new(Rule::sgd(0.1, 0.0), module.variables().map(|(_, v)| v.clone()).collect());
//! let images = Tensor::ones((4, 3, 8, 8), DType::F32, &Device::Cpu)?;
//! let loss = module.forward(&[&images], Mode::TRAIN)?[0].sqr()?.mean_all()?;
//! optimizer.step(&loss.backward()?)?;
//! let after = module.forward(&[&images], Mode::Evaluate)?[0].sqr()?.mean_all()?;
//! assert!(after.to_scalar::<f32>()? < loss.to_scalar::<f32>()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod nodes;
mod tokens;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Result, Tensor, Var};

use crate::graph::{Graph, Op, ParameterRole};
use crate::masks::MaskKeys;
use crate::trainable::Pass;
use crate::weights::{WeightTensor, Weights, WeightsError};

use nodes::Context;

/// The mode of batch norm and dropout in a forward pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Normalize by the running statistics, without dropout. Gradients still flow: this mode is also for fine-tuning
    /// with frozen batch norm.
    Evaluate,
    /// Normalize by the batch's own statistics, and move the running ones towards them; dropout with a mask for each
    /// image.
    Train {
        /// The share of the batch's statistics in the running ones, in [0, 1]; 0.1 is PyTorch's default.
        momentum: f64,
    },
    /// Normalize by the running statistics; dropout with one mask for all images, see [`Pass::Sample`].
    Sample,
}

impl Mode {
    /// Training with PyTorch's default momentum.
    pub const TRAIN: Self = Self::Train { momentum: 0.1 };

    fn pass(self) -> Pass {
        match self {
            Self::Evaluate => Pass::Evaluate,
            Self::Train { .. } => Pass::Train,
            Self::Sample => Pass::Sample,
        }
    }
}

/// Why a network cannot be loaded onto a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// A tensor cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The weights lack a tensor of the module.
    #[error("there is no tensor `{tensor}`")]
    MissingTensor {
        /// Its name.
        tensor: String,
    },
    /// A tensor has another shape than that of the module.
    #[error("`{tensor}` is {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// The shape in the module.
        expected: Vec<usize>,
        /// The shape in the weights.
        found: Vec<usize>,
    },
    /// The device failed.
    #[error("candle: {0}")]
    Candle(Box<candle_core::Error>),
}

impl From<candle_core::Error> for ModuleError {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(Box::new(error))
    }
}

/// A network on a candle device.
pub struct Module {
    graph: Graph,
    device: Device,
    /// Tensors by name; for trained parameters and statistics, the tensor inside the variable.
    tensors: BTreeMap<String, Tensor>,
    trained: BTreeMap<String, Var>,
    statistics: BTreeMap<String, Var>,
    outputs: Vec<usize>,
    masks: Mutex<MaskKeys>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("tensors", &self.tensors.len())
            .field("trained", &self.trained.len())
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl Module {
    /// Loads `weights` onto `device` for the `outputs` (nodes of `graph`), in single precision and without trainable
    /// parameters.
    ///
    /// # Errors
    /// For a tensor that cannot be read, and if the device fails.
    pub fn new(
        graph: Graph,
        outputs: Vec<usize>,
        weights: &Weights,
        device: &Device,
    ) -> std::result::Result<Self, ModuleError> {
        Self::trainable(graph, outputs, weights, device, |_| false)
    }

    /// Like [`Module::new`]; the parameters whose names `train` accepts become variables.
    ///
    /// # Errors
    /// As [`Module::new`].
    pub fn trainable(
        graph: Graph,
        outputs: Vec<usize>,
        weights: &Weights,
        device: &Device,
        train: impl Fn(&str) -> bool,
    ) -> std::result::Result<Self, ModuleError> {
        let roles: BTreeMap<String, ParameterRole> =
            graph.parameters().into_iter().map(|parameter| (parameter.name, parameter.role)).collect();
        let mut module = Self {
            graph,
            device: device.clone(),
            tensors: BTreeMap::new(),
            trained: BTreeMap::new(),
            statistics: BTreeMap::new(),
            outputs,
            masks: Mutex::new(MaskKeys::new(0)),
        };
        for (name, weight) in weights {
            let tensor = Tensor::from_vec(weight.to_f32()?, weight.shape.as_slice(), device)?;
            let statistic = roles.get(name).is_some_and(|role| !role.is_trained());
            if statistic || train(name) {
                let variables = if statistic { &mut module.statistics } else { &mut module.trained };
                let variable = Var::from_tensor(&tensor)?;
                module.tensors.insert(name.clone(), variable.as_tensor().clone());
                variables.insert(name.clone(), variable);
            } else {
                module.tensors.insert(name.clone(), tensor);
            }
        }
        Ok(module)
    }

    /// The module with parameters and statistics of another type, in fresh variables.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn to_dtype(mut self, dtype: DType) -> Result<Self> {
        for (name, tensor) in &mut self.tensors {
            let converted = tensor.detach().to_dtype(dtype)?;
            let variable = self.trained.get_mut(name).or(self.statistics.get_mut(name));
            *tensor = match variable {
                Some(variable) => {
                    *variable = Var::from_tensor(&converted)?;
                    variable.as_tensor().clone()
                }
                None => converted,
            };
        }
        Ok(self)
    }

    /// The variables to train, by parameter name.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.trained.iter().map(|(name, variable)| (name.as_str(), variable))
    }

    /// Seeds the dropout masks of the following passes: the same seed and the same passes give the same masks, on any
    /// device. A new module has the seed 0.
    pub fn seed_dropout(&self, seed: u64) {
        *self.masks.lock().unwrap_or_else(PoisonError::into_inner) = MaskKeys::new(seed);
    }

    /// Runs the network on its `inputs`, `[N, C, H, W]` each, in the order of their nodes. The results are
    /// `[N, C, h, w]` in the order of the outputs (`logits`: `[N, classes, 1, 1]`), and `[N, T, D]` for tokens.
    ///
    /// # Errors
    /// For another number of inputs, and errors of candle and of the kernels, which name the operation: a parameter
    /// that the weights lacked, an input of another shape, type or device.
    pub fn forward(&self, inputs: &[&Tensor], mode: Mode) -> Result<Vec<Tensor>> {
        let expected = self.graph.inputs().count();
        if inputs.len() != expected {
            candle_core::bail!("the network has {expected} inputs, not {}", inputs.len());
        }
        let needed = self.graph.needed(&self.outputs);
        let mut last_use = vec![0; needed.len()];
        for (index, node) in self.graph.nodes().iter().enumerate().filter(|(index, _)| needed[*index]) {
            node.inputs.iter().for_each(|&input| last_use[input] = index);
        }
        let mut context = Context { module: self, mode, masks: self.masks(mode) };
        let mut given = inputs.iter();
        let mut results: Vec<Option<Tensor>> = vec![None; needed.len()];
        // Rows and columns of the image from which the tokens of each node come.
        let mut grids: Vec<Option<[usize; 2]>> = vec![None; needed.len()];
        for (index, node) in self.graph.nodes().iter().enumerate() {
            let input = if node.op == Op::Input { given.next() } else { None };
            if !needed[index] {
                continue;
            }
            let result = match input {
                Some(&input) => context.input(input, node.channels, node.layout),
                None => {
                    let operands: Vec<Tensor> =
                        node.inputs.iter().filter_map(|&input| results[input].clone()).collect();
                    grids[index] = match (&node.op, &operands[..]) {
                        (Op::Tokens, [image]) => image.dims4().ok().map(|(_, _, height, width)| [height, width]),
                        _ => node.inputs.first().and_then(|&input| grids[input]),
                    };
                    context.compute(&node.op, &operands, grids[index])
                }
            };
            results[index] = Some(result.map_err(|error| error.context(format!("in `{}`", node.op.label())))?);
            for &input in &node.inputs {
                if last_use[input] == index && !self.outputs.contains(&input) {
                    results[input] = None;
                }
            }
        }
        Ok(self.outputs.iter().filter_map(|&output| results[output].clone()).collect())
    }

    /// The keys of the masks of a pass; those of an evaluation are not used and leave the generator as it is.
    fn masks(&self, mode: Mode) -> Box<dyn Iterator<Item = u64>> {
        match mode {
            Mode::Evaluate => Box::new(std::iter::empty()),
            _ => Box::new(self.masks.lock().unwrap_or_else(PoisonError::into_inner).next_pass()),
        }
    }

    /// Sets all parameters and running statistics to those of `weights`; nothing is changed on an error of the weights.
    /// Other tensors are ignored.
    ///
    /// # Errors
    /// For weights that are missing, of another shape or that cannot be read, and if the device fails.
    pub fn load(&mut self, weights: &Weights) -> std::result::Result<(), ModuleError> {
        let mut loaded = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            let missing = || ModuleError::MissingTensor { tensor: name.clone() };
            let weight = weights.get(name).ok_or_else(missing)?;
            if weight.shape != tensor.dims() {
                let (expected, found) = (tensor.dims().to_vec(), weight.shape.clone());
                return Err(ModuleError::Shape { tensor: name.clone(), expected, found });
            }
            let values = Tensor::from_vec(weight.to_f32()?, tensor.shape(), &self.device)?;
            loaded.push(values.to_dtype(tensor.dtype())?);
        }
        for ((name, tensor), values) in self.tensors.iter_mut().zip(loaded) {
            match self.trained.get(name).or(self.statistics.get(name)) {
                Some(variable) => variable.set(&values)?,
                None => *tensor = values,
            }
        }
        Ok(())
    }

    /// The current parameters as f32, for building a backbone.
    ///
    /// # Errors
    /// Errors of candle when values are copied from the device.
    pub fn export(&self) -> Result<Weights> {
        let mut weights = Weights::new();
        for (name, tensor) in &self.tensors {
            let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            weights.insert(name.clone(), WeightTensor::from_f32(tensor.dims().to_vec(), &values));
        }
        Ok(weights)
    }
}
