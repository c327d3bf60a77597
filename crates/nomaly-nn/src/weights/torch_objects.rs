//! The few Python names that a file of tensors needs, and the resulting tensors.

use std::rc::Rc;

use super::budget::Budget;
use super::pickle::{Globals, Heap, Value};
use super::{DType, WeightsError};

/// A name that is allowed in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2`.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`.
    RebuildParameter,
    /// `torch.FloatStorage` and its like.
    Storage(DType),
    /// `torch.Size`.
    Size,
}

/// A run of elements in one of the file's storages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StorageRef {
    pub(super) key: Rc<str>,
    pub(super) dtype: DType,
    /// Elements of the whole storage.
    pub(super) root_length: u64,
    /// The first element of this view of it.
    pub(super) start: u64,
    /// Elements of this view of it.
    pub(super) length: u64,
}

/// A strided window on a storage; offset and strides count elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorRef {
    pub(super) storage: StorageRef,
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    pub(super) strides: Vec<u64>,
}

impl TensorRef {
    /// Bytes of the reference itself, with allocation overhead.
    pub(super) fn memory(&self) -> usize {
        2 * size_of::<Self>() + (self.shape.len() + self.strides.len()) * size_of::<u64>()
    }
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Storage(StorageRef),
    Tensor(TensorRef),
}

pub(super) type TorchValue = Value<Global, Object>;
pub(super) type TorchHeap = Heap<Global, Object>;

/// The allowed names.
pub(super) struct TorchGlobals;

/// Tensors have at most this many axes in PyTorch.
const MAX_AXES: usize = 64;

impl Globals for TorchGlobals {
    type Global = Global;
    type Object = Object;

    fn find(&self, module: &str, name: &str) -> Result<Global, WeightsError> {
        let found = match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
            ("torch", "Size") => Some(Global::Size),
            ("torch" | "torch.cuda", storage) => storage_type(storage).map(Global::Storage),
            _ => None,
        };
        found.ok_or_else(|| WeightsError::ForbiddenGlobal { module: module.to_owned(), name: name.to_owned() })
    }

    fn call(
        &self,
        global: Global,
        arguments: &[TorchValue],
        heap: &mut TorchHeap,
        budget: &mut Budget,
    ) -> Result<TorchValue, WeightsError> {
        match (global, arguments) {
            (Global::OrderedDict, []) => {
                budget.spend(size_of::<[TorchValue; 3]>())?;
                Ok(Value::Dict(heap.dict()))
            }
            (Global::OrderedDict, [Value::List(items)]) => {
                // Moved, not copied, so that a list passed repeatedly does not multiply.
                let items = std::mem::take(&mut heap.sequences[*items]);
                budget.spend_each(items.len() + 1, size_of::<[TorchValue; 6]>())?;
                let mut pairs = Vec::with_capacity(items.len());
                for item in &items {
                    let (Value::Tuple(pair) | Value::List(pair)) = item else {
                        return Err(WeightsError::torch("an OrderedDict has items that are not pairs"));
                    };
                    let [key, value] = heap.sequences[*pair].as_slice() else {
                        return Err(WeightsError::torch("an OrderedDict has items that are not pairs"));
                    };
                    pairs.push((key.clone(), value.clone()));
                }
                let dict = heap.dict();
                heap.dicts[dict] = pairs;
                Ok(Value::Dict(dict))
            }
            (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
                let Some(Object::Storage(storage)) = object(storage) else {
                    return Err(WeightsError::torch("a tensor is not on a storage"));
                };
                let tensor = TensorRef {
                    storage: storage.clone(),
                    offset: natural(offset, "a storage offset")?,
                    shape: naturals(shape, heap, "a shape")?,
                    strides: naturals(strides, heap, "strides")?,
                };
                if tensor.shape.len() != tensor.strides.len() {
                    return Err(WeightsError::torch("a tensor has not as many strides as axes"));
                }
                budget.spend(tensor.memory())?;
                Ok(Value::Object(Rc::new(Object::Tensor(tensor))))
            }
            (Global::RebuildParameter, [tensor, ..]) if matches!(object(tensor), Some(Object::Tensor(_))) => {
                Ok(tensor.clone())
            }
            (Global::Size, [size @ Value::Tuple(_)]) => Ok(size.clone()),
            _ => Err(WeightsError::torch(format!("{global:?} is called with arguments of another kind"))),
        }
    }

    /// `('storage', type, key, location, length)`, in the older format followed by `None` or `(key, start, length)` of
    /// a view.
    fn persistent(&self, id: &TorchValue, heap: &TorchHeap) -> Result<TorchValue, WeightsError> {
        let malformed = || WeightsError::torch("a reference to a storage is malformed");
        let parts = heap.tuple(id).ok_or_else(malformed)?;
        let [Value::Str(kind), Value::Global(Global::Storage(dtype)), Value::Str(key), _, length, view @ ..] = parts
        else {
            return Err(malformed());
        };
        if &**kind != "storage" {
            return Err(malformed());
        }
        let root_length = natural(length, "a storage's length")?;
        let (start, length) = match view {
            [] | [Value::None] => (0, root_length),
            [view] => match heap.tuple(view) {
                Some([_, start, length]) => (natural(start, "a view's start")?, natural(length, "a view's length")?),
                _ => return Err(malformed()),
            },
            _ => return Err(malformed()),
        };
        if start.checked_add(length).is_none_or(|end| end > root_length) {
            return Err(WeightsError::torch(format!("a view of the storage {key} leads beyond its end")));
        }
        let storage = StorageRef { key: key.clone(), dtype: *dtype, root_length, start, length };
        Ok(Value::Object(Rc::new(Object::Storage(storage))))
    }
}

fn storage_type(name: &str) -> Option<DType> {
    Some(match name {
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "CharStorage" => DType::I8,
        "ShortStorage" => DType::I16,
        "IntStorage" => DType::I32,
        "LongStorage" => DType::I64,
        "ByteStorage" => DType::U8,
        "BoolStorage" => DType::Bool,
        _ => return None,
    })
}

fn object(value: &TorchValue) -> Option<&Object> {
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

fn natural(value: &TorchValue, what: &str) -> Result<u64, WeightsError> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
    .ok_or_else(|| WeightsError::torch(format!("{what} is not a natural number")))
}

fn naturals(value: &TorchValue, heap: &TorchHeap, what: &str) -> Result<Vec<u64>, WeightsError> {
    let items = heap.tuple(value).ok_or_else(|| WeightsError::torch(format!("{what} is not a tuple")))?;
    if items.len() > MAX_AXES {
        return Err(WeightsError::torch(format!("{what} has {} axes", items.len())));
    }
    items.iter().map(|item| natural(item, what)).collect()
}
