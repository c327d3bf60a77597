//! Summaries of model files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A model file: its header and derived values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InspectRecord {
    /// The version of the file's format.
    pub format: u32,
    /// The version of the program that wrote it.
    pub written_by: String,
    /// The description of the model.
    #[serde(flatten)]
    pub model: ModelRecord,
    /// The size of the file in bytes.
    pub file_bytes: u64,
    /// The size of the backbone's weights in bytes.
    pub backbone_bytes: u64,
    /// The number of tensors.
    pub tensors: usize,
    /// The threshold of each class, for a model of classes; the thresholds below are then null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_thresholds: Option<Vec<ClassThreshold>>,
    /// Scores above it are anomalous; null if the held-out scores do not support the rule.
    pub threshold: Option<f64>,
    /// The 95 % bootstrap interval of the threshold.
    pub threshold_ci: Option<[f64; 2]>,
    /// The smallest possible p-value.
    pub smallest_p_value: f64,
    /// The number of held-out scores.
    pub held_out: usize,
    /// The number of independent ones.
    pub independent: usize,
    /// Why there is no threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattainable: Option<String>,
    /// Other entries of the header. They depend on the version of the format and are not stable.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// A model of either kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ModelRecord {
    /// Of images.
    Images(ImageModel),
    /// Of rows of a table.
    Rows(RowModel),
}

/// A model of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageModel {
    /// The method.
    pub method: MethodRecord,
    /// The backbone.
    pub backbone: BackboneRecord,
    /// The training data.
    pub training: ImageTraining,
    /// The decision rule.
    pub decision: Value,
}

/// A model of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RowModel {
    /// The scorer.
    pub scorer: String,
    /// Its full settings, by name.
    pub settings: Map<String, Value>,
    /// The names of the columns; null if they have none.
    pub columns: Option<Vec<String>>,
    /// The number of columns.
    pub dim: usize,
    /// The training data.
    pub training: RowTraining,
    /// The decision rule.
    pub decision: Value,
}

/// A method with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MethodRecord {
    /// Its name.
    pub name: String,
    /// Its full settings, by name; `nomaly schema settings METHOD` describes them.
    pub settings: Map<String, Value>,
}

/// The backbone of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackboneRecord {
    /// Its name.
    pub name: String,
    /// The license of its weights.
    pub licence: String,
    /// Where its weights come from.
    pub source: String,
}

/// The training data of a model of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageTraining {
    /// The name of the data set or folder.
    pub dataset: String,
    /// The number of used images.
    pub images: usize,
    /// The number of unusable images.
    pub skipped: usize,
    /// The seed.
    pub seed: u64,
    /// The groups of the images.
    pub groups: GroupsRecord,
    /// The number of images dropped as suspicious; null if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<usize>,
    /// The device of the networks in the fit, such as `cuda`; null for the processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// The training data of a model of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RowTraining {
    /// The name of the table.
    pub dataset: String,
    /// The number of used rows.
    pub rows: usize,
    /// The number of unusable rows.
    pub skipped: usize,
    /// The seed.
    pub seed: u64,
    /// The groups of the rows.
    pub groups: GroupsRecord,
}

/// Groups of dependent items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GroupsRecord {
    /// The requested rule.
    pub by: String,
    /// The number of groups.
    pub count: usize,
    /// How the groups came about, in words; null if all items are independent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

/// A class and its threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClassThreshold {
    /// Its name.
    pub name: String,
    /// The number of training items.
    pub items: usize,
    /// The number of held-out items assigned to it.
    pub held_out: usize,
    /// Scores above it are unknown; null if the held-out scores do not support the rule.
    pub threshold: Option<f64>,
}
