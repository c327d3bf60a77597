//! The named data sets.

use std::path::{Path, PathBuf};

use nomaly_registry::{Entry, Registry};
use nomaly_settings::SettingsTable;
use nomaly_store::Progress;

use crate::classes::{DIGITS, FASHION_MNIST};
use crate::demo;
use crate::manifest::{Manifest, folder};
use crate::options::{CategoryOptions, ClassOptions, Options};
use crate::readers::{cifar, elpv, idx, mvtec, visa};
use crate::{DataError, Dataset};

/// A data set that `nomaly data get NAME` fetches and [`crate::open`] opens by name.
#[derive(Debug)]
pub struct DatasetEntry {
    name: &'static str,
    summary: &'static str,
    table: fn() -> SettingsTable,
    origin: Origin,
}

/// The origin of a data set.
#[derive(Debug)]
enum Origin {
    /// Made in memory.
    BuiltIn(fn(&Options) -> Result<Dataset, DataError>),
    /// Fetched as the manifest says, and read by this function.
    Fetched { manifest: &'static str, read: fn(&Path, String, &Options) -> Result<Dataset, DataError> },
}

/// Whether a named data set is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It is part of the library.
    BuiltIn,
    /// It is in this folder.
    Ready(PathBuf),
    /// It has to be fetched.
    Missing,
}

impl Entry for DatasetEntry {
    fn name(&self) -> &str {
        self.name
    }
    fn summary(&self) -> &str {
        self.summary
    }
}

impl DatasetEntry {
    /// The options it takes.
    pub fn options(&self) -> SettingsTable {
        (self.table)()
    }

    /// The sources and terms of its files; `None` for a data set that is part of the library.
    ///
    /// # Errors
    /// [`DataError::Damaged`] if the embedded manifest cannot be read, which the tests of this crate rule out.
    pub fn manifest(&self) -> Result<Option<Manifest>, DataError> {
        match self.origin {
            Origin::BuiltIn(_) => Ok(None),
            Origin::Fetched { manifest, .. } => Manifest::parse(self.name, manifest).map(Some),
        }
    }

    /// The short name of its licence.
    ///
    /// # Errors
    /// As [`DatasetEntry::manifest`].
    pub fn licence(&self) -> Result<String, DataError> {
        Ok(self.manifest()?.map_or_else(|| "CC0-1.0".to_owned(), |manifest| manifest.licence))
    }

    /// Whether it is on this machine.
    ///
    /// # Errors
    /// [`DataError::Store`] if there is no cache folder.
    pub fn state(&self) -> Result<Availability, DataError> {
        if matches!(self.origin, Origin::BuiltIn(_)) {
            return Ok(Availability::BuiltIn);
        }
        let path = folder(&nomaly_store::home()?, self.name);
        Ok(if path.is_dir() { Availability::Ready(path) } else { Availability::Missing })
    }

    /// Opens the data set as `name`.
    pub(crate) fn open(&self, name: &str, options: Options) -> Result<Dataset, DataError> {
        let options = options.checked(&format!("data set {}", self.name), &self.options())?;
        let read = match self.origin {
            Origin::BuiltIn(make) => return make(&options),
            Origin::Fetched { read, .. } => read,
        };
        let Availability::Ready(path) = self.state()? else {
            return Err(DataError::NotFetched { name: self.name.to_owned() });
        };
        let mut dataset = read(&path, name.to_owned(), &options)?;
        dataset.licence = Some(self.licence()?);
        Ok(dataset)
    }
}

/// Fetches a named data set, unless it exists already, and returns its folder.
///
/// Files are compared with the SHA-256 in the manifest before anything is unpacked; a folder that exists is complete.
/// For a data set that is part of the library nothing is fetched, and the folder is the cache folder itself.
///
/// # Errors
/// [`DataError::UnknownDataset`]; [`DataError::FetchFailed`] with what was tried; [`DataError::Store`] if the run was
/// cancelled or there is no cache folder.
pub fn get(name: &str, progress: &dyn Progress) -> Result<PathBuf, DataError> {
    let entry = DATASETS.get(name).map_err(|error| DataError::UnknownDataset {
        spec: name.to_owned(),
        hint: crate::error::hint(name, error.known.iter().map(String::as_str)),
    })?;
    let home = nomaly_store::home()?;
    match entry.manifest()? {
        Some(manifest) => manifest.install(&home, progress),
        None => Ok(home),
    }
}

/// Every named data set.
pub static DATASETS: Registry<DatasetEntry> = Registry::new(
    "data set",
    &[
        DatasetEntry {
            name: "demo",
            summary: "crops of an embedded photograph, with synthetic defects and masks",
            table: SettingsTable::of::<demo::DemoOptions>,
            origin: Origin::BuiltIn(demo::open),
        },
        DatasetEntry {
            name: "mvtec-ad",
            summary: "15 industrial objects and textures with pixel masks, 5 354 images",
            table: SettingsTable::of::<CategoryOptions>,
            origin: Origin::Fetched {
                manifest: include_str!("../../../datasets/mvtec-ad.toml"),
                read: mvtec::open_category,
            },
        },
        DatasetEntry {
            name: "visa",
            summary: "12 industrial objects with pixel masks, 10 821 images, one-class split",
            table: SettingsTable::of::<CategoryOptions>,
            origin: Origin::Fetched { manifest: include_str!("../../../datasets/visa.toml"), read: visa::open },
        },
        DatasetEntry {
            name: "elpv",
            summary: "2 624 electroluminescence images of solar cells, good and defective",
            table: SettingsTable::of::<elpv::ElpvOptions>,
            origin: Origin::Fetched { manifest: include_str!("../../../datasets/elpv.toml"), read: elpv::open },
        },
        DatasetEntry {
            name: "fashion-mnist",
            summary: "70 000 grey images of clothes, 28 by 28 pixels, 10 classes",
            table: SettingsTable::of::<ClassOptions>,
            origin: Origin::Fetched {
                manifest: include_str!("../../../datasets/fashion-mnist.toml"),
                read: |folder, name, options| idx::open(folder, name, options, &FASHION_MNIST),
            },
        },
        DatasetEntry {
            name: "mnist",
            summary: "70 000 grey images of digits, 28 by 28 pixels, 10 classes",
            table: SettingsTable::of::<ClassOptions>,
            origin: Origin::Fetched {
                manifest: include_str!("../../../datasets/mnist.toml"),
                read: |folder, name, options| idx::open(folder, name, options, &DIGITS),
            },
        },
        DatasetEntry {
            name: "cifar10",
            summary: "60 000 colour images, 32 by 32 pixels, 10 classes",
            table: SettingsTable::of::<ClassOptions>,
            origin: Origin::Fetched {
                manifest: include_str!("../../../datasets/cifar10.toml"),
                read: |folder, name, options| cifar::open(cifar::Cifar::Ten, folder, name, options),
            },
        },
        DatasetEntry {
            name: "cifar100",
            summary: "60 000 colour images, 32 by 32 pixels, 100 classes in 20 groups",
            table: SettingsTable::of::<cifar::Cifar100Options>,
            origin: Origin::Fetched {
                manifest: include_str!("../../../datasets/cifar100.toml"),
                read: |folder, name, options| cifar::open(cifar::Cifar::Hundred, folder, name, options),
            },
        },
    ],
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_is_of_its_entry_and_complete() {
        for entry in DATASETS.iter() {
            let Some(manifest) = entry.manifest().unwrap() else {
                assert_eq!(entry.state().unwrap(), Availability::BuiltIn);
                continue;
            };
            assert_eq!(manifest.name, entry.name);
            assert!(!manifest.routes.is_empty(), "{}", entry.name);
            for text in [&manifest.homepage, &manifest.licence, &manifest.notice, &manifest.citation] {
                assert!(!text.trim().is_empty(), "{}", entry.name);
            }
            for route in &manifest.routes {
                assert!(!route.files.is_empty(), "{}", entry.name);
                assert!(!route.unpack || route.files.len() == 1, "{}: one archive a route", entry.name);
                route.files.iter().for_each(|source| source.validate().unwrap());
            }
        }
    }
}
