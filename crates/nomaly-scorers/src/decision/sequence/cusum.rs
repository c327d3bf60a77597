//! Cumulative sums.
//!
//! # What it computes
//! `S_t = max(0, S_{t-1} + z_t - k)` from `S_0 = 0`, with `z_t` the score in standard deviations from the mean of
//! held-out scores: the sum of the excesses over the allowance `k` since it was last zero. An alarm is raised above the
//! limit.
//!
//! # When to use
//! For a lasting shift, which it detects soonest of all rules with the same run length between false alarms: a shift of
//! `2 k` standard deviations, if scores are normally distributed (Moustakides 1986). Long tails make the limit high.
//!
//! # Parameters
//! The allowance `k`, half of the shift that matters in standard deviations: 0.5 by default.
//!
//! # Reference
//! Page, *Continuous inspection schemes* (1954); Moustakides, *Optimal stopping times for detecting changes in
//! distributions* (1986).

/// The default allowance: best for a shift by one standard deviation.
pub const DEFAULT_ALLOWANCE: f64 = 0.5;

/// The sum after one more standardized score.
pub(super) fn step(sum: f64, z: f64, allowance: f64) -> f64 {
    (sum + z - allowance).max(0.0)
}
