//! Summaries of model files, without building the model.

use std::path::Path;

use nomaly_nn::weights::Weights;
use serde::Serialize;

use super::read::{class_scores, held_out, open, read_bytes};
use super::scores::StoredScores;
use crate::error::DetectorError;
use crate::info::{Info, ModelInfo, RowsInfo};

/// The summary shown by `inspect`: the header without the tensors.
#[derive(Clone, Debug, Serialize)]
pub struct Summary<I = ModelInfo> {
    /// The version of the format.
    pub format: u32,
    /// The version of the program that wrote the file.
    pub written_by: String,
    /// The description of the model.
    #[serde(flatten)]
    pub info: I,
    /// The number of held-out scores of normal images.
    #[serde(skip)]
    pub held_out: StoredScores,
    /// The number of held-out scores of each class, ascending, for models of classes.
    #[serde(skip)]
    pub class_scores: Vec<StoredScores>,
    /// The size of the file in bytes.
    pub file_bytes: u64,
    /// The size of the backbone's weights in bytes.
    pub backbone_bytes: u64,
    /// The number of tensors.
    pub tensors: usize,
}

/// The summary of a model of either kind.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AnySummary {
    /// A model of images.
    Images(Box<Summary>),
    /// A model of rows.
    Rows(Box<Summary<RowsInfo>>),
}

/// As [`read_any_summary`], for a model of images.
///
/// # Errors
/// As there, and a model of rows.
pub fn read_summary(path: &Path) -> Result<Summary, DetectorError> {
    match read_any_summary(path)? {
        AnySummary::Images(summary) => Ok(*summary),
        AnySummary::Rows(_) => {
            Err(DetectorError::ModelFile { path: path.to_owned(), reason: ModelInfo::OTHER_KIND.to_owned() })
        }
    }
}

/// Reads the summary of a model file.
///
/// # Errors
/// A file that cannot be read, is damaged, or has an unknown version.
pub fn read_any_summary(path: &Path) -> Result<AnySummary, DetectorError> {
    let bytes = read_bytes(path)?;
    let (header, tensors) =
        open(&bytes).map_err(|reason| DetectorError::ModelFile { path: path.to_owned(), reason })?;
    let file_bytes = bytes.len() as u64;
    match (header.model, header.rows) {
        (_, Some(info)) => {
            let summary = Summary::new(header.format, header.nomaly, info, file_bytes, &tensors);
            Ok(AnySummary::Rows(Box::new(summary)))
        }
        (Some(info), None) => {
            let summary = Summary::new(header.format, header.nomaly, info, file_bytes, &tensors);
            Ok(AnySummary::Images(Box::new(summary)))
        }
        (None, None) => unreachable!("a header of neither kind is not opened"),
    }
}

impl<I> Summary<I> {
    fn new(format: u32, written_by: String, info: I, file_bytes: u64, tensors: &Weights) -> Self {
        let of_backbone = tensors.iter().filter(|(name, _)| name.starts_with("backbone/"));
        Self {
            format,
            written_by,
            info,
            held_out: held_out(tensors).unwrap_or_default(),
            class_scores: class_scores(tensors).unwrap_or_default(),
            file_bytes,
            backbone_bytes: of_backbone.map(|(_, tensor)| tensor.bytes.len() as u64).sum(),
            tensors: tensors.len(),
        }
    }
}
