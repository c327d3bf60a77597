//! SPADE: the distance of every position to the nearest position of the most similar images.
//!
//! # What it computes
//! The pooled features of an image retrieve its `k` nearest training images; the score of the image is their mean L2
//! distance. Feature maps of several layers on one grid give each position one vector. The map is the L2 distance of
//! each position to the nearest of all positions of the retrieved images, upsampled bilinearly and blurred.
//!
//! # When to use
//! When good items come in several kinds or at varying positions, since each image is compared with similar ones. Few
//! images suffice. The model keeps the feature maps of all of them, and scoring compares every position with those of
//! `k` images.
//!
//! # Parameters
//! `layers`, `level`, `k`, `score`, `grid`, `sigma`, `held_out`, `max_memory`; see [`SpadeParams`].
//!
//! # Memory
//! The feature maps of all images take at most half of `max_memory` less the program's own share, because the model
//! file is made from a copy of them. `grid=auto` compares positions on the finest layer's grid that fits, and notes if
//! it is a coarser one; finer layers are averaged over each position, coarser ones interpolated bilinearly.
//!
//! # Views
//! Each tile and flipped copy is scored against the same tile or copy of the training images.
//!
//! # Region of interest
//! Pooled features cover the whole image. With a region of interest they still retrieve the images to compare with, but
//! the score is the largest value of the map, regardless of `score`.
//!
//! # Held-out scores
//! A training image is compared with all images of other groups. At most `held_out` random images are scored, since
//! each costs as much as scoring an image.
//!
//! # Reference
//! Cohen and Hoshen, *Sub-Image Anomaly Detection with Deep Pyramid Correspondences*, 2020, sections 3.1 to 3.4. The
//! paper scores images by the pooled last layer of Wide-ResNet-50-2, and positions by its first three layers at stride
//! 4.

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_nn::runtime::Executor;
use nomaly_scorers::{State, Tensor};
use nomaly_settings::{Assignments, Auto, Memory, Names, SettingError, Settings, SettingsTable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gallery::{Gallery, GalleryShape};
use super::grid::layer_taps;
use super::pooled::{Level, pooled_tap, tap_names};
use super::pyramid::pyramid;
use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::input::InputParams;
use crate::map_maker::{DEFAULT_SIGMA, MapMaker};
use crate::method::{
    Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodParams, Published, Sees, Updates,
};
use crate::score::MethodScore;
use crate::state::{only, take};
use crate::workspace::MethodWorkspace;

const NAME: &str = "spade";
/// An image to leave out, one to compare it with, and one to spare.
const MIN_IMAGES: usize = 3;
/// The part of `max_memory` reserved for everything besides the gallery: network, images, program.
const RESERVE: u64 = 256 << 20;

/// The registry's entry.
pub(crate) const ENTRY: MethodEntry = MethodEntry {
    name: NAME,
    summary: "distance of every position to the nearest of the most similar normal images",
    paper: "Cohen, Hoshen: Sub-Image Anomaly Detection with Deep Pyramid Correspondences (2020)",
    maps: true,
    min_images: MIN_IMAGES,
    cost: Cost {
        fit: "one pass over the images, and scoring up to 100 of them",
        predict: "one pass, and k × positions² distances",
        memory: "the feature maps of all images, at most half of `max_memory`",
    },
    table: SettingsTable::of::<SpadeParams>,
    more: None,
    sees: Sees::Taps,
    input: InputParams::default,
    classes: false,
    trains: false,
    published: &[Published {
        pixel_auroc: Some(96.2),
        aupro: Some(92.1),
        ..Published::image("MVTec AD, Wide-ResNet-50-2", 85.5)
    }],
    one_vs_all: &[],
    build: |given, backbone| Ok(Box::new(given.read::<SpadeParams>()?.on(backbone)?)),
};

/// The score of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageScore {
    /// The mean distance of its pooled features to those of the retrieved images, without a region of interest.
    #[default]
    Image,
    /// The largest value of its map.
    Map,
}

/// Parameters of SPADE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SpadeParams {
    /// Layers whose features are compared at each position; `auto`: those of strides 4, 8 and 16.
    #[schemars(extend("x-values" = "`auto` or names of the backbone's levels joined by commas"))]
    pub layers: Auto<Names>,
    /// Level whose pooled features retrieve images and score them.
    pub level: Level,
    /// Training images that an image is compared with; where there are fewer others, all of them.
    #[schemars(extend("minimum" = 1))]
    pub k: usize,
    /// What scores an image: the distance of its pooled features, where no region of interest is set, or the largest
    /// value of its map.
    pub score: ImageScore,
    /// Stride at which positions are compared, that of a layer; `auto`: the finest that fits into `max_memory`.
    #[schemars(extend("minimum" = 1))]
    pub grid: Auto<usize>,
    /// Standard deviation of the map's blur in pixels of the network's input, the smallest of several `sizes`.
    #[schemars(extend("minimum" = 0, "maximum" = 100, "x-unit" = "pixels"))]
    pub sigma: f64,
    /// The most training images that are scored to calibrate the decision.
    #[schemars(extend("minimum" = 1))]
    pub held_out: usize,
    /// What the process may take to fit, half of it for the feature maps of all images; from 512MiB on.
    pub max_memory: Memory,
}

impl Default for SpadeParams {
    fn default() -> Self {
        Self {
            layers: Auto::Auto,
            level: Level::Deepest,
            k: 50,
            score: ImageScore::Image,
            grid: Auto::Auto,
            sigma: DEFAULT_SIGMA,
            held_out: 100,
            max_memory: Memory::gib(2),
        }
    }
}

impl MethodParams for SpadeParams {
    const METHOD: &'static str = NAME;
}

impl Settings for SpadeParams {
    fn check(&self) -> Result<(), SettingError> {
        if self.max_memory.0 < 2 * RESERVE {
            return Err(SettingError::value("max_memory", self.max_memory, "at least 512MiB"));
        }
        Ok(())
    }
}

impl SpadeParams {
    /// Checks layers, level and grid against the backbone.
    fn on(self, backbone: &Backbone) -> Result<Spade, MethodError> {
        let mut taps = layer_taps(&self.layers, backbone, 0)?;
        let pooled = pooled_tap(&self.level, backbone)?;
        let known = backbone.taps();
        let info = |tap: &TapRequest| known.iter().find(|info| info.name == tap.name);
        let strides: Vec<usize> = taps.iter().filter_map(|tap| info(tap)?.stride).collect();
        let dim = taps.iter().filter_map(info).map(|info| info.channels).sum();
        let width = info(&pooled).map_or(0, |info| info.channels);
        if let Some(grid) = self.grid.value().filter(|grid| !strides.contains(grid)) {
            let strides = strides.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let allowed = format!("`auto`, or the stride of one of the layers: {strides}");
            return Err(SettingError::value("grid", grid, &allowed).into());
        }
        let layers = Auto::Value(tap_names(&taps));
        let params = Self { layers, level: Level::Named(pooled.name.clone()), ..self };
        taps.push(pooled);
        Ok(Spade { params, taps, strides, dim, pooled: width })
    }
}

/// SPADE with checked parameters.
#[derive(Clone, Debug)]
pub struct Spade {
    params: SpadeParams,
    /// The layers, and the pooled level last.
    taps: Vec<TapRequest>,
    /// Stride of each layer.
    strides: Vec<usize>,
    /// Channels of all layers.
    dim: usize,
    /// Channels of the pooled level.
    pooled: usize,
}

impl Method for Spade {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Assignments {
        Assignments::of(&self.params)
    }

    fn max_memory(&self) -> Memory {
        self.params.max_memory
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let FitContext { seed, progress, .. } = *context;
        let mut collected: Option<(Gallery, Vec<String>)> = None;
        let images = source.visit(progress, &mut |batch| {
            let (gallery, _) = match &mut collected {
                Some(collected) => collected,
                None => {
                    let (shape, notes) = self.plan(source.images(), batch, context.occupied)?;
                    collected.insert((Gallery::new(shape)?, notes))
                }
            };
            let features = self.features(batch, gallery.shape())?;
            gallery.add(features.pooled, &features.pyramids)
        })?;
        let too_few =
            || MethodError::TooFew { of: NAME.to_owned(), items: "training images", needed: MIN_IMAGES, found: images };
        let (gallery, mut notes) = collected.filter(|_| images >= MIN_IMAGES).ok_or_else(too_few)?;
        let groups = source.groups()?;
        let groups = groups.leaving(1);
        let k = self.params.k.min(images - groups.largest());
        if k < self.params.k {
            notes.push(format!("k={} is more than the other images: each is compared with {k}", self.params.k));
        }
        let fitted = FittedSpade { method: self.clone(), gallery, k };

        let chosen = groups.choose(context.most_held_out(self.params.held_out), seed);
        let mut held_out = Vec::with_capacity(chosen.len());
        let mut next = chosen.iter().copied();
        source.visit_some(&chosen, progress, &mut |batch| {
            let features = self.features(batch, fitted.gallery.shape())?;
            for (image, number) in (0..batch.images).zip(next.by_ref()) {
                if progress.cancelled() {
                    return Err(MethodError::Cancelled);
                }
                let views = fitted.scores(batch, &features, image, groups.group_of(number))?;
                held_out.push(context.held_out(number, source.combine(views)?));
            }
            Ok(())
        })?;
        Ok(MethodFit { notes, ..MethodFit::new(Box::new(fitted), held_out, images) })
    }

    fn updates(&self) -> Updates {
        Updates::Always
    }

    fn extend(
        &self,
        states: Vec<(String, State)>,
        source: &dyn FeatureSource,
        context: &FitContext<'_>,
    ) -> Result<MethodFit, MethodError> {
        let progress = context.progress;
        let mut fitted = self.read(states)?;
        let shape = fitted.gallery.shape();
        let needed = shape.bytes(fitted.gallery.images() + source.images());
        if needed > self.room(context.occupied) {
            return Err(self.too_large(needed, "fit again with a coarser `grid`, or allow more"));
        }
        let mut more = Gallery::new(shape)?;
        let wanted = context.held_out_of(source.images());
        let (mut held_out, mut number) = (Vec::new(), 0);
        let images = source.visit(progress, &mut |batch| {
            let features = self.features(batch, shape)?;
            for image in 0..batch.images {
                if progress.cancelled() {
                    return Err(MethodError::Cancelled);
                }
                if wanted.binary_search(&number).is_ok() {
                    let views = fitted.scores(batch, &features, image, &[])?;
                    held_out.push(context.held_out(number, source.combine(views)?));
                }
                number += 1;
            }
            more.add(features.pooled, &features.pyramids)
        })?;
        if images == 0 {
            return Err(MethodError::TooFew { of: NAME.to_owned(), items: "training images", needed: 1, found: 0 });
        }
        fitted.gallery.append(more)?;
        Ok(MethodFit::new(Box::new(fitted), held_out, images))
    }

    fn revisits(&self) -> bool {
        true
    }

    fn restore(&self, states: Vec<(String, State)>, _: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        Ok(Box::new(self.read(states)?))
    }
}

/// The features of a batch.
struct Features<'a> {
    /// `[images, views, pooled]`.
    pooled: &'a [f32],
    /// `[images, views, positions, dim]`.
    pyramids: Vec<f32>,
}

impl Spade {
    /// The memory limit of the gallery in bytes: half of the total, since the model file is made from a copy of it.
    fn room(&self, occupied: u64) -> u64 {
        self.params.max_memory.0.saturating_sub(RESERVE + occupied) / 2
    }

    fn too_large(&self, gallery: u64, hint: &str) -> MethodError {
        MethodError::memory(
            NAME,
            &Memory(gallery.saturating_mul(2).saturating_add(RESERVE)).rounded(),
            &self.params.max_memory.to_string(),
            hint,
        )
    }

    /// The grid for the features of `images` images like those of `batch`, with notes for the user.
    fn plan(
        &self,
        images: usize,
        batch: &FeatureBatch<'_>,
        occupied: u64,
    ) -> Result<(GalleryShape, Vec<String>), MethodError> {
        let mut grids: Vec<(usize, GalleryShape)> = self
            .strides
            .iter()
            .zip(batch.shapes)
            .map(|(&stride, shape)| {
                let grid = [shape[1], shape[2]];
                (stride, GalleryShape { views: batch.views, grid, dim: self.dim, pooled: self.pooled })
            })
            .collect();
        grids.retain(|(stride, _)| self.params.grid.value().is_none_or(|grid| grid == *stride));
        grids.sort_by_key(|(stride, _)| *stride);
        let needed = |shape: GalleryShape| shape.bytes(images);
        let Some(&(stride, shape)) = grids.iter().find(|(_, shape)| needed(*shape) <= self.room(occupied)) else {
            let least = grids.last().map_or(0, |(_, shape)| needed(*shape));
            let hint = match self.params.grid {
                Auto::Value(_) => "allow more, or leave the `grid` to `auto`",
                Auto::Auto => "allow more, or make `input_size` smaller",
            };
            return Err(self.too_large(least, hint));
        };
        let finest = grids[0];
        let mut notes = Vec::new();
        if finest.0 < stride {
            notes.push(format!(
                "positions are compared at stride {stride}: at stride {} the feature maps of {images} images take {}, \
                 and max_memory={} has room for {}",
                finest.0,
                Memory(needed(finest.1)).rounded(),
                self.params.max_memory,
                Memory(self.room(occupied)).rounded()
            ));
        }
        Ok((shape, notes))
    }

    /// The features of a batch on the grid of `shape`.
    fn features<'a>(&self, batch: &FeatureBatch<'a>, shape: GalleryShape) -> Result<Features<'a>, MethodError> {
        let layers = self.strides.len();
        let (shapes, values) = (&batch.shapes[..layers], &batch.values[..layers]);
        let known = shapes.iter().any(|[_, height, width]| [*height, *width] == shape.grid);
        let dim: usize = shapes.iter().map(|[channels, ..]| channels).sum();
        if !known || batch.views != shape.views || dim != shape.dim {
            return Err(MethodError::FeatureShape {
                tap: tap_names(&self.taps[..layers]).to_string(),
                expected: shape.views * shape.positions() * shape.dim,
                found: shapes.iter().map(|shape| batch.views * shape.iter().product::<usize>()).sum(),
            });
        }
        batch.rows(layers, shape.pooled)?;
        Ok(Features { pooled: &batch.values[layers], pyramids: pyramid(values, shapes, shape.grid)? })
    }

    fn read(&self, mut states: Vec<(String, State)>) -> Result<FittedSpade, MethodError> {
        let refuse = |reason: String| MethodError::State { state: STATE.to_owned(), reason: Some(reason) };
        let mut state = only(STATE, &mut states)?;
        let Config { grid, views, k } =
            serde_json::from_value(state.config.take()).map_err(|error| refuse(error.to_string()))?;
        let pooled = take(STATE, &mut state, "pooled")?;
        let pyramids = take(STATE, &mut state, "pyramids")?;
        let product = |sizes: &[usize]| sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        let of_image = product(&[views, self.pooled]).filter(|size| *size > 0);
        let images = of_image.filter(|size| pooled.len().is_multiple_of(*size)).map_or(0, |size| pooled.len() / size);
        if images == 0 || product(&[images, views, grid[0], grid[1], self.dim]) != Some(pyramids.len()) {
            return Err(refuse(format!(
                "{} pooled numbers and {} others are no images of {views} views and {} x {} positions",
                pooled.len(),
                pyramids.len(),
                grid[0],
                grid[1]
            )));
        }
        if pyramids.is_empty() || !(1..=images).contains(&k) {
            return Err(refuse(format!("an image cannot be compared with {k} of {images}")));
        }
        let mut gallery = Gallery::new(GalleryShape { views, grid, dim: self.dim, pooled: self.pooled })?;
        gallery.add(&pooled, &pyramids)?;
        Ok(FittedSpade { method: self.clone(), gallery, k })
    }
}

const STATE: &str = "spade";

/// The configuration of a gallery in a model file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Height and width of the grid of positions.
    grid: [usize; 2],
    /// Views per image.
    views: usize,
    /// Images to compare with.
    k: usize,
}

/// Fitted SPADE: the features of all training images.
#[derive(Debug)]
pub struct FittedSpade {
    method: Spade,
    gallery: Gallery,
    /// Images to compare with: at most the number of others during the fit, so that scores stay comparable with the
    /// held-out ones.
    k: usize,
}

impl FittedSpade {
    /// Scores the views of image `image` of a batch against the training images except `without`, ascending.
    fn scores(
        &self,
        batch: &FeatureBatch<'_>,
        features: &Features<'_>,
        image: usize,
        without: &[usize],
    ) -> Result<Vec<MethodScore>, MethodError> {
        let GalleryShape { views, grid, dim, pooled } = self.gallery.shape();
        let SpadeParams { score, sigma, .. } = self.method.params;
        let pooled = features.pooled.chunks_exact(pooled).skip(image * views);
        let pyramids = features.pyramids.chunks_exact(grid[0] * grid[1] * dim).skip(image * views);
        let mut distances = Vec::with_capacity(views * grid[0] * grid[1]);
        let mut scores = Vec::with_capacity(views);
        for (view, (pooled, pyramid)) in pooled.zip(pyramids).take(views).enumerate() {
            let retrieved = self.gallery.retrieve(view, pooled, self.k, without)?;
            distances.extend(self.gallery.distances(view, &retrieved.images, pyramid)?);
            scores.push(retrieved.distance);
        }
        let maker = MapMaker::new(batch, grid, sigma)?;
        maker.restrict(&mut distances);
        let maps = maker.maps(&distances)?;
        let scored = scores.into_iter().zip(maps).map(|(distance, map)| {
            let score = match score {
                ImageScore::Image if batch.region.is_none() => distance,
                // Pooled features ignore the region of interest.
                _ => map.max(),
            };
            MethodScore::located(score, map)
        });
        Ok(scored.collect())
    }
}

impl FittedMethod for FittedSpade {
    fn score(&self, batch: &FeatureBatch<'_>, _: &mut MethodWorkspace) -> Result<Vec<MethodScore>, MethodError> {
        let features = self.method.features(batch, self.gallery.shape())?;
        let mut scores = Vec::with_capacity(batch.images * batch.views);
        for image in 0..batch.images {
            scores.extend(self.scores(batch, &features, image, &[])?);
        }
        Ok(scores)
    }

    fn states(&self) -> Vec<(String, State)> {
        let GalleryShape { views, grid, dim, pooled } = self.gallery.shape();
        let images = self.gallery.images();
        let tensors = [
            ("pooled", Tensor::f32([images, views, pooled], self.gallery.pooled())),
            ("pyramids", Tensor::f32([images, views, grid[0] * grid[1], dim], self.gallery.pyramids())),
        ];
        let state = State {
            kind: STATE.to_owned(),
            config: serde_json::to_value(Config { grid, views, k: self.k }).unwrap_or_default(),
            tensors: tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into(),
        };
        vec![(STATE.to_owned(), state)]
    }
}

#[cfg(test)]
mod tests;
