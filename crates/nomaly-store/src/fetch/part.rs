//! The received part of a download.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::atomic::sync_folder;
use crate::checksum::Hasher;
use crate::destination::parent;

/// A growing file `NAME.part` with the running SHA-256 of its contents.
pub(super) struct Part {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    length: u64,
}

impl Part {
    /// Opens the part next to `target`, including the bytes of an earlier download.
    pub(super) fn open(target: &Path) -> Result<Self, StoreError> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        let mut hasher = Hasher::default();
        let length = hasher.update_from(&mut file).map_err(StoreError::io("read", &path))?;
        Ok(Self { file, path, hasher, length })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn sha256(&self) -> String {
        self.hasher.hex()
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(StoreError::io("write", &self.path))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Discards all received bytes.
    pub(super) fn clear(&mut self) -> Result<(), StoreError> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(StoreError::io("write", &self.path))?;
        self.hasher = Hasher::default();
        self.length = 0;
        Ok(())
    }

    /// Moves the finished file to the target.
    pub(super) fn finish(self, target: &Path) -> Result<(), StoreError> {
        self.file.sync_all().map_err(StoreError::io("write", &self.path))?;
        drop(self.file);
        fs::rename(&self.path, target).map_err(StoreError::io("write", target))?;
        sync_folder(parent(target));
        Ok(())
    }

    /// Removes the file.
    pub(super) fn remove(self) -> Result<(), StoreError> {
        drop(self.file);
        fs::remove_file(&self.path).map_err(StoreError::io("remove", &self.path))
    }
}
