//! Rules that turn scores into decisions.

use std::fmt;

use nomaly_scorers::ScorerError;
use nomaly_scorers::decision::{ExtremeValue, RobustTail, quantile, three_sigma};
use serde::{Deserialize, Serialize};

use super::scores::Scores;
use crate::error::DetectorError;

/// The default limit of the false-alarm rate.
///
/// One in twenty is the strictest common level that as few as 19 training images can support.
pub const DEFAULT_MAX_FPR: f64 = 0.05;

/// Rules that turn scores into decisions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DecisionRule {
    /// Anomalous if the conformal p-value is at most this false-alarm rate, in (0, 1).
    MaxFpr(f64),
    /// Anomalous above the empirical quantile that this share of the held-out scores, in (0, 1), exceeds.
    Quantile(f64),
    /// Anomalous above the mean plus three standard deviations of the held-out scores.
    ThreeSigma,
    /// Anomalous if the p-value of a tail fitted to the highest held-out scores is at most this rate, in (0, 1), which
    /// may be below the smallest conformal p-value.
    ExtremeValue(f64),
    /// Anomalous if the p-value of a tail fitted to the middle of the held-out scores is at most this rate, in (0,
    /// 1/2]: for training images of which a few may be anomalous.
    RobustTail(f64),
    /// Anomalous if the score is above this value.
    Threshold(f64),
}

impl fmt::Display for DecisionRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxFpr(rate) => write!(f, "max-fpr {rate}"),
            Self::Quantile(rate) => write!(f, "quantile {rate}"),
            Self::ThreeSigma => f.write_str("three-sigma"),
            Self::ExtremeValue(rate) => write!(f, "extreme-value {rate}"),
            Self::RobustTail(rate) => write!(f, "robust-tail {rate}"),
            Self::Threshold(value) => write!(f, "threshold {value}"),
        }
    }
}

impl DecisionRule {
    /// Checks the rule's number.
    ///
    /// # Errors
    /// An invalid [false-alarm rate](is_rate), or a threshold that is NaN.
    pub fn checked(self) -> Result<Self, DetectorError> {
        if let Some(rate) = self.rate().filter(|&rate| !is_rate(rate)) {
            return Err(DetectorError::setting("max_fpr", &rate.to_string(), RATES));
        }
        match self {
            Self::RobustTail(rate) if rate > 0.5 => Err(DetectorError::setting(
                "max_fpr",
                &rate.to_string(),
                "a rate of at most a half with the robust tail",
            )),
            Self::Threshold(value) if value.is_nan() => Err(DetectorError::setting("threshold", "NaN", "a number")),
            rule => Ok(rule),
        }
    }

    /// The false-alarm rate, for rules with one.
    pub fn rate(self) -> Option<f64> {
        match self {
            Self::MaxFpr(rate) | Self::Quantile(rate) | Self::ExtremeValue(rate) | Self::RobustTail(rate) => Some(rate),
            Self::ThreeSigma | Self::Threshold(_) => None,
        }
    }

    /// The threshold on held-out scores.
    pub(super) fn threshold(self, held_out: &Scores) -> Result<f64, ScorerError> {
        match self {
            Self::MaxFpr(rate) => held_out.conformal.threshold(rate).ok_or_else(|| ScorerError::TooFewScores {
                what: "a conformal p-value this small",
                needed: scores_for(rate),
                got: held_out.conformal.groups(),
            }),
            Self::Quantile(rate) => quantile(held_out.independent(), rate),
            Self::ThreeSigma => three_sigma(held_out.independent()),
            Self::ExtremeValue(rate) => ExtremeValue::fit(held_out.independent().to_vec())?.threshold(rate),
            Self::RobustTail(rate) => RobustTail::fit(held_out.independent())?.threshold(rate),
            Self::Threshold(value) => Ok(value),
        }
    }
}

/// The smallest valid false-alarm rate, and the smallest share of good items that must pass.
pub const SMALLEST_RATE: f64 = 1e-9;
/// The valid false-alarm rates, in words.
const RATES: &str = "a rate from 1e-9 to 1 - 1e-9";

/// Whether a number is a valid false-alarm rate: from [`SMALLEST_RATE`] to 1 minus that.
pub fn is_rate(rate: f64) -> bool {
    (SMALLEST_RATE..=1.0 - SMALLEST_RATE).contains(&rate)
}

/// The fewest independent held-out items or groups for which a conformal p-value can be at most `rate`; [`usize::MAX`]
/// if no number suffices.
pub fn scores_for(rate: f64) -> usize {
    let about = (1.0 / rate - 1.0).ceil().max(0.0) as usize;
    // Rounding is off by one at most.
    let enough = |n: &usize| 1.0 / (*n as f64 + 1.0) <= rate;
    (about.saturating_sub(1)..=about.saturating_add(1)).find(enough).unwrap_or(usize::MAX)
}
