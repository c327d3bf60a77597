//! The kinds of records, and their schemas.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::evaluation::Evaluation;
use crate::inspection::InspectRecord;
use crate::recognition::RecognitionEvaluation;
use crate::score::ScoreRecord;

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
            Self::Eval => schema_of::<EvalRecord>(),
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

/// An evaluation, of a model of normal items or of classes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant)]
pub enum EvalRecord {
    /// An evaluation of a model of normal items.
    Normal(Evaluation),
    /// An evaluation of a model of classes.
    Classes(RecognitionEvaluation),
}
