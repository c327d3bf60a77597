//! Backbones: a graph with weights, and the extractors compiled from it.

use std::path::PathBuf;
use std::time::Duration;

use nomaly_kernels::Isa;
use nomaly_kernels::network::{Network, OutputLayout, StepInfo, Workspace};
use nomaly_registry::UnknownName;
use serde::Serialize;

use crate::error::BackboneError;
use crate::graph::{Graph, Op, Parameter, ParameterRole};
use crate::initialise;
use crate::parameters::Parameters;
use crate::plan;
use crate::registry::{BACKBONES, BackboneEntry, Preprocessing};
use crate::weights::{self, WeightTensor, Weights};

/// A place where features can be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TapInfo {
    /// The name that users type.
    pub name: String,
    /// Channels of the features.
    pub channels: usize,
    /// Pixels of the input between neighbouring positions; `None` for `logits`, which have one position.
    pub stride: Option<usize>,
}

/// Features to take, and the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapRequest {
    /// Name of the tap.
    pub name: String,
    /// Order of the numbers, or their mean over all positions.
    pub layout: OutputLayout,
}

impl TapRequest {
    /// Asks for the tap `name` in `layout`.
    pub fn new(name: impl Into<String>, layout: OutputLayout) -> Self {
        Self { name: name.into(), layout }
    }
}

/// Where [`Backbone::open`] looks for weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// A weight file (`.safetensors`, `.pth`, `.pt`); without one the embedded weights, then the store are tried.
    pub weights: Option<PathBuf>,
}

/// A network with its weights, checked: every tensor has the shape that the architecture gives it and holds finite
/// numbers.
///
/// Weights may end early. A file without the classifier, or one that was cut after a middle layer, serves the taps before
/// that place. Batch norm may have been folded into the convolutions: such a file has a bias for each convolution and no
/// batch norm tensors. Tensors that the architecture does not know are left out and listed by [`Backbone::ignored`].
pub struct Backbone {
    entry: &'static BackboneEntry,
    graph: Graph,
    weights: Weights,
    /// How many taps, from the shallowest, the weights serve; at least one.
    served: usize,
    /// The first tensor that the first tap not served lacks.
    missing: Option<String>,
    ignored: Vec<String>,
    source: String,
    licence: String,
}

impl std::fmt::Debug for Backbone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backbone")
            .field("name", &self.entry.name)
            .field("tensors", &self.weights.len())
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Backbone {
    /// The default backbone, whose weights are part of the library: EfficientNet-Lite0.
    ///
    /// # Errors
    /// Where the embedded weights cannot be unpacked.
    pub fn embedded() -> Result<Self, BackboneError> {
        Self::open("efficientnet-lite0", &OpenOptions::default())
    }

    /// Opens a backbone by name, with weights from the file in `options`, or else embedded ones, or else from the store
    /// that `nomaly weights get` fills. A backbone that has no weights needs none.
    ///
    /// # Errors
    /// For an unknown name, weights that are not there, and those of [`Backbone::from_tensors`].
    pub fn open(name: &str, options: &OpenOptions) -> Result<Self, BackboneError> {
        let entry = BACKBONES.get(name)?;
        if !entry.has_weights() {
            if let Some(path) = &options.weights {
                return Err(BackboneError::TakesNoWeights { backbone: name.to_owned(), path: path.clone() });
            }
            return Ok(Self::from_tensors(name, Weights::new())?.with_provenance(NO_WEIGHTS, NO_WEIGHTS));
        }
        if let Some(path) = &options.weights {
            let backbone = Self::from_tensors(name, weights::read(path)?)?;
            // The name alone: where a file lay on one machine means nothing on another.
            let file = path.file_name().unwrap_or(path.as_os_str()).display().to_string();
            return Ok(backbone.with_provenance(file, UNSTATED));
        }
        let Some(known) = entry.weights else { return Err(BackboneError::Untrained { backbone: name.to_owned() }) };
        if known.embedded {
            let backbone = Self::from_tensors(name, weights::embedded()?)?;
            return Ok(backbone.with_provenance(known.origin, known.licence));
        }
        match weights::load(name)? {
            Some(tensors) => Ok(Self::from_tensors(name, tensors)?.with_provenance(known.origin, known.licence)),
            None => Err(BackboneError::NoWeights { backbone: name.to_owned() }),
        }
    }

    /// A backbone to be trained from the start: convolutions and the classifier He-normal, biases and running means 0,
    /// batch norm's factors and running variances 1. The same `seed` gives the same weights.
    ///
    /// # Errors
    /// For an unknown name.
    pub fn initialised(name: &str, classes: usize, seed: u64) -> Result<Self, BackboneError> {
        let graph = BACKBONES.get(name)?.architecture.graph(classes);
        let backbone = Self::from_tensors(name, initialise::he_normal(&graph, seed))?;
        Ok(backbone.with_provenance(format!("initialised with seed {seed}"), UNSTATED))
    }

    /// Makes a backbone of tensors, such as those of a model file. The classifier may have any number of classes.
    ///
    /// # Errors
    /// For an unknown name, a tensor of the wrong shape, numbers that are not finite, negative variances, and where not
    /// even the shallowest tap can be served.
    pub fn from_tensors(name: &str, mut weights: Weights) -> Result<Self, BackboneError> {
        let entry = BACKBONES.get(name)?;
        let graph = with_classes_of(entry, &weights);
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
        let ignored = weights.into_keys().collect();
        let (source, licence) = ("tensors".to_owned(), UNSTATED.to_owned());
        Ok(Self { entry, graph, weights: known, served, missing, ignored, source, licence })
    }

    /// The same backbone with a word on where its weights come from and on what terms.
    pub fn with_provenance(mut self, source: impl Into<String>, licence: impl Into<String>) -> Self {
        self.source = source.into();
        self.licence = licence.into();
        self
    }

    /// Its name in the registry.
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// Its entry in the registry.
    pub fn entry(&self) -> &'static BackboneEntry {
        self.entry
    }

    /// What it computes.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The taps that the weights serve, from the shallowest to the deepest.
    pub fn taps(&self) -> Vec<TapInfo> {
        tap_infos(&self.graph).take(self.served).collect()
    }

    /// How images are prepared for the known weights.
    pub fn preprocessing(&self) -> Preprocessing {
        self.entry.preprocessing
    }

    /// The licence of the weights as an SPDX identifier, or `not stated`.
    pub fn licence(&self) -> &str {
        &self.licence
    }

    /// Where the weights come from: who published them, or the file.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names of tensors that were given and do not belong to the architecture, such as `num_batches_tracked`.
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// Compiles an extractor of `taps` for images of `input` = (height, width). Nothing below the deepest tap is
    /// computed.
    ///
    /// # Errors
    /// For a tap that the backbone or its weights do not have, for no tap at all, for an input that is too small, and
    /// for an instruction set that this machine lacks.
    pub fn compile(&self, input: [usize; 2], taps: &[TapRequest], isa: Isa) -> Result<Extractor, BackboneError> {
        if taps.is_empty() {
            let taps = self.taps().into_iter().map(|tap| tap.name).collect::<Vec<_>>().join(", ");
            return Err(BackboneError::NoTaps { backbone: self.name().to_owned(), taps });
        }
        let outputs = taps
            .iter()
            .map(|request| Ok((self.tap_node(&request.name)?, request.layout)))
            .collect::<Result<Vec<_>, BackboneError>>()?;
        let parameters = Parameters { backbone: self.name(), weights: &self.weights };
        let network = plan::compile(&self.graph, &parameters, input, &outputs, isa)?;
        Ok(Extractor { network, taps: taps.to_vec() })
    }

    /// The tensors that the deepest of `taps` needs, with their names, shapes and number formats as they came: what a
    /// model file keeps, and what [`Backbone::from_tensors`] takes back.
    ///
    /// # Errors
    /// For a tap that the backbone or its weights do not have.
    pub fn export(&self, taps: &[&str]) -> Result<Weights, BackboneError> {
        let targets = taps.iter().map(|tap| self.tap_node(tap)).collect::<Result<Vec<_>, _>>()?;
        let needed = self.graph.needed(&targets);
        let mut exported = Weights::new();
        for index in (0..needed.len()).filter(|&index| needed[index]) {
            for parameter in accepted(&self.graph, index) {
                if let Some(tensor) = self.weights.get(&parameter.name) {
                    exported.insert(parameter.name, tensor.clone());
                }
            }
        }
        Ok(exported)
    }

    /// What [`export`](Self::export) gives, with each batch norm that was folded into its convolution put back as the affine map
    /// that it left: weights for [`trainable`](crate::trainable), which trains the layers of the graph as they are. The
    /// running variance is such that with epsilon it is 1.
    pub(crate) fn unfolded(&self, taps: &[&str]) -> Result<Weights, BackboneError> {
        let mut weights = self.export(taps)?;
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
        Ok(weights)
    }

    /// The node of a tap that the weights serve.
    pub(crate) fn tap_node(&self, name: &str) -> Result<usize, BackboneError> {
        let taps = self.graph.taps();
        let Some(position) = taps.iter().position(|tap| tap.name == name) else {
            let source = UnknownName::new("tap", name, taps.iter().map(|tap| tap.name.as_str()));
            return Err(BackboneError::UnknownTap { backbone: self.name().to_owned(), source });
        };
        if position >= self.served {
            return Err(BackboneError::TapNotServed {
                backbone: self.name().to_owned(),
                tap: name.to_owned(),
                tensor: self.missing.clone().unwrap_or_default(),
                deepest: taps[self.served - 1].name.clone(),
            });
        }
        Ok(taps[position].node)
    }
}

const NO_WEIGHTS: &str = "no weights";
const UNSTATED: &str = "not stated";

/// The taps of a graph, from the shallowest to the deepest.
pub fn tap_infos(graph: &Graph) -> impl Iterator<Item = TapInfo> {
    graph.taps().iter().map(|tap| {
        let node = &graph.nodes()[tap.node];
        TapInfo { name: tap.name.clone(), channels: node.channels, stride: node.stride }
    })
}

/// The graph with as many classes as the classifier in `weights`, its last linear layer, has, if there is one.
fn with_classes_of(entry: &BackboneEntry, weights: &Weights) -> Graph {
    let graph = entry.graph();
    let classifier = graph.nodes().iter().rev().find_map(|node| match &node.op {
        Op::Linear { name } => weights.get(&format!("{name}.weight")),
        _ => None,
    });
    match classifier.map(|tensor| tensor.shape.as_slice()) {
        Some(&[classes, _]) if classes > 0 && classes != entry.classes => entry.architecture.graph(classes),
        _ => graph,
    }
}

/// A parameter that a node takes from a weight file.
struct Accepted {
    name: String,
    shape: Vec<usize>,
    role: ParameterRole,
    optional: bool,
}

/// What a node takes: its parameters, and for a convolution without bias the one that folding leaves.
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

/// Whether the node is a batch norm of which the file has nothing, after a convolution of which it has the bias.
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

/// A backbone compiled for one input size and a choice of taps. It can be shared between threads; what a run scribbles on
/// is in the [`Workspace`].
#[derive(Debug)]
pub struct Extractor {
    network: Network,
    taps: Vec<TapRequest>,
}

impl Extractor {
    /// The taps in the order of the outputs.
    pub fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    /// `[3, height, width]` of one image.
    pub fn input_shape(&self) -> [usize; 3] {
        self.network.input_shape()
    }

    /// `[C, h, w]` of the features at the output's place, whatever their layout; `[C, 1, 1]` for means.
    pub fn output_shape(&self, output: usize) -> [usize; 3] {
        self.network.output_shape(output)
    }

    /// Memory for runs of up to `batch` images.
    pub fn workspace(&self, batch: usize) -> Workspace {
        self.network.workspace(batch)
    }

    /// Runs `batch` images, `input` `[N, 3, H, W]`. `outputs` has a vector for each tap and is resized to the features of
    /// all images one after another. The features of an image do not depend on the batch it is in, nor on the number of
    /// threads.
    ///
    /// # Errors
    /// Where the length of `input` is not that of `batch` images, or `outputs` has not one vector for each tap.
    pub fn run(
        &self,
        input: &[f32],
        batch: usize,
        workspace: &mut Workspace,
        outputs: &mut [Vec<f32>],
    ) -> Result<(), BackboneError> {
        Ok(self.network.run(input, batch, workspace, outputs)?)
    }

    /// The steps of a run, in order: what each computes, and how much work it is.
    pub fn steps(&self) -> Vec<StepInfo> {
        self.network.steps()
    }

    /// [`run`](Self::run), and the time that each of [`steps`](Self::steps) took.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn profile(
        &self,
        input: &[f32],
        batch: usize,
        workspace: &mut Workspace,
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Duration>, BackboneError> {
        Ok(self.network.profile(input, batch, workspace, outputs)?)
    }
}
