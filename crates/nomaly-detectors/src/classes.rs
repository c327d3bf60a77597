//! Open-set recognition: the class of an item, or `unknown`.
//!
//! A model of classes scores an item under each of its classes ([`OpenSet`](nomaly_scorers::open_set::OpenSet): the
//! negative log-likelihood under the class's mixture of Gaussians) and assigns it to the likeliest class. Whether it is
//! *unknown* is decided per class. Every training item is scored by a fit without it; each class has its own
//! [`Calibration`] from the held-out items assigned to it, by the same rules as elsewhere. An item is unknown if the
//! calibration of its assigned class calls its score anomalous.
//!
//! The rate of unknowns among items of known classes is thus controlled within each assigned class, provided they are
//! exchangeable with the held-out items. This is Mondrian conformal prediction, with the closest class as the category
//! (Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, 2005, section 4.5). Items count for the
//! assigned class, whether rightly assigned or not.

use nomaly_methods::MethodError;
use nomaly_methods::recognition::{HeldOutClass, KnownClass, UNDECIDED, UNKNOWN, check_name, closest};

use crate::calibration::{Calibration, DecisionRule};
use crate::error::DetectorError;

/// The result for an item, with classes as indices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recognition {
    /// The likeliest class, the first of equally likely ones.
    pub closest: usize,
    /// Whether that class rejects the item; `None` if the class has no threshold.
    pub unknown: Option<bool>,
    /// The p-value of its score among the held-out items assigned to the same class.
    pub p_value: f64,
    /// The score under that class: higher = more anomalous.
    pub score: f64,
}

impl Recognition {
    /// The class of an accepted item; `None` for an unknown or undecided one.
    pub fn class(&self) -> Option<usize> {
        (self.unknown == Some(false)).then_some(self.closest)
    }
}

/// The known classes with their calibrations.
#[derive(Clone, Debug)]
pub struct Classes {
    known: Vec<KnownClass>,
    /// One per class.
    calibrations: Vec<Calibration>,
}

impl Classes {
    /// Calibrates the classes by their held-out scores under a rule.
    ///
    /// # Errors
    /// No class, names that are not ascending or reserved, a class without scores, a score that is not a number, or a
    /// [rule](DecisionRule::checked) out of range.
    pub fn new(held_out: Vec<HeldOutClass>, rule: DecisionRule) -> Result<Self, DetectorError> {
        let names: Vec<&str> = held_out.iter().map(|held_out| held_out.class.name.as_str()).collect();
        if names.is_empty() || !names.is_sorted_by(|a, b| a < b) {
            let reason = format!("{names:?} are no names of classes, each once and in their order");
            return Err(DetectorError::from(MethodError::State { state: "classes".to_owned(), reason: Some(reason) }));
        }
        names.iter().try_for_each(|name| check_name(name))?;
        if let Some(none) = held_out.iter().find(|held_out| held_out.scores.is_empty()) {
            let reason = "no held-out item is taken for it, for other classes cover it".to_owned();
            return Err(DetectorError::from(MethodError::Class { class: none.class.name.clone(), reason }));
        }
        let mut calibrations = Vec::with_capacity(held_out.len());
        let mut known = Vec::with_capacity(held_out.len());
        for HeldOutClass { class, scores, groups } in held_out {
            calibrations.push(match groups {
                Some(groups) => Calibration::of_groups(scores, groups, rule)?,
                None => Calibration::new(scores, rule)?,
            });
            known.push(class);
        }
        Ok(Self { known, calibrations })
    }

    /// Recalibrates with the same held-out scores under another rule.
    ///
    /// # Errors
    /// A [rule](DecisionRule::checked) out of range.
    pub fn with_rule(&self, rule: DecisionRule) -> Result<Self, DetectorError> {
        let calibrations =
            self.calibrations.iter().map(|calibration| calibration.with_rule(rule)).collect::<Result<_, _>>()?;
        Ok(Self { known: self.known.clone(), calibrations })
    }

    /// The classes, ascending by name.
    pub fn known(&self) -> &[KnownClass] {
        &self.known
    }

    /// The calibration of each class, in the order of [`known`](Self::known).
    pub fn calibrations(&self) -> &[Calibration] {
        &self.calibrations
    }

    /// The label of an item: the name of its class, [`UNKNOWN`], or [`UNDECIDED`].
    ///
    /// # Panics
    /// For the result of other classes.
    pub fn label(&self, found: &Recognition) -> &str {
        match found.unknown {
            Some(false) => &self.known[found.closest].name,
            Some(true) => UNKNOWN,
            None => UNDECIDED,
        }
    }

    /// The first class whose held-out scores do not support the rule, and why. Items assigned to it remain undecided.
    pub fn unattainable(&self) -> Option<(&KnownClass, &str)> {
        let reasons = self.calibrations.iter().map(Calibration::unattainable);
        self.known.iter().zip(reasons).find_map(|(class, reason)| Some((class, reason?)))
    }

    /// The rule for unknown items, in words.
    pub fn describe(&self) -> String {
        match self.calibrations.first().map(Calibration::rule) {
            None => String::new(),
            Some(DecisionRule::MaxFpr(rate)) => format!("conformal p-value of at most {rate} in the closest class"),
            Some(DecisionRule::Quantile(rate)) => {
                format!("score above the quantile for a share {rate} of the held-out items of the closest class")
            }
            Some(DecisionRule::ThreeSigma) => {
                "score above mean + 3 standard deviations of the held-out items of the closest class".to_owned()
            }
            Some(DecisionRule::ExtremeValue(rate)) => {
                format!("extreme-value p-value of at most {rate} in the closest class")
            }
            Some(DecisionRule::RobustTail(rate)) => {
                format!("p-value of at most {rate} by a robust tail of the closest class")
            }
            Some(DecisionRule::Threshold(_)) => "score above a threshold set by hand".to_owned(),
        }
    }

    /// Decides on an item by its scores under each class, in order.
    ///
    /// # Panics
    /// Unless there is one score per class.
    pub fn recognize(&self, scores: &[f64]) -> Recognition {
        assert_eq!(scores.len(), self.known.len(), "one score a class");
        let closest = closest(scores);
        let (score, calibration) = (scores[closest], &self.calibrations[closest]);
        Recognition { closest, unknown: calibration.decide(score), p_value: calibration.p_value(score), score }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(rule: DecisionRule) -> Classes {
        let held_out = |name: &str, first: u32| HeldOutClass {
            class: KnownClass { name: name.to_owned(), items: 39 },
            scores: (first..first + 39).map(f64::from).collect(),
            groups: None,
        };
        Classes::new(vec![held_out("bolt", 1), held_out("nut", 101)], rule).unwrap()
    }

    #[test]
    fn an_item_is_taken_for_the_likeliest_class_or_refused_by_it() {
        let classes = classes(DecisionRule::MaxFpr(0.05));
        let thresholds: Vec<_> = classes.calibrations().iter().map(|class| class.threshold().unwrap()).collect();
        assert_eq!(thresholds, [38.0, 138.0]);
        let recognize = |scores: [f64; 2]| {
            let found = classes.recognize(&scores);
            assert_eq!(found.score, scores[0].min(scores[1]));
            (classes.known()[found.closest].name.as_str(), classes.label(&found))
        };
        assert_eq!(recognize([20.0, 120.0]), ("bolt", "bolt"));
        assert_eq!(recognize([39.0, 120.0]), ("bolt", "unknown"));
        assert_eq!(recognize([200.0, 138.0]), ("nut", "nut"));
        assert_eq!(recognize([200.0, 138.5]), ("nut", "unknown"));
        assert_eq!(recognize([1.0, 1.0]), ("bolt", "bolt"));
    }

    #[test]
    fn p_values_and_decisions_agree_under_every_rate() {
        for rate in [0.025, 0.05, 0.1, 0.5] {
            let classes = classes(DecisionRule::MaxFpr(rate));
            for scores in (0..900).map(|step| [f64::from(step % 30) * 5.0, 95.0 + f64::from(step / 30) * 1.5]) {
                let found = classes.recognize(&scores);
                assert_eq!(found.unknown, Some(found.p_value <= rate), "{rate} {scores:?}");
            }
        }
        let by_hand = classes(DecisionRule::MaxFpr(0.05)).with_rule(DecisionRule::Threshold(50.0)).unwrap();
        assert_eq!(by_hand.recognize(&[49.0, 51.0]).class(), Some(0));
        assert_eq!(by_hand.recognize(&[51.0, 50.5]).class(), None);
    }

    #[test]
    fn a_class_with_too_few_scores_is_named() {
        let strict = classes(DecisionRule::MaxFpr(0.01));
        let (class, reason) = strict.unattainable().unwrap();
        assert!(class.name == "bolt" && reason.contains("at least 99"), "{reason}");
        let found = strict.recognize(&[1e9, 1e9]);
        assert_eq!((found.unknown, found.class(), strict.label(&found)), (None, None, "undecided"));
        assert_eq!(classes(DecisionRule::MaxFpr(0.05)).unattainable(), None);
    }

    #[test]
    fn names_that_no_class_can_have_are_refused() {
        let build = |names: &[&str]| {
            let held_out = |name: &&str| HeldOutClass {
                class: KnownClass { name: (*name).to_owned(), items: 1 },
                scores: vec![0.0],
                groups: None,
            };
            Classes::new(names.iter().map(held_out).collect(), DecisionRule::ThreeSigma).map(drop)
        };
        assert!(build(&["a", "b"]).is_ok());
        for names in
            [&[][..], &["b", "a"], &["a", "a"], &["", "a"], &["unknown"], &["Unknown", "a"], &["Undecided", "a"]]
        {
            assert!(build(names).is_err(), "{names:?}");
        }
        let class = KnownClass { name: "a".to_owned(), items: 5 };
        let none =
            Classes::new(vec![HeldOutClass { class, scores: Vec::new(), groups: None }], DecisionRule::ThreeSigma);
        assert!(none.unwrap_err().to_string().contains("class `a`"));
    }
}
