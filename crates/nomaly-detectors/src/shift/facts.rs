//! Facts about the storage of the training images, and images that differ in them.

use std::collections::BTreeMap;

use nomaly_transforms::{FormatFamily, jpeg_scale};
use serde::{Deserialize, Serialize};

use super::{Difference, Look, ShiftKind};

/// Training images of at least this saturation, in [0, 1], certainly have color.
const CLEARLY_COLORED: f64 = 0.03;
/// JPEG qualities differ if their [scales](jpeg_scale) differ by this factor and by [`QUALITY_STEP`]: 95 and 90 do, 75
/// and 65 do not.
const QUALITY_FACTOR: f64 = 1.5;
const QUALITY_STEP: f64 = 5.0;

/// Facts about the storage of images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Facts {
    /// The number of images.
    pub(super) images: usize,
    /// The number of files of each format; images in memory have none.
    pub(super) formats: BTreeMap<FormatFamily, usize>,
    /// The number of files by bits per sample.
    pub(super) bits: BTreeMap<u8, usize>,
    /// The number of images without color.
    pub(super) grey: usize,
    /// The lowest and the highest quality of JPEG files.
    pub(super) jpeg_quality: Option<[u8; 2]>,
}

impl Facts {
    pub(super) fn of(looks: &[Look]) -> Self {
        let mut facts = Self { images: looks.len(), ..Self::default() };
        for look in looks {
            facts.grey += usize::from(look.statistics.grey);
            let Some(file) = look.file else { continue };
            *facts.formats.entry(file.format).or_default() += 1;
            *facts.bits.entry(file.bits).or_default() += 1;
            facts.jpeg_quality = span(facts.jpeg_quality, file.jpeg_quality.map(|quality| [quality; 2]));
        }
        facts
    }

    pub(super) fn joined(&self, other: &Self) -> Self {
        let mut facts = self.clone();
        facts.images += other.images;
        facts.grey += other.grey;
        other.formats.iter().for_each(|(&format, count)| *facts.formats.entry(format).or_default() += count);
        other.bits.iter().for_each(|(&bits, count)| *facts.bits.entry(bits).or_default() += count);
        facts.jpeg_quality = span(facts.jpeg_quality, other.jpeg_quality);
        facts
    }

    pub(super) fn is_sound(&self) -> bool {
        self.grey <= self.images
            && self.formats.values().all(|&count| (1..=self.images).contains(&count))
            && self.bits.values().all(|&count| (1..=self.images).contains(&count))
            && self.jpeg_quality.is_none_or(|[low, high]| (1..=high).contains(&low) && high <= 100)
    }

    /// The facts shared by all training images but not by this image; `palest` is the lowest saturation of the training
    /// images, in [0, 1].
    pub(super) fn differences(&self, look: &Look, palest: f64) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut report = |kind, message: String| {
            found.push(Difference { kind, p_value: 1.0 / (self.images as f64 + 1.0), message });
        };
        let all = format!("all {} training images", self.images);
        if let Some(file) = look.file {
            if let Some(format) = only(&self.formats).filter(|format| *format != file.format) {
                let quality = file.jpeg_quality.map_or(String::new(), |quality| format!(" of quality {quality}"));
                let (own, theirs) = (file.format.name(), format.name());
                report(ShiftKind::Format, format!("a {own} file{quality}, and {all} are {theirs}"));
            }
            if let Some(bits) = only(&self.bits).filter(|bits| *bits != file.bits) {
                report(ShiftKind::BitDepth, format!("{} bits per sample, and {all} have {bits}", file.bits));
            }
            if let (Some(quality), Some(span)) = (file.jpeg_quality, self.jpeg_quality)
                && only(&self.formats) == Some(file.format)
                && far(quality, span)
            {
                let theirs =
                    if span[0] == span[1] { span[0].to_string() } else { format!("{} to {}", span[0], span[1]) };
                report(ShiftKind::Compression, format!("JPEG quality {quality}, and {all} have {theirs}"));
            }
        }
        // Some images of scenes with little color have none.
        if look.statistics.grey && self.grey == 0 && palest > CLEARLY_COLORED {
            report(ShiftKind::Color, format!("without colour, and {all} have colour"));
        } else if !look.statistics.grey && self.grey == self.images {
            report(ShiftKind::Color, format!("in colour, and {all} are grey"));
        }
        found
    }
}

/// The only key.
fn only<K: Copy>(counts: &BTreeMap<K, usize>) -> Option<K> {
    if counts.len() == 1 { counts.keys().next().copied() } else { None }
}

/// The union of two spans.
fn span(one: Option<[u8; 2]>, other: Option<[u8; 2]>) -> Option<[u8; 2]> {
    match (one, other) {
        (Some([a, b]), Some([c, d])) => Some([a.min(c), b.max(d)]),
        (one, other) => one.or(other),
    }
}

/// Whether a quality differs from all in a span.
fn far(quality: u8, [low, high]: [u8; 2]) -> bool {
    let [own, coarsest, finest] = [quality, low, high].map(|quality| f64::from(jpeg_scale(quality)));
    let beyond = |scale: f64| QUALITY_FACTOR * scale + QUALITY_STEP;
    own >= beyond(coarsest) || finest >= beyond(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qualities_are_far_where_their_tables_differ_by_half() {
        for (quality, span, expected) in [
            (90, [95, 95], true),
            (92, [95, 95], false),
            (65, [75, 75], false),
            (60, [75, 75], true),
            (95, [75, 75], true),
            (80, [60, 90], false),
            (100, [98, 98], false),
            (1, [1, 1], false),
        ] {
            assert_eq!(far(quality, span), expected, "{quality} against {span:?}");
        }
    }
}
