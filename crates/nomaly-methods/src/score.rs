//! What a method says of an image.

use crate::maps::AnomalyMap;

/// What a method says of one view of an image, or of a whole image.
#[derive(Clone, Debug, PartialEq)]
pub struct MethodScore {
    /// The anomaly score, *higher = more anomalous*.
    pub score: f64,
    /// The standard deviation of the score over the passes of a network with dropout, for methods that make several.
    pub deviation: Option<f64>,
    /// Scores of the parts it was made of (one a level, say), named by [`part_names`](crate::FittedMethod::part_names),
    /// or one a class.
    pub parts: Vec<f64>,
    /// What each of the [terms](crate::FittedMethod::term_names) adds to the score, for methods whose score is a sum.
    pub terms: Vec<f64>,
    /// How anomalous each pixel of the network's input is, for methods that locate.
    pub map: Option<AnomalyMap>,
}

impl MethodScore {
    /// The score of a method that has neither parts nor maps.
    pub fn whole(score: f64) -> Self {
        Self { score, deviation: None, parts: Vec::new(), terms: Vec::new(), map: None }
    }

    /// The score of a method that locates, and has no parts.
    pub fn located(score: f64, map: AnomalyMap) -> Self {
        Self { map: Some(map), ..Self::whole(score) }
    }
}

/// What a normal image gets from a fit that had not seen it.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldOut {
    /// Its number among the usable images.
    pub image: usize,
    /// Its score.
    pub score: f64,
    /// The largest value of its map, for methods that make maps.
    pub map_max: Option<f64>,
    /// Its map, where the [context](crate::FitContext::most_maps) asks for it.
    pub map: Option<AnomalyMap>,
}

impl HeldOut {
    /// What the image with this number among the usable ones got, without its map.
    pub fn new(image: usize, score: &MethodScore) -> Self {
        Self { image, score: score.score, map_max: score.map.as_ref().map(AnomalyMap::max), map: None }
    }

    /// What an image without a map got.
    pub fn scored(image: usize, score: f64) -> Self {
        Self { image, score, map_max: None, map: None }
    }
}
