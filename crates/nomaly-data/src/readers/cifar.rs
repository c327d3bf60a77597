//! CIFAR-10 and CIFAR-100 in their binary form.
//!
//! # What it computes
//! Reads `data_batch_1.bin` … `data_batch_5.bin` and `test_batch.bin` (CIFAR-10: a class byte, then 3 × 32 × 32
//! bytes, plane by plane), or `train.bin` and `test.bin` (CIFAR-100: a coarse and a fine class byte before the pixels).
//!
//! # When to use
//! For a folder that holds these files, or the unpacked published archive: `PATH:normal=dog`.
//!
//! # Parameters
//! `normal`; for CIFAR-100 `labels`: `fine` (100 classes) or `coarse` (20).
//!
//! # Reference
//! A. Krizhevsky, *Learning multiple layers of features from tiny images*, 2009; section "Binary version" of its page.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nomaly_settings::{Settings, SettingsTable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::classes::{CIFAR10, CIFAR100, CIFAR100_COARSE, Labelled, one_class, owned};
use crate::options::{ClassOptions, Options, SplitOptions};
use crate::readers::{MAX_FILE_BYTES, read_file};
use crate::sample::{Channels, PackedImages};
use crate::{DataError, Dataset};

const SIDE: u32 = 32;
const PIXEL_BYTES: usize = 3 * (SIDE * SIDE) as usize;

/// Which of the two data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cifar {
    Ten,
    Hundred,
}

impl Cifar {
    /// The options of this layout.
    pub(crate) fn table(self) -> SettingsTable {
        match self {
            Self::Ten => SettingsTable::of::<ClassOptions>(),
            Self::Hundred => SettingsTable::of::<Cifar100Options>(),
        }
    }
}

/// The options of CIFAR-100.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Cifar100Options {
    #[serde(flatten)]
    class: ClassOptions,
    /// Which classes.
    labels: Labels,
}

impl Settings for Cifar100Options {}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Labels {
    /// The 100 fine ones.
    #[default]
    Fine,
    /// The 20 coarse ones.
    Coarse,
}

/// The data set in a folder, and the folder below it that holds the files.
pub(crate) fn detect(folder: &Path) -> Option<(Cifar, PathBuf)> {
    let candidates = [folder.to_owned(), folder.join("cifar-10-batches-bin"), folder.join("cifar-100-binary")];
    candidates.into_iter().find_map(|folder| {
        let holds = |name: &str| folder.join(name).is_file();
        if holds("data_batch_1.bin") && holds("test_batch.bin") {
            Some((Cifar::Ten, folder))
        } else if holds("train.bin") && holds("test.bin") {
            Some((Cifar::Hundred, folder))
        } else {
            None
        }
    })
}

/// Reads the files in a folder.
pub(crate) fn open(cifar: Cifar, folder: &Path, name: String, options: &Options) -> Result<Dataset, DataError> {
    // The position of the class byte, and the number of bytes before the pixels.
    let Cifar100Options { class: ClassOptions { normal }, labels } = options.read()?;
    let (names, class_at, before) = match (cifar, labels) {
        (Cifar::Ten, _) => (owned(&CIFAR10), 0, 1),
        (Cifar::Hundred, Labels::Coarse) => (owned(&CIFAR100_COARSE), 0, 2),
        (Cifar::Hundred, Labels::Fine) => (owned(&CIFAR100), 1, 2),
    };
    let chosen = SplitOptions { normal, ..SplitOptions::default() };
    let (train, test): (Vec<PathBuf>, PathBuf) = match cifar {
        Cifar::Ten => {
            let batches = (1..=5).map(|batch| folder.join(format!("data_batch_{batch}.bin")));
            (batches.filter(|path| path.is_file()).collect(), folder.join("test_batch.bin"))
        }
        Cifar::Hundred => (vec![folder.join("train.bin")], folder.join("test.bin")),
    };
    let read = |files: &[PathBuf]| read_part(files, class_at, before, names.len());
    one_class(name, options, chosen, &names, Some(&read(&train)?), &read(&[test])?)
}

fn read_part(files: &[PathBuf], class_at: usize, before: usize, classes: usize) -> Result<Labelled, DataError> {
    let record = before + PIXEL_BYTES;
    let mut bytes = Vec::new();
    for path in files {
        let part = read_file(path, MAX_FILE_BYTES)?;
        if part.is_empty() || part.len() % record != 0 {
            let reason =
                format!("it holds {} bytes, which is not a multiple of the {record} that an image takes", part.len());
            return Err(DataError::damaged(path, reason));
        }
        if let Some(index) = part.chunks_exact(record).position(|image| usize::from(image[class_at]) >= classes) {
            let class = part[index * record + class_at];
            return Err(DataError::damaged(path, format!("image {index} is of class {class} of {classes}")));
        }
        bytes.extend_from_slice(&part);
    }
    let classes = bytes.chunks_exact(record).map(|image| image[class_at]).collect();
    let images = Arc::new(PackedImages::new(bytes, SIDE, SIDE, Channels::PlanarRgb, before));
    Ok(Labelled { images, classes })
}
