//! Warnings of `nomaly score` about images that are unlike the training images.

use std::collections::BTreeMap;

use nomaly::Outcome;
use nomaly::shift::{InputProfile, RunWatch, ShiftKind};

use crate::console::Console;
use crate::output::counted;

/// The most differences reported for all images together.
const MAX_REPORTED: usize = 4;
/// The meaning of every warning of this kind.
const MEANING: &str = "the false-alarm rate is not promised for them";

/// Monitors the images of a run, and warns once per kind of shift.
pub(super) struct ShiftMonitor<'a> {
    watch: Option<RunWatch<'a>>,
    images: usize,
    /// The number of images by their largest kind of shift.
    worst: BTreeMap<ShiftKind, usize>,
}

impl<'a> ShiftMonitor<'a> {
    /// Monitors against the training images of a model, if it has their profile.
    pub(super) fn new(profile: Option<&'a InputProfile>) -> Self {
        Self { watch: profile.map(InputProfile::watch), images: 0, worst: BTreeMap::new() }
    }

    /// Adds one image, and warns if it is the first with its kind of shift.
    pub(super) fn push(&mut self, outcome: &Outcome<'_>, console: &Console) {
        let (Ok(prediction), Some(look), Some(watch)) = (&outcome.result, &outcome.look, &mut self.watch) else {
            return;
        };
        let shift = prediction.input_shift.as_ref();
        self.images += 1;
        watch.add(look, shift);
        let Some(shift) = shift else { return };
        let count = self.worst.entry(shift.worst).or_default();
        *count += 1;
        if *count == 1 {
            console.warn(format_args!("{}: shifted input: {}", outcome.sample.id, shift.message));
        }
    }

    /// Warns of the number of shifted images, and of shifts of all images together; returns the same as notes for a
    /// report.
    pub(super) fn finish(&self, console: &Console) -> Vec<String> {
        let Some(watch) = &self.watch else { return Vec::new() };
        let of = |count: usize| format!("{count} of {}", counted(self.images, "image"));
        let single = self.worst.iter().map(|(kind, &count)| (count, *kind));
        let mut single: Vec<(usize, ShiftKind)> = single.collect();
        single.sort_by_key(|&(count, kind)| (std::cmp::Reverse(count), kind));
        let mut notes: Vec<String> =
            single.iter().map(|&(count, kind)| format!("{} {}; {MEANING}", of(count), kind.describe())).collect();
        let verdict = watch.verdict();
        // Facts about all images are already reported above.
        let measured = verdict.findings.iter().filter(|finding| !finding.kind.is_fact());
        notes.extend(measured.take(MAX_REPORTED).map(|finding| format!("{}; {MEANING}", finding.message)));
        notes.iter().for_each(|note| console.warn(note));
        notes
    }
}
