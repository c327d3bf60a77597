//! Transformation sets and their textual form.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use nomaly_registry::{Entry, Registry, UnknownName};
use serde::{Deserialize, Serialize};

use super::step::{CROP, EQUALIZE, JITTER, QUANTILE, STEPS, Step, StepKind, ZOOM, number};
use super::{IDENTITY, MAX_STEPS, Transformation};
use crate::error::TransformError;

/// The most transformations in a [`TransformationSet`].
pub const MAX_TRANSFORMATIONS: usize = 4096;

/// The shift of the paper: a quarter of the side.
const QUARTER: f64 = 0.25;

/// Transformations in the order of their labels; at least one.
///
/// A set is one string ([`FromStr`] and [`Display`](fmt::Display)), which is also how it is stored. The displayed form
/// names every setting of an extra and parses to an equal set. The [module documentation](super) has the grammar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TransformationSet {
    text: String,
    transformations: Vec<Transformation>,
}

impl TransformationSet {
    /// The number of transformations, 1 to [`MAX_TRANSFORMATIONS`].
    #[expect(clippy::len_without_is_empty, reason = "a set without transformations cannot be made")]
    pub fn len(&self) -> usize {
        self.transformations.len()
    }

    /// The transformation with this label, 0 to `len() - 1`.
    pub fn get(&self, label: usize) -> Option<&Transformation> {
        self.transformations.get(label)
    }

    /// All transformations in the order of their labels.
    pub fn iter(&self) -> std::slice::Iter<'_, Transformation> {
        self.transformations.iter()
    }

    /// Whether any transformation [is random](Transformation::is_random).
    pub fn is_random(&self) -> bool {
        self.iter().any(Transformation::is_random)
    }

    /// Checks that images of this size, height and width in pixels, are valid for every transformation.
    ///
    /// # Errors
    /// As [`Transformation::check`].
    pub fn check(&self, size: [usize; 2]) -> Result<(), TransformError> {
        self.iter().try_for_each(|transformation| transformation.check(size))
    }
}

impl<'a> IntoIterator for &'a TransformationSet {
    type Item = &'a Transformation;
    type IntoIter = std::slice::Iter<'a, Transformation>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for TransformationSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl From<TransformationSet> for String {
    fn from(set: TransformationSet) -> Self {
        set.text
    }
}

impl TryFrom<String> for TransformationSet {
    type Error = TransformError;

    fn try_from(text: String) -> Result<Self, TransformError> {
        text.parse()
    }
}

impl FromStr for TransformationSet {
    type Err = TransformError;

    fn from_str(text: &str) -> Result<Self, TransformError> {
        let mut set = Self { text: String::new(), transformations: Vec::new() };
        let mut names = HashSet::new();
        for term in text.split('/') {
            let (text, transformations) = parse_term(term)?;
            if set.len() + transformations.len() > MAX_TRANSFORMATIONS {
                return Err(TransformError::TooManyTransformations { limit: MAX_TRANSFORMATIONS });
            }
            for transformation in &transformations {
                if !names.insert(transformation.name()) {
                    return Err(TransformError::Twice { name: transformation.name() });
                }
            }
            set.transformations.extend(transformations);
            if !set.text.is_empty() {
                set.text.push('/');
            }
            set.text += &text;
        }
        Ok(set)
    }
}

nomaly_settings::text_schema!(
    TransformationSet,
    "a set by name (`geotrans`, `rotations`, `rotations-flips`), with extras after `+`, or a list with `/` between"
);

/// A named set.
#[derive(Debug)]
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) parameters: &'static str,
    /// The default shift as a share of the side, if it shifts.
    share: Option<f64>,
    flips: bool,
}

impl Entry for Preset {
    fn name(&self) -> &str {
        self.name
    }

    fn summary(&self) -> &str {
        self.summary
    }
}

pub(crate) const GEOTRANS: Preset = Preset {
    name: "geotrans",
    summary: "72 transformations: mirror images × shifts of rows × shifts of columns × quarter turns",
    parameters: "share of the side shifted by, 0.25 by default; extras, each after a +",
    share: Some(QUARTER),
    flips: true,
};
pub(crate) const ROTATIONS: Preset = Preset {
    name: "rotations",
    summary: "4 transformations: quarter turns",
    parameters: "extras, each after a +",
    share: None,
    flips: false,
};
pub(crate) const ROTATIONS_FLIPS: Preset = Preset {
    name: "rotations-flips",
    summary: "8 transformations: mirror images × quarter turns",
    parameters: "extras, each after a +",
    share: None,
    flips: true,
};

static PRESETS: Registry<Preset> = Registry::new("set of transformations", &[GEOTRANS, ROTATIONS, ROTATIONS_FLIPS]);

/// Extras in the order of T = T_old ∘ zoom ∘ crop ∘ jitter ∘ equalise: the last one is applied first.
static EXTRAS: Registry<StepKind> = Registry::new("extra transformation", &[ZOOM, CROP, JITTER, EQUALIZE, QUANTILE]);

impl Preset {
    /// The preset as it is displayed, and its transformations. The default share is left out: it belongs to the
    /// definition in the paper and cannot change.
    fn parse(&self, setting: Option<&str>) -> Result<(String, Vec<Transformation>), TransformError> {
        let wrong = |expected| TransformError::Setting {
            name: self.name,
            value: setting.unwrap_or_default().to_owned(),
            expected,
        };
        let share = match (self.share, setting) {
            (share, None) => share,
            (None, Some(_)) => return Err(wrong("no setting")),
            (Some(_), Some(text)) => Some(
                number(text, |share| share > 0.0 && share < 1.0)
                    .ok_or_else(|| wrong("a share of the side above 0 and less than 1"))?,
            ),
        };
        let text = match share {
            Some(share) if share != QUARTER => format!("{}={share}", self.name),
            _ => self.name.to_owned(),
        };
        Ok((text, self.transformations(share)))
    }

    fn transformations(&self, share: Option<f64>) -> Vec<Transformation> {
        let shifts = |make: fn(f64) -> Step| match share {
            Some(share) => vec![None, Some(make(-share)), Some(make(share))],
            None => vec![None],
        };
        let flips = if self.flips { vec![None, Some(Step::Flip)] } else { vec![None] };
        let turns = [None, Some(Step::Turn(1)), Some(Step::Turn(2)), Some(Step::Turn(3))];
        let (rows, columns) = (shifts(Step::ShiftRows), shifts(Step::ShiftColumns));
        let mut transformations = Vec::new();
        for &flip in &flips {
            for &rows in &rows {
                for &columns in &columns {
                    for &turn in &turns {
                        let steps = [flip, rows, columns, turn].into_iter().flatten().collect();
                        transformations.push(Transformation { steps });
                    }
                }
            }
        }
        transformations
    }
}

/// A term as it is displayed, and its transformations.
fn parse_term(term: &str) -> Result<(String, Vec<Transformation>), TransformError> {
    let mut words = term.split('+').map(word);
    let (name, setting) = words.next().unwrap_or_default();
    let Ok(preset) = PRESETS.get(name) else {
        let transformation = transformation(term)?;
        return Ok((transformation.name(), vec![transformation]));
    };
    let (mut text, mut transformations) = preset.parse(setting)?;

    let mut extras: Vec<(&str, Step)> = Vec::new();
    for (name, setting) in words {
        let kind = EXTRAS.get(name)?;
        if extras.iter().any(|(known, _)| *known == kind.name) {
            return Err(TransformError::Twice { name: kind.name.to_owned() });
        }
        extras.push((kind.name, kind.parse(setting)?));
    }
    let given = |kind: StepKind| extras.iter().any(|(name, _)| *name == kind.name);
    if given(EQUALIZE) && given(QUANTILE) {
        return Err(TransformError::EqualizedTwice);
    }
    for (_, extra) in EXTRAS.names().filter_map(|name| extras.iter().find(|(given, _)| *given == name)) {
        text += &format!("+{extra}");
        // Later ones in this order are applied earlier.
        let with = transformations.iter().map(|old| Transformation { steps: with_extra(*extra, old) });
        let with: Vec<Transformation> = with.collect();
        transformations.extend(with);
    }
    Ok((text, transformations))
}

fn with_extra(extra: Step, old: &Transformation) -> Vec<Step> {
    let mut steps = Vec::with_capacity(old.steps.len() + 1);
    steps.push(extra);
    steps.extend_from_slice(&old.steps);
    steps
}

/// Parses an explicit transformation, step by step.
pub(super) fn transformation(text: &str) -> Result<Transformation, TransformError> {
    if text.trim() == IDENTITY {
        return Ok(Transformation { steps: Vec::new() });
    }
    let mut steps = Vec::new();
    for (index, (name, setting)) in text.split('+').map(word).enumerate() {
        if index == MAX_STEPS {
            return Err(TransformError::TooManySteps { limit: MAX_STEPS });
        }
        if name == IDENTITY || PRESETS.get(name).is_ok() {
            return Err(TransformError::NotAStep { name: name.to_owned() });
        }
        let kind = STEPS.get(name).map_err(|_| {
            let sets = PRESETS.names().filter(|_| index == 0);
            UnknownName::new("transformation", name, sets.chain([IDENTITY]).chain(STEPS.names()))
        })?;
        steps.push(kind.parse(setting)?);
    }
    Ok(Transformation { steps })
}

/// A name, and the text after `=`.
fn word(text: &str) -> (&str, Option<&str>) {
    match text.split_once('=') {
        Some((name, setting)) => (name.trim(), Some(setting.trim())),
        None => (text.trim(), None),
    }
}
