//! The CPU: compiled plans, and networks in training.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use nomaly_kernels::network::{CompiledNetwork, NetworkError, NetworkWorkspace, OutputLayout};
use nomaly_kernels::{Isa, IsaError};

use super::{Runnable, Runtime, RuntimeError, TrainableNetwork, same_kind};
use crate::error::CompileError;
use crate::graph::Graph;
use crate::plan::compile;
use crate::trainable::{Network, NetworkOptimizer, Pass, Rule, TrainableError};
use crate::weights::Weights;

/// Runs networks on the CPU: with the plan of [`compile`](crate::compile) where it has all operations, otherwise with
/// the kernels of training.
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
        outputs: &[usize],
    ) -> Result<Arc<dyn Runnable>, RuntimeError> {
        if let (&[size], 1) = (inputs, graph.inputs().count()) {
            let targets: Vec<_> = outputs.iter().map(|&output| (output, OutputLayout::Nchw)).collect();
            match compile(graph, weights, size, &targets, self.isa) {
                Ok(plan) => return Ok(Arc::new(Planned { plan, workspace: Mutex::new(None) })),
                Err(CompileError::Unsupported { .. } | CompileError::Network(NetworkError::Groups { .. })) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let network = Network::at_nodes(graph, outputs, inputs, weights, self.isa)?;
        Ok(Arc::new(Evaluated { shapes: network.output_shapes(), network: Mutex::new(network) }))
    }

    fn trainable(
        &self,
        graph: &Graph,
        weights: &Weights,
        inputs: &[[usize; 2]],
        outputs: &[usize],
    ) -> Result<Box<dyn TrainableNetwork>, RuntimeError> {
        let network = Network::at_nodes(graph, outputs, inputs, weights, self.isa)?;
        Ok(Box::new(Training { network, optimizer: None }))
    }
}

/// A compiled plan.
#[derive(Debug)]
struct Planned {
    plan: CompiledNetwork,
    /// The memory of the last run, for so many images.
    workspace: Mutex<Option<(usize, NetworkWorkspace)>>,
}

impl Runnable for Planned {
    fn output_shapes(&self) -> Vec<[usize; 3]> {
        (0..self.plan.output_count()).map(|output| self.plan.output_shape(output)).collect()
    }

    fn run(&self, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, RuntimeError> {
        let &[input] = inputs else {
            return Err(TrainableError::Inputs { expected: 1, found: inputs.len() }.into());
        };
        let each = self.plan.input_shape().iter().product::<usize>();
        if !input.len().is_multiple_of(each) {
            return Err(TrainableError::Images { each, found: input.len() }.into());
        }
        let images = input.len() / each;
        let kept = self.workspace.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut workspace = match kept {
            Some((of, workspace)) if of == images => workspace,
            _ => self.plan.workspace(images),
        };
        let mut outputs = vec![Vec::new(); self.plan.output_count()];
        self.plan.run(input, images, &mut workspace, &mut outputs).map_err(CompileError::from)?;
        *self.workspace.lock().unwrap_or_else(PoisonError::into_inner) = Some((images, workspace));
        Ok(outputs)
    }
}

/// What no plan can run; one thread at a time.
#[derive(Debug)]
struct Evaluated {
    shapes: Vec<[usize; 3]>,
    network: Mutex<Network>,
}

impl Runnable for Evaluated {
    fn output_shapes(&self) -> Vec<[usize; 3]> {
        self.shapes.clone()
    }

    fn run(&self, inputs: &[&[f32]]) -> Result<Vec<Vec<f32>>, RuntimeError> {
        // A pass starts anew, whatever became of the one before it.
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        network.run(inputs, Pass::Evaluate)?;
        Ok((0..self.shapes.len()).map(|output| network.output(output).to_vec()).collect())
    }
}

/// A network in training with its optimizer.
#[derive(Debug)]
struct Training {
    network: Network,
    optimizer: Option<NetworkOptimizer>,
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
        let optimizer = self.optimizer.get_or_insert_with(|| NetworkOptimizer::new(rule));
        same_kind(optimizer.rule, rule)?;
        optimizer.rule = rule;
        Ok(self.network.step(optimizer)?)
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
