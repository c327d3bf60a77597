//! From images to features: loader, preprocessing and backbone in one stream.

mod stream;

use nomaly_backbones::{Backbone, Extractor, TapRequest};
use nomaly_data::Sample;
use nomaly_kernels::Isa;
use nomaly_store::Progress;
use nomaly_transforms::{Limits, Pipeline};

pub(crate) use self::stream::{ImageStream, Streamed};
use crate::DetectorError;
use crate::groups::Groups;
use crate::maps::{AnomalyMap, RegionOfInterest};
use crate::method::MethodScore;
use crate::methods::patchcore::PatchGrid;

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
    /// Height and width of the map of a view in pixels: those of the input, or of the smallest of the inputs where
    /// images are seen at several sizes.
    pub map: [usize; 2],
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

    /// Bytes that the source itself may come to hold between visits.
    fn held_bytes(&self) -> u64;

    /// What each of the images shows that a [`visit`](Self::visit) found usable, as the data set names it.
    fn kinds(&self) -> Vec<String>;

    /// Which of the images that a [`visit`](Self::visit) found usable depend on each other: held-out scores
    /// leave out whole groups. Images are numbered as they were found usable.
    ///
    /// # Errors
    /// Images that cannot be grouped as the user asked for.
    fn groups(&self) -> Result<Groups, DetectorError>;

    /// Visits all usable images in order, batch by batch, and says how many there were. Which images are usable is
    /// found on the first visit.
    ///
    /// # Errors
    /// Whatever `visit` fails with, cancellation, a bad image where the source is strict, and on later visits an image
    /// that has become unusable meanwhile.
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
    /// The pipeline over whose frame maps lie: its own, or that of the smallest size.
    maps: Pipeline,
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
        Ok(Self {
            extractor,
            pipeline,
            maps: pipeline,
            taps: taps.to_vec(),
            shapes,
            region: None,
            median: 1,
            shallowest,
        })
    }

    /// The same extractor, whose maps lie over the frame of another one: the smallest of several sizes.
    pub(crate) fn with_maps_of(mut self, smallest: Pipeline) -> Self {
        self.maps = smallest;
        self
    }

    /// The same extractor with a word to the methods on which pixels of maps matter.
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

    /// A source of the features of `samples`, at this size alone.
    pub(crate) fn stream<'a>(&'a self, samples: &'a [Sample], options: StreamOptions) -> ImageStream<'a> {
        ImageStream::new(std::slice::from_ref(self), samples, options)
    }

    /// Patches of an image and numbers a patch, where they lie at the positions of [`PatchGrid::Auto`].
    pub(crate) fn patches(&self) -> (usize, usize) {
        let [height, width] = PatchGrid::Auto.of(&self.shapes);
        let dim = self.shapes.iter().map(|[channels, ..]| channels).sum();
        (self.pipeline.view_count() * height * width, dim)
    }

    /// The features `values` of `images` images as a batch.
    fn batch<'a>(&'a self, images: usize, values: &'a [Vec<f32>]) -> FeatureBatch<'a> {
        FeatureBatch {
            images,
            views: self.pipeline.view_count(),
            input: self.pipeline.output_size(),
            map: self.maps.output_size(),
            taps: &self.taps,
            values,
            shapes: &self.shapes,
            region: self.region.as_ref(),
            median: self.median,
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
                let [height, width] = self.maps.frame_size();
                Some(AnomalyMap { height, width, values: self.maps.assemble(&maps.concat())? })
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
