//! Checkpoints before PyTorch 1.6: five pickles (magic number, protocol, system, object, storage keys) and then the
//! storages in the order of the keys, each after its number of elements as an `i64`.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::budget::Budget;
use super::pickle::{self, Loaded, Value};
use super::torch::{ByteOrder, Storages, gather, named_tensors};
use super::torch_objects::{Object, TorchGlobals};
use super::{DType, Weights, WeightsError};

/// `0x1950a86a20f9469cfc6c`, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const PROTOCOL: i64 = 1001;

/// The pickles of a file, one after the other.
struct Pickles<'a> {
    bytes: &'a [u8],
    at: usize,
    budget: Budget,
}

impl Pickles<'_> {
    fn next(&mut self) -> Result<Loaded<TorchGlobals>, WeightsError> {
        let loaded =
            pickle::load(&self.bytes[self.at..], &TorchGlobals, &mut self.budget).map_err(|error| match error {
                WeightsError::Pickle { at, reason } => WeightsError::Pickle { at: at + self.at, reason },
                error => error,
            })?;
        self.at += loaded.length;
        Ok(loaded)
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Weights, WeightsError> {
    let mut pickles = Pickles { bytes, at: 0, budget: Budget::of_file(bytes.len()) };
    if !matches!(pickles.next()?.value, Value::Long(magic) if *magic == MAGIC) {
        return Err(WeightsError::UnknownFormat);
    }
    match pickles.next()?.value {
        Value::Int(PROTOCOL) => {}
        _ => return Err(WeightsError::torch(format!("its protocol is not {PROTOCOL}"))),
    }
    let order = byte_order(&pickles.next()?);
    let object = pickles.next()?;
    let tensors = named_tensors(&object, &mut pickles.budget)?;
    let keys = storage_keys(&pickles.next()?)?;

    // The file has the storages of the whole object, including those of skipped tensors.
    let sizes = storage_sizes(&object);
    let mut rest = &bytes[pickles.at..];
    let mut storages = Storages::new();
    for key in keys {
        let size =
            sizes.get(&key).ok_or_else(|| WeightsError::torch(format!("the storage {key} belongs to no tensor")))?;
        let (count, after) = rest
            .split_first_chunk::<8>()
            .ok_or_else(|| WeightsError::torch(format!("it ends before the storage {key}")))?;
        let length = usize::try_from(i64::from_le_bytes(*count))
            .ok()
            .and_then(|count| count.checked_mul(size.size()))
            .filter(|length| *length <= after.len())
            .ok_or_else(|| WeightsError::torch(format!("it ends within the storage {key}")))?;
        let (data, after) = after.split_at(length);
        storages.insert(key, data.into());
        rest = after;
    }
    gather(&tensors, &storages, order, &mut pickles.budget)
}

/// `{'little_endian': bool, ...}`.
fn byte_order(system: &Loaded<TorchGlobals>) -> ByteOrder {
    let Value::Dict(index) = system.value else { return ByteOrder::Little };
    let big = system.heap.dicts[index]
        .iter()
        .any(|(key, value)| matches!((key, value), (Value::Str(key), Value::Bool(false)) if &**key == "little_endian"));
    if big { ByteOrder::Big } else { ByteOrder::Little }
}

fn storage_keys(keys: &Loaded<TorchGlobals>) -> Result<Vec<Rc<str>>, WeightsError> {
    let malformed = || WeightsError::torch("the list of storages is malformed");
    let Value::List(index) = keys.value else { return Err(malformed()) };
    keys.heap.sequences[index]
        .iter()
        .map(|key| match key {
            Value::Str(key) => Ok(key.clone()),
            _ => Err(malformed()),
        })
        .collect()
}

/// The element types of all storages that the object refers to, including those of skipped tensors.
fn storage_sizes(object: &Loaded<TorchGlobals>) -> BTreeMap<Rc<str>, DType> {
    let heap = &object.heap;
    let in_dicts = heap.dicts.iter().flatten().flat_map(|(key, value)| [key, value]);
    let in_sequences = heap.sequences.iter().flatten();
    in_dicts
        .chain(in_sequences)
        .chain([&object.value])
        .filter_map(|value| match value {
            Value::Object(object) => Some(match &**object {
                Object::Storage(storage) => storage,
                Object::Tensor(tensor) => &tensor.storage,
            }),
            _ => None,
        })
        .map(|storage| (storage.key.clone(), storage.dtype))
        .collect()
}
