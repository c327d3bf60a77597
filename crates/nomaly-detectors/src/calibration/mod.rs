//! The decision: a threshold that needs no anomalies and keeps the false-alarm rate under control.
//!
//! Every training image is scored once by a fit that has not seen it (`k`-fold cross-validation). Those held-out scores
//! say how normal images score; the conformal p-value of an image is the share of them that score at least as high,
//! `p = (1 + #{sᵢ ≥ s}) / (n + 1)`, and an image is anomalous where `p ≤ max_fpr`. For images exchangeable with the
//! held-out ones, the false-alarm rate is at most `max_fpr` (Vovk, Gammerman & Shafer, *Algorithmic Learning in a
//! Random World*, 2005). The final fit has seen a little more data than each fold's fit, so it scores normal images a
//! little lower: the rule errs on the side of fewer false alarms. Test images are never used.
//!
//! Images that depend on each other are held out together, and count as one: see
//! [`groups`](nomaly_methods::groups). The p-value is that of an image of a new group then, and `n` is the number of
//! groups.
//!
//! That is the rule where none is asked for. The others ([`DecisionRule`]) take the same held-out scores; how much a
//! threshold would vary with other held-out images is told by its bootstrap interval.

mod decision;
mod rule;
mod scores;

pub use self::decision::Calibration;
pub use self::rule::{DEFAULT_MAX_FPR, DecisionRule, SMALLEST_RATE, is_rate, scores_for};
