//! Shifts of all or single images of a run.

use std::collections::BTreeMap;

use serde::Serialize;

use super::distribution::Side;
use super::profile::InputProfile;
use super::statistic::{Statistic, number};
use super::student::two_sided;
use super::{InputShift, Look, ShiftKind};

/// The nominal rate of unshifted runs called shifted.
const LEVEL: f64 = 0.005;
/// The fewest images for comparing distributions.
const FEWEST_IMAGES: usize = 5;
/// The most kept values of a statistic; beyond that, every second one is dropped.
const MOST_VALUES: usize = 4096;
/// The least relevant effect: the share of pairs of an image and a training image in which the image's value is larger
/// (or smaller).
const LEAST_EFFECT: f64 = 0.7;
/// The largest rate of unshifted images called shifted.
const FALSE_WARNINGS: f64 = 0.01;
/// The share of images with another fact above which all are reported to have it.
const MOST: f64 = 0.9;

/// Collects the looks of the images of a run.
#[derive(Debug)]
pub struct RunWatch<'a> {
    profile: &'a InputProfile,
    images: usize,
    /// Shifted images by kind.
    shifted: usize,
    by_kind: BTreeMap<ShiftKind, ShiftedImages>,
    values: BTreeMap<Statistic, Thinned>,
}

/// The images shifted in one way.
#[derive(Debug)]
struct ShiftedImages {
    count: usize,
    /// The message of the first image.
    example: String,
}

/// The verdict on a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunShift {
    /// The number of images.
    pub images: usize,
    /// The number of images that are shifted individually.
    pub shifted: usize,
    /// The number of images shifted individually in each way.
    pub by_kind: BTreeMap<ShiftKind, usize>,
    /// The differences of all images together from the training images: facts first, then by p-value, features last.
    pub findings: Vec<Finding>,
}

/// A difference of all images together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The kind of the difference.
    pub kind: ShiftKind,
    /// How rare it is among runs of images like the training images.
    pub p_value: f64,
    /// In words, with numbers.
    pub message: String,
}

impl RunShift {
    /// Whether the images are shifted as a whole.
    pub fn is_shifted(&self) -> bool {
        !self.findings.is_empty()
    }

    /// Whether the number of individually shifted images exceeds that expected from false warnings by three standard
    /// deviations.
    pub fn has_odd_images(&self) -> bool {
        let expected = FALSE_WARNINGS * self.images as f64;
        self.shifted as f64 > expected + 3.0 * expected.sqrt()
    }
}

impl InputProfile {
    /// Watches the images of a run.
    pub fn watch(&self) -> RunWatch<'_> {
        RunWatch::new(self)
    }
}

impl<'a> RunWatch<'a> {
    fn new(profile: &'a InputProfile) -> Self {
        Self { profile, images: 0, shifted: 0, by_kind: BTreeMap::new(), values: BTreeMap::new() }
    }

    /// Adds an image with its own shift.
    pub fn add(&mut self, look: &Look, shift: Option<&InputShift>) {
        self.images += 1;
        self.shifted += usize::from(shift.is_some());
        for kind in shift.into_iter().flat_map(|shift| &shift.kinds) {
            let message = || shift.map_or_else(String::new, |shift| shift.message.clone());
            self.by_kind.entry(*kind).or_insert_with(|| ShiftedImages { count: 0, example: message() }).count += 1;
        }
        for statistic in Statistic::ALL {
            if let Some(value) = self.profile.value(statistic, look) {
                self.values.entry(statistic).or_default().push(value);
            }
        }
    }

    /// The median of a statistic over the images so far.
    pub fn median(&self, statistic: Statistic) -> Option<f64> {
        self.values.get(&statistic).map(Thinned::median)
    }

    /// The first message on an image shifted in this way.
    pub fn example(&self, kind: ShiftKind) -> Option<&str> {
        self.by_kind.get(&kind).map(|shifted| shifted.example.as_str())
    }

    /// The verdict on the images so far.
    pub fn verdict(&self) -> RunShift {
        let mut findings: Vec<Finding> = Vec::new();
        for (&kind, shifted) in self.by_kind.iter().filter(|(kind, _)| kind.is_fact()) {
            if self.images >= FEWEST_IMAGES && shifted.count as f64 >= MOST * self.images as f64 {
                let p_value = 1.0 / (self.profile.images() as f64 + 1.0);
                let message =
                    format!("{} {}: {}", self.images_in_words(shifted.count), kind.describe(), shifted.example);
                findings.push(Finding { kind, p_value, message });
            }
        }
        let mut compared: Vec<Finding> =
            Statistic::ALL.into_iter().filter_map(|statistic| self.compare(statistic)).collect();
        compared.sort_by(|a, b| a.kind.tier().cmp(&b.kind.tier()).then(a.p_value.total_cmp(&b.p_value)));
        for finding in compared {
            if findings.iter().all(|known| known.kind != finding.kind) {
                findings.push(finding);
            }
        }
        let by_kind = self.by_kind.iter().map(|(kind, shifted)| (*kind, shifted.count)).collect();
        RunShift { images: self.images, shifted: self.shifted, by_kind, findings }
    }

    /// "all 20 images", "19 of 20 images".
    fn images_in_words(&self, count: usize) -> String {
        if count == self.images { format!("all {count} images") } else { format!("{count} of {} images", self.images) }
    }

    /// Compares the distribution of a statistic with the training images'.
    fn compare(&self, statistic: Statistic) -> Option<Finding> {
        let training = self.profile.distribution(statistic)?;
        let values = self.values.get(&statistic)?;
        let (m, n) = (values.count(), training.count());
        if m < FEWEST_IMAGES || n < FEWEST_IMAGES {
            return None;
        }
        let above =
            values.kept.iter().map(|&value| training.share_below(value)).sum::<f64>() / values.kept.len() as f64;
        let side = if above > 0.5 { Side::Above } else { Side::Below };
        let effect = above.max(1.0 - above);
        let (median, theirs) = (values.median(), training.median());
        if effect < LEAST_EFFECT || (median - theirs).abs() < statistic.floor() || !statistic.has_side(side) {
            return None;
        }
        // Under one distribution, the share has the variance (m + n + 1) / (12 m n).
        let (of_run, of_training) = (m as f64, n as f64);
        let deviation = ((of_run + of_training + 1.0) / (12.0 * of_run * of_training)).sqrt();
        let p_value = two_sided((effect - 0.5) / deviation, m + n - 2);
        if p_value > LEVEL / Statistic::ALL.len() as f64 {
            return None;
        }
        let kind = statistic.kind();
        let [own, theirs] = [median, theirs].map(|value| number(statistic.display_value(value)));
        let message = format!(
            "the {} images as a whole are {} the training images (median {own}, theirs {theirs}){}",
            self.images,
            statistic.comparison(side),
            cause(kind)
        );
        Some(Finding { kind, p_value, message })
    }
}

/// The possible causes.
fn cause(kind: ShiftKind) -> &'static str {
    match kind {
        ShiftKind::Brightness => ": exposure, gain or light has changed",
        ShiftKind::Contrast => ": gain, light or processing has changed",
        ShiftKind::Sharpness => ": focus, scale, noise or processing has changed",
        ShiftKind::Noise => ": gain, focus, scale or processing has changed",
        ShiftKind::Saturation | ShiftKind::ColorCast => ": light or white balance has changed",
        ShiftKind::Blockiness => ": compression has changed",
        ShiftKind::Orientation => ": the items or the camera are turned",
        _ => "",
    }
}

/// The values of a run, thinned to a bounded number.
#[derive(Debug)]
struct Thinned {
    kept: Vec<f64>,
    /// One of this many values is kept.
    step: usize,
    pushed: usize,
}

impl Default for Thinned {
    fn default() -> Self {
        Self { kept: Vec::new(), step: 1, pushed: 0 }
    }
}

impl Thinned {
    fn push(&mut self, value: f64) {
        if self.pushed.is_multiple_of(self.step) {
            if self.kept.len() == MOST_VALUES {
                let mut place = 0;
                self.kept.retain(|_| {
                    place += 1;
                    place % 2 == 1
                });
                self.step *= 2;
            }
            if self.pushed.is_multiple_of(self.step) {
                self.kept.push(value);
            }
        }
        self.pushed += 1;
    }

    /// The number of kept values.
    fn count(&self) -> usize {
        self.kept.len()
    }

    /// The median; a list is never empty.
    fn median(&self) -> f64 {
        let mut sorted = self.kept.clone();
        sorted.sort_by(f64::total_cmp);
        (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
    }
}
