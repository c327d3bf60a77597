//! What the model file says of a detector for images.

use nomaly_methods::groups::GroupInfo;
use nomaly_methods::recognition::KnownClass;
use nomaly_settings::Assignments;
use nomaly_transforms::Pipeline;
use serde::{Deserialize, Serialize};

use super::history::DecisionHistory;
use crate::calibration::DecisionRule;
use crate::fusion::Fusion;
use crate::images::size_name;
use crate::shift::InputProfile;

/// What a model is made of and what it was fitted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// The method.
    pub method: MethodInfo,
    /// The backbone.
    pub backbone: BackboneInfo,
    /// The preprocessing of images; of the smallest size, where they are seen at several.
    pub pipeline: Pipeline,
    /// The sizes at which images are seen, and how what is said of them is put together; `None` for one size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    /// Side of the median filter of maps in pixels of the network's input; `None` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median: Option<usize>,
    /// The classes that it tells apart, ascending by name; empty for models of normal images alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<KnownClass>,
    /// The decision rule in force where none other is asked for.
    pub decision: DecisionRule,
    /// What it was calibrated on, and its earlier decisions.
    #[serde(default, skip_serializing_if = "DecisionHistory::is_empty")]
    pub history: DecisionHistory,
    /// What it was fitted on.
    pub training: TrainingInfo,
    /// How the training images looked; `None` in files of programs that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputProfile>,
}

impl ModelInfo {
    /// `256×256 and 448×448 pixels`: height and width of the network's input, at every size.
    pub fn input_in_words(&self) -> String {
        let sizes: Vec<String> = match &self.fusion {
            Some(fusion) => fusion.part_names(),
            None => vec![size_name(&self.pipeline)],
        };
        format!("{} pixels", sizes.join(" and "))
    }
}

/// The method of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodInfo {
    /// Its name.
    pub name: String,
    /// Its settings in full.
    pub settings: Assignments,
}

/// The backbone of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackboneInfo {
    /// Its name.
    pub name: String,
    /// The licence of its weights.
    pub licence: String,
    /// Where its weights come from.
    pub source: String,
}

/// What a model was fitted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingInfo {
    /// The name of the data set or folder.
    pub dataset: String,
    /// Images that were used.
    pub images: usize,
    /// Images that could not be used.
    pub skipped: usize,
    /// The seed of every random choice.
    pub seed: u64,
    /// Which of the images depend on each other.
    pub groups: GroupInfo,
    /// Images that were left out because they do not look like the others.
    #[serde(default, skip_serializing_if = "is_none")]
    pub dropped: usize,
}

fn is_none(count: &usize) -> bool {
    *count == 0
}
