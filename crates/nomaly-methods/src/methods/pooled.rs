//! Pooled features: one row for each level and view of an image.

use ndarray::{Array2, Axis, concatenate};
use nomaly_backbones::{Backbone, OutputLayout, TapInfo, TapRequest};
use nomaly_registry::UnknownName;
use nomaly_scorers::{State, Tensor};
use nomaly_settings::{Names, SettingError, word_or_value};
use nomaly_store::Progress;

use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::score::{HeldOut, MethodScore};
use crate::state::take;

word_or_value! {
    /// The levels whose pooled features make a row.
    #[derive(Clone, Debug, PartialEq)]
    pub enum RowLevels {
        /// The deepest level of each network, without classifiers.
        Deepest = "deepest",
        ;
        /// These.
        Named(Names) { "x-values": "names of the backbone's levels joined by commas" },
    }
}

word_or_value! {
    /// A level of the backbone.
    #[derive(Clone, Debug, PartialEq)]
    pub enum Level {
        /// The deepest level without classifiers; of joined networks, that of the last.
        Deepest = "deepest",
        ;
        /// This.
        Named(String) { "x-values": "the name of one of the backbone's levels" },
    }
}

/// The state with the rows of the training images, in updatable models.
const ROWS: &str = "rows";

/// Globally average-pooled features: for each level one row per view, `[images · views, C]`.
#[derive(Clone, Debug)]
pub(super) struct PooledFeatures {
    pub(super) levels: Vec<Array2<f32>>,
    views: usize,
}

impl PooledFeatures {
    /// Collects the features of all images.
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

    /// The state with the rows, for the model file.
    pub(super) fn state(&self) -> (String, State) {
        let tensor = |(level, rows): (usize, &Array2<f32>)| {
            (format!("level{level}"), Tensor::f32([rows.nrows(), rows.ncols()], rows.iter().copied().collect()))
        };
        let tensors = self.levels.iter().enumerate().map(tensor).collect();
        let config = serde_json::json!({ "views": self.views });
        (ROWS.to_owned(), State { kind: ROWS.to_owned(), config, tensors })
    }

    /// Removes the rows of `levels` levels from the states of a model; `None` if it is not updatable.
    ///
    /// # Errors
    /// A state that is damaged.
    pub(super) fn take(states: &mut Vec<(String, State)>, levels: usize) -> Result<Option<Self>, MethodError> {
        let Some(place) = states.iter().position(|(name, _)| name == ROWS) else { return Ok(None) };
        let (_, mut state) = states.remove(place);
        let refuse = |reason: &str| MethodError::State { state: ROWS.to_owned(), reason: Some(reason.to_owned()) };
        let views = state.config.get("views").and_then(serde_json::Value::as_u64).unwrap_or(0) as usize;
        let level = |level: usize| {
            let name = format!("level{level}");
            let shape = state.tensors.get(&name).map(|tensor| tensor.shape.clone());
            let values = take(ROWS, &mut state, &name)?;
            match shape.as_deref() {
                Some(&[count, width]) if width > 0 => Array2::from_shape_vec((count, width), values)
                    .map_err(|_| refuse("a level does not hold whole rows")),
                _ => Err(refuse("a level is no table")),
            }
        };
        let levels: Vec<Array2<f32>> = (0..levels).map(level).collect::<Result<_, _>>()?;
        let count = levels.first().map_or(0, Array2::nrows);
        let whole = views > 0 && count > 0 && count.is_multiple_of(views);
        if state.kind != ROWS || !whole || levels.iter().any(|rows| rows.nrows() != count) {
            return Err(refuse("its levels do not have a row for each view of each image"));
        }
        Ok(Some(Self { levels, views }))
    }

    /// Appends the rows of `more` images.
    ///
    /// # Errors
    /// Images with another number of views.
    pub(super) fn followed_by(self, more: &Self) -> Result<Self, MethodError> {
        if self.views != more.views {
            let reason = format!("images of {} views cannot be added to those of {}", more.views, self.views);
            return Err(MethodError::Conflict { reason });
        }
        let both = |(own, more): (&Array2<f32>, &Array2<f32>)| {
            concatenate(Axis(0), &[own.view(), more.view()]).map_err(|error| MethodError::Encode {
                reason: format!("features of images cannot be put together: {error}"),
            })
        };
        let levels = self.levels.iter().zip(&more.levels).map(both).collect::<Result<_, _>>()?;
        Ok(Self { levels, views: self.views })
    }

    /// The number of images.
    pub(super) fn images(&self) -> usize {
        self.levels.first().map_or(0, Array2::nrows) / self.views
    }

    /// Rejects fewer images than `needed`.
    pub(super) fn require(&self, needed: usize, method: &str) -> Result<(), MethodError> {
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

    /// The rows of these images at one level, the views of an image consecutive.
    pub(super) fn select(&self, level: usize, images: &[usize]) -> Array2<f32> {
        let rows: Vec<usize> = images.iter().flat_map(|image| image * self.views..(image + 1) * self.views).collect();
        self.levels[level].select(Axis(0), &rows)
    }

    /// The width of a row of all levels.
    pub(super) fn width(&self) -> usize {
        self.levels.iter().map(Array2::ncols).sum()
    }

    /// The rows of all images, levels concatenated.
    pub(super) fn all_joined(&self) -> Array2<f32> {
        let all: Vec<usize> = (0..self.images()).collect();
        self.joined(&all)
    }

    /// The rows of these images, levels concatenated.
    pub(super) fn joined(&self, images: &[usize]) -> Array2<f32> {
        let levels: Vec<Array2<f32>> = (0..self.levels.len()).map(|level| self.select(level, images)).collect();
        let views: Vec<_> = levels.iter().map(|level| level.view()).collect();
        concatenate(Axis(1), &views).expect("every level has a row for each view")
    }
}

/// The rows of a batch, levels concatenated, with `dim` columns in total.
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

/// The pooled taps of these levels.
pub(super) fn joined_taps(levels: &RowLevels, backbone: &Backbone) -> Result<Vec<TapRequest>, MethodError> {
    let names = match levels {
        RowLevels::Deepest => backbone.taps_by_network().filter_map(deepest).collect(),
        RowLevels::Named(Names(names)) => names.clone(),
    };
    pooled_taps("level", names, backbone)
}

/// The held-out scores of `images` from the scores of their views, in order.
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

/// The pooled taps of the levels with these names, checked against the backbone; `setting` is named in errors.
pub(super) fn pooled_taps(
    setting: &str,
    names: Vec<String>,
    backbone: &Backbone,
) -> Result<Vec<TapRequest>, MethodError> {
    let taps = backbone.taps();
    for (place, name) in names.iter().enumerate() {
        if !taps.iter().any(|tap| tap.name == *name) {
            let known = taps.iter().map(|tap| tap.name.as_str());
            return Err(UnknownName::new("level", name, known).into());
        }
        if names[..place].contains(name) {
            return Err(SettingError::value(setting, names.join(","), "each level once").into());
        }
    }
    Ok(names.into_iter().map(|name| TapRequest { name, layout: OutputLayout::Mean }).collect())
}

/// The names of taps, as in full settings.
pub(super) fn tap_names(taps: &[TapRequest]) -> Names {
    Names(taps.iter().map(|tap| tap.name.clone()).collect())
}

/// The deepest of a network's taps, without classifiers.
fn deepest(taps: Vec<TapInfo>) -> Option<String> {
    taps.into_iter().rfind(|tap| !tap.is_classifier()).map(|tap| tap.name)
}

/// The pooled tap of a level, checked against the backbone.
pub(super) fn pooled_tap(level: &Level, backbone: &Backbone) -> Result<TapRequest, MethodError> {
    let names = match level {
        Level::Deepest => deepest(backbone.taps()).into_iter().collect(),
        Level::Named(name) => vec![name.clone()],
    };
    let tap = pooled_taps("level", names, backbone)?.pop();
    tap.ok_or_else(|| SettingError::value("level", level, "one level").into())
}
