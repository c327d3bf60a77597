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
    /// The name of the image.
    pub path: String,
    /// The anomaly score, higher is more anomalous; null for an image that could not be scored.
    pub score: Option<f64>,
    /// The standard deviation of the score over passes with dropout, for methods that make several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score_deviation: Option<f64>,
    /// The share of normal images that score as high or higher, in (0, 1].
    pub p_value: Option<f64>,
    /// The decision; null without a score or a threshold.
    pub anomalous: Option<bool>,
    /// Why there is no decision on a score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided: Option<String>,
    /// The class, `unknown` or `undecided`, for models of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The largest value of the anomaly map, for methods that make maps.
    pub map_max: Option<f64>,
    /// Why the image could not be scored.
    pub error: Option<RecordError>,
    /// The regions above the pixel threshold, in pixels of the image, for models with maps and such a threshold.
    pub regions: Option<Vec<Region>>,
    /// How the image differs from the training images apart from defects.
    pub input_shift: Option<Shift>,
    /// The result of the control chart, if requested.
    #[serde(flatten)]
    pub chart: Option<ChartRecord>,
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RowRecord {
    /// The row's number, from 1.
    pub row: usize,
    /// Its name, if the table has a column of names.
    pub id: Option<String>,
    /// The anomaly score, higher is more anomalous; null for a row that could not be scored.
    pub score: Option<f64>,
    /// The share of normal rows that score as high or higher, in (0, 1].
    pub p_value: Option<f64>,
    /// The decision; null without a score or a threshold.
    pub anomalous: Option<bool>,
    /// The class, `unknown` or `undecided`, for models of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Why the row could not be scored.
    pub error: Option<RecordError>,
    /// The result of the control chart, if requested.
    #[serde(flatten)]
    pub chart: Option<ChartRecord>,
}

/// Why an item could not be scored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordError {
    /// The kind of error, as one word for programs: `not-found`, `truncated`, …
    pub kind: String,
    /// The message for people.
    pub message: String,
}

/// An unusable item, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Skipped {
    /// The item.
    pub id: String,
    /// The kind of error, as one word for programs: `not-found`, `truncated`, …
    pub kind: String,
    /// The message for people.
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
    /// Column of the peak; the first in raster order of equal ones.
    pub peak_x: u32,
    /// Row of the peak.
    pub peak_y: u32,
    /// The mean of the map over the region, including filled holes.
    pub mean: f32,
}

/// How an image differs from the training images apart from defects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Shift {
    /// The kinds of differences, the most important first: `format`, `bit-depth`, `brightness`, …
    pub kinds: Vec<String>,
    /// The most important kind.
    pub worst: String,
    /// The p-value of the worst, in (0, 1]: how rare it is among images like the training images.
    pub p_value: f64,
    /// In words, with numbers.
    pub message: String,
}

/// The state of a control chart after an item; absent for an item without a score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChartRecord {
    /// The chart's statistic.
    pub statistic: Option<f64>,
    /// Whether it is beyond the limit.
    pub alarm: Option<bool>,
}
