//! Exponentially weighted moving averages.
//!
//! # What it computes
//! `E_t = (1 - λ) E_{t-1} + λ z_t` from `E_0 = 0`, with `z_t` the score in standard deviations from the mean of
//! held-out scores. An alarm is raised above the limit; only high scores count, so there is one limit.
//!
//! # When to use
//! For slow drifts and small shifts, and where scores have long tails: averaging brings them closer to normal. A small
//! `λ` has a long memory; 1 is a threshold on single scores.
//!
//! # Parameters
//! The weight `λ` of the newest score in (0, 1]: 0.1 by default, which suits shifts by about one standard deviation.
//!
//! # Reference
//! Roberts, *Control chart tests based on geometric moving averages* (1959); Lucas and Saccucci, *Exponentially
//! weighted moving average control schemes: properties and enhancements* (1990).

/// The default weight of the newest score.
pub const DEFAULT_LAMBDA: f64 = 0.1;

/// The average after one more standardized score.
pub(super) fn step(average: f64, z: f64, lambda: f64) -> f64 {
    average + lambda * (z - average)
}

/// The standard deviation of the average in the long run.
pub(super) fn spread(lambda: f64) -> f64 {
    (lambda / (2.0 - lambda)).sqrt()
}
