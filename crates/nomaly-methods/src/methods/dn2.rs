//! Deep nearest neighbors.
//!
//! # What it computes
//! The deepest features of the backbone, averaged over all positions, are one vector per image. The score of an image
//! is the mean of its squared L2 distances to the `k` nearest training vectors.
//!
//! # When to use
//! When normal items come in several kinds, which one Gaussian does not fit. It detects anomalous images but does not
//! locate defects.
//!
//! # Parameters
//! `level`, `k`, `distance`, `aggregation`; see [`Dn2Params`].
//!
//! # Reference
//! Reiss, Cohen, Bergman and Hoshen, *PANDA: Adapting Pretrained Features for Anomaly Detection and Segmentation*,
//! 2021, sections 3 and 4; the method is DN2 of Bergman, Cohen and Hoshen, *Deep Nearest Neighbor Anomaly Detection*,
//! 2020. The paper's backbone is ResNet-152 on a center crop of 224² (`view=center`), its score the mean of `k` = 2
//! distances.

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_nn::runtime::Executor;
use nomaly_scorers::neighbours::{Aggregation, Distance, NearestNeighbours, NeighboursOptions};
use nomaly_scorers::{Scorer, ScorerParams, State};
use nomaly_settings::{Assignments, Settings, SettingsTable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pooled::{Level, PooledFeatures, held_out, pooled_tap};
use crate::MethodError;
use crate::features::{FeatureBatch, FeatureSource};
use crate::groups::{MAX_FOLDS, cross_validated_scores};
use crate::input::InputParams;
use crate::method::{
    Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, MethodParams, Published, Sees, Updates,
};
use crate::score::MethodScore;
use crate::state::only_named;
use crate::workspace::MethodWorkspace;

const NAME: &str = "dn2";
/// The fewest images: a held-out fit then has two neighbors and one to spare.
const MIN_IMAGES: usize = 4;

/// The fewest images left to compare with when a group is held out; groups that leave fewer are split.
const LEAST_OTHERS: usize = 2;

/// The registry's entry.
pub(crate) const ENTRY: MethodEntry = MethodEntry {
    name: NAME,
    summary: "mean distance of pooled features to the nearest training images",
    paper: "Reiss, Cohen, Bergman, Hoshen: PANDA: Adapting Pretrained Features for Anomaly Detection and Segmentation (2021)",
    maps: false,
    min_images: MIN_IMAGES,
    cost: Cost {
        fit: "one pass over the images",
        predict: "one pass, and one distance to every training image",
        memory: "one vector a training image",
    },
    table: SettingsTable::of::<Dn2Params>,
    more: None,
    sees: Sees::Taps,
    input: InputParams::default,
    classes: false,
    trains: false,
    published: &[
        Published::image("CIFAR-10, ResNet-152", 92.5),
        Published::image("CIFAR-100, ResNet-152", 94.1),
        Published::image("Fashion-MNIST, ResNet-152", 94.5),
        Published::image("Cats vs. dogs, ResNet-152", 96.0),
        Published::image("MVTec AD, ResNet-152", 86.5),
    ],
    one_vs_all: &[],
    build: |given, backbone| Ok(Box::new(given.read::<Dn2Params>()?.on(backbone)?)),
};

/// Parameters of DN2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Dn2Params {
    /// Level whose pooled features are compared.
    pub level: Level,
    /// How many neighbours, how far apart, and what is made of the distances.
    #[serde(flatten)]
    pub neighbors: NeighboursOptions,
}

impl Default for Dn2Params {
    fn default() -> Self {
        let neighbors = NeighboursOptions { k: 2, distance: Distance::SquaredL2, aggregation: Aggregation::Mean };
        Self { level: Level::Deepest, neighbors }
    }
}

impl MethodParams for Dn2Params {
    const METHOD: &'static str = NAME;
}

impl Settings for Dn2Params {}

impl Dn2Params {
    /// Checks the level against the backbone.
    fn on(self, backbone: &Backbone) -> Result<Dn2, MethodError> {
        let tap = pooled_tap(&self.level, backbone)?;
        Ok(Dn2 { params: Self { level: Level::Named(tap.name.clone()), ..self }, taps: [tap] })
    }
}

/// DN2 with checked parameters.
#[derive(Clone, Debug)]
pub struct Dn2 {
    params: Dn2Params,
    taps: [TapRequest; 1],
}

impl Method for Dn2 {
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
        let (k, images) = (self.params.neighbors.k, features.images());
        if enough_images(k) > images {
            let most = (1..images).rev().find(|&fewer| enough_images(fewer) <= images).unwrap_or(1);
            let allowed = format!("at most {most} with {images} training images");
            return Err(MethodError::setting("k", &k.to_string(), &allowed));
        }
        let groups = source.groups()?;
        progress.start("comparing held-out images", Some(features.images() as u64));
        let scores =
            cross_validated_scores(&groups.leaving(self.params.neighbors.k.max(LEAST_OTHERS)), seed, |train, test| {
                if progress.cancelled() {
                    return Err(MethodError::Cancelled);
                }
                let bank = NearestNeighbours::fit(features.select(0, train).view(), self.params.neighbors)?;
                let scores = bank.score(features.select(0, test).view())?;
                progress.advance(test.len() as u64);
                Ok(scores)
            });
        progress.finish();
        let bank = NearestNeighbours::fit(features.levels[0].view(), self.params.neighbors)?;
        let held_out = held_out(source, 0..features.images(), &scores?)?;
        let fitted = Box::new(FittedDn2 { bank });
        Ok(MethodFit::new(fitted, held_out, features.images()))
    }

    fn updates(&self) -> Updates {
        Updates::Always
    }

    fn extend(
        &self,
        mut states: Vec<(String, State)>,
        source: &dyn FeatureSource,
        context: &FitContext<'_>,
    ) -> Result<MethodFit, MethodError> {
        let mut bank = read(&mut states)?;
        let features = PooledFeatures::collect(source, context.progress)?;
        features.require(1, NAME)?;
        let rows = features.levels[0].view();
        let held_out = held_out(source, 0..features.images(), &bank.score(rows)?)?;
        bank.push_rows(rows)?;
        Ok(MethodFit::new(Box::new(FittedDn2 { bank }), held_out, features.images()))
    }

    fn restore(&self, mut states: Vec<(String, State)>, _: &Executor) -> Result<Box<dyn FittedMethod>, MethodError> {
        let bank = read(&mut states)?;
        Ok(Box::new(FittedDn2 { bank }))
    }
}

/// The fewest images with which every held-out one has `k` others.
fn enough_images(k: usize) -> usize {
    let held_out = k.div_ceil(MAX_FOLDS - 1).max(1);
    k.saturating_add(held_out).max(MIN_IMAGES)
}

const STATE: &str = "bank";

/// Restores the features of the training images.
fn read(states: &mut Vec<(String, State)>) -> Result<NearestNeighbours, MethodError> {
    let state = only_named(STATE, states)?;
    if state.kind != NeighboursOptions::NAME {
        return Err(MethodError::State { state: STATE.to_owned(), reason: Some(format!("it is of `{}`", state.kind)) });
    }
    Ok(NearestNeighbours::from_state(&state)?)
}

/// Fitted DN2: the features of the training images.
#[derive(Debug)]
pub struct FittedDn2 {
    bank: NearestNeighbours,
}

impl FittedMethod for FittedDn2 {
    fn score(&self, batch: &FeatureBatch<'_>, _: &mut MethodWorkspace) -> Result<Vec<MethodScore>, MethodError> {
        let scores = self.bank.score(batch.rows(0, self.bank.dim())?)?;
        Ok(scores.into_iter().map(MethodScore::whole).collect())
    }

    fn states(&self) -> Vec<(String, State)> {
        vec![(STATE.to_owned(), self.bank.state())]
    }
}

#[cfg(test)]
mod tests {
    use nomaly_settings::SettingError;

    use super::*;
    use crate::groups::folds;

    #[test]
    fn every_held_out_image_meets_k_others() {
        let smallest_bank = |n: usize| n - folds(n, 0).iter().map(Vec::len).max().unwrap_or(0);
        for k in 1..60 {
            let enough = enough_images(k);
            assert!(smallest_bank(enough) >= k, "k = {k}");
            assert!(enough == MIN_IMAGES || smallest_bank(enough - 1) < k, "k = {k}: {enough} is more than enough");
        }
    }

    #[test]
    fn settings_are_read_and_refused() {
        let read = |pairs: &[&str]| Assignments::parse(pairs).unwrap().read::<Dn2Params>();
        assert_eq!(read(&[]).unwrap(), Dn2Params::default());
        let read_back = read(&["k=5", "distance=cosine", "aggregation=kth"]).unwrap().neighbors;
        assert_eq!((read_back.k, read_back.distance, read_back.aggregation), (5, Distance::Cosine, Aggregation::Kth));
        for pair in ["k=0", "k=-1", "distance=l1", "aggregation=max"] {
            let name = pair.split('=').next().unwrap();
            assert!(matches!(read(&[pair]), Err(SettingError::Value { name: at, .. }) if at == name), "{pair}");
        }
    }
}
