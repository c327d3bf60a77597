//! Checkpoints of `torch.save`: both formats, from values to named tensors.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::budget::Budget;
use super::pickle::{Loaded, MAX_NAME, Value};
use super::torch_objects::{Object, StorageRef, TensorRef, TorchGlobals, TorchHeap, TorchValue};
use super::{WeightTensor, Weights, WeightsError};

/// Keys under which training scripts store the state dict, next to the optimizer's and others.
const WRAPPERS: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "network", "weights"];

/// The maximum nesting depth of dicts.
const MAX_DEPTH: usize = 16;

/// The most dict entries that are visited; shared ones count each time.
const MAX_ENTRIES: usize = 1 << 20;

/// The bytes of one storage, in the byte order of the machine that wrote it.
pub(super) type Storages<'a> = BTreeMap<Rc<str>, std::borrow::Cow<'a, [u8]>>;

/// The named tensors in a checkpoint's value.
///
/// If the outermost dict holds no tensor itself but one of the usual wrappers (`state_dict`, `model`, …), the wrapper
/// is used. Names in nested dicts are joined with dots, values that are not tensors are skipped, and `module.`, the
/// prefix of data-parallel training, is removed.
pub(super) fn named_tensors(
    loaded: &Loaded<TorchGlobals>,
    budget: &mut Budget,
) -> Result<BTreeMap<String, TensorRef>, WeightsError> {
    let heap = &loaded.heap;
    let mut root = &loaded.value;
    for _ in 0..MAX_DEPTH {
        match wrapped(root, heap) {
            Some(inner) => root = inner,
            None => break,
        }
    }
    let mut flattened = Flattened { heap, budget, entries: 0, tensors: BTreeMap::new() };
    flattened.add(root, "", 0)?;
    let tensors = flattened.tensors;
    if tensors.is_empty() {
        return Err(WeightsError::NoTensors);
    }
    let shared = tensors.keys().map(|name| data_parallel_prefix(name)).min().unwrap_or(0);
    if shared == 0 {
        return Ok(tensors);
    }
    Ok(tensors.into_iter().map(|(name, tensor)| (name[shared..].to_owned(), tensor)).collect())
}

/// Length of the `module.` prefixes of a name, never the whole name.
fn data_parallel_prefix(name: &str) -> usize {
    let mut rest = name;
    while let Some(after) = rest.strip_prefix("module.").filter(|after| !after.is_empty()) {
        rest = after;
    }
    name.len() - rest.len()
}

fn as_tensor(value: &TorchValue) -> Option<&TensorRef> {
    match value {
        Value::Object(object) => match &**object {
            Object::Tensor(tensor) => Some(tensor),
            Object::Storage(_) => None,
        },
        _ => None,
    }
}

fn wrapped<'a>(value: &TorchValue, heap: &'a TorchHeap) -> Option<&'a TorchValue> {
    let Value::Dict(index) = value else { return None };
    let entries = &heap.dicts[*index];
    if entries.iter().any(|(_, value)| as_tensor(value).is_some()) {
        return None;
    }
    WRAPPERS.iter().find_map(|wrapper| {
        entries.iter().find_map(|(key, value)| match (key, value) {
            (Value::Str(key), Value::Dict(_)) if &**key == *wrapper => Some(value),
            _ => None,
        })
    })
}

/// The tensors found so far in nested dicts.
struct Flattened<'a> {
    heap: &'a TorchHeap,
    budget: &'a mut Budget,
    entries: usize,
    tensors: BTreeMap<String, TensorRef>,
}

impl Flattened<'_> {
    fn add(&mut self, value: &TorchValue, prefix: &str, depth: usize) -> Result<(), WeightsError> {
        let Value::Dict(index) = value else { return Ok(()) };
        if depth > MAX_DEPTH {
            return Err(WeightsError::torch(format!("dicts are nested more than {MAX_DEPTH} deep")));
        }
        let heap = self.heap;
        for (key, value) in &heap.dicts[*index] {
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(WeightsError::torch(format!("it has more than {MAX_ENTRIES} entries")));
            }
            let Value::Str(key) = key else { continue };
            let tensor = as_tensor(value);
            if tensor.is_none() && !matches!(value, Value::Dict(_)) {
                continue;
            }
            let length = prefix.len() + key.len() + 1;
            if length > MAX_NAME {
                return Err(WeightsError::torch(format!("a name has {length} bytes, more than {MAX_NAME}")));
            }
            // The map may take over a name, which is copied if a prefix is removed.
            self.budget.spend(2 * length)?;
            match tensor {
                Some(tensor) => {
                    self.budget.spend(tensor.memory())?;
                    self.tensors.insert(format!("{prefix}{key}"), tensor.clone());
                }
                None => self.add(value, &format!("{prefix}{key}."), depth + 1)?,
            }
        }
        Ok(())
    }
}

/// The byte order of a file's storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

/// Copies tensors out of their storages into row-major order.
///
/// `budget` bounds the bytes of all tensors together: a stride of zero makes a large tensor from a small storage, and
/// several tensors may share one.
pub(super) fn gather(
    tensors: &BTreeMap<String, TensorRef>,
    storages: &Storages<'_>,
    order: ByteOrder,
    budget: &mut Budget,
) -> Result<Weights, WeightsError> {
    let mut weights = Weights::new();
    for (name, tensor) in tensors {
        let bytes = storages
            .get(&tensor.storage.key)
            .ok_or_else(|| WeightsError::torch(format!("the storage of the tensor {name} is missing")))?;
        let outside = || WeightsError::torch(format!("the tensor {name} does not lie within its storage"));
        let length = byte_length(tensor).ok_or_else(outside)?;
        budget.spend_each(length, COPIES)?;
        let gathered = gather_one(tensor, bytes, order).ok_or_else(outside)?;
        weights.insert(name.clone(), gathered);
    }
    Ok(weights)
}

/// Copies of a tensor that exist at once while a backbone is built.
const COPIES: usize = 3;

/// Bytes of a single tensor; `None` if its size overflows.
fn byte_length(tensor: &TensorRef) -> Option<usize> {
    let count = tensor.shape.iter().try_fold(1_usize, |count, &axis| count.checked_mul(usize::try_from(axis).ok()?));
    count?.checked_mul(tensor.storage.dtype.size())
}

/// Gathers one tensor; `None` if sizes overflow or the tensor reaches beyond its storage.
fn gather_one(tensor: &TensorRef, bytes: &[u8], order: ByteOrder) -> Option<WeightTensor> {
    let StorageRef { dtype, start, length, .. } = tensor.storage;
    let size = dtype.size();
    let shape: Vec<usize> = tensor.shape.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<_>>()?;
    let strides: Vec<usize> = tensor.strides.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<_>>()?;
    let count = shape.iter().try_fold(1_usize, |count, &axis| count.checked_mul(axis))?;
    if count == 0 {
        return Some(WeightTensor { shape, dtype, bytes: Vec::new() });
    }
    let mut last = tensor.offset;
    for (&axis, &stride) in tensor.shape.iter().zip(&tensor.strides) {
        last = last.checked_add((axis - 1).checked_mul(stride)?)?;
    }
    let end = usize::try_from(start.checked_add(last)?.checked_add(1)?).ok()?;
    if last >= length || end.checked_mul(size)? > bytes.len() {
        return None;
    }
    let first = usize::try_from(start + tensor.offset).ok()?;
    let mut out = Vec::with_capacity(count * size);
    if is_contiguous(&shape, &strides) {
        out.extend_from_slice(&bytes[first * size..(first + count) * size]);
    } else {
        let mut index = vec![0; shape.len()];
        let mut at = first;
        for _ in 0..count {
            out.extend_from_slice(&bytes[at * size..(at + 1) * size]);
            // The next index, innermost axis first, as an odometer counts.
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                at += strides[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                at -= shape[axis] * strides[axis];
                index[axis] = 0;
            }
        }
    }
    if order == ByteOrder::Big {
        out.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    Some(WeightTensor { shape, dtype, bytes: out })
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1_usize;
    shape.iter().zip(strides).rev().all(|(&axis, &stride)| {
        let fits = axis == 1 || stride == expected;
        expected = expected.saturating_mul(axis);
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::DType;

    fn tensor(offset: u64, shape: &[u64], strides: &[u64]) -> TensorRef {
        let storage = StorageRef { key: "0".into(), dtype: DType::U8, root_length: 12, start: 2, length: 9 };
        TensorRef { storage, offset, shape: shape.to_vec(), strides: strides.to_vec() }
    }

    #[track_caller]
    fn check(tensor: &TensorRef, expected: Option<&[u8]>) {
        let bytes: Vec<u8> = (0..12).collect();
        let found = gather_one(tensor, &bytes, ByteOrder::Little);
        assert_eq!(found.map(|tensor| tensor.bytes).as_deref(), expected);
    }

    #[test]
    fn strides_and_offsets_are_honoured() {
        check(&tensor(0, &[2, 3], &[3, 1]), Some(&[2, 3, 4, 5, 6, 7]));
        check(&tensor(0, &[2, 3], &[1, 2]), Some(&[2, 4, 6, 3, 5, 7]));
        check(&tensor(3, &[2, 1, 3], &[3, 77, 1]), Some(&[5, 6, 7, 8, 9, 10]));
        check(&tensor(1, &[2, 2], &[0, 4]), Some(&[3, 7, 3, 7]));
        check(&tensor(8, &[], &[]), Some(&[10]));
        check(&tensor(90, &[0, 5], &[5, 1]), Some(&[]));
    }

    #[test]
    fn nothing_beyond_the_view_is_read() {
        check(&tensor(9, &[], &[]), None);
        check(&tensor(4, &[2, 3], &[3, 1]), None);
        check(&tensor(u64::MAX, &[1], &[1]), None);
        check(&tensor(0, &[u64::MAX, 2], &[0, 0]), None);
        check(&tensor(0, &[3], &[u64::MAX]), None);
    }

    #[test]
    fn elements_of_another_byte_order_are_turned() {
        let storage = StorageRef { key: "0".into(), dtype: DType::I16, root_length: 2, start: 0, length: 2 };
        let tensor = TensorRef { storage, offset: 0, shape: vec![2], strides: vec![1] };
        let found = gather_one(&tensor, &[0, 1, 0, 2], ByteOrder::Big).unwrap();
        assert_eq!(found.to_f32().unwrap(), [1.0, 2.0]);
    }
}
