//! Execution of a planned network.

use std::time::{Duration, Instant};

use super::plan::{Plan, Step, StepKind};
use super::{Activation, NetworkError};
use crate::blocked::{Arena, Scratch};
use crate::buffer::AlignedBuf;
use crate::convert;
use crate::elementwise::{self, Map};
use crate::epilogue::Epilogue;
use crate::pool::{self, Pooling};
use crate::simd::Token;
use crate::team::Team;

/// The most images that pass through the network together. Larger batches go through in groups: weights are still read
/// once for several images, while the memory does not grow with the batch.
const IMAGES_TOGETHER: usize = 8;

/// Bytes of intermediate tensors of a group; more would be evicted from the cache between layers.
const GROUP_BYTES: usize = 16 << 20;

/// A network that is ready to run; made by [`NetworkBuilder::finish`](super::NetworkBuilder::finish).
///
/// It is immutable and can be shared among threads; each concurrent run needs a [`NetworkWorkspace`] of its own.
#[derive(Debug)]
pub struct CompiledNetwork {
    token: Token,
    input: [usize; 3],
    plan: Plan,
}

/// The memory of one run: all intermediate tensors of up to eight images.
#[derive(Clone, Debug)]
pub struct NetworkWorkspace {
    arena: AlignedBuf,
    scratch: AlignedBuf,
    per_image: usize,
    images: usize,
}

impl NetworkWorkspace {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        (self.arena.len() + self.scratch.len()) * size_of::<f32>()
    }
}

/// What one step of a network does, for profiles.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInfo {
    /// The operation and its sizes, such as `conv 3x3 64->128 at 28x28`.
    pub description: String,
    /// How it is computed, such as `direct`, `winograd 4x4`, `depthwise`, or `-` where there is only one way.
    pub algorithm: &'static str,
    /// Floating-point operations for one image; of the direct algorithm, whichever is used.
    pub flops: u64,
}

impl StepInfo {
    /// A step outside a compiled network.
    pub fn new(description: impl Into<String>, algorithm: &'static str, flops: u64) -> Self {
        Self { description: description.into(), algorithm, flops }
    }
}

impl CompiledNetwork {
    pub(super) fn new(token: Token, input: [usize; 3], plan: Plan) -> Self {
        Self { token, input, plan }
    }

    /// Shape `[C, H, W]` of an input image.
    pub fn input_shape(&self) -> [usize; 3] {
        self.input
    }

    /// Number of outputs, in the order given to [`finish`](super::NetworkBuilder::finish).
    pub fn output_count(&self) -> usize {
        self.plan.outputs.len()
    }

    /// Shape `[C, H, W]` of output `index` for an image, whatever its layout; `[C, 1, 1]` for a mean.
    ///
    /// # Panics
    /// When there is no such output.
    pub fn output_shape(&self, index: usize) -> [usize; 3] {
        self.plan.outputs[index]
    }

    /// Values of output `index` for one image.
    ///
    /// # Panics
    /// When there is no such output.
    pub fn output_len(&self, index: usize) -> usize {
        self.plan.outputs[index].iter().product()
    }

    /// Memory for runs of batches of up to `batch` images. A larger batch can be run with it too, in smaller groups.
    pub fn workspace(&self, batch: usize) -> NetworkWorkspace {
        let fitting = GROUP_BYTES / (self.plan.arena * size_of::<f32>()).max(1);
        // With many threads, one image per thread matters more than the cache.
        let together = fitting.max(rayon::current_num_threads() / 2).clamp(1, IMAGES_TOGETHER);
        // Groups of equal size keep idle threads to a minimum.
        let batch = batch.max(1);
        let images = batch.div_ceil(batch.div_ceil(together));
        let scratch = AlignedBuf::zeroed(self.scratch(images, rayon::current_num_threads()));
        NetworkWorkspace {
            arena: AlignedBuf::zeroed(self.plan.arena * images),
            scratch,
            per_image: self.plan.arena,
            images,
        }
    }

    /// Values of scratch memory for a group of images.
    fn scratch(&self, images: usize, threads: usize) -> usize {
        self.plan.shared_scratch * images + self.plan.thread_scratch * threads
    }

    /// The steps of a run, in order.
    pub fn steps(&self) -> Vec<StepInfo> {
        let info = |step: &Step| StepInfo {
            description: step.kind.describe(),
            algorithm: step.kind.algorithm(),
            flops: step.flops,
        };
        self.plan.steps.iter().map(info).collect()
    }

    /// Computes all outputs for `input`, `[N, C, H, W]` with N = `batch`. Each output vector is resized to
    /// `batch * output_len(i)`.
    ///
    /// # Errors
    /// When `input` has another length, the number of output vectors is wrong, or `workspace` belongs to a network
    /// with other tensors.
    pub fn run(
        &self,
        input: &[f32],
        batch: usize,
        workspace: &mut NetworkWorkspace,
        outputs: &mut [Vec<f32>],
    ) -> Result<(), NetworkError> {
        self.execute(input, batch, workspace, outputs, |_, work| work())
    }

    /// As [`run`](Self::run); also returns the time that each of [`steps`](Self::steps) took.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn profile(
        &self,
        input: &[f32],
        batch: usize,
        workspace: &mut NetworkWorkspace,
        outputs: &mut [Vec<f32>],
    ) -> Result<Vec<Duration>, NetworkError> {
        let mut times = vec![Duration::ZERO; self.plan.steps.len()];
        self.execute(input, batch, workspace, outputs, |step, work| {
            let start = Instant::now();
            work();
            times[step] += start.elapsed();
        })?;
        Ok(times)
    }

    fn execute(
        &self,
        input: &[f32],
        batch: usize,
        workspace: &mut NetworkWorkspace,
        outputs: &mut [Vec<f32>],
        mut around: impl FnMut(usize, &mut dyn FnMut()) + Send,
    ) -> Result<(), NetworkError> {
        let image = self.input.iter().product::<usize>();
        let expected = batch.checked_mul(image).ok_or(NetworkError::TooLarge { what: "the batch" })?;
        if input.len() != expected {
            return Err(NetworkError::Length { what: "the input", expected, found: input.len() });
        }
        if outputs.len() != self.output_count() {
            return Err(NetworkError::OutputCount { expected: self.output_count(), found: outputs.len() });
        }
        if workspace.per_image != self.plan.arena {
            return Err(NetworkError::Workspace { expected: self.plan.arena, found: workspace.per_image });
        }
        for (index, output) in outputs.iter_mut().enumerate() {
            output.resize(batch * self.output_len(index), 0.0);
        }
        let scratch = self.scratch(workspace.images, rayon::current_num_threads());
        if workspace.scratch.len() < scratch {
            // The workspace was made for a pool with fewer threads.
            workspace.scratch = AlignedBuf::zeroed(scratch);
        }
        let shared = self.plan.shared_scratch * workspace.images;
        let scratch = Scratch::new(workspace.scratch.as_mut_ptr(), shared, self.plan.thread_scratch);
        Team::gather(|team| {
            for first in (0..batch).step_by(workspace.images) {
                let images = workspace.images.min(batch - first);
                let input = &input[first * image..(first + images) * image];
                let arena = Arena::new(workspace.arena.as_mut_ptr(), workspace.images);
                for (index, step) in self.plan.steps.iter().enumerate() {
                    around(index, &mut || self.step(step, arena, scratch, images, team, input, first, outputs));
                }
            }
        });
        Ok(())
    }

    fn step(
        &self,
        step: &Step,
        arena: Arena,
        scratch: Scratch,
        images: usize,
        team: &Team,
        input: &[f32],
        first: usize,
        outputs: &mut [Vec<f32>],
    ) {
        let token = self.token;
        // SAFETY: the workspace has the arena length of this plan for at least `images` images and is borrowed
        // exclusively for the run; steps run one after the other; shapes were checked when the network was built.
        unsafe {
            match &step.kind {
                StepKind::Input { dst } => convert::load(arena, images, team, input, dst),
                StepKind::Dense(dense) => dense.run(token, arena, scratch, images, team),
                StepKind::Winograd(winograd) => winograd.run(token, arena, scratch, images, team),
                StepKind::Depthwise(depthwise) => depthwise.run(token, arena, images, team),
                StepKind::Bottleneck(bottleneck) => bottleneck.run(token, arena, scratch, images, team),
                StepKind::Inverted(inverted) => inverted.run(token, arena, scratch, images, team),
                StepKind::Affine { src, dst, scale, shift, epilogue } => {
                    let map = Map::Affine(scale, shift);
                    elementwise::run(token, arena, images, team, [src, dst], map, *epilogue);
                }
                StepKind::Add { a, b, dst, epilogue } => {
                    elementwise::run(token, arena, images, team, [a, dst], Map::Add(b), *epilogue);
                }
                StepKind::Scale { src, gate, dst } => {
                    let identity = Epilogue::new(Activation::Identity);
                    elementwise::run(token, arena, images, team, [src, dst], Map::Gate(gate), identity);
                }
                StepKind::MaxPool { src, dst, window } => {
                    pool::run(token, arena, images, team, [src, dst], window, Pooling::Max);
                }
                StepKind::AvgPool { src, dst, window, count_include_pad } => {
                    let pooling = if *count_include_pad { Pooling::MeanWindow } else { Pooling::MeanInside };
                    pool::run(token, arena, images, team, [src, dst], window, pooling);
                }
                StepKind::MeanOfSums { sums, dst, width } => {
                    pool::mean_of_sums(token, arena, images, team, [sums, dst], *width);
                }
                StepKind::Mean { src, dst } => pool::mean(token, arena, images, team, [src, dst]),
                StepKind::Emit { src, output, layout } => {
                    let from = first * self.output_len(*output);
                    let target = &mut outputs[*output][from..];
                    convert::emit(token, arena, images, team, src, *layout, target);
                }
            }
        }
    }
}

impl StepKind {
    fn algorithm(&self) -> &'static str {
        match self {
            StepKind::Dense(dense) => dense.algorithm(),
            StepKind::Winograd(winograd) => winograd.algorithm(),
            StepKind::Depthwise(_) => "depthwise",
            StepKind::Bottleneck(_) | StepKind::Inverted(_) => "fused",
            _ => "-",
        }
    }

    fn describe(&self) -> String {
        let of = |name: &str, view: &crate::blocked::View| {
            format!("{name} {} at {}x{}", view.channels, view.height, view.width)
        };
        match self {
            StepKind::Input { dst } => of("input", dst),
            StepKind::Dense(dense) => dense.describe(),
            StepKind::Winograd(winograd) => winograd.describe(),
            StepKind::Depthwise(depthwise) => depthwise.describe(),
            StepKind::Bottleneck(bottleneck) => bottleneck.describe(),
            StepKind::Inverted(inverted) => inverted.describe(),
            StepKind::Affine { dst, .. } => of("affine", dst),
            StepKind::Add { dst, .. } => of("add", dst),
            StepKind::MaxPool { dst, .. } => of("max pool", dst),
            StepKind::AvgPool { dst, .. } => of("average pool", dst),
            StepKind::Mean { src, .. } => of("mean", src),
            StepKind::MeanOfSums { dst, .. } => of("mean of row sums", dst),
            StepKind::Scale { dst, .. } => of("scale", dst),
            StepKind::Emit { src, .. } => of("output", src),
        }
    }
}
