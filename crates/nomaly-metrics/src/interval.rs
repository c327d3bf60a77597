//! Confidence intervals of shares.
//!
//! # What it computes
//! Wilson's score interval of a binomial share: the shares `p` from which `part / whole` differs by at most `z`
//! standard errors of `p`.
//!
//! # When to use
//! For rates at a threshold (false alarms, misses). Unlike an interval from resamples or from the standard error of the
//! share itself, it does not collapse if nothing or everything was flagged.
//!
//! # Parameters
//! The confidence level.
//!
//! # Reference
//! E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927); L. D. Brown,
//! T. T. Cai, A. DasGupta, "Interval estimation for a binomial proportion", Statistical Science 16 (2001).

use serde::{Deserialize, Serialize};

use crate::MetricError;

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Wilson's score interval of the share `part / whole`, within [0, 1]; `None` if `whole` is 0. A `part` above `whole`
/// counts as `whole`.
///
/// # Errors
/// A level outside (0, 1).
pub fn share_interval(part: u64, whole: u64, level: f64) -> Result<Option<Interval>, MetricError> {
    let z = two_sided(level)?;
    if whole == 0 {
        return Ok(None);
    }
    let n = whole as f64;
    Ok(Some(wilson(part.min(whole) as f64 / n, n, z)))
}

/// Wilson's score interval of a share of items that depend on each other within groups: `flags` marks the counted
/// items, `groups` has the group number of each item. The sample size is the number of groups, as if the items of a
/// group were identical; if they are not, the interval is too wide. `None` without items.
///
/// # Errors
/// Lengths that differ, a level outside (0, 1).
pub fn grouped_share_interval(flags: &[bool], groups: &[u32], level: f64) -> Result<Option<Interval>, MetricError> {
    let z = two_sided(level)?;
    if flags.len() != groups.len() {
        return Err(MetricError::LengthMismatch { scores: flags.len(), labels: groups.len() });
    }
    let n = groups.iter().collect::<std::collections::BTreeSet<_>>().len() as f64;
    let part = flags.iter().filter(|flag| **flag).count();
    if flags.is_empty() {
        return Ok(None);
    }
    let share = part as f64 / flags.len() as f64;
    Ok(Some(wilson(share, n, z)))
}

/// Wilson's interval of a share of `n` items.
fn wilson(share: f64, n: f64, z: f64) -> Interval {
    let scale = 1.0 / (1.0 + z * z / n);
    let center = scale * (share + z * z / (2.0 * n));
    let half = scale * z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    // If nothing or everything is flagged, the ends are exact; rounding must not move them.
    let low = if share == 0.0 { 0.0 } else { (center - half).max(0.0) };
    let high = if share == 1.0 { 1.0 } else { (center + half).min(1.0) };
    Interval { low, high }
}

/// The number of standard deviations within which a normal variable lies with probability `level`.
pub(crate) fn two_sided(level: f64) -> Result<f64, MetricError> {
    if !(level > 0.0 && level < 1.0) {
        return Err(MetricError::Level { level });
    }
    Ok(-normal_quantile((1.0 - level) / 2.0))
}

/// The quantile of the standard normal distribution for a lower tail in (0, 0.5], by Acklam's rational approximation
/// (relative error below 1.2e-9).
fn normal_quantile(tail: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 6] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 5] = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416, 1.0];
    let polynomial = |coefficients: &[f64], x: f64| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    if tail < 0.02425 {
        let q = (-2.0 * tail.ln()).sqrt();
        polynomial(&C, q) / polynomial(&D, q)
    } else {
        let q = tail - 0.5;
        q * polynomial(&A, q * q) / polynomial(&B, q * q)
    }
}

/// The interval that contains the middle `level` of the values, interpolated between order statistics (type 7); `None`
/// without values.
pub(crate) fn central_interval(mut values: Vec<f64>, level: f64) -> Option<Interval> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let quantile = |share: f64| {
        let position = share * last as f64;
        let (low, high) = (position.floor() as usize, position.ceil() as usize);
        values[low] + (position - position.floor()) * (values[high] - values[low])
    };
    let tail = (1.0 - level) / 2.0;
    Some(Interval { low: quantile(tail), high: quantile(1.0 - tail) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_a_group_are_one_item_of_the_sample() {
        let groups: Vec<u32> = (0..60).map(|item| item / 3).collect();
        let flags: Vec<bool> = groups.iter().map(|group| group % 10 == 0).collect();
        assert_eq!(grouped_share_interval(&flags, &groups, 0.95).unwrap(), share_interval(2, 20, 0.95).unwrap());
        let alone: Vec<u32> = (0..60).collect();
        assert_eq!(grouped_share_interval(&flags, &alone, 0.95).unwrap(), share_interval(6, 60, 0.95).unwrap());
        assert_eq!(grouped_share_interval(&[], &[], 0.95).unwrap(), None);
        let none = grouped_share_interval(&[false; 6], &[0, 0, 0, 1, 1, 1], 0.95).unwrap().unwrap();
        assert!(none.low == 0.0 && none.high > 0.6, "{none:?}");
        assert!(matches!(grouped_share_interval(&[true], &[], 0.95), Err(MetricError::LengthMismatch { .. })));
    }

    #[test]
    fn normal_quantiles_as_in_the_tables() {
        // SciPy's norm.ppf; Acklam states a relative error below 1.15e-9.
        for (level, z) in [
            (0.5, 0.6744897501960817),
            (0.9, 1.6448536269514722),
            (0.95, 1.959963984540054),
            (0.99, 2.5758293035489004),
            (0.999999, 4.891638475698963),
        ] {
            assert!((two_sided(level).unwrap() / z - 1.0).abs() < 2e-9, "{level}");
        }
        assert!([0.0, 1.0, -1.0, f64::NAN].iter().all(|&level| two_sided(level).is_err()));
    }

    #[test]
    fn shares_that_are_nothing_or_everything_have_an_interval() {
        let none = share_interval(0, 50, 0.95).unwrap().unwrap();
        assert!(none.low == 0.0 && (none.high - 0.07135).abs() < 1e-4, "{none:?}");
        let all = share_interval(50, 50, 0.95).unwrap().unwrap();
        assert!(all.high == 1.0 && (all.low - (1.0 - none.high)).abs() < 1e-12);
        assert_eq!(share_interval(0, 0, 0.95).unwrap(), None);
    }

    #[test]
    fn the_middle_of_values() {
        let found = central_interval((0..=100).map(f64::from).rev().collect(), 0.9).unwrap();
        assert!((found.low - 5.0).abs() < 1e-9 && (found.high - 95.0).abs() < 1e-9);
        assert_eq!(central_interval(Vec::new(), 0.9), None);
    }
}
