//! Any scorer on deep features of whole images.
//!
//! # What it computes
//! The features of one or more levels of the backbone, averaged over all positions and concatenated, are one row per
//! image. A [scorer](nomaly_scorers::SCORERS) is fitted on the rows of the training images; its score of a row is the
//! score of the image.
//!
//! # When to use
//! To use a classical detector on deep features, and to compare detectors on the same features. `mvg` and `dn2` are two
//! such pairs with the settings of their papers; start with those. It detects anomalous images but does not locate
//! defects.
//!
//! # Parameters
//! `level`, `scorer`, and the parameters of the scorer (`nomaly list scorers`). Scorers that model a density in all
//! dimensions need more images than the level has channels. The deepest level often has too many; use a shallower one
//! or `gaussian`, whose covariance is shrunk.
//!
//! # Reference
//! Monitoring the distribution of learned features: Boracchi, Carrera, Wohlberg, *Novelty detection in images by sparse
//! representations* (2014), with deep features in place of sparse ones, as in Rippel et al. (2020).

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_nn::runtime::Executor;
use nomaly_scorers::{Scorer, State, restore};
use nomaly_settings::{Assignments, Settings, SettingsTable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pooled::{PooledFeatures, RowLevels, held_out, joined_rows, joined_taps, tap_names};
use super::scoring::{ChosenScorer, DEFAULT_SCORER, scorer_table};
use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::groups::Split;
use crate::input::InputParams;
use crate::method::{Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodParams, Sees, Updates};
use crate::score::MethodScore;
use crate::stage::Stage;
use crate::state::only_named;
use crate::workspace::MethodWorkspace;

const NAME: &str = "features";
/// The fewest images: a held-out fit then has the three rows that a shrunk covariance needs.
const MIN_IMAGES: usize = 4;
/// The fewest images of a held-out fit; groups that leave fewer are split.
const LEAST_OTHERS: usize = 3;
/// The registry's entry.
pub(crate) const ENTRY: MethodEntry = MethodEntry {
    name: NAME,
    summary: "any scorer on pooled features of a pretrained network",
    paper: "Boracchi, Carrera, Wohlberg: Novelty Detection in Images by Sparse Representations (2014), for the scheme",
    maps: false,
    min_images: MIN_IMAGES,
    cost: Cost {
        fit: "one pass over the images, and the scorer's fits",
        predict: "one pass, and the scorer",
        memory: "what the scorer keeps",
    },
    table: SettingsTable::of::<FeaturesParams>,
    more: Some(scorer_table),
    sees: Sees::Taps,
    input: InputParams::default,
    classes: false,
    trains: false,
    published: &[],
    one_vs_all: &[],
    build: |given, backbone| Ok(Box::new(Features::new(given, backbone)?)),
};

/// Parameters of a scorer on features, besides those of the scorer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FeaturesParams {
    /// Levels whose pooled features make a row.
    pub level: RowLevels,
    /// What scores a row; its settings are settings too.
    #[schemars(extend("x-values" = "a name from `nomaly list scorers`"))]
    pub scorer: String,
}

impl Default for FeaturesParams {
    fn default() -> Self {
        Self { level: RowLevels::Deepest, scorer: DEFAULT_SCORER.to_owned() }
    }
}

impl MethodParams for FeaturesParams {
    const METHOD: &'static str = NAME;
}

impl Settings for FeaturesParams {}

/// A checked scorer on checked levels of a backbone.
#[derive(Clone, Debug)]
pub struct Features {
    params: FeaturesParams,
    scorer: ChosenScorer,
    taps: Vec<TapRequest>,
}

impl Features {
    fn new(given: &Assignments, backbone: &Backbone) -> Result<Self, MethodError> {
        let (scorer, own) = ChosenScorer::part(given)?;
        let params: FeaturesParams = own.read()?;
        let taps = joined_taps(&params.level, backbone)?;
        Ok(Self { params: FeaturesParams { level: RowLevels::Named(tap_names(&taps)), ..params }, scorer, taps })
    }
}

impl Method for Features {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Assignments {
        Assignments::of(&self.params).or(self.scorer.settings())
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let FitContext { seed, progress, .. } = *context;
        let features = PooledFeatures::collect(source, progress)?;
        features.require(MIN_IMAGES, NAME)?;
        let mut scored: Vec<(usize, Vec<f64>)> = Vec::new();
        let stage = Stage::start(progress, "scoring held-out images", Some(features.images()));
        for Split { train, test } in source.groups()?.leaving(LEAST_OTHERS).splits(seed) {
            let scorer = self.scorer.fit(features.joined(&train).view(), seed, progress)?;
            let scores = scorer.score(features.joined(&test).view())?;
            stage.advance(test.len());
            scored.extend(test.into_iter().zip(scores.chunks(source.views()).map(<[f64]>::to_vec)));
        }
        drop(stage);
        scored.sort_unstable_by_key(|(image, _)| *image);
        let (images, scores): (Vec<usize>, Vec<Vec<f64>>) = scored.into_iter().unzip();
        let held_out = held_out(source, images, &scores.concat())?;
        let _stage = Stage::start(progress, "fitting the scorer", None);
        let scorer = self.scorer.fit(features.all_joined().view(), seed, progress)?;
        let images = features.images();
        let fitted = Box::new(FittedFeatures { scorer, kept: context.updatable.then_some(features) });
        Ok(MethodFit::new(fitted, held_out, images))
    }

    fn updates(&self) -> Updates {
        Updates::OptIn
    }

    fn extend(
        &self,
        states: Vec<(String, State)>,
        source: &dyn FeatureSource,
        context: &FitContext<'_>,
    ) -> Result<MethodFit, MethodError> {
        let FittedFeatures { scorer: before, kept } = self.read(states)?;
        let kept = kept.ok_or_else(|| MethodError::NotUpdatable { method: NAME.to_owned() })?;
        let more = PooledFeatures::collect(source, context.progress)?;
        more.require(1, NAME)?;
        let held_out = held_out(source, 0..more.images(), &before.score(more.all_joined().view())?)?;
        let all = kept.followed_by(&more)?;
        let _stage = Stage::start(context.progress, "fitting the scorer", None);
        let scorer = self.scorer.fit(all.all_joined().view(), context.seed, context.progress)?;
        Ok(MethodFit::new(Box::new(FittedFeatures { scorer, kept: Some(all) }), held_out, more.images()))
    }

    fn restore(&self, states: Vec<(String, State)>, _: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        Ok(Box::new(self.read(states)?))
    }
}

impl Features {
    fn read(&self, mut states: Vec<(String, State)>) -> Result<FittedFeatures, MethodError> {
        let kept = PooledFeatures::take(&mut states, self.taps.len())?;
        let state = only_named(STATE, &mut states)?;
        if state.kind != self.scorer.name() {
            return Err(MethodError::State { state: STATE.to_owned(), reason: None });
        }
        let scorer = restore(&state)?;
        if kept.as_ref().is_some_and(|kept| kept.width() != scorer.dim()) {
            let reason = Some(format!("it takes rows of {} numbers, and others are kept", scorer.dim()));
            return Err(MethodError::State { state: STATE.to_owned(), reason });
        }
        Ok(FittedFeatures { scorer, kept })
    }
}

const STATE: &str = "scorer";

/// A scorer fitted on the features of good images.
#[derive(Debug)]
pub struct FittedFeatures {
    scorer: Box<dyn Scorer>,
    /// The rows of the training images, if the model is updatable.
    kept: Option<PooledFeatures>,
}

impl FittedMethod for FittedFeatures {
    fn score(&self, batch: &FeatureBatch<'_>, _: &mut MethodWorkspace) -> Result<Vec<MethodScore>, MethodError> {
        let rows = joined_rows(batch, self.scorer.dim())?;
        Ok(self.scorer.score(rows.view())?.into_iter().map(MethodScore::whole).collect())
    }

    fn states(&self) -> Vec<(String, State)> {
        let scorer = (STATE.to_owned(), self.scorer.state());
        [scorer].into_iter().chain(self.kept.as_ref().map(PooledFeatures::state)).collect()
    }
}

#[cfg(test)]
mod tests {
    use nomaly_backbones::Backbone;

    use super::*;

    #[test]
    fn settings_in_full_make_the_same_method() {
        let backbone = Backbone::embedded().unwrap();
        let levels: Vec<String> = backbone.taps().into_iter().map(|tap| tap.name).take(2).collect();
        let given = Assignments::new().with("level", levels.join(",")).with("scorer", "neighbours").with("k", 4);
        let method = Features::new(&given, &backbone).unwrap();
        let stored = method.settings();
        assert_eq!((stored.text("k").as_deref(), stored.text("level")), (Some("4"), Some(levels.join(","))));
        assert_eq!(Features::new(&stored, &backbone).unwrap().settings(), stored);
        let deepest = Features::new(&Assignments::new(), &backbone).unwrap();
        assert_eq!(deepest.taps.len(), 1);
    }
}
