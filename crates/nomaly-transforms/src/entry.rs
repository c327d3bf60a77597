//! The registry entry of a transform.

use nomaly_registry::Entry;

/// The kind of a transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Group {
    /// Moves pixels.
    Geometry,
    /// Changes the values of pixels.
    Photometry,
    /// A [set of transformations](crate::transformations) for a classifier.
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

/// The registry entry of a transform.
#[derive(Debug)]
pub struct TransformEntry {
    /// The name users type.
    pub name: &'static str,
    /// One line: what it does.
    pub summary: &'static str,
    /// Its kind.
    pub group: Group,
    /// Its parameters, in words; empty if it has none.
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
