//! Deep nearest neighbours.
//!
//! # What it computes
//! The deepest features of the backbone, averaged over all positions, are one vector an image. The score of an image is
//! the mean of its squared L2 distances to the `k` nearest training vectors.
//!
//! # When to use
//! When normal items come in several kinds, which one Gaussian cannot hold together. It says which image is anomalous,
//! not where.
//!
//! # Parameters
//! `level`, `k`, `distance`, `aggregation`; see [`Dn2Params`].
//!
//! # Reference
//! Reiss, Cohen, Bergman and Hoshen, *PANDA: Adapting Pretrained Features for Anomaly Detection and Segmentation*, 2021,
//! sections 3 and 4; the method is DN2 of Bergman, Cohen and Hoshen, *Deep Nearest Neighbor Anomaly Detection*, 2020. The
//! paper's backbone is ResNet-152 on a centre crop of 224² (`view=center`), its score the mean of `k` = 2 distances.

use nomaly_backbones::{Backbone, TapRequest};
use nomaly_scorers::neighbours::{Aggregation, Distance, NearestNeighbours, NeighboursOptions};
use nomaly_scorers::{Parameter, Scorer, State, restore};

use super::pooled::{PooledFeatures, held_out, pooled_tap};
use crate::features::{FeatureBatch, FeatureSource};
use crate::groups::{MAX_FOLDS, cross_validated_scores};
use crate::method::{Cost, FitContext, FittedMethod, Method, MethodEntry, MethodFit, Published};
use crate::score::MethodScore;
use crate::{MethodError, Settings};

const NAME: &str = "dn2";
/// The fewest images from which a held-out fit still has two neighbours to offer, and one to spare.
const MIN_IMAGES: usize = 4;

/// The fewest images that are left to compare with where a group is held out; smaller rests take the group apart.
const LEAST_OTHERS: usize = 2;

const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "level",
        default: "deepest",
        values: "`deepest`, or the name of one of the backbone's levels",
        summary: "level whose pooled features are compared",
    },
    Parameter { name: "k", default: "2", values: "a whole number from 1", summary: "how many neighbours count" },
    Parameter {
        name: "distance",
        default: "squared-l2",
        values: "`squared-l2`, `l2` or `cosine`",
        summary: "how far apart two vectors are",
    },
    Parameter {
        name: "aggregation",
        default: "mean",
        values: "`mean`, `sum` or `kth`",
        summary: "what the distances to the neighbours are made into",
    },
];

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
    parameters: PARAMETERS,
    more_parameters: None,
    backbone: None,
    defaults: &[],
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
    build: |settings, backbone| Ok(Box::new(Dn2Params::from_settings(settings)?.check(settings, backbone)?)),
};

/// Parameters of DN2 before they are checked against a backbone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dn2Params {
    /// How many neighbours, how far apart, and what is made of the distances.
    pub neighbours: NeighboursOptions,
}

impl Default for Dn2Params {
    fn default() -> Self {
        Self { neighbours: NeighboursOptions { k: 2, distance: Distance::SquaredL2, aggregation: Aggregation::Mean } }
    }
}

impl Dn2Params {
    fn from_settings(settings: &Settings) -> Result<Self, MethodError> {
        let default = Self::default().neighbours;
        let at_least_one = "a whole number from 1";
        let neighbours = NeighboursOptions {
            k: settings.value("k", default.k, at_least_one)?,
            distance: settings.value("distance", default.distance, "`squared-l2`, `l2` or `cosine`")?,
            aggregation: settings.value("aggregation", default.aggregation, "`mean`, `sum` or `kth`")?,
        };
        if neighbours.k == 0 {
            return Err(MethodError::setting("k", "0", at_least_one));
        }
        Ok(Self { neighbours })
    }

    /// Checks the level that `settings` name against the backbone.
    fn check(self, settings: &Settings, backbone: &Backbone) -> Result<Dn2, MethodError> {
        Ok(Dn2 { neighbours: self.neighbours, taps: [pooled_tap(settings, backbone)?] })
    }
}

/// DN2 with checked parameters.
#[derive(Clone, Debug)]
pub struct Dn2 {
    neighbours: NeighboursOptions,
    taps: [TapRequest; 1],
}

impl Method for Dn2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn taps(&self) -> &[TapRequest] {
        &self.taps
    }

    fn settings(&self) -> Settings {
        Settings::default()
            .with("level", &self.taps[0].name)
            .with("k", self.neighbours.k)
            .with("distance", self.neighbours.distance)
            .with("aggregation", self.neighbours.aggregation)
    }

    fn fit(&self, source: &dyn FeatureSource, context: &FitContext<'_>) -> Result<MethodFit, MethodError> {
        let FitContext { seed, progress, .. } = *context;
        let features = PooledFeatures::collect(source, progress)?;
        features.need(enough_images(self.neighbours.k), NAME)?;
        let groups = source.groups()?;
        progress.start("comparing held-out images", Some(features.images() as u64));
        let scores =
            cross_validated_scores(&groups.leaving(self.neighbours.k.max(LEAST_OTHERS)), seed, |train, test| {
                if progress.cancelled() {
                    return Err(MethodError::Cancelled);
                }
                let bank = NearestNeighbours::fit(features.select(0, train).view(), self.neighbours)?;
                let scores = bank.score(features.select(0, test).view())?;
                progress.advance(test.len() as u64);
                Ok(scores)
            });
        progress.finish();
        let bank = NearestNeighbours::fit(features.levels[0].view(), self.neighbours)?;
        let held_out = held_out(source, 0..features.images(), &scores?)?;
        let fitted = Box::new(FittedDn2 { bank: Box::new(bank) });
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
            [(name, state)] if name == STATE => Ok(Box::new(FittedDn2 { bank: restore(state)? })),
            _ => Err(MethodError::State { state: STATE.to_owned(), reason: None }),
        }
    }
}

/// The fewest images of which every held-out one still meets `k` others.
fn enough_images(k: usize) -> usize {
    let held_out = k.div_ceil(MAX_FOLDS - 1).max(1);
    k.saturating_add(held_out).max(MIN_IMAGES)
}

const STATE: &str = "bank";

/// DN2 that has seen data: the features of the training images.
#[derive(Debug)]
pub struct FittedDn2 {
    bank: Box<dyn Scorer>,
}

impl FittedMethod for FittedDn2 {
    fn score(&self, batch: &FeatureBatch<'_>) -> Result<Vec<MethodScore>, MethodError> {
        let scores = self.bank.score(batch.rows(0, self.bank.dim())?)?;
        Ok(scores.into_iter().map(MethodScore::whole).collect())
    }

    fn states(&self) -> Vec<(String, State)> {
        vec![(STATE.to_owned(), self.bank.state())]
    }
}

#[cfg(test)]
mod tests {
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
        let read = |pairs: &[&str]| Dn2Params::from_settings(&Settings::parse(pairs).unwrap());
        assert_eq!(read(&[]).unwrap(), Dn2Params::default());
        let read_back = read(&["k=5", "distance=cosine", "aggregation=kth"]).unwrap().neighbours;
        assert_eq!((read_back.k, read_back.distance, read_back.aggregation), (5, Distance::Cosine, Aggregation::Kth));
        for pairs in [&["k=0"], &["k=-1"], &["distance=l1"], &["aggregation=max"]] {
            assert!(read(pairs).is_err(), "{pairs:?}");
        }
    }
}
