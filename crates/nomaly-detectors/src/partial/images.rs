//! The image list of a partial.

use nomaly_data::Sample;
use nomaly_methods::Skipped;
use nomaly_methods::groups::GroupFacts;
use nomaly_transforms::statistics::ImageStatistics;
use nomaly_transforms::{FileFacts, FormatFamily};
use serde::{Deserialize, Serialize};

use crate::images::Grouped;
use crate::shift::Look;

/// An image of a partial.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageRecord {
    /// Its name, and its time if the rule groups by time.
    pub(super) facts: GroupFacts,
    pub(super) kind: String,
    /// Whether it is a changed copy of the image before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) changed: bool,
    /// How it looks, if usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    look: Option<LookRecord>,
    /// Why it is unusable: a code and a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<[String; 2]>,
}

/// A [`Look`] without features, which are computed from the values.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LookRecord {
    size: (u32, u32),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<(FormatFamily, u8, Option<u8>)>,
    /// The bits of each statistic, to keep them exact.
    statistics: [u32; 9],
    grey: bool,
}

impl ImageRecord {
    /// A usable image.
    pub(super) fn usable(sample: &Sample, facts: GroupFacts, look: Option<Look>) -> Self {
        let changed = sample.source.is_changed();
        Self { facts, kind: sample.kind.clone(), changed, look: look.map(|look| LookRecord::of(&look)), failure: None }
    }

    /// An unusable image.
    pub(super) fn failed(sample: &Sample, facts: GroupFacts, skipped: Skipped) -> Self {
        let failure = Some([skipped.kind, skipped.message]);
        Self { facts, kind: sample.kind.clone(), changed: sample.source.is_changed(), look: None, failure }
    }

    /// Whether the partial has its values.
    pub(super) fn is_usable(&self) -> bool {
        self.failure.is_none()
    }

    /// Why it is unusable; `None` for usable images.
    pub(super) fn skipped(&self) -> Option<Skipped> {
        let [kind, message] = self.failure.clone()?;
        Some(Skipped { id: self.facts.id.clone(), kind, message })
    }

    /// How it looks, with its pooled features.
    pub(super) fn look(&self, features: Option<Vec<f32>>) -> Option<Look> {
        self.look.as_ref().map(|look| look.restore(features))
    }

    /// The facts for grouping.
    pub(super) fn grouped(&self) -> Grouped<'_> {
        Grouped { facts: &self.facts, kind: &self.kind, changed: self.changed }
    }
}

impl LookRecord {
    fn of(look: &Look) -> Self {
        let ImageStatistics {
            brightness,
            contrast,
            sharpness,
            noise,
            saturation,
            red_green,
            blue_green,
            blockiness,
            orientation,
            grey,
        } = look.statistics;
        let statistics =
            [brightness, contrast, sharpness, noise, saturation, red_green, blue_green, blockiness, orientation];
        Self {
            size: look.size,
            file: look.file.map(|FileFacts { format, bits, jpeg_quality }| (format, bits, jpeg_quality)),
            statistics: statistics.map(f32::to_bits),
            grey,
        }
    }

    fn restore(&self, features: Option<Vec<f32>>) -> Look {
        let [brightness, contrast, sharpness, noise, saturation, red_green, blue_green, blockiness, orientation] =
            self.statistics.map(f32::from_bits);
        let statistics = ImageStatistics {
            brightness,
            contrast,
            sharpness,
            noise,
            saturation,
            red_green,
            blue_green,
            blockiness,
            orientation,
            grey: self.grey,
        };
        let file = self.file.map(|(format, bits, jpeg_quality)| FileFacts { format, bits, jpeg_quality });
        Look { size: self.size, file, statistics, features }
    }
}
