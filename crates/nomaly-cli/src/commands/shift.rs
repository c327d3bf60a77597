//! What `nomaly score` says of images that are unlike the training images.

use std::collections::BTreeMap;

use nomaly::Outcome;
use nomaly::shift::{InputProfile, RunWatch, ShiftKind};

use crate::console::Console;
use crate::output::counted;

/// The most differences of all images together that are told.
const MOST_TOLD: usize = 4;
/// What every warning of this kind means.
const MEANING: &str = "the false-alarm rate is not promised for them";

/// Watches the images of a run, and warns once of each kind of shift.
pub(super) struct ShiftWatch<'a> {
    watch: Option<RunWatch<'a>>,
    images: usize,
    /// How many images are shifted first of all in this way.
    worst: BTreeMap<ShiftKind, usize>,
}

impl<'a> ShiftWatch<'a> {
    /// Watches against the training images of a model, where it kept how they looked.
    pub(super) fn new(profile: Option<&'a InputProfile>) -> Self {
        Self { watch: profile.map(InputProfile::watch), images: 0, worst: BTreeMap::new() }
    }

    /// Takes one image, and warns where it is the first that is shifted first of all in its way.
    pub(super) fn see(&mut self, outcome: &Outcome<'_>, console: &Console) {
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

    /// Warns of how many images are shifted, and of what all images together show; gives the same as notes for a
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
        // What facts say of all images has been said above.
        let measured = verdict.findings.iter().filter(|finding| !finding.kind.is_fact());
        notes.extend(measured.take(MOST_TOLD).map(|finding| format!("{}; {MEANING}", finding.message)));
        notes.iter().for_each(|note| console.warn(note));
        notes
    }
}
