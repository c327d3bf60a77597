//! Any scorer on deep features of whole images.
//!
//! # What it computes
//! The features of one or more levels of the backbone, averaged over all positions and put one after another, are one row
//! an image. A [scorer](nomaly_scorers::SCORERS) is fitted on the rows of the training images, and its score of a row is
//! that of the image.
//!
//! # When to use
//! To put one of the classical detectors on deep features, and to compare them with one another on the same features.
//! `mvg` and `dn2` are two such pairs with the settings of their papers; start with those. It says which image is
//! anomalous, not where.
//!
//! # Parameters
//! `level`, `scorer`, and whatever parameters the scorer has (`nomaly list scorers`). Scorers that model a density in all
//! dimensions want more images than the level has channels: of the deepest level that is seldom so, and a shallower level
//! or `gaussian` (whose covariance is shrunk) is the way out.
//!
//! # Reference
//! The lectures' scheme of monitoring the distribution of learned features: Boracchi, Carrera, Wohlberg, *Novelty
//! detection in images by sparse representations* (2014), with deep features in place of sparse ones, as in Rippel et al.
//! (2020).

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_scorers::{Parameter, Scorer, State, restore};

use super::pooled::{LEVELS, PooledFeatures, held_out, joined_rows, joined_taps};
use super::scoring::{ChosenScorer, SCORER, ScorerChoice};
use crate::features::{FeatureBatch, FeatureSource};
use crate::groups::Split;
use crate::method::{Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit};
use crate::score::MethodScore;
use crate::stage::Stage;
use crate::{MethodError, Settings};

const NAME: &str = "features";
/// The fewest images from which a held-out fit has the three rows that a shrunk covariance needs.
const MIN_IMAGES: usize = 4;
/// The fewest images that a held-out fit has; larger groups are taken apart.
const LEAST_OTHERS: usize = 3;
/// Well-posed for fewer images than channels, for its covariance is shrunk, and with nothing to tune.
const DEFAULT_SCORER: &str = "gaussian";

const PARAMETERS: &[Parameter] = &[
    LEVELS,
    Parameter {
        name: SCORER,
        default: DEFAULT_SCORER,
        values: "a name from `nomaly list scorers`",
        summary: "what scores a row; its parameters are settings too",
    },
];

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
    parameters: PARAMETERS,
    more_parameters: Some(|settings| Ok(ScorerChoice::of(settings, DEFAULT_SCORER)?.parameters().to_vec())),
    backbone: None,
    defaults: &[],
    classes: false,
    trains: false,
    published: &[],
    one_vs_all: &[],
    build: |settings, backbone| Ok(Box::new(Features::from_settings(settings, backbone)?)),
};

/// A scorer on levels of a backbone, both checked.
#[derive(Clone, Debug)]
pub struct Features {
    scorer: ChosenScorer,
    taps: Vec<TapRequest>,
}

impl Features {
    fn from_settings(settings: &Settings, backbone: &Backbone) -> Result<Self, MethodError> {
        let scorer = ChosenScorer::from_settings(settings, DEFAULT_SCORER)?;
        Ok(Self { scorer, taps: joined_taps(settings, backbone)? })
    }
}

impl Method for Features {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Settings {
        let levels: Vec<&str> = self.taps.iter().map(|tap| tap.name.as_str()).collect();
        self.scorer.add_to(Settings::default().with("level", levels.join(",")))
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let FitContext { seed, progress, .. } = *context;
        let features = PooledFeatures::collect(source, progress)?;
        features.need(MIN_IMAGES, NAME)?;
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
        let all: Vec<usize> = (0..features.images()).collect();
        let scorer = self.scorer.fit(features.joined(&all).view(), seed, progress)?;
        let fitted = Box::new(FittedFeatures { scorer });
        Ok(MethodFit {
            fitted,
            held_out,
            classes: Vec::new(),
            images: features.images(),
            notes: Vec::new(),
            checkpoint: None,
        })
    }

    fn restore(&self, states: Vec<(String, State)>) -> Result<Box<dyn FittedMethod>, MethodError> {
        match states.as_slice() {
            [(name, state)] if name == STATE && state.kind == self.scorer.name() => {
                Ok(Box::new(FittedFeatures { scorer: restore(state)? }))
            }
            _ => Err(MethodError::State { state: STATE.to_owned(), reason: None }),
        }
    }
}

const STATE: &str = "scorer";

/// A scorer that has seen the features of good images.
#[derive(Debug)]
pub struct FittedFeatures {
    scorer: Box<dyn Scorer>,
}

impl FittedMethod for FittedFeatures {
    fn score(&self, batch: &FeatureBatch<'_>) -> Result<Vec<MethodScore>, MethodError> {
        let rows = joined_rows(batch, self.scorer.dim())?;
        Ok(self.scorer.score(rows.view())?.into_iter().map(MethodScore::whole).collect())
    }

    fn states(&self) -> Vec<(String, State)> {
        vec![(STATE.to_owned(), self.scorer.state())]
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
        let settings = Settings::default().with("level", levels.join(",")).with("scorer", "neighbours").with("k", 4);
        let method = Features::from_settings(&settings, &backbone).unwrap();
        let stored = method.settings();
        assert_eq!((stored.get("k"), stored.get("level")), (Some("4"), Some(levels.join(",").as_str())));
        assert_eq!(Features::from_settings(&stored, &backbone).unwrap().settings(), stored);
        let deepest = Features::from_settings(&Settings::default(), &backbone).unwrap();
        assert_eq!(deepest.taps.len(), 1);
    }
}
