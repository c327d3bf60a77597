//! What methods on pooled features share: one row for each level and view of an image, collected once.

use ndarray::{Array2, Axis};
use nomaly_backbones::{Backbone, OutputLayout, TapRequest};
use nomaly_registry::UnknownName;
use nomaly_store::Progress;

use crate::features::FeatureSource;
use crate::method::{HeldOut, MethodScore};
use crate::{DetectorError, Settings};

/// Globally average-pooled features: for each level one row a view, `[images · views, C]`.
pub(super) struct PooledFeatures {
    pub(super) levels: Vec<Array2<f32>>,
    views: usize,
}

impl PooledFeatures {
    /// Runs all images through the backbone.
    pub(super) fn collect(source: &dyn FeatureSource, progress: &dyn Progress) -> Result<Self, DetectorError> {
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
    pub(super) fn need(&self, needed: usize, method: &str) -> Result<(), DetectorError> {
        if self.images() < needed {
            return Err(DetectorError::TooFewImages { method: method.to_owned(), needed, found: self.images() });
        }
        Ok(())
    }

    /// The rows of some images at one level, all views of an image one after another.
    pub(super) fn select(&self, level: usize, images: &[usize]) -> Array2<f32> {
        let rows: Vec<usize> = images.iter().flat_map(|image| image * self.views..(image + 1) * self.views).collect();
        self.levels[level].select(Axis(0), &rows)
    }
}

/// What images get whose views have these scores, in their order.
pub(super) fn held_out(source: &dyn FeatureSource, scores: &[f64]) -> Result<Vec<HeldOut>, DetectorError> {
    let images = scores.chunks(source.views());
    images
        .map(|views| {
            let views = views.iter().map(|score| MethodScore::whole(*score)).collect();
            Ok(HeldOut::from(&source.combine(views)?))
        })
        .collect()
}

/// The taps named by the setting `key`, pooled, checked against the backbone; `default` where it is not set.
pub(super) fn pooled_taps(
    settings: &Settings,
    key: &str,
    backbone: &Backbone,
    default: Vec<String>,
) -> Result<Vec<TapRequest>, DetectorError> {
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
            return Err(DetectorError::setting(key, name, "each level once"));
        }
    }
    Ok(names.into_iter().map(|name| TapRequest { name, layout: OutputLayout::Mean }).collect())
}

/// The level named by the setting `level`, pooled, checked against the backbone; the deepest that is no classifier where it
/// is not set.
pub(super) fn pooled_tap(settings: &Settings, backbone: &Backbone) -> Result<TapRequest, DetectorError> {
    let level = match settings.get("level") {
        Some(name) if name != "deepest" => Settings::default().with("level", name),
        _ => Settings::default(),
    };
    let deepest = backbone.taps().into_iter().map(|tap| tap.name).rfind(|name| name != "logits");
    let mut taps = pooled_taps(&level, "level", backbone, deepest.into_iter().collect())?;
    match (taps.pop(), taps.is_empty()) {
        (Some(tap), true) => Ok(tap),
        _ => Err(DetectorError::setting("level", level.get("level").unwrap_or_default(), "one level")),
    }
}
