//! Streams the features of samples: decoded, preprocessed and run through the network batch by batch on each visit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use image::RgbImage;
use nomaly_data::loader::{self, Failure, Frames, Inspected, LoadedBatch, LoaderOptions};
use nomaly_data::{DataError, FrameCache, Sample};
use nomaly_methods::groups::{GroupFacts, GroupInfo};
use nomaly_methods::{FeatureBatch, FeatureSource, GroupBy, Groups, MethodError, MethodScore, Skipped};
use nomaly_store::Progress;
use nomaly_transforms::statistics::ImageStatistics;
use nomaly_transforms::{Pipeline, scaled_preview};

use super::extractor::{FeatureExtractor, StreamOptions, images_per_batch, size_name};
use super::grouping::{Grouped, group};
use super::memory::NetworkMemory;
use super::near_copies::Descriptors;
use crate::shift::{Look, pooled};

/// One image of a batch, usable or not.
pub(crate) struct StreamedImage {
    /// Its index among the samples.
    pub(crate) index: usize,
    /// Why it is unusable.
    pub(crate) failure: Option<Skipped>,
    /// The kept data of the decoded image.
    pub(crate) decoded: Option<Decoded>,
}

/// The kept data of a decoded image.
pub(crate) struct Decoded {
    /// Width and height in pixels.
    pub(crate) size: (u32, u32),
    /// A small version, if previews are enabled.
    pub(crate) preview: Option<RgbImage>,
    /// How it looks, if measured.
    pub(crate) look: Option<Look>,
}

/// A batch of features.
pub(crate) struct StreamedBatch<'a> {
    /// The number of the batch, from 0.
    pub(crate) number: usize,
    /// All images of this stretch of the samples, in order.
    pub(crate) images: Vec<StreamedImage>,
    /// The features of the usable images, in order, at each size; empty if none is usable.
    pub(crate) features: Vec<FeatureBatch<'a>>,
}

/// Samples that are read and run through the backbone at one or more sizes on each visit.
pub(crate) struct ImageStream<'a> {
    /// One for each size, all of the same taps and views.
    extractors: &'a [FeatureExtractor],
    samples: &'a [Sample],
    options: StreamOptions,
    /// The grouping rule; `None` if all images are independent.
    group_by: Option<&'a GroupBy>,
    found: Mutex<FirstVisit>,
    /// Whether to measure how images look, on every run and on the first visit.
    measures: bool,
    /// How the usable images of the first visit looked.
    looks: OnceLock<Vec<Look>>,
    /// Cached frames for further visits.
    frames: Option<FrameCache>,
}

/// The results of the first visit of all samples.
#[derive(Default)]
struct FirstVisit {
    /// Indices of the usable samples, ascending.
    usable: Vec<usize>,
    skipped: Vec<Skipped>,
    /// Descriptors of the usable samples, if groups are found in them.
    descriptors: Descriptors,
    /// The groups of the usable samples, once known.
    groups: Option<(Groups, GroupInfo)>,
}

/// The usable and skipped samples of a finished stream, with groups.
#[derive(Clone, Debug)]
pub struct Streamed {
    /// Indices of the usable samples, ascending.
    pub usable: Vec<usize>,
    /// Unusable samples.
    pub skipped: Vec<Skipped>,
    /// The groups of the usable samples.
    pub groups: Groups,
    /// The description of the groups.
    pub group_info: GroupInfo,
}

impl<'a> ImageStream<'a> {
    /// The features of `samples` at the sizes of `extractors`.
    pub(crate) fn new(extractors: &'a [FeatureExtractor], samples: &'a [Sample], options: StreamOptions) -> Self {
        Self {
            extractors,
            samples,
            options,
            group_by: None,
            found: Mutex::default(),
            measures: false,
            looks: OnceLock::new(),
            frames: None,
        }
    }

    /// Caches frames of up to `bytes` bytes between visits.
    pub(crate) fn caching(mut self, bytes: u64) -> Self {
        let pipelines = self.extractors.iter().map(|extractor| *extractor.pipeline()).collect();
        self.frames = Some(FrameCache::new(pipelines, self.samples.len(), bytes));
        self
    }

    /// The images at one of the sizes.
    pub(crate) fn at(&self, size: usize) -> SizedStream<'_> {
        SizedStream { images: self, size }
    }

    /// Groups the images by a rule.
    pub(crate) fn grouped(mut self, by: &'a GroupBy) -> Self {
        self.group_by = Some(by);
        self
    }

    /// The groups of the usable images, with their description. Known after the first visit.
    fn grouping(&self) -> Result<(Groups, GroupInfo), MethodError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &found.groups {
            return Ok(known.clone());
        }
        let usable: Vec<&Sample> = found.usable.iter().map(|&image| &self.samples[image]).collect();
        let by = self.group_by.unwrap_or(&GroupBy::None);
        let facts: Vec<GroupFacts> = usable.iter().map(|sample| by.facts(sample)).collect();
        let images: Vec<Grouped<'_>> =
            usable.iter().zip(&facts).map(|(sample, facts)| Grouped::of(sample, facts)).collect();
        let known = group(self.group_by, &images, &found.descriptors)?;
        found.groups = Some(known.clone());
        Ok(known)
    }

    /// Enables measuring how images look.
    pub(crate) fn measuring(mut self) -> Self {
        self.measures = true;
        self
    }

    /// The looks of the usable images of the first visit, in order.
    pub(crate) fn looks(&self) -> &[Look] {
        self.looks.get().map_or(&[], Vec::as_slice)
    }

    /// Passes every batch of `run` to `consume`, in order, while the next one is decoded.
    fn run_samples<E: From<MethodError> + Send>(
        &self,
        run: Run<'_>,
        progress: &dyn Progress,
        what: &str,
        consume: &mut Consume<'_, E>,
    ) -> Result<(), E> {
        let Run { samples, numbers, extractors, measure } = run;
        let StreamOptions { batch: inputs, limits, strict, preview } = self.options;
        let pipelines: Vec<Pipeline> = extractors.iter().map(|extractor| *extractor.pipeline()).collect();
        let views = pipelines.first().map_or(1, Pipeline::view_count);
        let batch_images = images_per_batch(inputs, views, samples.len());
        let inputs_per_run = inputs.clamp(1, batch_images * views);
        let mut memories: Vec<NetworkMemory> =
            extractors.iter().map(|extractor| extractor.memory(inputs_per_run)).collect();
        let mut number = 0;

        let cancel = AtomicBool::new(false);
        let keep = |Inspected { image, file, .. }: Inspected| {
            let size = image.dimensions();
            let look = || Look { size, file, statistics: ImageStatistics::of(&image), features: None };
            let look = measure.then(look);
            // A small enough image is kept without a copy.
            let preview = preview.map(|side| match size.0.max(size.1) <= side {
                true => image,
                false => scaled_preview(&image, side),
            });
            Decoded { size, preview, look }
        };
        let options = LoaderOptions {
            batch: batch_images,
            limits,
            cancel: Some(&cancel),
            frames: self.frames.as_ref().map(|cache| Frames { cache, numbers }),
            ..LoaderOptions::default()
        };

        progress.start(what, Some(samples.len() as u64));
        let mut handle = |batch: LoadedBatch<Decoded>| -> Result<(), E> {
            if progress.cancelled() {
                cancel.store(true, Ordering::Relaxed);
                return Err(MethodError::Cancelled.into());
            }
            let images = batch.len();
            let mut inspected = batch.inspected.into_iter();
            let usable = batch.indices.iter();
            let mut outcomes: Vec<StreamedImage> =
                usable.map(|&index| StreamedImage { index, failure: None, decoded: inspected.next() }).collect();
            for Failure { index, id, error, inspected } in batch.failures {
                let skipped = describe(&error, id);
                if strict {
                    return Err(MethodError::BadImage { skipped }.into());
                }
                outcomes.push(StreamedImage { index, failure: Some(skipped), decoded: inspected });
            }
            outcomes.sort_by_key(|image| image.index);
            let mut features = Vec::with_capacity(extractors.len());
            if images > 0 {
                for ((extractor, memory), data) in extractors.iter().zip(&mut memories).zip(&batch.data) {
                    features.push(extractor.features(images, data, memory)?);
                }
            }
            let shallowest = extractors.first().and_then(FeatureExtractor::shallowest_tap);
            if let (Some(features), Some(tap), true) = (features.first(), shallowest, measure) {
                attach_features(&mut outcomes, pooled(features, tap));
            }
            let count = outcomes.len() as u64;
            consume(StreamedBatch { number, images: outcomes, features })?;
            number += 1;
            progress.advance(count);
            Ok(())
        };
        let run = if measure || preview.is_some() || self.frames.is_none() {
            loader::stream_inspected(samples, &pipelines, &options, keep, handle)
        } else {
            loader::stream(samples, &pipelines, &options, |batch| handle(uninspected(batch)))
        };
        progress.finish();
        if run?.cancelled {
            return Err(MethodError::Cancelled.into());
        }
        Ok(())
    }

    /// Passes every batch to `consume`, in order, while the next one is decoded.
    pub(crate) fn run<E: From<MethodError> + Send>(
        &self,
        progress: &dyn Progress,
        what: &str,
        consume: &mut Consume<'_, E>,
    ) -> Result<(), E> {
        self.run_samples(self.all_samples(self.extractors), progress, what, consume)
    }

    /// A run over all samples.
    fn all_samples<'s>(&'s self, extractors: &'s [FeatureExtractor]) -> Run<'s> {
        Run { samples: self.samples, numbers: None, extractors, measure: self.measures }
    }

    /// As [`run`](Self::run); also records the usable images and their descriptors.
    pub(crate) fn run_and_record<E: From<MethodError> + Send>(
        &self,
        progress: &dyn Progress,
        what: &str,
        consume: &mut Consume<'_, E>,
    ) -> Result<(), E> {
        self.record(self.all_samples(self.extractors), progress, what, consume)
    }

    /// Runs and records the usable images and their descriptors.
    fn record<E: From<MethodError> + Send>(
        &self,
        run: Run<'_>,
        progress: &dyn Progress,
        what: &str,
        consume: &mut Consume<'_, E>,
    ) -> Result<(), E> {
        let mut found = FirstVisit::default();
        self.run_samples(run, progress, what, &mut |batch| {
            for image in &batch.images {
                match &image.failure {
                    Some(skipped) => found.skipped.push(skipped.clone()),
                    None => found.usable.push(image.index),
                }
            }
            if let (Some(features), Some(GroupBy::Auto)) = (batch.features.first(), self.group_by) {
                let usable = batch.images.iter().filter(|image| image.failure.is_none());
                let originals = usable.map(|image| !self.samples[image.index].source.is_changed()).collect::<Vec<_>>();
                found.descriptors.add(features, &originals);
            }
            consume(batch)
        })?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }

    /// The results of the first visit.
    ///
    /// # Errors
    /// As [`groups`](FeatureSource::groups).
    pub(crate) fn into_streamed(self) -> Result<Streamed, MethodError> {
        let (groups, group_info) = self.grouping()?;
        let FirstVisit { usable, skipped, .. } = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Streamed { usable, skipped, groups, group_info })
    }
}

/// The consumer of the batches of a run.
type Consume<'a, E> = dyn FnMut(StreamedBatch<'_>) -> Result<(), E> + Send + 'a;

/// The samples and sizes of a run.
struct Run<'a> {
    samples: &'a [Sample],
    /// Their indices among the samples of the stream, unless they are all of them.
    numbers: Option<&'a [usize]>,
    /// The sizes.
    extractors: &'a [FeatureExtractor],
    /// Whether to measure how images look.
    measure: bool,
}

/// A stream at one of its sizes.
pub(crate) struct SizedStream<'a> {
    images: &'a ImageStream<'a>,
    size: usize,
}

impl SizedStream<'_> {
    fn extractor(&self) -> &FeatureExtractor {
        &self.images.extractors[self.size]
    }

    /// The name of the stage, with the size if there are several.
    fn what(&self, what: &str) -> String {
        match self.images.extractors.len() {
            1 => what.to_owned(),
            _ => format!("{what} at {}", size_name(self.extractor().pipeline())),
        }
    }

    /// Visits samples that an earlier visit found usable.
    fn revisit(
        &self,
        numbers: &[usize],
        progress: &dyn Progress,
        what: &str,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send),
    ) -> Result<(), MethodError> {
        let samples: Vec<Sample> = numbers.iter().map(|&number| self.images.samples[number].clone()).collect();
        let extractors = std::slice::from_ref(self.extractor());
        let run = Run { samples: &samples, numbers: Some(numbers), extractors, measure: false };
        self.images.run_samples(run, progress, &self.what(what), &mut |batch| {
            if let Some(skipped) = batch.images.into_iter().find_map(|image| image.failure) {
                return Err(MethodError::BadImage { skipped });
            }
            batch.features.iter().try_for_each(&mut *visit)
        })
    }

    /// The indices of the usable samples, once known.
    fn usable(&self) -> Vec<usize> {
        self.images.found.lock().unwrap_or_else(PoisonError::into_inner).usable.clone()
    }
}

impl FeatureSource for SizedStream<'_> {
    fn images(&self) -> usize {
        self.images.samples.len()
    }

    fn views(&self) -> usize {
        self.extractor().pipeline().view_count()
    }

    fn held_bytes(&self) -> u64 {
        self.images.frames.as_ref().map_or(0, FrameCache::most_bytes)
    }

    fn groups(&self) -> Result<Groups, MethodError> {
        Ok(self.images.grouping()?.0)
    }

    fn kinds(&self) -> Vec<String> {
        self.usable().into_iter().map(|number| self.images.samples[number].kind.clone()).collect()
    }

    fn visit(
        &self,
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send),
    ) -> Result<usize, MethodError> {
        let what = "reading images";
        let known = self.usable();
        if !known.is_empty() {
            self.revisit(&known, progress, what, visit)?;
            return Ok(known.len());
        }
        let mut looks = Vec::new();
        let run = self.images.all_samples(std::slice::from_ref(self.extractor()));
        self.images.record(run, progress, &self.what(what), &mut |batch| {
            let decoded = batch.images.into_iter().filter(|image| image.failure.is_none());
            looks.extend(decoded.filter_map(|image| image.decoded?.look));
            batch.features.iter().try_for_each(&mut *visit)
        })?;
        if self.images.measures {
            self.images.looks.get_or_init(|| looks);
        }
        Ok(self.usable().len())
    }

    fn visit_some(
        &self,
        which: &[usize],
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), MethodError> + Send),
    ) -> Result<(), MethodError> {
        let usable = self.usable();
        let numbers: Vec<usize> = which.iter().map(|&image| usable[image]).collect();
        self.revisit(&numbers, progress, "scoring held-out images", visit)
    }

    fn combine(&self, views: Vec<MethodScore>) -> Result<MethodScore, MethodError> {
        self.extractor().combine(views)
    }
}

/// Converts a batch without inspected images.
fn uninspected(LoadedBatch { indices, data, failures, .. }: LoadedBatch) -> LoadedBatch<Decoded> {
    let failures =
        failures.into_iter().map(|Failure { index, id, error, .. }| Failure { index, id, error, inspected: None });
    LoadedBatch { indices, data, inspected: Vec::new(), failures: failures.collect() }
}

/// Sets the pooled features of the usable images of a batch.
fn attach_features(images: &mut [StreamedImage], rows: Vec<Vec<f32>>) {
    let usable = images.iter_mut().filter(|image| image.failure.is_none());
    for (image, row) in usable.zip(rows) {
        if let Some(look) = image.decoded.as_mut().and_then(|decoded| decoded.look.as_mut()) {
            look.features = Some(row);
        }
    }
}

fn describe(error: &DataError, id: String) -> Skipped {
    Skipped { id, kind: error.kind().to_owned(), message: error.to_string() }
}
