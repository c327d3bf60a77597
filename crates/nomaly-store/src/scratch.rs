//! Temporary files for data that does not fit in memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::{StoreError, create_folder};

/// A file without a name, for data of one process: bytes are appended, and read anywhere.
///
/// The file is removed when it is dropped and when the process ends, however it ends: on Unix it has no name from the
/// start, on Windows the system deletes it on closing.
#[derive(Debug)]
pub struct ScratchFile {
    file: File,
    folder: PathBuf,
    len: u64,
}

impl ScratchFile {
    /// An empty file on the disk of `folder`, which is created if missing.
    ///
    /// # Errors
    /// [`StoreError::Io`] naming `folder`.
    pub fn create_in(folder: &Path) -> Result<Self, StoreError> {
        create_folder(folder)?;
        let file = tempfile::tempfile_in(folder).map_err(StoreError::io("create a temporary file in", folder))?;
        Ok(Self { file, folder: folder.to_owned(), len: 0 })
    }

    /// The folder on whose disk the bytes are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes in the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing has been appended.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `bytes`. After an error the file may end in a part of them, which further bytes replace.
    ///
    /// # Errors
    /// The error of the system, [`io::ErrorKind::StorageFull`] for a full disk.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.len))?;
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Fills `bytes` with those from `start` on.
    ///
    /// # Errors
    /// The error of the system, [`io::ErrorKind::UnexpectedEof`] beyond the end.
    pub fn read(&mut self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(start))?;
        self.file.read_exact(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_any_order_and_leave_no_file() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("cache");
        let mut file = ScratchFile::create_in(&folder).unwrap();
        file.append(b"first").unwrap();
        file.append(b"second").unwrap();
        let mut bytes = [0; 6];
        file.read(5, &mut bytes).unwrap();
        assert_eq!(&bytes, b"second");
        file.read(0, &mut bytes[..5]).unwrap();
        assert_eq!(&bytes[..5], b"first");
        file.append(b"!").unwrap();
        assert_eq!((file.len(), file.is_empty()), (12, false));
        assert_eq!(file.read(7, &mut bytes).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        #[cfg(unix)]
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "a name on Unix");
        drop(file);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_a_file_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        std::fs::write(&path, b"").unwrap();
        let error = ScratchFile::create_in(&path).unwrap_err();
        assert!(matches!(&error, StoreError::Io { path: named, .. } if named.starts_with(parent.path())), "{error}");
    }
}
