//! Fusion of the scores and maps of an image at several sizes.
//!
//! # What it computes
//! At each size, the held-out training images give a mean and a standard deviation of the largest values of their maps,
//! or of their scores for methods without maps. Maps are standardized by these and summed, and the largest value of the
//! sum is the score; without maps the standardized scores are summed. Nothing is clamped: a size without a finding
//! contributes values below its mean. A held-out image is standardized by the images of other groups, as a new image is
//! by all of them.
//!
//! # When to use
//! When defects vary in size: small defects are lost at a small size, large ones at a large size. A finding at one size
//! stands out, and the other sizes add little noise.
//!
//! # Maps
//! All maps have the smallest size, so that they align, and the same blur.

use std::collections::BTreeMap;

use nomaly_methods::recognition::HeldOutClass;
use nomaly_methods::training::Checkpoint;
use nomaly_methods::{
    AnomalyMap, FeatureBatch, FittedMethod, Groups, HeldOut, MOST_SIZES, MethodError, MethodFit, MethodScore,
    MethodWorkspace,
};
use nomaly_transforms::Pipeline;
use serde::{Deserialize, Serialize};

use crate::images::{FeatureExtractor, size_name};

/// The fewest groups for a reliable estimate of the standardization.
pub const FEW_GROUPS: usize = 8;
/// The fewest groups for leave-one-out estimates of the standardization.
const FEWEST_GROUPS: usize = 3;
/// The most bytes of the maps of held-out images at all sizes together: 512 images at two sizes of 256².
const MAP_BYTES: usize = 256 << 20;
/// The least deviation as a share of the mean.
const LEAST_DEVIATION: f64 = 1e-5;
/// The fewest kept maps, however large.
const LEAST_MAPS: usize = 32;

/// An input size, with the standardization of its scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusedSize {
    /// The preprocessing.
    pub pipeline: Pipeline,
    /// The mean of the largest values of the held-out maps, or of the held-out scores for methods without maps.
    pub mean: f64,
    /// Their standard deviation, above 0; 1 if all are equal.
    pub deviation: f64,
}

/// The fusion of several sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fusion {
    /// The sizes, ascending; at least two.
    pub sizes: Vec<FusedSize>,
}

impl Fusion {
    /// Fits the standardization to the held-out images of each size.
    ///
    /// # Errors
    /// A size without held-out images.
    pub(crate) fn of(pipelines: &[Pipeline], held_out: &[Vec<HeldOut>]) -> Result<Self, MethodError> {
        Self::without(pipelines, &held_out.iter().map(|size| largest(size)).collect::<Vec<_>>(), &[])
    }

    /// Fits the standardization to the held-out images except those to leave out.
    fn without(pipelines: &[Pipeline], sizes: &[Vec<Largest>], images: &[usize]) -> Result<Self, MethodError> {
        let size = |(pipeline, size): (&Pipeline, &Vec<Largest>)| {
            let rest = size.iter().filter(|(image, _)| !images.contains(image));
            let values: Vec<f64> = rest.map(|(_, value)| *value).collect();
            let count = values.len() as f64;
            let mean = values.iter().sum::<f64>() / count;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
            // The deviation of equal values is only rounding.
            let least = LEAST_DEVIATION * mean.abs();
            let deviation = if variance > least * least { variance.sqrt() } else { 1.0 };
            if !(mean.is_finite() && deviation.is_finite()) {
                return Err(refused(format!("{} held-out images have no finite mean and deviation", values.len())));
            }
            Ok(FusedSize { pipeline: *pipeline, mean, deviation })
        };
        Ok(Self { sizes: pipelines.iter().zip(sizes).map(size).collect::<Result<_, _>>()? })
    }

    /// Rejects values that no fit writes.
    pub(crate) fn check(&self) -> Result<(), MethodError> {
        if !(2..=MOST_SIZES).contains(&self.sizes.len()) {
            return Err(refused(format!("{} sizes; there are from 2 to {MOST_SIZES}", self.sizes.len())));
        }
        let sound = |size: &FusedSize| size.mean.is_finite() && size.deviation.is_finite() && size.deviation > 0.0;
        match self.sizes.iter().find(|size| !sound(size)) {
            Some(size) => Err(refused(format!("a mean of {} and a deviation of {}", size.mean, size.deviation))),
            None => Ok(()),
        }
    }

    /// The names of the parts of a fused score: the sizes.
    pub(crate) fn part_names(&self) -> Vec<String> {
        self.sizes.iter().map(|size| size_name(&size.pipeline)).collect()
    }

    /// Fuses the scores of one image at all sizes.
    ///
    /// The parts are the standardized scores, or largest values of the maps, of the sizes.
    ///
    /// # Errors
    /// Maps of different sizes.
    pub(crate) fn join(&self, sizes: Vec<MethodScore>) -> Result<MethodScore, MethodError> {
        let largest = |score: &MethodScore| score.map.as_ref().map_or(score.score, AnomalyMap::max);
        let parts: Vec<f64> =
            self.sizes.iter().zip(&sizes).map(|(size, score)| (largest(score) - size.mean) / size.deviation).collect();
        let maps: Option<Vec<AnomalyMap>> = sizes.into_iter().map(|score| score.map).collect();
        let mut joined = match maps {
            Some(maps) => {
                let map = self.join_maps(&maps)?;
                MethodScore::located(map.max(), map)
            }
            None => MethodScore::whole(parts.iter().sum()),
        };
        joined.parts = parts;
        Ok(joined)
    }

    fn join_maps(&self, maps: &[AnomalyMap]) -> Result<AnomalyMap, MethodError> {
        let Some(first) = maps.first() else { return Err(refused("no maps".to_owned())) };
        let (height, width) = (first.height, first.width);
        if let Some(other) = maps.iter().find(|map| (map.height, map.width) != (height, width)) {
            let sizes = format!("{height} x {width} and {} x {}", other.height, other.width);
            return Err(refused(format!("maps of {sizes} do not lie over each other")));
        }
        let mut sums = vec![0.0f64; height * width];
        for (size, map) in self.sizes.iter().zip(maps) {
            for (sum, value) in sums.iter_mut().zip(&map.values) {
                *sum += (f64::from(*value) - size.mean) / size.deviation;
            }
        }
        Ok(AnomalyMap { height, width, values: sums.into_iter().map(|sum| sum as f32).collect() })
    }

    /// Fuses the held-out scores of each image, standardized by the images of other groups, as a new image is by all of
    /// them.
    ///
    /// With fewer than three groups, each image counts as a group of its own.
    fn held_out(
        pipelines: &[Pipeline],
        sizes: Vec<Vec<HeldOut>>,
        groups: &Groups,
    ) -> Result<Vec<HeldOut>, MethodError> {
        let values: Vec<Vec<Largest>> = sizes.iter().map(|size| largest(size)).collect();
        // All images of a group share a standardization.
        let mut known: BTreeMap<usize, Self> = BTreeMap::new();
        combined(sizes, |image| {
            let mut group = if groups.count() < FEWEST_GROUPS { vec![image] } else { groups.group_of(image).to_vec() };
            let first = group[0];
            if let Some(fusion) = known.get(&first) {
                return Ok(fusion.clone());
            }
            if values.iter().any(|size| size.iter().all(|(image, _)| group.contains(image))) {
                // There is no other held-out image.
                group.clear();
            }
            let fusion = Self::without(pipelines, &values, &group)?;
            known.insert(first, fusion.clone());
            Ok(fusion)
        })
    }
}

/// An image's number, and the largest value of its map, or its score without maps.
type Largest = (usize, f64);

fn largest(held_out: &[HeldOut]) -> Vec<Largest> {
    held_out.iter().map(|one| (one.image, one.map_max.unwrap_or(one.score))).collect()
}

/// Fuses the scores of images, each with its own fusion. Takes the images that every size has, with a map if there are
/// maps, ascending.
fn combined(
    sizes: Vec<Vec<HeldOut>>,
    mut fusion_of: impl FnMut(usize) -> Result<Fusion, MethodError>,
) -> Result<Vec<HeldOut>, MethodError> {
    let count = sizes.len();
    let complete = |one: &HeldOut| one.map_max.is_none() || one.map.is_some();
    let mut images: BTreeMap<usize, Vec<MethodScore>> = BTreeMap::new();
    for one in sizes.into_iter().flatten().filter(complete) {
        images.entry(one.image).or_default().push(MethodScore { map: one.map, ..MethodScore::whole(one.score) });
    }
    images.retain(|_, of_sizes| of_sizes.len() == count);
    images.into_iter().map(|(image, scores)| Ok(HeldOut::new(image, &fusion_of(image)?.join(scores)?))).collect()
}

/// The fits of a method at all sizes.
pub(crate) struct FusedFit {
    /// The method fitted at each size.
    pub(crate) fitted: Vec<Box<dyn FittedMethod>>,
    /// The fusion; `None` for one size.
    pub(crate) fusion: Option<Fusion>,
    pub(crate) held_out: Vec<HeldOut>,
    pub(crate) classes: Vec<HeldOutClass>,
    pub(crate) images: usize,
    pub(crate) notes: Vec<String>,
    pub(crate) checkpoint: Option<Checkpoint>,
}

impl FusedFit {
    /// Fits at each size of `pipelines` in turn; an update passes the `fusion` of the earlier fit. `fit` takes the size
    /// and the bytes held by the previous fits; `groups` is called after the last one.
    ///
    /// # Errors
    /// Errors of `fit` and `groups`, and classes at several sizes.
    pub(crate) fn new(
        pipelines: &[Pipeline],
        fusion: Option<Fusion>,
        mut fit: impl FnMut(usize, u64) -> Result<MethodFit, MethodError>,
        groups: impl FnOnce() -> Result<Groups, MethodError>,
    ) -> Result<Self, MethodError> {
        let several = pipelines.len() > 1;
        let mut all = Self {
            fitted: Vec::new(),
            fusion,
            held_out: Vec::new(),
            classes: Vec::new(),
            images: 0,
            notes: Vec::new(),
            checkpoint: None,
        };
        let mut held_out = Vec::with_capacity(pipelines.len());
        let mut occupied = 0;
        for (size, pipeline) in pipelines.iter().enumerate() {
            let fit = fit(size, occupied)?;
            if several && !fit.classes.is_empty() {
                return Err(refused("a model of classes sees images at one size".to_owned()));
            }
            if several {
                occupied += held_bytes(&fit);
            }
            let at = if several { format!("at {}: ", size_name(pipeline)) } else { String::new() };
            all.notes.extend(fit.notes.into_iter().map(|note| at.clone() + &note));
            all.fitted.push(fit.fitted);
            held_out.push(fit.held_out);
            (all.classes, all.images, all.checkpoint) = (fit.classes, fit.images, fit.checkpoint);
        }
        if !several {
            all.held_out = held_out.into_iter().flatten().collect();
            return Ok(all);
        }
        match &all.fusion {
            Some(fusion) => all.held_out = combined(held_out, |_| Ok(fusion.clone()))?,
            None => {
                let groups = groups()?;
                if groups.count() < FEW_GROUPS {
                    let count = match groups.count() {
                        1 => "one group".to_owned(),
                        count => format!("{count} groups"),
                    };
                    all.notes.push(format!(
                        "how the sizes weigh against each other was learned from {count} of images: \
                         it takes {FEW_GROUPS} to know it well"
                    ));
                }
                all.fusion = Some(Fusion::of(pipelines, &held_out)?);
                all.held_out = Fusion::held_out(pipelines, held_out, &groups)?;
            }
        }
        if all.held_out.len() < all.images && all.held_out.len() >= most_maps(pipelines) {
            let (some, images) = (all.held_out.len(), all.images);
            all.notes
                .push(format!("{some} of {images} images calibrate the decision: maps of more take too much memory"));
        }
        Ok(all)
    }
}

/// Bytes of the fitted method and the kept maps.
fn held_bytes(fit: &MethodFit) -> u64 {
    let maps = fit.held_out.iter().filter_map(|one| one.map.as_ref()).map(|map| 4 * map.values.len() as u64);
    let states = fit.fitted.states();
    let tensors = states.iter().flat_map(|(_, state)| state.tensors.values());
    // Most values are f32.
    maps.sum::<u64>() + tensors.map(|tensor| 4 * tensor.shape.iter().product::<usize>() as u64).sum::<u64>()
}

/// The most held-out images whose maps are kept, with several sizes.
pub(crate) fn most_maps(pipelines: &[Pipeline]) -> usize {
    let map: usize = pipelines.first().map_or(1, |pipeline| pipeline.output_size().iter().product());
    (MAP_BYTES / (4 * pipelines.len() * map)).max(LEAST_MAPS)
}

/// A method fitted at one or more sizes.
#[derive(Clone, Copy)]
pub(crate) struct FusedMethod<'a> {
    /// One for each size.
    pub(crate) fitted: &'a [Box<dyn FittedMethod>],
    /// One for each size.
    pub(crate) extractors: &'a [FeatureExtractor],
    /// Present with several sizes.
    pub(crate) fusion: Option<&'a Fusion>,
}

impl FusedMethod<'_> {
    /// A workspace of the method at each size.
    pub(crate) fn workspaces(&self) -> Vec<MethodWorkspace> {
        self.fitted.iter().map(|_| MethodWorkspace::default()).collect()
    }

    /// Scores the images of a batch, given at each size.
    ///
    /// # Errors
    /// Errors of the method.
    pub(crate) fn score(
        &self,
        sizes: &[FeatureBatch<'_>],
        workspaces: &mut [MethodWorkspace],
    ) -> Result<Vec<MethodScore>, MethodError> {
        let mut of_sizes = Vec::with_capacity(sizes.len());
        for ((fitted, batch), workspace) in self.fitted.iter().zip(sizes).zip(workspaces) {
            of_sizes.push(fitted.score(batch, workspace)?.into_iter());
        }
        let images = sizes.first().map_or(0, |batch| batch.images);
        let image = |_| {
            let views = of_sizes.iter_mut().zip(sizes).map(|(views, batch)| views.by_ref().take(batch.views).collect());
            self.join(views.collect())
        };
        (0..images).map(image).collect()
    }

    /// Combines the scores of the views of one image at each size.
    ///
    /// # Errors
    /// Maps of another size than the views.
    pub(crate) fn join(&self, sizes: Vec<Vec<MethodScore>>) -> Result<MethodScore, MethodError> {
        let combined = self.extractors.iter().zip(sizes).map(|(extractor, views)| extractor.combine(views));
        let mut combined: Vec<MethodScore> = combined.collect::<Result<_, _>>()?;
        match (self.fusion, combined.pop()) {
            (None, Some(only)) => Ok(only),
            (Some(fusion), Some(last)) => {
                combined.push(last);
                fusion.join(combined)
            }
            (_, None) => Err(refused("nothing was said of an image".to_owned())),
        }
    }
}

fn refused(reason: String) -> MethodError {
    MethodError::State { state: "fusion".to_owned(), reason: Some(reason) }
}

#[cfg(test)]
mod tests {
    use nomaly_transforms::{Filter, Normalize, Resize, ResizeMode};

    use super::*;

    fn pipeline(side: u32) -> Pipeline {
        let resize = Resize { mode: ResizeMode::Exact { height: side, width: side }, filter: Filter::Bilinear };
        Pipeline::new(resize, None, Normalize { mean: [0.0; 3], std: [1.0; 3] }).unwrap()
    }

    fn located(values: [f32; 2]) -> MethodScore {
        let map = AnomalyMap { height: 1, width: 2, values: values.to_vec() };
        MethodScore::located(99.0, map)
    }

    fn held_out(image: usize, score: MethodScore) -> HeldOut {
        HeldOut { map: score.map.clone(), ..HeldOut::new(image, &score) }
    }

    #[test]
    fn standardized_maps_are_added_up_and_their_largest_value_is_the_score() {
        let sizes = vec![
            vec![held_out(0, located([1.0, 0.0])), held_out(1, located([3.0, 2.0]))],
            vec![held_out(0, located([20.0, 0.0])), held_out(1, located([0.0, 40.0]))],
        ];
        let fusion = Fusion::of(&[pipeline(32), pipeline(64)], &sizes).unwrap();
        let deviations = [2.0f64.sqrt(), 200.0f64.sqrt()];
        assert_eq!(
            fusion.sizes.iter().map(|size| (size.mean, size.deviation)).collect::<Vec<_>>(),
            [(2.0, deviations[0]), (30.0, deviations[1])]
        );
        let score = fusion.join(vec![located([4.0, 0.0]), located([0.0, 50.0])]).unwrap();
        let z = |size: usize, value: f64| (value - [2.0, 30.0][size]) / deviations[size];
        let expected = [z(0, 4.0) + z(1, 0.0), z(0, 0.0) + z(1, 50.0)].map(|value| value as f32);
        assert_eq!(score.map.as_ref().unwrap().values, expected);
        assert_eq!(score.score, f64::from(expected[1].max(expected[0])));
        assert_eq!(score.parts, [z(0, 4.0), z(1, 50.0)]);
        assert_eq!(fusion.part_names(), ["32×32", "64×64"]);
        // Images that are added are joined alike, if every size has them.
        let mut sizes = sizes;
        sizes[0].push(held_out(5, located([1.0, 1.0])));
        let joined = combined(sizes, |_| Ok(fusion.clone())).unwrap();
        assert_eq!(joined.iter().map(|image| image.image).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(joined[0].score, f64::from((z(0, 1.0) + z(1, 20.0)) as f32));
        assert_eq!((joined[0].map_max, joined[0].map.is_none()), (Some(joined[0].score), true));
    }

    #[test]
    fn held_out_images_are_standardized_by_the_images_of_other_groups() {
        let pipelines = [pipeline(32), pipeline(64)];
        let value = |image: usize, size: usize| (image * 7 % 5) as f32 + (image * image * (size + 1) % 11) as f32;
        let sizes: Vec<Vec<HeldOut>> = (0..2)
            .map(|size| (0..7).map(|image| held_out(image, located([value(image, size), 0.5]))).collect())
            .collect();
        for keys in [vec![0, 0, 1, 1, 2, 3, 3], vec![0, 1, 2, 3, 4, 5, 6], vec![0, 0, 0, 0, 1, 1, 1]] {
            let groups = Groups::of_keys(keys.iter());
            let found = Fusion::held_out(&pipelines, sizes.clone(), &groups).unwrap();
            for (image, found) in found.iter().enumerate() {
                let alone = groups.count() < FEWEST_GROUPS;
                let own = |other: &usize| if alone { *other == image } else { keys[*other] == keys[image] };
                let others: Vec<Vec<HeldOut>> =
                    sizes.iter().map(|size| size.iter().filter(|one| !own(&one.image)).cloned().collect()).collect();
                let fusion = Fusion::of(&pipelines, &others).unwrap();
                let maps = (0..2).map(|size| located([value(image, size), 0.5])).collect();
                assert_eq!(found.score, fusion.join(maps).unwrap().score, "{keys:?} {image}");
            }
        }
    }

    #[test]
    fn scores_are_added_up_where_there_are_no_maps() {
        let held = |scores: [f64; 3]| {
            scores.iter().enumerate().map(|(at, score)| HeldOut::new(at, &MethodScore::whole(*score))).collect()
        };
        let fusion = Fusion::of(&[pipeline(32), pipeline(64)], &[held([1.0, 2.0, 3.0]), held([5.0; 3])]).unwrap();
        // The second size has no deviation to divide by.
        assert_eq!((fusion.sizes[1].mean, fusion.sizes[1].deviation), (5.0, 1.0));
        let score = fusion.join(vec![MethodScore::whole(4.0), MethodScore::whole(5.5)]).unwrap();
        assert_eq!((score.score, score.map), (2.5, None));
    }

    #[test]
    fn what_no_fit_writes_is_refused() {
        let size = FusedSize { pipeline: pipeline(32), mean: 0.0, deviation: 1.0 };
        assert!(Fusion { sizes: vec![size; 2] }.check().is_ok());
        for sizes in [
            vec![size],
            vec![size; MOST_SIZES + 1],
            vec![size, FusedSize { deviation: 0.0, ..size }],
            vec![size, FusedSize { deviation: f64::NAN, ..size }],
            vec![size, FusedSize { mean: f64::INFINITY, ..size }],
        ] {
            assert!(Fusion { sizes: sizes.clone() }.check().is_err(), "{sizes:?}");
        }
        let fusion = Fusion { sizes: vec![size; 2] };
        let small = AnomalyMap { height: 1, width: 1, values: vec![0.0] };
        assert!(fusion.join(vec![located([0.0; 2]), MethodScore::located(0.0, small)]).is_err());
        assert!(Fusion::of(&[pipeline(32)], &[Vec::new()]).is_err());
    }
}
