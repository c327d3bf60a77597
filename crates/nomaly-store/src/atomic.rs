//! Atomic file writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::StoreError;
use crate::destination::{Destination, keep_owner_and_mode, mode_of, parent};

/// A file that appears at its target only when it is complete.
///
/// Bytes go to a temporary file in the target's folder. [`AtomicFile::commit`] flushes them to the disk and renames the
/// file over the target, so a reader sees either the old file or the whole new one, and a crash leaves the old one. If
/// dropped without a commit, it removes the temporary file and leaves the target unchanged.
///
/// * A **symbolic link** is followed: its target is replaced or created.
/// * A **regular file** passes its mode on to the new one, and its owner if permitted.
/// * A **character device or pipe** (`/dev/null`, `/dev/stdout`, a FIFO) cannot be replaced: bytes are written
///   directly, and opening a FIFO waits for its reader.
/// * A **folder, socket or block device** is rejected.
#[derive(Debug)]
pub struct AtomicFile {
    sink: Sink,
    target: PathBuf,
}

/// The destination of the bytes.
#[derive(Debug)]
enum Sink {
    /// A temporary file that will replace `place`, whose current metadata is `old`.
    Temporary { file: NamedTempFile, place: PathBuf, old: Option<Box<fs::Metadata>> },
    /// A device or pipe.
    Direct(File),
}

impl AtomicFile {
    /// Starts a file that will become `target`.
    ///
    /// # Errors
    /// [`StoreError::Io`] naming `target` if it is a folder, socket or block device, or if its parent is missing, not a
    /// folder, or not writable.
    pub fn create(target: &Path) -> Result<Self, StoreError> {
        let sink = match Destination::find(target).map_err(StoreError::io("write", target))? {
            Destination::Direct => {
                let file = OpenOptions::new().write(true).open(target).map_err(StoreError::io("write", target))?;
                Sink::Direct(file)
            }
            Destination::Replace { place, old } => {
                let file = temporary(&mut tempfile::Builder::new(), old.as_deref().map_or(0o666, mode_of))
                    .prefix(".nomaly-")
                    .tempfile_in(parent(&place))
                    .map_err(|error| StoreError::io("write", target)(about_folder(error, parent(&place))))?;
                Sink::Temporary { file, place, old }
            }
        };
        Ok(Self { sink, target: target.to_owned() })
    }

    /// The requested path.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Flushes the bytes to the disk and moves the file to its target, replacing any existing file.
    ///
    /// # Errors
    /// [`StoreError::Io`] naming the target, which is then unchanged.
    pub fn commit(self) -> Result<(), StoreError> {
        let Self { sink, target } = self;
        match sink {
            Sink::Direct(mut file) => file.flush().map_err(StoreError::io("write", &target)),
            Sink::Temporary { file, place, old } => {
                if let Some(old) = old {
                    keep_owner_and_mode(file.as_file(), &old).map_err(StoreError::io("write", &target))?;
                }
                file.as_file().sync_all().map_err(StoreError::io("write", &target))?;
                file.persist(&place).map_err(|error| StoreError::io("write", &target)(error.error))?;
                sync_folder(parent(&place));
                Ok(())
            }
        }
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            // The file itself: the errors of `NamedTempFile` name the temporary file.
            Sink::Temporary { file, .. } => file.as_file_mut().write(bytes),
            Sink::Direct(file) => file.write(bytes).map_err(|error| match error.kind() {
                // An unread result is lost; a closed standard output has the same error kind and is harmless.
                io::ErrorKind::BrokenPipe => io::Error::other("its reader has gone"),
                _ => error,
            }),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Temporary { file, .. } => file.as_file_mut().flush(),
            Sink::Direct(file) => file.flush(),
        }
    }
}

/// The error of creating a temporary file, naming its folder in place of the file.
fn about_folder(error: io::Error, folder: &Path) -> io::Error {
    let kind = error.kind();
    let reason = match kind {
        io::ErrorKind::NotFound => format!("there is no folder {}", folder.display()),
        io::ErrorKind::NotADirectory => format!("{} is not a folder", folder.display()),
        _ => {
            // `tempfile` appends the path of the temporary file.
            let text = error.to_string();
            let cause = text.split_once(" at path ").map_or(text.as_str(), |(cause, _)| cause);
            format!("no file can be created in {}: {cause}", folder.display())
        }
    };
    io::Error::new(kind, reason)
}

/// Checks that [`AtomicFile::create`] can start a file at `path`, before long work whose result goes there.
///
/// Leaves no trace. Devices and pipes are not opened, because their other end would notice.
///
/// # Errors
/// As [`AtomicFile::create`].
pub fn check_writable(path: &Path) -> Result<(), StoreError> {
    match Destination::find(path).map_err(StoreError::io("write", path))? {
        Destination::Direct => Ok(()),
        // Dropped without a commit.
        Destination::Replace { .. } => AtomicFile::create(path).map(drop),
    }
}

/// Writes a whole file at once, see [`AtomicFile`].
///
/// # Errors
/// [`StoreError::Io`] naming the file or its folder: missing or read-only folder, full disk, a target that is a folder,
/// socket or block device.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(StoreError::io("write", path))?;
    file.commit()
}

/// Creates a folder and its parents; it may exist already.
///
/// # Errors
/// [`StoreError::Io`] naming the folder.
pub fn create_folder(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(StoreError::io("create the folder", path))
}

/// Gives temporary files the usual mode (`mode` less the umask) instead of a private one.
pub(crate) fn temporary<'a, 'b, 'c>(
    builder: &'c mut tempfile::Builder<'a, 'b>,
    mode: u32,
) -> &'c mut tempfile::Builder<'a, 'b> {
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

/// Makes a rename durable if the platform can sync folders.
pub(crate) fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        // A file system that cannot sync folders has still renamed the file.
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn replaces_a_file_and_leaves_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn without_a_commit_the_old_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_atomic(&path, b"one").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half of it").unwrap();
        assert_eq!(file.target(), path);
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(entries(folder.path()), 1);
    }

    #[test]
    fn errors_name_what_is_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("absent").join("a.bin");
        let message = write_atomic(&missing, b"x").unwrap_err().to_string();
        let reason = format!("there is no folder {}", missing.parent().unwrap().display());
        assert_eq!(message, format!("cannot write {}: {reason}", missing.display()));

        let message = write_atomic(folder.path(), b"x").unwrap_err().to_string();
        assert!(message.contains("it is a folder") && message.contains(folder.path().to_str().unwrap()), "{message}");

        let file = folder.path().join("file");
        write_atomic(&file, b"x").unwrap();
        let message = write_atomic(&file.join("below"), b"x").unwrap_err().to_string();
        assert!(message.contains("file/below") && !message.contains(".nomaly-"), "{message}");
        assert!(create_folder(&file).unwrap_err().to_string().contains("file"));
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_umask_allows() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (atomic, plain) = (folder.path().join("atomic"), folder.path().join("plain"));
        write_atomic(&atomic, b"x").unwrap();
        fs::write(&plain, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&atomic), mode(&plain));
    }
    #[test]
    fn a_bare_name_lies_in_the_working_folder() {
        assert_eq!(parent(Path::new("a.bin")), Path::new("."));
        assert_eq!(parent(Path::new("b/a.bin")), Path::new("b"));
    }
}
