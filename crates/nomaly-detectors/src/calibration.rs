//! The decision: a threshold that needs no anomalies and keeps the false-alarm rate under control.
//!
//! Every training image is scored once by a fit that has not seen it (`k`-fold cross-validation). Those held-out scores
//! say how normal images score; the conformal p-value of an image is the share of them that score at least as high,
//! `p = (1 + #{sᵢ ≥ s}) / (n + 1)`, and an image is anomalous where `p ≤ max_fpr`. For images exchangeable with the
//! held-out ones, the false-alarm rate is at most `max_fpr` (Vovk, Gammerman & Shafer, *Algorithmic Learning in a
//! Random World*, 2005). The final fit has seen a little more data than each fold's fit, so it scores normal images a
//! little lower: the rule errs on the side of fewer false alarms. Test images are never used.

use nomaly_scorers::decision::Conformal;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::DetectorError;

/// The most folds that cross-validation uses.
pub const MAX_FOLDS: usize = 10;
/// The false-alarm rate that is allowed where none is asked for.
///
/// One in twenty is the strictest common level that as few as 19 training images can support.
pub const DEFAULT_MAX_FPR: f64 = 0.05;

/// How a score becomes a decision.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DecisionRule {
    /// Anomalous where the conformal p-value is at most this rate of false alarms, in (0, 1).
    MaxFpr(f64),
    /// Anomalous where the score is above this value.
    Threshold(f64),
}

impl DecisionRule {
    /// Checks the rule's number.
    ///
    /// # Errors
    /// A rate outside (0, 1), or a threshold that is not a number.
    pub fn checked(self) -> Result<Self, DetectorError> {
        match self {
            Self::MaxFpr(rate) if !(rate > 0.0 && rate < 1.0) => {
                Err(DetectorError::setting("max_fpr", &rate.to_string(), "a rate between 0 and 1, both excluded"))
            }
            Self::Threshold(value) if value.is_nan() => Err(DetectorError::setting("threshold", "NaN", "a number")),
            rule => Ok(rule),
        }
    }
}

/// Held-out scores of normal images, and the rule that turns a score into a decision.
#[derive(Clone, Debug)]
pub struct Calibration {
    conformal: Conformal,
    rule: DecisionRule,
}

impl Calibration {
    /// Ties held-out scores to a rule.
    ///
    /// # Errors
    /// No score, a score that is not a number, or a [rule](DecisionRule::checked) out of range.
    pub fn new(held_out: Vec<f64>, rule: DecisionRule) -> Result<Self, DetectorError> {
        Ok(Self { conformal: Conformal::new(held_out)?, rule: rule.checked()? })
    }

    /// The same held-out scores under another rule.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn with_rule(&self, rule: DecisionRule) -> Result<Self, DetectorError> {
        Ok(Self { conformal: self.conformal.clone(), rule: rule.checked()? })
    }

    /// The rule in force.
    pub fn rule(&self) -> DecisionRule {
        self.rule
    }

    /// The held-out scores, ascending.
    pub fn held_out(&self) -> &[f64] {
        self.conformal.scores()
    }

    /// The conformal p-value of a score, in (0, 1]: small means anomalous.
    pub fn p_value(&self, score: f64) -> f64 {
        self.conformal.p_value(score)
    }

    /// The smallest p-value that any score can get: 1 / (n + 1).
    pub fn smallest_p_value(&self) -> f64 {
        1.0 / (self.conformal.n() as f64 + 1.0)
    }

    /// Scores above this are anomalous; `None` where there are too few held-out scores for the rate asked for, so that
    /// nothing can be called anomalous.
    pub fn threshold(&self) -> Option<f64> {
        match self.rule {
            DecisionRule::MaxFpr(rate) => self.conformal.threshold(rate),
            DecisionRule::Threshold(value) => Some(value),
        }
    }

    /// Whether a score is anomalous.
    pub fn is_anomalous(&self, score: f64) -> bool {
        self.threshold().is_some_and(|threshold| score > threshold)
    }

    /// The rule in words.
    pub fn describe(&self) -> String {
        let n = self.conformal.n();
        match self.rule {
            DecisionRule::MaxFpr(rate) => {
                format!("conformal p-value of at most {rate} against {n} held-out normal images")
            }
            DecisionRule::Threshold(_) => "score above a threshold set by hand".to_owned(),
        }
    }
}

/// Splits `n` items into up to [`MAX_FOLDS`] folds, each ascending, as equal in size as can be.
///
/// The assignment follows from `seed` alone. Fewer items than [`MAX_FOLDS`] are left out one at a time.
pub fn folds(n: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let count = n.min(MAX_FOLDS);
    (0..count)
        .map(|fold| {
            let mut members: Vec<usize> = order.iter().skip(fold).step_by(count).copied().collect();
            members.sort_unstable();
            members
        })
        .collect()
}

/// Scores each of `n` items with a fit on the other [`folds`].
///
/// `score(train, test)` fits on the rows `train` and gives a score for each of the rows `test`, both ascending.
///
/// # Errors
/// Whatever `score` fails with.
pub fn cross_validated_scores(
    n: usize,
    seed: u64,
    mut score: impl FnMut(&[usize], &[usize]) -> Result<Vec<f64>, DetectorError>,
) -> Result<Vec<f64>, DetectorError> {
    let mut held_out = vec![f64::NAN; n];
    for test in folds(n, seed) {
        let train: Vec<usize> = (0..n).filter(|row| test.binary_search(row).is_err()).collect();
        for (row, value) in test.iter().zip(score(&train, &test)?) {
            held_out[*row] = value;
        }
    }
    Ok(held_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_scored_once_by_a_fit_that_has_not_seen_it() {
        for n in [2, 3, 9, 10, 11, 57] {
            let mut times = vec![0; n];
            let held_out = cross_validated_scores(n, 7, |train, test| {
                assert_eq!(train.len() + test.len(), n);
                assert!(test.iter().all(|row| !train.contains(row)));
                test.iter().for_each(|&row| times[row] += 1);
                Ok(test.iter().map(|&row| row as f64).collect())
            })
            .unwrap();
            assert!(times.iter().all(|&count| count == 1), "n = {n}: {times:?}");
            assert!(held_out.iter().enumerate().all(|(row, &value)| value == row as f64));
        }
    }

    #[test]
    fn threshold_and_p_value_agree_on_every_decision() {
        let held_out: Vec<f64> = (1..=40).map(f64::from).collect();
        for rate in [0.01, 0.025, 0.05, 0.1, 0.5] {
            let calibration = Calibration::new(held_out.clone(), DecisionRule::MaxFpr(rate)).unwrap();
            for score in (0..90).map(|step| f64::from(step) * 0.5) {
                let by_p_value = calibration.p_value(score) <= rate;
                assert_eq!(calibration.is_anomalous(score), by_p_value, "rate {rate}, score {score}");
            }
        }
    }

    #[test]
    fn too_few_held_out_scores_flag_nothing() {
        let calibration = Calibration::new(vec![1.0, 2.0, 3.0], DecisionRule::MaxFpr(0.05)).unwrap();
        assert_eq!(calibration.threshold(), None);
        assert!(!calibration.is_anomalous(1e9));
        assert_eq!(calibration.smallest_p_value(), 0.25);
    }

    #[test]
    fn rules_out_of_range_are_refused() {
        for rate in [0.0, 1.0, -0.1, f64::NAN] {
            assert!(DecisionRule::MaxFpr(rate).checked().is_err(), "{rate}");
        }
        assert!(DecisionRule::Threshold(f64::NAN).checked().is_err());
    }
}
