//! One network of a backbone: a graph with weights for all of it or its shallower part.

use std::sync::Arc;

use nomaly_kernels::geometry::OutputLayout;
use nomaly_nn::runtime::{Device, Executor, Runnable, RuntimeError};

use crate::error::BackboneError;
use crate::extractor::Executable;
use crate::registry::{BackboneEntry, Preprocessing};
use crate::taps::{TapInfo, tap_infos};
use nomaly_nn::graph::{Graph, NodeLayout, Op, Parameter, ParameterRole};
use nomaly_nn::inference::Inference;
use nomaly_nn::weights::{WeightTensor, Weights};

/// A network with its weights, checked: every tensor has the shape that the architecture gives it and holds finite
/// numbers.
pub(crate) struct Part {
    pub(crate) name: String,
    /// Its entry in the registry; `None` for the graph of a method.
    pub(crate) entry: Option<&'static BackboneEntry>,
    /// How its images are prepared.
    pub(crate) preprocessing: Preprocessing,
    pub(crate) graph: Graph,
    /// The prefix of the names of its taps and tensors in the backbone; empty if it is the only network.
    pub(crate) prefix: String,
    weights: Weights,
    /// The number of taps, from the shallowest, that the weights serve; at least one.
    served: usize,
    /// The first missing tensor of the first tap that is not served.
    missing: Option<String>,
}

impl Part {
    /// Takes the tensors of the network out of `weights`, and leaves unknown ones.
    ///
    /// # Errors
    /// For a tensor of the wrong shape, numbers that are not finite, negative variances, and if not even the shallowest
    /// tap can be served.
    pub(crate) fn take(
        entry: &'static BackboneEntry,
        prefix: String,
        weights: &mut Weights,
    ) -> Result<Self, BackboneError> {
        let name = entry.name;
        if let Some(tensor) = entry.architecture.foreign_tensor().filter(|tensor| weights.contains_key(*tensor)) {
            return Err(BackboneError::OtherNetwork { backbone: name.to_owned(), tensor });
        }
        let first = weights.keys().next().cloned();
        let graph = with_classes_of(entry, weights);
        let part = Self::of_graph(name, graph, entry.preprocessing, weights).map_err(|error| {
            match (error, entry.architecture.accepted_names(), first) {
                // Not one tensor was taken.
                (BackboneError::MissingTensor { .. }, Some(expected), Some(found))
                    if weights.keys().next() == Some(&found) =>
                {
                    BackboneError::ForeignNames { backbone: name.to_owned(), expected, found }
                }
                (error, ..) => error,
            }
        })?;
        Ok(Self { entry: Some(entry), prefix, ..part })
    }

    /// As [`take`](Self::take), for a graph that is not in the registry.
    pub(crate) fn of_graph(
        name: &str,
        graph: Graph,
        preprocessing: Preprocessing,
        weights: &mut Weights,
    ) -> Result<Self, BackboneError> {
        let mut known = Weights::new();
        let mut lacking: Vec<Option<String>> = Vec::with_capacity(graph.nodes().len());
        for index in 0..graph.nodes().len() {
            let mut missing = None;
            for parameter in accepted(&graph, index) {
                match weights.remove(&parameter.name) {
                    Some(tensor) => {
                        check(name, &parameter, &tensor)?;
                        known.insert(parameter.name, tensor);
                    }
                    None if parameter.optional => {}
                    None => missing = missing.or(Some(parameter.name)),
                }
            }
            lacking.push(missing);
        }
        for index in 0..graph.nodes().len() {
            if is_folded(&graph, index, &known) {
                lacking[index] = None;
            }
        }

        let mut served = 0;
        let mut missing = None;
        for tap in graph.taps() {
            let needed = graph.needed(&[tap.node]);
            missing = lacking.iter().zip(needed).filter(|(_, needed)| *needed).find_map(|(lacking, _)| lacking.clone());
            if missing.is_some() {
                break;
            }
            served += 1;
        }
        if served == 0 {
            let tensor = missing.unwrap_or_default();
            return Err(BackboneError::MissingTensor { backbone: name.to_owned(), tensor });
        }
        let (name, prefix) = (name.to_owned(), String::new());
        Ok(Self { name, entry: None, preprocessing, graph, prefix, weights: known, served, missing })
    }

    /// Number of tensors.
    pub(crate) fn tensors(&self) -> usize {
        self.weights.len()
    }

    /// The taps that the weights serve, from the shallowest to the deepest, with their names in the backbone.
    pub(crate) fn taps(&self) -> impl Iterator<Item = TapInfo> {
        let named = |tap: TapInfo| TapInfo { name: format!("{}{}", self.prefix, tap.name), ..tap };
        tap_infos(&self.graph).take(self.served).map(named)
    }

    /// The node of the tap at `position` in the graph, if the weights serve it.
    pub(crate) fn served_node(&self, position: usize) -> Result<usize, BackboneError> {
        let taps = self.graph.taps();
        if position >= self.served {
            return Err(BackboneError::TapNotServed {
                backbone: self.name.clone(),
                tap: taps[position].name.clone(),
                tensor: self.missing.clone().unwrap_or_default(),
                deepest: taps[self.served - 1].name.clone(),
            });
        }
        Ok(taps[position].node)
    }

    /// Makes the network ready to run on a device, with the `outputs` (node, layout) for images of `input` = (height,
    /// width).
    pub(crate) fn compile(
        &self,
        input: [usize; 2],
        outputs: &[(usize, OutputLayout)],
        executor: &Executor,
    ) -> Result<Executable, BackboneError> {
        if let Some(next) = self.entry.and_then(|entry| entry.fitting_size(input)) {
            let multiple = self.entry.map_or(1, |entry| entry.architecture.size_multiple());
            return Err(BackboneError::InputSize { backbone: self.name.clone(), size: input, multiple, next });
        }
        let device = executor.device();
        if device == Device::Cpu {
            let plan = Inference::new(&self.graph, &self.weights, &[input], outputs, executor.isa())
                .map_err(|error| BackboneError::compile(&self.name, error))?;
            return Ok(Executable::Plan(Box::new(plan)));
        }
        let network = self.inference(&[input], outputs, executor)?;
        Ok(Executable::OnDevice { network, input: [3, input[0], input[1]], device })
    }

    /// Makes the network ready for the `outputs` (node, layout) and inputs of these heights and widths, whatever its
    /// operations.
    pub(crate) fn inference(
        &self,
        inputs: &[[usize; 2]],
        outputs: &[(usize, OutputLayout)],
        executor: &Executor,
    ) -> Result<Arc<dyn Runnable>, BackboneError> {
        executor.runtime().prepare(&self.graph, &self.weights, inputs, outputs).map_err(|error| match error {
            RuntimeError::Compile(error) => BackboneError::compile(&self.name, error),
            error => BackboneError::on_device(executor.device(), error),
        })
    }

    /// The tensors that the `targets` need, by their names in the network.
    pub(crate) fn export(&self, targets: &[usize]) -> Weights {
        let needed = self.graph.needed(targets);
        let mut exported = Weights::new();
        for index in (0..needed.len()).filter(|&index| needed[index]) {
            for parameter in accepted(&self.graph, index) {
                if let Some(tensor) = self.weights.get(&parameter.name) {
                    exported.insert(parameter.name, tensor.clone());
                }
            }
        }
        exported
    }

    /// As [`export`](Self::export), with folded batch norms restored as affine maps, for
    /// [`trainable`](nomaly_nn::trainable), which trains the layers of the graph as they are. The running variance plus
    /// epsilon is 1.
    pub(crate) fn unfolded(&self, target: usize) -> Weights {
        let mut weights = self.export(&[target]);
        for (index, node) in self.graph.nodes().iter().enumerate() {
            let Op::BatchNorm { epsilon, .. } = node.op else { continue };
            let Some(Op::Conv { name, .. }) = self.graph.foldable_into(index).map(|conv| &self.graph.nodes()[conv].op)
            else {
                continue;
            };
            if !is_folded(&self.graph, index, &weights) {
                continue;
            }
            let Some(bias) = weights.remove(&format!("{name}.bias")) else { continue };
            for Parameter { name, shape, role } in self.graph.parameters_of(index) {
                let value = match role {
                    ParameterRole::NormShift => {
                        weights.insert(name, bias.clone());
                        continue;
                    }
                    ParameterRole::RunningMean => 0.0,
                    ParameterRole::RunningVariance => (1.0 - epsilon) as f32,
                    _ => 1.0,
                };
                let values = vec![value; shape.iter().product()];
                weights.insert(name, WeightTensor::from_f32(shape, &values));
            }
        }
        weights
    }
}

/// The graph with as many classes as the classifier (the last linear layer) in `weights`, if there is one.
fn with_classes_of(entry: &BackboneEntry, weights: &Weights) -> Graph {
    let graph = entry.graph();
    let classifier = graph.nodes().iter().rev().find_map(|node| match &node.op {
        Op::Linear { name, .. } if node.layout == NodeLayout::Image => weights.get(&format!("{name}.weight")),
        _ => None,
    });
    match classifier.map(|tensor| tensor.shape.as_slice()) {
        Some(&[classes, _]) if classes > 0 && classes != entry.classes => entry.architecture.graph(classes),
        _ => graph,
    }
}

/// A parameter that a node accepts from a weight file.
struct Accepted {
    name: String,
    shape: Vec<usize>,
    role: ParameterRole,
    optional: bool,
}

/// The parameters that a node accepts: its own, and for a convolution without bias the bias left by folding.
fn accepted(graph: &Graph, index: usize) -> Vec<Accepted> {
    let take = |Parameter { name, shape, role }, optional| Accepted { name, shape, role, optional };
    let node = &graph.nodes()[index];
    let mut all: Vec<_> = graph.parameters_of(index).into_iter().map(|parameter| take(parameter, false)).collect();
    if let Op::Conv { name, bias: false, .. } = &node.op {
        let bias = Parameter { name: format!("{name}.bias"), shape: vec![node.channels], role: ParameterRole::Bias };
        all.push(take(bias, true));
    }
    all
}

/// Whether the node is a batch norm missing from the file, after a convolution whose bias is in the file.
fn is_folded(graph: &Graph, index: usize, weights: &Weights) -> bool {
    let Some(conv) = graph.foldable_into(index) else { return false };
    let has_bias = accepted(graph, conv).iter().any(|part| part.optional && weights.contains_key(&part.name));
    has_bias && graph.parameters_of(index).iter().all(|part| !weights.contains_key(&part.name))
}

fn check(backbone: &str, parameter: &Accepted, tensor: &WeightTensor) -> Result<(), BackboneError> {
    if tensor.shape != parameter.shape {
        return Err(BackboneError::Shape {
            backbone: backbone.to_owned(),
            tensor: parameter.name.clone(),
            expected: parameter.shape.clone(),
            found: tensor.shape.clone(),
        });
    }
    let values = tensor.to_f32()?;
    let expected = parameter.shape.iter().try_fold(1usize, |all, &size| all.checked_mul(size));
    if Some(values.len()) != expected {
        return Err(BackboneError::Shape {
            backbone: backbone.to_owned(),
            tensor: parameter.name.clone(),
            expected: parameter.shape.clone(),
            found: vec![values.len()],
        });
    }
    let least = if parameter.role == ParameterRole::RunningVariance { 0.0 } else { f32::MIN };
    match values.iter().position(|value| !(least..=f32::MAX).contains(value)) {
        Some(index) => Err(BackboneError::BadValue {
            backbone: backbone.to_owned(),
            tensor: parameter.name.clone(),
            index,
            value: values[index],
        }),
        None => Ok(()),
    }
}
