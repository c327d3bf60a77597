//! Output records as plain types, with their JSON Schemas.
//!
//! The command line, services and bindings to other languages share these records. Fields are only ever added, and
//! [`VERSION`] rises with each; readers must ignore unknown fields.
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
mod recognition;
mod record;
mod score;

pub use evaluation::{
    Ends, Evaluation, HybridFigures, ImageFigures, PValueShare, PixelFigures, Ranking, SupervisedReference, TestCounts,
    ThresholdFigures, Timing,
};
pub use inspection::{
    BackboneRecord, ClassThreshold, GroupsRecord, ImageModel, ImageTraining, InspectRecord, MethodRecord, ModelRecord,
    RowModel, RowTraining,
};
pub use ordered::Ordered;
pub use recognition::{Confusion, ConfusionRow, KnownCounts, KnownItems, RecognitionEvaluation, RecognitionFigures};
pub use record::{EvalRecord, Record, VERSION};
pub use score::{ChartRecord, ImageRecord, RecordError, Region, RowRecord, ScoreRecord, Shift, Skipped};
