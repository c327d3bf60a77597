//! Calibration: held-out scores and the decision rule.

use nomaly_methods::{Groups, HeldOut, MethodError};
use nomaly_scorers::ScorerError;
use nomaly_scorers::decision::bootstrap::{ThresholdBootstrap, ThresholdInterval};
use nomaly_scorers::decision::{ExtremeValue, RobustTail};

use super::rule::DecisionRule;
use super::scores::Scores;
use crate::error::DetectorError;

/// Held-out scores of normal images with the rule that turns a score into a decision.
///
/// For methods with maps it also holds the largest value of each held-out map, which determines the pixel threshold:
/// the same share of normal images may have any pixel above it.
#[derive(Clone, Debug)]
pub struct Calibration {
    scores: Scores,
    map_maxima: Option<Scores>,
    /// The group of each held-out item; `None` if all are independent.
    groups: Option<Vec<u32>>,
    rule: DecisionRule,
    /// The threshold, or why the held-out scores support none.
    threshold: Result<f64, String>,
    map_threshold: Option<f64>,
    /// The tail that gives p-values, for rules with a tail.
    tail: Option<Tail>,
}

/// A tail fitted to held-out scores.
#[derive(Clone, Debug)]
enum Tail {
    Extreme(ExtremeValue),
    Robust(RobustTail),
}

impl Tail {
    fn of(rule: DecisionRule, scores: &Scores) -> Option<Self> {
        match rule {
            DecisionRule::ExtremeValue(_) => ExtremeValue::fit(scores.independent().to_vec()).ok().map(Self::Extreme),
            DecisionRule::RobustTail(_) => RobustTail::fit(scores.independent()).ok().map(Self::Robust),
            _ => None,
        }
    }

    fn p_value(&self, score: f64) -> f64 {
        match self {
            Self::Extreme(tail) => tail.p_value(score),
            Self::Robust(tail) => tail.p_value(score),
        }
    }
}

impl Calibration {
    /// Calibrates a rule on held-out scores of independent items.
    ///
    /// # Errors
    /// No score, a score that is not a number, or a [rule](DecisionRule::checked) out of range.
    pub fn new(held_out: Vec<f64>, rule: DecisionRule) -> Result<Self, DetectorError> {
        Self::of_scores(Scores::new(held_out, None)?, None, None, rule)
    }

    /// Calibrates a rule on held-out scores of grouped items; `groups` holds the group number of each.
    ///
    /// # Errors
    /// As [`new`](Self::new), and different numbers of groups and scores.
    pub fn of_groups(held_out: Vec<f64>, groups: Vec<u32>, rule: DecisionRule) -> Result<Self, DetectorError> {
        Self::of_scores(Scores::new(held_out, Some(&groups))?, None, Some(groups), rule)
    }

    fn of_scores(
        scores: Scores,
        map_maxima: Option<Scores>,
        groups: Option<Vec<u32>>,
        rule: DecisionRule,
    ) -> Result<Self, DetectorError> {
        let rule = rule.checked()?;
        let threshold = rule.threshold(&scores).map_err(|error| match (&groups, error) {
            (Some(_), ScorerError::TooFewScores { what, needed, got }) => format!(
                "{what} needs at least {needed} independent groups of images, and the {} held-out scores are of {got}",
                scores.values.len()
            ),
            (_, error) => error.to_string(),
        });
        let map_threshold = map_maxima.as_ref().and_then(|maxima| map_threshold(rule, &scores, maxima));
        let tail = Tail::of(rule, &scores);
        Ok(Self { scores, map_maxima, groups, rule, threshold, map_threshold, tail })
    }

    /// Adds the largest values of held-out maps, one for each held-out image, in the same order.
    ///
    /// # Errors
    /// Different numbers of maps and scores, or a value that is NaN.
    pub fn with_map_maxima(self, map_maxima: Vec<f64>) -> Result<Self, DetectorError> {
        if map_maxima.len() != self.scores.values.len() {
            let reason =
                format!("{} maxima of maps for {} held-out images", map_maxima.len(), self.scores.values.len());
            return Err(DetectorError::from(MethodError::State {
                state: "calibration".to_owned(),
                reason: Some(reason),
            }));
        }
        let map_maxima = Scores::new(map_maxima, self.groups.as_deref())?;
        Self::of_scores(self.scores, Some(map_maxima), self.groups, self.rule)
    }

    /// Calibrates a rule on the held-out scores of a method; `groups` covers all images.
    pub(crate) fn of(held_out: &[HeldOut], groups: &Groups, rule: DecisionRule) -> Result<Self, DetectorError> {
        let scores = held_out.iter().map(|image| image.score).collect();
        let calibration = if groups.is_trivial() {
            Self::new(scores, rule)?
        } else {
            Self::of_groups(scores, held_out.iter().map(|image| groups.of()[image.image]).collect(), rule)?
        };
        match held_out.iter().map(|image| image.map_max).collect() {
            Some(map_maxima) => calibration.with_map_maxima(map_maxima),
            None => Ok(calibration),
        }
    }

    /// Adds further held-out images, of new groups.
    pub(crate) fn joined(&self, more: &Self) -> Result<Self, DetectorError> {
        let scores = [self.in_order(), more.in_order()].concat();
        let joined = match (&self.groups, &more.groups) {
            (None, None) => Self::new(scores, self.rule)?,
            _ => {
                let own = self.group_numbers();
                let first = own.iter().max().map_or(0, |most| most + 1);
                let groups = own.into_iter().chain(more.group_numbers().into_iter().map(|group| first + group));
                Self::of_groups(scores, groups.collect(), self.rule)?
            }
        };
        match (&self.map_maxima, &more.map_maxima) {
            (Some(own), Some(more)) => joined.with_map_maxima([own.values.as_slice(), &more.values].concat()),
            _ => Ok(joined),
        }
    }

    /// The group of each held-out item, even if all are independent.
    fn group_numbers(&self) -> Vec<u32> {
        self.groups.clone().unwrap_or_else(|| (0..self.scores.values.len() as u32).collect())
    }

    /// Recalibrates with the same held-out scores under another rule.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn with_rule(&self, rule: DecisionRule) -> Result<Self, DetectorError> {
        Self::of_scores(self.scores.clone(), self.map_maxima.clone(), self.groups.clone(), rule)
    }

    /// The decision rule.
    pub fn rule(&self) -> DecisionRule {
        self.rule
    }

    /// The held-out scores, ascending.
    pub fn held_out(&self) -> &[f64] {
        self.scores.conformal.scores()
    }

    /// The held-out scores in the order of their items.
    pub fn in_order(&self) -> &[f64] {
        &self.scores.values
    }

    /// The group number of each held-out item, in the order of [`in_order`](Self::in_order); `None` if all items are
    /// independent.
    pub fn groups(&self) -> Option<&[u32]> {
        self.groups.as_deref()
    }

    /// The number of independent held-out scores: one per group.
    pub fn independent(&self) -> usize {
        self.scores.conformal.groups()
    }

    /// One held-out score per group, for statistics of independent scores.
    pub fn independent_scores(&self) -> &[f64] {
        self.scores.independent()
    }

    /// The p-value of a score, in [0, 1]: small means anomalous.
    ///
    /// It is the conformal p-value, in (0, 1]; rules with a tail compute smaller ones from the tail.
    pub fn p_value(&self, score: f64) -> f64 {
        self.tail.as_ref().map_or_else(|| self.scores.conformal.p_value(score), |tail| tail.p_value(score))
    }

    /// The smallest possible conformal p-value: 1 / (n + 1) for `n` independent held-out scores.
    pub fn smallest_p_value(&self) -> f64 {
        self.scores.conformal.smallest_p_value()
    }

    /// Scores above this are anomalous; `None` if the held-out scores do not support the rule, mostly because they are
    /// too few for the requested rate.
    pub fn threshold(&self) -> Option<f64> {
        self.threshold.as_ref().ok().copied()
    }

    /// Why there is no [threshold](Self::threshold), in words.
    pub fn unattainable(&self) -> Option<&str> {
        self.threshold.as_ref().err().map(String::as_str)
    }

    /// The 95 % bootstrap interval of the [threshold](Self::threshold). `None` for a threshold set by hand, without a
    /// threshold, and for a rule that resamples rarely support.
    pub fn threshold_interval(&self) -> Option<ThresholdInterval> {
        self.threshold()?;
        if let DecisionRule::Threshold(_) = self.rule {
            return None;
        }
        let bootstrap = ThresholdBootstrap::default();
        match &self.groups {
            None => {
                let threshold = |scores: &[f64]| self.rule.threshold(&Scores::new(scores.to_vec(), None)?);
                bootstrap.interval(self.held_out(), threshold).ok()
            }
            Some(groups) => {
                let groups = Groups::of_keys(groups);
                let threshold = |drawn: &[usize]| self.rule.threshold(&self.scores.resampled(&groups, drawn)?);
                bootstrap.interval_of_groups(groups.count(), threshold).ok()
            }
        }
    }

    /// The largest values of the held-out maps, ascending, for methods that make maps.
    pub fn map_maxima(&self) -> Option<&[f64]> {
        self.map_maxima.as_ref().map(|maxima| maxima.conformal.scores())
    }

    /// The largest values of the held-out maps, in the order of [`in_order`](Self::in_order).
    pub(crate) fn map_maxima_in_order(&self) -> Option<&[f64]> {
        self.map_maxima.as_ref().map(|maxima| maxima.values.as_slice())
    }

    /// Pixels above this are anomalous; `None` for methods without maps, and if the held-out maps do not support the
    /// rule.
    ///
    /// The rule is applied to the largest values of the maps. For a threshold set by hand it is chosen such that as
    /// many held-out images have a pixel above it as score above [`threshold`](Self::threshold).
    pub fn map_threshold(&self) -> Option<f64> {
        self.map_threshold
    }

    /// Whether a score is anomalous: above the [threshold](Self::threshold), or NaN. `None` without a threshold.
    pub fn decide(&self, score: f64) -> Option<bool> {
        self.threshold().map(|threshold| score > threshold || score.is_nan())
    }

    /// The rule in words.
    pub fn describe(&self) -> String {
        let n = self.scores.values.len();
        let of = match &self.groups {
            None => format!("{n} held-out normal items"),
            Some(_) => format!("{n} held-out normal items of {} independent groups", self.independent()),
        };
        match self.rule {
            DecisionRule::MaxFpr(rate) => format!("conformal p-value of at most {rate} against {of}"),
            DecisionRule::Quantile(rate) => format!("score above the quantile that a share {rate} of {of} lies above"),
            DecisionRule::ThreeSigma => format!("score above mean + 3 standard deviations of {of}"),
            DecisionRule::ExtremeValue(rate) => {
                let exceedances = match &self.tail {
                    Some(Tail::Extreme(tail)) => tail.exceedances(),
                    _ => 0,
                };
                format!("extreme-value p-value of at most {rate}, by the tail of {exceedances} of {of}")
            }
            DecisionRule::RobustTail(rate) => {
                format!("p-value of at most {rate} by an exponential tail through median and quartile of {of}")
            }
            DecisionRule::Threshold(_) => "score above a threshold set by hand".to_owned(),
        }
    }
}

/// The pixel threshold: the rule applied to the largest values of held-out maps.
fn map_threshold(rule: DecisionRule, scores: &Scores, maxima: &Scores) -> Option<f64> {
    let DecisionRule::Threshold(value) = rule else { return rule.threshold(maxima).ok() };
    let above = scores.values.iter().filter(|&&score| score > value).count();
    // The largest maximum if no score is above; below the smallest if all are.
    let maxima = maxima.conformal.scores();
    let rank = maxima.len().checked_sub(above + 1);
    Some(rank.map_or(f64::NEG_INFINITY, |rank| maxima[rank]))
}

#[cfg(test)]
mod tests {
    use super::super::rule::{SMALLEST_RATE, scores_for};
    use nomaly_settings::SettingError;

    use super::*;

    #[test]
    fn threshold_and_p_value_agree_on_every_decision() {
        let held_out: Vec<f64> = (1..=40).map(f64::from).collect();
        for rate in [0.01, 0.025, 0.05, 0.1, 0.5] {
            let calibration = Calibration::new(held_out.clone(), DecisionRule::MaxFpr(rate)).unwrap();
            for score in (0..90).map(|step| f64::from(step) * 0.5) {
                let by_p_value = calibration.p_value(score) <= rate;
                let expected = calibration.threshold().map(|_| by_p_value);
                assert_eq!(calibration.decide(score), expected, "rate {rate}, score {score}");
                assert!(expected.is_some() || rate < 1.0 / 41.0);
            }
        }
    }

    #[test]
    fn as_many_normal_maps_as_scores_are_above_their_thresholds() {
        let scores: Vec<f64> = (1..=40).map(f64::from).collect();
        let maxima: Vec<f64> = scores.iter().map(|score| score * score).collect();
        let rates = [0.03, 0.1, 0.5];
        let rules = [rates.map(DecisionRule::MaxFpr), rates.map(DecisionRule::Quantile)].concat().into_iter();
        for rule in rules.chain([0.0, 1.0, 17.5, 40.0, 99.0].map(DecisionRule::Threshold)) {
            let calibration = Calibration::new(scores.clone(), rule).unwrap();
            assert_eq!(calibration.map_threshold(), None);
            let calibration = calibration.with_map_maxima(maxima.clone()).unwrap();
            let above = |values: &[f64], threshold: f64| values.iter().filter(|value| **value > threshold).count();
            assert_eq!(
                above(&maxima, calibration.map_threshold().unwrap()),
                above(&scores, calibration.threshold().unwrap()),
                "{rule:?}"
            );
        }
        let too_few = Calibration::new(scores, DecisionRule::MaxFpr(0.01)).unwrap();
        assert!(too_few.clone().with_map_maxima(vec![1.0]).is_err());
        assert_eq!(too_few.with_map_maxima(maxima).unwrap().map_threshold(), None);
    }

    #[test]
    fn too_few_held_out_scores_decide_nothing() {
        let calibration = Calibration::new(vec![1.0, 2.0, 3.0], DecisionRule::MaxFpr(0.05)).unwrap();
        assert_eq!(calibration.threshold(), None);
        assert_eq!(calibration.decide(1e9), None);
        assert_eq!(calibration.smallest_p_value(), 0.25);
        let reason = calibration.unattainable().unwrap();
        assert!(reason.contains("at least 19 held-out scores, but there are 3"), "{reason}");
        assert_eq!(calibration.threshold_interval(), None);
        for rule in [DecisionRule::ExtremeValue(1e-3), DecisionRule::ThreeSigma] {
            let calibration = Calibration::new(vec![1.0], rule).unwrap();
            assert!(calibration.threshold().is_none() && calibration.unattainable().is_some(), "{rule:?}");
            assert_eq!(calibration.decide(1e9), None);
        }
    }

    #[test]
    fn the_number_of_scores_asked_for_is_just_enough() {
        for rate in [0.5, 0.3, 0.1, 0.05, 0.025, 0.02, 0.01, 0.007, 0.001] {
            let n = scores_for(rate);
            let reachable = |n: usize| {
                let scores = (0..n).map(|score| score as f64).collect();
                Calibration::new(scores, DecisionRule::MaxFpr(rate)).unwrap().threshold().is_some()
            };
            assert!(reachable(n), "rate {rate}, n {n}");
            assert!(n == 1 || !reachable(n - 1), "rate {rate}, n {n}");
        }
        assert_eq!(scores_for(SMALLEST_RATE), 999_999_999);
        assert_eq!([scores_for(1e-300), scores_for(0.0), scores_for(f64::NAN)], [usize::MAX; 3]);
        assert_eq!([scores_for(1.0), scores_for(2.0)], [0, 0]);
    }

    /// Held-out scores with an exponential tail.
    fn exponential(n: u32) -> Vec<f64> {
        (1..=n).map(|i| -(1.0 - (f64::from(i) - 0.5) / f64::from(n)).ln()).collect()
    }

    #[test]
    fn every_rule_has_a_threshold_within_its_interval() {
        let held_out = exponential(200);
        for rule in [
            DecisionRule::MaxFpr(0.05),
            DecisionRule::Quantile(0.05),
            DecisionRule::ThreeSigma,
            DecisionRule::ExtremeValue(0.05),
        ] {
            let calibration = Calibration::new(held_out.clone(), rule).unwrap();
            let (threshold, interval) = (calibration.threshold().unwrap(), calibration.threshold_interval().unwrap());
            assert!(interval.low < threshold && threshold < interval.high, "{rule:?}: {threshold} {interval:?}");
            let decide = |score| calibration.decide(score).unwrap();
            assert!(decide(threshold + 1e-6) && !decide(threshold));
            assert!(decide(f64::NAN) && decide(f64::INFINITY) && !decide(f64::NEG_INFINITY));
            assert_eq!(calibration.with_rule(rule).unwrap().threshold(), Some(threshold));
            // The stored rule is the same.
            let json = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<DecisionRule>(&json).unwrap(), rule, "{json}");
        }
        let by_hand = Calibration::new(held_out, DecisionRule::Threshold(1.0)).unwrap();
        assert_eq!(by_hand.threshold_interval(), None);
    }

    #[test]
    fn the_extreme_value_rule_goes_beyond_the_held_out_scores() {
        let maxima: Vec<f64> = exponential(300).iter().map(|score| 2.0 * score).collect();
        let rule = DecisionRule::ExtremeValue(1e-4);
        let calibration = Calibration::new(exponential(300), rule).unwrap().with_map_maxima(maxima).unwrap();
        let threshold = calibration.threshold().unwrap();
        assert!(threshold > calibration.held_out()[299]);
        assert!((calibration.map_threshold().unwrap() / threshold - 2.0).abs() < 1e-5);
        assert!((calibration.p_value(threshold) / 1e-4 - 1.0).abs() < 1e-9);
        assert!(calibration.p_value(threshold) < calibration.smallest_p_value());
        let conformal = calibration.with_rule(DecisionRule::MaxFpr(1e-4)).unwrap();
        assert_eq!((conformal.threshold(), conformal.map_threshold()), (None, None));
        assert_eq!(conformal.p_value(threshold), conformal.smallest_p_value());
    }

    /// Twenty scenes of five frames: the scores of a scene are close.
    fn scenes() -> (Vec<f64>, Vec<u32>) {
        let score = |item: u32| f64::from(item / 5 * 7 % 20) * 10.0 + f64::from(item % 5);
        ((0..100).map(score).collect(), (0..100).map(|item| item / 5).collect())
    }

    #[test]
    fn groups_count_as_one() {
        let (scores, groups) = scenes();
        let rule = DecisionRule::MaxFpr(0.05);
        let calibration = Calibration::of_groups(scores.clone(), groups.clone(), rule).unwrap();
        assert_eq!((calibration.independent(), calibration.threshold()), (20, Some(194.0)));
        assert_eq!((calibration.in_order(), calibration.groups()), (scores.as_slice(), Some(groups.as_slice())));
        assert_eq!(calibration.p_value(1e9), 1.0 / 21.0);
        assert!(calibration.describe().ends_with("100 held-out normal items of 20 independent groups"));
        let strict = calibration.with_rule(DecisionRule::MaxFpr(0.04)).unwrap();
        let reason = strict.unattainable().unwrap();
        assert!(reason.contains("24 independent groups") && reason.ends_with("are of 20"), "{reason}");
        // Independent scores would support the rule.
        let apart = Calibration::new(scores.clone(), DecisionRule::MaxFpr(0.04)).unwrap();
        assert_eq!(apart.threshold(), Some(191.0));
        // Groups of one score equal no groups.
        let alone = Calibration::of_groups(scores.clone(), (0..100).collect(), DecisionRule::MaxFpr(0.04)).unwrap();
        assert_eq!(alone.threshold(), apart.threshold());
        assert!(Calibration::of_groups(scores, vec![0; 3], rule).is_err());
    }

    #[test]
    fn the_other_rules_take_one_score_a_group() {
        let (scores, groups) = scenes();
        for rule in [DecisionRule::Quantile(0.05), DecisionRule::ThreeSigma, DecisionRule::RobustTail(0.01)] {
            let calibration = Calibration::of_groups(scores.clone(), groups.clone(), rule).unwrap();
            let drawn = calibration.independent_scores();
            let scene = |score: &f64| (score / 10.0).floor() as usize;
            let of: std::collections::BTreeSet<usize> = drawn.iter().map(scene).collect();
            assert_eq!((drawn.len(), of.len()), (20, 20));
            let own = Calibration::new(drawn.to_vec(), rule).unwrap();
            assert_eq!(calibration.threshold(), own.threshold(), "{rule:?}");
        }
    }

    #[test]
    fn intervals_are_wider_where_frames_depend_on_each_other() {
        let (scores, groups) = scenes();
        let width = |calibration: Calibration| {
            let interval = calibration.threshold_interval().unwrap();
            interval.high - interval.low
        };
        let rule = DecisionRule::MaxFpr(0.2);
        let grouped = width(Calibration::of_groups(scores.clone(), groups, rule).unwrap());
        assert!(grouped > 1.5 * width(Calibration::new(scores, rule).unwrap()), "{grouped}");
    }

    #[test]
    fn further_groups_are_others() {
        let (scores, groups) = scenes();
        let rule = DecisionRule::MaxFpr(0.05);
        let own =
            Calibration::of_groups(scores.clone(), groups, rule).unwrap().with_map_maxima(scores.clone()).unwrap();
        let more = Calibration::new(vec![500.0, 501.0], rule).unwrap().with_map_maxima(vec![1.0, 2.0]).unwrap();
        let joined = own.joined(&more).unwrap();
        assert_eq!((joined.independent(), joined.in_order().len()), (22, 102));
        assert_eq!(joined.groups().unwrap()[98..], [19, 19, 20, 21]);
        assert_eq!(joined.map_maxima_in_order().unwrap()[99..], [scores[99], 1.0, 2.0]);
        let plain = Calibration::new(vec![1.0], rule).unwrap();
        assert_eq!(plain.joined(&plain).unwrap().groups(), None);
    }

    #[test]
    fn rules_out_of_range_are_refused() {
        let refused = |rule: DecisionRule, setting: &str| {
            let error = rule.checked().unwrap_err();
            let named = matches!(&error, DetectorError::Method(MethodError::Setting(SettingError::Value { name, .. })) if name == setting);
            assert!(named, "{rule:?}: {error}");
        };
        for rate in [0.0, 1.0, -0.1, f64::NAN, 1e-300, 9.99e-10, 1.0 - 1e-10, 1.0 - 1e-17] {
            for rule in [DecisionRule::MaxFpr(rate), DecisionRule::Quantile(rate), DecisionRule::ExtremeValue(rate)] {
                refused(rule, "max_fpr");
                assert!(Calibration::new(vec![1.0, 2.0], rule).is_err(), "{rule:?}");
            }
        }
        for rate in [SMALLEST_RATE, 0.5, 1.0 - SMALLEST_RATE] {
            assert_eq!(DecisionRule::MaxFpr(rate).checked().unwrap(), DecisionRule::MaxFpr(rate));
        }
        refused(DecisionRule::Threshold(f64::NAN), "threshold");
        refused(DecisionRule::RobustTail(0.6), "max_fpr");
        assert!(DecisionRule::RobustTail(0.5).checked().is_ok());
    }
}
