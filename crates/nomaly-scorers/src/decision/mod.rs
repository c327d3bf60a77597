//! Decision rules with a controlled rate of false alarms.
//!
//! All rules use the scores of *held-out* normal items, which the scorer was not fitted on, because items of the fit
//! score too low. A score above the threshold means anomalous.
//!
//! | rule | promise | needs |
//! |---|---|---|
//! | [`Conformal`] | false-alarm rate at most `max_fpr` for exchangeable items | `1 / max_fpr - 1` scores, or groups |
//! | [`quantile`] | the same only as the number of scores grows | 1 score |
//! | [`three_sigma`] | about 0.13 % false alarms where the scores are normally distributed | 2 scores |
//! | [`ExtremeValue`] | any false-alarm rate, as far as the tail follows its limit distribution | 50 scores |
//! | [`RobustTail`] | none; a minority of anomalous items moves the threshold little | 8 scores |
//!
//! [`bootstrap`] estimates the variability of a threshold over samples of held-out scores. [`sequence`] monitors a
//! sequence of scores for a lasting change, which a rule for single scores detects late or never.

pub mod bootstrap;
pub mod combine;
mod conformal;
mod extreme;
mod robust;
pub mod sequence;
mod simple;

pub use conformal::Conformal;
pub use extreme::ExtremeValue;
pub use robust::RobustTail;
pub use simple::{quantile, three_sigma};

use nomaly_settings::SettingError;
use rand_chacha::rand_core::Rng;

use crate::ScorerError;

fn check_scores(what: &'static str, needed: usize, scores: &[f64]) -> Result<(), ScorerError> {
    if scores.len() < needed {
        return Err(ScorerError::TooFewScores { what, needed, got: scores.len() });
    }
    match scores.iter().position(|score| !score.is_finite()) {
        Some(index) => Err(ScorerError::NonFiniteScore { index, value: scores[index] }),
        None => Ok(()),
    }
}

/// Rejects a number outside a range.
fn check_number(name: &str, value: f64, fits: bool, expected: &str) -> Result<(), ScorerError> {
    if fits {
        return Ok(());
    }
    Err(SettingError::value(name, value, expected).into())
}

/// A whole number below `n`, which is at most 2³²: uniform up to one part in 2³² / `n`.
fn draw_below(rng: &mut impl Rng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}
