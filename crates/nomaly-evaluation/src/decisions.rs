//! Figures of decisions on labelled items.

use nomaly_detectors::Calibration;
use nomaly_methods::Groups;
use nomaly_metrics::{
    Bootstrap, ConfusionMatrix, ImageIntervals, auroc_with_interval, average_precision, eer, f1_max,
    grouped_share_interval,
};

use crate::error::EvaluationError;
use crate::intervals::{LEVEL, ends};
use nomaly_wire::{ImageFigures, PValueShare, ThresholdFigures};

fn image_figures(
    scores: &[f64],
    labels: &[bool],
    groups: &Groups,
    intervals: &ImageIntervals,
) -> Result<ImageFigures, EvaluationError> {
    let area = auroc_with_interval(scores, labels, LEVEL)?;
    Ok(ImageFigures {
        auroc: area.auroc,
        // DeLong's interval assumes independent images.
        auroc_ci: if groups.is_trivial() { area.interval.map(ends) } else { Some(ends(intervals.auroc)) },
        ap: average_precision(scores, labels)?,
        ap_ci: ends(intervals.ap),
        f1_max: f1_max(scores, labels)?.f1,
        f1_max_ci: ends(intervals.f1_max),
        eer: eer(scores, labels)?.rate,
        eer_ci: ends(intervals.eer),
    })
}

/// Scores of labelled items, at least one of them normal, and the decision on them.
pub(crate) struct ScoredItems<'a> {
    calibration: &'a Calibration,
    scores: &'a [f64],
    labels: &'a [bool],
    groups: &'a Groups,
    /// Bootstrap intervals; `None` if no item is labelled anomalous.
    intervals: Option<ImageIntervals>,
}

impl<'a> ScoredItems<'a> {
    /// Creates it from scores of items (at least one normal), labels (true for anomalous) and groups of dependent
    /// items.
    pub(crate) fn new(
        calibration: &'a Calibration,
        scores: &'a [f64],
        labels: &'a [bool],
        groups: &'a Groups,
    ) -> Result<Self, EvaluationError> {
        let bootstrap = Bootstrap { level: LEVEL, ..Bootstrap::default() };
        let above = calibration.threshold().unwrap_or(f64::INFINITY);
        let both = labels.contains(&true);
        let intervals = both.then(|| bootstrap.intervals_of_groups(scores, labels, groups.of(), above)).transpose()?;
        Ok(Self { calibration, scores, labels, groups, intervals })
    }

    /// Figures of the ranking; `None` if no item is labelled anomalous.
    pub(crate) fn image(&self) -> Result<Option<ImageFigures>, EvaluationError> {
        let figures = |intervals| image_figures(self.scores, self.labels, self.groups, &intervals);
        self.intervals.map(figures).transpose()
    }

    /// Figures of the decisions.
    pub(crate) fn threshold(&self) -> Result<ThresholdFigures, EvaluationError> {
        let value = self.calibration.threshold();
        let counts =
            value.map(|value| ConfusionMatrix::at(self.scores, self.labels, value)).transpose()?.unwrap_or_default();
        let intervals = self.intervals.filter(|_| value.is_some());
        // Without a threshold there are no counts, and so no rates.
        let both = |figure: Option<f64>| figure.filter(|_| intervals.is_some());
        // The interval of the share of flagged items among those for which `of` holds, which gets an item's label and
        // whether it is flagged.
        let share = |flagged: &dyn Fn(bool) -> bool, of: &dyn Fn(bool, bool) -> bool| {
            let Some(value) = value else { return Ok(None) };
            let (mut flags, mut groups) = (Vec::new(), Vec::new());
            for ((&score, &label), &group) in self.scores.iter().zip(self.labels).zip(self.groups.of()) {
                if of(label, score > value) {
                    flags.push(if flagged(label) { label } else { score > value });
                    groups.push(group);
                }
            }
            Ok::<_, EvaluationError>(grouped_share_interval(&flags, &groups, LEVEL)?.map(ends))
        };
        let precision = both(counts.precision());
        let precision_ci = share(&|_| true, &|_, flagged| flagged)?;
        Ok(ThresholdFigures {
            value,
            value_ci: self.calibration.threshold_interval().map(|interval| [interval.low, interval.high]),
            rule: self.calibration.describe(),
            fpr: counts.fpr(),
            fpr_ci: share(&|_| false, &|label, _| !label)?,
            tpr: counts.tpr(),
            tpr_ci: share(&|_| false, &|label, _| label)?,
            fnr: counts.fnr(),
            tnr: counts.tnr(),
            precision,
            precision_ci: precision_ci.filter(|_| precision.is_some()),
            recall: counts.recall(),
            accuracy: both(counts.accuracy()),
            accuracy_ci: intervals.map(|intervals| ends(intervals.accuracy)),
            f1: both(counts.f1()),
            f1_ci: intervals.map(|intervals| ends(intervals.f1)),
        })
    }
}

/// The levels of small p-values.
const SMALL: [f64; 3] = [0.01, 0.05, 0.1];

/// The shares of normal items with small p-values.
pub(crate) fn p_value_shares(
    p_values: &[f64],
    labels: &[bool],
    groups: &Groups,
) -> Result<Vec<PValueShare>, EvaluationError> {
    let items = p_values.iter().zip(labels).zip(groups.of()).filter(|((_, label), _)| !**label);
    let (normal, of): (Vec<f64>, Vec<u32>) = items.map(|((p, _), group)| (*p, *group)).unzip();
    let share = |at_most: f64| {
        let flags: Vec<bool> = normal.iter().map(|p| *p <= at_most).collect();
        let share_ci = grouped_share_interval(&flags, &of, LEVEL)?.map(ends);
        let part = flags.iter().filter(|flag| **flag).count();
        Ok(PValueShare { at_most, share: part as f64 / flags.len() as f64, share_ci })
    };
    SMALL.into_iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nomaly_detectors::DecisionRule;

    /// Nine held-out scores, 1 to 9.
    fn calibration(rate: f64) -> Calibration {
        Calibration::new((1..10).map(f64::from).collect(), DecisionRule::MaxFpr(rate)).unwrap()
    }

    #[test]
    fn without_a_threshold_no_figure_of_decisions_is_claimed() {
        let groups = Groups::singletons(4);
        let (calibration, scores, labels) = (calibration(0.01), [1.0, 2.0, 30.0, 1.0], [false, false, true, true]);
        let decided = ScoredItems::new(&calibration, &scores, &labels, &groups).unwrap();
        assert_eq!(decided.image().unwrap().unwrap().auroc, 0.625);
        let figures = decided.threshold().unwrap();
        assert_eq!((figures.value, figures.value_ci), (None, None));
        let values = [figures.fpr, figures.tpr, figures.fnr, figures.tnr, figures.precision, figures.recall];
        assert_eq!((values, figures.accuracy, figures.f1), ([None; 6], None, None));
        let intervals = [figures.fpr_ci, figures.tpr_ci, figures.precision_ci, figures.accuracy_ci, figures.f1_ci];
        assert_eq!(intervals, [None; 5]);
    }

    #[test]
    fn normal_items_alone_tell_false_alarms() {
        let scores = [1.0, 2.0, 30.0, 1.0];
        let groups = Groups::singletons(4);
        let calibration = calibration(0.1);
        let decided = ScoredItems::new(&calibration, &scores, &[false; 4], &groups).unwrap();
        assert!(decided.image().unwrap().is_none());
        let figures = decided.threshold().unwrap();
        assert_eq!((figures.fpr, figures.tnr, figures.value), (Some(0.25), Some(0.75), Some(9.0)));
        // Wilson's interval of 1 in 4.
        let [low, high] = figures.fpr_ci.unwrap();
        assert!((low - 0.0456).abs() < 1e-4 && (high - 0.6994).abs() < 1e-4, "{low} {high}");
        let values = [figures.tpr, figures.fnr, figures.precision, figures.recall, figures.accuracy, figures.f1];
        assert_eq!(values, [None; 6]);
        assert_eq!((figures.tpr_ci, figures.precision_ci), (None, None));
    }

    #[test]
    fn shares_of_small_p_values_count_normal_items() {
        let shares =
            p_value_shares(&[0.01, 0.05, 0.2, 1.0, 0.001], &[false, false, false, false, true], &Groups::singletons(5))
                .unwrap();
        let shares: Vec<(f64, f64)> = shares.iter().map(|share| (share.at_most, share.share)).collect();
        assert_eq!(shares, [(0.01, 0.25), (0.05, 0.5), (0.1, 0.5)]);
    }
}
