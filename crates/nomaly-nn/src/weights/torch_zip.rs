//! Checkpoints since PyTorch 1.6: a zip archive of `NAME/data.pkl`, `NAME/data/KEY` and `NAME/byteorder`.

use std::io::{Cursor, Read};

use zip::ZipArchive;

use super::budget::Budget;
use super::torch::{ByteOrder, Storages, gather, named_tensors};
use super::torch_objects::TorchGlobals;
use super::{Weights, WeightsError, pickle};

/// The largest pickle; those of state dicts have a few kilobytes.
const MAX_PICKLE: u64 = 64 << 20;

pub(super) fn read(bytes: &[u8]) -> Result<Weights, WeightsError> {
    let mut budget = Budget::of_file(bytes.len());
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| WeightsError::torch(error.to_string()))?;
    let name = archive
        .file_names()
        .filter(|name| name.ends_with("/data.pkl") || *name == "data.pkl")
        .min()
        .ok_or_else(|| WeightsError::torch("the zip archive has no data.pkl"))?;
    let prefix = name[..name.len() - "data.pkl".len()].to_owned();

    let pickle = member(&mut archive, &format!("{prefix}data.pkl"), MAX_PICKLE, &mut budget)?;
    let order = match archive.index_for_name(&format!("{prefix}byteorder")) {
        None => ByteOrder::Little,
        Some(_) => match member(&mut archive, &format!("{prefix}byteorder"), 16, &mut budget)?.trim_ascii() {
            b"little" => ByteOrder::Little,
            b"big" => ByteOrder::Big,
            other => {
                let other = String::from_utf8_lossy(other).into_owned();
                return Err(WeightsError::torch(format!("the byte order {other:?} is not known")));
            }
        },
    };
    let tensors = named_tensors(&pickle::load(&pickle, &TorchGlobals, &mut budget)?, &mut budget)?;
    let mut storages = Storages::new();
    for tensor in tensors.values() {
        let storage = &tensor.storage;
        if !storages.contains_key(&storage.key) {
            let expected = storage.root_length.saturating_mul(storage.dtype.size() as u64);
            let data = member(&mut archive, &format!("{prefix}data/{}", storage.key), expected, &mut budget)?;
            storages.insert(storage.key.clone(), data.into());
        }
    }
    gather(&tensors, &storages, order, &mut budget)
}

/// One file of the archive, of at most `limit` bytes.
fn member(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &str,
    limit: u64,
    budget: &mut Budget,
) -> Result<Vec<u8>, WeightsError> {
    let entry = archive.by_name(name).map_err(|error| WeightsError::torch(format!("{name}: {error}")))?;
    let size = entry.size();
    if size > limit {
        return Err(WeightsError::torch(format!("{name} has {size} bytes, more than {limit}")));
    }
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    budget.spend(length)?;
    let mut bytes = Vec::with_capacity(length);
    // The directory may lie about the size.
    entry
        .take(size.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| WeightsError::torch(format!("{name}: {error}")))?;
    if bytes.len() != length {
        return Err(WeightsError::torch(format!("{name} has not the {size} bytes that the archive says")));
    }
    Ok(bytes)
}
