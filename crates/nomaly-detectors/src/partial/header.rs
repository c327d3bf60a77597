//! Headers of partials.

use nomaly_methods::InputParams;
use nomaly_settings::Assignments;
use nomaly_store::sha256_hex;
use nomaly_transforms::Pipeline;
use serde::{Deserialize, Serialize};

use super::shard::Shard;
use crate::calibration::DecisionRule;
use crate::info::{BackboneInfo, MethodInfo};
pub(super) use crate::model_file::PARTIAL_MAGIC as MAGIC;

/// The version of the format that this program reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// The most bytes of a header; typical ones have a few thousand.
pub(super) const MOST_HEADER_BYTES: u64 = 16 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// The version of the program that wrote it.
    pub(super) nomaly: String,
    /// The instruction set used.
    pub(super) isa: String,
    pub(super) fit: FitIdentity,
    pub(super) shard: [usize; 2],
    /// The source of the weights in this process.
    pub(super) backbone: BackboneInfo,
    /// Notes for the user on all images; the same in every partial.
    pub(super) notes: Vec<String>,
    /// The bytes of the following weights; 0 for none.
    pub(super) weight_bytes: u64,
    /// The bytes of the following region; 0 for none.
    pub(super) region_bytes: u64,
}

impl Header {
    pub(super) fn shard(&self) -> Option<Shard> {
        Shard::new(self.shard[0], self.shard[1])
    }
}

/// The identity of a fit, common to its partials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FitIdentity {
    pub(super) method: MethodInfo,
    /// Without paths of files: only their contents matter.
    pub(super) input: InputParams,
    pub(super) backbone: String,
    /// The SHA-256 of the weights up to the deepest tap.
    pub(super) weights: String,
    /// The preprocessing at each size, the smallest first.
    pub(super) pipelines: Vec<Pipeline>,
    /// The SHA-256 of the region of interest; `None` for none.
    pub(super) region: Option<String>,
    pub(super) dataset: String,
    /// The number of images of all shards, without changed copies.
    pub(super) images: usize,
    /// The SHA-256 of their names and kinds, in order.
    pub(super) list: String,
    pub(super) seed: u64,
    pub(super) rule: DecisionRule,
    pub(super) group_by: String,
    /// The changed copies of each image.
    pub(super) changes: Vec<String>,
}

impl FitIdentity {
    /// The differences to another fit, in words; `None` if they are equal.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let mut found = Vec::new();
        let mut report = |what: &str, own: String, theirs: String| {
            if own != theirs {
                found.push(format!("{what} ({own}, not {theirs})"));
            }
        };
        report("method", self.method.name.clone(), other.method.name.clone());
        if self.method.name == other.method.name {
            compare_settings(&self.method.settings, &other.method.settings, &mut report);
        }
        compare_settings(&Assignments::of(&self.input), &Assignments::of(&other.input), &mut report);
        report("backbone", self.backbone.clone(), other.backbone.clone());
        report("data", self.dataset.clone(), other.dataset.clone());
        report("number of images", self.images.to_string(), other.images.to_string());
        report("seed", self.seed.to_string(), other.seed.to_string());
        report("decision rule", self.rule.to_string(), other.rule.to_string());
        report("groups", self.group_by.clone(), other.group_by.clone());
        let changes = |fit: &Self| if fit.changes.is_empty() { "none".to_owned() } else { fit.changes.join(", ") };
        report("changed copies", changes(self), changes(other));
        let contents = [
            ("weights of the backbone", self.weights != other.weights && self.backbone == other.backbone),
            ("region of interest", self.region != other.region),
            ("names, kinds or order of the images", self.list != other.list && self.images == other.images),
            ("size or preprocessing of the images", self.pipelines != other.pipelines && found.is_empty()),
        ];
        found.extend(contents.into_iter().filter(|(_, differ)| *differ).map(|(what, _)| what.to_owned()));
        (self != other).then(|| if found.is_empty() { "details".to_owned() } else { found.join(", ") })
    }
}

/// Reports the settings that differ.
fn compare_settings(own: &Assignments, theirs: &Assignments, report: &mut dyn FnMut(&str, String, String)) {
    let value = |settings: &Assignments, name: &str| settings.text(name).unwrap_or_else(|| "none".to_owned());
    let names: std::collections::BTreeSet<&str> = own.iter().chain(theirs.iter()).map(|(name, _)| name).collect();
    for name in names {
        report(&format!("setting {name}"), value(own, name), value(theirs, name));
    }
}

/// The SHA-256 of the names and kinds of images, in order.
pub(super) fn list_hash<'a>(images: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut bytes = Vec::new();
    for text in images.flat_map(|(id, kind)| [id, kind]) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    sha256_hex(&bytes)
}
