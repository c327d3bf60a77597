//! One folder per class: `train/<class>/*`, `test/<class>/*`, or just `<class>/*`.
//!
//! # What it computes
//! The class named by the option `normal` is the training set; in the test images it is normal and all other classes
//! are anomalous. Without `train` and `test`, a seeded share of the normal class is the training set; the rest of it
//! and the other classes are the test set.
//!
//! # When to use
//! For data sets made for classification, and for good and bad items in two folders: `PATH:normal=ok`.
//!
//! # Parameters
//! `normal`; without `train` and `test` also `train` and `seed`.
//!
//! # Reference
//! The one-against-the-rest protocol: L. Ruff et al., *Deep One-Class Classification*, ICML 2018, section 4.

use std::path::Path;

use crate::classes::{find, share};
use crate::options::{Options, SplitOptions};
use crate::sample::{Label, Sample};
use crate::subset::{Choice, choose};
use crate::walk::{file_sample, image_files, image_files_if_any, is_hidden, is_image, subfolders};
use crate::{DataError, Dataset};

/// Whether a folder has folders of classes in `train` and in `test`.
pub(crate) fn detect_split(folder: &Path) -> Result<bool, DataError> {
    for part in ["train", "test"] {
        let part = folder.join(part);
        if !part.is_dir() || subfolders(&part)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the folder.
pub(crate) fn open(folder: &Path, name: String, options: &Options) -> Result<Dataset, DataError> {
    let has_parts = detect_split(folder)?;
    let train = if has_parts { folder.join("train") } else { folder.to_owned() };
    let names: Vec<String> = subfolders(&train)?.into_iter().map(|(name, _)| name).collect();
    if names.is_empty() {
        return Err(DataError::Empty { path: train, wanted: "folders of classes".into() });
    }
    let example = names.first().map_or("good", String::as_str);
    let SplitOptions { normal, train: fraction, seed } = options.read()?;
    let normal = &names[find(options, &options.require("normal", normal, example)?, &names)?];
    let normal_files = image_files(&train.join(normal))?;
    let mut dataset = Dataset { name, classes: names.clone(), ..Dataset::default() };

    if has_parts {
        let samples = normal_files.into_iter().map(|path| file_sample(folder, path, Label::Normal, normal));
        dataset.train = samples.collect();
        for (class, path) in subfolders(&folder.join("test"))? {
            let label = if class == *normal { Label::Normal } else { Label::Anomalous };
            let files = image_files_if_any(&path)?;
            dataset.test.extend(files.into_iter().map(|path| file_sample(folder, path, label, &class)));
        }
        return Ok(dataset);
    }

    let mut learnt =
        choose(normal_files.len(), share(normal_files.len(), fraction), Choice::Seeded(seed)).into_iter().peekable();
    let mut held_out = Vec::new();
    for (index, path) in normal_files.into_iter().enumerate() {
        let sample = file_sample(folder, path, Label::Normal, normal);
        if learnt.next_if_eq(&index).is_some() {
            dataset.train.push(sample);
        } else {
            held_out.push(sample);
        }
    }
    for (class, path) in subfolders(folder)? {
        if class == *normal {
            dataset.test.append(&mut held_out);
            continue;
        }
        let files = image_files_if_any(&path)?;
        dataset.test.extend(files.into_iter().map(|path| file_sample(folder, path, Label::Anomalous, &class)));
    }
    Ok(dataset)
}

/// Reads a folder for learning all classes: the kind of each sample is the name of its folder.
///
/// With `train` and `test`, images in `test` of classes that are not in `train` are labelled anomalous; without them
/// all images are training images.
pub(crate) fn open_all(folder: &Path, name: String) -> Result<Dataset, DataError> {
    let mut dataset = Dataset { name, ..Dataset::default() };
    if !detect_split(folder)? {
        dataset.train = labelled(folder, folder, &[])?.0;
        return Ok(dataset);
    }
    let (train, classes) = labelled(folder, &folder.join("train"), &[])?;
    dataset.train = train;
    dataset.test = labelled(folder, &folder.join("test"), &classes)?.0;
    Ok(dataset)
}

/// The images of each folder in `parent`, and the names of these folders. Images of classes that are not `known` are
/// labelled anomalous; if `known` is empty, none are.
fn labelled(root: &Path, parent: &Path, known: &[String]) -> Result<(Vec<Sample>, Vec<String>), DataError> {
    let ambiguous = |reason: String| DataError::Ambiguous { path: parent.to_owned(), reason };
    for entry in std::fs::read_dir(parent).map_err(|error| DataError::io(parent, error))? {
        let entry = entry.map_err(|error| DataError::io(parent, error))?;
        let (name, path) = (entry.file_name(), entry.path());
        if is_hidden(&name) {
            continue;
        }
        if path.is_dir() && name.to_str().is_none() {
            return Err(ambiguous(format!("holds a folder whose name is not UTF-8: {}", name.display())));
        }
        if path.is_file() && is_image(&path) {
            let reason = format!("holds the image {} beside folders of classes: whose is it?", name.display());
            return Err(ambiguous(reason));
        }
    }
    let folders = subfolders(parent)?;
    if folders.is_empty() {
        return Err(DataError::Empty { path: parent.to_owned(), wanted: "folders of classes".into() });
    }
    let mut samples = Vec::new();
    let mut classes = Vec::with_capacity(folders.len());
    for (class, path) in folders {
        let label = if known.is_empty() || known.contains(&class) { Label::Normal } else { Label::Anomalous };
        samples.extend(image_files(&path)?.into_iter().map(|path| file_sample(root, path, label, &class)));
        classes.push(class);
    }
    Ok((samples, classes))
}
