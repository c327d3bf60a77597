//! Descriptions of models: parts, training data and decision.

mod history;
mod images;
mod kind;
mod rows;

pub use self::history::{DecisionHistory, PastDecision};
pub use self::images::{BackboneInfo, MethodInfo, ModelInfo, TrainingInfo};
pub use self::kind::Info;
pub use self::rows::{RowsInfo, RowsTraining};
