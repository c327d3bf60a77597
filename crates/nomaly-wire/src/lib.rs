//! The records that leave the program, as plain types, with their JSON Schemas.
//!
//! The command line, a service and bindings to other languages say what they found in these records, so that a program
//! that reads one of them reads all. Fields are only ever added; [`VERSION`] rises when one is. What reads a record has to
//! pass over fields that it does not know.
//!
//! ```
//! use nomaly_wire::{ImageRecord, Record};
//!
//! let line = r#"{"path":"a.png","score":1.5,"p_value":0.02,"anomalous":true,"map_max":null,"error":null,
//!                "regions":null,"input_shift":null}"#;
//! let record: ImageRecord = serde_json::from_str(line)?;
//! assert_eq!((record.score, record.anomalous), (Some(1.5), Some(true)));
//!
//! let schema = Record::Score.schema();
//! assert_eq!(schema["title"], "nomaly score");
//! # Ok::<(), serde_json::Error>(())
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod evaluation;
mod inspection;
mod ordered;
mod score;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

pub use evaluation::{
    Ends, Evaluation, HybridFigures, ImageFigures, PValueShare, PixelFigures, Ranking, SupervisedReference, TestCounts,
    ThresholdFigures, Timing,
};
pub use inspection::{
    BackboneRecord, ClassThreshold, GroupsRecord, ImageModel, ImageTraining, InspectRecord, MethodRecord, ModelRecord,
    RowModel, RowTraining,
};
pub use ordered::Ordered;
pub use score::{ChartRecord, ImageRecord, RecordError, Region, RowRecord, ScoreRecord, Shift, SkippedRecord};

/// The version of all records; it rises when a field is added.
pub const VERSION: u32 = 1;

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// One image or row of `nomaly score --format json` (an array of them) and `jsonl` (one a line).
    Score,
    /// `nomaly eval --format json` and `evaluation.json`.
    Eval,
    /// `nomaly inspect --format json`.
    Inspect,
}

impl Record {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Score, Self::Eval, Self::Inspect];

    /// The command whose records they are.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Eval => "eval",
            Self::Inspect => "inspect",
        }
    }

    /// The JSON Schema (draft 2020-12) of one record.
    pub fn schema(self) -> Value {
        let mut schema = match self {
            Self::Score => schema_of::<ScoreRecord>(),
            Self::Eval => schema_of::<Evaluation>(),
            Self::Inspect => schema_of::<InspectRecord>(),
        };
        schema["title"] = json!(format!("nomaly {}", self.name()));
        schema["x-version"] = json!(VERSION);
        schema
    }
}

fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
}
