//! File locks, so that two processes do not write the same partial download.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::{Progress, StoreError};

/// A lock held while a file is fetched; the operating system releases it if the process dies.
pub(super) struct FetchLock {
    _file: File,
}

/// Waits until no other process fetches `name` into `folder`.
///
/// The lock is on a separate small file (`.NAME.lock`), which is not removed: otherwise a third process could lock a
/// new file while a second one waits for the old. On file systems without locks, all processes proceed at once; the
/// checksum then detects interfering writers.
pub(super) fn lock_file(folder: &Path, name: &str, progress: &dyn Progress) -> Result<FetchLock, StoreError> {
    let path = folder.join(format!(".{name}.lock"));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StoreError::io("create", &path))?;
    loop {
        match file.try_lock() {
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(FetchLock { _file: file }),
            Err(TryLockError::WouldBlock) if progress.cancelled() => {
                return Err(StoreError::Cancelled { what: format!("waiting for another download of {name}") });
            }
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(50)),
        }
    }
}
