//! The header of a model file for images.

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

/// The description of a model of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// The method.
    pub method: MethodInfo,
    /// The backbone.
    pub backbone: BackboneInfo,
    /// The preprocessing; at the smallest size, if there are several.
    pub pipeline: Pipeline,
    /// The fusion of several sizes; `None` for one size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    /// Side of the median filter of maps in pixels of the network's input; `None` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median: Option<usize>,
    /// The known classes, ascending by name; empty for models without classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<KnownClass>,
    /// The decision rule.
    pub decision: DecisionRule,
    /// Its calibration data and earlier decisions.
    #[serde(default, skip_serializing_if = "DecisionHistory::is_empty")]
    pub history: DecisionHistory,
    /// Its training data.
    pub training: TrainingInfo,
    /// The profile of the training images; `None` in files of older versions.
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
    /// The license of its weights.
    pub licence: String,
    /// Where its weights come from.
    pub source: String,
}

/// The training data of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingInfo {
    /// The name of the data set or folder.
    pub dataset: String,
    /// Used images.
    pub images: usize,
    /// Unusable images.
    pub skipped: usize,
    /// The seed of all random choices.
    pub seed: u64,
    /// The groups of the images.
    pub groups: GroupInfo,
    /// Images dropped as suspicious.
    #[serde(default, skip_serializing_if = "is_none")]
    pub dropped: usize,
    /// The device of the networks in the fit; `None` for the processor. Models run on any device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

fn is_none(count: &usize) -> bool {
    *count == 0
}
