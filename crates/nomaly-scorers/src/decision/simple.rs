//! Thresholds from two moments or from one order statistic.

use super::{check_number, check_scores};
use crate::ScorerError;

/// The threshold mean + 3 standard deviations (with `n - 1` in the denominator) of held-out normal scores.
///
/// # When to use
/// For process-control charts with nearly normally distributed scores; distances seldom are.
///
/// # Reference
/// Shewhart, *Economic Control of Quality of Manufactured Product* (1931).
///
/// # Errors
/// [`ScorerError::TooFewScores`] below 2, [`ScorerError::NonFiniteScore`].
pub fn three_sigma(held_out_scores: &[f64]) -> Result<f64, ScorerError> {
    check_scores("the three-sigma rule", 2, held_out_scores)?;
    let n = held_out_scores.len() as f64;
    let mean = held_out_scores.iter().sum::<f64>() / n;
    let squares: f64 = held_out_scores.iter().map(|score| (score - mean) * (score - mean)).sum();
    Ok(mean + 3.0 * (squares / (n - 1.0)).sqrt())
}

/// The threshold that a share `fpr` in `[0, 1]` of the held-out normal scores lies above: their `1 - fpr` quantile,
/// interpolated linearly between order statistics (type 7 of Hyndman and Fan, *Sample quantiles in statistical
/// packages*, 1996).
///
/// # When to use
/// With many held-out scores, or to plot; with few of them the rate on further items is larger than `fpr`, and
/// [`Conformal`](super::Conformal) is the rule with a guarantee.
///
/// # Errors
/// [`ScorerError::TooFewScores`] without scores, [`ScorerError::NonFiniteScore`], [`ScorerError::Setting`] for a rate
/// outside `[0, 1]`.
pub fn quantile(held_out_scores: &[f64], fpr: f64) -> Result<f64, ScorerError> {
    check_scores("the quantile rule", 1, held_out_scores)?;
    check_number("fpr", fpr, (0.0..=1.0).contains(&fpr), "a rate from 0 to 1")?;
    let mut scores = held_out_scores.to_vec();
    scores.sort_by(f64::total_cmp);
    let position = (1.0 - fpr) * (scores.len() - 1) as f64;
    let (low, high) = (position.floor() as usize, position.ceil() as usize);
    Ok(scores[low] + (position - position.floor()) * (scores[high] - scores[low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_and_rates_that_are_no_numbers_are_refused() {
        assert!(three_sigma(&[1.0]).is_err() && three_sigma(&[1.0, f64::INFINITY]).is_err());
        assert!(quantile(&[], 0.1).is_err() && quantile(&[1.0], f64::NAN).is_err() && quantile(&[1.0], 1.1).is_err());
    }

    #[test]
    fn simple_rules_by_hand() {
        let scores = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]; // mean 5, sum of squares 32
        assert!((three_sigma(&scores).unwrap() - (5.0 + 3.0 * (32.0f64 / 7.0).sqrt())).abs() < 1e-12);
        assert_eq!(quantile(&scores, 0.0).unwrap(), 9.0);
        assert_eq!(quantile(&scores, 1.0).unwrap(), 2.0);
        assert!((quantile(&scores, 0.1).unwrap() - 7.6).abs() < 1e-12); // position 6.3 between 7 and 9
    }
}
