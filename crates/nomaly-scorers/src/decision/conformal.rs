//! Split-conformal p-values.

use super::check_scores;
use crate::ScorerError;

/// Split-conformal p-values: the share of normal items that look at least as anomalous.
///
/// # What it computes
/// For held-out normal scores `s_1 … s_n`, the p-value of a score `s` is `(1 + #{i : s_i >= s}) / (n + 1)`.
///
/// # When to use
/// Whenever the false-alarm rate matters: if the item behind `s` is normal and exchangeable with the held-out ones, then
/// `P(p <= a) <= a` for every `a`, whatever the scorer and whatever the distribution of its scores.
///
/// # Reference
/// Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World* (2005), section 2; Laxhammar and Falkman,
/// *Conformal prediction for distribution-independent anomaly detection in streaming vessel data* (2010).
///
/// ```
/// use nomaly_scorers::decision::Conformal;
///
/// let rule = Conformal::new((1..=99).map(f64::from).collect())?;
/// assert_eq!(rule.p_value(100.0), 0.01);
/// assert_eq!(rule.threshold(0.05), Some(95.0)); // 96 … 99 and whatever is beyond: at most 5 %
/// assert_eq!(rule.threshold(0.005), None);      // 99 scores cannot promise less than 1 %
/// # Ok::<(), nomaly_scorers::ScorerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Conformal {
    /// Ascending.
    scores: Vec<f64>,
}

impl Conformal {
    /// Calibrates on the scores of held-out normal items.
    ///
    /// # Errors
    /// [`ScorerError::TooFewScores`] without scores, [`ScorerError::NonFiniteScore`].
    pub fn new(held_out_scores: Vec<f64>) -> Result<Self, ScorerError> {
        check_scores("a conformal rule", 1, &held_out_scores)?;
        let mut scores = held_out_scores;
        scores.sort_by(f64::total_cmp);
        Ok(Self { scores })
    }

    /// The number of held-out scores.
    pub fn n(&self) -> usize {
        self.scores.len()
    }

    /// The held-out scores, ascending.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// The p-value of a score, in `[1 / (n + 1), 1]`; small means anomalous.
    ///
    /// A NaN score gets the smallest p-value: what cannot be scored does not pass for normal.
    pub fn p_value(&self, score: f64) -> f64 {
        let below = if score.is_nan() { self.n() } else { self.scores.partition_point(|normal| *normal < score) };
        self.share(1 + self.n() - below)
    }

    /// The smallest p-value there can be, and so the smallest false-alarm rate that can be promised: `1 / (n + 1)`.
    pub fn smallest_p_value(&self) -> f64 {
        self.share(1)
    }

    /// The threshold `t` for which `score > t` holds exactly where `p_value(score) <= max_fpr`.
    ///
    /// It is the `m`-th largest held-out score with `m = floor(max_fpr (n + 1))`, and minus infinity (everything is
    /// anomalous) where `max_fpr` is 1 or more. `None` where `max_fpr` is less than
    /// [`smallest_p_value`](Self::smallest_p_value): no threshold keeps that promise, more held-out scores are needed.
    pub fn threshold(&self, max_fpr: f64) -> Option<f64> {
        let (mut low, mut high) = (0, self.n() + 1);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.share(middle) <= max_fpr { low = middle } else { high = middle - 1 }
        }
        match low {
            0 => None,
            rank if rank > self.n() => Some(f64::NEG_INFINITY),
            rank => Some(self.scores[self.n() - rank]),
        }
    }

    fn share(&self, count: usize) -> f64 {
        count as f64 / (self.n() + 1) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn p_values_count_ties_as_at_least_as_anomalous() {
        let rule = Conformal::new(vec![3.0, 1.0, 2.0, 2.0]).unwrap();
        let p = |score| (rule.p_value(score) * 5.0).round() as u32;
        assert_eq!([p(0.0), p(1.0), p(1.5), p(2.0), p(3.0), p(3.1)], [5, 5, 4, 4, 2, 1]);
        assert_eq!(rule.p_value(f64::NAN), rule.smallest_p_value());
        assert_eq!(rule.p_value(f64::NEG_INFINITY), 1.0);
    }

    #[test]
    fn a_rate_that_rounds_down_in_floating_point_keeps_its_rank() {
        let rule = Conformal::new((1..100).map(f64::from).collect()).unwrap();
        // 0.29 * 100 is 28.999999999999996, but a p-value of 29/100 is 0.29.
        assert_eq!(rule.threshold(0.29), Some(71.0));
        assert_eq!(rule.threshold(1.0), Some(f64::NEG_INFINITY));
        assert_eq!([rule.threshold(0.0), rule.threshold(-1.0), rule.threshold(f64::NAN)], [None; 3]);
    }

    #[test]
    fn scores_that_are_no_numbers_are_refused() {
        assert!(matches!(Conformal::new(vec![]), Err(ScorerError::TooFewScores { .. })));
        assert!(matches!(Conformal::new(vec![1.0, f64::NAN]), Err(ScorerError::NonFiniteScore { index: 1, .. })));
    }

    proptest! {
        #[test]
        fn threshold_and_p_value_say_the_same(
            held_out in prop::collection::vec(0u8..20, 1..60),
            scores in prop::collection::vec(0u8..22, 20),
            max_fpr in 0.0f64..1.2,
            by_rank in any::<Option<prop::sample::Index>>(),
        ) {
            let rule = Conformal::new(held_out.iter().copied().map(f64::from).collect()).unwrap();
            // Rates that are exactly a multiple of 1 / (n + 1) are the edge cases.
            let max_fpr = by_rank.map_or(max_fpr, |rank| rule.share(rank.index(rule.n() + 2)));
            let threshold = rule.threshold(max_fpr);
            prop_assert_eq!(threshold.is_none(), max_fpr < rule.smallest_p_value());
            for score in scores.into_iter().map(f64::from) {
                let above = threshold.is_some_and(|threshold| score > threshold);
                prop_assert_eq!(above, rule.p_value(score) <= max_fpr);
            }
        }

        #[test]
        fn at_most_the_promised_share_of_all_items_is_flagged(
            scores in prop::collection::vec(-100i32..100, 2..80), max_fpr in 0.0f64..1.0,
        ) {
            // Exchangeability, exactly: let each of the n + 1 items in turn be the one that is tested.
            let flagged = (0..scores.len()).filter(|test| {
                let held_out = scores.iter().enumerate().filter(|(i, _)| i != test).map(|(_, s)| f64::from(*s)).collect();
                Conformal::new(held_out).unwrap().p_value(f64::from(scores[*test])) <= max_fpr
            });
            prop_assert!(flagged.count() as f64 <= max_fpr * scores.len() as f64 + 1e-9);
        }
    }
}
