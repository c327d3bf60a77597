//! The manifests `datasets/*.toml` of the named data sets: files, contents and terms.

use std::path::{Path, PathBuf};

use nomaly_store::{Progress, Source, archive};
use serde::Deserialize;

use crate::DataError;

/// A named data set: its terms, and the ways to fetch it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The name in [`crate::DATASETS`].
    pub name: String,
    /// The data set's page.
    pub homepage: String,
    /// The licence's short name.
    pub licence: String,
    /// What the licence asks of those who use the images; shown when they are fetched.
    pub notice: String,
    /// The publication to cite.
    pub citation: String,
    /// Ways to fetch the files, the preferred one first.
    #[serde(rename = "route")]
    pub routes: Vec<Route>,
}

/// One way to fetch a data set's files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Whether the file is an archive to unpack; otherwise the files are used as they are.
    pub unpack: bool,
    /// The folder in the archive that holds the data set; the whole archive if absent.
    pub root: Option<PathBuf>,
    /// The files.
    #[serde(rename = "file")]
    pub files: Vec<Source>,
}

impl Manifest {
    /// Reads the text of a manifest.
    pub(crate) fn parse(name: &str, text: &str) -> Result<Self, DataError> {
        toml::from_str(text).map_err(|error| DataError::damaged(format!("datasets/{name}.toml"), error.to_string()))
    }

    /// Fetches the data set into `home/datasets/NAME`, completely or not at all.
    pub(crate) fn install(&self, home: &Path, progress: &dyn Progress) -> Result<PathBuf, DataError> {
        let fetch = |source: &Source, folder: &Path| nomaly_store::fetch(source, folder, progress);
        self.install_with(home, progress, &fetch)
    }

    fn install_with(&self, home: &Path, progress: &dyn Progress, fetch: &Fetch<'_>) -> Result<PathBuf, DataError> {
        let target = folder(home, &self.name);
        if target.is_dir() {
            return Ok(target);
        }
        let downloads = home.join("downloads").join(&self.name);
        let mut attempts = Vec::new();
        for route in &self.routes {
            match route.install(&target, &downloads, progress, fetch) {
                Ok(()) => {
                    // The archive is no longer needed; failing to remove it only costs disk space.
                    let _ = std::fs::remove_dir_all(&downloads);
                    return Ok(target);
                }
                Err(DataError::Store(error)) if error.is_cancelled() => return Err(error.into()),
                Err(error) => {
                    let sources: Vec<String> = route.files.iter().take(1).map(ToString::to_string).collect();
                    attempts.push(format!("{}: {error}", sources.join(", ")));
                }
            }
        }
        Err(DataError::FetchFailed { name: self.name.clone(), attempts })
    }
}

/// Gets the file of a source into a folder.
type Fetch<'a> = dyn Fn(&Source, &Path) -> Result<PathBuf, nomaly_store::StoreError> + 'a;

/// The folder of a fetched data set.
pub(crate) fn folder(home: &Path, name: &str) -> PathBuf {
    home.join("datasets").join(name)
}

impl Route {
    fn install(
        &self,
        target: &Path,
        downloads: &Path,
        progress: &dyn Progress,
        fetch: &Fetch<'_>,
    ) -> Result<(), DataError> {
        let scratch = downloads.join("unpacked");
        remove(&scratch)?;
        let files: Vec<PathBuf> = self.files.iter().map(|source| fetch(source, downloads)).collect::<Result<_, _>>()?;
        if self.unpack {
            for file in &files {
                archive::extract(file, &scratch, &archive::ArchiveLimits::default(), progress)?;
            }
        } else {
            nomaly_store::create_folder(&scratch)?;
            for file in &files {
                let name = file.file_name().unwrap_or_default();
                std::fs::rename(file, scratch.join(name)).map_err(|error| DataError::io(file, error))?;
            }
        }
        let root = self.root.as_ref().map_or_else(|| scratch.clone(), |root| scratch.join(root));
        if !root.is_dir() {
            return Err(DataError::Missing { path: root });
        }
        if let Some(above) = target.parent() {
            nomaly_store::create_folder(above)?;
        }
        match std::fs::rename(&root, target) {
            // Another process has fetched the same data set in the meantime.
            Err(_) if target.is_dir() => Ok(()),
            result => result.map_err(|error| DataError::io(target, error)),
        }
    }
}

fn remove(folder: &Path) -> Result<(), DataError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DataError::io(folder, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use nomaly_store::{Silent, StoreError};

    use super::*;

    const TEXT: &str = r#"
        name = "parts"
        homepage = "https://example.org"
        licence = "CC0-1.0"
        notice = "-"
        citation = "-"

        [[route]]
        unpack = true
        root = "inner/data"
        [[route.file]]
        kind = "https"
        url = "https://example.org/parts.tar"
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"

        [[route]]
        unpack = false
        [[route.file]]
        kind = "https"
        url = "https://example.org/a.bin"
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
        [[route.file]]
        kind = "https"
        url = "https://example.org/b.bin"
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
    "#;

    fn offline(source: &Source) -> StoreError {
        StoreError::InvalidSource { what: source.to_string(), reason: "offline".to_owned() }
    }

    /// A tar file with one member, by hand: a header block, a block of contents, two empty blocks.
    fn tar(path: &str, contents: &[u8]) -> Vec<u8> {
        let mut header = [0_u8; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", contents.len()).as_bytes());
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(contents);
        bytes.resize(512 * 4, 0);
        bytes
    }

    #[test]
    fn an_archive_is_unpacked_and_its_root_becomes_the_data_set() {
        let home = tempfile::tempdir().unwrap();
        let manifest = Manifest::parse("parts", TEXT).unwrap();
        let fetch = |source: &Source, folder: &Path| {
            nomaly_store::create_folder(folder)?;
            let path = folder.join(source.file_name());
            nomaly_store::write_atomic(&path, &tar("inner/data/labels.csv", b"hello"))?;
            Ok(path)
        };
        let target = manifest.install_with(home.path(), &Silent, &fetch).unwrap();
        assert_eq!(target, home.path().join("datasets/parts"));
        assert_eq!(std::fs::read(target.join("labels.csv")).unwrap(), b"hello");
        assert!(!home.path().join("downloads/parts").exists(), "the archive is removed once it is unpacked");
        // An existing data set is not fetched again.
        manifest.install_with(home.path(), &Silent, &|source, _| Err(offline(source))).unwrap();
    }

    #[test]
    fn the_next_route_is_tried_where_one_fails() {
        let home = tempfile::tempdir().unwrap();
        let manifest = Manifest::parse("parts", TEXT).unwrap();
        let fetch = |source: &Source, folder: &Path| {
            if source.file_name() == "parts.tar" {
                return Err(offline(source));
            }
            nomaly_store::create_folder(folder)?;
            let path = folder.join(source.file_name());
            nomaly_store::write_atomic(&path, source.file_name().as_bytes())?;
            Ok(path)
        };
        let target = manifest.install_with(home.path(), &Silent, &fetch).unwrap();
        assert_eq!(std::fs::read(target.join("b.bin")).unwrap(), b"b.bin");
        assert!(target.join("a.bin").is_file());
    }

    #[test]
    fn a_failure_leaves_no_data_set_and_names_what_was_tried() {
        let home = tempfile::tempdir().unwrap();
        let manifest = Manifest::parse("parts", TEXT).unwrap();
        let error = manifest.install_with(home.path(), &Silent, &|source, _| Err(offline(source))).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("parts.tar") && message.contains("a.bin") && message.contains("offline"), "{message}");
        assert!(!home.path().join("datasets/parts").exists());
    }
}
