//! Groups of the usable images of a stream.

use nomaly_data::Sample;
use nomaly_methods::groups::{GroupFacts, GroupInfo};
use nomaly_methods::{GroupBy, Groups, MethodError};

use super::near_copies::{self, Descriptors};

/// The facts about a usable image for grouping.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grouped<'a> {
    /// Its name, and its time if the rule needs it.
    pub(crate) facts: &'a GroupFacts,
    /// Its kind.
    pub(crate) kind: &'a str,
    /// Whether it is a changed copy of the image before it.
    pub(crate) changed: bool,
}

impl<'a> Grouped<'a> {
    /// A sample with its facts.
    pub(crate) fn of(sample: &'a Sample, facts: &'a GroupFacts) -> Self {
        Self { facts, kind: &sample.kind, changed: sample.source.is_changed() }
    }
}

/// The groups of usable images with their description; without a rule `by`, all are independent. `descriptors` are
/// those of the images that are not copies, if groups are found in features.
///
/// # Errors
/// Images that cannot be grouped as requested.
pub(crate) fn group(
    by: Option<&GroupBy>,
    images: &[Grouped<'_>],
    descriptors: &Descriptors,
) -> Result<(Groups, GroupInfo), MethodError> {
    // A changed copy belongs to the image before it.
    let mut facts: Vec<&GroupFacts> = Vec::with_capacity(images.len());
    let mut kinds: Vec<&str> = Vec::with_capacity(images.len());
    let mut originals = Vec::with_capacity(images.len());
    for image in images {
        if !image.changed || facts.is_empty() {
            facts.push(image.facts);
            kinds.push(image.kind);
        }
        originals.push(facts.len() - 1);
    }
    let by_name = by.unwrap_or(&GroupBy::None).by_facts(&facts)?;
    let (groups, info) = by_name.map_or_else(|| near_copies::find(descriptors, &kinds), Ok)?;
    Ok((Groups::of_keys(originals.iter().map(|&original| groups.of()[original])), info))
}
