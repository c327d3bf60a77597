//! Weights as safetensors: a length, a JSON header, the bytes. Format: <https://github.com/huggingface/safetensors>.

use std::collections::BTreeMap;
use std::io::{self, Write};

use half::f16;
use safetensors::SafeTensors;
use serde::Serialize;

use super::{DType, WeightTensor, Weights, WeightsError};

/// Metadata in the header: licence, source, backbone.
pub type Metadata = BTreeMap<String, String>;

/// Reads the tensors and the metadata of a safetensors file.
///
/// # Errors
/// [`WeightsError::Safetensors`] for a header that is malformed or does not match the bytes, and
/// [`WeightsError::UnsupportedDType`].
pub fn from_safetensors(bytes: &[u8]) -> Result<(Weights, Metadata), WeightsError> {
    let invalid = |error: safetensors::SafeTensorError| WeightsError::Safetensors { reason: error.to_string() };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    let file = SafeTensors::deserialize(bytes).map_err(invalid)?;
    let mut weights = Weights::new();
    for (name, view) in file.iter() {
        let dtype = format!("{:?}", view.dtype());
        let dtype = DType::from_name(&dtype)
            .ok_or_else(|| WeightsError::UnsupportedDType { tensor: name.to_owned(), dtype: dtype.clone() })?;
        let tensor = WeightTensor { shape: view.shape().to_vec(), dtype, bytes: view.data().to_vec() };
        tensor.check()?;
        weights.insert(name.to_owned(), tensor);
    }
    Ok((weights, metadata_of(&header)))
}

/// The header entry of one tensor.
#[derive(Serialize)]
struct Info<'a> {
    dtype: &'static str,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

/// An entry of the header: the metadata under its reserved name, or a tensor.
#[derive(Serialize)]
#[serde(untagged)]
enum Item<'a> {
    Metadata(&'a Metadata),
    Tensor(Info<'a>),
}

/// The reserved name of the metadata.
const METADATA: &str = "__metadata__";

/// Borrowed numbers of a tensor to be written.
#[derive(Clone, Copy, Debug)]
pub enum TensorSource<'a> {
    /// A tensor read from a file.
    Stored(&'a WeightTensor),
    /// Numbers of half precision.
    F16 {
        /// Length of each axis.
        shape: &'a [usize],
        /// Row-major.
        values: &'a [f16],
    },
    /// Numbers of single precision.
    F32 {
        /// Length of each axis.
        shape: &'a [usize],
        /// Row-major.
        values: &'a [f32],
    },
    /// Numbers of double precision.
    F64 {
        /// Length of each axis.
        shape: &'a [usize],
        /// Row-major.
        values: &'a [f64],
    },
    /// Whole numbers.
    U32 {
        /// Length of each axis.
        shape: &'a [usize],
        /// Row-major.
        values: &'a [u32],
    },
}

/// Numbers that are turned into bytes at a time.
const CHUNK: usize = 1 << 14;

impl TensorSource<'_> {
    fn shape(&self) -> &[usize] {
        match self {
            Self::Stored(tensor) => &tensor.shape,
            Self::F16 { shape, .. } | Self::F32 { shape, .. } | Self::F64 { shape, .. } | Self::U32 { shape, .. } => {
                shape
            }
        }
    }

    fn dtype(&self) -> DType {
        match self {
            Self::Stored(tensor) => tensor.dtype,
            Self::F16 { .. } => DType::F16,
            Self::F32 { .. } => DType::F32,
            Self::F64 { .. } => DType::F64,
            Self::U32 { .. } => DType::U32,
        }
    }

    /// The number of bytes, checked against the shape.
    fn len(&self) -> Result<usize, WeightsError> {
        let (count, size) = match self {
            Self::Stored(tensor) => {
                tensor.check()?;
                return Ok(tensor.bytes.len());
            }
            Self::F16 { values, .. } => (values.len(), size_of::<f16>()),
            Self::F32 { values, .. } => (values.len(), size_of::<f32>()),
            Self::F64 { values, .. } => (values.len(), size_of::<f64>()),
            Self::U32 { values, .. } => (values.len(), size_of::<u32>()),
        };
        let expected = self.shape().iter().try_fold(1usize, |all, &axis| all.checked_mul(axis));
        if expected == Some(count) {
            Ok(count * size)
        } else {
            let reason = format!("the shape {:?} does not hold {count} numbers", self.shape());
            Err(WeightsError::Safetensors { reason })
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Stored(tensor) => out.write_all(&tensor.bytes),
            Self::F16 { values, .. } => write_numbers(out, values, |value, bytes| bytes.extend(value.to_le_bytes())),
            Self::F32 { values, .. } => write_numbers(out, values, |value, bytes| bytes.extend(value.to_le_bytes())),
            Self::F64 { values, .. } => write_numbers(out, values, |value, bytes| bytes.extend(value.to_le_bytes())),
            Self::U32 { values, .. } => write_numbers(out, values, |value, bytes| bytes.extend(value.to_le_bytes())),
        }
    }
}

/// Writes numbers without copying all of them.
fn write_numbers<T: Copy>(out: &mut impl Write, values: &[T], push: impl Fn(T, &mut Vec<u8>)) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(CHUNK * size_of::<T>());
    for values in values.chunks(CHUNK) {
        bytes.clear();
        values.iter().for_each(|&value| push(value, &mut bytes));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Writes a safetensors file: the same tensors and metadata always give the same bytes.
///
/// # Errors
/// [`WeightsError::Safetensors`] for a tensor that has the reserved name `__metadata__` or whose numbers do not fit its
/// shape, [`WeightsError::Size`] for a stored tensor of that kind, and [`WeightsError::Write`] if `out` fails.
pub fn write_safetensors(
    out: &mut impl Write,
    tensors: &BTreeMap<String, TensorSource<'_>>,
    metadata: &Metadata,
) -> Result<(), WeightsError> {
    let order = wide_first(tensors);
    let header = header(&order, metadata)?;
    write_parts(out, &header, &order).map_err(|error| WeightsError::Write { reason: error.to_string() })
}

/// A tensor and its name.
pub(super) type Named<'a> = (&'a str, TensorSource<'a>);

/// The order of the numbers in a file: wide elements first, so that each begins at a multiple of its size.
pub(super) fn wide_first<'a>(tensors: &'a BTreeMap<String, TensorSource<'_>>) -> Vec<Named<'a>> {
    let mut order: Vec<Named<'_>> = tensors.iter().map(|(name, tensor)| (name.as_str(), *tensor)).collect();
    order.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype().size()));
    order
}

/// The header for tensors in `order`, without its length.
pub(super) fn header(order: &[Named<'_>], metadata: &Metadata) -> Result<Vec<u8>, WeightsError> {
    let mut items = BTreeMap::new();
    let mut end = 0;
    for (name, tensor) in order {
        if *name == METADATA {
            return Err(WeightsError::Safetensors { reason: format!("a tensor is called {METADATA}") });
        }
        let start = end;
        end += tensor.len()?;
        let info = Info { dtype: tensor.dtype().name(), shape: tensor.shape(), data_offsets: [start, end] };
        items.insert(*name, Item::Tensor(info));
    }
    if !metadata.is_empty() {
        items.insert(METADATA, Item::Metadata(metadata));
    }
    let mut text =
        serde_json::to_vec(&items).map_err(|error| WeightsError::Safetensors { reason: error.to_string() })?;
    text.resize(text.len().next_multiple_of(8), b' ');
    Ok(text)
}

/// Writes the length of the header, the header, and the numbers of `order`.
pub(super) fn write_parts(out: &mut impl Write, header: &[u8], order: &[Named<'_>]) -> io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    order.iter().try_for_each(|(_, tensor)| tensor.write(out))
}

/// The metadata of a safetensors file, without reading its numbers.
///
/// # Errors
/// [`WeightsError::Safetensors`] for a header that is malformed or does not match the length of the file.
pub fn safetensors_metadata(bytes: &[u8]) -> Result<Metadata, WeightsError> {
    let invalid = |error: safetensors::SafeTensorError| WeightsError::Safetensors { reason: error.to_string() };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    Ok(metadata_of(&header))
}

fn metadata_of(header: &safetensors::tensor::Metadata) -> Metadata {
    header.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The bytes of a safetensors file, as [`write_safetensors`] writes it.
///
/// # Errors
/// As [`write_safetensors`].
pub fn to_safetensors(weights: &Weights, metadata: &Metadata) -> Result<Vec<u8>, WeightsError> {
    let tensors = weights.iter().map(|(name, tensor)| (name.clone(), TensorSource::Stored(tensor))).collect();
    let mut bytes = Vec::new();
    write_safetensors(&mut bytes, &tensors, metadata)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> (Weights, Metadata) {
        let mut weights = Weights::new();
        weights.insert("b.weight".into(), WeightTensor::from_f32(vec![2, 2], &[1.0, 2.0, 3.0, 4.0]));
        weights.insert("a.weight".into(), WeightTensor::from_f32(vec![3], &[0.5; 3]).to_f16("a").unwrap());
        let count = WeightTensor { shape: vec![], dtype: DType::I64, bytes: 7_i64.to_le_bytes().to_vec() };
        weights.insert("n".into(), count);
        weights.insert("empty".into(), WeightTensor { shape: vec![0, 3], dtype: DType::U8, bytes: vec![] });
        let metadata = [("licence", "MIT"), ("backbone", "x"), ("quotes", "\"é\\")];
        (weights, metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
    }

    #[test]
    fn what_is_written_is_read() {
        let (weights, metadata) = sample();
        let bytes = to_safetensors(&weights, &metadata).unwrap();
        assert_eq!(from_safetensors(&bytes).unwrap(), (weights.clone(), metadata.clone()));
        assert_eq!(bytes, to_safetensors(&weights, &metadata).unwrap());
        let none = to_safetensors(&Weights::new(), &Metadata::new()).unwrap();
        assert_eq!(from_safetensors(&none).unwrap(), (Weights::new(), Metadata::new()));
    }

    #[test]
    fn numbers_are_written_as_tensors_are() {
        let values: Vec<f32> = (0..2 * CHUNK as u32 + 3).map(|value| value as f32).collect();
        let (shape, wide) = ([values.len()], [1.5f64, -2.0]);
        let sources = [
            ("single".to_owned(), TensorSource::F32 { shape: &shape, values: &values }),
            ("double".to_owned(), TensorSource::F64 { shape: &[2, 1], values: &wide }),
        ];
        let mut bytes = Vec::new();
        write_safetensors(&mut bytes, &sources.into(), &Metadata::new()).unwrap();
        let double = WeightTensor {
            shape: vec![2, 1],
            dtype: DType::F64,
            bytes: wide.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        let stored =
            [("single".to_owned(), WeightTensor::from_f32(shape.to_vec(), &values)), ("double".to_owned(), double)];
        assert_eq!(bytes, to_safetensors(&stored.into(), &Metadata::new()).unwrap());
        let wrong = [("x".to_owned(), TensorSource::F32 { shape: &[2, 2], values: &values })];
        assert!(write_safetensors(&mut Vec::new(), &wrong.into(), &Metadata::new()).is_err());
    }

    #[test]
    fn the_reserved_name_is_refused() {
        let weights = Weights::from([(METADATA.to_owned(), WeightTensor::from_f32(vec![1], &[1.0]))]);
        assert!(to_safetensors(&weights, &Metadata::new()).is_err());
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_other_tensors_but_never_a_panic(
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
            shorten in any::<bool>(),
        ) {
            let (weights, metadata) = sample();
            let mut bytes = to_safetensors(&weights, &metadata).unwrap();
            for (index, value) in flips {
                let index = index.index(bytes.len());
                bytes[index] = value;
            }
            if shorten {
                bytes.truncate(cut.index(bytes.len()));
            }
            if let Ok((weights, _)) = from_safetensors(&bytes) {
                for tensor in weights.values() {
                    tensor.to_f32().unwrap();
                }
            }
        }
    }
}
