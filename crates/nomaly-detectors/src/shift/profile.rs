//! Profiles of training images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::distribution::Distribution;
use super::facts::Facts;
use super::shallow::ShallowFeatures;
use super::statistic::{Statistic, number};
use super::{Difference, InputShift, LEVEL, Look, ShiftKind};

/// The profile of the training images of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputProfile {
    facts: Facts,
    statistics: BTreeMap<Statistic, Distribution>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    features: Option<ShallowFeatures>,
}

impl InputProfile {
    /// The profile of images; `None` without images. Features are left out if any image lacks them; `tap` is their
    /// name.
    ///
    /// Images are treated as independent: pass only one image of a burst.
    pub fn of(looks: &[Look], tap: Option<&str>) -> Option<Self> {
        let measured = Statistic::ALL.into_iter().filter(|statistic| *statistic != Statistic::Features);
        let mut statistics = BTreeMap::new();
        for statistic in measured {
            let values: Vec<f64> = looks.iter().filter_map(|look| statistic.value(look)).collect();
            statistics.insert(statistic, Distribution::of(&values)?);
        }
        let rows: Option<Vec<&[f32]>> = looks.iter().map(|look| look.features.as_deref()).collect();
        // A distance over more channels than twice the images is unreliable for a further image.
        let rows = rows.filter(|rows| rows.first().is_some_and(|row| row.len() <= 2 * rows.len()));
        let features = tap.zip(rows).and_then(|(tap, rows)| ShallowFeatures::of(tap, &rows));
        Some(Self { facts: Facts::of(looks), statistics, features })
    }

    /// Adds further training images.
    pub(crate) fn joined(&self, looks: &[Look]) -> Option<Self> {
        let more = Self::of(looks, None)?;
        let joined = |(statistic, own): (&Statistic, &Distribution)| {
            Some((*statistic, own.joined(more.statistics.get(statistic)?)?))
        };
        let statistics = self.statistics.iter().map(joined).collect::<Option<_>>()?;
        let rows: Option<Vec<&[f32]>> = looks.iter().map(|look| look.features.as_deref()).collect();
        let features = self.features.as_ref().zip(rows).and_then(|(features, rows)| features.with_rows(&rows));
        Some(Self { facts: self.facts.joined(&more.facts), statistics, features })
    }

    /// The number of images whose measurements are all among those of the training images: copies of them, as good as
    /// certainly. 0 for profiles of so many images that not all values are kept.
    pub(crate) fn count_known(&self, looks: &[Look]) -> usize {
        let is_known = |look: &&Look| {
            let mut measured = self.statistics.iter();
            measured.all(|(statistic, values)| statistic.value(look).is_some_and(|value| values.holds(value)))
        };
        looks.iter().filter(is_known).count()
    }

    /// Checks a profile from a file.
    pub(crate) fn check(&self) -> Result<(), String> {
        let measured = Statistic::ALL.into_iter().filter(|statistic| *statistic != Statistic::Features);
        let sound = self.facts.is_sound()
            && measured.eq(self.statistics.keys().copied())
            && self.statistics.values().all(Distribution::is_sound)
            && self.features.as_ref().is_none_or(ShallowFeatures::is_sound);
        if sound { Ok(()) } else { Err("its profile of the training images is damaged".to_owned()) }
    }

    /// The number of training images.
    pub fn images(&self) -> usize {
        self.facts.images
    }

    /// The distribution of a statistic.
    pub fn distribution(&self, statistic: Statistic) -> Option<&Distribution> {
        match statistic {
            Statistic::Features => self.features.as_ref().map(ShallowFeatures::distances),
            measured => self.statistics.get(&measured),
        }
    }

    /// The value of a statistic of an image, on the scale of [`distribution`](Self::distribution).
    pub fn value(&self, statistic: Statistic, look: &Look) -> Option<f64> {
        match statistic {
            Statistic::Features => self.features.as_ref()?.log_distance(look.features.as_deref()?),
            measured => measured.value(look),
        }
    }

    /// The shift of an image against the training images, if any.
    pub fn shift(&self, look: &Look) -> Option<InputShift> {
        let palest = self.statistics.get(&Statistic::Saturation).map_or(0.0, |saturation| saturation.range()[0]);
        let mut differences = self.facts.differences(look, palest);
        let level = LEVEL / Statistic::ALL.len() as f64;
        for statistic in Statistic::ALL {
            let (Some(training), Some(value)) = (self.distribution(statistic), self.value(statistic, look)) else {
                continue;
            };
            let Some((side, p_value)) = training.beyond(value, statistic.floor()) else { continue };
            let [low, high] = training.range();
            let fixed = matches!(statistic, Statistic::Size | Statistic::Aspect) && low == high;
            if fixed {
                let p_value = 1.0 / (self.images() as f64 + 1.0);
                differences.push(Difference { kind: statistic.kind(), p_value, message: self.size_message(look) });
            } else if p_value <= level && statistic.has_side(side) {
                let message = statistic.message(value, side, training);
                differences.push(Difference { kind: statistic.kind(), p_value, message });
            }
        }
        // A size in a fixed shape and another shape are one message.
        if differences.iter().any(|difference| difference.kind == ShiftKind::Size) {
            differences.iter_mut().filter(|difference| difference.kind == ShiftKind::Aspect).for_each(|difference| {
                difference.message = format!("of another shape: width is {} of height", number(aspect(look)));
            });
        }
        InputShift::of(differences)
    }

    /// "2048×2048 pixels, and all 40 training images have 1024×1024".
    fn size_message(&self, look: &Look) -> String {
        let (width, height) = look.size;
        let theirs = self.size_in_words();
        format!("{width}×{height} pixels, and all {} training images have {theirs}", self.images())
    }

    /// The size of the training images: "1024×1024", or a range.
    pub fn size_in_words(&self) -> String {
        let span = |statistic| self.statistics.get(&statistic).map_or([0.0; 2], Distribution::range);
        let ([size_low, size_high], [shape_low, shape_high]) = (span(Statistic::Size), span(Statistic::Aspect));
        // The square root of width / height.
        let half = |shape: f64| (shape / 2.0).exp();
        if size_low == size_high && shape_low == shape_high {
            let (width, height) = (size_low.exp() * half(shape_low), size_low.exp() / half(shape_low));
            return format!("{width:.0}×{height:.0}");
        }
        let [small, large] = [size_low, size_high].map(|size| format!("{:.0}", size.exp()));
        format!("about {small}² to {large}² in area")
    }

    /// The common facts of the training images, as names and values.
    pub fn facts_in_words(&self) -> Vec<(&'static str, String)> {
        let Facts { images, formats, bits, grey, jpeg_quality } = &self.facts;
        let list = |parts: Vec<String>| if parts.is_empty() { "none: in memory".to_owned() } else { parts.join(", ") };
        let quality = match jpeg_quality {
            Some([low, high]) if low == high => format!(" (quality {low})"),
            Some([low, high]) => format!(" (quality {low} to {high})"),
            None => String::new(),
        };
        let color = match *grey {
            0 => "colour".to_owned(),
            grey if grey == *images => "grey".to_owned(),
            grey => format!("{grey} of {images} grey"),
        };
        vec![
            ("images", images.to_string()),
            ("size", format!("{} pixels", self.size_in_words())),
            (
                "format",
                list(formats.iter().map(|(format, count)| format!("{count} {}", format.name())).collect()) + &quality,
            ),
            ("bits per sample", list(bits.iter().map(|(bits, count)| format!("{bits} ({count} images)")).collect())),
            ("colour", color),
        ]
    }
}

fn aspect(look: &Look) -> f64 {
    f64::from(look.size.0) / f64::from(look.size.1.max(1))
}
