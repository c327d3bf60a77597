//! The names in a model file, and its header.

use nomaly_scorers::State;
use serde::{Deserialize, Serialize};

use crate::info::{Info, ModelInfo, RowsInfo};

/// The version of the format that this program writes.
pub const FORMAT_VERSION: u32 = 3;
/// The oldest version that this program reads, with settings as text.
pub(super) const OLDEST_VERSION: u32 = 2;

/// The first bytes of a partial of a divided fit, which is told from a damaged model.
pub(crate) const PARTIAL_MAGIC: &[u8; 15] = b"nomaly partial\n";

pub(super) const METADATA_KEY: &str = "nomaly";
pub(super) const HELD_OUT: &str = "calibration/held_out";
pub(super) const GROUPS: &str = "calibration/groups";
pub(super) const CLASS: &str = "calibration/class/";
pub(super) const CLASS_GROUPS: &str = "calibration/class_groups/";
pub(super) const MAP_MAXIMA: &str = "calibration/map_maxima";
pub(super) const REGION: &str = "region";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) format: u32,
    pub(super) nomaly: String,
    /// Present for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<ModelInfo>,
    /// Present for rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rows: Option<RowsInfo>,
    pub(super) states: Vec<StateHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StateHeader {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) config: serde_json::Value,
}

impl Header {
    pub(super) fn new(info: &impl Info, states: &[(String, State)]) -> Self {
        let (model, rows) = info.clone().entries();
        let state = |(name, state): &(String, State)| StateHeader {
            name: name.clone(),
            kind: state.kind.clone(),
            config: state.config.clone(),
        };
        Self {
            format: FORMAT_VERSION,
            nomaly: env!("CARGO_PKG_VERSION").to_owned(),
            model,
            rows,
            states: states.iter().map(state).collect(),
        }
    }
}
