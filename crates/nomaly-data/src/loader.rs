//! Images in, batches of network input out: in parallel, in order, in bounded memory.
//!
//! # How decoding and the consumer overlap
//! While the consumer works on a batch, the next one is decoded: the two run as the two halves of [`rayon::join`] in the
//! caller's thread pool. So there is no thread beside the pool's (no more runnable threads than cores), a consumer that is
//! itself parallel shares the pool with the decoding, an idle core takes whichever work is left, and nothing ever waits
//! for a queue, which rules a deadlock out, also in a pool of one thread. A producer thread with a channel would need
//! threads outside the pool or, inside it, could wait for a worker that waits for it.
//!
//! At most two batches of tensors exist at once, and one decoded image a thread. A batch is counted in images: where the
//! pipeline makes several views of an image, its tensor holds as many times more.
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
//! loader::stream(&samples, &pipeline, &options, |batch| {
//!     assert_eq!(batch.data.len(), batch.len() * 3 * 8 * 8);
//!     sizes.push(batch.len());
//!     Ok::<(), std::convert::Infallible>(())
//! })?;
//! assert_eq!(sizes, [2, 2, 1]);
//! # Ok(())
//! # }
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

use image::RgbImage;
use nomaly_transforms::{Limits, Pipeline};
use rayon::prelude::*;

use crate::{DataError, Sample};

/// Called with the index of each sample and its decoded image, before the transform, from the thread that decoded it.
pub type Inspect<'a> = &'a (dyn Fn(usize, &RgbImage) + Sync);

/// How images are loaded.
#[derive(Clone, Copy)]
pub struct LoaderOptions<'a> {
    /// Images a batch, at least 1.
    pub batch: usize,
    /// What a single image may take.
    pub limits: Limits,
    /// Set from elsewhere to end the run early.
    pub cancel: Option<&'a AtomicBool>,
    /// Sees every decoded image, for thumbnails and overlays.
    pub inspect: Option<Inspect<'a>>,
}

impl Default for LoaderOptions<'_> {
    /// Batches of 8: enough to keep a network's kernels busy, small enough for any machine.
    fn default() -> Self {
        Self { batch: 8, limits: Limits::default(), cancel: None, inspect: None }
    }
}

impl std::fmt::Debug for LoaderOptions<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LoaderOptions")
            .field("batch", &self.batch)
            .field("limits", &self.limits)
            .field("cancel", &self.cancel)
            .field("inspect", &self.inspect.is_some())
            .finish()
    }
}

/// Some images as network input.
#[derive(Debug)]
pub struct Batch {
    /// Which samples these are: positions in the list given to [`stream`], ascending.
    pub indices: Vec<usize>,
    /// Their values, `[N · views, 3, H, W]`, where `N` is the length of `indices` and `views` the pipeline's
    /// [number of views](Pipeline::view_count) of an image; those of one image follow each other.
    pub data: Vec<f32>,
    /// The samples of this stretch of the list that could not be loaded.
    pub failures: Vec<Failure>,
}

impl Batch {
    /// How many images there are in `data`, each with all its views.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether not one image of this stretch could be loaded.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

/// A sample that could not be loaded.
#[derive(Debug)]
pub struct Failure {
    /// Its position in the list given to [`stream`].
    pub index: usize,
    /// Its name.
    pub id: String,
    /// Why.
    pub error: DataError,
}

/// How a run went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Images handed to the consumer.
    pub loaded: usize,
    /// Images that could not be loaded.
    pub failed: usize,
    /// Whether the run was ended by [`LoaderOptions::cancel`].
    pub cancelled: bool,
}

/// Hands all samples to `consume`, batch by batch, in their order.
///
/// Every sample turns up exactly once: in a batch's `indices`, or in its `failures`. Which samples share a batch depends
/// on their positions alone, and the values do not depend on the number of threads. A batch whose images all failed is
/// handed over too. `consume` runs on one thread at a time, while the next batch is being decoded; on cancellation the
/// batch that it is working on is the last one.
///
/// # Errors
/// The first error that `consume` returns; images that cannot be loaded are no errors.
pub fn stream<E, F>(
    samples: &[Sample],
    pipeline: &Pipeline,
    options: &LoaderOptions<'_>,
    mut consume: F,
) -> Result<Outcome, E>
where
    E: Send,
    F: FnMut(Batch) -> Result<(), E> + Send,
{
    let mut outcome = Outcome::default();
    let stretch = options.batch.max(1);
    let mut starts = (0..samples.len()).step_by(stretch);
    let load_next = |start: Option<usize>| {
        let start = start?;
        let end = samples.len().min(start + stretch);
        load(&samples[start..end], start, pipeline, options)
    };

    let mut ready = load_next(starts.next());
    while let Some(batch) = ready.take() {
        outcome.loaded += batch.len();
        outcome.failed += batch.failures.len();
        let start = starts.next();
        let (consumed, next) = rayon::join(|| consume(batch), || load_next(start));
        consumed?;
        ready = next;
    }
    outcome.cancelled = outcome.loaded + outcome.failed < samples.len();
    Ok(outcome)
}

/// Decodes and transforms one batch; `None` where the run was cancelled meanwhile.
fn load(samples: &[Sample], first: usize, pipeline: &Pipeline, options: &LoaderOptions<'_>) -> Option<Batch> {
    let cancelled = || options.cancel.is_some_and(|flag| flag.load(Ordering::Relaxed));
    let length = pipeline.output_len();
    let mut data = vec![0.0; samples.len() * length];
    let results: Vec<Option<Result<(), DataError>>> = data
        .par_chunks_exact_mut(length)
        .zip(samples)
        .enumerate()
        .with_max_len(1)
        .map(|(offset, (tensor, sample))| {
            (!cancelled()).then(|| load_one(sample, first + offset, pipeline, options, tensor))
        })
        .collect();

    let mut indices = Vec::with_capacity(samples.len());
    let mut failures = Vec::new();
    for (offset, result) in results.into_iter().enumerate() {
        match result? {
            Ok(()) => {
                // Images after a failed one move up, so that `data` has no gaps.
                let to = indices.len() * length;
                if indices.len() != offset {
                    data.copy_within(offset * length..(offset + 1) * length, to);
                }
                indices.push(first + offset);
            }
            Err(error) => failures.push(Failure { index: first + offset, id: samples[offset].id.clone(), error }),
        }
    }
    data.truncate(indices.len() * length);
    Some(Batch { indices, data, failures })
}

fn load_one(
    sample: &Sample,
    index: usize,
    pipeline: &Pipeline,
    options: &LoaderOptions<'_>,
    tensor: &mut [f32],
) -> Result<(), DataError> {
    let image = sample.source.load(&options.limits)?;
    if let Some(inspect) = options.inspect {
        inspect(index, &image);
    }
    pipeline.apply_into(&image, tensor).map_err(|cause| DataError::Transform { id: sample.id.clone(), cause })
}
