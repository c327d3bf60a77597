//! Extraction of archives: zip and wheels, tar (plain, gzip, xz), single gzip or xz files, Debian packages.
//!
//! The first bytes determine the kind, not the file's name. Archives are treated as hostile: an entry with an absolute
//! path, a `..`, a backslash or a colon, a link, a device, an entry that appears twice, more entries or more bytes than
//! [`ArchiveLimits`] allow: each ends the extraction with an error, and nothing is left behind. Owners, modes and times
//! are not restored.

mod container;
mod path;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use crate::atomic::{sync_folder, temporary};
use crate::destination::parent;
use crate::{Progress, StoreError, create_folder};
use container::{Flow, Kind};

/// Limits on the contents of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// The most files and folders.
    pub max_entries: u64,
    /// The most bytes of all unpacked files together.
    pub max_bytes: u64,
}

impl Default for ArchiveLimits {
    /// A million entries and 64 GiB: more than any supported data set, less than a disk.
    fn default() -> Self {
        Self { max_entries: 1_000_000, max_bytes: 64 << 30 }
    }
}

/// Unpacks an archive into `folder`, completely or not at all.
///
/// The files go to a temporary sibling of `folder`, which is renamed at the end. If `folder` exists, an earlier call
/// created it, and nothing is done; of two concurrent calls, the first to finish wins. A single compressed file
/// (`labels.gz`) becomes one file without the extension.
///
/// # Errors
/// [`StoreError::UnsupportedArchive`], [`StoreError::DamagedArchive`], [`StoreError::UnsafeEntry`],
/// [`StoreError::LimitExceeded`], [`StoreError::Cancelled`], [`StoreError::Io`].
pub fn extract(
    archive: &Path,
    folder: &Path,
    limits: &ArchiveLimits,
    progress: &dyn Progress,
) -> Result<(), StoreError> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = parent(folder);
    create_folder(above)?;
    let scratch = temporary(&mut tempfile::Builder::new(), 0o777)
        .prefix(".nomaly-")
        .tempdir_in(above)
        .map_err(StoreError::io("create a folder in", above))?;
    let what = archive.file_name().unwrap_or_default().to_string_lossy();
    progress.start(&format!("unpacking {what}"), None);
    let unpacked = unpack(archive, scratch.path(), limits, progress);
    progress.finish();
    unpacked?;
    match fs::rename(scratch.path(), folder) {
        Ok(()) => {
            // The temporary folder has been renamed, so there is nothing to clean up.
            let _ = scratch.keep();
            sync_folder(above);
            Ok(())
        }
        Err(_) if folder.is_dir() => Ok(()),
        Err(error) => Err(StoreError::io("create the folder", folder)(error)),
    }
}

fn unpack(archive: &Path, folder: &Path, limits: &ArchiveLimits, progress: &dyn Progress) -> Result<(), StoreError> {
    container::visit(archive, limits, &mut |entry, reader| {
        if progress.cancelled() {
            return Err(StoreError::Cancelled { what: format!("unpacking {}", archive.display()) });
        }
        let target = folder.join(&entry.path);
        match entry.kind {
            Kind::Folder => create_folder(&target)?,
            Kind::File => {
                create_folder(parent(&target))?;
                copy(archive, &entry.name, reader, &target, progress)?;
            }
        }
        Ok(Flow::Continue)
    })
}

fn copy(
    archive: &Path,
    name: &str,
    reader: &mut dyn Read,
    target: &Path,
    progress: &dyn Progress,
) -> Result<(), StoreError> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(target).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            let reason = "is there twice (or differs from another in case only)";
            StoreError::UnsafeEntry { path: archive.to_owned(), entry: name.to_owned(), reason }
        } else {
            StoreError::io("create", target)(error)
        }
    })?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        if progress.cancelled() {
            return Err(StoreError::Cancelled { what: format!("unpacking {}", archive.display()) });
        }
        let count = container::read(archive, reader, &mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        file.write_all(&buffer[..count]).map_err(StoreError::io("write", target))?;
        progress.advance(count as u64);
    }
}

/// Reads one file out of an archive into memory, without unpacking the others.
///
/// `member` is the entry's path with `/` as the separator; a leading `./` is ignored. In a single compressed file the
/// only member is the file's name without its extension.
///
/// # Errors
/// [`StoreError::MemberMissing`] if there is no such file, [`StoreError::LimitExceeded`] if it is larger than
/// `max_bytes`, and those of [`extract`].
pub fn read_member(archive: &Path, member: &str, max_bytes: u64) -> Result<Vec<u8>, StoreError> {
    let wanted = path::safe(member.as_bytes())
        .map_err(|_| StoreError::MemberMissing { path: archive.to_owned(), member: member.to_owned() })?;
    let mut found = None;
    container::visit(archive, &ArchiveLimits::default(), &mut |entry, reader| {
        if entry.kind != Kind::File || entry.path != wanted {
            return Ok(Flow::Continue);
        }
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = container::read(archive, reader, &mut buffer)?;
            if count == 0 {
                break;
            }
            if (bytes.len() + count) as u64 > max_bytes {
                return Err(StoreError::LimitExceeded { path: archive.to_owned(), limit: max_bytes, unit: "bytes" });
            }
            bytes.extend_from_slice(&buffer[..count]);
        }
        found = Some(bytes);
        Ok(Flow::Stop)
    })?;
    found.ok_or_else(|| StoreError::MemberMissing { path: archive.to_owned(), member: member.to_owned() })
}
