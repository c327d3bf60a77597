//! What methods on pooled features share: one row for each level and view of an image, collected once.

use ndarray::{Array2, Axis, concatenate};
use nomaly_backbones::{Backbone, OutputLayout, TapInfo, TapRequest};
use nomaly_registry::UnknownName;
use nomaly_scorers::Parameter;
use nomaly_store::Progress;

use crate::features::{FeatureBatch, FeatureSource};
use crate::score::{HeldOut, MethodScore};
use crate::{MethodError, Settings};

/// The setting that names the levels whose features make one row.
pub(super) const LEVELS: Parameter = Parameter {
    name: "level",
    default: "deepest",
    values: "`deepest`, or names of the backbone's levels joined by commas",
    summary: "levels whose pooled features make a row",
};

/// Globally average-pooled features: for each level one row a view, `[images · views, C]`.
pub(super) struct PooledFeatures {
    pub(super) levels: Vec<Array2<f32>>,
    views: usize,
}

impl PooledFeatures {
    /// Runs all images through the backbone.
    pub(super) fn collect(source: &dyn FeatureSource, progress: &dyn Progress) -> Result<Self, MethodError> {
        let views = source.views();
        let mut values: Vec<Vec<f32>> = Vec::new();
        let images = source.visit(progress, &mut |batch| {
            values.resize(batch.values.len(), Vec::new());
            for (level, rows) in values.iter_mut().zip(batch.values) {
                level.extend_from_slice(rows);
            }
            Ok(())
        })?;
        let as_rows = |level: Vec<f32>| {
            let rows = images * views;
            let width = level.len() / rows;
            Array2::from_shape_vec((rows, width), level).expect("every view adds a whole row")
        };
        Ok(Self { levels: values.into_iter().map(as_rows).collect(), views })
    }

    /// How many images were collected.
    pub(super) fn images(&self) -> usize {
        self.levels.first().map_or(0, Array2::nrows) / self.views
    }

    /// Refuses fewer images than `needed`.
    pub(super) fn need(&self, needed: usize, method: &str) -> Result<(), MethodError> {
        if self.images() < needed {
            return Err(MethodError::TooFew {
                of: method.to_owned(),
                items: "training images",
                needed,
                found: self.images(),
            });
        }
        Ok(())
    }

    /// The rows of some images at one level, all views of an image one after another.
    pub(super) fn select(&self, level: usize, images: &[usize]) -> Array2<f32> {
        let rows: Vec<usize> = images.iter().flat_map(|image| image * self.views..(image + 1) * self.views).collect();
        self.levels[level].select(Axis(0), &rows)
    }

    /// The rows of some images, those of all levels put one after another.
    pub(super) fn joined(&self, images: &[usize]) -> Array2<f32> {
        let levels: Vec<Array2<f32>> = (0..self.levels.len()).map(|level| self.select(level, images)).collect();
        let views: Vec<_> = levels.iter().map(|level| level.view()).collect();
        concatenate(Axis(1), &views).expect("every level has a row for each view")
    }
}

/// The rows of a batch, those of all levels put one after another, `dim` columns in all.
pub(super) fn joined_rows(batch: &FeatureBatch<'_>, dim: usize) -> Result<Array2<f32>, MethodError> {
    let widths = batch.shapes.iter().map(|[channels, ..]| *channels);
    let levels: Vec<_> = widths.enumerate().map(|(level, width)| batch.rows(level, width)).collect::<Result<_, _>>()?;
    let rows = concatenate(Axis(1), &levels).expect("every level has a row for each view");
    if rows.ncols() == dim {
        Ok(rows)
    } else {
        let tap = batch.taps.first().map_or_else(String::new, |tap| tap.name.clone());
        Err(MethodError::FeatureShape { tap, expected: dim, found: rows.ncols() })
    }
}

/// The taps that [`LEVELS`] names, pooled; `deepest` is that of each network.
pub(super) fn joined_taps(settings: &Settings, backbone: &Backbone) -> Result<Vec<TapRequest>, MethodError> {
    match settings.get(LEVELS.name) {
        None | Some("deepest") => {
            let deepest = backbone.taps_by_network().filter_map(deepest).collect();
            pooled_taps(&Settings::default(), LEVELS.name, backbone, deepest)
        }
        Some(_) => pooled_taps(settings, LEVELS.name, backbone, Vec::new()),
    }
}

/// What `images` get whose views have these scores, in their order.
pub(super) fn held_out(
    source: &dyn FeatureSource,
    images: impl IntoIterator<Item = usize>,
    scores: &[f64],
) -> Result<Vec<HeldOut>, MethodError> {
    let of_images = images.into_iter().zip(scores.chunks(source.views()));
    of_images
        .map(|(image, views)| {
            let views = views.iter().map(|score| MethodScore::whole(*score)).collect();
            Ok(HeldOut::new(image, &source.combine(views)?))
        })
        .collect()
}

/// The taps named by the setting `key`, pooled, checked against the backbone; `default` where it is not set.
pub(super) fn pooled_taps(
    settings: &Settings,
    key: &str,
    backbone: &Backbone,
    default: Vec<String>,
) -> Result<Vec<TapRequest>, MethodError> {
    let names = match settings.get(key) {
        None | Some("all") => default,
        Some(list) => list.split(',').map(|name| name.trim().to_owned()).collect(),
    };
    let taps = backbone.taps();
    for (place, name) in names.iter().enumerate() {
        if !taps.iter().any(|tap| tap.name == *name) {
            let known = taps.iter().map(|tap| tap.name.as_str());
            return Err(UnknownName::new("level", name, known).into());
        }
        if names[..place].contains(name) {
            return Err(MethodError::setting(key, name, "each level once"));
        }
    }
    Ok(names.into_iter().map(|name| TapRequest { name, layout: OutputLayout::Mean }).collect())
}

/// The deepest of a network's taps that is no classifier.
fn deepest(taps: Vec<TapInfo>) -> Option<String> {
    taps.into_iter().rfind(|tap| !tap.is_classifier()).map(|tap| tap.name)
}

/// The level named by the setting `level`, pooled, checked against the backbone; the deepest that is no classifier where it
/// is not set, of joined networks that of the last.
pub(super) fn pooled_tap(settings: &Settings, backbone: &Backbone) -> Result<TapRequest, MethodError> {
    let level = match settings.get("level") {
        Some(name) if name != "deepest" => Settings::default().with("level", name),
        _ => Settings::default(),
    };
    let deepest = deepest(backbone.taps()).into_iter().collect();
    let mut taps = pooled_taps(&level, "level", backbone, deepest)?;
    match (taps.pop(), taps.is_empty()) {
        (Some(tap), true) => Ok(tap),
        _ => Err(MethodError::setting("level", level.get("level").unwrap_or_default(), "one level")),
    }
}
