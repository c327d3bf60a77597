//! Scores of images.

use crate::maps::AnomalyMap;

/// The score of one view of an image, or of a whole image.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodScore {
    /// The anomaly score, *higher = more anomalous*.
    pub score: f64,
    /// The standard deviation of the score over passes with dropout, for methods that make several.
    pub deviation: Option<f64>,
    /// Scores of its parts (one per level, for example), named by [`part_names`](crate::FittedMethod::part_names), or
    /// one per class.
    pub parts: Vec<f64>,
    /// The contribution of each [term](crate::FittedMethod::term_names), for methods whose score is a sum.
    pub terms: Vec<f64>,
    /// The anomaly map of the network's input, for methods that make maps.
    pub map: Option<AnomalyMap>,
}

impl MethodScore {
    /// A score without parts or map.
    pub fn whole(score: f64) -> Self {
        Self { score, deviation: None, parts: Vec::new(), terms: Vec::new(), map: None }
    }

    /// A score with a map and without parts.
    pub fn located(score: f64, map: AnomalyMap) -> Self {
        Self { map: Some(map), ..Self::whole(score) }
    }
}

/// The score of a normal image by a fit without it.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// The image's number among the usable ones.
    pub image: usize,
    /// Its score.
    pub score: f64,
    /// The largest value of its map, for methods that make maps.
    pub map_max: Option<f64>,
    /// Its map, if the [context](crate::FitContext::most_maps) requests it.
    pub map: Option<AnomalyMap>,
}

impl HeldOut {
    /// The held-out score of an image, without its map.
    pub fn new(image: usize, score: &MethodScore) -> Self {
        Self { image, score: score.score, map_max: score.map.as_ref().map(AnomalyMap::max), map: None }
    }

    /// The held-out score of an image for a method without maps.
    pub fn scored(image: usize, score: f64) -> Self {
        Self { image, score, map_max: None, map: None }
    }
}
