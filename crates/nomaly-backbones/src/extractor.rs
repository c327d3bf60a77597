//! A compiled backbone: its networks, and the memory of a run.

use std::sync::Arc;
use std::time::Duration;

use nomaly_kernels::geometry::OutputLayout;
use nomaly_kernels::network::{NetworkError, StepInfo};
use nomaly_nn::inference::{Inference, InferenceWorkspace};
use nomaly_nn::runtime::{Device, Runnable};

use crate::error::BackboneError;
use crate::registry::Preprocessing;
use crate::taps::TapRequest;

/// A backbone compiled for one input size and a choice of taps. It can be shared between threads; each concurrent run
/// needs a [`Workspace`] of its own.
#[derive(Debug)]
pub struct Extractor {
    /// Height and width of an image.
    input: [usize; 2],
    networks: Vec<Compiled>,
    taps: Vec<TapRequest>,
    /// `[C, h, w]` of each tap.
    shapes: Vec<[usize; 3]>,
}

/// A compiled network and its outputs.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) network: Executable,
    /// The taps that are its outputs, in their order.
    pub(crate) taps: Vec<usize>,
    /// Present if its normalization differs from the first network's.
    pub(crate) renormalize: Option<Renormalize>,
}

/// A network that is ready to run.
#[derive(Debug)]
pub(crate) enum Executable {
    /// A plan of the processor, which runs in the memory of a [`Workspace`].
    Plan(Box<Inference>),
    /// A network on another device, which has memory of its own.
    OnDevice {
        network: Arc<dyn Runnable>,
        /// `[3, height, width]` of one image.
        input: [usize; 3],
        device: Device,
    },
}

impl Executable {
    /// `[C, h, w]` of each output.
    fn output_shapes(&self) -> Vec<[usize; 3]> {
        match self {
            Self::Plan(plan) => (0..plan.output_count()).map(|output| plan.output_shape(output)).collect(),
            Self::OnDevice { network, .. } => network.output_shapes(),
        }
    }

    /// Memory for runs of up to `batch` images; none for a device that has its own.
    fn workspace(&self, batch: usize) -> Option<InferenceWorkspace> {
        match self {
            Self::Plan(plan) => Some(plan.workspace(batch)),
            Self::OnDevice { .. } => None,
        }
    }
}

/// Converts inputs from the normalization of one network to that of another: a factor and a summand per channel.
///
/// It cannot be folded into the following convolution, because the zeros around the image are normalized values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Renormalize {
    scale: [f32; 3],
    shift: [f32; 3],
}

impl Renormalize {
    /// `(x · std₁ + mean₁ − mean₂) / std₂`; `None` if both use the same normalization.
    pub(crate) fn between(from: &Preprocessing, to: &Preprocessing) -> Option<Self> {
        if (from.mean, from.std) == (to.mean, to.std) {
            return None;
        }
        let [from_mean, from_std, to_mean, to_std] =
            [from.mean, from.std, to.mean, to.std].map(|values| values.map(f64::from));
        Some(Self {
            scale: std::array::from_fn(|channel| (from_std[channel] / to_std[channel]) as f32),
            shift: std::array::from_fn(|channel| ((from_mean[channel] - to_mean[channel]) / to_std[channel]) as f32),
        })
    }

    /// Writes the renormalized `input`, with planes of `positions` values.
    fn apply(&self, input: &[f32], positions: usize, out: &mut Vec<f32>) {
        out.clear();
        out.reserve(input.len());
        for (plane, values) in input.chunks(positions.max(1)).enumerate() {
            let (scale, shift) = (self.scale[plane % 3], self.shift[plane % 3]);
            out.extend(values.iter().map(|value| value * scale + shift));
        }
    }
}

/// The memory of one run.
#[derive(Clone, Debug)]
pub struct Workspace {
    networks: Vec<Option<InferenceWorkspace>>,
    /// The renormalized input of a network.
    input: Vec<f32>,
}

impl Workspace {
    /// Size in bytes, without the memory of other devices.
    pub fn bytes(&self) -> usize {
        let networks: usize = self.networks.iter().flatten().map(InferenceWorkspace::bytes).sum();
        networks + self.input.capacity() * size_of::<f32>()
    }
}

impl Extractor {
    pub(crate) fn new(input: [usize; 2], networks: Vec<Compiled>, taps: Vec<TapRequest>) -> Self {
        let [height, width] = input;
        let pixels = |tap: &TapRequest| match tap.layout {
            OutputLayout::Mean => [3, 1, 1],
            OutputLayout::Nchw | OutputLayout::Rows => [3, height, width],
        };
        let mut shapes: Vec<[usize; 3]> = taps.iter().map(pixels).collect();
        for Compiled { network, taps, .. } in &networks {
            taps.iter().zip(network.output_shapes()).for_each(|(&tap, shape)| shapes[tap] = shape);
        }
        Self { input, networks, taps, shapes }
    }

    /// The taps in the order of the outputs.
    pub fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    /// `[3, height, width]` of one image.
    pub fn input_shape(&self) -> [usize; 3] {
        [3, self.input[0], self.input[1]]
    }

    /// `[C, h, w]` of the features of an output, whatever its layout; `[C, 1, 1]` for means.
    pub fn output_shape(&self, output: usize) -> [usize; 3] {
        self.shapes[output]
    }

    /// Memory for runs of up to `batch` images.
    pub fn workspace(&self, batch: usize) -> Workspace {
        let networks = self.networks.iter().map(|compiled| compiled.network.workspace(batch)).collect();
        let renormalized = self.networks.iter().any(|compiled| compiled.renormalize.is_some());
        let input = if renormalized { batch * self.input_shape().iter().product::<usize>() } else { 0 };
        Workspace { networks, input: Vec::with_capacity(input) }
    }

    /// Runs `batch` images, `input` `[N, 3, H, W]`. `outputs` has a vector for each tap and is resized to the features
    /// of all images one after another. On the processor, the features of an image depend neither on its batch nor on
    /// the number of threads.
    ///
    /// # Errors
    /// If the length of `input` is not that of `batch` images, `outputs` does not have one vector per tap, `workspace`
    /// belongs to another extractor, or the device fails.
    pub fn run(
        &self,
        input: &[f32],
        batch: usize,
        workspace: &mut Workspace,
        outputs: &mut [Vec<f32>],
    ) -> Result<(), BackboneError> {
        self.execute(input, batch, workspace, outputs, &mut |network, input, workspace, outputs| {
            match (network, workspace) {
                (Executable::Plan(plan), Some(workspace)) => plan.run(&[input], batch, workspace, outputs)?,
                (Executable::OnDevice { network, input: shape, device }, None) => {
                    let each = shape.iter().product();
                    let expected = batch.checked_mul(each).ok_or(NetworkError::TooLarge { what: "the batch" })?;
                    if input.len() != expected {
                        return Err(NetworkError::Length { what: "the input", expected, found: input.len() }.into());
                    }
                    let results = network.run(&[input]).map_err(|error| BackboneError::on_device(*device, error))?;
                    outputs.iter_mut().zip(results).for_each(|(output, result)| *output = result);
                }
                _ => return Err(BackboneError::OtherWorkspace),
            }
            Ok(())
        })
    }

    /// The steps of a run, in order: what each computes, and how much work it is. None of networks on other devices.
    pub fn steps(&self) -> Vec<StepInfo> {
        let steps = |compiled: &Compiled| match &compiled.network {
            Executable::Plan(plan) => plan.steps(),
            Executable::OnDevice { .. } => Vec::new(),
        };
        self.networks.iter().flat_map(steps).collect()
    }

    /// As [`run`](Self::run); also returns the time of each of the [`steps`](Self::steps).
    ///
    /// # Errors
    /// As [`run`](Self::run), and for a network on another device, whose steps cannot be timed.
    pub fn profile(
        &self,
        input: &[f32],
        batch: usize,
        workspace: &mut Workspace,
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Duration>, BackboneError> {
        let mut times = Vec::new();
        self.execute(input, batch, workspace, outputs, &mut |network, input, workspace, outputs| match (
            network, workspace,
        ) {
            (Executable::Plan(plan), Some(workspace)) => {
                times.extend(plan.profile(&[input], batch, workspace, outputs)?);
                Ok(())
            }
            (Executable::OnDevice { device, .. }, _) => {
                Err(BackboneError::NotOnDevice { device: *device, what: "the times of single layers" })
            }
            (Executable::Plan(_), None) => Err(BackboneError::OtherWorkspace),
        })?;
        Ok(times)
    }

    /// Calls `run` for each network with its input and its outputs.
    fn execute(
        &self,
        input: &[f32],
        batch: usize,
        workspace: &mut Workspace,
        outputs: &mut [Vec<f32>],
        run: &mut Run<'_>,
    ) -> Result<(), BackboneError> {
        if outputs.len() != self.taps.len() {
            return Err(NetworkError::OutputCount { expected: self.taps.len(), found: outputs.len() }.into());
        }
        let [_, height, width] = self.input_shape();
        let Workspace { networks, input: renormalized } = workspace;
        if networks.len() != self.networks.len() {
            return Err(BackboneError::OtherWorkspace);
        }
        for (tap, values) in self.taps.iter().zip(&mut *outputs).filter(|(tap, _)| tap.is_pixels()) {
            pixels(input, batch, height * width, tap.layout, values)?;
        }
        for (Compiled { network, taps, renormalize }, workspace) in self.networks.iter().zip(networks) {
            let input = match renormalize {
                Some(renormalize) => {
                    renormalize.apply(input, height * width, renormalized);
                    &renormalized[..]
                }
                None => input,
            };
            let mut own: Vec<Vec<f32>> = taps.iter().map(|&tap| std::mem::take(&mut outputs[tap])).collect();
            let done = run(network, input, workspace.as_mut(), &mut own);
            taps.iter().zip(own).for_each(|(&tap, values)| outputs[tap] = values);
            done?;
        }
        Ok(())
    }
}

/// A run of a network on its input, with its workspace and outputs.
type Run<'a> =
    dyn FnMut(&Executable, &[f32], Option<&mut InferenceWorkspace>, &mut [Vec<f32>]) -> Result<(), BackboneError> + 'a;

/// Writes the planes of `batch` images in a layout.
fn pixels(
    input: &[f32],
    batch: usize,
    positions: usize,
    layout: OutputLayout,
    out: &mut Vec<f32>,
) -> Result<(), BackboneError> {
    let (each, found) = (3 * positions, input.len());
    if batch.checked_mul(each) != Some(found) {
        let expected = batch.saturating_mul(each);
        return Err(NetworkError::Length { what: "the input", expected, found }.into());
    }
    out.clear();
    match layout {
        OutputLayout::Nchw => out.extend_from_slice(input),
        OutputLayout::Rows => {
            for image in input.chunks_exact(each.max(1)) {
                out.extend((0..positions).flat_map(|at| [0, 1, 2].map(|channel| image[channel * positions + at])));
            }
        }
        OutputLayout::Mean => {
            let mean = |plane: &[f32]| plane.iter().map(|&value| f64::from(value)).sum::<f64>() / positions as f64;
            out.extend(input.chunks_exact(positions.max(1)).map(|plane| mean(plane) as f32));
        }
    }
    Ok(())
}
