//! Inference of any graph on a CPU.
//!
//! **The problem.** A blocked plan ([`CompiledNetwork`]) runs a network without conversions, but has one input and only
//! the operations of classifiers. A generator or an autoencoder with skips has transposed convolutions,
//! concatenations and instance norms between its convolutions.
//!
//! **The design.** A graph is cut where the blocked plan ends. Each segment becomes one plan that reads and writes
//! `[N, C, H, W]`, with an output for each skip; what lies between is computed by the planar kernels of
//! [`nomaly_kernels::training`], with batch norm folded into transposed convolutions and activations applied in place.
//! Transposed convolutions with more weights than results are plans too, with an output for each remainder modulo the
//! stride.
//! Tokens of transformers are rows, which linear layers with packed weights turn into others: LayerScale is folded into
//! the layer before it, and activation and residual sum are part of its kernel. A patch embedding is such a layer too.
//! A network that a plan has whole is one segment, which reads the input and writes the outputs itself, so it computes
//! the same bits as [`compile`](crate::compile) makes of it.
//!
//! An [`Inference`] is immutable and can be shared among threads; each concurrent run needs an [`InferenceWorkspace`]
//! of its own. An image's result depends neither on the batch nor on the number of threads.
//!
//! ```
//! use nomaly_kernels::Isa;
//! use nomaly_kernels::geometry::{Activation, OutputLayout};
//! use nomaly_nn::graph::{ConvOptions, ConvTransposeOptions, GraphBuilder};
//! use nomaly_nn::inference::Inference;
//! use nomaly_nn::init::pytorch_default;
//!
//! let mut builder = GraphBuilder::new(1);
//! let x = builder.conv(GraphBuilder::INPUT, "down", 8, ConvOptions::padded(4, 2, 1));
//! let x = builder.activation(x, Activation::Relu);
//! let image = builder.conv_transpose(x, "up", 1, ConvTransposeOptions::new(4, 2, 1));
//! let graph = builder.finish()?;
//! let weights = pytorch_default(&graph, 0);
//! let network = Inference::new(&graph, &weights, &[[8, 8]], &[(image, OutputLayout::Nchw)], Isa::best()?)?;
//! let mut outputs = vec![Vec::new()];
//! network.run(&[&[1.0; 2 * 64]], 2, &mut network.workspace(2), &mut outputs)?;
//! assert_eq!(outputs[0].len(), 2 * 64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cut;
mod error;
mod planar;
mod planner;
mod tokens;
mod transposed;

use std::time::{Duration, Instant};

use nomaly_kernels::geometry::OutputLayout;
use nomaly_kernels::isa::{Isa, IsaError};
use nomaly_kernels::network::{CompiledNetwork, NetworkError, NetworkWorkspace, StepInfo};
use nomaly_kernels::training::{TrainingError, activate_in_place};

use crate::error::CompileError;
use crate::graph::Graph;
use crate::weights::Weights;

use planner::{Place, Plan, Step, Work};

pub use error::InferenceError;

/// A graph that is ready to run for inference.
#[derive(Debug)]
pub struct Inference {
    isa: Isa,
    /// Shape `[C, H, W]` of each input.
    inputs: Vec<[usize; 3]>,
    /// Shape `[C, H, W]` of each output.
    outputs: Vec<[usize; 3]>,
    plan: Plan,
}

/// The memory of one run: the values between segments for a batch, and the workspaces of the segments.
#[derive(Clone, Debug)]
pub struct InferenceWorkspace {
    buffers: Vec<Vec<f32>>,
    segments: Vec<SegmentWorkspace>,
    /// Positions of the largest values of pooling windows.
    places: Vec<u32>,
    /// Values of all buffers for one image.
    per_image: usize,
}

#[derive(Clone, Debug)]
struct SegmentWorkspace {
    network: NetworkWorkspace,
    /// Holds the buffers of the results during a run.
    results: Vec<Vec<f32>>,
}

impl InferenceWorkspace {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        let segments: usize = self.segments.iter().map(|segment| segment.network.bytes()).sum();
        let buffers: usize = self.buffers.iter().map(Vec::len).sum();
        segments + size_of::<f32>() * buffers + size_of::<u32>() * self.places.len()
    }
}

impl Inference {
    /// Makes the part of `graph` that `outputs` (node index, layout) need ready for inputs of these heights and widths.
    ///
    /// A batch norm that the weights do not have counts as folded into the convolution before it.
    ///
    /// # Errors
    /// For another number of inputs, inputs that are too small or do not fit each other, no outputs, an output that is
    /// not a node, a tensor that is missing or of another size, and an instruction set that this machine lacks.
    pub fn new(
        graph: &Graph,
        weights: &Weights,
        inputs: &[[usize; 2]],
        outputs: &[(usize, OutputLayout)],
        isa: Isa,
    ) -> Result<Self, CompileError> {
        if !isa.is_available() {
            return Err(NetworkError::from(IsaError::Unsupported { isa, available: Isa::available() }).into());
        }
        let count = graph.nodes().len();
        if let Some(&(node, _)) = outputs.iter().find(|&&(node, _)| node >= count) {
            return Err(NetworkError::UnknownNode { node, count }.into());
        }
        if outputs.is_empty() {
            return Err(NetworkError::NoOutputs.into());
        }
        let shapes = graph.shapes(inputs)?;
        let plan = planner::plan(graph, weights, outputs, &shapes, isa)?;
        let shape = |&(node, layout): &(usize, OutputLayout)| {
            let [channels, ..] = shapes[node];
            if layout == OutputLayout::Mean { [channels, 1, 1] } else { shapes[node] }
        };
        Ok(Self {
            isa,
            inputs: graph.inputs().map(|node| shapes[node]).collect(),
            outputs: outputs.iter().map(shape).collect(),
            plan,
        })
    }

    /// Shape `[C, H, W]` of an image of each input, in the order of their nodes.
    pub fn input_shapes(&self) -> &[[usize; 3]] {
        &self.inputs
    }

    /// Number of outputs.
    pub fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// Shape `[C, H, W]` of output `index` for an image, whatever its layout; `[C, 1, 1]` for a mean.
    ///
    /// # Panics
    /// When there is no such output.
    pub fn output_shape(&self, index: usize) -> [usize; 3] {
        self.outputs[index]
    }

    /// Values of output `index` for one image.
    ///
    /// # Panics
    /// When there is no such output.
    pub fn output_len(&self, index: usize) -> usize {
        self.outputs[index].iter().product()
    }

    /// The blocked plans of the segments, in the order in which they run.
    pub fn segments(&self) -> impl Iterator<Item = &CompiledNetwork> {
        self.plan.steps.iter().filter_map(|step| match &step.work {
            Work::Segment { plan, .. } => Some(&**plan),
            Work::Planar { .. } => None,
        })
    }

    /// The number of steps that run outside the segments.
    pub fn planar_steps(&self) -> usize {
        self.plan.steps.len() - self.segments().count()
    }

    /// Memory for runs of batches of up to `batch` images; it grows when a larger batch is run with it.
    pub fn workspace(&self, batch: usize) -> InferenceWorkspace {
        let segment = |plan: &CompiledNetwork| SegmentWorkspace {
            network: plan.workspace(batch),
            results: vec![Vec::new(); plan.output_count()],
        };
        InferenceWorkspace {
            buffers: self.plan.buffers.iter().map(|len| vec![0.0; len * batch]).collect(),
            segments: self.segments().map(segment).collect(),
            places: Vec::new(),
            per_image: self.plan.buffers.iter().sum(),
        }
    }

    /// Computes all outputs for `inputs`, `[N, C, H, W]` each with N = `batch`, in the order of their nodes. Each
    /// output vector is resized to `batch * output_len(i)`.
    ///
    /// # Errors
    /// When the number or the length of the inputs differs, the number of output vectors is wrong, or `workspace`
    /// belongs to another network.
    pub fn run(
        &self,
        inputs: &[&[f32]],
        batch: usize,
        workspace: &mut InferenceWorkspace,
        outputs: &mut [Vec<f32>],
    ) -> Result<(), InferenceError> {
        self.execute(inputs, batch, workspace, outputs, None)
    }

    /// The steps of a run, in order: what each computes, and how much work it is.
    pub fn steps(&self) -> Vec<StepInfo> {
        let infos = |step: &Step| match &step.work {
            Work::Segment { plan, .. } => plan.steps(),
            Work::Planar { kind, .. } => {
                let (algorithm, flops) = kind.work(step.len);
                vec![StepInfo::new(step.name.clone(), algorithm, flops)]
            }
        };
        self.plan.steps.iter().flat_map(infos).collect()
    }

    /// As [`run`](Self::run); also returns the time that each of [`steps`](Self::steps) took.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn profile(
        &self,
        inputs: &[&[f32]],
        batch: usize,
        workspace: &mut InferenceWorkspace,
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Duration>, InferenceError> {
        let mut times = Vec::new();
        self.execute(inputs, batch, workspace, outputs, Some(&mut times))?;
        Ok(times)
    }

    fn execute(
        &self,
        inputs: &[&[f32]],
        batch: usize,
        workspace: &mut InferenceWorkspace,
        outputs: &mut [Vec<f32>],
        mut times: Option<&mut Vec<Duration>>,
    ) -> Result<(), InferenceError> {
        if inputs.len() != self.inputs.len() {
            return Err(InferenceError::Inputs { expected: self.inputs.len(), found: inputs.len() });
        }
        for (input, shape) in inputs.iter().zip(&self.inputs) {
            let each = shape.iter().product::<usize>();
            let expected = batch.checked_mul(each).ok_or(NetworkError::TooLarge { what: "the batch" })?;
            if input.len() != expected {
                return Err(NetworkError::Length { what: "an input", expected, found: input.len() }.into());
            }
        }
        if outputs.len() != self.outputs.len() {
            return Err(NetworkError::OutputCount { expected: self.outputs.len(), found: outputs.len() }.into());
        }
        let expected: usize = self.plan.buffers.iter().sum();
        if workspace.per_image != expected
            || workspace.buffers.len() != self.plan.buffers.len()
            || workspace.segments.len() != self.segments().count()
        {
            return Err(NetworkError::Workspace { expected, found: workspace.per_image }.into());
        }
        for (buffer, len) in workspace.buffers.iter_mut().zip(&self.plan.buffers) {
            buffer.resize(len * batch, 0.0);
        }
        for (output, shape) in outputs.iter_mut().zip(&self.outputs) {
            output.resize(batch * shape.iter().product::<usize>(), 0.0);
        }
        for step in &self.plan.steps {
            self.step(step, inputs, batch, workspace, outputs, times.as_deref_mut())?;
        }
        Ok(())
    }

    fn step(
        &self,
        step: &Step,
        inputs: &[&[f32]],
        batch: usize,
        workspace: &mut InferenceWorkspace,
        outputs: &mut [Vec<f32>],
        times: Option<&mut Vec<Duration>>,
    ) -> Result<(), InferenceError> {
        let InferenceWorkspace { buffers, segments, places, .. } = workspace;
        match &step.work {
            Work::Segment { plan, number } => {
                let SegmentWorkspace { network, results } = &mut segments[*number];
                for (result, place) in results.iter_mut().zip(&step.outputs) {
                    std::mem::swap(result, target(*place, buffers, outputs));
                }
                let input = read(step.inputs[0], inputs, buffers, outputs);
                let ran = match times {
                    Some(times) => plan.profile(input, batch, network, results).map(|each| times.extend(each)),
                    None => plan.run(input, batch, network, results),
                };
                for (result, place) in results.iter_mut().zip(&step.outputs) {
                    std::mem::swap(result, target(*place, buffers, outputs));
                }
                Ok(ran?)
            }
            Work::Planar { kind, activation } => {
                let began = Instant::now();
                let to = step.outputs[0];
                let mut result = std::mem::take(target(to, buffers, outputs));
                let operands: Vec<Option<&[f32]>> = step
                    .inputs
                    .iter()
                    .map(|&place| (place != to).then(|| read(place, inputs, buffers, outputs)))
                    .collect();
                let ran = kind
                    .run(self.isa, &operands, &mut result, places)
                    .and_then(|()| activate_in_place(self.isa, *activation, &mut result));
                *target(to, buffers, outputs) = result;
                if let Some(times) = times {
                    times.push(began.elapsed());
                }
                ran.map_err(|source: TrainingError| InferenceError::Layer { layer: step.name.clone(), source })
            }
        }
    }
}

/// The values at a place.
fn read<'a>(place: Place, inputs: &[&'a [f32]], buffers: &'a [Vec<f32>], outputs: &'a [Vec<f32>]) -> &'a [f32] {
    match place {
        Place::Input(index) => inputs[index],
        Place::Buffer(index) => &buffers[index],
        Place::Output(index) => &outputs[index],
    }
}

/// The vector at a place that a step writes.
fn target<'a>(place: Place, buffers: &'a mut [Vec<f32>], outputs: &'a mut [Vec<f32>]) -> &'a mut Vec<f32> {
    match place {
        Place::Input(_) => unreachable!("inputs are not written"),
        Place::Buffer(index) => &mut buffers[index],
        Place::Output(index) => &mut outputs[index],
    }
}
