//! IDX files: MNIST, Fashion-MNIST and data sets in the same format.
//!
//! # What it computes
//! Reads `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the `t10k-` pair, plain or `.gz`. An IDX file is two
//! zero bytes, a type (8 = unsigned byte), the number of dimensions, the dimensions as big-endian 32-bit numbers, and
//! the values.
//!
//! # When to use
//! For a folder that holds such files: `PATH:normal=3`. If there is only one pair, a seeded share of the normal class
//! is the training set and the rest the test set.
//!
//! # Parameters
//! `normal`, and for a single pair `train` and `seed`.
//!
//! # Reference
//! Y. LeCun, C. Cortes, C. Burges, *The MNIST database of handwritten digits*, section "File formats".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::classes::{Labelled, one_class, owned};
use crate::options::Options;
use crate::readers::{MAX_FILE_BYTES, read_file};
use crate::sample::{Channels, PackedImages};
use crate::{DataError, Dataset};

/// Whether a folder holds IDX files of images.
pub(crate) fn detect(folder: &Path) -> bool {
    part_file(folder, "train", IMAGES).is_some() || part_file(folder, "t10k", IMAGES).is_some()
}

const IMAGES: &str = "images-idx3-ubyte";
const LABELS: &str = "labels-idx1-ubyte";

/// Reads the folder; `names` are the names of the classes if known, otherwise their numbers are used.
pub(crate) fn open(folder: &Path, name: String, options: &Options, names: &[&str]) -> Result<Dataset, DataError> {
    let train = read_part(folder, "train")?;
    let test = read_part(folder, "t10k")?;
    let highest = [&train, &test]
        .into_iter()
        .flatten()
        .flat_map(|part| part.classes.iter().copied())
        .max()
        .map_or(0, usize::from);
    let names =
        if names.len() > highest { owned(names) } else { (0..=highest).map(|class| class.to_string()).collect() };
    let chosen = options.read()?;
    match (train, test) {
        (train, Some(test)) => one_class(name, options, chosen, &names, train.as_ref(), &test),
        (Some(train), None) => one_class(name, options, chosen, &names, None, &train),
        (None, None) => {
            Err(DataError::Empty { path: folder.to_owned(), wanted: format!("train-{IMAGES} or t10k-{IMAGES}") })
        }
    }
}

fn part_file(folder: &Path, part: &str, what: &str) -> Option<PathBuf> {
    // Both spellings occur: `images-idx3-ubyte` as published, `images.idx3-ubyte` as unpacked by some tools.
    let dotted = what.replacen('-', ".", 1);
    [what, dotted.as_str()]
        .into_iter()
        .flat_map(|what| ["", ".gz"].map(|ending| folder.join(format!("{part}-{what}{ending}"))))
        .find(|path| path.is_file())
}

fn read_part(folder: &Path, part: &str) -> Result<Option<Labelled>, DataError> {
    let Some(images_path) = part_file(folder, part, IMAGES) else { return Ok(None) };
    let labels_path = part_file(folder, part, LABELS)
        .ok_or_else(|| DataError::Missing { path: folder.join(format!("{part}-{LABELS}")) })?;
    let ([count, height, width], pixels) = read::<3>(&images_path)?;
    let ([labels], classes) = read::<1>(&labels_path)?;
    if count != labels {
        let reason = format!("it holds {labels} labels, but {} holds {count} images", images_path.display());
        return Err(DataError::damaged(labels_path, reason));
    }
    if width == 0 || height == 0 {
        return Err(DataError::damaged(images_path, format!("its images are {width} by {height} pixels")));
    }
    let images = Arc::new(PackedImages::new(pixels, width, height, Channels::Grey, 0));
    Ok(Some(Labelled { images, classes }))
}

/// The dimensions and the values of an IDX file of unsigned bytes with `N` dimensions.
fn read<const N: usize>(path: &Path) -> Result<([u32; N], Vec<u8>), DataError> {
    let mut bytes = read_file(path, MAX_FILE_BYTES)?;
    let header = 4 + 4 * N;
    if bytes.len() < header {
        return Err(DataError::damaged(path, format!("it ends after {} bytes, inside its header", bytes.len())));
    }
    let magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
    if magic != [0, 0, 8, N as u8] {
        let reason = format!(
            "it begins with {magic:02x?}; an IDX file of bytes in {N} dimensions begins with [00, 00, 08, {N:02x}]"
        );
        return Err(DataError::damaged(path, reason));
    }
    let mut dimensions = [0_u32; N];
    for (axis, dimension) in dimensions.iter_mut().enumerate() {
        let at = 4 + 4 * axis;
        *dimension = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    }
    let held = bytes.len() - header;
    let stated = dimensions.iter().try_fold(1_usize, |product, &dimension| product.checked_mul(dimension as usize));
    if stated != Some(held) {
        let sizes = dimensions.map(|dimension| dimension.to_string()).join(" x ");
        let reason = format!("its header says {sizes} bytes of data, but it holds {held}");
        return Err(DataError::damaged(path, reason));
    }
    bytes.drain(..header);
    Ok((dimensions, bytes))
}
