//! The model file: one safetensors file that scores anywhere, offline.
//!
//! # Format, version 3
//! The metadata entry `nomaly` holds a JSON object: `format` (the version), `nomaly` (the version of the program that
//! wrote it), [`ModelInfo`](crate::info::ModelInfo) and, for each state of the method, its name, kind and
//! configuration. Tensors:
//!
//! | name | type | what |
//! |---|---|---|
//! | `backbone/NAME` | as in the weight file | the backbone's weights up to the deepest tap |
//! | `backbone/NETWORK/NAME` | as in the weight file | the same for each of several joined networks |
//! | `method/STATE/NAME` | F16, F32, F64 or U32 | the states of the method; `N:STATE` at the N-th of several sizes |
//! | `calibration/held_out` | F64 | held-out scores of the training images, in order |
//! | `calibration/groups` | U32 | the group number of each of these images, if there are groups |
//! | `calibration/class/N` | F64 | held-out scores of the items assigned to the N-th class, for models of classes |
//! | `calibration/class_groups/N` | U32 | the groups of these items, if there are groups |
//! | `calibration/map_maxima` | F64 | the largest values of their maps, in the same order, for methods that make maps |
//! | `region` | F32 | the region of interest, if any: 1 inside and 0 outside, in pixels of the frame |
//! | `sha256` | U8 | the SHA-256 of everything before it, see [`write_sealed`](nomaly_nn::weights::write_sealed) |
//!
//! A model of [rows](crate::rows) has `rows` with [`RowsInfo`](crate::info::RowsInfo) in place of `model`, and no
//! tensors of a backbone, of maps or of a region.
//!
//! The content does not depend on the time, the machine or the number of threads. Damage to any bit is detected.
//! Reading never runs code: sizes, shapes and values are checked first, and other versions are rejected.

mod format;
mod read;
mod scores;
mod states;
mod stored;
mod summary;
mod write;

pub use self::format::FORMAT_VERSION;
pub(crate) use self::format::PARTIAL_MAGIC;
pub(crate) use self::read::{Parts, parse, read};
pub use self::scores::{StoredScores, stored_classes};
pub(crate) use self::states::{check_classes, joined_states, split_states};
pub use self::stored::Stored;
pub use self::summary::{AnySummary, Summary, read_any_summary, read_summary};
pub(crate) use self::write::write;
