//! Loads images as batches of network input: in parallel, in order, in bounded memory.
//!
//! # How decoding and the consumer overlap
//! While the consumer works on a batch, the next one is decoded: both run as the two halves of [`rayon::join`] in the
//! caller's thread pool. There are no threads besides the pool's, a parallel consumer shares the pool with the
//! decoding, and idle cores take the remaining work. Nothing waits for a queue, which rules out deadlocks even in a
//! pool of one thread. A producer thread with a channel would need threads outside the pool, or inside it could wait
//! for a worker that waits for it.
//!
//! At most two batches of tensors exist at once, and one decoded image per thread. The batch size counts images: a
//! pipeline with several views per image makes a tensor larger by that factor. An image at several sizes is decoded
//! once, and a [`FrameCache`] spares later runs the decoding.
//!
//! # Memory
//! Headers are read before decoding. A batch ends early if its images would exceed [`LoaderOptions::memory`] together,
//! and the next one is not decoded while the consumer holds a batch if both would exceed it. This bounds the memory of
//! all images together, including those that [`stream_inspected`] keeps in their batch; an image larger than the budget
//! is loaded alone. No thread waits for memory held by another one, which could deadlock a thread pool.
//!
//! ```
//! use nomaly_data::{Label, Sample, loader};
//! use nomaly_transforms::{Filter, Normalize, Pipeline, Resize, ResizeMode};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let image = std::sync::Arc::new(image::RgbImage::new(10, 10));
//! let samples: Vec<Sample> = (0..5)
//!     .map(|number| Sample {
//!         id: format!("test/{number}"),
//!         source: nomaly_data::ImageSource::Memory(image.clone()),
//!         label: Label::Normal,
//!         kind: "good".to_owned(),
//!         mask: None,
//!     })
//!     .collect();
//! let resize = Resize { mode: ResizeMode::Exact { height: 8, width: 8 }, filter: Filter::Bilinear };
//! let pipeline = Pipeline::new(resize, None, Normalize::IMAGENET)?;
//!
//! let mut sizes = Vec::new();
//! let options = loader::LoaderOptions { batch: 2, ..Default::default() };
//! loader::stream(&samples, &[pipeline], &options, |batch| {
//!     assert_eq!(batch.data[0].len(), batch.len() * 3 * 8 * 8);
//!     sizes.push(batch.len());
//!     Ok::<(), std::convert::Infallible>(())
//! })?;
//! assert_eq!(sizes, [2, 2, 1]);
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use image::RgbImage;
use nomaly_transforms::{FileFacts, Limits, Pipeline, TransformError};
use rayon::prelude::*;

use crate::{DataError, FrameCache, Sample};

/// A decoded image, passed to the inspection.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The index of its sample.
    pub index: usize,
    /// The pixels.
    pub image: RgbImage,
    /// How it is stored, for images from files.
    pub file: Option<FileFacts>,
}

/// The default memory limit of all images: two batches of eight 20-megapixel images.
const DEFAULT_MEMORY: u64 = 1 << 30;

/// Options of loading.
#[derive(Clone, Copy, Debug)]
pub struct LoaderOptions<'a> {
    /// Images per batch, at least 1.
    pub batch: usize,
    /// Limits of a single image.
    pub limits: Limits,
    /// The most bytes of all images together, from decoding until their batch is consumed.
    pub memory: u64,
    /// Cancels the run when set.
    pub cancel: Option<&'a AtomicBool>,
    /// The cache of frames. Cached frames are not used if decoded images are inspected.
    pub frames: Option<Frames<'a>>,
}

/// A cache of frames, with the numbers of the samples in it.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    /// The cache.
    pub cache: &'a FrameCache,
    /// The number of each sample in the cache; `None` if it equals the index.
    pub numbers: Option<&'a [usize]>,
}

impl Frames<'_> {
    fn number(&self, index: usize) -> usize {
        self.numbers.map_or(index, |numbers| numbers[index])
    }
}

impl Default for LoaderOptions<'_> {
    /// Batches of 8: enough to keep a network's kernels busy, small enough for any machine.
    fn default() -> Self {
        Self { batch: 8, limits: Limits::default(), memory: DEFAULT_MEMORY, cancel: None, frames: None }
    }
}

/// A batch of network input.
#[derive(Debug)]
pub struct LoadedBatch<K = ()> {
    /// The indices of the samples, ascending.
    pub indices: Vec<usize>,
    /// The output of each pipeline, `[N · views, 3, H, W]`, where `N` is the length of `indices` and `views` the
    /// pipeline's [views per image](Pipeline::view_count); the views of an image are consecutive.
    pub data: Vec<Vec<f32>>,
    /// The result of the inspection of each image, in the order of `indices`; empty in [`stream`].
    pub inspected: Vec<K>,
    /// The samples of this stretch that could not be loaded.
    pub failures: Vec<Failure<K>>,
}

impl<K> LoadedBatch<K> {
    /// The number of images in `data`, each with all its views.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether no image of this stretch could be loaded.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

/// A sample that could not be loaded.
#[derive(Debug)]
pub struct Failure<K = ()> {
    /// Its index.
    pub index: usize,
    /// Its id.
    pub id: String,
    /// The error.
    pub error: DataError,
    /// The result of the inspection, if the image was decoded.
    pub inspected: Option<K>,
}

/// The summary of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadSummary {
    /// The number of images passed to the consumer.
    pub loaded: usize,
    /// The number of images that could not be loaded.
    pub failed: usize,
    /// Whether [`LoaderOptions::cancel`] ended the run.
    pub cancelled: bool,
}

/// Passes all samples to `consume`, batch by batch, in order, as the output of each of `pipelines`.
///
/// Every sample occurs exactly once, in a batch's `indices` or `failures`. Batches depend only on the order of the
/// samples and the sizes in their headers, and values do not depend on the number of threads. A batch whose images all
/// failed is passed too. `consume` runs on one thread at a time, while the next batch is decoded; on cancellation the
/// current batch is the last one.
///
/// # Errors
/// The first error of `consume`. Images that cannot be loaded are not errors.
pub fn stream<E, F>(
    samples: &[Sample],
    pipelines: &[Pipeline],
    options: &LoaderOptions<'_>,
    consume: F,
) -> Result<LoadSummary, E>
where
    E: Send,
    F: FnMut(LoadedBatch) -> Result<(), E> + Send,
{
    run(samples, pipelines, options, None::<&fn(Inspected)>, consume)
}

/// As [`stream`], with `inspect` called on each decoded image, on the thread that decoded it; its result is part of the
/// batch. All images are decoded, even if their frames are cached.
///
/// # Errors
/// As [`stream`].
pub fn stream_inspected<K, E, I, F>(
    samples: &[Sample],
    pipelines: &[Pipeline],
    options: &LoaderOptions<'_>,
    inspect: I,
    consume: F,
) -> Result<LoadSummary, E>
where
    K: Send,
    E: Send,
    I: Fn(Inspected) -> K + Sync,
    F: FnMut(LoadedBatch<K>) -> Result<(), E> + Send,
{
    run(samples, pipelines, options, Some(&inspect), consume)
}

fn run<K, E, I, F>(
    samples: &[Sample],
    pipelines: &[Pipeline],
    options: &LoaderOptions<'_>,
    inspect: Option<&I>,
    mut consume: F,
) -> Result<LoadSummary, E>
where
    K: Send,
    E: Send,
    I: Fn(Inspected) -> K + Sync,
    F: FnMut(LoadedBatch<K>) -> Result<(), E> + Send,
{
    let mut outcome = LoadSummary::default();
    let mut plan = Plan { samples, options, next: 0, announced: VecDeque::new() };
    let load_next = |stretch: Option<&Stretch>| {
        let range = stretch?.range.clone();
        load(&samples[range.clone()], range.start, pipelines, options, inspect)
    };

    let mut stretch = plan.next();
    let mut ready = load_next(stretch.as_ref());
    while let (Some(batch), Some(current)) = (ready.take(), stretch) {
        outcome.loaded += batch.len();
        outcome.failed += batch.failures.len();
        stretch = plan.next();
        let both = current.bytes.saturating_add(stretch.as_ref().map_or(0, |next| next.bytes));
        ready = if both <= options.memory {
            let (consumed, next) = rayon::join(|| consume(batch), || load_next(stretch.as_ref()));
            consumed?;
            next
        } else {
            consume(batch)?;
            load_next(stretch.as_ref())
        };
    }
    outcome.cancelled = outcome.loaded + outcome.failed < samples.len();
    Ok(outcome)
}

/// Samples that become a batch.
struct Stretch {
    range: Range<usize>,
    /// The bytes of their images.
    bytes: u64,
}

/// Divides samples into batches.
struct Plan<'a> {
    samples: &'a [Sample],
    options: &'a LoaderOptions<'a>,
    /// The first sample of the next batch.
    next: usize,
    /// The bytes of the images from there on, as far as their headers have been read.
    announced: VecDeque<u64>,
}

impl Plan<'_> {
    fn next(&mut self) -> Option<Stretch> {
        let most = self.options.batch.max(1).min(self.samples.len() - self.next);
        let unread = &self.samples[self.next + self.announced.len().min(most)..self.next + most];
        let read: Vec<u64> = unread
            .par_iter()
            .with_max_len(1)
            .map(|sample| sample.source.announced().map_or(0, |found| found.bytes))
            .collect();
        self.announced.extend(read);

        let mut stretch = Stretch { range: self.next..self.next, bytes: 0 };
        while stretch.range.len() < most
            && let Some(bytes) = self.announced.front()
            && (stretch.range.is_empty() || stretch.bytes.saturating_add(*bytes) <= self.options.memory)
        {
            stretch.bytes = stretch.bytes.saturating_add(*bytes);
            stretch.range.end += 1;
            self.announced.pop_front();
        }
        self.next = stretch.range.end;
        Some(stretch).filter(|stretch| !stretch.range.is_empty())
    }
}

/// Decodes and transforms one batch; `None` if the run was cancelled.
fn load<K: Send>(
    samples: &[Sample],
    first: usize,
    pipelines: &[Pipeline],
    options: &LoaderOptions<'_>,
    inspect: Option<&(impl Fn(Inspected) -> K + Sync)>,
) -> Option<LoadedBatch<K>> {
    let cancelled = || options.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed));
    let mut data: Vec<Vec<f32>> =
        pipelines.iter().map(|pipeline| vec![0.0; samples.len() * pipeline.output_len()]).collect();
    // The slice of each image in every tensor.
    let mut tensors: Vec<Vec<&mut [f32]>> = samples.iter().map(|_| Vec::with_capacity(pipelines.len())).collect();
    for (data, pipeline) in data.iter_mut().zip(pipelines) {
        tensors.iter_mut().zip(data.chunks_exact_mut(pipeline.output_len())).for_each(|(of, part)| of.push(part));
    }
    let results: Vec<Option<Loaded<K>>> = tensors
        .par_iter_mut()
        .zip(samples)
        .enumerate()
        .with_max_len(1)
        .map(|(offset, (tensors, sample))| {
            (!cancelled()).then(|| load_one(sample, first + offset, pipelines, options, inspect, tensors))
        })
        .collect();

    let mut indices = Vec::with_capacity(samples.len());
    let (mut inspections, mut failures) = (Vec::new(), Vec::new());
    for (offset, loaded) in results.into_iter().enumerate() {
        let Loaded { result, inspected } = loaded?;
        let index = first + offset;
        match result {
            Ok(()) => {
                indices.push(index);
                inspections.extend(inspected);
            }
            Err(error) => failures.push(Failure { index, id: samples[offset].id.clone(), error, inspected }),
        }
    }
    for (data, pipeline) in data.iter_mut().zip(pipelines) {
        let length = pipeline.output_len();
        // Images after a failed one move up to close the gap.
        for (to, offset) in indices.iter().map(|index| index - first).enumerate().filter(|(to, offset)| to != offset) {
            data.copy_within(offset * length..(offset + 1) * length, to * length);
        }
        data.truncate(indices.len() * length);
    }
    Some(LoadedBatch { indices, data, inspected: inspections, failures })
}

/// The result of a sample.
struct Loaded<K> {
    result: Result<(), DataError>,
    /// Present if the image was decoded and inspected.
    inspected: Option<K>,
}

fn load_one<K>(
    sample: &Sample,
    index: usize,
    pipelines: &[Pipeline],
    options: &LoaderOptions<'_>,
    inspect: Option<&impl Fn(Inspected) -> K>,
    tensors: &mut [&mut [f32]],
) -> Loaded<K> {
    let refuse = |cause| DataError::Transform { id: sample.id.clone(), cause };
    let cache = options.frames.map(|frames| (frames.cache, frames.number(index)));
    if let (Some((cache, number)), None) = (cache, inspect)
        && let Some(applied) = from_cache(cache, number, pipelines, tensors)
    {
        return Loaded { result: applied.map_err(refuse), inspected: None };
    }
    let (image, file) = match sample.source.load_with_facts(&options.limits) {
        Ok(loaded) => loaded,
        Err(error) => return Loaded { result: Err(error), inspected: None },
    };
    let apply = || {
        if let Some((cache, number)) = cache
            && cache.keep(number, &image)?
            && let Some(applied) = from_cache(cache, number, pipelines, tensors)
        {
            return applied;
        }
        pipelines.iter().zip(tensors).try_for_each(|(pipeline, tensor)| pipeline.apply_into(&image, tensor))
    };
    let result = apply().map_err(refuse);
    Loaded { result, inspected: inspect.map(|inspect| inspect(Inspected { index, image, file })) }
}

/// Makes tensors of cached frames; `None` unless all are cached.
fn from_cache(
    cache: &FrameCache,
    number: usize,
    pipelines: &[Pipeline],
    tensors: &mut [&mut [f32]],
) -> Option<Result<(), TransformError>> {
    let frames: Option<Vec<&RgbImage>> = pipelines.iter().map(|pipeline| cache.get(number, pipeline)).collect();
    let mut all = pipelines.iter().zip(frames?).zip(tensors);
    Some(all.try_for_each(|((pipeline, frame), tensor)| pipeline.apply_frame_into(frame, tensor)))
}
