//! Reads partials and checks all of their content.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use nomaly_methods::MethodError;
use nomaly_store::{HashingWriter, Progress};

use super::header::{FORMAT_VERSION, Header, MAGIC, MOST_HEADER_BYTES};
use super::images::ImageRecord;
use super::shard::Shard;
use crate::error::DetectorError;

/// The read buffer in bytes.
const BUFFER: usize = 1 << 20;
/// The largest weights that are read; the largest networks take 300 MB.
const MOST_WEIGHT_BYTES: u64 = 8 << 30;
/// The largest region that is read: a frame of 64 × 64 tiles of 512 pixels.
const MOST_REGION_BYTES: u64 = 1 << 30;
/// Bytes before the header: the magic, the version and the length.
const HEAD: u64 = MAGIC.len() as u64 + 4 + 8;
/// Bytes after the list of images: its length and the checksum.
const TAIL: u64 = 8 + 32;

/// A partial with a valid checksum, without the values of its images.
pub(super) struct Partial {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    pub(super) shard: Shard,
    pub(super) images: Vec<ImageRecord>,
    /// Empty except in the first shard.
    pub(super) weights: Vec<u8>,
    /// Empty except in the first shard of a fit with a region of interest.
    pub(super) region: Vec<u8>,
    /// The offset of the values.
    values_at: u64,
    /// The bytes of the values.
    value_bytes: u64,
}

impl Partial {
    /// Checks the checksum and reads all of the file except the values.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, truncated or of another version; cancellation.
    pub(super) fn open(path: &Path, progress: &dyn Progress) -> Result<Self, DetectorError> {
        let read = || -> Result<Self, Fault> {
            let (mut file, length) = open_regular(path)?;
            let middle = length.checked_sub(HEAD + TAIL).ok_or_else(cut_short)?;
            let mut magic = [0; MAGIC.len()];
            file.read_exact(&mut magic)?;
            if magic != *MAGIC {
                return Err(Fault::Reason("is not a partial of nomaly".to_owned()));
            }
            let version = u32::from_le_bytes(array(&mut file)?);
            if version != FORMAT_VERSION {
                return Err(Fault::Reason(format!(
                    "is of format version {version}, and this program reads version {FORMAT_VERSION}: make it again \
                     with the program that merges"
                )));
            }
            check_seal(&mut file, length, progress)?;
            file.seek(SeekFrom::Start(HEAD - 8))?;
            let header_bytes = u64::from_le_bytes(array(&mut file)?);
            if header_bytes > middle.min(MOST_HEADER_BYTES) {
                return Err(damaged("its header is longer than it can be"));
            }
            let header: Header = serde_json::from_slice(&bytes(&mut file, header_bytes)?)?;
            let shard = header.shard().ok_or_else(|| damaged("there is no such shard"))?;
            if header.weight_bytes > MOST_WEIGHT_BYTES || header.region_bytes > MOST_REGION_BYTES {
                return Err(damaged("its weights are larger than they can be"));
            }
            let own = header.weight_bytes + header.region_bytes;
            if own > 0 && shard.index() > 1 {
                return Err(damaged("it has weights, which only the first shard has"));
            }
            let rest = (middle - header_bytes).checked_sub(own).ok_or_else(|| damaged("its weights are cut short"))?;
            let weights = bytes(&mut file, header.weight_bytes)?;
            let region = bytes(&mut file, header.region_bytes)?;
            file.seek(SeekFrom::Start(length - TAIL))?;
            let list_bytes = u64::from_le_bytes(array(&mut file)?);
            let value_bytes = rest.checked_sub(list_bytes).ok_or_else(|| damaged("its list of images is cut short"))?;
            let values_at = HEAD + header_bytes + own;
            file.seek(SeekFrom::Start(values_at + value_bytes))?;
            let images: Vec<ImageRecord> =
                serde_json::from_reader(BufReader::with_capacity(BUFFER, (&mut file).take(list_bytes)))?;
            check_images(&header, shard, &images)?;
            Ok(Self { path: path.to_owned(), header, shard, images, weights, region, values_at, value_bytes })
        };
        read().map_err(|fault| fault.of(path))
    }

    /// The number of usable images.
    pub(super) fn usable(&self) -> usize {
        self.images.iter().filter(|image| image.is_usable()).count()
    }

    /// Checks that the values have `image_bytes` bytes per usable image.
    pub(super) fn check_values(&self, image_bytes: u64) -> Result<(), DetectorError> {
        if (self.usable() as u64).checked_mul(image_bytes) == Some(self.value_bytes) {
            return Ok(());
        }
        Err(self.refuse(format!(
            "is damaged: it has {} bytes of values, and {} images of {image_bytes} bytes",
            self.value_bytes,
            self.usable()
        )))
    }

    /// An error that names the file.
    pub(super) fn refuse(&self, reason: impl Into<String>) -> DetectorError {
        DetectorError::Partial { path: self.path.clone(), reason: reason.into() }
    }

    /// Opens the values.
    pub(super) fn values(&self) -> Result<Values, DetectorError> {
        let (file, _) = open_regular(&self.path).map_err(|fault| fault.of(&self.path))?;
        Ok(Values { file, path: self.path.clone(), start: self.values_at, bytes: Vec::new() })
    }
}

/// The values of the usable images of a partial.
pub(super) struct Values {
    file: File,
    path: PathBuf,
    start: u64,
    bytes: Vec<u8>,
}

impl Values {
    /// Reads the values at byte `at`, with the given length for each tap, and appends them to the taps' values.
    pub(super) fn read(&mut self, at: u64, lengths: &[usize], taps: &mut [Vec<f32>]) -> Result<(), DetectorError> {
        let read = |values: &mut Self| -> Result<(), Fault> {
            values.bytes.resize(4 * lengths.iter().sum::<usize>(), 0);
            values.file.seek(SeekFrom::Start(values.start + at))?;
            Ok(values.file.read_exact(&mut values.bytes)?)
        };
        read(self).map_err(|fault| fault.of(&self.path))?;
        let (mut rest, _) = self.bytes.as_chunks::<4>();
        for (tap, length) in taps.iter_mut().zip(lengths) {
            let (own, others) = rest.split_at(*length);
            tap.extend(own.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            rest = others;
        }
        Ok(())
    }
}

/// Why a partial cannot be read.
enum Fault {
    Io(io::Error),
    Reason(String),
    Cancelled,
}

impl Fault {
    fn of(self, path: &Path) -> DetectorError {
        let reason = match self {
            Self::Cancelled => return MethodError::Cancelled.into(),
            Self::Io(error) if error.kind() == ErrorKind::UnexpectedEof => "is cut short: copy it anew".to_owned(),
            Self::Io(error) => format!("cannot be read: {error}"),
            Self::Reason(reason) => reason,
        };
        DetectorError::Partial { path: path.to_owned(), reason }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        damaged(&error.to_string())
    }
}

fn damaged(what: &str) -> Fault {
    Fault::Reason(format!("is damaged: {what}; copy it anew or make it again"))
}

fn cut_short() -> Fault {
    Fault::Reason("is cut short, or not a partial of nomaly".to_owned())
}

/// Opens a regular file; returns its length too. A pipe would block, and a device may never end.
fn open_regular(path: &Path) -> Result<(File, u64), Fault> {
    let regular = |metadata: &std::fs::Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(Fault::Reason("is no regular file".to_owned())),
    };
    regular(&std::fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok((file, metadata.len()))
}

fn array<const N: usize>(file: &mut File) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads `count` bytes; the caller has checked that the file has them.
fn bytes(file: &mut File, count: u64) -> Result<Vec<u8>, Fault> {
    let length = usize::try_from(count).map_err(|_| damaged("it is too large for this machine"))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| damaged("it is too large for this machine"))?;
    file.take(count).read_to_end(&mut bytes)?;
    if bytes.len() == length { Ok(bytes) } else { Err(cut_short()) }
}

/// Checks the SHA-256 at the end against all bytes before it.
fn check_seal(file: &mut File, length: u64, progress: &dyn Progress) -> Result<(), Fault> {
    file.seek(SeekFrom::Start(0))?;
    let mut content = (&mut *file).take(length - 32);
    let mut hashing = HashingWriter::new(io::sink());
    let mut buffer = vec![0; BUFFER];
    loop {
        if progress.cancelled() {
            return Err(Fault::Cancelled);
        }
        match content.read(&mut buffer)? {
            0 => break,
            count => hashing.write_all(&buffer[..count])?,
        }
    }
    let (_, digest) = hashing.finish();
    let stored: [u8; 32] = array(file)?;
    if digest == stored { Ok(()) } else { Err(damaged("its checksum is not that of its bytes, or it is cut short")) }
}

/// Rejects an image list that does not match the shard.
fn check_images(header: &Header, shard: Shard, images: &[ImageRecord]) -> Result<(), Fault> {
    let each = 1 + header.fit.changes.len();
    let expected = shard.of(header.fit.images).len().checked_mul(each);
    let in_order = images.iter().enumerate().all(|(place, image)| image.changed != (place % each == 0));
    if expected == Some(images.len()) && in_order {
        return Ok(());
    }
    Err(damaged(&format!("it lists {} images, which are not those of shard {shard}", images.len())))
}
