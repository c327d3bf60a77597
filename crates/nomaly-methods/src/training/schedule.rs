//! Learning-rate schedules.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The factor of the learning rate at each step.
///
/// ```
/// use nomaly_methods::training::Schedule;
///
/// let cosine = Schedule::Cosine;
/// assert_eq!(cosine.factor(0, 100), 1.0);
/// assert!((cosine.factor(50, 100) - 0.5).abs() < 1e-12);
/// assert!(cosine.factor(99, 100) < 0.001);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// A constant rate.
    #[default]
    Constant,
    /// Divides the rate by 5 after 30, 60 and 80 % of the steps (Zagoruyko & Komodakis 2016, section 3).
    Step,
    /// Half a period of a cosine from the rate to zero (Loshchilov & Hutter 2017, without restarts).
    Cosine,
    /// Triangles between a tenth of the rate and the rate, four over the training (Smith 2017, `triangular`).
    Cyclic,
}

/// Shares of the steps after which [`Schedule::Step`] lowers the rate.
const FALLS: [f64; 3] = [0.3, 0.6, 0.8];
const FALL: f64 = 0.2;
/// The number of triangles of [`Schedule::Cyclic`].
const CYCLES: f64 = 4.0;
/// The lower end of a triangle, as a share of the rate.
const LOW: f64 = 0.1;

impl Schedule {
    /// The factor at step `step` of `steps`, counted from 0.
    pub fn factor(self, step: u64, steps: u64) -> f64 {
        let done = step as f64 / steps.max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Step => FALL.powi(FALLS.iter().filter(|share| done >= **share).count() as i32),
            Self::Cosine => 0.5 * (1.0 + (PI * done.min(1.0)).cos()),
            Self::Cyclic => {
                let within = (done * CYCLES).fract();
                LOW + (1.0 - LOW) * (1.0 - (2.0 * within - 1.0).abs())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_fall_where_the_paper_has_them_fall() {
        let at = |step| Schedule::Step.factor(step, 200);
        assert_eq!(
            [at(0), at(59), at(60), at(119), at(120), at(160)].map(|f| (f * 1000.0).round()),
            [1000.0, 1000.0, 200.0, 200.0, 40.0, 8.0]
        );
    }

    #[test]
    fn triangles_start_low_and_peak_in_the_middle() {
        let at = |step| Schedule::Cyclic.factor(step, 400);
        assert_eq!(at(0), LOW);
        assert!((at(50) - 1.0).abs() < 1e-12 && (at(25) - 0.55).abs() < 1e-12);
        assert!((at(100) - LOW).abs() < 1e-12);
    }
}
