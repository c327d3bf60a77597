//! The confidence intervals of all figures, and their sample sizes.

use nomaly_methods::Groups;
use nomaly_metrics::Interval;
use nomaly_wire::{Ends, TestCounts};

/// The confidence level of every interval.
pub const LEVEL: f64 = 0.95;

/// An interval in the form of the figures.
pub(crate) fn ends(interval: Interval) -> Ends {
    [interval.low, interval.high]
}

/// The number of groups per label, if items depend on each other.
pub(crate) fn independent(groups: &Groups, labels: &[bool]) -> Option<TestCounts> {
    let of_label = |label: bool| {
        let of = groups.of().iter().zip(labels).filter(|(_, own)| **own == label);
        of.map(|(group, _)| group).collect::<std::collections::BTreeSet<_>>().len()
    };
    (!groups.is_trivial()).then(|| TestCounts { normal: of_label(false), anomalous: of_label(true) })
}
