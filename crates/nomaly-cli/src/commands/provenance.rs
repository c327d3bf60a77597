//! Where a model comes from, in words.

use nomaly::calibration::{DecisionHistory, GroupInfo};

use crate::output::{counted, significant};

/// The scores that the decision was calibrated on, and the earlier decisions.
pub(super) fn history(history: &DecisionHistory) -> String {
    let on = |name: &Option<String>| name.clone().unwrap_or_else(|| "held-out training data".to_owned());
    let past = history.past.iter().map(|past| {
        let threshold = past.threshold.map_or("no threshold".to_owned(), |threshold| significant(threshold, 5));
        format!("{threshold} on {} of {}", counted(past.held_out, "score"), on(&past.calibrated_on))
    });
    let past: Vec<String> = past.collect();
    let before = if past.is_empty() { String::new() } else { format!("; before: {}", past.join(", then ")) };
    on(&history.calibrated_on) + &before
}

/// The number of independent groups of training items, and how they were found.
pub(super) fn groups(groups: &GroupInfo) -> String {
    match &groups.how {
        Some(how) => format!("{} (--group-by {}: {how})", groups.count, groups.by),
        None => format!("{} (--group-by {}: none depend on each other)", groups.count, groups.by),
    }
}
