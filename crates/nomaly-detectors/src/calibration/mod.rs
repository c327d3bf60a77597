//! Calibration of decisions: a threshold that needs no anomalies and controls the false-alarm rate.
//!
//! Every training image is scored once by a fit without it (`k`-fold cross-validation). The held-out scores estimate
//! the distribution of normal scores; the conformal p-value of an image is the share of them that is at least as high,
//! `p = (1 + #{sᵢ ≥ s}) / (n + 1)`, and an image is anomalous if `p ≤ max_fpr`. For images exchangeable with the
//! held-out ones, the false-alarm rate is at most `max_fpr` (Vovk, Gammerman & Shafer, *Algorithmic Learning in a
//! Random World*, 2005). The final fit has slightly more data than each fold's, so it scores normal images slightly
//! lower: the rule errs towards fewer false alarms. Test images are never used.
//!
//! Dependent images are held out together and count as one: see [`groups`](nomaly_methods::groups). The p-value then
//! refers to an image of a new group, and `n` is the number of groups.
//!
//! This is the default rule. The others ([`DecisionRule`]) use the same held-out scores. A bootstrap interval estimates
//! how much a threshold would vary with other held-out images.

mod decision;
mod rule;
mod scores;

pub use self::decision::Calibration;
pub use self::rule::{DEFAULT_MAX_FPR, DecisionRule, SMALLEST_RATE, is_rate, scores_for};
