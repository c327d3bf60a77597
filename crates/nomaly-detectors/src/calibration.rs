//! The decision: a threshold that needs no anomalies and keeps the false-alarm rate under control.
//!
//! Every training image is scored once by a fit that has not seen it (`k`-fold cross-validation). Those held-out scores
//! say how normal images score; the conformal p-value of an image is the share of them that score at least as high,
//! `p = (1 + #{sᵢ ≥ s}) / (n + 1)`, and an image is anomalous where `p ≤ max_fpr`. For images exchangeable with the
//! held-out ones, the false-alarm rate is at most `max_fpr` (Vovk, Gammerman & Shafer, *Algorithmic Learning in a
//! Random World*, 2005). The final fit has seen a little more data than each fold's fit, so it scores normal images a
//! little lower: the rule errs on the side of fewer false alarms. Test images are never used.
//!
//! That is the rule where none is asked for. The others ([`DecisionRule`]) take the same held-out scores; how much a
//! threshold would vary with other held-out images is told by its bootstrap interval.

use nomaly_scorers::ScorerError;
use nomaly_scorers::decision::bootstrap::{Bootstrap, Interval};
use nomaly_scorers::decision::{Conformal, ExtremeValue, quantile, three_sigma};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::DetectorError;
use crate::method::HeldOut;

/// The most folds that cross-validation uses.
pub const MAX_FOLDS: usize = 10;
/// The false-alarm rate that is allowed where none is asked for.
///
/// One in twenty is the strictest common level that as few as 19 training images can support.
pub const DEFAULT_MAX_FPR: f64 = 0.05;

/// How a score becomes a decision.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DecisionRule {
    /// Anomalous where the conformal p-value is at most this rate of false alarms, in (0, 1).
    MaxFpr(f64),
    /// Anomalous above the empirical quantile of held-out scores that this share of them, in (0, 1), lies above.
    Quantile(f64),
    /// Anomalous above the mean of held-out scores by more than three of their standard deviations.
    ThreeSigma,
    /// Anomalous where the p-value of a tail fitted to the highest held-out scores is at most this rate, in (0, 1), which
    /// may be smaller than they could show.
    ExtremeValue(f64),
    /// Anomalous where the score is above this value.
    Threshold(f64),
}

impl DecisionRule {
    /// Checks the rule's number.
    ///
    /// # Errors
    /// A rate outside (0, 1), or a threshold that is not a number.
    pub fn checked(self) -> Result<Self, DetectorError> {
        if let Some(rate) = self.rate().filter(|&rate| !(rate > 0.0 && rate < 1.0)) {
            return Err(DetectorError::setting("max_fpr", &rate.to_string(), "a rate between 0 and 1, both excluded"));
        }
        match self {
            Self::Threshold(value) if value.is_nan() => Err(DetectorError::setting("threshold", "NaN", "a number")),
            rule => Ok(rule),
        }
    }

    /// The rate of false alarms that it aims at, for rules that take one.
    pub fn rate(self) -> Option<f64> {
        match self {
            Self::MaxFpr(rate) | Self::Quantile(rate) | Self::ExtremeValue(rate) => Some(rate),
            Self::ThreeSigma | Self::Threshold(_) => None,
        }
    }

    /// The threshold on held-out scores.
    fn threshold(self, held_out: &Conformal) -> Result<f64, ScorerError> {
        match self {
            Self::MaxFpr(rate) => held_out.threshold(rate).ok_or_else(|| ScorerError::TooFewScores {
                what: "a conformal p-value this small",
                needed: scores_for(rate),
                got: held_out.n(),
            }),
            Self::Quantile(rate) => quantile(held_out.scores(), rate),
            Self::ThreeSigma => three_sigma(held_out.scores()),
            Self::ExtremeValue(rate) => ExtremeValue::fit(held_out.scores().to_vec())?.threshold(rate),
            Self::Threshold(value) => Ok(value),
        }
    }
}

/// The fewest held-out scores that allow a conformal p-value of at most `rate`, which is in (0, 1).
pub fn scores_for(rate: f64) -> usize {
    let mut n = (1.0 / rate - 1.0).floor().max(0.0) as usize;
    // Rounding may have taken the last step away.
    while 1.0 / (n as f64 + 1.0) > rate {
        n += 1;
    }
    n
}

/// Held-out scores of normal images, and the rule that turns a score into a decision.
///
/// For methods with maps it also holds the largest value of each held-out map, from which the threshold for pixels
/// follows: the same share of normal images may have any pixel above it.
#[derive(Clone, Debug)]
pub struct Calibration {
    conformal: Conformal,
    map_maxima: Option<Conformal>,
    rule: DecisionRule,
    /// The threshold, or why the held-out scores support none.
    threshold: Result<f64, String>,
    map_threshold: Option<f64>,
    /// What gives p-values under the extreme-value rule.
    tail: Option<ExtremeValue>,
}

impl Calibration {
    /// Ties held-out scores to a rule.
    ///
    /// # Errors
    /// No score, a score that is not a number, or a [rule](DecisionRule::checked) out of range.
    pub fn new(held_out: Vec<f64>, rule: DecisionRule) -> Result<Self, DetectorError> {
        Self::of_scores(Conformal::new(held_out)?, None, rule)
    }

    fn of_scores(
        conformal: Conformal,
        map_maxima: Option<Conformal>,
        rule: DecisionRule,
    ) -> Result<Self, DetectorError> {
        let rule = rule.checked()?;
        let threshold = rule.threshold(&conformal).map_err(|error| error.to_string());
        let map_threshold = map_maxima.as_ref().and_then(|maxima| map_threshold(rule, &conformal, maxima));
        let tail = match rule {
            DecisionRule::ExtremeValue(_) => ExtremeValue::fit(conformal.scores().to_vec()).ok(),
            _ => None,
        };
        Ok(Self { conformal, map_maxima, rule, threshold, map_threshold, tail })
    }

    /// The same with the largest values of held-out maps, one for each held-out image.
    ///
    /// # Errors
    /// Another number of maps than of scores, or a value that is not a number.
    pub fn with_map_maxima(self, map_maxima: Vec<f64>) -> Result<Self, DetectorError> {
        if map_maxima.len() != self.conformal.n() {
            let reason = format!("{} maxima of maps for {} held-out images", map_maxima.len(), self.conformal.n());
            return Err(DetectorError::State { state: "calibration".to_owned(), reason });
        }
        Self::of_scores(self.conformal, Some(Conformal::new(map_maxima)?), self.rule)
    }

    /// Ties what a method gave its held-out images to a rule.
    pub(crate) fn of(held_out: &[HeldOut], rule: DecisionRule) -> Result<Self, DetectorError> {
        let calibration = Self::new(held_out.iter().map(|image| image.score).collect(), rule)?;
        match held_out.iter().map(|image| image.map_max).collect() {
            Some(map_maxima) => calibration.with_map_maxima(map_maxima),
            None => Ok(calibration),
        }
    }

    /// The same with further held-out images.
    pub(crate) fn joined(&self, held_out: &[HeldOut]) -> Result<Self, DetectorError> {
        let more = Self::of(held_out, self.rule)?;
        let joined = Self::new([self.held_out(), more.held_out()].concat(), self.rule)?;
        match (self.map_maxima(), more.map_maxima()) {
            (Some(own), Some(more)) => joined.with_map_maxima([own, more].concat()),
            _ => Ok(joined),
        }
    }

    /// The same held-out scores under another rule.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn with_rule(&self, rule: DecisionRule) -> Result<Self, DetectorError> {
        Self::of_scores(self.conformal.clone(), self.map_maxima.clone(), rule)
    }

    /// The rule in force.
    pub fn rule(&self) -> DecisionRule {
        self.rule
    }

    /// The held-out scores, ascending.
    pub fn held_out(&self) -> &[f64] {
        self.conformal.scores()
    }

    /// The p-value of a score, in [0, 1]: small means anomalous.
    ///
    /// It is the conformal one, in (0, 1], but under the extreme-value rule, which has smaller ones from its tail.
    pub fn p_value(&self, score: f64) -> f64 {
        self.tail.as_ref().map_or_else(|| self.conformal.p_value(score), |tail| tail.p_value(score))
    }

    /// The smallest conformal p-value that any score can get: 1 / (n + 1).
    pub fn smallest_p_value(&self) -> f64 {
        1.0 / (self.conformal.n() as f64 + 1.0)
    }

    /// Scores above this are anomalous; `None` where the held-out scores do not support the rule, most often because they
    /// are too few for the rate asked for, so that nothing can be called anomalous.
    pub fn threshold(&self) -> Option<f64> {
        self.threshold.as_ref().ok().copied()
    }

    /// Why there is no [threshold](Self::threshold), in words.
    pub fn unattainable(&self) -> Option<&str> {
        self.threshold.as_ref().err().map(String::as_str)
    }

    /// The 95 % bootstrap interval of the [threshold](Self::threshold): how far other held-out images might move it. `None`
    /// for a threshold set by hand, where there is none, and for a rule that resamples seldom support.
    pub fn threshold_interval(&self) -> Option<Interval> {
        self.threshold()?;
        if let DecisionRule::Threshold(_) = self.rule {
            return None;
        }
        let threshold = |scores: &[f64]| self.rule.threshold(&Conformal::new(scores.to_vec())?);
        Bootstrap::default().interval(self.held_out(), threshold).ok()
    }

    /// The largest values of the held-out maps, ascending, for methods that make maps.
    pub fn map_maxima(&self) -> Option<&[f64]> {
        self.map_maxima.as_ref().map(Conformal::scores)
    }

    /// Pixels above this are anomalous; `None` for methods without maps, and where the held-out maps do not support the
    /// rule.
    ///
    /// The rule is applied to the largest values of the maps. For a threshold set by hand, as many held-out images have a
    /// pixel above it as score above [`threshold`](Self::threshold).
    pub fn map_threshold(&self) -> Option<f64> {
        self.map_threshold
    }

    /// Whether a score is anomalous.
    pub fn is_anomalous(&self, score: f64) -> bool {
        self.threshold().is_some_and(|threshold| score > threshold)
    }

    /// The rule in words.
    pub fn describe(&self) -> String {
        let n = self.conformal.n();
        match self.rule {
            DecisionRule::MaxFpr(rate) => {
                format!("conformal p-value of at most {rate} against {n} held-out normal items")
            }
            DecisionRule::Quantile(rate) => {
                format!("score above the quantile that a share {rate} of {n} held-out normal items lies above")
            }
            DecisionRule::ThreeSigma => {
                format!("score above mean + 3 standard deviations of {n} held-out normal items")
            }
            DecisionRule::ExtremeValue(rate) => {
                let exceedances = self.tail.as_ref().map_or(0, ExtremeValue::exceedances);
                format!(
                    "extreme-value p-value of at most {rate}, by the tail of {exceedances} of {n} held-out normal items"
                )
            }
            DecisionRule::Threshold(_) => "score above a threshold set by hand".to_owned(),
        }
    }
}

/// The threshold of pixels: the rule on the largest values of held-out maps.
fn map_threshold(rule: DecisionRule, scores: &Conformal, maxima: &Conformal) -> Option<f64> {
    let DecisionRule::Threshold(value) = rule else { return rule.threshold(maxima).ok() };
    let above = scores.scores().iter().filter(|&&score| score > value).count();
    // The largest maximum where no score is above; below the smallest where all are.
    let rank = maxima.n().checked_sub(above + 1);
    Some(rank.map_or(f64::NEG_INFINITY, |rank| maxima.scores()[rank]))
}

/// Splits `n` items into up to [`MAX_FOLDS`] folds, each ascending, as equal in size as can be.
///
/// The assignment follows from `seed` alone. Fewer items than [`MAX_FOLDS`] are left out one at a time.
pub fn folds(n: usize, seed: u64) -> Vec<Vec<usize>> {
    folds_of(n, MAX_FOLDS, seed)
}

/// As [`folds`], with another limit on their number.
pub(crate) fn folds_of(n: usize, most: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let count = n.min(most);
    (0..count)
        .map(|fold| {
            let mut members: Vec<usize> = order.iter().skip(fold).step_by(count).copied().collect();
            members.sort_unstable();
            members
        })
        .collect()
}

/// Scores each of `n` items with a fit on the other [`folds`].
///
/// `score(train, test)` fits on the items `train` and gives the same number of scores, at least one, for each of the items
/// `test`, both ascending. The scores of an item stay together.
///
/// # Errors
/// Whatever `score` fails with.
pub fn cross_validated_scores(
    n: usize,
    seed: u64,
    mut score: impl FnMut(&[usize], &[usize]) -> Result<Vec<f64>, DetectorError>,
) -> Result<Vec<f64>, DetectorError> {
    let mut held_out = vec![Vec::new(); n];
    for test in folds(n, seed) {
        let train: Vec<usize> = (0..n).filter(|row| test.binary_search(row).is_err()).collect();
        let scores = score(&train, &test)?;
        for (item, scores) in test.iter().zip(scores.chunks(scores.len() / test.len())) {
            held_out[*item] = scores.to_vec();
        }
    }
    Ok(held_out.concat())
}

/// Items to fit on, and items that this fit scores, both ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The items to fit on.
    pub train: Vec<usize>,
    /// The items that are held out.
    pub test: Vec<usize>,
}

impl Split {
    /// Holds the items `test`, ascending, out of `n`.
    pub(crate) fn holding_out(test: Vec<usize>, n: usize) -> Self {
        let mut held_out = vec![false; n];
        test.iter().for_each(|&item| held_out[item] = true);
        Self { train: (0..n).filter(|&item| !held_out[item]).collect(), test }
    }
}

/// The most items that [`splits`] uses [`MAX_FOLDS`] folds for.
pub const MANY_FOLDS_UP_TO: usize = 1_000;
/// The most items that [`splits`] uses [`FEW_FOLDS`] folds for.
pub const FOLDS_UP_TO: usize = 10_000;
/// The folds between the two.
pub const FEW_FOLDS: usize = 5;
/// The most items that a single split holds out.
const MOST_HELD_OUT: usize = 10_000;

/// The splits that `n` items are calibrated with, where every fit costs more the more items there are.
///
/// Up to 1 000 items it is 10-fold cross-validation, up to 10 000 items 5-fold. Above that a single random split holds
/// out a fifth of the items, at most 10 000 of them: so many scores know a false-alarm rate of 1 % to a standard error of
/// 0.1 points, and one more fit is all it costs. The splits follow from `n` and `seed` alone.
pub fn splits(n: usize, seed: u64) -> Vec<Split> {
    let tests = if n <= MANY_FOLDS_UP_TO {
        folds(n, seed)
    } else if n <= FOLDS_UP_TO {
        folds_of(n, FEW_FOLDS, seed)
    } else {
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        order.truncate(MOST_HELD_OUT.min(n / FEW_FOLDS));
        order.sort_unstable();
        vec![order]
    };
    tests.into_iter().map(|test| Split::holding_out(test, n)).collect()
}

/// Scores of items by fits that have not seen them, along the [`splits`] of `n` items.
///
/// `fit_and_score(train, test)` fits on the items `train` and gives one score for each of the items `test`, both
/// ascending. The scores come in the order of the items; above 10 000 items they are those of the held-out ones alone.
/// The detector itself is then fitted on all items.
///
/// # Errors
/// Whatever `fit_and_score` fails with.
pub fn held_out_scores(
    n: usize,
    seed: u64,
    mut fit_and_score: impl FnMut(&[usize], &[usize]) -> Result<Vec<f64>, DetectorError>,
) -> Result<Vec<f64>, DetectorError> {
    let mut scored = Vec::new();
    for Split { train, test } in splits(n, seed) {
        let scores = fit_and_score(&train, &test)?;
        debug_assert_eq!(scores.len(), test.len());
        scored.extend(test.into_iter().zip(scores));
    }
    scored.sort_unstable_by_key(|(item, _)| *item);
    Ok(scored.into_iter().map(|(_, score)| score).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_splits_get_fewer_as_items_get_more() {
        for (n, count, held_out) in [(1, 1, 1), (7, 7, 7), (1000, 10, 1000), (1001, 5, 1001), (10_000, 5, 10_000)] {
            assert_eq!(splits(n, 3).len(), count, "n = {n}");
            let scores = held_out_scores(n, 3, |train, test| {
                assert_eq!(train.len() + test.len(), n);
                assert!(test.iter().all(|item| train.binary_search(item).is_err()));
                Ok(test.iter().map(|&item| item as f64).collect())
            });
            assert!(scores.unwrap().into_iter().eq((0..held_out).map(|item| item as f64)), "n = {n}");
        }
        for (n, held_out) in [(10_001, 2000), (60_000, 10_000)] {
            let splits = splits(n, 3);
            assert_eq!((splits.len(), splits[0].test.len(), splits[0].train.len()), (1, held_out, n - held_out));
        }
        assert!(splits(0, 3).is_empty());
        assert_ne!(splits(20_000, 3), splits(20_000, 4));
    }

    #[test]
    fn every_item_is_scored_once_by_a_fit_that_has_not_seen_it() {
        for n in [2, 3, 9, 10, 11, 57] {
            let mut times = vec![0; n];
            let held_out = cross_validated_scores(n, 7, |train, test| {
                assert_eq!(train.len() + test.len(), n);
                assert!(test.iter().all(|row| !train.contains(row)));
                test.iter().for_each(|&row| times[row] += 1);
                Ok(test.iter().map(|&row| row as f64).collect())
            })
            .unwrap();
            assert!(times.iter().all(|&count| count == 1), "n = {n}: {times:?}");
            assert!(held_out.iter().enumerate().all(|(row, &value)| value == row as f64));
        }
    }

    #[test]
    fn threshold_and_p_value_agree_on_every_decision() {
        let held_out: Vec<f64> = (1..=40).map(f64::from).collect();
        for rate in [0.01, 0.025, 0.05, 0.1, 0.5] {
            let calibration = Calibration::new(held_out.clone(), DecisionRule::MaxFpr(rate)).unwrap();
            for score in (0..90).map(|step| f64::from(step) * 0.5) {
                let by_p_value = calibration.p_value(score) <= rate;
                assert_eq!(calibration.is_anomalous(score), by_p_value, "rate {rate}, score {score}");
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
    fn too_few_held_out_scores_flag_nothing() {
        let calibration = Calibration::new(vec![1.0, 2.0, 3.0], DecisionRule::MaxFpr(0.05)).unwrap();
        assert_eq!(calibration.threshold(), None);
        assert!(!calibration.is_anomalous(1e9));
        assert_eq!(calibration.smallest_p_value(), 0.25);
        let reason = calibration.unattainable().unwrap();
        assert!(reason.contains("at least 19 held-out scores, but there are 3"), "{reason}");
        assert_eq!(calibration.threshold_interval(), None);
        for rule in [DecisionRule::ExtremeValue(1e-3), DecisionRule::ThreeSigma] {
            let calibration = Calibration::new(vec![1.0], rule).unwrap();
            assert!(calibration.threshold().is_none() && calibration.unattainable().is_some(), "{rule:?}");
            assert!(!calibration.is_anomalous(1e9));
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
            assert!(calibration.is_anomalous(threshold + 1e-6) && !calibration.is_anomalous(threshold));
            assert_eq!(calibration.with_rule(rule).unwrap().threshold(), Some(threshold));
            // What the model file stores brings the same rule back.
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

    #[test]
    fn rules_out_of_range_are_refused() {
        for rate in [0.0, 1.0, -0.1, f64::NAN] {
            for rule in [DecisionRule::MaxFpr(rate), DecisionRule::Quantile(rate), DecisionRule::ExtremeValue(rate)] {
                assert!(rule.checked().is_err(), "{rule:?}");
            }
        }
        assert!(DecisionRule::Threshold(f64::NAN).checked().is_err());
    }
}
