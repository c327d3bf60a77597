//! The confidence intervals of all figures.

use nomaly_metrics::Interval;

/// The confidence level of every interval.
pub const LEVEL: f64 = 0.95;

/// The lower and the upper end of a 95 % confidence interval.
pub type Ends = [f64; 2];

/// An interval as figures have it.
pub(crate) fn ends(interval: Interval) -> Ends {
    [interval.low, interval.high]
}
