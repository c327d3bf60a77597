//! Opens a data set by its textual name.

use std::path::{Path, PathBuf};

use nomaly_settings::{SettingError, SettingsTable};

use crate::error::hint;
use crate::options::{CategoryOptions, NoOptions, Options, SplitOptions, split};
use crate::readers::{cifar, class_folders, elpv, idx, mvtec, visa};
use crate::registry::DATASETS;
use crate::sample::Label;
use crate::walk::{file_sample, image_files, subfolders};
use crate::{DataError, Dataset};

/// Opens a data set: a directory, or a named data set that has been fetched, each with options after a colon.
///
/// A directory is read in the first of these layouts that it matches:
///
/// | contents | read as | options |
/// |---|---|---|
/// | `train/good` or `test/good` | MVTec layout, with `ground_truth` if present | – |
/// | `train-images-idx3-ubyte` or `t10k-images-idx3-ubyte` (`.gz`) | IDX | `normal`, `train`, `seed` |
/// | `data_batch_1.bin` and `test_batch.bin`, or `train.bin` and `test.bin` | CIFAR-10, CIFAR-100 | `normal`, `labels` |
/// | `labels.csv` and `images/` | ELPV | `cells`, `labels` |
/// | `split_csv/1cls.csv` | VisA | `category` |
/// | `*/train/good` | one of several folders in MVTec layout | `category` |
/// | `train/*/` and `test/*/` | one folder per class | `normal` |
/// | the option `normal` is given | one folder per class, without a split | `normal`, `train`, `seed` |
/// | anything else | good training images, in any folders | – |
///
/// The named data sets are those of [`DATASETS`]. A directory takes precedence over a data set of the same name.
///
/// Opening lists files and reads small ones; image files are decoded when they are loaded.
///
/// ```
/// let error = nomaly_data::open("elvp:cells=mono").unwrap_err();
/// assert_eq!(error.to_string(), "`elvp` is neither a directory nor a data set; did you mean `elpv`?");
/// ```
///
/// # Errors
/// [`DataError`], naming the file, option or data set at fault.
pub fn open(spec: &str) -> Result<Dataset, DataError> {
    let whole = Path::new(spec);
    let (target, text) = if whole.is_dir() { (spec, None) } else { split(spec) };
    let path = Path::new(target);
    if path.is_dir() {
        let options = Options::parse(target, target, text)?;
        let mut dataset = open_directory(path, options)?;
        if let Some(text) = text {
            dataset.name = format!("{}:{text}", dataset.name);
        }
        return Ok(dataset);
    }
    if let Ok(entry) = DATASETS.get(target) {
        let options = Options::parse(&format!("data set {target}"), target, text)?;
        return entry.open(spec, options);
    }
    if path.exists() {
        let reason = "is a file; a data set is a directory or a name".to_owned();
        return Err(DataError::Ambiguous { path: path.to_owned(), reason });
    }
    // Text with a separator is probably a path; text with a colon is probably a name with options.
    if target.contains(['/', '\\']) {
        return Err(DataError::Missing { path: path.to_owned() });
    }
    if let Some((name, tail)) = target.split_once(':')
        && DATASETS.get(name).is_ok()
    {
        let cause = Box::new(SettingError::Syntax { given: tail.to_owned() });
        return Err(DataError::Setting { dataset: format!("data set {name}"), cause });
    }
    Err(DataError::UnknownDataset { spec: target.to_owned(), hint: hint(target, DATASETS.names()) })
}

/// Opens a folder with one folder per class, for learning all classes: `<class>/*`, or `train/<class>/*` and
/// `test/<class>/*`. The [kind](crate::Sample::kind) of an image is the name of its class.
///
/// Without `train` and `test` all images are training images. With them, test images of classes that `train` lacks are
/// labelled anomalous.
///
/// # Errors
/// [`DataError`]: no such folder, no folders in it, a folder without images or with a name that is not UTF-8, images
/// next to the folders of classes.
pub fn open_classes(folder: &Path) -> Result<Dataset, DataError> {
    if !folder.exists() {
        return Err(DataError::Missing { path: folder.to_owned() });
    }
    class_folders::open_all(folder, directory_name(folder))
}

/// Detects the layout of a directory and reads it.
fn open_directory(path: &Path, options: Options) -> Result<Dataset, DataError> {
    let name = directory_name(path);
    let shown = path.display();
    if mvtec::detect(path) {
        options.checked(&format!("{shown} (MVTec layout)"), &SettingsTable::of::<NoOptions>())?;
        return mvtec::open(path, name);
    }
    if idx::detect(path) {
        let options = options.checked(&format!("{shown} (IDX files)"), &SettingsTable::of::<SplitOptions>())?;
        return idx::open(path, name, &options, &[]);
    }
    if let Some((cifar, folder)) = cifar::detect(path) {
        let options = options.checked(&format!("{shown} (CIFAR files)"), &cifar.table())?;
        return cifar::open(cifar, &folder, name, &options);
    }
    if let Some(folder) = elpv::detect(path) {
        let options = options.checked(&format!("{shown} (ELPV)"), &SettingsTable::of::<elpv::ElpvOptions>())?;
        return elpv::open(&folder, name, &options);
    }
    if visa::detect(path) {
        let options = options.checked(&format!("{shown} (VisA)"), &SettingsTable::of::<CategoryOptions>())?;
        return visa::open(path, name, &options);
    }
    if !mvtec::categories(path)?.is_empty() {
        let options =
            options.checked(&format!("{shown} (folders in MVTec layout)"), &SettingsTable::of::<CategoryOptions>())?;
        return mvtec::open_category(path, name, &options);
    }
    if class_folders::detect_split(path)? || options.contains("normal") {
        let options =
            options.checked(&format!("{shown} (folders of classes)"), &SettingsTable::of::<SplitOptions>())?;
        return class_folders::open(path, name, &options);
    }
    options.checked(&format!("{shown} (a folder of good images)"), &SettingsTable::of::<NoOptions>())?;
    open_plain(path, name)
}

/// A folder of good training images.
fn open_plain(path: &Path, name: String) -> Result<Dataset, DataError> {
    // Training on a folder with separate defective images would teach that defects are normal.
    if let Some((folder, _)) = subfolders(path)?.into_iter().find(|(name, _)| name == "test" || name == "ground_truth")
    {
        let reason = format!(
            "holds a folder `{folder}`, but neither `train/good` nor `test/good`; \
             bring it into MVTec layout, or say which class is normal (`:normal=CLASS`)"
        );
        return Err(DataError::Ambiguous { path: path.to_owned(), reason });
    }
    let train = image_files(path)?.into_iter().map(|file| file_sample(path, file, Label::Normal, "good")).collect();
    Ok(Dataset { name, train, ..Dataset::default() })
}

/// The last component of a directory's path, also for `.` and `/data/..`.
fn directory_name(path: &Path) -> String {
    let full: PathBuf = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    full.file_name().map_or_else(|| full.display().to_string(), |name| name.to_string_lossy().into_owned())
}
