//! Folders in the layout of MVTec AD: `train/good`, `test/<kind>`, `ground_truth/<kind>/<stem>_mask.png`.
//!
//! # What it computes
//! `train/good` is the training set; every folder of `test` is a kind: `good` is normal, the others are anomalous. The
//! mask of `test/scratch/007.png` is `ground_truth/scratch/007_mask.png` (or `007.png`, or another image format), white
//! where the item is defective. A missing mask is not an error: [`crate::Dataset::missing_masks`] counts them.
//!
//! # When to use
//! The recommended layout for your own labelled images. `train` or `test` alone suffices for fitting or for testing a
//! fitted model. A folder of several such folders takes the option `category`.
//!
//! # Reference
//! P. Bergmann et al., *The MVTec Anomaly Detection Dataset*, IJCV 129, 2021.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::options::{CategoryOptions, Options};
use crate::sample::{Label, MaskSource};
use crate::walk::{file_sample, image_files, image_files_if_any, subfolders};
use crate::{DataError, Dataset};

/// Masks are black and white, so the middle separates them even where a lossy format blurred the values.
const MASK_THRESHOLD: u8 = 127;

/// Whether a folder is in this layout.
pub(crate) fn detect(folder: &Path) -> bool {
    folder.join("train/good").is_dir() || folder.join("test/good").is_dir()
}

/// The subfolders that are in this layout.
pub(crate) fn categories(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    Ok(subfolders(folder)?.into_iter().filter(|(_, path)| detect(path)).collect())
}

/// Reads the subfolder that the option `category` names.
pub(crate) fn open_category(folder: &Path, name: String, options: &Options) -> Result<Dataset, DataError> {
    let categories = categories(folder)?;
    if categories.is_empty() {
        return Err(DataError::Empty {
            path: folder.to_owned(),
            wanted: "categories in MVTec layout (*/train/good)".into(),
        });
    }
    let example = categories.first().map_or("", |(name, _)| name.as_str());
    let CategoryOptions { category } = options.read()?;
    let wanted = options.require("category", category, example)?;
    match categories.iter().find(|(name, _)| *name == wanted) {
        Some((_, path)) => open(path, name),
        None => Err(options.unknown("category", &wanted, categories.iter().map(|(name, _)| name.as_str()))),
    }
}

/// Reads a folder in this layout.
pub(crate) fn open(folder: &Path, name: String) -> Result<Dataset, DataError> {
    let mut dataset = Dataset { name, ..Dataset::default() };
    let train = folder.join("train/good");
    if train.is_dir() {
        dataset.train =
            image_files(&train)?.into_iter().map(|path| file_sample(folder, path, Label::Normal, "good")).collect();
    }
    let test = folder.join("test");
    if test.is_dir() {
        for (kind, path) in subfolders(&test)? {
            let label = if kind == "good" { Label::Normal } else { Label::Anomalous };
            let masks =
                if label == Label::Normal { HashMap::new() } else { masks(&folder.join("ground_truth").join(&kind))? };
            for image in image_files_if_any(&path)? {
                let mask = image.file_stem().and_then(|stem| masks.get(&*stem.to_string_lossy())).cloned();
                let mut sample = file_sample(folder, image, label, &kind);
                sample.mask = mask.map(|path| MaskSource::File { path, above: MASK_THRESHOLD });
                dataset.test.push(sample);
            }
        }
    }
    if dataset.train.is_empty() && dataset.test.is_empty() {
        return Err(DataError::Empty { path: folder.to_owned(), wanted: "images in train/good or test/*".into() });
    }
    Ok(dataset)
}

/// The masks in a folder, by the stem of the image each belongs to.
fn masks(folder: &Path) -> Result<HashMap<String, PathBuf>, DataError> {
    let mut masks = HashMap::new();
    if !folder.is_dir() {
        return Ok(masks);
    }
    for path in image_files_if_any(folder)? {
        if let Some(stem) = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()) {
            let of_image = stem.strip_suffix("_mask").unwrap_or(&stem).to_owned();
            masks.insert(of_image, path);
        }
    }
    Ok(masks)
}
