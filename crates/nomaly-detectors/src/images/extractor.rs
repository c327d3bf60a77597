//! A compiled backbone with its preprocessing.

use nomaly_backbones::{Backbone, Extractor, OutputLayout, TapRequest};
use nomaly_methods::maps::RegionOfInterest;
use nomaly_methods::methods::patchcore::PatchGrid;
use nomaly_methods::{AnomalyMap, FeatureBatch, MethodError, MethodScore};
use nomaly_nn::runtime::Executor;
use nomaly_transforms::{Limits, Pipeline};

use super::memory::NetworkMemory;

/// Image options.
#[derive(Clone, Copy, Debug)]
pub struct StreamOptions {
    /// Images per batch, at least 1. Affects memory, not the result.
    pub batch: usize,
    /// Limits of a single image.
    pub limits: Limits,
    /// Whether an unusable image ends the run instead of being skipped and reported.
    pub strict: bool,
    /// The longest side of previews of the decoded images; `None` for no previews, [`u32::MAX`] for full size.
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
    /// The pipeline whose frame the maps have: its own, or that of the smallest size.
    maps: Pipeline,
    taps: Vec<TapRequest>,
    shapes: Vec<[usize; 3]>,
    region: Option<RegionOfInterest>,
    median: Option<usize>,
    /// The shallowest tap, for comparison with the training images; `None` if it is the image itself.
    shallowest: Option<usize>,
}

impl FeatureExtractor {
    /// Compiles `backbone` up to the deepest of `taps` for the output size of `pipeline`, to run on `executor`.
    ///
    /// # Errors
    /// A tap that the backbone lacks, weights that do not reach it, or a missing instruction set.
    pub fn new(
        backbone: &Backbone,
        pipeline: Pipeline,
        taps: &[TapRequest],
        executor: &Executor,
    ) -> Result<Self, MethodError> {
        let extractor = backbone.compile(pipeline.output_size(), taps, executor)?;
        let shapes = (0..taps.len()).map(|tap| extractor.output_shape(tap)).collect();
        let order: Vec<String> = backbone.taps().into_iter().map(|tap| tap.name).collect();
        let depth = |tap: &TapRequest| order.iter().position(|name| *name == tap.name);
        let shallowest = (0..taps.len()).filter(|&tap| !taps[tap].is_pixels()).min_by_key(|&tap| depth(&taps[tap]));
        Ok(Self {
            extractor,
            pipeline,
            maps: pipeline,
            taps: taps.to_vec(),
            shapes,
            region: None,
            median: None,
            shallowest,
        })
    }

    /// Sets the pipeline whose frame the maps have: that of the smallest size.
    pub(crate) fn with_maps_of(mut self, smallest: Pipeline) -> Self {
        self.maps = smallest;
        self
    }

    /// Sets the region of interest of maps.
    pub(crate) fn with_region(mut self, region: Option<RegionOfInterest>) -> Self {
        self.region = region;
        self
    }

    /// Sets the median filter of maps.
    pub(crate) fn with_median(mut self, side: Option<usize>) -> Self {
        self.median = side;
        self
    }

    /// The preprocessing.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Side of the median filter of maps, in pixels of the input; `None` for none.
    pub(crate) fn median(&self) -> Option<usize> {
        self.median
    }

    /// The extracted taps.
    pub fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    /// Patches per image and values per patch with [`PatchGrid::Auto`].
    pub(crate) fn patches(&self) -> (usize, usize) {
        let [height, width] = PatchGrid::Auto.of(&self.shapes);
        let dim = self.shapes.iter().map(|[channels, ..]| channels).sum();
        (self.pipeline.view_count() * height * width, dim)
    }

    /// Memory for runs of at most this many inputs.
    pub(crate) fn memory(&self, at_a_time: usize) -> NetworkMemory {
        NetworkMemory::new(&self.extractor, at_a_time)
    }

    /// The features of `images` preprocessed images `[images · views, 3, H, W]`.
    pub(crate) fn features<'a>(
        &'a self,
        images: usize,
        data: &[f32],
        memory: &'a mut NetworkMemory,
    ) -> Result<FeatureBatch<'a>, MethodError> {
        let views = images * self.pipeline.view_count();
        Ok(self.batch(images, memory.run(&self.extractor, data, views)?))
    }

    /// Values per image, tap by tap.
    pub(crate) fn lengths(&self) -> Vec<usize> {
        let views = self.pipeline.view_count();
        let length = |(tap, shape): (&TapRequest, &[usize; 3])| match tap.layout {
            OutputLayout::Mean => views * shape[0],
            OutputLayout::Nchw | OutputLayout::Rows => views * shape.iter().product::<usize>(),
        };
        self.taps.iter().zip(&self.shapes).map(length).collect()
    }

    /// The features `values` of `images` images as a batch.
    pub(crate) fn batch<'a>(&'a self, images: usize, values: &'a [Vec<f32>]) -> FeatureBatch<'a> {
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

    /// The index of the shallowest tap, for comparison with the training images.
    pub(crate) fn shallowest_tap(&self) -> Option<usize> {
        self.shallowest
    }

    /// The name of the shallowest tap, for comparison with the training images.
    pub(crate) fn shallowest(&self) -> Option<&str> {
        self.shallowest.map(|tap| self.taps[tap].name.as_str())
    }

    /// See [`FeatureSource::combine`](crate::FeatureSource::combine).
    pub(crate) fn combine(&self, mut views: Vec<MethodScore>) -> Result<MethodScore, MethodError> {
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
        // Views of one image share the dropout masks, so that their deviations do not average out.
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

/// The terms of the combined score of views: those of the highest tile of each copy, averaged over the copies.
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

/// The images per batch, for `images` images of `views` views and at most `inputs` views per run.
pub(crate) fn images_per_batch(inputs: usize, views: usize, images: usize) -> usize {
    (inputs / views).clamp(1, images.max(1))
}

/// `416×160`: height and width of the network's input in pixels.
pub(crate) fn size_name(pipeline: &Pipeline) -> String {
    let [height, width] = pipeline.output_size();
    format!("{height}×{width}")
}
