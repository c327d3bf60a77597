//! Split-conformal p-values, for independent items and for items that come in groups.

use std::collections::HashMap;

use super::{check_number, check_scores};
use crate::ScorerError;

/// Split-conformal p-values: the share of normal items that look at least as anomalous.
///
/// # What it computes
/// For held-out normal scores `s_1 … s_n`, the p-value of a score `s` is `(1 + #{i : s_i >= s}) / (n + 1)`.
///
/// If items come in `G` groups (frames of one scene, photographs of one part), it is the p-value of an item of a *new*
/// group: each group counts as one item, through the share of its scores that reach `s`: `(1 + Σ_g #{i in g : s_i >=
/// s} / n_g) / (G + 1)`. That is the mean p-value over all ways to draw one score per group.
///
/// # When to use
/// Whenever the false-alarm rate matters: if the item behind `s` is normal and exchangeable with the held-out ones,
/// then `P(p <= a) <= a` for every `a`, whatever the scorer and whatever the distribution of its scores. With groups,
/// `P(p <= a) <= 2 a` holds for any groups, because a mean of p-values is a p-value up to a factor of two; in
/// simulations over 5 to 100 groups of 2 to 20 items it stays at or below `a` (`docs/decisions.md`). Drawing one score
/// from each group would keep `a` exactly but depend on the draw.
///
/// # Reference
/// Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World* (2005), section 2; Laxhammar and Falkman,
/// *Conformal prediction for distribution-independent anomaly detection in streaming vessel data* (2010). Groups: Dunn,
/// Wasserman and Ramdas, *Distribution-free prediction sets for two-layer hierarchical models* (2023), section 3; the
/// factor of two: Vovk and Wang, *Combining p-values via averaging* (2020).
///
/// ```
/// use nomaly_scorers::decision::Conformal;
///
/// let rule = Conformal::new((1..=99).map(f64::from).collect())?;
/// assert_eq!(rule.p_value(100.0), 0.01);
/// assert_eq!(rule.threshold(0.05), Some(95.0)); // 96 … 99 and whatever is beyond: at most 5 %
/// assert_eq!(rule.threshold(0.005), None);      // 99 scores cannot promise less than 1 %
///
/// // The same scores, three of each scene: 33 scenes cannot promise less than 1 / 34.
/// let scenes: Vec<u32> = (0..99).map(|item| item / 3).collect();
/// let rule = Conformal::of_groups((1..=99).map(f64::from).collect(), &scenes)?;
/// assert_eq!(rule.p_value(100.0), 1.0 / 34.0);
/// # Ok::<(), nomaly_scorers::ScorerError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Conformal {
    /// Ascending.
    scores: Vec<f64>,
    groups: usize,
    /// At `k`, the number of groups in the `k` highest scores, each group weighted by the share of its scores among
    /// them.
    reached: Vec<f64>,
}

impl Conformal {
    /// Calibrates on the scores of independent held-out normal items.
    ///
    /// # Errors
    /// [`ScorerError::TooFewScores`] without scores, [`ScorerError::NonFiniteScore`].
    pub fn new(held_out_scores: Vec<f64>) -> Result<Self, ScorerError> {
        check_scores("a conformal rule", 1, &held_out_scores)?;
        let mut scores = held_out_scores;
        scores.sort_by(f64::total_cmp);
        let n = scores.len();
        Ok(Self { scores, groups: n, reached: (0..=n).map(|count| count as f64).collect() })
    }

    /// Calibrates on the scores of held-out normal items; items of one group depend on each other. `groups` has the
    /// group number of each item.
    ///
    /// # Errors
    /// [`ScorerError::TooFewScores`] without scores, [`ScorerError::NonFiniteScore`], [`ScorerError::Setting`] unless
    /// there is one group per score.
    pub fn of_groups(held_out_scores: Vec<f64>, groups: &[u32]) -> Result<Self, ScorerError> {
        check_scores("a conformal rule", 1, &held_out_scores)?;
        let expected = format!("{} numbers, one a score", held_out_scores.len());
        check_number("groups", groups.len() as f64, groups.len() == held_out_scores.len(), &expected)?;
        let mut sizes: HashMap<u32, f64> = HashMap::new();
        groups.iter().for_each(|&group| *sizes.entry(group).or_default() += 1.0);
        let mut pairs: Vec<(f64, u32)> = held_out_scores.into_iter().zip(groups.iter().copied()).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut reached = vec![0.0];
        let mut sum = 0.0;
        for (_, group) in pairs.iter().rev() {
            sum = round_if_nearly_whole(sum + 1.0 / sizes[group]);
            reached.push(sum);
        }
        Ok(Self { scores: pairs.into_iter().map(|(score, _)| score).collect(), groups: sizes.len(), reached })
    }

    /// The number of held-out scores.
    pub fn n(&self) -> usize {
        self.scores.len()
    }

    /// The number of groups; the number of scores if items are independent.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The held-out scores, ascending.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// The p-value of a score, in `[1 / (G + 1), 1]` for `G` groups; small means anomalous.
    ///
    /// A NaN score gets the smallest p-value, so that an item without a score never counts as normal.
    pub fn p_value(&self, score: f64) -> f64 {
        let below = if score.is_nan() { self.n() } else { self.scores.partition_point(|normal| *normal < score) };
        self.share(self.n() - below)
    }

    /// The smallest possible p-value, and so the smallest false-alarm rate that can be guaranteed: `1 / (G + 1)` for
    /// `G` groups.
    pub fn smallest_p_value(&self) -> f64 {
        self.share(0)
    }

    /// The threshold `t` for which `score > t` holds exactly where `p_value(score) <= max_fpr`.
    ///
    /// For independent items it is the `m`-th largest held-out score with `m = floor(max_fpr (n + 1))`, and minus
    /// infinity (everything is anomalous) where `max_fpr` is 1 or more. `None` where `max_fpr` is less than
    /// [`smallest_p_value`](Self::smallest_p_value): no threshold guarantees that rate; more held-out groups are
    /// needed.
    pub fn threshold(&self, max_fpr: f64) -> Option<f64> {
        // The number of highest scores that may reach a flagged score.
        let allowed = self.reached.partition_point(|reached| self.p_value_of(*reached) <= max_fpr).checked_sub(1)?;
        Some(if allowed == self.n() { f64::NEG_INFINITY } else { self.scores[self.n() - 1 - allowed] })
    }

    /// The p-value of a score that exactly the `count` highest held-out scores reach.
    fn share(&self, count: usize) -> f64 {
        self.p_value_of(self.reached[count])
    }

    fn p_value_of(&self, reached: f64) -> f64 {
        (1.0 + reached) / (self.groups + 1) as f64
    }
}

/// Rounds sums that are almost whole: three thirds are one.
fn round_if_nearly_whole(sum: f64) -> f64 {
    if (sum - sum.round()).abs() < 1e-9 { sum.round() } else { sum }
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

    #[test]
    fn a_group_counts_as_one_item_by_the_share_of_its_scores() {
        let rule = Conformal::of_groups(vec![1.0, 5.0, 6.0, 2.0, 3.0, 9.0], &[7, 7, 7, 0, 0, 4]).unwrap();
        assert_eq!((rule.n(), rule.groups(), rule.smallest_p_value()), (6, 3, 0.25));
        let p = |score| rule.p_value(score) * 4.0 - 1.0;
        assert_eq!(
            [p(0.0), p(2.5), p(5.0), p(9.0), p(9.1), p(f64::NAN)].map(|sum| (sum * 6.0).round()),
            [18.0, 13.0, 10.0, 6.0, 0.0, 0.0]
        );
        assert_eq!([rule.threshold(0.2), rule.threshold(0.25), rule.threshold(0.5)], [None, Some(9.0), Some(6.0)]);
        assert_eq!(rule.threshold(1.0), Some(f64::NEG_INFINITY));
        let wrong = Conformal::of_groups(vec![1.0, 2.0], &[1]);
        assert!(matches!(wrong, Err(ScorerError::Setting(error)) if error.name() == "groups"));
    }

    #[test]
    fn groups_of_one_are_independent_items() {
        let scores: Vec<f64> = (0..50).map(|at| f64::from(at * 37 % 50)).collect();
        let groups: Vec<u32> = (0..50).rev().collect();
        assert_eq!(Conformal::of_groups(scores.clone(), &groups).unwrap(), Conformal::new(scores).unwrap());
    }

    #[test]
    fn whole_groups_count_whole_whatever_their_size() {
        for size in 1..40u32 {
            let groups: Vec<u32> = (0..10 * size).map(|item| item / size).collect();
            let scores: Vec<f64> = groups.iter().map(|group| f64::from(*group)).collect();
            let rule = Conformal::of_groups(scores, &groups).unwrap();
            let reached: Vec<f64> = (0..=10).map(|k| rule.p_value(f64::from(k) - 0.5) * 11.0 - 1.0).collect();
            assert!(reached.iter().enumerate().all(|(k, sum)| (sum - (10 - k) as f64).abs() < 1e-12), "{size}");
        }
    }

    proptest! {
        #[test]
        fn with_groups_threshold_and_p_value_say_the_same(
            held_out in prop::collection::vec((0u8..20, 0u32..12), 1..80),
            scores in prop::collection::vec(0u8..22, 20),
            max_fpr in 0.0f64..1.2,
            sum in any::<Option<prop::sample::Index>>(),
        ) {
            let (held_out, groups): (Vec<f64>, Vec<u32>) =
                held_out.into_iter().map(|(score, group)| (f64::from(score), group)).unzip();
            let rule = Conformal::of_groups(held_out, &groups).unwrap();
            let max_fpr = sum.map_or(max_fpr, |count| rule.share(count.index(rule.n() + 1)));
            let threshold = rule.threshold(max_fpr);
            prop_assert_eq!(threshold.is_none(), max_fpr < rule.smallest_p_value());
            for score in scores.into_iter().map(f64::from) {
                let above = threshold.is_some_and(|threshold| score > threshold);
                prop_assert_eq!(above, rule.p_value(score) <= max_fpr);
            }
        }
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
            let max_fpr = by_rank.map_or(max_fpr, |rank| (rank.index(rule.n() + 2) as f64) / (rule.n() + 1) as f64);
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
            // Exact exchangeability: each of the n + 1 items in turn is the tested one.
            let flagged = (0..scores.len()).filter(|test| {
                let held_out = scores.iter().enumerate().filter(|(i, _)| i != test).map(|(_, s)| f64::from(*s)).collect();
                Conformal::new(held_out).unwrap().p_value(f64::from(scores[*test])) <= max_fpr
            });
            prop_assert!(flagged.count() as f64 <= max_fpr * scores.len() as f64 + 1e-9);
        }
    }
}
