//! Multivariate Gaussians of pooled deep features.
//!
//! # What it computes
//! Every level of the backbone is averaged over all positions, which gives one vector per level and image. A Gaussian
//! is fitted to the vectors of each level. The score of a level is the distance from its Gaussian, and the score of the
//! image is the sum over levels.
//!
//! # When to use
//! With about twenty good images or more, for a result within seconds on a laptop. It detects anomalous images but does
//! not locate defects, since pooling discards positions.
//!
//! # Parameters
//! `levels`, `distance`, `covariance`, `reduction`, `variance`; see [`MvgParams`].
//!
//! # Reference
//! Rippel, Mertens and Merhof, *Modeling the distribution of normal data in pre-trained deep features for anomaly
//! detection*, 2020, section III. The paper's backbone is EfficientNet-B4 at 380²; its authors' program takes the mean
//! over levels, which ranks images like the sum.

use ndarray::{Array2, ArrayView2};
use nomaly_backbones::{Backbone, TapRequest};
use nomaly_nn::runtime::Executor;
use nomaly_scorers::gaussian::{Covariance, Gaussian, GaussianStatistics, Keep, PcaEstimator, PcaGaussian, PcaOptions};
use nomaly_scorers::{Scorer, State, restore};
use nomaly_settings::{Assignments, Names, SettingError, Settings, SettingsTable, word_or_value};
use nomaly_store::Progress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pooled::{PooledFeatures, held_out, pooled_taps, tap_names};
use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::groups::{MAX_FOLDS, Split};
use crate::input::InputParams;
use crate::method::{
    Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodParams, Published, Sees, Updates,
};
use crate::score::MethodScore;
use crate::stage::Stage;
use crate::workspace::MethodWorkspace;

const NAME: &str = "mvg";
/// The fewest images: a held-out fit then has the two that a covariance needs, and one to spare.
const MIN_IMAGES: usize = 4;
/// The fewest images of a held-out fit; groups that leave fewer are split.
const LEAST_OTHERS: usize = 3;

/// The registry's entry.
pub(crate) const ENTRY: MethodEntry = MethodEntry {
    name: NAME,
    summary: "sum over levels of the Mahalanobis distance of pooled features",
    paper: "Rippel, Mertens, Merhof: Modeling the Distribution of Normal Data in Pre-Trained Deep Features for Anomaly Detection (2020)",
    maps: false,
    min_images: MIN_IMAGES,
    cost: Cost {
        fit: "one pass over the images, then a factorisation a level",
        predict: "one pass and a matrix product a level",
        memory: "one vector an image and level, and channels² a level",
    },
    table: SettingsTable::of::<MvgParams>,
    more: None,
    sees: Sees::Taps,
    input: InputParams::default,
    classes: false,
    trains: false,
    published: &[
        Published::image("MVTec AD, EfficientNet-B4, Mahalanobis", 94.8),
        Published::image("MVTec AD, EfficientNet-B4, NPCA 1 %", 95.8),
        Published::image("MVTec AD, EfficientNet-B4, SED", 78.9),
        Published::image("MVTec AD, EfficientNet-B4, L2", 72.5),
    ],
    one_vs_all: &[],
    build: |given, backbone| Ok(Box::new(given.read::<MvgParams>()?.on(backbone)?)),
};

/// The distance from a level's Gaussian.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LevelDistance {
    /// In the whole space, with this covariance.
    Full(Covariance),
    /// In a subspace of principal components.
    Reduced(PcaOptions),
}

/// Parameters of MVG.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MvgParams {
    /// Levels whose distances are summed.
    pub levels: Levels,
    /// Full covariance, its diagonal (standardized Euclidean), or none.
    pub distance: MvgDistance,
    /// Estimate of the full covariance.
    pub covariance: PcaEstimator,
    /// Keep all directions, the principal components of most variance, or those of least.
    pub reduction: Reduction,
    /// Share of the variance that `pca` keeps and `npca` takes away.
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub variance: f64,
}

word_or_value! {
    /// Levels of the backbone.
    #[derive(Clone, Debug, PartialEq)]
    pub enum Levels {
        /// All but classifiers.
        All = "all",
        ;
        /// These.
        Named(Names) { "x-values": "names of the backbone's levels joined by commas" },
    }
}

/// The distance from a Gaussian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MvgDistance {
    /// Mahalanobis, with the full covariance.
    Mahalanobis,
    /// Standardized Euclidean, with the diagonal of the covariance.
    Sed,
    /// Euclidean distance from the mean.
    L2,
}

/// The kept directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// All.
    None,
    /// The principal components of most variance.
    Pca,
    /// The principal components of least variance.
    Npca,
}

impl Default for MvgParams {
    fn default() -> Self {
        Self {
            levels: Levels::All,
            distance: MvgDistance::Mahalanobis,
            covariance: PcaEstimator::LedoitWolf,
            reduction: Reduction::None,
            variance: 0.99,
        }
    }
}

impl MethodParams for MvgParams {
    const METHOD: &'static str = NAME;
}

impl Settings for MvgParams {
    fn check(&self) -> Result<(), SettingError> {
        match self.distance {
            MvgDistance::Sed | MvgDistance::L2 if self.reduction != Reduction::None => {
                let given = if self.distance == MvgDistance::Sed { "sed" } else { "l2" };
                Err(SettingError::value("distance", given, "`mahalanobis` where `reduction` is `pca` or `npca`"))
            }
            _ => Ok(()),
        }
    }
}

impl MvgParams {
    fn distance(&self) -> LevelDistance {
        let Self { covariance, variance, .. } = *self;
        let reduced = |keep| LevelDistance::Reduced(PcaOptions { keep, variance, covariance });
        match (self.reduction, self.distance, covariance) {
            (Reduction::Pca, ..) => reduced(Keep::Leading),
            (Reduction::Npca, ..) => reduced(Keep::Trailing),
            (Reduction::None, MvgDistance::Mahalanobis, PcaEstimator::LedoitWolf) => {
                LevelDistance::Full(Covariance::LedoitWolf)
            }
            (Reduction::None, MvgDistance::Mahalanobis, PcaEstimator::Empirical) => {
                LevelDistance::Full(Covariance::Empirical)
            }
            (Reduction::None, MvgDistance::Sed, _) => LevelDistance::Full(Covariance::Diagonal),
            (Reduction::None, MvgDistance::L2, _) => LevelDistance::Full(Covariance::Identity),
        }
    }

    /// Checks the levels against the backbone.
    fn on(self, backbone: &Backbone) -> Result<Mvg, MethodError> {
        let names = match &self.levels {
            Levels::Named(Names(names)) => names.clone(),
            Levels::All => backbone.taps().into_iter().filter(|tap| !tap.is_classifier()).map(|tap| tap.name).collect(),
        };
        let taps = pooled_taps("levels", names, backbone)?;
        Ok(Mvg { distance: self.distance(), params: Self { levels: Levels::Named(tap_names(&taps)), ..self }, taps })
    }
}

/// MVG with checked parameters.
#[derive(Clone, Debug)]
pub struct Mvg {
    params: MvgParams,
    distance: LevelDistance,
    taps: Vec<TapRequest>,
}

impl Mvg {
    /// Held-out scores of all views and the final scorer of one level.
    fn fit_level(
        &self,
        features: &PooledFeatures,
        level: usize,
        folds: &[Vec<usize>],
        progress: &dyn Progress,
    ) -> Result<(Vec<f64>, Box<dyn Scorer>), MethodError> {
        let stop = || if progress.cancelled() { Err(MethodError::Cancelled) } else { Ok(()) };
        match self.distance {
            LevelDistance::Full(covariance) => {
                // The statistics of each fold are computed once; the fit without a fold merges all others.
                let parts = folds
                    .iter()
                    .map(|fold| GaussianStatistics::from_rows(features.select(level, fold).view()))
                    .collect::<Result<Vec<_>, _>>()?;
                let mut held_out = vec![Vec::new(); features.images()];
                for (fold, images) in folds.iter().enumerate() {
                    stop()?;
                    let others = parts.iter().enumerate().filter(|(part, _)| *part != fold).map(|(_, part)| part);
                    let gaussian = Gaussian::from_statistics(&GaussianStatistics::merged(others)?, covariance)?;
                    let scores = gaussian.score(features.select(level, images).view())?;
                    for (image, views) in images.iter().zip(scores.chunks(scores.len() / images.len())) {
                        held_out[*image] = views.to_vec();
                    }
                }
                let gaussian = Gaussian::from_statistics(&GaussianStatistics::merged(&parts)?, covariance)?;
                Ok((held_out.concat(), Box::new(gaussian)))
            }
            LevelDistance::Reduced(options) => {
                let mut held_out = vec![Vec::new(); features.images()];
                for test in folds {
                    stop()?;
                    let Split { train, test } = Split::holding_out(test.clone(), features.images());
                    let gaussian = PcaGaussian::fit(features.select(level, &train).view(), options)?;
                    let scores = gaussian.score(features.select(level, &test).view())?;
                    for (image, views) in test.iter().zip(scores.chunks(scores.len() / test.len())) {
                        held_out[*image] = views.to_vec();
                    }
                }
                Ok((held_out.concat(), Box::new(PcaGaussian::fit(features.levels[level].view(), options)?)))
            }
        }
    }
}

impl Mvg {
    /// The scorer of a level, fitted on the rows of all training images.
    fn scorer(&self, rows: ArrayView2<'_, f32>) -> Result<Box<dyn Scorer>, MethodError> {
        Ok(match self.distance {
            LevelDistance::Full(covariance) => Box::new(Gaussian::fit(rows, covariance)?),
            LevelDistance::Reduced(options) => Box::new(PcaGaussian::fit(rows, options)?),
        })
    }

    fn read(&self, mut states: Vec<(String, State)>) -> Result<FittedMvg, MethodError> {
        let level = |tap: &TapRequest| {
            let (name, state) = states
                .iter()
                .find(|(name, _)| *name == tap.name)
                .ok_or_else(|| MethodError::State { state: tap.name.clone(), reason: None })?;
            Ok((name.clone(), restore(state)?))
        };
        let levels = self.taps.iter().map(level).collect::<Result<Vec<_>, MethodError>>()?;
        let kept = PooledFeatures::take(&mut states, self.taps.len())?;
        let widths = levels.iter().map(|(_, scorer)| scorer.dim());
        if kept.as_ref().is_some_and(|kept| !widths.eq(kept.levels.iter().map(Array2::ncols))) {
            let reason = Some("the rows that are kept are not as wide as its levels".to_owned());
            return Err(MethodError::State { state: NAME.to_owned(), reason });
        }
        Ok(FittedMvg { levels, kept })
    }
}

impl Method for Mvg {
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
        features.require(MIN_IMAGES, NAME)?;
        let folds = source.groups()?.leaving(LEAST_OTHERS).folds(MAX_FOLDS, seed);
        let mut scores = vec![0.0; features.levels.first().map_or(0, Array2::nrows)];
        let mut levels = Vec::with_capacity(self.taps.len());
        progress.start("fitting levels", Some(self.taps.len() as u64));
        for (level, tap) in self.taps.iter().enumerate() {
            let (of_level, scorer) = self.fit_level(&features, level, &folds, progress)?;
            scores.iter_mut().zip(of_level).for_each(|(sum, score)| *sum += score);
            levels.push((tap.name.clone(), scorer));
            progress.advance(1);
        }
        progress.finish();
        let held_out = held_out(source, 0..features.images(), &scores)?;
        let images = features.images();
        let fitted = Box::new(FittedMvg { levels, kept: context.updatable.then_some(features) });
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
        let FittedMvg { levels: before, kept } = self.read(states)?;
        let kept = kept.ok_or_else(|| MethodError::NotUpdatable { method: NAME.to_owned() })?;
        let more = PooledFeatures::collect(source, context.progress)?;
        more.require(1, NAME)?;
        let mut scores = vec![0.0; more.levels.first().map_or(0, Array2::nrows)];
        for ((_, scorer), rows) in before.iter().zip(&more.levels) {
            scores.iter_mut().zip(scorer.score(rows.view())?).for_each(|(sum, score)| *sum += score);
        }
        let held_out = held_out(source, 0..more.images(), &scores)?;
        let all = kept.followed_by(&more)?;
        let stage = Stage::start(context.progress, "fitting levels", Some(self.taps.len()));
        let mut levels = Vec::with_capacity(self.taps.len());
        for (tap, rows) in self.taps.iter().zip(&all.levels) {
            levels.push((tap.name.clone(), self.scorer(rows.view())?));
            stage.advance(1);
        }
        Ok(MethodFit::new(Box::new(FittedMvg { levels, kept: Some(all) }), held_out, more.images()))
    }

    fn restore(&self, states: Vec<(String, State)>, _: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        Ok(Box::new(self.read(states)?))
    }
}

/// Fitted MVG: one Gaussian per level.
#[derive(Debug)]
pub struct FittedMvg {
    levels: Vec<(String, Box<dyn Scorer>)>,
    /// The rows of the training images, if the model is updatable.
    kept: Option<PooledFeatures>,
}

impl FittedMethod for FittedMvg {
    fn score(&self, batch: &FeatureBatch<'_>, _: &mut MethodWorkspace) -> Result<Vec<MethodScore>, MethodError> {
        let mut scores = vec![MethodScore::whole(0.0); batch.images * batch.views];
        for (level, (_, scorer)) in self.levels.iter().enumerate() {
            let distances = scorer.score(batch.rows(level, scorer.dim())?)?;
            for (image, distance) in scores.iter_mut().zip(distances) {
                image.score += distance;
                image.parts.push(distance);
            }
        }
        Ok(scores)
    }

    fn states(&self) -> Vec<(String, State)> {
        let levels = self.levels.iter().map(|(name, scorer)| (name.clone(), scorer.state()));
        levels.chain(self.kept.as_ref().map(PooledFeatures::state)).collect()
    }

    fn part_names(&self) -> Vec<String> {
        self.levels.iter().map(|(name, _)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(pairs: &[&str]) -> Result<LevelDistance, SettingError> {
        Ok(Assignments::parse(pairs).unwrap().read::<MvgParams>()?.distance())
    }

    #[test]
    fn settings_choose_the_distance() {
        let reduced = |keep, variance| {
            LevelDistance::Reduced(PcaOptions { keep, variance, covariance: PcaEstimator::LedoitWolf })
        };
        for (pairs, expected) in [
            (&[][..], LevelDistance::Full(Covariance::LedoitWolf)),
            (&["covariance=empirical"], LevelDistance::Full(Covariance::Empirical)),
            (&["distance=sed"], LevelDistance::Full(Covariance::Diagonal)),
            (&["distance=l2"], LevelDistance::Full(Covariance::Identity)),
            (&["reduction=pca", "variance=0.95"], reduced(Keep::Leading, 0.95)),
            (&["reduction=npca"], reduced(Keep::Trailing, 0.99)),
        ] {
            assert_eq!(distance(pairs).unwrap(), expected, "{pairs:?}");
        }
    }

    #[test]
    fn settings_that_contradict_are_refused() {
        for pairs in [
            (&["distance=cosine"][..], "distance"),
            (&["reduction=npca", "variance=1"], "variance"),
            (&["reduction=pca", "distance=l2"], "distance"),
            (&["covariance=oas"], "covariance"),
            (&["variance=abc"], "variance"),
        ] {
            let (pairs, name) = pairs;
            assert!(matches!(distance(pairs), Err(SettingError::Value { name: at, .. }) if at == name), "{pairs:?}");
        }
    }
}
