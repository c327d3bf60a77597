//! From images to features: loader, preprocessing and backbone in one stream.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use image::RgbImage;
use nomaly_backbones::{Backbone, Extractor, TapRequest, Workspace};
use nomaly_data::loader::{self, Batch, Inspected, LoaderOptions};
use nomaly_data::{DataError, Sample};
use nomaly_kernels::Isa;
use nomaly_store::Progress;
use nomaly_transforms::statistics::ImageStatistics;
use nomaly_transforms::{Limits, Pipeline, scaled_preview};

use crate::groups::{self, Descriptors, GroupBy, GroupInfo, Groups};
use crate::maps::{AnomalyMap, RegionOfInterest};
use crate::method::MethodScore;
use crate::shift::{Look, pooled};
use crate::{DetectorError, Skipped};

/// The features of a batch of images, tap by tap.
///
/// An image is seen in one or more *views*: tiles of it, and flipped copies, all of the size of the network's input. Every
/// image of a detector has the same views in the same order.
#[derive(Clone, Copy, Debug)]
pub struct FeatureBatch<'a> {
    /// How many images.
    pub images: usize,
    /// Views an image, at least 1.
    pub views: usize,
    /// Height and width of a view in pixels: the network's input.
    pub input: [usize; 2],
    /// The taps, in the order in which they were asked for.
    pub taps: &'a [TapRequest],
    /// For each tap, row-major values of `images` × `views` × [`shapes`](Self::shapes).
    pub values: &'a [Vec<f32>],
    /// For each tap, the `[C, h, w]` of one view's features, whatever their layout.
    pub shapes: &'a [[usize; 3]],
    /// The pixels that matter, where not all do.
    pub region: Option<&'a RegionOfInterest>,
    /// Side of the median filter that maps go through, in pixels of the input; 1 for none.
    pub median: usize,
}

impl FeatureBatch<'_> {
    /// The features of one image, tap by tap: what [`values`](Self::values) are for a batch of that image alone.
    pub(crate) fn values_of(&self, image: usize) -> Vec<Vec<f32>> {
        let part = |values: &Vec<f32>| {
            let each = values.len() / self.images;
            values[image * each..(image + 1) * each].to_vec()
        };
        self.values.iter().map(part).collect()
    }

    /// The features of one tap as `[images · views, expected]`.
    ///
    /// # Errors
    /// [`DetectorError::FeatureShape`] for another number of values a view than `expected`.
    pub fn rows(&self, tap: usize, expected: usize) -> Result<ndarray::ArrayView2<'_, f32>, DetectorError> {
        let views = self.images * self.views;
        let found = self.values[tap].len() / views.max(1);
        ndarray::ArrayView2::from_shape((views, expected), &self.values[tap]).map_err(|_| DetectorError::FeatureShape {
            tap: self.taps[tap].name.clone(),
            expected,
            found,
        })
    }
}

/// Images as features, as often as a method wants to see them.
pub trait FeatureSource: Sync {
    /// How many images there are; some may turn out to be unusable.
    fn images(&self) -> usize;

    /// How many views an image has.
    fn views(&self) -> usize;

    /// What each of the images shows that the last [`visit`](Self::visit) found usable, as the data set names it.
    fn kinds(&self) -> Vec<String>;

    /// Which of the images that the last [`visit`](Self::visit) found usable depend on each other: held-out scores
    /// leave out whole groups. Images are numbered as they were found usable.
    ///
    /// # Errors
    /// Images that cannot be grouped as the user asked for.
    fn groups(&self) -> Result<Groups, DetectorError>;

    /// Visits all usable images in order, batch by batch, and says how many there were.
    ///
    /// # Errors
    /// Whatever `visit` fails with, cancellation, and a bad image where the source is strict.
    fn visit(
        &self,
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), DetectorError> + Send),
    ) -> Result<usize, DetectorError>;

    /// Visits some of the images that an earlier [`visit`](Self::visit) found usable: their numbers among the usable ones,
    /// ascending.
    ///
    /// # Errors
    /// As [`visit`](Self::visit), and an image that has become unusable meanwhile.
    fn visit_some(
        &self,
        which: &[usize],
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), DetectorError> + Send),
    ) -> Result<(), DetectorError>;

    /// What a detector says of an image whose views a method has scored: the highest score of its tiles, the mean over
    /// flipped copies, and the views' maps put together.
    ///
    /// # Errors
    /// Maps of another size than the views.
    fn combine(&self, views: Vec<MethodScore>) -> Result<MethodScore, DetectorError>;
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
    /// The longest side of previews of the decoded images, where previews are wanted; [`u32::MAX`] for the images as they
    /// are.
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
    region: Option<RegionOfInterest>,
    median: usize,
    /// The tap nearest to the image, by which images are compared with the training images; `None` where it is the
    /// image.
    shallowest: Option<usize>,
}

impl FeatureExtractor {
    /// Compiles `backbone` up to the deepest of `taps` for the output size of `pipeline`.
    ///
    /// # Errors
    /// A tap that the backbone lacks, weights that do not reach it, or an instruction set that is not there.
    pub fn new(backbone: &Backbone, pipeline: Pipeline, taps: &[TapRequest]) -> Result<Self, DetectorError> {
        let extractor = backbone.compile(pipeline.output_size(), taps, Isa::best()?)?;
        let shapes = (0..taps.len()).map(|tap| extractor.output_shape(tap)).collect();
        let order: Vec<String> = backbone.taps().into_iter().map(|tap| tap.name).collect();
        let depth = |tap: &TapRequest| order.iter().position(|name| *name == tap.name);
        let shallowest = (0..taps.len()).filter(|_| backbone.name() != "pixels").min_by_key(|&tap| depth(&taps[tap]));
        Ok(Self { extractor, pipeline, taps: taps.to_vec(), shapes, region: None, median: 1, shallowest })
    }

    /// The same extractor with a word to the methods on which pixels matter.
    pub(crate) fn with_region(mut self, region: Option<RegionOfInterest>) -> Self {
        self.region = region;
        self
    }

    /// The same extractor with a word to the methods on the median filter of their maps.
    pub(crate) fn with_median(mut self, side: usize) -> Self {
        self.median = side;
        self
    }

    /// The preprocessing.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Side of the median filter of maps, in pixels of the input; 1 for none.
    pub(crate) fn median(&self) -> usize {
        self.median
    }

    /// The features it gives.
    pub fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    /// A source of the features of `samples`.
    pub(crate) fn stream<'a>(&'a self, samples: &'a [Sample], options: StreamOptions) -> ImageStream<'a> {
        ImageStream {
            extractor: self,
            samples,
            options,
            group_by: None,
            found: Mutex::default(),
            measures: false,
            looks: OnceLock::new(),
        }
    }

    /// The name of the tap by which images are compared with the training images.
    pub(crate) fn shallowest(&self) -> Option<&str> {
        self.shallowest.map(|tap| self.taps[tap].name.as_str())
    }

    /// See [`FeatureSource::combine`].
    pub(crate) fn combine(&self, mut views: Vec<MethodScore>) -> Result<MethodScore, DetectorError> {
        if views.len() == 1
            && let Some(whole) = views.pop()
        {
            return Ok(whole);
        }
        let tiles = self.pipeline.views.tiling.map_or(1, |tiling| tiling.rows as usize * tiling.columns as usize);
        let copies = views.len().div_ceil(tiles) as f64;
        let over_views = |value: &dyn Fn(&MethodScore) -> f64| {
            let highest = |copy: &[MethodScore]| copy.iter().map(value).fold(f64::NEG_INFINITY, f64::max);
            views.chunks(tiles).map(highest).sum::<f64>() / copies
        };
        let score = over_views(&|view| view.score);
        let varies = views.iter().all(|view| view.deviation.is_some());
        // Views of one image share what makes them vary, the network: their deviations do not average out.
        let deviation = varies.then(|| over_views(&|view| view.deviation.unwrap_or(0.0)));
        let count = views.first().map_or(0, |view| view.parts.len());
        let parts = (0..count).map(|part| over_views(&|view| view.parts[part])).collect();
        let terms = joined_terms(&views, tiles);
        let maps: Option<Vec<&[f32]>> =
            views.iter().map(|view| view.map.as_ref().map(|map| map.values.as_slice())).collect();
        let map = match maps {
            Some(maps) => {
                let [height, width] = self.pipeline.frame_size();
                Some(AnomalyMap { height, width, values: self.pipeline.assemble(&maps.concat())? })
            }
            None => None,
        };
        Ok(MethodScore { score, deviation, parts, terms, map })
    }
}

/// The terms of the score that views have together: of each copy those of its highest tile, averaged over the copies.
fn joined_terms(views: &[MethodScore], tiles: usize) -> Vec<f64> {
    let copies = views.len().div_ceil(tiles) as f64;
    let mut joined = Vec::new();
    for copy in views.chunks(tiles) {
        let Some(highest) = copy.iter().max_by(|a, b| a.score.total_cmp(&b.score)) else { continue };
        joined.resize(highest.terms.len(), 0.0);
        joined.iter_mut().zip(&highest.terms).for_each(|(sum, term)| *sum += term / copies);
    }
    joined
}

/// One image of a batch, usable or not.
pub(crate) struct StreamedImage {
    /// Its place in the list of samples.
    pub(crate) index: usize,
    /// Why it cannot be used.
    pub(crate) failure: Option<Skipped>,
    /// Its width and height in pixels, and a small version of it where previews are wanted.
    pub(crate) decoded: Option<Decoded>,
}

/// What is kept of a decoded image.
pub(crate) struct Decoded {
    /// Width and height in pixels.
    pub(crate) size: (u32, u32),
    /// A small version, where previews are wanted.
    pub(crate) preview: Option<RgbImage>,
    /// How it looks, where that is measured.
    pub(crate) look: Option<Look>,
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
    /// What makes images a group; `None` where all are independent.
    group_by: Option<&'a GroupBy>,
    found: Mutex<Found>,
    /// Whether it is measured how images look: on every run, and on the first visit.
    measures: bool,
    /// How the usable images of the first visit looked.
    looks: OnceLock<Vec<Look>>,
}

/// What the last visit of all samples found.
#[derive(Default)]
struct Found {
    /// Places of the usable samples, ascending.
    usable: Vec<usize>,
    skipped: Vec<Skipped>,
    /// Those of the usable samples, where groups are found in them.
    descriptors: Descriptors,
    /// The groups of the usable samples, once they are known.
    groups: Option<(Groups, GroupInfo)>,
}

/// What a stream knows of its samples in the end.
pub(crate) struct Streamed {
    /// Places of the usable samples, ascending.
    pub(crate) usable: Vec<usize>,
    pub(crate) skipped: Vec<Skipped>,
    /// The groups of the usable samples.
    pub(crate) groups: Groups,
    pub(crate) group_info: GroupInfo,
}

impl<'a> ImageStream<'a> {
    /// The same stream, whose images form groups.
    pub(crate) fn grouped(mut self, by: &'a GroupBy) -> Self {
        self.group_by = Some(by);
        self
    }

    /// The groups of the images that the last visit found usable, with what made them.
    fn grouping(&self) -> Result<(Groups, GroupInfo), DetectorError> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &found.groups {
            return Ok(known.clone());
        }
        // A changed copy belongs to the image before it.
        let mut samples: Vec<&Sample> = Vec::with_capacity(found.usable.len());
        let mut originals = Vec::with_capacity(found.usable.len());
        for sample in found.usable.iter().map(|&image| &self.samples[image]) {
            if !sample.source.is_changed() || samples.is_empty() {
                samples.push(sample);
            }
            originals.push(samples.len() - 1);
        }
        let by_name = self.group_by.unwrap_or(&GroupBy::None).by_name(&samples)?;
        let kinds: Vec<&str> = samples.iter().map(|sample| sample.kind.as_str()).collect();
        let (groups, info) = by_name.map_or_else(|| groups::find(&found.descriptors, &kinds), Ok)?;
        let known = (Groups::of_keys(originals.iter().map(|&original| groups.of()[original])), info);
        found.groups = Some(known.clone());
        Ok(known)
    }

    /// The same stream, which also measures how images look.
    pub(crate) fn measuring(mut self) -> Self {
        self.measures = true;
        self
    }

    /// How the usable images of the first visit looked, in their order.
    pub(crate) fn looks(&self) -> &[Look] {
        self.looks.get().map_or(&[], Vec::as_slice)
    }

    /// Hands every batch of `samples` to `consume`, in order; the next is being decoded meanwhile.
    fn run_samples(
        &self,
        samples: &[Sample],
        measure: bool,
        progress: &dyn Progress,
        what: &str,
        consume: &mut (dyn FnMut(StreamedBatch<'_>) -> Result<(), DetectorError> + Send),
    ) -> Result<(), DetectorError> {
        let FeatureExtractor { extractor, pipeline, taps, shapes, region, median, shallowest } = self.extractor;
        let StreamOptions { batch: inputs, limits, strict, preview } = self.options;
        let views = pipeline.view_count();
        let images_a_batch = (inputs / views).clamp(1, samples.len().max(1));
        let mut network = Inputs::new(extractor, inputs.clamp(1, images_a_batch * views));
        let mut number = 0;

        let cancel = AtomicBool::new(false);
        let decoded = Mutex::new(Vec::<(usize, Decoded)>::new());
        let keep = |Inspected { index, image, file }: Inspected| {
            let size = image.dimensions();
            let look = || Look { size, file, statistics: ImageStatistics::of(&image), features: None };
            let look = measure.then(look);
            // An image that is small enough is kept itself: a copy of a large one is what memory has no room for.
            let preview = preview.map(|side| match size.0.max(size.1) <= side {
                true => image,
                false => scaled_preview(&image, side),
            });
            let kept = Decoded { size, preview, look };
            decoded.lock().unwrap_or_else(PoisonError::into_inner).push((index, kept));
        };
        let options = LoaderOptions {
            batch: images_a_batch,
            limits,
            cancel: Some(&cancel),
            inspect: Some(&keep),
            ..LoaderOptions::default()
        };

        progress.start(what, Some(samples.len() as u64));
        let run = loader::stream(samples, pipeline, &options, |batch: Batch| {
            if progress.cancelled() {
                cancel.store(true, Ordering::Relaxed);
                return Err(DetectorError::Cancelled);
            }
            let images = batch.len();
            let mut outcomes: Vec<StreamedImage> =
                batch.indices.iter().map(|&index| StreamedImage { index, failure: None, decoded: None }).collect();
            for failure in batch.failures {
                let skipped = describe(&failure.error, failure.id);
                if strict {
                    return Err(DetectorError::BadImage { skipped });
                }
                outcomes.push(StreamedImage { index: failure.index, failure: Some(skipped), decoded: None });
            }
            outcomes.sort_by_key(|image| image.index);
            attach(&mut outcomes, &decoded);
            let features = if images > 0 {
                let values = network.run(&batch.data, images * views)?;
                let input = pipeline.output_size();
                let region = region.as_ref();
                Some(FeatureBatch { images, views, input, taps, values, shapes, region, median: *median })
            } else {
                None
            };
            if let (Some(features), Some(tap), true) = (&features, *shallowest, measure) {
                attach_features(&mut outcomes, pooled(features, tap));
            }
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

    /// Hands every batch to `consume`, in order; the next is being decoded meanwhile.
    pub(crate) fn run(
        &self,
        progress: &dyn Progress,
        what: &str,
        consume: &mut (dyn FnMut(StreamedBatch<'_>) -> Result<(), DetectorError> + Send),
    ) -> Result<(), DetectorError> {
        self.run_samples(self.samples, self.measures, progress, what, consume)
    }

    /// As [`run`](Self::run), noting which images are usable and what groups need; `measure` says whether it is
    /// measured how images look.
    pub(crate) fn run_noting(
        &self,
        measure: bool,
        progress: &dyn Progress,
        what: &str,
        consume: &mut (dyn FnMut(StreamedBatch<'_>) -> Result<(), DetectorError> + Send),
    ) -> Result<(), DetectorError> {
        let mut found = Found::default();
        self.run_samples(self.samples, measure, progress, what, &mut |batch| {
            for image in &batch.images {
                match &image.failure {
                    Some(skipped) => found.skipped.push(skipped.clone()),
                    None => found.usable.push(image.index),
                }
            }
            if let (Some(features), Some(GroupBy::Auto)) = (&batch.features, self.group_by) {
                let usable = batch.images.iter().filter(|image| image.failure.is_none());
                let originals = usable.map(|image| !self.samples[image.index].source.is_changed()).collect::<Vec<_>>();
                found.descriptors.add(features, &originals);
            }
            consume(batch)
        })?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }

    /// What the last visit found.
    ///
    /// # Errors
    /// As [`groups`](FeatureSource::groups).
    pub(crate) fn into_streamed(self) -> Result<Streamed, DetectorError> {
        let (groups, group_info) = self.grouping()?;
        let Found { usable, skipped, .. } = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Streamed { usable, skipped, groups, group_info })
    }
}

impl FeatureSource for ImageStream<'_> {
    fn images(&self) -> usize {
        self.samples.len()
    }

    fn views(&self) -> usize {
        self.extractor.pipeline.view_count()
    }

    fn groups(&self) -> Result<Groups, DetectorError> {
        Ok(self.grouping()?.0)
    }

    fn kinds(&self) -> Vec<String> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.usable.iter().map(|&image| self.samples[image].kind.clone()).collect()
    }

    fn visit(
        &self,
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), DetectorError> + Send),
    ) -> Result<usize, DetectorError> {
        let mut looks = Vec::new();
        let measure = self.measures && self.looks.get().is_none();
        self.run_noting(measure, progress, "reading images", &mut |batch| {
            let decoded = batch.images.into_iter().filter(|image| image.failure.is_none());
            looks.extend(decoded.filter_map(|image| image.decoded?.look));
            batch.features.as_ref().map_or(Ok(()), &mut *visit)
        })?;
        if measure {
            self.looks.get_or_init(|| looks);
        }
        Ok(self.found.lock().unwrap_or_else(PoisonError::into_inner).usable.len())
    }

    fn visit_some(
        &self,
        which: &[usize],
        progress: &dyn Progress,
        visit: &mut (dyn FnMut(&FeatureBatch<'_>) -> Result<(), DetectorError> + Send),
    ) -> Result<(), DetectorError> {
        let samples: Vec<Sample> = {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            which.iter().map(|&image| self.samples[found.usable[image]].clone()).collect()
        };
        self.run_samples(&samples, false, progress, "scoring held-out images", &mut |batch| {
            if let Some(skipped) = batch.images.into_iter().find_map(|image| image.failure) {
                return Err(DetectorError::BadImage { skipped });
            }
            batch.features.as_ref().map_or(Ok(()), &mut *visit)
        })
    }

    fn combine(&self, views: Vec<MethodScore>) -> Result<MethodScore, DetectorError> {
        self.extractor.combine(views)
    }
}

/// A network with its memory, run on few inputs at a time however many views a batch has.
struct Inputs<'a> {
    extractor: &'a Extractor,
    workspace: Workspace,
    at_a_time: usize,
    values: Vec<Vec<f32>>,
    part: Vec<Vec<f32>>,
}

impl<'a> Inputs<'a> {
    fn new(extractor: &'a Extractor, at_a_time: usize) -> Self {
        let empty = vec![Vec::new(); extractor.taps().len()];
        Self { extractor, workspace: extractor.workspace(at_a_time), at_a_time, values: empty.clone(), part: empty }
    }

    /// The features of `inputs` views, tap by tap.
    fn run(&mut self, data: &[f32], inputs: usize) -> Result<&[Vec<f32>], DetectorError> {
        if inputs <= self.at_a_time {
            self.extractor.run(data, inputs, &mut self.workspace, &mut self.values)?;
            return Ok(&self.values);
        }
        self.values.iter_mut().for_each(Vec::clear);
        let size = data.len() / inputs;
        for data in data.chunks(self.at_a_time * size) {
            self.extractor.run(data, data.len() / size, &mut self.workspace, &mut self.part)?;
            for (values, part) in self.values.iter_mut().zip(&self.part) {
                values.extend_from_slice(part);
            }
        }
        Ok(&self.values)
    }
}

/// Moves what was kept of a batch's images to them; that of images that are still to come stays.
fn attach(images: &mut [StreamedImage], decoded: &Mutex<Vec<(usize, Decoded)>>) {
    let mut waiting = decoded.lock().unwrap_or_else(PoisonError::into_inner);
    for image in images {
        if let Some(place) = waiting.iter().position(|(index, _)| *index == image.index) {
            image.decoded = Some(waiting.swap_remove(place).1);
        }
    }
}

/// Gives the usable images of a batch their pooled features.
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
