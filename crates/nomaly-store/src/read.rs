//! Reads untrusted files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::StoreError;

/// Reads a whole regular file of at most `limit` bytes.
///
/// The kind of file is checked before it is opened: a pipe would wait for a writer, and a device may never end. At most
/// the file's length at that time is read.
///
/// # Errors
/// [`StoreError::Io`] naming the file: missing, unreadable, not a regular file
/// ([`IsADirectory`](io::ErrorKind::IsADirectory), [`InvalidInput`](io::ErrorKind::InvalidInput)), or longer than
/// `limit` ([`FileTooLarge`](io::ErrorKind::FileTooLarge)).
pub fn read_regular(path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
    read(path, limit).map_err(StoreError::io("read", path))
}

fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    check_regular(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    // The file may have been replaced in the meantime.
    let metadata = file.metadata()?;
    check_regular(&metadata)?;
    let length = metadata.len();
    let memory = usize::try_from(length).ok().filter(|_| length <= limit).ok_or_else(|| {
        io::Error::new(io::ErrorKind::FileTooLarge, format!("it has {length} bytes, more than {limit}"))
    })?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(memory).map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &Path, expected: Result<&[u8], io::ErrorKind>) {
        match (read_regular(path, 10), expected) {
            (Ok(bytes), Ok(expected)) => assert_eq!(bytes, expected),
            (Err(StoreError::Io { action: "read", path: named, source }), Err(kind)) => {
                assert_eq!((named.as_path(), source.kind()), (path, kind), "{source}");
            }
            (found, _) => panic!("{}: {found:?}", path.display()),
        }
    }

    #[test]
    fn regular_files_up_to_the_limit_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"0123456789").unwrap();
        check(&path, Ok(b"0123456789"));
        fs::write(&path, b"0123456789a").unwrap();
        check(&path, Err(io::ErrorKind::FileTooLarge));
        check(folder.path(), Err(io::ErrorKind::IsADirectory));
        check(&folder.path().join("absent"), Err(io::ErrorKind::NotFound));
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_pipes_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        check(&pipe, Err(io::ErrorKind::InvalidInput));
        check(Path::new("/dev/zero"), Err(io::ErrorKind::InvalidInput));
    }
}
