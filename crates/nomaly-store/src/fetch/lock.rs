//! Taking turns, so that two processes do not write one partial download.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::{Progress, StoreError};

/// Held while a file is fetched; the operating system takes it back should the process die.
pub(super) struct Turn {
    _file: File,
}

/// Waits until no other process fetches `name` into `folder`.
///
/// The lock is on a small file of its own (`.NAME.lock`), which stays: removing it would let a third process lock a
/// new file while a second one waits for the old. On file systems without locks everyone gets a turn at once; the
/// checksum then catches two writers that got into each other's way.
pub(super) fn take_turn(folder: &Path, name: &str, progress: &dyn Progress) -> Result<Turn, StoreError> {
    let path = folder.join(format!(".{name}.lock"));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StoreError::io("create", &path))?;
    loop {
        match file.try_lock() {
            Ok(()) | Err(TryLockError::Error(_)) => return Ok(Turn { _file: file }),
            Err(TryLockError::WouldBlock) if progress.cancelled() => {
                return Err(StoreError::Cancelled { what: format!("waiting for another download of {name}") });
            }
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(50)),
        }
    }
}
