//! Explanations: Grad-CAM and average activation maps.
//!
//! [`GradCam`] shows which positions of one image contribute to a class, or to the distance from a centre;
//! [`AverageActivations`] shows where a layer is active over many images, and [`ActivationMap::important`] turns that
//! into a mask. Maps have the resolution of their tap. Both run the backbone in evaluation mode: with running
//! statistics, without dropout.
//!
//! ```
//! use nomaly_backbones::Backbone;
//! use nomaly_backbones::explain::{GradCam, Target};
//! use nomaly_nn::runtime::Executor;
//!
//! let backbone = Backbone::embedded()?;
//! let mut cam = GradCam::new(&backbone, None, [64, 64], &Executor::cpu()?)?;
//! assert_eq!((cam.tap(), cam.output()), ("head", "logits"));
//! let image = vec![0.5; 3 * 64 * 64]; // normalized by `backbone.preprocessing()`
//! let found = cam.explain(&image, Target::Class(281))?;
//! assert_eq!(found[0].map.size, [2, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod average;
mod error;
mod grad_cam;

use crate::backbone::Backbone;

pub use average::AverageActivations;
pub use error::ExplainError;
pub use grad_cam::{Explanation, GradCam, Target};

/// A number for each position of a tap.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationMap {
    /// Height and width.
    pub size: [usize; 2],
    /// Row-major values.
    pub values: Vec<f32>,
}

/// The threshold of importance: the τ of the mask {Ā ≥ τ}.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Importance {
    /// This value.
    AtLeast(f32),
    /// This quantile of the map's values, in [0, 1]: 0.8 keeps a fifth of the positions, and ties.
    Quantile(f64),
}

impl ActivationMap {
    /// The mask of high importance: whether each position's value is at least the threshold.
    ///
    /// # Errors
    /// For a quantile outside [0, 1].
    pub fn important(&self, threshold: Importance) -> Result<Vec<bool>, ExplainError> {
        let least = match threshold {
            Importance::AtLeast(least) => least,
            Importance::Quantile(quantile) if (0.0..=1.0).contains(&quantile) => {
                let mut sorted = self.values.clone();
                sorted.sort_by(f32::total_cmp);
                let last = sorted.len().saturating_sub(1);
                let index = ((quantile * sorted.len() as f64).floor() as usize).min(last);
                sorted.get(index).copied().unwrap_or(0.0)
            }
            Importance::Quantile(quantile) => return Err(ExplainError::Quantile { quantile }),
        };
        Ok(self.values.iter().map(|&value| value >= least).collect())
    }

    /// The values rescaled to [0, 1], for display. All are 0 if the map is flat.
    pub fn normalized(&self) -> Self {
        let least = self.values.iter().copied().fold(f32::INFINITY, f32::min);
        let range = self.values.iter().copied().fold(f32::NEG_INFINITY, f32::max) - least;
        let share = |value: &f32| if range > 0.0 { (value - least) / range } else { 0.0 };
        Self { size: self.size, values: self.values.iter().map(share).collect() }
    }
}

/// The taps that have positions, from the shallowest to the deepest.
fn spatial(backbone: &Backbone) -> Vec<String> {
    backbone.taps().into_iter().filter(|tap| tap.stride.is_some()).map(|tap| tap.name).collect()
}

/// The tap, if it has positions.
fn with_positions(backbone: &Backbone, tap: &str) -> Result<String, ExplainError> {
    let (place, node) = backbone.tap_node(tap)?;
    match backbone.part(place).graph.nodes()[node].stride {
        Some(_) => Ok(tap.to_owned()),
        None => Err(no_positions(backbone, tap)),
    }
}

fn no_positions(backbone: &Backbone, tap: &str) -> ExplainError {
    let (backbone, spatial) = (backbone.name().to_owned(), spatial(backbone).join(", "));
    ExplainError::NoPositions { backbone, tap: tap.to_owned(), spatial }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ActivationMap {
        ActivationMap { size: [2, 5], values: vec![3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0, 6.0, 5.5, 3.5] }
    }

    #[test]
    fn a_quantile_leaves_its_share_of_the_positions() {
        for (quantile, left) in [(0.0, 10), (0.5, 5), (0.8, 2), (0.95, 1), (1.0, 1)] {
            let mask = map().important(Importance::Quantile(quantile)).unwrap();
            assert_eq!(mask.iter().filter(|important| **important).count(), left, "{quantile}");
        }
        let mask = map().important(Importance::AtLeast(5.0)).unwrap();
        assert_eq!(mask, [false, false, false, false, true, true, false, true, true, false]);
        for quantile in [-0.1, 1.5, f64::NAN] {
            let error = map().important(Importance::Quantile(quantile)).unwrap_err();
            assert!(matches!(error, ExplainError::Quantile { .. }));
        }
    }

    #[test]
    fn pictures_go_from_nought_to_one() {
        let shown = map().normalized();
        assert_eq!((shown.values[1], shown.values[5], shown.values[4]), (0.0, 1.0, 0.5));
        let flat = ActivationMap { size: [1, 2], values: vec![7.0; 2] };
        assert_eq!(flat.normalized().values, [0.0; 2]);
    }
}
