//! Open-set recognition on deep features: the class of an image, or `unknown`.
//!
//! # What it computes
//! The features of one or more levels of the backbone, averaged over all positions and concatenated, are one row per
//! image, reduced to its leading principal components. Each class (the kinds of the training images) gets a [mixture of
//! Gaussians](nomaly_scorers::open_set). The score of an image is its negative log-likelihood under the likeliest
//! class; the [decision](crate::recognition) is calibrated per class.
//!
//! # When to use
//! When good items come in named kinds, the kind of an item matters, and items of no kind have to be recognized. With a
//! single kind it is an anomaly detector like `features` with the scorer `gmm`.
//!
//! # Parameters
//! `level`, `dimensions`, `components`, `covariance`, `floor`. Full covariances need five images per dimension; if the
//! smallest class has fewer, covariances are diagonal.
//!
//! # Reference
//! Scheirer, de Rezende Rocha, Sapkota and Boult, *Toward open set recognition* (2013), for the task; Hastie and
//! Tibshirani, *Discriminant analysis by Gaussian mixtures* (1996), for the model of the classes.

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_nn::runtime::Executor;
use nomaly_scorers::State;
use nomaly_settings::{Assignments, Settings, SettingsTable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pooled::{PooledFeatures, RowLevels, joined_rows, joined_taps, tap_names};
use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::input::InputParams;
use crate::method::{Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodParams, Sees};
use crate::recognition::{ClassFit, ClassModel, ClassTask, Labels, MIN_ITEMS, OpenSetParams};
use crate::score::MethodScore;
use crate::workspace::MethodWorkspace;

const NAME: &str = "open-set";

/// The registry's entry.
pub(crate) const ENTRY: MethodEntry = MethodEntry {
    name: NAME,
    summary: "a mixture of Gaussians for each class of good images: a label, or unknown",
    paper: "Hastie, Tibshirani: Discriminant Analysis by Gaussian Mixtures (1996); Scheirer et al.: Toward Open Set \
            Recognition (2013)",
    maps: false,
    min_images: MIN_ITEMS,
    cost: Cost {
        fit: "one pass over the images, and up to eleven fits of the classes",
        predict: "one pass, and a likelihood a class",
        memory: "a mean and a covariance a Gaussian",
    },
    table: SettingsTable::of::<OpenSetMethodParams>,
    more: None,
    sees: Sees::Taps,
    input: InputParams::default,
    classes: true,
    trains: false,
    published: &[],
    one_vs_all: &[],
    build: |given, backbone| Ok(Box::new(given.read::<OpenSetMethodParams>()?.on(backbone)?)),
};

/// Parameters of open-set recognition on images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenSetMethodParams {
    /// Levels whose pooled features make a row.
    pub level: RowLevels,
    /// How classes are modelled.
    #[serde(flatten)]
    pub classes: OpenSetParams,
}

impl Default for OpenSetMethodParams {
    fn default() -> Self {
        Self { level: RowLevels::Deepest, classes: OpenSetParams::default() }
    }
}

impl MethodParams for OpenSetMethodParams {
    const METHOD: &'static str = NAME;
}

impl Settings for OpenSetMethodParams {}

impl OpenSetMethodParams {
    /// Checks the levels against the backbone.
    fn on(self, backbone: &Backbone) -> Result<OpenSetMethod, MethodError> {
        let taps = joined_taps(&self.level, backbone)?;
        Ok(OpenSetMethod { params: Self { level: RowLevels::Named(tap_names(&taps)), ..self }, taps })
    }
}

/// Open-set recognition on levels of a backbone, with checked settings.
#[derive(Clone, Debug)]
pub struct OpenSetMethod {
    params: OpenSetMethodParams,
    taps: Vec<TapRequest>,
}

impl Method for OpenSetMethod {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Assignments {
        Assignments::of(&self.params)
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let FitContext { seed, progress, .. } = *context;
        let features = PooledFeatures::collect(source, progress)?;
        features.require(MIN_ITEMS, NAME)?;
        let labels = Labels::new(&source.kinds())?;
        let views = source.views();
        let dim = features.levels.iter().map(ndarray::Array2::ncols).sum();
        let groups = source.groups()?;
        let task = ClassTask { labels: &labels, groups: &groups, dim, settings: &self.params.classes, seed, progress };
        let ClassFit { model, held_out, closest } = task.run(
            |images, classes, plan| {
                let classes: Vec<&str> = classes.iter().flat_map(|class| std::iter::repeat_n(*class, views)).collect();
                ClassModel::fit(features.joined(images).view(), &classes, plan, progress)
            },
            |model, images| {
                let scores = method_scores(model, features.joined(images).view())?;
                let of_image = |of_image: &[MethodScore]| Ok(source.combine(of_image.to_vec())?.parts);
                scores.chunks(views).map(of_image).collect()
            },
        )?;
        Ok(MethodFit {
            fitted: Box::new(FittedOpenSet { model }),
            held_out: closest,
            classes: held_out,
            images: features.images(),
            notes: Vec::new(),
            checkpoint: None,
        })
    }

    fn restore(&self, states: Vec<(String, State)>, _: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        Ok(Box::new(FittedOpenSet { model: ClassModel::restore(&states)? }))
    }
}

/// Fitted classes.
#[derive(Debug)]
pub struct FittedOpenSet {
    model: ClassModel,
}

impl FittedMethod for FittedOpenSet {
    fn score(&self, batch: &FeatureBatch<'_>, _: &mut MethodWorkspace) -> Result<Vec<MethodScore>, MethodError> {
        method_scores(&self.model, joined_rows(batch, self.model.dim())?.view())
    }

    fn states(&self) -> Vec<(String, State)> {
        self.model.states()
    }

    fn classes(&self) -> &[String] {
        self.model.classes()
    }
}

/// The parts are the scores of a row under the classes, the score is their minimum.
fn method_scores(model: &ClassModel, rows: ndarray::ArrayView2<'_, f32>) -> Result<Vec<MethodScore>, MethodError> {
    let score = |parts: ndarray::ArrayView1<'_, f64>| MethodScore {
        score: parts.iter().copied().fold(f64::INFINITY, f64::min),
        deviation: None,
        parts: parts.to_vec(),
        terms: Vec::new(),
        map: None,
    };
    Ok(model.scores(rows)?.outer_iter().map(score).collect())
}
