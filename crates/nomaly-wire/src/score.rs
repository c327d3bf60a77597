//! Results for images and rows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One image, or one row of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ScoreRecord {
    /// An image.
    Image(ImageRecord),
    /// A row.
    Row(RowRecord),
}

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageRecord {
    /// The image, as it was named.
    pub path: String,
    /// The anomaly score, higher is more anomalous; null for an image that could not be scored.
    pub score: Option<f64>,
    /// How far the score varies over the passes of a method that asks a network many times: a standard deviation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_deviation: Option<f64>,
    /// The share of normal images that score as high or higher, in (0, 1].
    pub p_value: Option<f64>,
    /// The decision; null where there is none: without a score, and without a threshold.
    pub anomalous: Option<bool>,
    /// Why the model could not decide on a score, where it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided: Option<String>,
    /// The class, `unknown` or `undecided`, for models of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The largest value of the anomaly map, for methods that make maps.
    pub map_max: Option<f64>,
    /// Why the image could not be scored.
    pub error: Option<RecordError>,
    /// What is above the threshold of pixels, in pixels of the image, for methods that make maps and have one.
    pub regions: Option<Vec<Region>>,
    /// How the image differs from the training images in what is no defect.
    pub input_shift: Option<Shift>,
    /// What the control chart says, where one was asked for.
    #[serde(flatten)]
    pub chart: Option<ChartRecord>,
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RowRecord {
    /// The row's number, from 1.
    pub row: usize,
    /// Its name, where the table has a column of names.
    pub id: Option<String>,
    /// The anomaly score, higher is more anomalous; null for a row that could not be scored.
    pub score: Option<f64>,
    /// The share of normal rows that score as high or higher, in (0, 1].
    pub p_value: Option<f64>,
    /// The decision; null where there is none: without a score, and without a threshold.
    pub anomalous: Option<bool>,
    /// The class, `unknown` or `undecided`, for models of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Why the row could not be scored.
    pub error: Option<RecordError>,
    /// What the control chart says, where one was asked for.
    #[serde(flatten)]
    pub chart: Option<ChartRecord>,
}

/// Why an item could not be scored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordError {
    /// What is wrong, as one word for programs: `not-found`, `truncated`, …
    pub kind: String,
    /// What is wrong, for people.
    pub message: String,
}

/// An item that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// The item.
    pub id: String,
    /// What is wrong, as one word for programs: `not-found`, `truncated`, …
    pub kind: String,
    /// What is wrong, for people.
    pub message: String,
}

/// An anomalous region of an image; lengths in pixels of the image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Region {
    /// First column of the bounding box.
    pub x: u32,
    /// First row of the bounding box.
    pub y: u32,
    /// Columns of the bounding box.
    pub width: u32,
    /// Rows of the bounding box.
    pub height: u32,
    /// Pixels of the region.
    pub area: usize,
    /// The highest value of the map in the region.
    pub peak: f32,
    /// Column of the peak; of equal ones, that of the first row, and there of the first column.
    pub peak_x: u32,
    /// Row of the peak.
    pub peak_y: u32,
    /// The mean of the map over the region, filled holes included.
    pub mean: f32,
}

/// How an image differs from the training images in what is no defect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Shift {
    /// In what it differs, the most telling first: `format`, `bit-depth`, `brightness`, …
    pub kinds: Vec<String>,
    /// The first of them.
    pub worst: String,
    /// How rare that is among images like the training images, in (0, 1].
    pub p_value: f64,
    /// In words, with numbers.
    pub message: String,
}

/// What a control chart says after an item; nothing of an item that could not be scored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChartRecord {
    /// The chart's statistic.
    pub statistic: Option<f64>,
    /// Whether it is beyond the limit.
    pub alarm: Option<bool>,
}
