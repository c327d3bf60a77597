//! VisA with its one-class split.
//!
//! # What it computes
//! Reads `split_csv/1cls.csv` (columns `object,split,label,image,mask`): with the training and test images of one
//! object. Masks number the kinds of defect, so every value above 0 is defective.
//!
//! # When to use
//! For the unpacked published archive: `PATH:category=candle`.
//!
//! # Parameters
//! `category`: the object.
//!
//! # Reference
//! Y. Zou et al., *SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and Segmentation*, ECCV 2022.

use std::collections::BTreeSet;
use std::path::Path;

use crate::options::{CategoryOptions, Options};
use crate::readers::{below, read_text};
use crate::sample::{Label, MaskSource};
use crate::walk::file_sample;
use crate::{DataError, Dataset};

const SPLIT: &str = "split_csv/1cls.csv";
const COLUMNS: [&str; 5] = ["object", "split", "label", "image", "mask"];

/// Whether a folder is in this layout.
pub(crate) fn detect(folder: &Path) -> bool {
    folder.join(SPLIT).is_file()
}

/// Reads the folder.
pub(crate) fn open(folder: &Path, name: String, options: &Options) -> Result<Dataset, DataError> {
    let list = folder.join(SPLIT);
    let text = read_text(&list)?;
    let damaged = |line: usize, reason: String| DataError::damaged(&list, format!("line {}: {reason}", line + 1));
    let mut rows = Vec::new();
    for (line, row) in text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
        let fields: Vec<&str> = row.split(',').map(str::trim).collect();
        let row: [&str; 5] = fields.try_into().map_err(|fields: Vec<&str>| {
            damaged(line, format!("{} fields where {} are due", fields.len(), COLUMNS.len()))
        })?;
        rows.push((line, row));
    }
    if rows.first().map(|(_, row)| row) != Some(&COLUMNS) {
        return Err(DataError::damaged(&list, format!("its first line is not `{}`", COLUMNS.join(","))));
    }
    rows.remove(0);

    let objects: BTreeSet<&str> = rows.iter().map(|(_, row)| row[0]).collect();
    let CategoryOptions { category } = options.read()?;
    let wanted = options.require("category", category, objects.first().copied().unwrap_or("candle"))?;
    if !objects.contains(wanted.as_str()) {
        return Err(options.unknown("category", &wanted, objects));
    }
    let mut dataset = Dataset { name, ..Dataset::default() };
    for (line, [_, split, label, image, mask]) in rows.iter().filter(|(_, row)| row[0] == wanted) {
        let (label, kind) = match *label {
            "normal" => (Label::Normal, "good"),
            "anomaly" => (Label::Anomalous, "bad"),
            other => return Err(damaged(*line, format!("the label is `{other}`, not `normal` or `anomaly`"))),
        };
        let mut sample = file_sample(folder, below(folder, &list, image)?, label, kind);
        if label == Label::Anomalous && !mask.is_empty() {
            sample.mask = Some(MaskSource::File { path: below(folder, &list, mask)?, above: 0 });
        }
        match (*split, label) {
            ("train", Label::Normal) => dataset.train.push(sample),
            ("test", _) => dataset.test.push(sample),
            ("train", _) => return Err(damaged(*line, "an anomalous image is listed for training".to_owned())),
            (other, _) => return Err(damaged(*line, format!("the split is `{other}`, not `train` or `test`"))),
        }
    }
    Ok(dataset)
}
