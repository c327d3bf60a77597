//! A transform as it is listed.

use nomaly_registry::Entry;

/// What a transform changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Group {
    /// Where pixels lie.
    Geometry,
    /// What values pixels have.
    Photometry,
    /// A [set of transformations](crate::transformations), which are told apart.
    Set,
    /// Makes an anomaly to train against; see [`crate::augment`].
    Augmentation,
    /// Draws a synthetic defect; the name is one of [`crate::synthetic::KINDS`].
    Synthetic,
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Geometry => "geometry",
            Self::Photometry => "photometry",
            Self::Set => "set",
            Self::Augmentation => "augmentation",
            Self::Synthetic => "synthetic",
        })
    }
}

/// A transform, as it is listed.
#[derive(Debug)]
pub struct TransformEntry {
    /// The name users type.
    pub name: &'static str,
    /// One line that says what it does.
    pub summary: &'static str,
    /// What it changes.
    pub group: Group,
    /// Its parameters, in words; empty where it takes none.
    pub parameters: &'static str,
}

impl Entry for TransformEntry {
    fn name(&self) -> &str {
        self.name
    }

    fn summary(&self) -> &str {
        self.summary
    }
}
