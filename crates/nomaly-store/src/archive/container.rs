//! The entries of any archive.

use std::fs::File;
use std::io::{self, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

use super::ArchiveLimits;
use super::path::safe;
use crate::StoreError;

/// The kind of an entry; all other kinds are rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
}

/// An entry whose path is safe.
pub(super) struct Entry {
    /// The name in the archive, for messages.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

/// Whether to go on to the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Stop,
}

type Visitor<'a> = dyn FnMut(&Entry, &mut dyn Read) -> Result<Flow, StoreError> + 'a;

/// Calls `visitor` with each entry in the archive's order and a reader of its bytes.
pub(super) fn visit(archive: &Path, limits: &ArchiveLimits, visitor: &mut Visitor<'_>) -> Result<(), StoreError> {
    let mut file = File::open(archive).map_err(StoreError::io("open", archive))?;
    let (head, _) = peek(&mut file, 8).map_err(StoreError::io("read", archive))?;
    file.rewind().map_err(StoreError::io("read", archive))?;
    let mut walk = Walk { archive, limits, visitor, entries: 0, left: limits.max_bytes };
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        walk.zip(file)
    } else if head.starts_with(b"!<arch>\n") {
        walk.debian(file)
    } else {
        walk.stream(BufReader::new(file))
    }
}

/// Reads from an entry; errors are attributed to the archive.
pub(super) fn read(archive: &Path, reader: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, StoreError> {
    loop {
        match reader.read(buffer) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(archive, error)),
        }
    }
}

/// Converts an error of a reader inside the archive; an exceeded limit passes through decoders as an [`io::Error`].
fn read_error(archive: &Path, error: io::Error) -> StoreError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<OverLimit>()) {
        Some(OverLimit(limit)) => StoreError::LimitExceeded { path: archive.to_owned(), limit: *limit, unit: "bytes" },
        None => StoreError::DamagedArchive { path: archive.to_owned(), reason: error.to_string() },
    }
}

#[derive(Debug, thiserror::Error)]
#[error("more than {0} bytes")]
struct OverLimit(u64);

/// Fails when more than `left` bytes are read.
struct Limited<'a, R> {
    inner: R,
    left: &'a mut u64,
    limit: u64,
}

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => *self.left = left,
            None => return Err(io::Error::other(OverLimit(self.limit))),
        }
        Ok(count)
    }
}

/// The first bytes of a reader, and a reader that still starts with them.
fn peek<R: Read>(mut reader: R, count: u64) -> io::Result<(Vec<u8>, impl Read)> {
    let mut head = Vec::new();
    (&mut reader).take(count).read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(reader)))
}

/// One walk through one archive.
struct Walk<'a, 'v> {
    archive: &'a Path,
    limits: &'a ArchiveLimits,
    visitor: &'a mut Visitor<'v>,
    entries: u64,
    left: u64,
}

impl Walk<'_, '_> {
    fn damaged(&self, reason: impl ToString) -> StoreError {
        StoreError::DamagedArchive { path: self.archive.to_owned(), reason: reason.to_string() }
    }

    fn unsupported(&self, reason: &str) -> StoreError {
        StoreError::UnsupportedArchive { path: self.archive.to_owned(), reason: reason.to_owned() }
    }

    fn unsafe_entry(&self, name: &[u8], reason: &'static str) -> StoreError {
        let entry = String::from_utf8_lossy(name).into_owned();
        StoreError::UnsafeEntry { path: self.archive.to_owned(), entry, reason }
    }

    /// Checks an entry and passes it to the visitor.
    fn entry(&mut self, name: &[u8], kind: Kind, reader: &mut dyn Read) -> Result<Flow, StoreError> {
        self.entries += 1;
        if self.entries > self.limits.max_entries {
            let limit = self.limits.max_entries;
            return Err(StoreError::LimitExceeded { path: self.archive.to_owned(), limit, unit: "entries" });
        }
        let path = safe(name).map_err(|reason| self.unsafe_entry(name, reason))?;
        if path.as_os_str().is_empty() {
            // The root folder itself; a file cannot have this name.
            return match kind {
                Kind::Folder => Ok(Flow::Continue),
                Kind::File => Err(self.unsafe_entry(name, "has no name")),
            };
        }
        let entry = Entry { name: String::from_utf8_lossy(name).into_owned(), path, kind };
        let mut limited = Limited { inner: reader, left: &mut self.left, limit: self.limits.max_bytes };
        (self.visitor)(&entry, &mut limited)
    }

    fn zip(&mut self, file: File) -> Result<(), StoreError> {
        let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|error| self.damaged(error))?;
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).map_err(|error| match error {
                zip::result::ZipError::UnsupportedArchive(reason) => self.unsupported(reason),
                error => self.damaged(error),
            })?;
            let name = entry.name_raw().to_vec();
            if entry.is_symlink() {
                return Err(self.unsafe_entry(&name, "is a link"));
            }
            let kind = if entry.is_dir() { Kind::Folder } else { Kind::File };
            if self.entry(&name, kind, &mut entry)? == Flow::Stop {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A Debian package is an `ar` archive of `debian-binary`, `control.tar.*` and `data.tar.*`; only the last one is
    /// read.
    fn debian(&mut self, mut file: File) -> Result<(), StoreError> {
        const MAGIC: u64 = 8;
        file.seek(SeekFrom::Start(MAGIC)).map_err(|error| self.damaged(error))?;
        let mut header = [0; 60];
        loop {
            if let Err(error) = file.read_exact(&mut header) {
                return Err(match error.kind() {
                    io::ErrorKind::UnexpectedEof => self.unsupported("it is an ar archive without data.tar"),
                    _ => self.damaged(error),
                });
            }
            let field = |from: usize, to: usize| std::str::from_utf8(&header[from..to]).map(str::trim);
            let size = field(48, 58).ok().and_then(|size| size.parse::<u64>().ok());
            let (Ok(name), Some(size), b"`\n") = (field(0, 16), size, &header[58..]) else {
                return Err(self.damaged("an ar header cannot be read"));
            };
            if name.trim_end_matches('/').starts_with("data.tar") {
                return self.stream(BufReader::new(file.take(size)));
            }
            // Members begin at even offsets.
            let skip = i64::try_from(size.saturating_add(size % 2));
            skip.map_err(io::Error::other)
                .and_then(|skip| file.seek(SeekFrom::Current(skip)))
                .map_err(|error| self.damaged(error))?;
        }
    }

    /// A decompressed stream: a tar archive or a single file.
    fn stream(&mut self, reader: impl Read) -> Result<(), StoreError> {
        let (head, reader) = peek(reader, 6).map_err(|error| self.damaged(error))?;
        let decoded: Box<dyn Read + '_> = match head.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(BufReader::new(reader))),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(XzReader::new(BufReader::new(reader), true)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(self.unsupported("zstd compression is not supported")),
            [b'B', b'Z', b'h', ..] => return Err(self.unsupported("bzip2 compression is not supported")),
            _ => return self.tar_only(reader),
        };
        let (head, decoded) = peek(decoded, 512).map_err(|error| read_error(self.archive, error))?;
        if is_tar(&head) { self.tar(decoded) } else { self.single(decoded) }
    }

    fn tar_only(&mut self, reader: impl Read) -> Result<(), StoreError> {
        let (head, reader) = peek(reader, 512).map_err(|error| self.damaged(error))?;
        if is_tar(&head) {
            self.tar(reader)
        } else {
            Err(self.unsupported("it is not an archive of a known kind (zip, tar, gzip, xz, Debian package)"))
        }
    }

    fn single(&mut self, mut reader: impl Read) -> Result<(), StoreError> {
        let name = self.archive.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.entry(name.as_bytes(), Kind::File, &mut reader).map(|_| ())
    }

    fn tar(&mut self, reader: impl Read) -> Result<(), StoreError> {
        let mut archive = tar::Archive::new(reader);
        let entries = archive.entries().map_err(|error| self.damaged(error))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| read_error(self.archive, error))?;
            let name = entry.path_bytes().into_owned();
            let kind = match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => Kind::File,
                tar::EntryType::Directory => Kind::Folder,
                // Defaults for the files that follow, such as a comment with a commit's id.
                tar::EntryType::XGlobalHeader => continue,
                tar::EntryType::Symlink | tar::EntryType::Link => return Err(self.unsafe_entry(&name, "is a link")),
                _ => return Err(self.unsafe_entry(&name, "is neither a file nor a folder")),
            };
            if self.entry(&name, kind, &mut entry)? == Flow::Stop {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether a stream begins with a tar header: POSIX and GNU headers have a magic word, older ones do not.
fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}
