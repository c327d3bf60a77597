//! Tensors in the form of files.

use std::collections::BTreeMap;
use std::fmt;

use half::{bf16, f16};

use super::WeightsError;

/// Tensors by name. Names are those of the model's state dict: `_conv_stem.weight`, `layer1.0.bn1.running_var`.
pub type Weights = BTreeMap<String, WeightTensor>;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE half precision.
    F16,
    /// The upper half of an [`DType::F32`].
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// Signed integer of 8 bits.
    I8,
    /// Signed integer of 16 bits.
    I16,
    /// Signed integer of 32 bits.
    I32,
    /// Signed integer of 64 bits.
    I64,
    /// Unsigned integer of 8 bits.
    U8,
    /// Unsigned integer of 32 bits.
    U32,
    /// One byte that is 0 or 1.
    Bool,
}

impl DType {
    const ALL: [Self; 11] = [
        Self::F16,
        Self::BF16,
        Self::F32,
        Self::F64,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::U8,
        Self::U32,
        Self::Bool,
    ];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// The name in safetensors files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F32 => "F32",
            Self::F64 => "F64",
            Self::I8 => "I8",
            Self::I16 => "I16",
            Self::I32 => "I32",
            Self::I64 => "I64",
            Self::U8 => "U8",
            Self::U32 => "U32",
            Self::Bool => "BOOL",
        }
    }

    /// The type that safetensors files call `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A tensor in memory, in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightTensor {
    /// Sizes of the axes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The type of the elements.
    pub dtype: DType,
    /// The elements in little-endian order, without gaps.
    pub bytes: Vec<u8>,
}

impl WeightTensor {
    /// A tensor of single precision. `values` must have one number per element, which [`WeightTensor::to_f32`] checks.
    pub fn from_f32(shape: Vec<usize>, values: &[f32]) -> Self {
        Self { shape, dtype: DType::F32, bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }

    /// The number of elements by the shape, if it does not overflow.
    pub fn element_count(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size))
    }

    /// The elements in single precision, rounded to nearest.
    ///
    /// # Errors
    /// [`WeightsError::Size`] if the number of bytes does not match the shape.
    pub fn to_f32(&self) -> Result<Vec<f32>, WeightsError> {
        self.check()?;
        let bytes = &self.bytes;
        Ok(match self.dtype {
            DType::F16 => convert(bytes, |b| f16::from_le_bytes(b).to_f32()),
            DType::BF16 => convert(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            DType::F32 => convert(bytes, f32::from_le_bytes),
            DType::F64 => convert(bytes, |b| f64::from_le_bytes(b) as f32),
            DType::I8 => convert(bytes, |b| f32::from(i8::from_le_bytes(b))),
            DType::I16 => convert(bytes, |b| f32::from(i16::from_le_bytes(b))),
            DType::I32 => convert(bytes, |b| i32::from_le_bytes(b) as f32),
            DType::I64 => convert(bytes, |b| i64::from_le_bytes(b) as f32),
            DType::U32 => convert(bytes, |b| u32::from_le_bytes(b) as f32),
            DType::U8 | DType::Bool => convert(bytes, |b| f32::from(u8::from_le_bytes(b))),
        })
    }

    /// The same tensor in half precision, rounded to nearest, ties to even.
    ///
    /// # Errors
    /// [`WeightsError::Overflow`] if a finite number becomes infinite (above 65 504); `name` is for that message.
    pub fn to_f16(&self, name: &str) -> Result<Self, WeightsError> {
        let values = self.to_f32()?;
        let mut bytes = Vec::with_capacity(2 * values.len());
        for value in values {
            let half = f16::from_f32(value);
            if half.is_infinite() && value.is_finite() {
                return Err(WeightsError::Overflow { tensor: name.to_owned(), value });
            }
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        Ok(Self { shape: self.shape.clone(), dtype: DType::F16, bytes })
    }

    /// Compares the bytes with the shape.
    pub(super) fn check(&self) -> Result<(), WeightsError> {
        let expected = self.element_count().and_then(|count| count.checked_mul(self.dtype.size()));
        if expected == Some(self.bytes.len()) {
            return Ok(());
        }
        let (shape, dtype, bytes) = (self.shape.clone(), self.dtype.name(), self.bytes.len());
        Err(WeightsError::Size { shape, dtype, bytes })
    }
}

/// Converts whole elements of `N` bytes.
fn convert<const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| element(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_becomes_single_precision() {
        let cases: [(DType, Vec<u8>, f32); 11] = [
            (DType::F16, f16::from_f32(-1.5).to_le_bytes().to_vec(), -1.5),
            (DType::BF16, bf16::from_f32(-1.5).to_le_bytes().to_vec(), -1.5),
            (DType::F32, 0.1_f32.to_le_bytes().to_vec(), 0.1),
            (DType::F64, 0.1_f64.to_le_bytes().to_vec(), 0.1),
            (DType::I8, vec![0xff], -1.0),
            (DType::I16, (-300_i16).to_le_bytes().to_vec(), -300.0),
            (DType::I32, (-70_000_i32).to_le_bytes().to_vec(), -70_000.0),
            (DType::I64, 5_i64.to_le_bytes().to_vec(), 5.0),
            (DType::U8, vec![0xff], 255.0),
            (DType::U32, 70_000_u32.to_le_bytes().to_vec(), 70_000.0),
            (DType::Bool, vec![1], 1.0),
        ];
        for (dtype, bytes, expected) in cases {
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
            assert_eq!(bytes.len(), dtype.size());
            let tensor = WeightTensor { shape: vec![], dtype, bytes };
            assert_eq!(tensor.to_f32().unwrap(), [expected], "{dtype}");
        }
    }

    #[test]
    fn bytes_that_do_not_fit_the_shape_are_an_error() {
        for shape in [vec![3], vec![2, 2], vec![usize::MAX, 2], vec![usize::MAX, 0, 3]] {
            let tensor = WeightTensor { shape, dtype: DType::F32, bytes: vec![0; 8] };
            assert!(matches!(tensor.to_f32(), Err(WeightsError::Size { bytes: 8, .. })));
        }
    }

    #[test]
    fn half_precision_rounds_and_refuses_what_is_too_large() {
        let tensor = WeightTensor::from_f32(vec![3], &[0.1, 65_504.0, f32::INFINITY]);
        let half = tensor.to_f16("t").unwrap();
        assert_eq!(half.to_f32().unwrap(), [0.099_975_586, 65_504.0, f32::INFINITY]);
        let tensor = WeightTensor::from_f32(vec![1], &[70_000.0]);
        assert!(matches!(tensor.to_f16("t"), Err(WeightsError::Overflow { value: 70_000.0, .. })));
    }
}
