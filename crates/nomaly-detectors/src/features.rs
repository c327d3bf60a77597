//! From images to features: loader, preprocessing and backbone in one stream.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use image::RgbImage;
use nomaly_backbones::{Backbone, Extractor, TapRequest};
use nomaly_data::loader::{self, Batch, LoaderOptions};
use nomaly_data::{DataError, Sample};
use nomaly_kernels::Isa;
use nomaly_store::Progress;
use nomaly_transforms::{Limits, Pipeline, scaled_preview};

use crate::{DetectorError, Skipped};

/// The features of a batch of images, tap by tap.
#[derive(Clone, Copy, Debug)]
pub struct FeatureBatch<'a> {
    /// How many images.
    pub images: usize,
    /// The taps, in the order in which they were asked for.
    pub taps: &'a [TapRequest],
    /// For each tap, row-major values of `images` × [`shapes`](Self::shapes).
    pub values: &'a [Vec<f32>],
    /// For each tap, the shape of one image's features in the layout that was asked for.
    pub shapes: &'a [[usize; 3]],
}

impl FeatureBatch<'_> {
    /// The features of one tap as `[images, expected]`.
    ///
    /// # Errors
    /// [`DetectorError::FeatureShape`] for another number of values an image than `expected`.
    pub fn rows(&self, tap: usize, expected: usize) -> Result<ndarray::ArrayView2<'_, f32>, DetectorError> {
        let found = self.values[tap].len() / self.images.max(1);
        ndarray::ArrayView2::from_shape((self.images, expected), &self.values[tap])
            .map_err(|_| DetectorError::FeatureShape { tap: self.taps[tap].name.clone(), expected, found })
    }
}

/// Images as features, as often as a method wants to see them.
pub trait FeatureSource {
    /// Visits all usable images in order, batch by batch, and says how many there were.
    ///
    /// # Errors
    /// Whatever `visit` fails with, cancellation, and a bad image where the source is strict.
    fn visit(
        &self,
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), DetectorError> + Send),
    ) -> Result<usize, DetectorError>;
}

/// How images are read.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// Images a batch, at least 1. The result does not depend on it; memory does.
    pub batch: usize,
    /// What a single image may take.
    pub limits: Limits,
    /// Whether an image that cannot be used ends the run, instead of being reported and left out.
    pub strict: bool,
    /// The longest side of previews of the decoded images, where previews are wanted.
    pub preview: Option<u32>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { batch: 8, limits: Limits::default(), strict: false, preview: None }
    }
}

/// A compiled backbone with the preprocessing in front of it.
#[derive(Debug)]
pub struct FeatureExtractor {
    extractor: Extractor,
    pipeline: Pipeline,
    taps: Vec<TapRequest>,
    shapes: Vec<[usize; 3]>,
}

impl FeatureExtractor {
    /// Compiles `backbone` up to the deepest of `taps` for the output size of `pipeline`.
    ///
    /// # Errors
    /// A tap that the backbone lacks, weights that do not reach it, or an instruction set that is not there.
    pub fn new(backbone: &Backbone, pipeline: Pipeline, taps: &[TapRequest]) -> Result<Self, DetectorError> {
        let extractor = backbone.compile(pipeline.output_size(), taps, Isa::best()?)?;
        let shapes = (0..taps.len()).map(|tap| extractor.output_shape(tap)).collect();
        Ok(Self { extractor, pipeline, taps: taps.to_vec(), shapes })
    }

    /// The preprocessing.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The features it gives.
    pub fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    /// A source of the features of `samples`.
    pub(crate) fn stream<'a>(&'a self, samples: &'a [Sample], options: StreamOptions) -> ImageStream<'a> {
        ImageStream { extractor: self, samples, options, skipped: Mutex::default() }
    }
}

/// One image of a batch, usable or not.
pub(crate) struct StreamedImage {
    /// Its place in the list of samples.
    pub(crate) index: usize,
    /// Why it cannot be used.
    pub(crate) failure: Option<Skipped>,
    /// A small version of it, where previews are wanted.
    pub(crate) preview: Option<RgbImage>,
}

/// A batch as it comes from the backbone.
pub(crate) struct StreamedBatch<'a> {
    /// Batches are counted from 0.
    pub(crate) number: usize,
    /// Every image of this stretch of the list, in order.
    pub(crate) images: Vec<StreamedImage>,
    /// The features of the usable ones, in order; `None` where there is none.
    pub(crate) features: Option<FeatureBatch<'a>>,
}

/// Samples, read and run through the backbone whenever somebody visits.
pub(crate) struct ImageStream<'a> {
    extractor: &'a FeatureExtractor,
    samples: &'a [Sample],
    options: StreamOptions,
    skipped: Mutex<Vec<Skipped>>,
}

impl ImageStream<'_> {
    /// Hands every batch to `consume`, in order; the next is being decoded meanwhile.
    pub(crate) fn run(
        &self,
        progress: &dyn Progress,
        what: &str,
        consume: &mut (dyn FnMut(StreamedBatch<'_>) -> Result<(), DetectorError> + Send),
    ) -> Result<(), DetectorError> {
        let FeatureExtractor { extractor, pipeline, taps, shapes } = self.extractor;
        let StreamOptions { batch: batch_size, limits, strict, preview } = self.options;
        let batch_size = batch_size.clamp(1, self.samples.len().max(1));
        let mut workspace = extractor.workspace(batch_size);
        let mut values = vec![Vec::new(); taps.len()];
        let mut number = 0;

        let cancel = AtomicBool::new(false);
        let previews = Mutex::new(Vec::<(usize, RgbImage)>::new());
        let keep_preview = |index: usize, image: &RgbImage| {
            if let Some(side) = preview {
                let small = scaled_preview(image, side);
                previews.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, small));
            }
        };
        let options = LoaderOptions { batch: batch_size, limits, cancel: Some(&cancel), inspect: Some(&keep_preview) };

        progress.start(what, Some(self.samples.len() as u64));
        let run = loader::stream(self.samples, pipeline, &options, |batch: Batch| {
            if progress.cancelled() {
                cancel.store(true, Ordering::Relaxed);
                return Err(DetectorError::Cancelled);
            }
            let images = batch.len();
            let mut outcomes: Vec<StreamedImage> =
                batch.indices.iter().map(|&index| StreamedImage { index, failure: None, preview: None }).collect();
            for failure in batch.failures {
                let skipped = describe(&failure.error, failure.id);
                if strict {
                    return Err(DetectorError::BadImage { skipped });
                }
                outcomes.push(StreamedImage { index: failure.index, failure: Some(skipped), preview: None });
            }
            outcomes.sort_by_key(|image| image.index);
            attach_previews(&mut outcomes, &previews);
            let features = if images > 0 {
                extractor.run(&batch.data, images, &mut workspace, &mut values)?;
                Some(FeatureBatch { images, taps, values: &values, shapes })
            } else {
                None
            };
            let seen = outcomes.len() as u64;
            consume(StreamedBatch { number, images: outcomes, features })?;
            number += 1;
            progress.advance(seen);
            Ok(())
        });
        progress.finish();
        if run?.cancelled {
            return Err(DetectorError::Cancelled);
        }
        Ok(())
    }

    /// Images that turned out to be unusable in the last visit.
    pub(crate) fn into_skipped(self) -> Vec<Skipped> {
        self.skipped.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl FeatureSource for ImageStream<'_> {
    fn visit(
        &self,
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), DetectorError> + Send),
    ) -> Result<usize, DetectorError> {
        let mut skipped = Vec::new();
        let mut usable = 0;
        self.run(progress, "reading images", &mut |batch| {
            skipped.extend(batch.images.into_iter().filter_map(|image| image.failure));
            if let Some(features) = &batch.features {
                usable += features.images;
                visit(features)?;
            }
            Ok(())
        })?;
        *self.skipped.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = skipped;
        Ok(usable)
    }
}

/// Moves the previews of a batch's images to them; those of images that are still to come stay.
fn attach_previews(images: &mut [StreamedImage], previews: &Mutex<Vec<(usize, RgbImage)>>) {
    let mut waiting = previews.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for image in images {
        if let Some(place) = waiting.iter().position(|(index, _)| *index == image.index) {
            image.preview = Some(waiting.swap_remove(place).1);
        }
    }
}

fn describe(error: &DataError, id: String) -> Skipped {
    Skipped { id, kind: error.kind().to_owned(), message: error.to_string() }
}
