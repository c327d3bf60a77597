//! What is in a model file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A model file: what its header says and what follows from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InspectRecord {
    /// The version of the file's format.
    pub format: u32,
    /// The version of the program that wrote it.
    pub written_by: String,
    /// What the model is made of.
    #[serde(flatten)]
    pub model: ModelRecord,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the backbone's weights.
    pub backbone_bytes: u64,
    /// Number of tensors.
    pub tensors: usize,
    /// The decision of each class, for a model of classes; the thresholds below are null then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_thresholds: Option<Vec<ClassThreshold>>,
    /// Scores above it are anomalous; null where there is none.
    pub threshold: Option<f64>,
    /// The 95 % bootstrap interval of the threshold.
    pub threshold_ci: Option<[f64; 2]>,
    /// The smallest p-value that an item can get.
    pub smallest_p_value: f64,
    /// Held-out scores.
    pub held_out: usize,
    /// How many of them are independent.
    pub independent: usize,
    /// Why there is no threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unattainable: Option<String>,
    /// What else the header holds. It belongs to the version of the format, and may go with it.
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
    /// What it was fitted on.
    pub training: ImageTraining,
    /// The decision rule in force where none other is asked for.
    pub decision: Value,
}

/// A model of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RowModel {
    /// The scorer.
    pub scorer: String,
    /// Its settings in full, by name.
    pub settings: Map<String, Value>,
    /// What the columns are called; null where they have no names.
    pub columns: Option<Vec<String>>,
    /// How many columns there are.
    pub dim: usize,
    /// What it was fitted on.
    pub training: RowTraining,
    /// The decision rule in force where none other is asked for.
    pub decision: Value,
}

/// A method with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MethodRecord {
    /// Its name.
    pub name: String,
    /// Its settings in full, by name; `nomaly schema settings METHOD` says what they may be.
    pub settings: Map<String, Value>,
}

/// The backbone of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackboneRecord {
    /// Its name.
    pub name: String,
    /// The licence of its weights.
    pub licence: String,
    /// Where its weights come from.
    pub source: String,
}

/// What a model of images was fitted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageTraining {
    /// The name of the data set or folder.
    pub dataset: String,
    /// Images that were used.
    pub images: usize,
    /// Images that could not be used.
    pub skipped: usize,
    /// The seed.
    pub seed: u64,
    /// Which images depend on each other.
    pub groups: GroupsRecord,
    /// Images that were left out because they do not look like the others; null where none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<usize>,
}

/// What a model of rows was fitted on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RowTraining {
    /// The name of the table.
    pub dataset: String,
    /// Rows that were used.
    pub rows: usize,
    /// Rows that could not be used.
    pub skipped: usize,
    /// The seed.
    pub seed: u64,
    /// Which rows depend on each other.
    pub groups: GroupsRecord,
}

/// Which items depend on each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GroupsRecord {
    /// How groups were asked for.
    pub by: String,
    /// How many there are.
    pub count: usize,
    /// What made them, in words; null where no item depends on another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
}

/// A class and its decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClassThreshold {
    /// Its name.
    pub name: String,
    /// Items it was learned from.
    pub items: usize,
    /// Held-out items that are taken for it.
    pub held_out: usize,
    /// Scores above it are unknown; null where there is none.
    pub threshold: Option<f64>,
}
