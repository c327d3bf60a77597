//! Evaluation of the items of a report: decisions, mistakes, and the images to show.

use nomaly_metrics::ConfusionMatrix;

use crate::model::{Item, Report};
use crate::{ReportError, number};

/// The most images shown. With more, mistakes and anomalies take precedence, and the page says how many were omitted.
pub const MAX_IMAGES: usize = 240;

/// The most false alarms, and the most misses, in the section on mistakes.
pub const MAX_MISTAKES: usize = 6;

/// A kind of wrong decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    FalseAlarm,
    Miss,
}

/// An item with its decision and mistake.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) item: &'a Item,
    pub(crate) decision: Option<bool>,
    pub(crate) mistake: Option<Mistake>,
}

impl Entry<'_> {
    /// Rank for the choice of images to show: mistakes, then flagged or truly anomalous images, then the rest.
    fn urgency(&self) -> u8 {
        match (self.mistake, self.decision, self.item.label) {
            (Some(_), ..) => 0,
            (None, Some(true), _) | (None, _, Some(true)) => 1,
            _ => 2,
        }
    }
}

/// The items from the highest score down.
pub(crate) struct Tally<'a> {
    pub(crate) entries: Vec<Entry<'a>>,
    /// Decisions on labelled items.
    pub(crate) confusion: ConfusionMatrix,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(report: &'a Report) -> Result<Self, ReportError> {
        let threshold = report.threshold.as_ref();
        if threshold.is_some_and(|threshold| threshold.value.is_nan()) {
            return Err(ReportError::NanThreshold);
        }
        let mut confusion = ConfusionMatrix::default();
        let mut entries = Vec::with_capacity(report.items.len());
        for item in &report.items {
            if item.score.is_nan() {
                return Err(ReportError::NanScore { id: item.id.clone() });
            }
            let decision = item.anomalous(threshold);
            let mistake = match (decision, item.label) {
                (Some(true), Some(false)) => Some(Mistake::FalseAlarm),
                (Some(false), Some(true)) => Some(Mistake::Miss),
                _ => None,
            };
            if let (Some(flagged), Some(label)) = (decision, item.label) {
                confusion.record(flagged, label);
            }
            entries.push(Entry { item, decision, mistake });
        }
        entries.sort_by(|a, b| b.item.score.total_cmp(&a.item.score).then_with(|| a.item.id.cmp(&b.item.id)));
        Ok(Self { entries, confusion })
    }

    /// Scores and labels of the labelled items.
    pub(crate) fn labelled(&self) -> (Vec<f64>, Vec<bool>) {
        self.entries.iter().filter_map(|entry| Some((entry.item.score, entry.item.label?))).unzip()
    }

    /// False alarms from the highest score down and misses from the lowest up, and the total number of each.
    pub(crate) fn worst(&self) -> [(Mistake, Vec<Entry<'a>>, usize); 2] {
        let of = |kind| self.entries.iter().filter(move |entry| entry.mistake == Some(kind)).copied();
        let (alarms, misses) = (of(Mistake::FalseAlarm), of(Mistake::Miss));
        [
            (Mistake::FalseAlarm, alarms.clone().take(MAX_MISTAKES).collect(), alarms.count()),
            (Mistake::Miss, misses.clone().rev().take(MAX_MISTAKES).collect(), misses.count()),
        ]
    }

    /// The [`MAX_IMAGES`] most important items, from the highest score down; and a text about the omitted ones.
    pub(crate) fn shown(&self) -> (Vec<Entry<'a>>, Option<String>) {
        if self.entries.len() <= MAX_IMAGES {
            return (self.entries.clone(), None);
        }
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|&index| self.entries[index].urgency()); // stable: by score within a rank
        let (kept, left_out) = order.split_at_mut(MAX_IMAGES);
        kept.sort_unstable();
        let is_urgent = |&&index: &&usize| self.entries[index].urgency() < 2;
        let urgent = left_out.iter().filter(is_urgent).count();
        let whole = number::counted(self.entries.len(), "image");
        let text = match urgent {
            0 => format!(
                "{} of {whole} are shown: all mistakes and anomalies, then the highest scores. The rest scored lower.",
                number::grouped(MAX_IMAGES),
            ),
            urgent => format!(
                "{} of {whole} are shown, mistakes first, then anomalies from the highest score down. {} and {} are left out.",
                number::grouped(MAX_IMAGES),
                number::counted(urgent, "further such image"),
                number::counted(left_out.len() - urgent, "other"),
            ),
        };
        (kept.iter().map(|&index| self.entries[index]).collect(), Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Decision, Threshold};

    fn item(index: usize, score: f64, label: Option<bool>) -> Item {
        Item { id: format!("{index:05}"), score, label, ..Item::default() }
    }

    fn report(items: Vec<Item>) -> Report {
        Report { threshold: Some(Threshold { value: 0.5, ..Threshold::default() }), items, ..Report::default() }
    }

    #[test]
    fn mistakes_are_listed_from_the_worst() {
        let scores = [(0.9, false), (0.6, false), (0.1, true), (0.4, true), (0.5, true), (0.8, true), (0.2, false)];
        let items = scores.iter().enumerate().map(|(i, &(score, label))| item(i, score, Some(label))).collect();
        let report = report(items);
        let tally = Tally::new(&report).unwrap();
        let [(_, alarms, n_alarms), (_, misses, n_misses)] = tally.worst();
        let scores = |entries: &[Entry<'_>]| entries.iter().map(|entry| entry.item.score).collect::<Vec<_>>();
        assert_eq!((scores(&alarms), n_alarms), (vec![0.9, 0.6], 2));
        assert_eq!((scores(&misses), n_misses), (vec![0.1, 0.4, 0.5], 3));
        assert_eq!((tally.confusion.true_positives, tally.confusion.true_negatives), (1, 1));
    }

    #[test]
    fn mistakes_and_anomalies_are_shown_before_the_rest() {
        let mut items: Vec<Item> = (0..MAX_IMAGES + 50).map(|i| item(i, 0.4, Some(false))).collect();
        items.push(item(90_000, 0.01, Some(true))); // the miss with the lowest score of all
        items.push(item(90_001, 0.9, None));
        let report = report(items);
        let (shown, note) = Tally::new(&report).unwrap().shown();
        assert_eq!(shown.len(), MAX_IMAGES);
        assert_eq!(shown.first().unwrap().item.id, "90001");
        assert_eq!(shown.last().unwrap().item.id, "90000");
        assert!(note.unwrap().contains("all mistakes and anomalies"));
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let items = (0..MAX_IMAGES + 3).map(|i| item(i, 0.9, Some(true))).chain([item(90_000, 0.1, None)]).collect();
        let report = report(items);
        let (shown, note) = Tally::new(&report).unwrap().shown();
        assert_eq!(shown.len(), MAX_IMAGES);
        let note = note.unwrap();
        assert!(note.contains("3 further such images and 1 other are left out"), "{note}");
    }

    #[test]
    fn a_decision_of_the_item_overrides_the_threshold() {
        let mut decided = item(0, 0.9, Some(false));
        decided.decision = Decision::Normal;
        let report = report(vec![decided, item(1, 0.5, Some(true))]);
        let tally = Tally::new(&report).unwrap();
        assert_eq!(tally.entries[0].decision, Some(false));
        assert_eq!(tally.entries[1].mistake, Some(Mistake::Miss)); // a score equal to the threshold is normal
    }

    #[test]
    fn what_is_undecided_is_no_mistake() {
        let mut undecided = item(0, 0.9, Some(true));
        undecided.decision = Decision::from(None);
        let report = report(vec![undecided]);
        let tally = Tally::new(&report).unwrap();
        assert_eq!((tally.entries[0].decision, tally.entries[0].mistake), (None, None));
        assert_eq!(tally.confusion.total(), 0);
    }
}
