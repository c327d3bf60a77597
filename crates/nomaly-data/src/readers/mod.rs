//! One module per data layout.

pub(crate) mod cifar;
pub(crate) mod class_folders;
pub(crate) mod elpv;
pub(crate) mod idx;
pub(crate) mod mvtec;
pub(crate) mod visa;

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use crate::DataError;

/// The largest file that is read at once; the largest known data set file of this kind is a twentieth of it.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// Reads a whole file, decompressing gzip, up to `limit` bytes.
fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, DataError> {
    let io = |error| DataError::io(path, error);
    let mut file = std::io::BufReader::new(std::fs::File::open(path).map_err(io)?);
    let is_gzip = std::io::BufRead::fill_buf(&mut file).map_err(io)?.starts_with(&[0x1f, 0x8b]);
    let mut bytes = Vec::new();
    let read = if is_gzip {
        flate2::read::MultiGzDecoder::new(file).take(limit + 1).read_to_end(&mut bytes)
    } else {
        file.take(limit + 1).read_to_end(&mut bytes)
    };
    match read {
        Ok(_) if bytes.len() as u64 > limit => {
            Err(DataError::damaged(path, format!("it is longer than {limit} bytes")))
        }
        Ok(_) => Ok(bytes),
        Err(error) if is_gzip => Err(DataError::damaged(path, format!("its gzip stream ends badly: {error}"))),
        Err(error) => Err(io(error)),
    }
}

/// Reads a small text file.
fn read_text(path: &Path) -> Result<String, DataError> {
    const MAX_TEXT_BYTES: u64 = 64 << 20;
    String::from_utf8(read_file(path, MAX_TEXT_BYTES)?)
        .map_err(|error| DataError::damaged(path, format!("it is not UTF-8 text: {error}")))
}

/// A path from a list in a data set, restricted to files below `root`.
fn below(root: &Path, list: &Path, named: &str) -> Result<PathBuf, DataError> {
    let path = Path::new(named);
    if named.is_empty() || !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(DataError::damaged(list, format!("it names {named:?}, which is not a path below its folder")));
    }
    Ok(root.join(path))
}
