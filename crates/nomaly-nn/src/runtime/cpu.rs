//! The CPU: inference, and networks in training.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nomaly_kernels::geometry::OutputLayout;
use nomaly_kernels::{Isa, IsaError};

use super::{Runnable, Runtime, RuntimeError, TrainableNetwork, same_kind};
use crate::error::CompileError;
use crate::graph::Graph;
use crate::inference::{Inference, InferenceWorkspace};
use crate::trainable::{Network, NetworkOptimizer, OptimizerOptions, OptimizerState, Pass, Rule, TrainableError};
use crate::weights::Weights;

/// Runs networks on the CPU: inference by [`Inference`], training by [`Network`].
#[derive(Clone, Copy, Debug)]
pub struct CpuRuntime {
    isa: Isa,
}

impl CpuRuntime {
    /// A runtime of an instruction set.
    pub fn new(isa: Isa) -> Self {
        Self { isa }
    }

    /// A runtime of the best instruction set of this machine.
    ///
    /// # Errors
    /// As for [`Isa::best`].
    pub fn best() -> Result<Self, IsaError> {
        Isa::best().map(Self::new)
    }
}

impl Runtime for CpuRuntime {
    fn name(&self) -> String {
        "cpu".to_owned()
    }

    fn prepare(
        &self,
        graph: &Graph,
        weights: &Weights,
        inputs: &[[usize; 2]],
        outputs: &[(usize, OutputLayout)],
    ) -> Result<Arc<dyn Runnable>, RuntimeError> {
        match Inference::new(graph, weights, inputs, outputs, self.isa) {
            Ok(network) => Ok(Arc::new(Prepared { network, idle: Mutex::new(Vec::new()) })),
            Err(CompileError::Graph(error)) => Err(error.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn trainable(
        &self,
        graph: &Graph,
        weights: &Weights,
        inputs: &[[usize; 2]],
        outputs: &[usize],
    ) -> Result<Box<dyn TrainableNetwork>, RuntimeError> {
        let network = Network::at_nodes(graph, outputs, inputs, weights, self.isa)?;
        Ok(Box::new(Training { network, optimizer: None, options: OptimizerOptions::default() }))
    }
}

/// A network that is ready to run.
#[derive(Debug)]
struct Prepared {
    network: Inference,
    /// The memory of earlier runs.
    idle: Mutex<Vec<InferenceWorkspace>>,
}

impl Prepared {
    fn idle(&self) -> MutexGuard<'_, Vec<InferenceWorkspace>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runnable for Prepared {
    fn output_shapes(&self) -> Vec<[usize; 3]> {
        (0..self.network.output_count()).map(|output| self.network.output_shape(output)).collect()
    }

    fn run(&self, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, RuntimeError> {
        let shapes = self.network.input_shapes();
        if inputs.len() != shapes.len() {
            return Err(TrainableError::Inputs { expected: shapes.len(), found: inputs.len() }.into());
        }
        let mut images = None;
        for (input, shape) in inputs.iter().zip(shapes) {
            let each = shape.iter().product::<usize>();
            let own = input.len() / each;
            if !input.len().is_multiple_of(each) || *images.get_or_insert(own) != own {
                return Err(TrainableError::Images { each, found: input.len() }.into());
            }
        }
        let images = images.unwrap_or(0);
        let idle = self.idle().pop();
        let mut workspace = idle.unwrap_or_else(|| self.network.workspace(images));
        let mut outputs = vec![Vec::new(); self.network.output_count()];
        self.network.run(inputs, images, &mut workspace, &mut outputs)?;
        self.idle().push(workspace);
        Ok(outputs)
    }
}

/// A network in training with its optimizer.
#[derive(Debug)]
struct Training {
    network: Network,
    optimizer: Option<NetworkOptimizer>,
    options: OptimizerOptions,
}

impl TrainableNetwork for Training {
    fn output_shapes(&self) -> Vec<[usize; 3]> {
        self.network.output_shapes()
    }

    fn run(&mut self, inputs: &[&[f32]], pass: Pass) -> Result<(), RuntimeError> {
        Ok(self.network.run(inputs, pass)?)
    }

    fn output(&self, index: usize) -> &[f32] {
        self.network.output(index)
    }

    fn backward(&mut self, gradients: &[&[f32]]) -> Result<(), RuntimeError> {
        Ok(self.network.backward(gradients)?)
    }

    fn step(&mut self, rule: Rule) -> Result<(), RuntimeError> {
        let Self { optimizer, options, .. } = self;
        let fresh = || NetworkOptimizer::new(rule).with_options(options.clone());
        let optimizer = optimizer.get_or_insert_with(fresh);
        same_kind(optimizer.rule, rule)?;
        optimizer.rule = rule;
        Ok(self.network.step(optimizer)?)
    }

    fn classify(&mut self, images: &[f32], labels: &[u32]) -> Result<f32, RuntimeError> {
        Ok(self.network.classify(images, labels)?)
    }

    fn set_optimizer_options(&mut self, options: OptimizerOptions) {
        self.optimizer = self.optimizer.take().map(|optimizer| optimizer.with_options(options.clone()));
        self.options = options;
    }

    fn optimizer_state(&self) -> Result<OptimizerState, RuntimeError> {
        Ok(self.optimizer.as_ref().map(NetworkOptimizer::export).unwrap_or_default())
    }

    fn resume(&mut self, rule: Rule, state: OptimizerState) -> Result<(), RuntimeError> {
        self.optimizer = Some(NetworkOptimizer::restore(rule, state).with_options(self.options.clone()));
        Ok(())
    }

    fn gradients(&self) -> Result<BTreeMap<String, Vec<f32>>, RuntimeError> {
        Ok(self.network.gradients().map(|(name, _, values)| (name.to_owned(), values.to_vec())).collect())
    }

    fn input_gradient(&self, input: usize) -> &[f32] {
        self.network.input_gradient_of(input)
    }

    fn set_input_gradient(&mut self, wanted: bool) {
        self.network.set_input_gradient(wanted);
    }

    fn set_frozen(&mut self, frozen: bool) {
        self.network.set_frozen(frozen);
    }

    fn set_accumulating(&mut self, accumulating: bool) {
        self.network.set_accumulating(accumulating);
    }

    fn clear_gradients(&mut self) {
        self.network.clear_gradients();
    }

    fn seed_dropout(&mut self, seed: u64) {
        self.network.seed_dropout(seed);
    }

    fn weights(&self) -> Result<Weights, RuntimeError> {
        Ok(self.network.weights())
    }

    fn load(&mut self, weights: &Weights) -> Result<(), RuntimeError> {
        Ok(self.network.load(weights)?)
    }
}
